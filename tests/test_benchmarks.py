"""The measuring tools measure what they say."""

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest

from benchmarks import postfix
from benchmarks.franker import Franker
from benchmarks.load import Load, command, message, send_own
from benchmarks.postfix import Postfix
from benchmarks.processes import cpu_seconds, family, resident_octets
from benchmarks.report import Round, as_json, summarize, table
from benchmarks.rounds import System, measure
from benchmarks.sink import Count, listen
from tests.support.dialog import Dialog
from tests.support.waiting import wait_until


def rounds(system: str, *relayed: float) -> list[Round]:
    cpu = {"proxy": 100.0, "idle": 0.0}
    return [Round(system, 1000, one * 2, one, 10, cpu, {"proxy": 50_000_000}) for one in relayed]


def test_a_summary_is_the_median_with_its_spread() -> None:
    summary = summarize(rounds("franker", 3000, 2000, 2500))
    assert (summary.relayed, summary.slowest, summary.fastest) == (2500, 2000, 3000)
    assert summary.spread == pytest.approx(0.4)
    assert summary.kept == 5000


def test_the_table_shows_how_many_times_the_last_system() -> None:
    text = table("near", [summarize(rounds("franker", 3000)), summarize(rounds("postfix", 600))])
    assert "5.0 x postfix" in text
    assert "proxy 100" in text
    assert "idle" not in text


def test_json_keeps_every_round() -> None:
    done = rounds("franker", 3000, 2000)
    said = as_json(summarize(done), done)
    assert said["relayed_per_second_of_each_round"] == [3000, 2000]


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


def test_a_process_is_found_with_its_time_and_memory() -> None:
    assert os.getpid() in family(os.getpid())
    assert cpu_seconds(os.getpid()) > 0
    assert resident_octets(os.getpid(), peak=True) >= resident_octets(os.getpid()) > 1_000_000
    assert cpu_seconds(2**22 + 1) == resident_octets(2**22 + 1) == 0


class Sunk:
    """A sink in this process."""

    def __init__(self, port: int, count: Count, ca_file: Path) -> None:
        self.port = port
        self.count = count
        self.ca_file = ca_file


async def _sink(folder: Path, delay: float) -> AsyncIterator[Sunk]:
    server, count, ca_file = await listen(folder, delay)
    async with server:
        yield Sunk(server.sockets[0].getsockname()[1], count, ca_file)
        server.close()
        with contextlib.suppress(AssertionError):  # what stays open fails nothing here
            await wait_until(lambda: not count.open, 5)


@pytest.fixture
async def sink(tmp_path: Path) -> AsyncIterator[Sunk]:
    async for one in _sink(tmp_path, 0.0):
        yield one


@pytest.fixture
async def slow_sink(tmp_path: Path) -> AsyncIterator[Sunk]:
    async for one in _sink(tmp_path, 0.05):
        yield one


async def test_the_sink_takes_mail_over_tls_and_counts_it(sink: Sunk) -> None:
    async with await Dialog.open("127.0.0.1", sink.port) as dialog:
        await dialog.start_tls(sink.ca_file)
        assert "PIPELINING" in await dialog.say("EHLO again")
        assert (await dialog.log_in("anybody"))[:3] == "235"
        for _ in range(2):
            assert (await dialog.deliver("a@b.com", ["c@d.com"], b"x\r\n"))[:3] == "250"
        assert (await dialog.deliver("a@b.com", ["c@d.com"], b""))[:3] == "250"
        assert (await dialog.say("QUIT"))[:3] == "221"
    assert (sink.count.messages, sink.count.connections, sink.count.in_clear) == (3, 1, 0)


async def test_the_sink_answers_what_rides_with_the_handshake(sink: Sunk) -> None:
    for _ in range(20):  # who comes first, the command or the handshake's end, is chance
        async with await Dialog.open("127.0.0.1", sink.port) as dialog:
            await dialog.reply()
            await dialog.say("STARTTLS")
            await dialog.shake_hands(sink.ca_file)
            assert (await dialog.say("EHLO at.once"))[:3] == "250"


async def test_the_sink_answers_pipelined_commands_in_one_go(slow_sink: Sunk) -> None:
    async with await Dialog.open("127.0.0.1", slow_sink.port) as dialog:
        await dialog.reply()
        began = time.monotonic()
        dialog.send(b"MAIL FROM:<a@b.com>\r\nRCPT TO:<c@d.com>\r\nDATA\r\n")
        assert await dialog.codes_at_once() == ["250", "250", "354"]
        assert time.monotonic() - began >= 0.05
        dialog.send(b"x\r\n.\r\nMAIL FROM:<a@b.com>\r\n")
        assert [(await dialog.reply())[:3] for _ in range(2)] == ["250", "250"]


async def test_a_reset_begins_the_count_anew(sink: Sunk) -> None:
    await send_own(Load(messages=5, sessions=1), sink.port)
    sink.count.reset()
    assert (sink.count.messages, sink.count.first) == (0, 0.0)


@pytest.mark.parametrize("fresh", [False, True])
async def test_the_own_generator_sends_every_message_once(sink: Sunk, fresh: bool) -> None:
    await send_own(Load(messages=50, sessions=7, fresh=fresh), sink.port)
    assert sink.count.messages == sink.count.in_clear == 50
    assert sink.count.connections == (50 if fresh else 7)


@pytest.mark.slow
@pytest.mark.parametrize("make", [Franker, Postfix], ids=["franker", "postfix"])
def test_a_small_run_relays_everything_once_over_tls(
    make: type[System],
) -> None:
    if make is Postfix and (missing := postfix.available()):
        pytest.skip(missing)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        Path(name).chmod(0o755)  # Postfix's own user has to get through
        done = measure(make, Path(name), Load(messages=30, sessions=3), 0.0, "own", timeout=30)
    assert done.messages == 30
    assert done.relayed > 0
    assert done.connections <= 10
    assert sys.platform != "linux" or done.cpu
