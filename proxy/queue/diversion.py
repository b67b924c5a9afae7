"""The way past a Redis that cannot take mail: into the journal, and from there to Redis again."""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from redis.exceptions import OutOfMemoryError, ResponseError

from proxy.log import events
from proxy.queue import refusal
from proxy.queue.batch import MAX_OCTETS, Lanes, Waiting
from proxy.queue.fates import Fates, settle
from proxy.queue.journal.drain import Drain, FenceMovedError
from proxy.queue.journal.journal import Journal
from proxy.queue.refusal import NotKept, before_running
from proxy.queue.watch import StoreWatch

InTime = Callable[[Coroutine[Any, Any, Any]], Awaitable[Any]]
"""Awaits an exchange with Redis, no longer than it may take."""


class Diversion:
    """Leads what waits in `lanes`, and what flies, into `journal`; None: there is no such way."""

    def __init__(self, journal: Journal | None, lanes: Lanes, fates: Fates) -> None:
        self.journal = journal
        self._lanes = lanes
        self._fates = fates
        self._defect = ""

    @property
    def possible(self) -> bool:
        """Whether mail can be kept in the journal, as far as is known."""
        return self.journal is not None and self.journal.usable

    @property
    def taken(self) -> bool:
        """Whether new mail goes this way."""
        return self.journal is not None and self.journal.taking

    @property
    def pending(self) -> bool:
        """Whether the journal must be moved before new mail may go to Redis."""
        return self.journal is not None and self.journal.pending

    @property
    def idle(self) -> bool:
        """Whether nothing is on its way into the journal."""
        return self.journal is None or self.journal.idle

    def keep(self, waiting: Waiting) -> None:
        """Have a new message kept in the journal.

        Raises:
            NotKept: there is no room for it, or the journal cannot be written.
        """
        assert self.journal is not None
        self.journal.add(self._fates.next_number(), waiting)

    def divert(self, reason: str) -> None:
        """Have all that waits, and all that comes, kept in the journal.

        The batch in flight comes first and keeps its number: the fence will tell whether its
        messages are in Redis. So nothing else may have been numbered since it was sent.
        """
        assert self.journal is not None
        self.journal.begin(reason)
        if self._fates.flying is not None:
            batch = self._fates.divert()
            for waiting in batch.messages:
                self._add(batch.number, waiting, refusal.unknown())
        for waiting in self._lanes.clear():
            self._add(self._fates.next_number(), waiting)

    def _add(self, number: int, waiting: Waiting, instead: NotKept | None = None) -> None:
        assert self.journal is not None
        try:
            self.journal.add(number, waiting)
        except NotKept as trouble:
            settle([waiting], instead or trouble)

    async def look(self) -> None:
        """Make the journal if it is not there, and take over those of the dead; at times only."""
        if self.journal is not None:
            await self.journal.look()

    async def move(
        self, drain: Drain, watch: StoreWatch, in_time: InTime, take_up: Callable[[], Any]
    ) -> bool:
        """Move some of the journal to Redis; return whether to go on at once.

        `take_up` raises our fence.
        """
        journal = self.journal
        assert journal is not None
        if journal.obsolete:
            await in_time(drain.forget_fences())
        if not journal.pending:
            return False
        if journal.source is None:
            await _end(journal)
            return True
        if journal.heritage > MAX_OCTETS and journal.usable and not journal.taking:
            self.divert("mail of a process that died goes first")
        try:
            moved: int = await in_time(drain.step(watch))
        except FenceMovedError:
            await in_time(take_up())
            return True
        except OutOfMemoryError as error:
            watch.fills_up(str(error))
            moved = 0
        except ResponseError as error:
            if before_running(error):
                raise
            moved = 0
            if str(error) != self._defect:  # it will be met again and again
                self._defect = str(error)
                events.defect("commit.lua", error=error)
        if not moved:
            self.halted()
            self._let_nobody_wait(journal, watch)
            return False
        journal.ration(moved // 2)
        return True

    def halted(self) -> None:
        """Note that nothing is being moved for now: no mail waits for that before it is written."""
        if self.journal is not None:
            self.journal.ration(None)

    def _let_nobody_wait(self, journal: Journal, watch: StoreWatch) -> None:
        if journal.taking:
            return
        if journal.usable:
            self.divert("the mail store is full")
        else:
            trouble = refusal.full(watch.full) if watch.full else refusal.unwritable()
            settle(self._lanes.clear(), trouble)

    async def close(self) -> None:
        """End what is being written; what has not been moved is left for the next process."""
        if self.journal is not None:
            await self.journal.close()


async def _end(journal: Journal) -> None:
    """Go on with a journal that has nothing on disk to be moved."""
    if journal.taking:
        journal.shut()  # first: what is being written has an end only when nothing more comes
    elif not journal.idle:
        await journal.settled()
    else:
        await journal.finish()
