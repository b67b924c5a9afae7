"""What a measurement asks of processes: processor time, memory, a port nobody has."""

import os
import socket
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


def free_port() -> int:
    """Return a port of 127.0.0.1 that is free at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


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
    for part in ("proxy", "worker", "sandbox"):
        if part in words:
            return part
    if "redis" in words[0] or "valkey" in words[0]:
        return "redis"
    return "supervisor" if "proxy.supervisor" in words else Path(words[0]).name
