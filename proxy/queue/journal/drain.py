"""From a journal into Redis: in order, every record once, whatever breaks meanwhile."""

from collections.abc import Awaitable, Callable
from typing import Any

from proxy.log import events
from proxy.queue.batch import MAX_MESSAGES, MAX_OCTETS, pack_commit
from proxy.queue.fence import Fence
from proxy.queue.job import rq_date
from proxy.queue.journal.journal import Journal
from proxy.queue.journal.record import Record
from proxy.queue.journal.source import Source
from proxy.queue.scripts import load
from proxy.queue.store import StoreConnection
from proxy.queue.watch import StoreWatch
from proxy.queue.wire import Packed

_COMMIT = load("commit")
_REPLICAS_S = 5.0
Call = Callable[[Packed], Awaitable[tuple[Any, bool]]]
"""Sends a script's call; returns what it said, and whether as many servers have it as must."""


class FenceMovedError(Exception):
    """The fence has another epoch: raise it again before anything else."""


class Drain:
    """Moves `journal` over one connection; `own` is the fence of this process, raised on it."""

    def __init__(self, journal: Journal, own: Fence, store: StoreConnection, call: Call) -> None:
        self._journal = journal
        self._own = own
        self._store = store
        self._call = call
        self._theirs: dict[str, Fence] = {}

    async def step(self, watch: StoreWatch) -> int:
        """Move a batch; return how many octets of the journal it was, 0 when there is no room.

        Raises:
            FenceMovedError: nothing was moved.
            TimeoutError: what was moved is not on as many servers as must have it.
            redis.exceptions.RedisError, OSError: it may have been moved or not.
        """
        journal = self._journal
        source = journal.source
        assert source is not None
        fence = await self._fence(source, watch.replicas)
        records, after, skipped = await self._fresh(source, fence, MAX_MESSAGES)
        if records and not watch.has_room(_size(records)):
            records, after, skipped = await self._fresh(source, fence, 1)
            if records and not watch.has_room(_size(records)):
                watch.found_no_room(_size(records))
                return 0
        if records:
            await self._keep(records, fence)
        octets, source.at = after - source.at, after
        source.moved += len(records)
        source.skipped += skipped
        source.messages -= len(records) + skipped
        if not source.left and not journal.is_own(source):
            await journal.forget(source)
        return octets

    async def forget_fences(self) -> None:
        """Remove the fences of journals that are gone."""
        gone = self._journal.obsolete
        while gone:
            await Fence(gone[-1]).remove(self._store)
            gone.pop()

    async def _fence(self, source: Source, replicas: int) -> Fence:
        if self._journal.is_own(source):
            return self._own
        fence = self._theirs.setdefault(source.file.id, Fence(source.file.id))
        if not fence.is_raised_on(self._store):
            await fence.raise_on(self._store)
            if not await self._store.replicated(replicas, _REPLICAS_S):
                raise TimeoutError("the replicas have not confirmed what was kept")
        return fence

    async def _fresh(
        self, source: Source, fence: Fence, most: int
    ) -> tuple[tuple[Record, ...], int, int]:
        """Return the next records that may enter, the place after them, how many may not."""
        window = await self._journal.read(source, most, MAX_OCTETS if most > 1 else 0)
        fresh = tuple(each for each in window.records if each.number > fence.last)
        after = source.file.end if window.torn else window.next
        spoiled = window.damaged + after - window.next
        if spoiled and self._journal.is_own(source):  # of others it was said when they were taken
            events.journal_damaged(str(source.file.path), octets=spoiled)
        return fresh, after, len(window.records) - len(fresh)

    async def _keep(self, records: tuple[Record, ...], fence: Fence) -> None:
        now = rq_date()
        number = records[-1].number
        packed = pack_commit(_COMMIT.sha, fence.key, fence.epoch, number, records, now)
        applied, safe = await self._call(packed)
        if applied == 0:
            fence.forget()
            raise FenceMovedError
        if not safe:
            raise TimeoutError("the replicas have not confirmed what was moved")


def _size(records: tuple[Record, ...]) -> int:
    return sum(each.size for each in records)
