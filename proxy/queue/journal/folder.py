"""The journals of one host, in data_dir/journal: ours, and those that dead processes left."""

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

from proxy.log import events
from proxy.queue.capacity import disk_free
from proxy.queue.journal.file import SUFFIX, JournalError, JournalFile, set_aside

_TRIES = 5
_TRY_AGAIN_S = 0.05


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much a journal may hold. `max_size` is of all files together, in octets.

    `disk_floor` octets of the disk stay free. `moves_here`: what is in the journal will be written
    a second time to the same disk before it leaves the first place, so as much again must be free.
    """

    max_size: int = 1_000_000_000
    disk_floor: int = 200_000_000
    moves_here: bool = False

    def room(self, own: int, others: int, free: int) -> int:
        """Return the octets that a journal of `own` octets may grow by.

        `others` are the octets of the other journals, `free` those of the disk.
        """
        disk = free - self.disk_floor
        if self.moves_here:
            disk = (disk - own - others) // 2
        return min(self.max_size - own - others, disk)


class JournalFolder:
    """Makes and finds journals. What it does may block: call it in a thread."""

    def __init__(self, path: Path, bounds: Bounds) -> None:
        self._path = path
        self._bounds = bounds

    def create(self, journal_id: str) -> JournalFile:
        """Return this process's own journal, new and empty.

        Raises:
            OSError: it cannot be made.
        """
        for _ in range(_TRIES):
            # Another process that looks for orphans may catch it before it is locked.
            with contextlib.suppress(JournalError, FileExistsError):
                return JournalFile.create(self._path, journal_id)
            time.sleep(_TRY_AGAIN_S)
        return JournalFile.create(self._path, journal_id)

    def orphans(self) -> tuple[list[tuple[JournalFile, int]], list[str]]:
        """Take over what dead processes left, the oldest first.

        Return the journals with mail in them, each with its number of messages, and the ids of
        those that had none and are gone.
        """
        found: list[tuple[float, JournalFile, int]] = []
        empty: list[str] = []
        for path in self._files():
            try:
                age = path.stat().st_mtime
                file = JournalFile.take(path)
            except JournalError:
                with contextlib.suppress(OSError):
                    aside = set_aside(path)
                    events.journal_damaged(str(aside), octets=aside.stat().st_size)
                continue
            except OSError:
                continue  # gone, or not ours to read
            if file is None:
                continue
            checked = file.check()
            if checked.torn:
                events.journal_torn(str(path), octets=checked.torn)
            if checked.damaged:
                events.journal_damaged(str(path), octets=checked.damaged)
            if checked.records:
                found.append((age, file, checked.records))
                continue
            if file.id:
                empty.append(file.id)
            file.remove()
        found.sort(key=lambda one: one[0])
        return [(file, count) for _, file, count in found], empty

    def room(self, own: JournalFile) -> int:
        """Return the octets that our journal may grow by now."""
        others = 0
        for path in self._files():
            if path != own.path:
                with contextlib.suppress(OSError):
                    others += path.stat().st_size
        return self._bounds.room(own.end, others, disk_free(self._path))

    def _files(self) -> list[Path]:
        try:
            return sorted(self._path.glob("*" + SUFFIX))
        except OSError:
            return []
