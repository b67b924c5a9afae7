"""The journals of one host, in data_dir/journal: ours, and those that dead processes left."""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from proxy.log import events
from proxy.queue.capacity import disk_free
from proxy.queue.journal.file import SUFFIX, JournalFile, NoHeaderError, TakenError, set_aside

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


@dataclass(frozen=True, slots=True)
class Orphans:
    """Journals with mail in them, the oldest first, each with its number of messages.

    `empty` are the ids of those that had none and are gone; `troubles` says what cannot be had.
    """

    journals: tuple[tuple[JournalFile, int], ...]
    empty: Sequence[str]
    troubles: Sequence[str]


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
            with contextlib.suppress(TakenError, FileExistsError):
                return JournalFile.create(self._path, journal_id)
            time.sleep(_TRY_AGAIN_S)
        return JournalFile.create(self._path, journal_id)

    def orphans(self) -> Orphans:
        """Take over what dead processes left."""
        found: list[tuple[float, JournalFile, int]] = []
        empty: list[str] = []
        troubles: list[str] = []
        for path in self._files():
            file: JournalFile | None = None
            try:
                age = path.stat().st_mtime
                file = JournalFile.take(path)
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
                file.remove()
                if file.id:
                    empty.append(file.id)
            except NoHeaderError:
                aside = set_aside(path)
                events.journal_damaged(str(aside), octets=aside.stat().st_size)
            except FileNotFoundError:
                continue  # its owner has ended
            except OSError as error:
                troubles.append(f"{path}: {error.strerror or error}")
                if file is not None:
                    file.close()
        found.sort(key=lambda one: one[0])
        return Orphans(tuple((file, count) for _, file, count in found), empty, troubles)

    def room(self, own: JournalFile) -> int:
        """Return the octets that our journal may grow by now."""
        return self._bounds.room(own.end, self._others(own), disk_free(self._path))

    def why_full(self, own: JournalFile) -> str:
        """Return which bound leaves no room, with path and numbers; as it stands now."""
        bounds, used = self._bounds, own.end + self._others(own)
        if bounds.max_size <= used:
            most = f"journal.max_size = {bounds.max_size / 1e6:.0f} MB"
            return f"the journal in {self._path} is full ({most})"
        floor, free = bounds.disk_floor / 1e6, disk_free(self._path) / 1e6
        said = (
            f"the disk of the journal in {self._path} has {free:.0f} MB free, {floor:.0f} MB must"
            " stay so (journal.disk_floor)"
        )
        if bounds.moves_here:
            return f"{said} beside what moving the journal to the queue takes"
        return said

    def _others(self, own: JournalFile) -> int:
        others = 0
        for path in self._files():
            if path != own.path:
                with contextlib.suppress(OSError):
                    others += path.stat().st_size
        return others

    def _files(self) -> list[Path]:
        try:
            return sorted(self._path.glob("*" + SUFFIX))
        except OSError:
            return []
