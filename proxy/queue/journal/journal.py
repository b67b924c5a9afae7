"""The journal of this process: taken to when Redis fails, and moved there when it is back.

Used on one event loop; all that touches the disk runs in a thread.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from proxy.log import events
from proxy.metrics.intake import JOURNAL_MESSAGES
from proxy.queue import refusal
from proxy.queue.batch import Waiting
from proxy.queue.journal.folder import Bounds, JournalFolder
from proxy.queue.journal.record import HEADER_OCTETS, Window
from proxy.queue.journal.source import Source
from proxy.queue.journal.writer import Writer

FOLDER = "journal"
"""Under data_dir."""

_LOOK_EVERY_S = 10.0
_T = TypeVar("_T")


class Journal:
    """Where mail is kept in `data_dir` while Redis cannot take it.

    `journal_id` (16 hexadecimal digits) is that of the process's fence in Redis.
    """

    def __init__(self, data_dir: Path, bounds: Bounds, journal_id: str) -> None:
        self._folder = JournalFolder(data_dir / FOLDER, bounds)
        self._id = journal_id
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._own: Source | None = None
        self._inherited: deque[Source] = deque()
        self._writer: Writer | None = None
        self._failure = ""
        self._said = False
        self._said_of_others: set[str] = set()
        self._look_at = 0.0
        self.taking = False
        """Whether new mail is to be kept here."""
        self.obsolete: list[str] = []
        """Ids of journals that are gone, whose fences are of no use any more."""
        JOURNAL_MESSAGES.set_function(lambda: self.messages)

    @property
    def usable(self) -> bool:
        """Whether mail can be kept here, as far as is known."""
        return self._writer is not None and not self._writer.broken

    @property
    def full(self) -> bool:
        """Whether the next message would be refused for want of room."""
        writer = self._writer
        return writer is not None and not writer.broken and writer.room <= 0

    @property
    def why_full(self) -> str:
        """What leaves no room in the journal, for an operator."""
        return self._folder.why_full(self._own.file) if self._own is not None else ""

    @property
    def messages(self) -> int:
        """Messages on disk here and not in Redis yet."""
        own = self._own.messages if self._own is not None else 0
        return own + sum(each.messages for each in self._inherited)

    @property
    def pending(self) -> bool:
        """Whether anything must be done here before new mail may go to Redis."""
        return self.taking or not self.idle or self.source is not None or self._used

    @property
    def idle(self) -> bool:
        """Whether nothing is being written, nor waits for it."""
        return self._writer is None or self._writer.idle

    @property
    def heritage(self) -> int:
        """Octets that dead processes left and that are not moved yet."""
        return sum(each.left for each in self._inherited)

    @property
    def source(self) -> Source | None:
        """What is to be moved first; None when all that is on disk has been."""
        if self._inherited:
            return self._inherited[0]
        return self._own if self._left > 0 else None

    @property
    def _left(self) -> int:
        return self._own.left if self._own is not None else 0

    @property
    def _used(self) -> bool:
        own = self._own
        return own is not None and self.usable and own.file.end > HEADER_OCTETS

    def is_own(self, source: Source) -> bool:
        """Return whether `source` is this process's journal."""
        return source is self._own

    async def look(self) -> None:
        """Make our journal if it is not there, and take over those of the dead; at times only."""
        now = asyncio.get_running_loop().time()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_EVERY_S
        if self._own is None:
            try:
                file = await self._in_thread(self._folder.create, self._id)
            except OSError as error:
                self._note(str(error))
            else:
                self._own = Source(file)
                room = partial(self._folder.room, file)
                self._writer = Writer(self._own, room, self._in_thread, self._note)
        found = await self._in_thread(self._folder.orphans)
        self.obsolete += found.empty
        for trouble in found.troubles:
            if trouble not in self._said_of_others:
                self._said_of_others.add(trouble)
                events.journal_failed(detail=trouble)
        for file, messages in found.journals:
            events.journal_taken_over(str(file.path), messages=messages)
            self._inherited.append(Source(file, messages))

    def begin(self, reason: str) -> None:
        """Keep new mail here from now on."""
        self.taking = True
        self.ration(None)
        if not self._said:
            self._said = True
            events.journal_used(reason=reason)

    def shut(self) -> None:
        """Take no more: who comes now waits until the rest is moved."""
        self.taking = False
        if self.idle and not self._used:
            self._said = False  # nothing came of it

    def add(self, number: int, waiting: Waiting) -> None:
        """Have a message written; it is kept when its `done` is.

        Raises:
            NotKept: there is no room for it, or the journal cannot be written.
        """
        if self._writer is None or self._writer.broken:
            raise refusal.journal_failed()
        self._writer.add(number, waiting)

    def ration(self, octets: int | None) -> None:
        """Write so many octets more and then none, or (None) as many as come; see `Writer`."""
        if self._writer is not None:
            self._writer.ration(octets)

    def _note(self, trouble: str) -> None:
        """Say once what goes wrong; "": it goes well again."""
        if trouble and trouble != self._failure:
            events.journal_failed(detail=trouble)
        self._failure = trouble

    async def read(self, source: Source, most: int, octets: int) -> Window:
        """Return the next records of `source`."""
        file, at = source.file, source.at
        return await self._in_thread(file.read, at, most, octets)

    async def settled(self) -> None:
        """Return when all that was added is written or refused; `taking` has ended before."""
        if self._writer is not None:
            await self._writer.settled()

    async def finish(self) -> None:
        """Forget what our journal held; all of it has been moved, and nothing is being written."""
        own, writer = self._own, self._writer
        assert own is not None
        assert writer is not None
        events.journal_empty(str(own.file.path), moved=own.moved, skipped=own.skipped)
        # Before the file is touched: mail may come again while that lasts, and is written behind.
        own.begin_anew()
        self._said = False
        writer.measure_anew()
        try:
            await self._in_thread(own.file.clear)
        except OSError as error:
            # Nothing enters Redis twice for it, but no mail is trusted to such a disk.
            writer.broken = True
            own.at = own.file.end
            self._note(str(error))

    async def forget(self, source: Source) -> None:
        """Remove the journal of a dead process that has been moved whole."""
        events.journal_empty(str(source.file.path), moved=source.moved, skipped=source.skipped)
        self._inherited.remove(source)
        try:
            await self._in_thread(source.file.remove)
        except OSError as error:
            self._note(str(error))
            source.file.close()
        else:
            self.obsolete.append(source.file.id)

    async def close(self) -> None:
        """End what is being written, and leave to others what has not been moved."""
        await self.settled()
        for source in self._inherited:
            await self._in_thread(source.file.close)
        if self._own is not None:
            file, self._own, self._writer = self._own.file, None, None
            empty = file.end == HEADER_OCTETS
            await self._in_thread(file.remove if empty else file.close)
        self._threads.shutdown(wait=False)

    async def _in_thread(self, call: Callable[..., _T], *arguments: object) -> _T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: call(*arguments))
