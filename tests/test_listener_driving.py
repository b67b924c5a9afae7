"""A session is driven by what arrives: what is obeyed when, and what stands behind it."""

import asyncio
from typing import cast

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
        super().__init__({"peername": ("127.0.0.1", 40_000)})
        self.said = b""

    def write(self, data: object) -> None:
        self.said += cast(bytes, data)

    def is_closing(self) -> bool:
        return False

    def close(self) -> None: ...

    def write_eof(self) -> None: ...


def begun(network: str) -> tuple[SmtpSession, Line]:
    office = Office(cast(Intake, None), Limits(), "mx.example")
    session = SmtpSession(Door(office, networks=[network]), asyncio.get_running_loop())
    line = Line()
    session.connection_made(line)
    return session, line


async def test_commands_are_obeyed_as_they_arrive_without_a_task() -> None:
    session, line = begun("127.0.0.0/8")
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


async def test_replies_to_a_client_that_does_not_read_wait_and_so_do_its_commands() -> None:
    session, line = begun("127.0.0.0/8")
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
