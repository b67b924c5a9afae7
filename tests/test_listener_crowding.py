"""Connections at their limit: who gives way, who is refused, and what both are told."""

import asyncio
import os
import re
import sys

import pytest

from proxy.listener.limits import Rarely
from proxy.metrics.intake import MESSAGES_REFUSED
from tests.support.listening import MESSAGE, Dialog, Front, front
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

GAVE_WAY = (
    "421 4.3.2 This connection was idle and others need its place (listen.max_connections); "
    "closing, nothing unanswered was taken"
)
FULL_FOR_ONE = (
    "421 4.3.2 This client has 4 connections already, all in use, and one client may have "
    "80% of 5 (listen.max_connections); try again"
)


def refused(reason: str) -> float:
    return MESSAGES_REFUSED.labels(reason)._value.get()


async def four(office: Front) -> list[Dialog]:
    """Return as many connections as one client may have of five."""
    return [await office.dial() for _ in range(4)]


async def test_the_longest_idle_connection_gives_way_to_a_new_one(
    redis_server: RedisServer, capfd: pytest.CaptureFixture[str]
) -> None:
    before = refused("connections_idle")
    async with front(redis_server, listen={"max_connections": 5}) as office:
        one, two, three, last = await four(office)
        for dialog in (two, one):
            assert (await dialog.mail(MESSAGE)).startswith("250 2.0.0 ")
        newcomer = await office.dial()
        assert await three.reply() == GAVE_WAY
        assert await three.ended()
        for dialog in (one, two, last, newcomer):
            assert (await dialog.mail(MESSAGE)).startswith("250 2.0.0 ")
        await wait_until(lambda: office.listener.sessions == 4, what="the one is gone")
    assert refused("connections_idle") == before + 1
    assert capfd.readouterr().err.count(" reason=connections_idle ") == 1


async def test_a_connection_with_a_mail_begun_never_gives_way(redis_server: RedisServer) -> None:
    before = refused("connections_client")
    async with front(redis_server, listen={"max_connections": 5}) as office:
        dialogs = await four(office)
        for dialog in dialogs[:2]:
            await dialog.begin(data=False)
        for dialog in dialogs[2:]:
            await dialog.begin()
        newcomer = await office.dial(greeted=False)
        assert await newcomer.reply() == FULL_FOR_ONE
        assert await newcomer.ended()
        assert refused("connections_client") == before + 1
        for dialog in dialogs[:2]:
            assert (await dialog.say("DATA")).startswith("354 ")
        for dialog in dialogs:
            dialog.send(MESSAGE + b".\r\n")
            assert (await dialog.reply()).startswith("250 2.0.0 ")
        assert (await (await office.dial()).mail(MESSAGE)).startswith("250 2.0.0 ")


async def test_the_place_of_a_client_that_went_away_in_the_middle_is_free(
    redis_server: RedisServer,
) -> None:
    async with front(redis_server, listen={"max_connections": 5}) as office:
        for _ in range(2):
            dialogs = await four(office)
            for dialog in dialogs:
                await dialog.begin(data=False)
            for dialog in dialogs:
                dialog.vanish()
            await wait_until(lambda: office.listener.sessions == 0, what="they are gone")


async def test_a_mail_on_its_way_to_the_disk_never_gives_way(redis_server: RedisServer) -> None:
    async with front(redis_server, listen={"max_connections": 5}) as office:
        dialogs = await four(office)
        for dialog in dialogs:
            await dialog.begin()
        redis_server.pause()
        for dialog in dialogs:
            dialog.send(MESSAGE + b".\r\n")
        await wait_until(lambda: office.listener.held > 4 * len(MESSAGE), what="all are there")
        newcomer = await office.dial(greeted=False)
        assert await newcomer.reply() == FULL_FOR_ONE
        redis_server.resume()
        for dialog in dialogs:
            assert (await dialog.reply()).startswith("250 2.0.0 ")


async def test_a_connection_that_sends_an_endless_command_slowly_counts_as_idle(
    redis_server: RedisServer,
) -> None:
    async with front(redis_server, listen={"max_connections": 5}) as office:
        slow, *others = await four(office)
        for dialog in others:
            await dialog.say("NOOP")
        slow.send("EHLO o")
        await slow.writer.drain()
        await others[0].say("NOOP")  # so that what was sent before has been read
        await office.dial()
        assert await slow.reply() == GAVE_WAY


