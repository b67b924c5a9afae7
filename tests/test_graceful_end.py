"""SIGTERM under load: each process ends within 15 s, twice asked or once, and nothing is lost.

Everything is real but the far end, which is slow, and leaves some transactions without a reply.
"""

import asyncio
import os
import re
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.far_end import FarEnd
from tests.support.load import Load
from tests.support.processes import Installation, Program
from tests.support.waiting import wait_until
from tests.test_run import children

ENDS_WITHIN_S = 15.0
RATE = 200.0


@asynccontextmanager
async def installation(folder: Path, far_end: FarEnd | None = None) -> AsyncIterator[Installation]:
    # What a far end cut off after its dot is asked for, and only then sent again.
    postmark = {"ask_for": "2s"} if far_end is None else far_end.postmark(ask_for="2s")
    one = Installation(folder, {"retry": {"first": "1s"}, "postmark": postmark})
    if far_end is not None:
        one.environ["POSTMARK_SERVER_TOKEN"] = far_end.token
    try:
        yield one
    finally:
        await asyncio.to_thread(one.close)


async def start(one: Installation, *parts: str) -> list[Program]:
    programs = [one.start(part) for part in parts]
    for part, program in zip(parts, programs, strict=True):
        await asyncio.to_thread(program.wait_for, f"started process={part}")
    return programs


@asynccontextmanager
async def under_load(one: Installation, **options: object) -> AsyncIterator[Load]:
    """Hand in mail all the while, and to the end of what was begun."""
    load = Load(one.smtp_port, sessions=20, rate=RATE, **options)  # type: ignore[arg-type]  # a test's
    running = asyncio.create_task(load.run())
    try:
        yield load
    finally:
        load.stop()
        await running


async def more(load: Load, count: int) -> None:
    wanted = len(load.accepted) + count
    await wait_until(lambda: len(load.accepted) >= wanted, 30, f"{count} more are accepted")


def trouble(far_end: FarEnd) -> None:
    """Make the far end slow, and silent at the end of some transactions, taken or not."""
    far_end.fail("taken", do="hang", skip=30, times=2)
    far_end.fail("dot", do="hang", skip=60, times=2)
    far_end.fail("mail", do="hang", skip=90, times=1)
    far_end.fail("dot", do="delay", seconds=0.03)


async def hung(far_end: FarEnd) -> None:
    """Wait until all of `trouble` has struck."""
    wanted = {("taken", 32), ("dot", 62), ("mail", 91)}

    def struck() -> bool:
        met = {
            (each["at"], each["skip"] + each["times"])
            for each in far_end.faults.listed()
            if each["times"] and each["met"] >= each["skip"] + each["times"]
        }
        return wanted <= met

    await wait_until(struck, 30, "some transactions hang")


async def ends(has_ended: Callable[[], bool], ask: Callable[[signal.Signals], None]) -> float:
    """Ask a process to end, and again and again; return how long that took."""
    began = time.monotonic()
    ask(signal.SIGTERM)
    for again in (signal.SIGTERM, signal.SIGINT):
        await asyncio.sleep(0.2)  # in the middle of its end, if that takes a while
        if not has_ended():
            ask(again)
    await wait_until(has_ended, ENDS_WITHIN_S + 5, "it ends")
    return time.monotonic() - began


async def end_program(program: Program) -> float:
    return await ends(lambda: program.exit_code is not None, program.signal)


async def end_child(parent: Program, part: str) -> float:
    """Ask a child of `franker run` to end; another comes in its place."""
    pid = children(parent.pid)[part]

    def has_ended() -> bool:
        return children(parent.pid).get(part) != pid

    def ask(number: signal.Signals) -> None:
        os.kill(pid, number)

    return await ends(has_ended, ask)


async def everything_arrived(far_end: FarEnd, load: Load, timeout: float = 60.0) -> Counter[str]:
    def missing() -> set[str]:
        there = {address for one in far_end.messages for address in one.recipients}
        return set(load.accepted) - there

    await wait_until(lambda: not missing(), timeout, "everything that was told 250 arrives")
    return Counter(far_end.recipients())


def twice(counts: Counter[str]) -> list[str]:
    return [address for address, count in counts.items() if count > 1]


