"""The group commit on a real Redis: what it promises when all goes well, and when nothing does."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.config import Settings
from proxy.queue import keys
from proxy.queue.commit import GroupCommit, NotKept
from proxy.queue.connection import open_redis
from proxy.queue.job import decode_envelope
from tests.support.jobs import a_job, a_large_job
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

Build = Callable[..., GroupCommit]


@pytest.fixture
async def build(data_dir: Path) -> AsyncIterator[Build]:
    """A maker of committers on the test's Redis, all closed at the end."""
    made: list[GroupCommit] = []

    def make(**options: Any) -> GroupCommit:
        committer = GroupCommit(open_redis(Settings(), data_dir, timeout=None), **options)
        made.append(committer)
        return committer

    yield make
    for committer in made:
        await committer.close(grace=0.1)


async def _ready(committer: GroupCommit) -> GroupCommit:
    await committer.start()
    await wait_until(lambda: not committer.unready, what="the store is ready")
    return committer


async def test_a_committed_message_is_a_job_in_its_queue(redis_server: RedisServer, build: Build):
    committer = await _ready(build())
    job = a_job(b"Subject: a\r\n\r\nbody \xff\r\n", stream="broadcasts")
    await committer.commit(job)
    client = redis_server.client()
    assert client.lrange(keys.queue_key("broadcasts"), 0, -1) == [job.id.encode()]
    fields = client.hgetall(keys.job_key(job.id))
    assert fields[b"body"] == job.body
    assert decode_envelope(fields[b"envelope"]) == job.envelope
    assert fields[b"status"] == b"queued"


async def test_messages_that_wait_together_are_kept_by_one_call(
    redis_server: RedisServer, build: Build
):
    committer = await _ready(build())
    client = redis_server.client()
    before = client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"]
    jobs = [a_job() for _ in range(100)]
    await asyncio.gather(*(committer.commit(job) for job in jobs))
    after = client.info("commandstats")["cmdstat_evalsha"]["calls"]
    assert after - before == 1
    ids = [job.id.encode() for job in jobs]
    assert client.lrange(keys.queue_key("outbound"), 0, -1) == ids


async def test_a_kept_message_survives_a_killed_redis(redis_server: RedisServer, build: Build):
    committer = await _ready(build())
    jobs = [a_job() for _ in range(20)]
    await asyncio.gather(*(committer.commit(job) for job in jobs))
    redis_server.kill()
    redis_server.start()
    client = redis_server.client()
    assert client.llen(keys.queue_key("outbound")) == 20
    assert all(client.exists(keys.job_key(job.id)) for job in jobs)


async def test_clients_wait_through_a_short_restart(redis_server: RedisServer, build: Build):
    committer = await _ready(build())
    redis_server.kill()
    waiting = asyncio.create_task(committer.commit(a_job()))
    await wait_until(lambda: committer.unready)
    redis_server.start()
    await waiting
    assert redis_server.client().llen(keys.queue_key("outbound")) == 1


async def test_when_redis_stays_away_clients_are_told_so(redis_server: RedisServer, build: Build):
    committer = await _ready(build(patience=0.3))
    redis_server.stop()
    with pytest.raises(NotKept) as told:
        await committer.commit(a_job())
    assert told.value.kind in ("away", "unknown")
    await wait_until(lambda: committer.trouble)
    with pytest.raises(NotKept) as told:
        await committer.commit(a_job())
    assert told.value.kind == "away"
    assert told.value.text == "the mail store does not answer; try again later"
    redis_server.start()
    await wait_until(lambda: not committer.unready)
    await committer.commit(a_job())


async def test_a_message_kept_after_its_client_was_told_no_is_withdrawn(
    redis_server: RedisServer, build: Build
):
    committer = await _ready(build(patience=0.3))
    redis_server.pause()
    with pytest.raises(NotKept) as told:
        await committer.commit(a_job())
    assert told.value.kind == "unknown"
    redis_server.resume()
    await wait_until(lambda: not committer.unready)
    client = redis_server.client()
    assert client.llen(keys.queue_key("outbound")) == 0
    assert client.keys("rq:job:*") == []


async def test_a_large_message_travels_apart_from_small_ones(
    redis_server: RedisServer, build: Build
):
    committer = await _ready(build())
    order: list[str] = []

    async def keep(name: str, job: Any) -> None:
        await committer.commit(job)
        order.append(name)

    large = [keep("large", a_large_job(3_000_000)) for _ in range(4)]
    await asyncio.gather(*large, *(keep("small", a_job()) for _ in range(50)))
    assert order.index("small") <= 1
    assert redis_server.client().llen(keys.queue_key("outbound")) == 54