async def test_a_client_that_never_ends_its_login_gives_way(redis_server: RedisServer) -> None:
    listen = {"max_connections": 5, "smtp": [{"address": "127.0.0.1:0", "auth": "accept"}]}
    async with front(redis_server, listen=listen) as office:
        slow, *others = await four(office)
        await slow.say("EHLO client.example.com")
        assert (await slow.say("AUTH LOGIN")).startswith("334 ")
        for dialog in others:
            await dialog.say("NOOP")
        await office.dial()
        assert await slow.reply() == GAVE_WAY
        assert await slow.ended()
        assert (await others[0].mail(MESSAGE)).startswith("250 2.0.0 ")


async def test_connections_by_a_unix_socket_are_counted_by_user_as_well(
    redis_server: RedisServer,
) -> None:
    listen = {"max_connections": 5, "smtp": [f"unix:{redis_server.data_dir}/s", "127.0.0.1:0"]}
    async with front(redis_server, listen=listen) as office:
        for at in (0, 1, 0, 1):
            await (await office.dial(at)).begin(data=False)
        newcomer = await office.dial(greeted=False)
        assert await newcomer.reply() == FULL_FOR_ONE


ANOTHER_USER = """
import encodings.idna, os, socket, sys
if os.getuid() == 0:
    os.setuid(54321)
held = []
for _ in range(int(sys.argv[2])):
    one = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 20)
    lines = one.makefile("rb")
    told = lines.readline()
    if told.startswith(b"220 "):
        one.sendall(b"MAIL FROM:<app@example.com>\\r\\n")
        assert lines.readline().startswith(b"250 ")
        held.append((one, lines))
print(len(held), told.decode(), flush=True)
sys.stdin.read()
"""


async def test_a_user_that_opens_connections_without_end_leaves_some_to_others_on_this_host(
    redis_server: RedisServer,
) -> None:
    async with front(redis_server, listen={"max_connections": 50}) as office:
        # More than are never asked of, and idle, so that they could give way to whoever comes.
        ours = [await office.dial() for _ in range(9)]
        greedy = await asyncio.create_subprocess_exec(
            sys.executable, "-c", ANOTHER_USER, str(office.ports[0]), "60",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert greedy.stdout is not None
        said = (await asyncio.wait_for(greedy.stdout.readline(), 60)).decode()
        if os.getuid() == 0:
            assert said.startswith("40 421 4.3.2 This client has 40 connections already")
            for dialog in ours:
                assert (await dialog.mail(MESSAGE)).startswith("250 2.0.0 ")
            assert (await (await office.dial()).mail(MESSAGE)).startswith("250 2.0.0 ")
        else:  # nobody else is to be had: all are one client's, and its own give way
            assert said.startswith("40 421 4.3.2 This client has 40 connections already")
            assert await ours[0].reply() == GAVE_WAY
        await greedy.communicate(b"")


async def test_a_flood_of_connections_takes_no_more_places_and_few_lines_of_the_log(
    redis_server: RedisServer, capfd: pytest.CaptureFixture[str]
) -> None:
    idle, full = refused("connections_idle"), refused("connections_client")
    # Time stands still: no end of a session is over by itself, and no line is due again.
    async with front(redis_server, clock=lambda: 0.0, listen={"max_connections": 20}) as office:
        busy = await office.dial()
        await busy.begin()
        flood = [await office.dial() for _ in range(300)]
        assert refused("connections_idle") - idle == 300 - 15
        # Those that gave way are really gone: they hold no place in the end of a session.
        await wait_until(lambda: office.listener.sessions == 16, what="those that gave way went")
        for dialog in flood[-15:]:
            await dialog.begin(data=False)
        for _ in range(100):
            assert (await (await office.dial(greeted=False)).reply()).startswith("421 4.3.2 This ")
        assert refused("connections_client") - full == 100
        busy.send(MESSAGE + b".\r\n")
        assert (await busy.reply()).startswith("250 2.0.0 ")
    log = capfd.readouterr().err
    assert log.count(" reason=connections_idle ") == log.count(" reason=connections_client ") == 1


def test_a_flood_is_one_line_in_ten_seconds_that_tells_how_many_there_were() -> None:
    rarely = Rarely()
    assert [rarely.due("a", now) for now in (5.0, 5.1, 14.9, 15.0, 15.1, 40.0)] == [
        1, 0, 0, 3, 0, 2,
    ]  # fmt: skip
    assert rarely.due("b", 5.1) == 1


async def test_how_many_were_refused_since_is_in_the_line(
    redis_server: RedisServer, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Rarely, "PAUSE_S", 0.05)
    async with front(redis_server, listen={"max_connections": 1}) as office:
        busy = await office.dial()
        await busy.begin(data=False)
        said = ""
        async with asyncio.timeout(20):
            while " times=" not in said:
                await (await office.dial(greeted=False)).reply()
                said += capfd.readouterr().err
        assert re.search(r" reason=connections_client times=\d+ reply=", said)
