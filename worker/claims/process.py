"""Which process a worker is, so that another on the same host can see at once that it ended."""

import os
from pathlib import Path

_PROC = Path("/proc")


def _place() -> str:
    boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {(_PROC / 'self/ns/pid').readlink()}"


def _stat(pid: str) -> tuple[str, str]:
    """Return a process's state letter and the time it was started at."""
    fields = (_PROC / pid / "stat").read_text().rpartition(")")[2].split()
    return fields[0], fields[19]


def identity() -> str:
    """Return words that tell this process from every other one; "" where /proc says nothing."""
    try:
        return f"{_place()} {os.getpid()} {_stat('self')[1]}"
    except (OSError, IndexError):
        return ""


def has_ended(other: str) -> bool:
    """Return whether the process whose `identity` is `other` has certainly ended.

    False for one on another host, before another boot, or in another container.
    """
    place, _, started = other.rpartition(" ")
    place, _, pid = place.rpartition(" ")
    try:
        if not pid.isdecimal() or place != _place():
            return False
    except OSError:
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False  # it lives, under another user
    try:
        state, since = _stat(pid)
    except (OSError, IndexError):
        return False  # it lives, but /proc hides it
    return since != started or state in "ZX"
