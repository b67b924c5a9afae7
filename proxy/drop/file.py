"""One file of the drop folder: judged, read and removed without trusting whoever put it there.

Nothing is opened by a path that somebody could turn elsewhere, no link is followed, no FIFO waited
for, no more read than a letter can have, and whose a letter is the file's owner says.
"""

import os
import stat
import time
from dataclasses import dataclass

from proxy.sendmail.drop import is_letter
from proxy.sendmail.letter import LARGEST_FILE, Letter, LetterError, unpack

_CHANGES = "it changes while it is read"
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


class NoLetterError(Exception):
    """A file is no letter, or is gone; the text, "" where it is gone, is for the log."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """A letter out of the folder, the user who put it there, and when (seconds since 1970)."""

    once: str
    letter: Letter
    uid: int
    came: float
    inode: int


def read_letter(once: str, place: int) -> Dropped:
    """Return the letter `once` of the folder open as `place`.

    Raises:
        NoLetterError: it is none; what it is is left alone.
        OSError: it cannot be read now.
    """
    try:
        file = os.open(once, _FLAGS, dir_fd=place)
    except FileNotFoundError:
        raise NoLetterError("") from None
    except OSError as error:
        raise NoLetterError(error.strerror or str(error)) from error
    try:
        status = os.fstat(file)
        trouble = judge(once, status)
        if trouble:
            raise NoLetterError(trouble)
        octets = _whole(file, status.st_size)
        _check(once, place, status, os.fstat(file))
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


def remove_letter(dropped: Dropped, place: int) -> None:
    """Remove the file of a letter; what was put in its place is left alone.

    Raises:
        OSError: it cannot be removed.
    """
    try:
        status = os.stat(dropped.once, dir_fd=place, follow_symlinks=False)
        if status.st_ino == dropped.inode:
            os.unlink(dropped.once, dir_fd=place)
    except (FileNotFoundError, IsADirectoryError):  # swapped at this very moment
        return


def judge(name: str, status: os.stat_result) -> str:
    """Return why a file cannot be a letter, "" when it can."""
    if not is_letter(name):
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


def _check(once: str, place: int, before: os.stat_result, after: os.stat_result) -> None:
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
