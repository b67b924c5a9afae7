"""What waits to be written to our journal: in order, in groups, one fsync each."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from proxy.log import events
from proxy.queue import refusal
from proxy.queue.batch import Waiting
from proxy.queue.fates import settle
from proxy.queue.journal.record import frame_octets, pack_record
from proxy.queue.journal.source import Source

_GROUP_OCTETS = 4_000_000
_MEASURE_EVERY_S = 0.5

InThread = Callable[..., Awaitable[Any]]
"""Calls a function that blocks, with its arguments, in the journal's thread."""


class Writer:
    """Writes to `own`.

    `room` measures how many octets it may grow by; `note` is told what goes wrong, and "" when it
    goes well again.

    While the journal is being moved only as much is written as `ration` allows: so it grows by
    less than it shrinks by, and gets empty however much mail comes.
    """

    def __init__(
        self,
        own: Source,
        room: Callable[[], int],
        in_thread: InThread,
        note: Callable[[str], None],
    ) -> None:
        self._own = own
        self._measure = room
        self._in_thread = in_thread
        self._note = note
        self._waiting: deque[tuple[int, Waiting]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._ration: int | None = None
        self._room = 0
        self._measure_at = 0.0
        self.broken = False
        """Whether nothing more is trusted to this disk."""

    @property
    def idle(self) -> bool:
        """Whether nothing is being written, nor waits for it."""
        return self._task is None and not self._waiting

    @property
    def room(self) -> int:
        """The octets that there is room for beside what waits, as lately measured."""
        now = asyncio.get_running_loop().time()
        if now >= self._measure_at:
            self._measure_at = now + _MEASURE_EVERY_S
            queued = sum(frame_octets(waiting) for _, waiting in self._waiting)
            try:
                self._room = self._measure() - queued
            except OSError as error:
                self._note(str(error))
                self._room = 0
        return self._room

    def measure_anew(self) -> None:
        """Note that there is more room than there was."""
        self._measure_at = 0.0

    def add(self, number: int, waiting: Waiting) -> None:
        """Have a message written; it is kept when its `done` is.

        Raises:
            NotKept: there is no room for it.
        """
        octets = frame_octets(waiting)
        if octets > self.room:
            raise refusal.journal_full()
        self._room -= octets
        self._waiting.append((number, waiting))
        self._go_on()

    def ration(self, octets: int | None) -> None:
        """Allow so many octets more to be written, and then none; None: as many as come.

        A message is not parted: what it takes beyond the ration is taken off the next.
        """
        if octets is None:
            self._ration = None
        else:
            self._ration = min(self._ration or 0, 0) + octets
        self._go_on()

    async def settled(self) -> None:
        """Return when all that was added is written or refused; nothing may be added meanwhile."""
        self.ration(None)
        if self._task is not None:
            await asyncio.wait([self._task])

    @property
    def _may_write(self) -> bool:
        return self._ration is None or self._ration > 0

    def _go_on(self) -> None:
        if self._task is None and self._waiting and self._may_write:
            self._task = asyncio.create_task(self._write(), name="journal")

    async def _write(self) -> None:
        group: list[Waiting] = []
        try:
            while self._waiting and self._may_write:
                group, octets = self._group()
                if self._ration is not None:
                    self._ration -= len(octets)
                await self._keep(group, octets)
        except Exception as error:  # a defect here must leave nobody waiting
            events.defect("journal", error=error)
            self.broken = True
            settle([*group, *(each for _, each in self._waiting)], refusal.journal_failed())
            self._waiting.clear()
        finally:
            self._task = None

    def _group(self) -> tuple[list[Waiting], bytes]:
        mark = self._own.file.mark
        most = _GROUP_OCTETS if self._ration is None else min(self._ration, _GROUP_OCTETS)
        group: list[Waiting] = []
        parts: list[bytes] = []
        size = 0
        while self._waiting and (not group or size + self._waiting[0][1].size <= most):
            number, waiting = self._waiting.popleft()
            if not waiting.done.done():  # else its client has gone: it was never promised
                group.append(waiting)
                parts += pack_record(mark, number, waiting)
                size += waiting.size
        return group, b"".join(parts)

    async def _keep(self, group: Sequence[Waiting], octets: bytes) -> None:
        if not group:
            return
        trouble = refusal.journal_failed() if self.broken else None
        if trouble is None:
            file = self._own.file
            try:
                await self._in_thread(file.append, octets)
                self._own.messages += len(group)
                self._note("")
            except OSError as error:
                # After a failed fsync nobody knows what is on disk; after a full disk one does.
                self.broken = not file.whole
                self._note(str(error))
                trouble = refusal.journal_failed()
        settle(group, trouble)
