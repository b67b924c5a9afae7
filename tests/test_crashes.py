"""Processes killed at work: whatever was told 250 arrives, and stock RQ tools do no harm.

A short form of a longer proof: real processes, real Redis, real TLS; only the far end is made.
"""

import asyncio
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.far_end import SMTP_TOKEN, FarEnd
from tests.support.load import Load
from tests.support.processes import Installation, Program
from tests.support.redis_server import new_data_dir, remove_data_dir
from tests.support.waiting import wait_until

IN_FLIGHT = 20
"""Transactions that can be out at once: ten connections, two each."""


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = new_data_dir()
    yield folder
    remove_data_dir(folder)


@asynccontextmanager
async def installation(
    folder: Path, far_end: FarEnd, **sections: object
) -> AsyncIterator[Installation]:
    one = Installation(folder, {"postmark": far_end.postmark(ask_for="2s"), **sections})
    one.environ["POSTMARK_SERVER_TOKEN"] = far_end.token
    one.environ["ACCESS_KEY"], one.environ["SECRET_KEY"] = (
        SMTP_TOKEN.access_key,
        SMTP_TOKEN.secret_key,
    )
    try:
        yield one
    finally:
        await asyncio.to_thread(one.close)


async def start(one: Installation, *parts: str) -> dict[str, Program]:
    programs = {part: one.start(part) for part in parts}
    for part, program in programs.items():
        await asyncio.to_thread(program.wait_for, f"started process={part}")
    return programs


async def arrived(far_end: FarEnd, recipients: list[str], timeout: float = 90.0) -> Counter[str]:
    """Wait until each of `recipients` has mail; return how often each has."""
    wanted = set(recipients)

    def missing() -> set[str]:
        return wanted - {address for one in far_end.messages for address in one.recipients}

    try:
        await wait_until(lambda: not missing(), timeout)
    except AssertionError:
        raise AssertionError(f"{len(missing())} never arrived: {sorted(missing())[:5]}") from None
    return Counter(far_end.recipients())


async def test_all_of_1000_messages_arrive_though_the_worker_is_killed(folder: Path) -> None:
    async with FarEnd() as far_end, installation(folder, far_end) as one:
        await start(one, "redis", "proxy")
        load = Load(one.smtp_port, count=1000)
        await load.run()
        assert len(load.accepted) == 1000
        worker = (await start(one, "worker"))["worker"]
        await far_end.until(200)
        worker.kill()
        await start(one, "worker")
        counts = await arrived(far_end, load.accepted)
    assert set(counts.values()) == {1}


async def test_jobs_of_a_killed_worker_are_back_with_another_within_ten_seconds(
    folder: Path,
) -> None:
    # With a login that opens no API: else those whose dot may be out are asked for first.
    login = {"access_key": {"env": "ACCESS_KEY"}, "secret_key": {"env": "SECRET_KEY"}}
    streams = {"outbound": login}
    async with FarEnd() as far_end, installation(folder, far_end, streams=streams) as one:
        await start(one, "redis", "proxy")
        far_end.fail("mail", do="hang", times=20)
        first = (await start(one, "worker"))["worker"]
        load = Load(one.smtp_port, count=20)
        await load.run()
        await wait_until(lambda: len(far_end.logins) >= 1)
        one.environ["FRANKER_WORKER__HTTP"] = "127.0.0.1:0"
        far_end.mend()
        await start(one, "worker")
        first.kill()
        await arrived(far_end, load.accepted, timeout=12.0)


@pytest.mark.parametrize("victim", ["proxy", "redis"])
async def test_every_250_arrives_though_a_process_is_killed_under_load(
    folder: Path, victim: str
) -> None:
    async with FarEnd() as far_end, installation(folder, far_end) as one:
        programs = await start(one, "redis", "proxy", "worker")
        load = Load(one.smtp_port)
        running = asyncio.create_task(load.run())
        for round_ in range(1, 4):
            told = len(load.accepted)
            await wait_until(lambda told=told: len(load.accepted) > told + 200, 30)
            programs[victim].kill()
            programs |= await start(one, victim)
            assert round_
        told = len(load.accepted)
        await wait_until(lambda: len(load.accepted) > told + 100, 30)
        load.stop()
        await running
        counts = await arrived(far_end, load.accepted)
        told = len(load.accepted)
    twice = [address for address in load.accepted if counts[address] > 1]
    assert len(twice) <= 3 * IN_FLIGHT
    if victim == "proxy":
        assert not twice


async def rq(one: Installation, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("rq")), *arguments, "-u"]
    command.append(f"unix://{one.data_dir}/redis.sock")
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_stock_tools_at_work_for_two_minutes_while_ours_stands_still_do_no_harm(
    folder: Path,
) -> None:
    async with FarEnd() as far_end, installation(folder, far_end) as one:
        await start(one, "redis", "proxy")
        far_end.fail("dot", do="delay", seconds=1.0)
        worker = (await start(one, "worker"))["worker"]
        load = Load(one.smtp_port, count=60)
        await load.run()
        await far_end.until(1)
        worker.signal(signal.SIGSTOP)
        far_end.mend()
        loop = asyncio.get_running_loop()
        end = loop.time() + 120
        try:
            await rq(
                one, "worker", "-S", "json", "--burst", "-w", "rq.SimpleWorker", "franker-outbound"
            )
            while loop.time() < end:
                await rq(one, "info", "-S", "json")
        finally:
            worker.signal(signal.SIGCONT)  # it could not be ended else
        counts = await arrived(far_end, load.accepted)
        assert set(counts.values()) == {1}
        listed = await asyncio.to_thread(one.run, "queue", "dead", "--json")
        assert listed.returncode == 0
        assert "outbound" not in listed.stdout
