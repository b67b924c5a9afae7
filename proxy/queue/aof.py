"""The private server's append-only file: how long it is; mended after a crash before it is read.

A script's writes are one MULTI ... EXEC block in the file. When a crash tears the last block, Redis
7.0 ignores it, as it should, but cuts the file only after the last whole command of the block. The
next block then ends inside the torn one: at the next start mail appears that nobody was promised,
and writes that were confirmed may be dropped (mended in later servers: valkey-io/valkey#4342).
"""

import mmap
import os
from pathlib import Path

_FOLDER = "appendonlydir"
_MANIFEST = "appendonly.aof.manifest"
_EXEC = b"*1\r\n$4\r\nEXEC\r\n"
_GUESSES = 1000


class _NotACommandError(Exception):
    """What stands here is in no append-only file."""


class _TornError(Exception):
    """The file ends inside a command."""


def mend(folder: Path) -> int:
    """Cut what a crash left torn at the end of the file in `folder`; return the octets cut off.

    Nothing that was ever confirmed is cut: a block counts from its EXEC. What is not understood
    is left as it is, for the server to judge.
    """
    path = _last_file(folder / _FOLDER)
    if path is None or not path.stat().st_size:
        return 0
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as octets:
        size = len(octets)
        whole = _whole(octets)
    if whole == size:
        return 0
    with path.open("r+b") as file:
        file.truncate(whole)
        os.fsync(file.fileno())
    return size - whole


def octets_of_history(folder: Path) -> int:
    """Return how long the file in `folder` is, all its parts together; 0 where there is none."""
    try:
        return sum(part.stat().st_size for part in (folder / _FOLDER).iterdir())
    except OSError:
        return 0


def _last_file(folder: Path) -> Path | None:
    try:
        lines = (folder / _MANIFEST).read_text("utf-8").splitlines()
    except OSError:
        return None
    # Lines like: file appendonly.aof.1.incr.aof seq 1 type i; Redis 8 adds: startoffset 0
    names = [words[1] for line in lines if (words := line.split())[4:6] == ["type", "i"]]
    path = folder / names[-1] if names else None
    return path if path is not None and path.is_file() else None


def _whole(octets: mmap.mmap) -> int:
    """Return where the last whole block or command ends.

    Read from the last EXEC on; when that turns out to stand in somebody's mail, from the one
    before.
    """
    before = len(octets)
    for _ in range(_GUESSES):
        found = octets.rfind(_EXEC, 0, before)
        try:
            return _end_of_whole(octets, found + len(_EXEC) if found >= 0 else 0)
        except _NotACommandError:
            if found < 0:
                break
            before = found + len(_EXEC) - 1
    return len(octets)


def _end_of_whole(octets: mmap.mmap, at: int) -> int:
    block: int | None = None
    while at < len(octets):
        try:
            word, after = _command(octets, at)
        except _TornError:
            return at if block is None else block
        if word == b"MULTI":
            block = at
        elif word == b"EXEC":
            block = None
        at = after
    return at if block is None else block


def _command(octets: mmap.mmap, at: int) -> tuple[bytes, int]:
    """Return the name of the command at `at` and where the next one begins."""
    if octets[at : at + 1] == b"#":  # a note of the server to itself
        return b"#", _line(octets, at)[1]
    count, at = _number(octets, at, b"*")
    word = b""
    for place in range(count):
        length, at = _number(octets, at, b"$")
        end = at + length
        if end + 2 > len(octets):
            raise _TornError
        if octets[end : end + 2] != b"\r\n":
            raise _NotACommandError
        if place == 0:
            word = octets[at:end].upper()
        at = end + 2
    return word, at


def _number(octets: mmap.mmap, at: int, mark: bytes) -> tuple[int, int]:
    if at == len(octets):
        raise _TornError
    if octets[at : at + 1] != mark:
        raise _NotACommandError
    line, after = _line(octets, at)
    if not line[1:].isdigit():
        raise _NotACommandError
    return int(line[1:]), after


def _line(octets: mmap.mmap, at: int) -> tuple[bytes, int]:
    end = octets.find(b"\r\n", at, at + 64)
    if end < 0:
        if at + 64 < len(octets):
            raise _NotACommandError
        raise _TornError
    return octets[at:end], end + 2
