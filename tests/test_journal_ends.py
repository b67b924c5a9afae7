"""Once Redis is well the journal gets empty, however much mail comes, and nobody waits for that."""

import asyncio
import os
import random
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from proxy.queue.commit import GroupCommit, NotKept
from tests.support.jobs import a_job, a_large_job
from tests.support.journaling import Committers, in_journal, moved, queued, ready
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until


@pytest.fixture
async def build(data_dir: Path) -> AsyncIterator[Committers]:
    """A maker of committers with a journal in `data_dir`, all closed at the end."""
    committers = Committers(data_dir)
    yield committers
    await committers.close()


class Clients:
    """So many that hand in mail of `size` octets as fast as it is taken, until `end`."""

    def __init__(self, committer: GroupCommit, count: int, size: int) -> None:
        self._committer = committer
        self._size = size
        self._ending = False
        self.kept: list[str] = []
        self.refused: list[NotKept] = []
        self.waiting: dict[str, float] = {}
        """Whom a client waits for, and since when."""
        self._tasks: list[asyncio.Task[None]] = []
        self.more(count)

    def more(self, count: int) -> None:
        self._tasks += [asyncio.create_task(self._run()) for _ in range(count)]

    async def _run(self) -> None:
        chance = random.Random(len(self._tasks))
        while not self._ending:
            job = a_large_job(self._size) if self._size else a_job()
            self.waiting[job.id] = time.monotonic()
            try:
                await self._committer.commit(job)
            except NotKept as trouble:
                self.refused.append(trouble)
            else:
                self.kept.append(job.id)
            del self.waiting[job.id]
            await asyncio.sleep(chance.random() * 0.002)  # as a client needs for its next message

    async def end(self) -> None:
        self._ending = True
        await asyncio.gather(*self._tasks)


@pytest.mark.parametrize(("count", "size"), [(500, 5000), (50, 500_000)])
async def test_more_mail_than_can_be_moved_does_not_keep_the_journal_from_getting_empty(
    redis_server: RedisServer, build: Committers, count: int, size: int
) -> None:
    committer = await ready(build())
    redis_server.pause()
    clients = Clients(committer, count, size)
    await wait_until(lambda: in_journal() > 2 * count, 60)
    redis_server.resume()
    await wait_until(lambda: not in_journal() and moved(committer), 60, "it is empty")
    await clients.end()
    assert clients.refused == []
    there = queued(redis_server)
    assert len(there) == len(set(there)) == len(clients.kept)
    assert set(there) == set(clients.kept)


async def test_mail_that_is_being_written_when_redis_is_back_ends_though_more_comes_all_the_time(
    redis_server: RedisServer, build: Committers, monkeypatch: pytest.MonkeyPatch
) -> None:
    committer = await ready(build())
    real, disk = os.fdatasync, threading.Event()

    def sync(descriptor: int) -> None:
        disk.wait(20)
        time.sleep(0.01)  # a slow disk: somebody always comes before a group is written
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", sync)
    redis_server.pause()
    await wait_until(lambda: committer._outage.lasts, what="it stands still, and nothing flies")
    clients = Clients(committer, 5, 0)
    journal = committer.journal
    assert journal is not None
    await wait_until(lambda: journal.taking and not journal.idle, what="the first are written")
    clients.more(5)
    redis_server.resume()
    await wait_until(lambda: not committer._outage.lasts)
    assert journal.source is None
    disk.set()
    await wait_until(lambda: not in_journal() and moved(committer), what="it is empty")
    await clients.end()
    assert sorted(queued(redis_server)) == sorted(clients.kept)


def dies(server: RedisServer) -> None:
    server.kill()


def runs_out_of_memory(server: RedisServer) -> None:
    server.client().config_set("maxmemory", 1)


def is_no_longer_durable(server: RedisServer) -> None:
    server.client().config_set("appendonly", "no")


@pytest.mark.parametrize("happens", [dies, runs_out_of_memory, is_no_longer_durable])
async def test_who_waits_for_the_journal_to_shrink_is_answered_soon_when_the_drain_stops(
    redis_server: RedisServer, build: Committers, happens: Callable[[RedisServer], None]
) -> None:
    committer = await ready(build(patience=45.0))
    redis_server.pause()
    clients = Clients(committer, 50, 500_000)
    await wait_until(lambda: in_journal() > 100, 60)
    redis_server.resume()
    journal = committer.journal
    assert journal is not None
    writer = journal._writer
    assert writer is not None
    await wait_until(lambda: not writer.idle and not writer._may_write, what="mail waits")
    happens(redis_server)
    if happens is is_no_longer_durable:
        await wait_until(lambda: committer.trouble, what="it is seen")
    stuck = set(clients.waiting)
    await wait_until(lambda: not stuck & set(clients.waiting), 30, "all of them are answered")
    ended = asyncio.create_task(clients.end())
    if happens is dies:
        await asyncio.to_thread(redis_server.start)
    redis_server.client().config_set("maxmemory", 0)
    redis_server.client().config_set("appendonly", "yes")
    await ended
    await wait_until(lambda: moved(committer), 60)
    there = queued(redis_server)
    assert len(there) == len(set(there))
    assert set(there) == set(clients.kept)
    assert {trouble.kind for trouble in clients.refused} <= {"not_durable"}
