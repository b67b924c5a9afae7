"""The drop folder's files: found, read and removed without trusting anybody who can write there.

Everybody on this host can. So nothing is opened by a path that somebody could turn elsewhere, no
link is followed, no FIFO waited for, no more read than a letter can have, and whose a letter is the
file's owner says. What is not a letter is left alone, and named once. Everything here may block:
it is for a thread.
"""

import os
import re
import secrets
import stat
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from proxy.config import Settings
from proxy.sendmail.drop import LISTENING, UNFINISHED
from proxy.sendmail.letter import LONGEST_HEAD, Letter, LetterError, unpack
from proxy.sendmail.message import LARGEST
from proxy.sendmail.where import DATA_DIR, FOLDER

MODE = 0o1733
OF_ONE_USER = 100
"""Letters of one user in one look: nobody's many keep the others' waiting."""

LARGEST_FILE = LARGEST + LONGEST_HEAD
UNFINISHED_S = 86_400.0
"""A file that is still unfinished after this long never will be finished."""

_MOST_TROUBLES = 20  # named in one look: whoever fills the folder shall not fill the log, too
_CHANGES = "it changes while it is read"
_ONCE = re.compile(r"[0-9a-f]{32}")
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


class NoLetterError(Exception):
    """A file is no letter, or is gone; the text, "" where it is gone, is for the log."""


@dataclass(frozen=True, slots=True)
class Found:
    """A letter's file: its name is the id under which the letter is kept once. `size` is octets."""

    once: str
    uid: int
    size: int


@dataclass(frozen=True, slots=True)
class Look:
    """What a look at the folder gave: what to take now, how many wait in all, what is no letter."""

    letters: tuple[Found, ...] = ()
    waiting: int = 0
    troubles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Dropped:
    """A letter out of the folder, the user who put it there, and when (seconds since 1970)."""

    once: str
    letter: Letter
    uid: int
    came: float
    inode: int


def drop_folder(settings: Settings, data_dir: Path) -> Path:
    """Return the drop folder of this configuration."""
    if settings.drop.folder:
        return Path(settings.drop.folder)
    return Path(FOLDER) if data_dir == Path(DATA_DIR) else data_dir / "drop"


