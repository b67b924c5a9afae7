"""What we rely on inside aiosmtpd, and the loop we run on: seen when it changes."""

import asyncio
import inspect
import re
import socket
import ssl
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvloop
from aiosmtpd.smtp import SMTP

from proxy.listener.login import Login
from proxy.listener.reader import Reader
from proxy.listener.session import SmtpSession
from tests.support.listening import MESSAGE, front
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until


async def test_the_reader_gives_what_it_has_in_order() -> None:
    reader = Reader(limit=100)
    reader.feed_data(b"one\ntw")
    assert reader.pending
    assert reader.has_line
    assert reader.take_line() == b"one\n"
    assert reader.take_all() == b"tw"
    assert not reader.pending
    assert reader.take_all() == b""
    assert reader.take_line() is None
    assert not reader.has_line
    reader.feed_data(b"three")
    assert reader.keep_last(2) == 3
    assert reader.keep_last(2) == 0
    reader.put_back(b"rest\n")
    reader.feed_eof()
    assert reader.ended
    assert await reader.readline() == b"eerest\n"
    assert await reader.readline() == b""


async def test_a_dialog_waits_for_its_line_and_hears_of_the_end() -> None:
    reader = Reader(limit=100)
    for octets, line, crlf in ((b"\n", b"one\n", False), (b"\r\n", b"one\r\n", True)):
        waiting = asyncio.ensure_future(reader.readline())
        reader.feed_data(b"one")
        await asyncio.sleep(0)
        assert not waiting.done()
        reader.feed_data(octets)
        assert await waiting == line
        assert reader.crlf is crlf
    waiting = asyncio.ensure_future(reader.readline())
    reader.feed_data(b"half")
    await asyncio.sleep(0)
    reader.feed_eof()
    assert await waiting == b"half"


async def test_a_dialogs_line_over_the_limit_is_taken_as_a_whole() -> None:
    reader, transport = Reader(limit=10), HeldBack()
    reader.set_transport(transport)
    waiting = asyncio.ensure_future(reader.readline())
    for _ in range(10):
        reader.feed_data(b"x" * 30)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert transport.reading
    reader.feed_data(b"y\nnext\n")
    with pytest.raises(ValueError, match="too long"):
        await waiting
    assert await reader.readline() == b"next\n"


class HeldBack(asyncio.Transport):
    """A transport that only notes whether it may read."""

    reading = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


async def test_the_reader_holds_a_client_back_until_its_lines_are_taken() -> None:
    reader, transport = Reader(limit=10), HeldBack()
    reader.set_transport(transport)
    reader.feed_data(b"one\n" + b"x" * 18 + b"\n")
    assert not transport.reading
    assert reader.take_line() == b"one\n"
    assert not transport.reading
    assert reader.take_line() == b"x" * 18 + b"\n"
    assert transport.reading


def test_no_command_of_aiosmtpd_answers_in_our_stead() -> None:
    assert not issubclass(SmtpSession, SMTP)
    theirs = {name for name in vars(SMTP) if name.startswith("smtp_")}
    assert {name.encode()[5:] for name in theirs} <= SmtpSession.commands.keys()


def test_the_dialogs_that_are_inherited_use_only_what_a_login_has() -> None:
    source = "".join(
        inspect.getsource(one) for one in (SMTP.auth_PLAIN, SMTP.auth_LOGIN, SMTP.challenge_auth)
    )
    used = set(re.findall(r"self\.(\w+)", source))
    assert used <= {
        "push",
        "session",
        "challenge_auth",
        "_authenticate",
        "_reader",
        "AuthLoginUsernameChallenge",
        "AuthLoginPasswordChallenge",
    }
    assert set(re.findall(r"self\._reader\.(\w+)", source)) == {"readline"}
    assert Login.push is not SMTP.push
    assert Login._authenticate is not SMTP._authenticate


async def test_no_state_is_shared_between_sessions(redis_server: RedisServer) -> None:
    async with front(redis_server) as office:
        first, second = await office.dial(), await office.dial()
        await first.begin(data=False)
        await second.say("EHLO other")
        assert (await first.say("DATA")).startswith("354")
        assert await second.say("DATA") == "503 5.5.1 First comes MAIL"
        assert SMTP.command_size_limits == {}


# On uvloop, which is what the processes run on.


