"""One journal on disk: a file that belongs to whoever holds the lock on it."""

import contextlib
import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from proxy.queue.journal.record import (
    HEADER_OCTETS,
    MARK_OCTETS,
    Window,
    pack_header,
    read_records,
    unpack_header,
)

SUFFIX = ".journal"
DAMAGED = ".damaged"
_PRIVATE_FILE, _PRIVATE_FOLDER = 0o600, 0o700
_CHECK_RECORDS, _CHECK_OCTETS = 1000, 8_000_000


class TakenError(OSError):
    """Another process came for the new file before it was locked: make it again."""


class NoHeaderError(OSError):
    """The file does not begin as a journal does: nothing can be read from it."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What a file holds: whole records, octets between them that are none, octets torn off."""

    records: int
    damaged: int
    torn: int


class JournalFile:
    """A journal, locked by this process until `close`.

    `end` is where the next record goes: all before it is on disk. Not for two threads at once,
    but that `read` may run beside `append`.
    """

    def __init__(self, path: Path, descriptor: int, journal_id: str, mark: bytes) -> None:
        self.path = path
        self.id = journal_id
        self.end = os.fstat(descriptor).st_size
        self.damaged = 0
        """Octets before `end` that are no whole record: the file is set aside, not removed."""
        self.whole = True
        """Whether it is known what stands on disk: not after an error that could not be undone."""
        self._descriptor = descriptor
        self._mark = mark

    @property
    def mark(self) -> bytes:
        """What each frame begins with."""
        return self._mark

    @classmethod
    def create(cls, folder: Path, journal_id: str) -> "JournalFile":
        """Make the journal `journal_id` (16 hexadecimal digits, never used before) in `folder`.

        Raises:
            OSError: it cannot be made.
        """
        folder.mkdir(mode=_PRIVATE_FOLDER, parents=True, exist_ok=True)
        path = folder / (journal_id + SUFFIX)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PRIVATE_FILE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.fstat(descriptor).st_nlink:
                raise BlockingIOError
            mark = os.urandom(MARK_OCTETS)
            _write(descriptor, pack_header(journal_id, mark), 0)
            os.fsync(descriptor)
            _sync_folder(folder)
        except BlockingIOError:
            os.close(descriptor)
            raise TakenError(f"{path} was taken by another process") from None
        except BaseException:
            path.unlink(missing_ok=True)
            os.close(descriptor)
            raise
        return cls(path, descriptor, journal_id, mark)

    @classmethod
    def take(cls, path: Path) -> "JournalFile | None":
        """Take over the journal at `path`; None while its owner lives, or when it is gone.

        Raises:
            NoHeaderError: nothing can be read from it.
            OSError: it cannot be opened.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            status = os.fstat(descriptor)
            if not status.st_nlink:  # drained and removed while we came
                os.close(descriptor)
                return None
            found = unpack_header(os.pread(descriptor, HEADER_OCTETS, 0))
            if found is None and status.st_size > HEADER_OCTETS:
                raise NoHeaderError(f"{path} has no header of a journal")
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        # Without a whole header nothing was ever promised: it is on disk before the first record.
        return cls(path, descriptor, *(found or ("", b"")))

    def check(self) -> Checked:
        """Read all of it, cut off what a crash left torn at its end, and say what is there."""
        at, records = HEADER_OCTETS, 0
        while at < self.end:
            window = self.read(at, _CHECK_RECORDS, _CHECK_OCTETS)
            records += len(window.records)
            self.damaged += window.damaged
            at = window.next
            if window.torn:
                break
        torn = max(0, self.end - at)
        if torn:
            self._cut(at)
        return Checked(records, self.damaged, torn)

    def read(self, at: int, most: int, octets: int) -> Window:
        """Return records from `at` on, as `read_records` does."""
        descriptor = self._descriptor

        def read(place: int, count: int) -> bytes:
            return os.pread(descriptor, count, place)

        return read_records(read, self._mark, at, self.end, most, octets)

    def append(self, octets: bytes) -> None:
        """Write whole frames behind the last; return when they are on disk.

        Raises:
            OSError: they are not, and have been cut off again as far as that was possible.
        """
        self.whole = False
        try:
            _write(self._descriptor, octets, self.end)
        except OSError:
            self._cut(self.end)
            self.whole = True
            raise
        try:
            os.fdatasync(self._descriptor)
        except OSError:
            # What is on disk is not known, nor will be by trying again.
            with contextlib.suppress(OSError):
                self._cut(self.end)
            raise
        self.end += len(octets)
        self.whole = True

    def clear(self) -> None:
        """Forget all records."""
        self._cut(HEADER_OCTETS)

    def _cut(self, end: int) -> None:
        os.ftruncate(self._descriptor, end)
        self.end = end
        os.fsync(self._descriptor)

    def remove(self) -> None:
        """Remove the file, or set it aside when it is damaged, and give up the lock."""
        if self.damaged:
            self.path.rename(self.path.with_suffix(DAMAGED))
        else:
            self.path.unlink(missing_ok=True)
        _sync_folder(self.path.parent)
        self.close()

    def close(self) -> None:
        """Give up the lock; the file stays for whoever takes it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def set_aside(path: Path) -> Path:
    """Rename a file that cannot be read, so that nobody tries again; return its new name."""
    return path.rename(path.with_suffix(DAMAGED))


def _write(descriptor: int, octets: bytes, at: int) -> None:
    rest = memoryview(octets)
    while rest:
        written = os.pwrite(descriptor, rest, at)
        rest, at = rest[written:], at + written


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