class DropFolder:
    """The folder at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def prepare(self) -> str:
        """Make the folder if it is not there; return "" or why it cannot be used."""
        try:
            self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            self.path.mkdir(mode=0o700, exist_ok=True)
            with self._open() as place:
                found = os.fstat(place)
                own = found.st_uid == os.geteuid()
                if not own and os.geteuid() != 0:
                    return f"{self.path} belongs to another user, so nothing could be taken out"
                if own and found.st_mode & MODE != MODE:
                    _open_to_all(place)
        except OSError as error:
            return f"{self.path}: {error.strerror or error}"
        return ""

    def say_listening(self, addresses: Sequence[str]) -> None:
        """Write down for sendmail where the proxy listens; what somebody else put there goes aside.

        Raises:
            OSError: that cannot be.
        """
        new = f"{LISTENING}.{secrets.token_hex(16)}"
        with self._open() as place:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            file = os.open(new, flags, 0o644, dir_fd=place)
            try:
                os.fchmod(file, 0o644)
                os.write(file, "".join(f"{one}\n" for one in addresses).encode())
            finally:
                os.close(file)
            try:
                os.rename(new, LISTENING, src_dir_fd=place, dst_dir_fd=place)
            except OSError:  # a folder of somebody's
                os.rename(LISTENING, f"aside-{new}", src_dir_fd=place, dst_dir_fd=place)
                os.rename(new, LISTENING, src_dir_fd=place, dst_dir_fd=place)

    def look(self, but: frozenset[str] = frozenset()) -> Look:
        """Return what is there: of each user the oldest letters first, the users taking turns.

        `but` are names to pass over.

        Raises:
            OSError: the folder cannot be read.
        """
        of_user: defaultdict[int, list[tuple[int, Found]]] = defaultdict(list)
        troubles: list[str] = []
        waiting = 0
        with self._open() as place:
            for name in _names(place):
                if name.startswith((LISTENING, UNFINISHED)):
                    self._clear(name, place)
                    continue
                if name in but:
                    continue
                try:
                    status = os.stat(name, dir_fd=place, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                trouble = _judge(name, status)
                if trouble:
                    if len(troubles) < _MOST_TROUBLES:
                        troubles.append(f"{name}: {trouble}")
                    continue
                waiting += 1
                found = Found(name, status.st_uid, status.st_size)
                of_user[status.st_uid].append((status.st_ctime_ns, found))
        queues = [
            deque(sorted(some, key=lambda one: one[0])[:OF_ONE_USER]) for some in of_user.values()
        ]
        return Look(tuple(_in_turns(queues)), waiting, tuple(troubles))

    def read(self, once: str) -> Dropped:
        """Return the letter `once`.

        Raises:
            NoLetterError: it is none; what it is is left alone.
            OSError: it cannot be read now.
        """
        with self._open() as place:
            try:
                file = os.open(once, _FLAGS, dir_fd=place)
            except FileNotFoundError:
                raise NoLetterError("") from None
            except OSError as error:
                raise NoLetterError(error.strerror or str(error)) from error
            try:
                status = os.fstat(file)
                trouble = _judge(once, status)
                if trouble:
                    raise NoLetterError(trouble)
                octets = _whole(file, status.st_size)
                self._check(once, place, status, os.fstat(file))
            finally:
                os.close(file)
        if len(octets) != status.st_size:
            raise NoLetterError(_CHANGES)
        try:
            letter = unpack(octets)
        except LetterError as error:
            raise NoLetterError(str(error)) from error
        came = max(0.0, min(status.st_ctime, time.time()))
        return Dropped(once, letter, status.st_uid, came, status.st_ino)

    def remove(self, dropped: Dropped) -> None:
        """Remove the file of a letter that is kept elsewhere, durably.

        Raises:
            OSError: it cannot be removed.
        """
        with self._open() as place:
            try:
                status = os.stat(dropped.once, dir_fd=place, follow_symlinks=False)
            except FileNotFoundError:
                return
            if status.st_ino == dropped.inode:
                _remove(dropped.once, place)
                os.fsync(place)

    def _check(self, once: str, place: int, before: os.stat_result, after: os.stat_result) -> None:
        """Make sure that the file was the letter, and nothing else, and the same all the while.

        A file that lies elsewhere could have had a second name here, taken away after it was
        opened: only when this name, and no other, is the file's at one moment it never lay
        anywhere else.

        Raises:
            NoLetterError: it is not so.
        """
        try:
            named = os.stat(once, dir_fd=place, follow_symlinks=False)
        except FileNotFoundError:
            raise NoLetterError("") from None
        same = all(
            (one.st_ino, one.st_dev, one.st_size, one.st_mtime_ns, one.st_nlink)
            == (before.st_ino, before.st_dev, before.st_size, before.st_mtime_ns, 1)
            for one in (named, after)
        )
        if not same:
            raise NoLetterError(_CHANGES)

    def _open(self) -> "_Place":
        return _Place(self.path)

    def _clear(self, name: str, place: int) -> None:
        """Remove what somebody began to write and never ended."""
        if name == LISTENING:
            return
        try:
            status = os.stat(name, dir_fd=place, follow_symlinks=False)
            if time.time() - status.st_ctime > UNFINISHED_S and not stat.S_ISDIR(status.st_mode):
                _remove(name, place)
        except OSError:
            return


class _Place:
    """The folder itself, open for as long as the block."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def __enter__(self) -> int:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags)
        return self._descriptor

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def _names(place: int) -> Iterator[str]:
    with os.scandir(place) as entries:
        for entry in entries:
            yield entry.name


def _judge(name: str, status: os.stat_result) -> str:
    """Return why a file cannot be a letter, "" when it can."""
    if not _ONCE.fullmatch(name):
        return "its name is not one that franker-sendmail gives"
    if not stat.S_ISREG(status.st_mode):
        return f"it is {_KINDS.get(stat.S_IFMT(status.st_mode), 'no regular file')}"
    if status.st_nlink != 1:
        return f"the file has {status.st_nlink} names (hard links)"
    if status.st_size > LARGEST_FILE:
        return f"it is larger than {LARGEST_FILE} octets"
    return ""


_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFDIR: "a folder",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def _whole(file: int, size: int) -> bytes:
    """Return what is in the file, at most one octet more than `size`."""
    pieces: list[bytes] = []
    left = size + 1
    while left and (piece := os.read(file, min(left, 1 << 20))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _in_turns(queues: list[deque[tuple[int, Found]]]) -> Iterator[Found]:
    while queues:
        for queue in queues:
            yield queue.popleft()[1]
        queues = [queue for queue in queues if queue]


def _open_to_all(place: int) -> None:
    """Let everybody put files in; where the system allows it, with our group, so only we read."""
    try:
        os.fchmod(place, MODE | stat.S_ISGID)
    except PermissionError:
        os.fchmod(place, MODE)


def _remove(name: str, place: int) -> None:
    try:
        os.unlink(name, dir_fd=place)
    except FileNotFoundError:
        return
