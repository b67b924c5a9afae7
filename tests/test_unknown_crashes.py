"""Real processes killed while the outcome of mail is unknown: each recipient gets it once."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.far_end import FarEnd
from tests.support.load import Load
from tests.support.mail_queue import scheduled, unsettled
from tests.support.processes import Installation, Program
from tests.support.redis_server import new_data_dir, remove_data_dir
from tests.support.waiting import wait_until


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = new_data_dir()
    yield folder
    remove_data_dir(folder)


@asynccontextmanager
async def installation(folder: Path, far_end: FarEnd) -> AsyncIterator[Installation]:
    one = Installation(folder, {"postmark": far_end.postmark(ask_for="30s")})
    one.environ["POSTMARK_SERVER_TOKEN"] = far_end.token
    one.environ["FRANKER_WORKER__HTTP"] = "127.0.0.1:0"
    try:
        yield one
    finally:
        await asyncio.to_thread(one.close)


async def start(one: Installation, *parts: str) -> dict[str, Program]:
    programs = {part: one.start(part) for part in parts}
    for part, program in programs.items():
        await asyncio.to_thread(program.wait_for, f"started process={part}")
    return programs


async def listed(one: Installation) -> list[dict[str, Any]]:
    answer = await asyncio.to_thread(one.run, "queue", "list", "--json")
    assert answer.returncode == 0, answer.stderr
    found: list[dict[str, Any]] = json.loads(answer.stdout)
    return found


def waiting(one: Installation) -> list[str]:
    """The ids of deferred mail, read from Redis."""
    with redis.Redis(unix_socket_path=str(one.data_dir / "redis.sock")) as store:
        return scheduled(store)


async def until_nothing_is_left(one: Installation, timeout: float) -> None:
    with redis.Redis(unix_socket_path=str(one.data_dir / "redis.sock")) as store:
        await wait_until(lambda: not unsettled(store), timeout)


def once_each(far_end: FarEnd, accepted: list[str]) -> None:
    counts = Counter(far_end.recipients())
    assert {address: counts[address] for address in accepted if counts[address] != 1} == {}


async def test_a_worker_killed_with_its_dots_out_makes_no_second_copies(folder: Path) -> None:
    async with FarEnd(indexing_delay=1.0) as far_end, installation(folder, far_end) as one:
        await start(one, "redis", "proxy")
        # Taken, and every reply stays out: all that is on the wire at the kill is unknown.
        far_end.fail("taken", do="hang", skip=30)
        load = Load(one.smtp_port, count=100)
        await load.run()
        assert len(load.accepted) == 100
        worker = (await start(one, "worker"))["worker"]
        await far_end.until(30 + 10)
        worker.kill()
        far_end.mend()
        await start(one, "worker")
        await until_nothing_is_left(one, 120)
        once_each(far_end, load.accepted)


async def test_what_is_asked_for_survives_the_death_of_worker_and_redis(folder: Path) -> None:
    async with FarEnd(indexing_delay=4.0) as far_end, installation(folder, far_end) as one:
        programs = await start(one, "redis", "proxy", "worker")
        far_end.fail("taken", do="drop", times=20)
        load = Load(one.smtp_port, count=40)
        await load.run()
        await wait_until(lambda: waiting(one))
        programs["worker"].kill()
        programs["redis"].kill()
        await start(one, "redis")
        kept = [each for each in await listed(one) if each["asked_for"]]
        assert kept
        assert all("the outcome is unknown" in str(each["replies"]) for each in kept)
        await start(one, "worker")
        await until_nothing_is_left(one, 120)
        once_each(far_end, load.accepted)