async def test_a_worker_under_load_ends_in_time_and_what_it_sent_is_sent_once(
    data_dir: Path,
) -> None:
    async with FarEnd() as far_end, installation(data_dir, far_end) as one:
        _, _, worker = await start(one, "redis", "proxy", "worker")
        trouble(far_end)
        async with under_load(one) as load:
            await hung(far_end)
            assert await end_program(worker) < ENDS_WITHIN_S
            assert worker.exit_code == 0, worker.log[-4000:]
            far_end.mend()
            await more(load, 50)  # the intake goes on
            await start(one, "worker")
        counts = await everything_arrived(far_end, load)
        assert load.refused == []
        assert twice(counts) == []
        assert "event=defect" not in worker.log
        # Those whose reply had not come are handed on as unknown, and no others.
        unknown = set(re.findall(r" unknown id=(\w+)", worker.log))
        assert len(unknown) == 4


async def test_what_is_in_flight_when_the_worker_is_to_end_gets_ten_seconds(
    data_dir: Path,
) -> None:
    async with FarEnd() as far_end, installation(data_dir, far_end) as one:
        far_end.fail("dot", do="delay", seconds=6.0)
        await start(one, "redis", "proxy")
        load = Load(one.smtp_port, count=10)
        await load.run()
        [worker] = await start(one, "worker")
        await wait_until(lambda: far_end.faults.listed()[0]["met"] >= 10)
        seconds = await end_program(worker)
        assert 4 < seconds < ENDS_WITHIN_S
        assert worker.log.count(" sent id=") == 10
        assert " unknown id=" not in worker.log
        assert sorted(far_end.recipients()) == sorted(load.accepted)


async def test_a_proxy_under_load_ends_in_time_and_loses_nothing_it_was_told_to_keep(
    data_dir: Path,
) -> None:
    async with FarEnd() as far_end, installation(data_dir, far_end) as one:
        _, proxy, _ = await start(one, "redis", "proxy", "worker")
        trouble(far_end)
        # One that stays in the middle of its message must hold up nobody's end.
        stuck = await asyncio.open_connection("127.0.0.1", one.smtp_port)
        stuck[1].write(b"EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\nx")
        async with under_load(one) as load:
            await more(load, 200)
            assert await end_program(proxy) < ENDS_WITHIN_S
            assert proxy.exit_code == 0, proxy.log[-4000:]
            far_end.mend()
            await start(one, "proxy")
            await more(load, 100)
        far_end.cut()
        stuck[1].close()
        counts = await everything_arrived(far_end, load)
        assert twice(counts) == []
        kept = proxy.log.count(" kept id=")
        assert kept >= 200
        # What nobody was promised did not arrive: a client that hears nothing sends it again.
        assert set(counts) <= set(load.accepted)


async def test_the_private_redis_under_load_ends_in_time_and_no_mail_is_refused(
    data_dir: Path,
) -> None:
    async with FarEnd() as far_end, installation(data_dir, far_end) as one:
        program = one.start("run")
        await asyncio.to_thread(program.wait_for, "Franker is ready")
        trouble(far_end)
        async with under_load(one) as load:
            await more(load, 200)
            assert await end_child(program, "redis") < ENDS_WITHIN_S
            await more(load, 200)
            far_end.mend()
        far_end.cut()
        counts = await everything_arrived(far_end, load)
        assert load.refused == []
        assert twice(counts) == []


async def test_run_itself_under_load_ends_in_time_with_all_its_parts(data_dir: Path) -> None:
    async with FarEnd() as far_end, installation(data_dir, far_end) as one:
        program = one.start("run")
        await asyncio.to_thread(program.wait_for, "Franker is ready")
        trouble(far_end)
        async with under_load(one) as load:
            await hung(far_end)
            parts = children(program.pid)
            assert await end_program(program) < ENDS_WITHIN_S
            assert program.exit_code == 0
            assert "part_killed" not in program.log
            assert set(parts) == {"redis", "proxy", "worker"}
            load.stop()
        far_end.mend()
        again = one.start("run")
        await asyncio.to_thread(again.wait_for, "Franker is ready")
        counts = await everything_arrived(far_end, load)
        assert twice(counts) == []
        assert set(counts) <= set(load.accepted)


async def test_the_stand_in_under_load_ends_in_time_and_nothing_is_lost(
    data_dir: Path,
) -> None:
    async with installation(data_dir) as one:
        program = one.start("run", "--sandbox")
        await asyncio.to_thread(program.wait_for, "Try it:")
        async with under_load(one) as load:
            await more(load, 200)
            assert await end_child(program, "sandbox") < ENDS_WITHIN_S
            await more(load, 100)
        wanted = len(load.accepted)

        def sent() -> bool:
            return len(set(re.findall(r" sent id=(\w+)", program.log))) >= wanted

        await wait_until(sent, 60, "everything is sent")
        assert load.refused == []
        assert " dead id=" not in program.log
