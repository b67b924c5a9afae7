"""What a measurement asks of processes: processor time, memory, a port nobody has."""

import contextlib
import os
import random
import socket
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


def free_port() -> int:
    """Return a port of 127.0.0.1 that is free at this moment.

    It lies below those that Linux gives to connections going out, of which there will be many: one
    of them could take it before it is listened on, or connect to itself while nobody listens.
    """
    for _attempt in range(50):
        port = random.randrange(12_000, 32_000)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no free port")


def family(root: int) -> dict[int, str]:
    """Return pid and name of `root` and all its descendants that live."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: dict[int, str] = {}
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        found[pid] = _name(pid)
        waiting += children.get(pid, [])
    return found


def cpu_seconds(pid: int) -> float:
    """Return the processor time used by `pid` and by its children that ended; 0 when gone."""
    fields = _stat(pid)
    return sum(map(int, fields[11:15])) / _TICKS if fields else 0.0


def resident_octets(pid: int, *, peak: bool = False) -> int:
    """Return the resident memory of `pid`, now or at its peak; 0 when it is gone."""
    key = "VmHWM:" if peak else "VmRSS:"
    try:
        for line in (_PROC / str(pid) / "status").read_text().splitlines():
            if line.startswith(key):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def shared_octets(pid: int) -> int:
    """Return the resident memory of `pid`, of pages shared with others its part; 0: unknown."""
    try:
        for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def _stat(pid: int) -> list[str]:
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def _name(pid: int) -> str:
    """Return the word that says which part it is: "proxy" for `python .../franker proxy`."""
    try:
        words = (_PROC / str(pid) / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        return ""
    if "proxy.supervisor" in words:  # which has the names of its parts as arguments
        return "supervisor"
    for part in ("proxy", "worker", "sandbox"):
        if part in words:
            return part
    return "redis" if "redis" in words[0] or "valkey" in words[0] else Path(words[0]).name
