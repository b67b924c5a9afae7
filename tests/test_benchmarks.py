"""The measuring tools measure what they say."""

import contextlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest

from benchmarks.load import command, message, send_own, shares
from benchmarks.processes import cpu_seconds, family, free_port, resident_octets, shared_octets
from benchmarks.scenarios import Load
from benchmarks.sink import Sink
from benchmarks.straight import send_straight
from tests.support.dialog import Dialog
from tests.support.waiting import wait_until


def test_the_body_of_a_message_has_the_size_asked_for_in_lines_that_need_no_repair() -> None:
    content = message(5120, Random(1))
    assert len(content.partition(b"\r\n\r\n")[2]) == 5120
    assert max(map(len, content.split(b"\r\n"))) <= 998
    assert b"\n" not in content.replace(b"\r\n", b"")


def test_both_generators_are_told_the_same_load() -> None:
    load = Load(messages=7, sessions=3, size=99)
    for name in ("own", "smtp-source"):
        words = command(load, 2525, name)
        assert {"7", "3", "99"} <= set(words)
        assert "2525" in words[-1] or "2525" in words


def test_a_load_is_shared_among_ports_without_loss() -> None:
    parts = shares(Load(messages=20, sessions=7), (1, 2, 3))
    assert [port for _, port in parts] == [1, 2, 3]
    assert [one.messages for one, _ in parts] == [7, 7, 6]
    assert [one.sessions for one, _ in parts] == [3, 2, 2]
    assert shares(Load(), (1,)) == [(Load(), 1)]


def test_a_port_that_is_given_out_is_no_outgoing_connections() -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(free_port() < lowest for _ in range(20))


def test_a_process_is_found_with_its_time_and_memory() -> None:
    assert os.getpid() in family(os.getpid())
    assert cpu_seconds(os.getpid()) > 0
    assert resident_octets(os.getpid(), peak=True) >= resident_octets(os.getpid()) > 1_000_000
    assert 0 < shared_octets(os.getpid()) <= resident_octets(os.getpid(), peak=True)
    assert cpu_seconds(2**22 + 1) == resident_octets(2**22 + 1) == 0


async def _sink(folder: Path, delay: float) -> AsyncIterator[Sink]:
    sink = Sink(folder, delay)
    await sink.up()
    yield sink
    sink.down()
    await wait_until(lambda: not sink.count.open, 5)


@pytest.fixture
async def sink(tmp_path: Path) -> AsyncIterator[Sink]:
    async for one in _sink(tmp_path, 0.0):
        yield one


@pytest.fixture
async def slow_sink(tmp_path: Path) -> AsyncIterator[Sink]:
    async for one in _sink(tmp_path, 0.4):
        yield one


async def test_the_sink_takes_mail_over_tls_and_counts_it(sink: Sink) -> None:
    async with await Dialog.open("127.0.0.1", sink.port) as dialog:
        await dialog.start_tls(sink.ca_file)
        assert "PIPELINING" in await dialog.say("EHLO again")
        assert (await dialog.log_in("anybody"))[:3] == "235"
        for _ in range(2):
            assert (await dialog.deliver("a@b.com", ["c@d.com"], b"x\r\n"))[:3] == "250"
        assert (await dialog.deliver("a@b.com", ["c@d.com"], b""))[:3] == "250"
        assert (await dialog.say("QUIT"))[:3] == "221"
    assert (sink.count.messages, sink.count.connections, sink.count.in_clear) == (3, 1, 0)


async def test_the_sink_answers_what_rides_with_the_handshake(sink: Sink) -> None:
    for _ in range(20):  # who comes first, the command or the handshake's end, is chance
        async with await Dialog.open("127.0.0.1", sink.port) as dialog:
            await dialog.reply()
            await dialog.say("STARTTLS")
            await dialog.shake_hands(sink.ca_file)
            assert (await dialog.say("EHLO at.once"))[:3] == "250"


async def test_the_sink_answers_pipelined_commands_in_one_go(slow_sink: Sink) -> None:
    async with await Dialog.open("127.0.0.1", slow_sink.port) as dialog:
        await dialog.reply()
        began = time.monotonic()
        dialog.send(b"MAIL FROM:<a@b.com>\r\nRCPT TO:<c@d.com>\r\nDATA\r\n")
        assert await dialog.codes_at_once() == ["250", "250", "354"]
        assert time.monotonic() - began >= 0.4
        dialog.send(b"x\r\n.\r\nMAIL FROM:<a@b.com>\r\n")
        assert [(await dialog.reply())[:3] for _ in range(2)] == ["250", "250"]


async def test_a_reset_begins_the_count_anew_after_its_answer(sink: Sink) -> None:
    await send_own(Load(messages=5, sessions=1), sink.port)
    assert (await sink.obey("reset\n"))["messages"] == 5
    assert (await sink.obey("count\n"))["messages"] == 0
    assert sink.count.as_json()["first"] == 0.0


async def test_the_sink_tells_when_each_message_came(sink: Sink) -> None:
    began = time.monotonic()
    await send_own(Load(messages=5, sessions=1), sink.port)
    third = (await sink.obey("at 3\n"))["at"]
    said = await sink.obey("at 6\n")
    assert began <= said["first"] < third < said["last"] <= time.monotonic()
    assert said["at"] == 0.0


async def test_a_sink_that_is_down_cuts_and_refuses_until_it_is_up_again(sink: Sink) -> None:
    async with await Dialog.open("127.0.0.1", sink.port) as dialog:
        await dialog.reply()
        await sink.obey("down\n")
        with contextlib.suppress(ConnectionResetError):
            assert await dialog.reply() == ""
    with pytest.raises(ConnectionRefusedError):
        await Dialog.open("127.0.0.1", sink.port)
    await sink.obey("up\n")
    await send_own(Load(messages=1, sessions=1), sink.port)
    assert sink.count.messages == 1


async def test_content_is_found_however_it_is_cut(sink: Sink) -> None:
    whole = b"one\r\ntwo\r\n.x\r\n.\r\n"
    async with await Dialog.open("127.0.0.1", sink.port) as dialog:
        await dialog.start_tls(sink.ca_file)
        (protocol,) = sink.open
        for cut in range(1, len(whole)):
            sink.count.reset()
            dialog.send(b"DATA\r\n")
            assert (await dialog.reply())[:3] == "354"
            protocol.data_received(whole[:cut])
            protocol.data_received(whole[cut:])
            assert (await dialog.reply())[:3] == "250"
            assert sink.count.messages == 1
            assert sink.count.octets == len(whole) - len(b".\r\n")


@pytest.mark.parametrize("fresh", [False, True])
async def test_the_own_generator_sends_every_message_once(sink: Sink, fresh: bool) -> None:
    await send_own(Load(messages=50, sessions=7, fresh=fresh), sink.port)
    assert sink.count.messages == sink.count.in_clear == 50
    assert sink.count.connections == (50 if fresh else 7)


async def test_mail_sent_straight_into_the_sink_comes_whole_over_tls(sink: Sink) -> None:
    await send_straight(sink.port, sink.ca_file, messages=100, connections=3)
    assert (sink.count.messages, sink.count.connections, sink.count.in_clear) == (100, 3, 0)
    assert sink.count.octets > 100 * Load().size
