"""A session is driven by what arrives: what is obeyed when, and what stands behind it."""

import asyncio
import ssl
from typing import cast

import pytest

from proxy.listener.connection import LINE_LIMIT
from proxy.listener.content import Content
from proxy.listener.door import Door, Office
from proxy.listener.intake import Intake
from proxy.listener.limits import Limits
from proxy.listener.session import SmtpSession
from tests.support.listening import MESSAGE, front
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until


class Line(asyncio.Transport):
    """The server's end of a connection that never closes by itself."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 40_000)})
        self.said = b""
        self.held_back = False

    def write(self, data: object) -> None:
        self.said += cast(bytes, data)

    def is_closing(self) -> bool:
        return False

    def close(self) -> None: ...

    def write_eof(self) -> None: ...

    def pause_reading(self) -> None:
        self.held_back = True

    def resume_reading(self) -> None:
        self.held_back = False


class Everything:
    """An intake that takes any address."""

    wants_users = False

    def check_sender(self, _address: str) -> None: ...

    def check_recipient(self, _address: str) -> None: ...


def begun(network: str, office: Office | None = None) -> tuple[SmtpSession, Line]:
    office = office or Office(cast(Intake, None), Limits(), "mx.example")
    session = SmtpSession(Door(office, networks=[network]), asyncio.get_running_loop())
    line = Line()
    session.connection_made(line)
    return session, line


async def test_commands_are_obeyed_as_they_arrive_without_a_task() -> None:
    session, line = begun("192.0.2.0/24")
    assert line.said == b"220 mx.example ESMTP Franker\r\n"
    before = asyncio.all_tasks()
    session.data_received(b"HELO x\r\nNO")
    session.data_received(b"OP\r\nRSET\r\n")
    assert line.said.split(b"\r\n")[1:] == [
        b"250 mx.example",
        b"250 2.0.0 Ok",
        b"250 2.0.0 Ok",
        b"",
    ]
    assert asyncio.all_tasks() == before
    session.connection_lost(None)


async def test_a_client_that_was_turned_away_is_not_obeyed() -> None:
    session, line = begun("10.0.0.0/8")
    assert line.said.startswith(b"554 5.7.1 ")
    session.data_received(b"HELO x\r\n")
    session.eof_received()
    assert line.said.count(b"\r\n") == 1


async def test_one_that_is_being_closed_is_not_closed_once_more_to_make_room() -> None:
    office = Office(cast(Intake, None), Limits(connections=1), "mx.example")
    first, line = begun("192.0.2.0/24", office)
    first.expire()
    assert line.said.split(b"\r\n")[1].startswith(b"421 4.4.2 ")
    _, other = begun("192.0.2.0/24", office)
    assert other.said.startswith(b"421 4.3.2 ")
    first.connection_lost(None)
    assert begun("192.0.2.0/24", office)[1].said.startswith(b"220 ")


async def test_a_dialog_ends_no_earlier_than_what_is_done_for_its_client() -> None:
    office = Office(cast(Intake, None), Limits(), "mx.example")
    session, _ = begun("192.0.2.0/24", office)
    (dialog,) = office.tasks
    kept = asyncio.get_running_loop().create_future()

    async def work() -> None:
        await kept

    session.begin(work())
    session.connection_lost(None)
    assert len(office.tasks) == 2
    assert not dialog.done()
    kept.set_result(None)
    await dialog
    assert not office.tasks


async def test_a_client_whose_mail_was_in_hand_at_the_stop_hears_so_right_after_it() -> None:
    office = Office(cast(Intake, None), Limits(), "mx.example")
    session, line = begun("192.0.2.0/24", office)
    session.begin(asyncio.sleep(0))
    office.stopping = True
    session.data_received(b"NOOP\r\n")
    await wait_until(lambda: not office.tasks, what="the dialog's end")
    assert line.said.split(b"\r\n")[1:] == [b"421 4.3.2 Franker is stopping; try again", b""]
    session.connection_lost(None)


async def test_each_long_line_is_measured_by_itself() -> None:
    session, line = begun("192.0.2.0/24")
    for _ in range(12):
        session.data_received(b"x" * 100_000)
        session.data_received(b"\r\n")
    session.data_received(b"NOOP\r\n")
    answers = line.said.split(b"\r\n")[1:-1]
    assert answers == [b"500 5.5.2 Command line too long"] * 12 + [b"250 2.0.0 Ok"]
    session.connection_lost(None)


async def test_replies_to_a_client_that_does_not_read_wait_and_so_do_its_commands() -> None:
    session, line = begun("192.0.2.0/24")
    session.pause_writing()
    session.data_received(b"NOOP\r\nHELP\r\n")
    assert line.said.count(b"\r\n") == 1
    session.resume_writing()
    assert line.said.count(b"\r\n") == 3
    session.connection_lost(None)


async def test_what_comes_while_a_message_is_being_kept_is_obeyed_after_it(
    redis_server: RedisServer,
) -> None:
    async with front(redis_server) as office:
        dialog = await office.dial()
        await dialog.begin()
        redis_server.pause()
        dialog.send(MESSAGE + b".\r\n")
        await wait_until(lambda: office.listener.held > len(MESSAGE), what="in commit")
        dialog.send(b"NOOP\r\nVRFY x\r\n")
        other = await office.dial()
        assert await other.say("NOOP") == "250 2.0.0 Ok"
        redis_server.resume()
        assert (await dialog.reply()).startswith("250 2.0.0 Ok: queued as ")
        assert await dialog.reply() == "250 2.0.0 Ok"
        assert (await dialog.reply()).startswith("252 ")


async def test_a_crlf_within_a_message_is_remembered_for_the_next(
    redis_server: RedisServer,
) -> None:
    async with front(redis_server) as office:
        dialog = await office.dial()
        envelope = b"MAIL FROM:<a@example.com>\nRCPT TO:<b@example.net>\nDATA\n"
        dialog.send(envelope + b"Subject: x\n\none\r\n.\r\n" + envelope)
        codes = [(await dialog.reply())[:3] for _ in range(7)]
        assert codes == ["250", "250", "354", "250", "250", "250", "354"]
        dialog.send(b"Subject: y\n\ntwo\n.\nMAIL FROM:<evil@example.com>\n\r\n.\r\n")
        assert (await dialog.reply()).startswith("250 2.0.0 Ok: queued as ")
        assert await dialog.say("RSET") == "250 2.0.0 Ok"
        assert b"evil@example.com" in office.kept()[1].body


async def test_a_client_that_closes_its_side_within_a_message_is_let_go(
    redis_server: RedisServer,
) -> None:
    async with front(redis_server) as office:
        dialog = await office.dial()
        await dialog.begin()
        dialog.send(MESSAGE)
        dialog.writer.write_eof()
        assert await dialog.ended(timeout=5)
        assert office.listener.held == 0


async def test_a_client_that_had_closed_its_side_before_its_data_was_obeyed_is_let_go(
    redis_server: RedisServer,
) -> None:
    async with front(redis_server) as office:
        dialog = await office.dial()
        await dialog.begin()
        redis_server.pause()
        dialog.send(MESSAGE + b".\r\n")
        await wait_until(lambda: office.listener.held > len(MESSAGE), what="in commit")
        dialog.send(b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\nDATA\r\nhalf")
        dialog.writer.write_eof()
        (session,) = cast(set[SmtpSession], office.listener._office.sessions)
        await wait_until(lambda: session._reader.ended, what="it has closed its side")
        redis_server.resume()
        assert [(await dialog.reply())[:3] for _ in range(4)] == ["250", "250", "250", "354"]
        assert await dialog.ended(timeout=5)
        assert office.listener.held == 0
        assert len(office.kept()) == 1


async def test_a_line_of_auth_that_is_too_long_is_refused_once_and_none_of_it_obeyed(
    redis_server: RedisServer,
) -> None:
    smtp = [{"address": "127.0.0.1:0", "auth": "accept"}]
    async with front(redis_server, listen={"smtp": smtp}) as office:
        dialog = await office.dial()
        assert (await dialog.say("AUTH PLAIN")).startswith("334")
        dialog.send(b"x" * 200_000)
        assert await dialog.say(b" VRFY x") == "500 5.5.2 Command line too long"
        assert await dialog.say("NOOP") == "250 2.0.0 Ok"


async def test_what_comes_between_starttls_and_its_reply_ends_the_session() -> None:
    office = Office(cast(Intake, None), Limits(), "mx.example")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    door = Door(office, networks=["192.0.2.0/24"], tls=tls)
    session = SmtpSession(door, asyncio.get_running_loop())
    line = Line()
    session.connection_made(line)
    session.data_received(b"STARTTLS\r\n")
    session.data_received(b"MAIL FROM:<evil@example.com>\r\n")  # in the same turn of the loop
    await wait_until(lambda: not office.tasks, what="the dialog's end")
    assert line.said.split(b"\r\n")[1:] == [
        b"503 5.5.1 Nothing may follow STARTTLS before its reply",
        b"",
    ]
    session.connection_lost(None)


async def test_however_much_comes_at_once_others_have_their_turn_every_200_replies() -> None:
    session, line = begun("192.0.2.0/24")
    said = line.said.count(b"\n")
    for _ in range(20):
        session.data_received(b"NOOP\r\n" * 1_000)
        await asyncio.sleep(0)
        assert line.said.count(b"\n") - said <= 2 * 200  # when it came, and in its turn
        said = line.said.count(b"\n")
    await wait_until(lambda: line.said.count(b"\n") == 1 + 20_000, what="all are answered")
    session.connection_lost(None)


@pytest.mark.parametrize("half", [LINE_LIMIT, LINE_LIMIT + 1, LINE_LIMIT + 2])
async def test_a_line_whose_end_was_held_back_is_read_to_its_end(half: int) -> None:
    session, line = begun("192.0.2.0/24")
    session.data_received(b"NOOP\r\n" * 4_000 + b"x" * half)
    await wait_until(lambda: line.said.count(b"\n") == 1 + 4_000, what="the lines are answered")
    await wait_until(lambda: not line.held_back, what="the rest may come", timeout=2)
    session.data_received(b"\r\nNOOP\r\n")
    assert line.said.endswith(b"500 5.5.2 Command line too long\r\n250 2.0.0 Ok\r\n")
    session.connection_lost(None)


async def test_what_was_held_back_is_thrown_away_when_the_session_ends() -> None:
    session, line = begun("192.0.2.0/24")
    session.data_received(b"POST / HTTP/1.1\r\n" + b"x" * 100_000)
    assert line.said.split(b"\r\n")[1] == b"554 5.5.1 This is SMTP, not HTTP"
    assert not line.held_back
    assert not session._reader.pending
    session.connection_lost(None)


async def test_work_that_was_cancelled_ends_the_session_without_a_reply_for_it() -> None:
    office = Office(cast(Intake, None), Limits(), "mx.example")
    session, line = begun("192.0.2.0/24", office)

    async def work() -> None:
        raise asyncio.CancelledError

    session.begin(work())
    session.data_received(b"RSET\r\n")
    await wait_until(lambda: not office.tasks, what="the dialog's end", timeout=2)
    assert line.said.count(b"\n") == 1
    session.connection_lost(None)


@pytest.mark.parametrize("pieces", [1, 2], ids=["with DATA", "after it"])
async def test_a_defect_within_a_message_ends_the_session_with_one_reply(
    pieces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_content: Content, _octets: bytes) -> bool:
        raise RuntimeError

    monkeypatch.setattr(Content, "feed", broken)
    office = Office(cast(Intake, Everything()), Limits(), "mx.example")
    session, line = begun("192.0.2.0/24", office)
    session.data_received(b"MAIL FROM:<a@b.c> SIZE=500\r\nRCPT TO:<d@e.f>\r\n")
    sent = b"DATA\r\n", b"Subject: x\r\n\r\nx\r\n.\r\nRSET\r\n"
    for octets in [b"".join(sent)] if pieces == 1 else sent:
        session.data_received(octets)
    session.data_received(b"RSET\r\n")
    answers = [answer[:3] for answer in line.said.split(b"\r\n")]
    assert answers == [b"220", b"250", b"250", b"354", b"421", b""]
    assert office.memory.held == 0
    assert not office.tasks
    session.connection_lost(None)


async def test_nothing_is_said_twice_when_writing_leads_back_to_the_session() -> None:
    session, line = begun("192.0.2.0/24")
    write, times = line.write, []

    def reentrant(data: object) -> None:
        write(data)
        times.append(1)
        if len(times) == 1:
            session.resume_writing()

    line.write = reentrant  # type: ignore[method-assign]  # of this one line
    session.data_received(b"NOOP\r\n")
    assert line.said.split(b"\r\n")[1:] == [b"250 2.0.0 Ok", b""]
    session.connection_lost(None)
