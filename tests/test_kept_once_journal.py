"""Mail handed in again while the journal stands in for Redis: kept once, whatever the order."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.config import Settings
from proxy.queue import keys
from proxy.queue.commit import GroupCommit
from proxy.queue.connection import open_redis
from proxy.queue.job import RelayJob
from proxy.queue.journal.folder import Bounds
from proxy.queue.watch import Demands
from tests.support.jobs import a_job, a_large_job
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

Build = Callable[..., Awaitable[GroupCommit]]
ONCE = "0123456789abcdef" * 2
MEGABYTE = 1_000_000


@pytest.fixture
async def build(data_dir: Path) -> AsyncIterator[Build]:
    """A maker of committers with a journal in `folder`, all closed at the end."""
    made: list[GroupCommit] = []

    async def make(demands: Demands | None = None, folder: Path = data_dir) -> GroupCommit:
        store = open_redis(Settings(), data_dir, timeout=None)
        journal = (folder, Bounds(disk_floor=0))
        committer = GroupCommit(store, demands or Demands(), journal=journal, stall=0.3)
        made.append(committer)
        await committer.start()
        return committer

    yield make
    for committer in made:
        await committer.close(grace=0.1)


def once() -> RelayJob:
    """Return the message that is kept once; each time with another id."""
    job = a_job()
    return replace(job, envelope=replace(job.envelope, once=ONCE))


def queued(redis_server: RedisServer) -> list[str]:
    found: list[bytes] = redis_server.client().lrange(keys.queue_key("outbound"), 0, -1)  # type: ignore[assignment]
    return [each.decode() for each in found]


def is_marked(redis_server: RedisServer) -> bool:
    return redis_server.client().zscore(keys.ONCE, ONCE) is not None


async def drained(committer: GroupCommit) -> None:
    await wait_until(
        lambda: committer.durability and committer.journal and not committer.journal.pending,
        what="the journal is moved",
    )


async def looked_at_again(redis_server: RedisServer) -> None:
    """Return when the committer has looked at the server twice more, which it does with INFO."""
    client = redis_server.client()
    mine = 0

    def asked() -> int:
        nonlocal mine
        mine += 1
        found: dict[str, dict[str, int]] = client.info("commandstats")
        return found.get("cmdstat_info", {"calls": 0})["calls"] - mine

    before = asked()
    await wait_until(lambda: asked() >= before + 2, what="the server was looked at")


async def test_both_in_the_journal_enter_redis_as_one(
    redis_server: RedisServer, build: Build
) -> None:
    redis_server.stop()
    committer = await build()
    first, plain = once(), a_job()
    for each in (first, plain, once()):
        await committer.commit(each)
    redis_server.start()
    await drained(committer)
    assert sorted(queued(redis_server)) == sorted([plain.id, first.id])


async def test_one_in_redis_and_one_in_the_journal_are_one(
    redis_server: RedisServer, build: Build
) -> None:
    committer = await build()
    await wait_until(lambda: committer.durability, what="the store is ready")
    first = once()
    await committer.commit(first)
    redis_server.stop()
    await committer.commit(once())
    redis_server.start()
    await drained(committer)
    assert queued(redis_server) == [first.id]


async def test_its_mark_stays_while_another_of_it_is_in_the_journal(
    redis_server: RedisServer, build: Build
) -> None:
    """The drain stands still between the two, and a client has heard us: neither opens a gap."""
    client = redis_server.client()
    client.set("foreign", b"x" * 5 * MEGABYTE)
    foreign: int = client.memory_usage("foreign")  # type: ignore[assignment]
    redis_server.stop()
    committer = await build(Demands(max_memory=foreign + MEGABYTE))
    first, between = once(), a_large_job(3 * MEGABYTE)
    for each in (first, between, once()):
        await committer.commit(each)
    redis_server.start()
    await wait_until(lambda: is_marked(redis_server), what="the first is moved")
    committer.heard(ONCE)
    await looked_at_again(redis_server)
    assert queued(redis_server) == [first.id]
    redis_server.client().delete("foreign")
    await drained(committer)
    assert queued(redis_server) == [first.id, between.id]
    await wait_until(lambda: not is_marked(redis_server), what="what was heard is forgotten")


async def test_a_mark_goes_also_when_its_client_heard_while_redis_was_away(
    redis_server: RedisServer, build: Build
) -> None:
    redis_server.stop()
    committer = await build()
    first = once()
    await committer.commit(first)
    committer.heard(ONCE)
    redis_server.start()
    await drained(committer)
    assert queued(redis_server) == [first.id]
    await wait_until(lambda: not is_marked(redis_server), what="what was heard is forgotten")


async def test_one_in_the_journal_of_a_dead_process_is_one_with_what_its_successor_takes(
    redis_server: RedisServer, build: Build
) -> None:
    redis_server.stop()
    dead = await build()
    first = once()
    await dead.commit(first)
    await dead.close(grace=0.1)
    redis_server.start()
    committer = await build()
    await committer.commit(once())
    committer.heard(ONCE)
    await drained(committer)
    assert queued(redis_server) == [first.id]


async def test_one_in_the_journal_of_another_host_is_one_with_what_came_here(
    redis_server: RedisServer, build: Build, tmp_path: Path
) -> None:
    redis_server.stop()
    other = await build(folder=tmp_path)
    await other.commit(once())
    await other.close(grace=0.1)
    redis_server.start()
    here, first = await build(), once()
    assert await here.commit(first)
    other = await build(folder=tmp_path)
    await drained(other)
    assert queued(redis_server) == [first.id]
