"""Committers with a journal, for tests of it, and what can be seen of them."""

from pathlib import Path
from typing import Any

from proxy.config import Settings
from proxy.metrics.intake import REGISTRY
from proxy.queue import keys
from proxy.queue.commit import GroupCommit, NotKept
from proxy.queue.connection import open_redis
from proxy.queue.journal.folder import Bounds
from proxy.queue.watch import Demands
from tests.support.jobs import a_job
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

STALL_S = 1.0
ROOMY = Bounds(disk_floor=0)


class Committers:
    """Makes committers with a journal in `data_dir`, and closes them all."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._made: list[GroupCommit] = []

    def __call__(
        self,
        folder: Path | None = None,
        bounds: Bounds = ROOMY,
        stall: float = STALL_S,
        patience: float = 10.0,
        **demands: Any,
    ) -> GroupCommit:
        """Return a new one; its Redis is on `folder`/redis.sock, that in `data_dir` by default."""
        store = open_redis(Settings(), folder or self._data_dir, timeout=None)
        committer = GroupCommit(
            store,
            Demands(**demands),
            journal=(self._data_dir, bounds),
            stall=stall,
            patience=patience,
        )
        self._made.append(committer)
        return committer

    async def close(self) -> None:
        """End them, soon."""
        for committer in self._made:
            await committer.close(grace=0.1)


async def ready(committer: GroupCommit) -> GroupCommit:
    """Start it and return when Redis is found durable."""
    await committer.start()
    await wait_until(lambda: committer.durability, 60, "the store is ready")
    return committer


def queued(redis_server: RedisServer, stream: str = "outbound") -> list[str]:
    """Return the ids in the queue, in order."""
    found: list[bytes] = redis_server.client().lrange(keys.queue_key(stream), 0, -1)  # type: ignore[assignment]  # bytes, as the client is set
    return [each.decode() for each in found]


def in_journal() -> float:
    """Return what the metric says."""
    return REGISTRY.get_sample_value("franker_journal_messages") or 0


def moved(committer: GroupCommit) -> bool:
    """Return whether all of the journal is in Redis, and new mail goes there."""
    journal = committer.journal
    return committer.durability is not None and journal is not None and not journal.pending


async def keep(committer: GroupCommit, count: int) -> list[str]:
    """Have `count` messages kept, one after the other; return their ids."""
    jobs = [a_job() for _ in range(count)]
    for job in jobs:
        await committer.commit(job)
    return [job.id for job in jobs]


async def refusal(committer: GroupCommit) -> NotKept:
    """Return the first refusal that a client hears."""
    found: list[NotKept] = []

    async def refused() -> bool:
        try:
            await committer.commit(a_job())
        except NotKept as trouble:
            found.append(trouble)
        return bool(found)

    await wait_until(refused, what="mail is refused")
    return found[0]
