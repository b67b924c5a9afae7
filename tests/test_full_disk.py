"""A real disk that runs full, under Redis and under the journal.

Not collected where no small disk can be mounted: see conftest.py.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis

from proxy.queue.commit import NotKept
from proxy.queue.durability import judge
from tests.crash.disk import fill, free, small_disk
from tests.support.jobs import a_job, a_large_job
from tests.support.journaling import Committers, moved, queued, ready, refusal
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until


@pytest.fixture
async def build(disk: Path) -> AsyncIterator[Committers]:
    """A maker of committers with a journal on the small disk, all closed at the end."""
    committers = Committers(disk)
    yield committers
    await committers.close()


@pytest.fixture
def disk(data_dir: Path) -> Iterator[Path]:
    """A small disk, on which `data_dir` is."""
    with small_disk(data_dir):
        yield data_dir


async def test_a_server_says_when_its_last_write_failed_and_that_is_not_durable(disk: Path) -> None:
    # With appendfsync always it ends itself instead: nearly as good, and tested below.
    server = RedisServer(disk, options={"appendfsync": "everysec"})
    server.start()
    client = server.client()
    fill(disk)

    def failed() -> bool:
        with contextlib.suppress(redis.ResponseError):  # MISCONF: it writes no more
            client.set("franker:ballast", os.urandom(10_000))
        return bool(client.info("persistence")["aof_last_write_status"] == "err")

    await wait_until(failed, what="its write fails")
    info = {str(name): str(value) for name, value in client.info().items()}
    settings = {str(name): str(value) for name, value in client.config_get("*").items()}
    server.kill()
    found = judge(settings | {"appendfsync": "always"}, info)
    assert found.reason == "its last write to the append-only file failed"


async def test_a_server_that_ended_because_its_disk_was_full_takes_mail_again_when_there_is_room(
    disk: Path, build: Committers
) -> None:
    server = RedisServer(disk)
    server.start()
    committer = await ready(build(patience=1.0))
    fill(disk)

    async def ended() -> bool:
        with contextlib.suppress(NotKept):
            await committer.commit(a_large_job(100_000))
        return not server.running

    await wait_until(ended, what="it ends itself")
    there = await refusal(committer)  # its journal is on the same disk
    assert there.kind in {"away", "full", "unknown"}
    free(disk)
    await asyncio.to_thread(server.start)
    kept: list[str] = []

    async def is_kept() -> bool:
        job = a_job()
        with contextlib.suppress(NotKept):
            await committer.commit(job)
            kept.append(job.id)
        return bool(kept)

    await wait_until(is_kept, what="mail is kept again")
    await wait_until(lambda: moved(committer))
    assert queued(server)[-1:] == kept
    server.stop()


async def test_a_disk_with_next_to_nothing_free_takes_no_mail_until_there_is_room(
    disk: Path, build: Committers
) -> None:
    server = RedisServer(disk)
    server.start()
    committer = await ready(build(data_dir=disk))
    await committer.commit(a_job())
    (disk / "ballast").write_bytes(bytes(100_000_000))
    told = await refusal(committer)
    assert told.kind == "full"
    assert "the disk of data_dir has " in told.text
    assert "100 MB must stay so" in committer.unready
    assert server.running
    (disk / "ballast").unlink()
    await wait_until(lambda: not committer.unready)
    job = a_job()
    await committer.commit(job)
    assert queued(server)[-1] == job.id
    server.stop()