def on_uvloop(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


def test_on_uvloop_mail_is_kept_pipelined_large_and_after_a_lost_client(
    redis_server: RedisServer,
) -> None:
    async def main() -> None:
        async with front(redis_server) as office:
            gone = await office.dial()
            await gone.begin()
            gone.send(MESSAGE)
            await wait_until(lambda: office.listener.held, what="octets have come")
            gone.reset()
            await wait_until(lambda: office.listener.held == 0, what="they are forgotten")
            dialog = await office.dial(greeted=False)
            large = MESSAGE + (b"x" * 70 + b"\r\n") * 100_000
            mail = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n"
            dialog.send(b"EHLO x\r\n" + (mail + large + b".\r\n") * 2 + b"QUIT\r\n")
            dialog.writer.write_eof()
            codes = [(await dialog.reply())[:3] for _ in range(11)]
            assert codes == ["220", "250"] + ["250", "250", "354", "250"] * 2 + ["221"]
            assert await dialog.ended()
            assert len(office.kept()) == 2

    on_uvloop(main())


def test_on_uvloop_lf_only_and_smuggling_are_told_apart(redis_server: RedisServer) -> None:
    async def main() -> None:
        async with front(redis_server) as office:
            dialog = await office.dial()
            dialog.send(b"MAIL FROM:<a@example.com>\nRCPT TO:<b@example.net>\nDATA\nx: y\n\nz\n.\n")
            codes = [(await dialog.reply())[:3] for _ in range(4)]
            assert codes == ["250", "250", "354", "250"]
            answer = await dialog.mail(MESSAGE + b"\n.\nMAIL FROM:<evil@example.com>\r\n")
            assert answer.startswith("250 2.0.0 ")
            assert len(office.kept()) == 2

    on_uvloop(main())


def test_on_uvloop_slow_clients_and_those_that_do_not_read_are_cut_off(
    redis_server: RedisServer,
) -> None:
    async def main() -> None:
        async with front(redis_server, limits={"timeout": 0.3}) as office:
            slow, deaf = await office.dial(), await office.dial()
            deaf.writer.transport.pause_reading()  # type: ignore[attr-defined]  # not in its class
            for _ in range(100):
                deaf.send(b"HELP\r\n" * 10_000)
            assert (await slow.reply()).startswith("421 4.4.2 ")
            await wait_until(lambda: office.listener.sessions == 0, what="both are cut off")

    on_uvloop(main())


def test_on_uvloop_starttls_works_and_its_failure_ends_the_session(
    redis_server: RedisServer, data_dir: Path
) -> None:
    authority = trustme.CA()
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(
        str(data_dir / "both.pem")
    )
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    files = {"cert": str(data_dir / "both.pem"), "key": str(data_dir / "both.pem")}
    smtp = [{"address": "127.0.0.1:0", "tls": files}]

    async def main() -> None:
        limits = {"handshake": 0.3}
        async with front(redis_server, listen={"smtp": smtp}, limits=limits) as office:
            silent, broken = await office.dial(), await office.dial()
            for dialog in (silent, broken):
                await dialog.say("STARTTLS")
            broken.send(b"this is not TLS\r\n" * 10)
            await wait_until(lambda: office.listener.sessions == 0, what="both are cut off")
            dialog = await office.dial()
            await dialog.say("STARTTLS")
            await dialog.start_tls(trusting)
            for content in (MESSAGE, MESSAGE + (b"y" * 70 + b"\r\n") * 20_000, MESSAGE):
                assert (await dialog.mail(content)).startswith("250 2.0.0 ")
            assert await dialog.say("QUIT") == "221 2.0.0 Bye"
            assert await dialog.ended()
            assert len(office.kept()) == 3

    on_uvloop(main())


@pytest.mark.parametrize("when", ["idle", "in commit"])
def test_on_uvloop_ending_is_in_order(redis_server: RedisServer, when: str) -> None:
    async def main() -> None:
        async with front(redis_server) as office:
            dialog = await office.dial()
            if when == "in commit":
                await dialog.begin()
                redis_server.pause()
                dialog.send(MESSAGE + b".\r\n")
                await wait_until(lambda: office.listener.held > len(MESSAGE), what="in commit")
            closing = asyncio.create_task(office.listener.close())
            if when == "in commit":
                redis_server.resume()
                assert (await dialog.reply()).startswith("250 2.0.0 ")
            assert await dialog.reply() == "421 4.3.2 Franker is stopping; try again"
            assert await dialog.ended()
            await closing

    on_uvloop(main())


def test_on_uvloop_nothing_slips_in_between_starttls_and_its_reply(
    redis_server: RedisServer, data_dir: Path
) -> None:
    # uvloop reads on at once when a read has filled its buffer: STARTTLS is the end of the first
    # read, and what follows it comes before the next turn of the loop.
    full = b"x" * (256_000 - 12) + b"\r\nSTARTTLS\r\n"
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(
        str(data_dir / "both.pem")
    )
    files = {"cert": str(data_dir / "both.pem"), "key": str(data_dir / "both.pem")}
    smtp = [{"address": "127.0.0.1:0", "tls": files}]

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with front(redis_server, listen={"smtp": smtp}) as office:
            for _ in range(3):
                with socket.create_connection(("127.0.0.1", office.ports[0])) as client:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1_000_000)
                    client.setblocking(False)
                    assert (await loop.sock_recv(client, 1000)).startswith(b"220 ")
                    # The kernel's buffer at the server's end grows with what is read from it.
                    await loop.sock_sendall(client, b"x" * 900_000 + b"\r\n")
                    assert (await loop.sock_recv(client, 1000)).startswith(b"500 ")
                    sent = client.send(full + b"MAIL FROM:<evil@example.com>\r\n")
                    assert sent > len(full)
                    said = b""
                    while more := await loop.sock_recv(client, 1000):
                        said += more
                        assert b"220 " not in said, said
                    assert said.splitlines()[1].startswith(b"503 5.5.1 Nothing may follow ")

    on_uvloop(main())
