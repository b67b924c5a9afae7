"""How much mail may wait: the limit on Redis's memory, and the disk that must stay free.

Redis has no limit of its own (it would stop the worker from settling what was sent): Franker
refuses new mail instead.
"""

import os
from collections.abc import Mapping
from pathlib import Path

AUTO_SHARE = 0.4
"""Of the memory there is, for `redis.max_memory = "auto"`."""

OWN_LIMIT_SHARE = 0.9
"""Of a maxmemory that the server has after all, so that settling goes on when intake stops."""

DISK_FLOOR = 100_000_000
"""Octets that must stay free where the private server writes: with none it ends itself."""


def memory_limit(
    max_memory: int | None, info: Mapping[str, str], *, private: bool, here: int
) -> int:
    """Return the most octets Redis may use before mail is refused.

    `max_memory` is `redis.max_memory`, None for "auto"; `info` is the server's INFO; `here` the
    memory of this host or its cgroup, which counts for a `private` server.
    """
    there = int(info.get("total_system_memory", "0") or "0")
    limit = max_memory
    if limit is None:
        limit = int((here if private or not there else there) * AUTO_SHARE)
    own = server_limit(info)
    return limit if own is None else min(limit, own)


def server_limit(info: Mapping[str, str]) -> int | None:
    """Return the octets up to which a server with a maxmemory takes mail; None without one."""
    own = int(info.get("maxmemory", "0") or "0")
    return int(own * OWN_LIMIT_SHARE) if own else None


def memory_here() -> int:
    """Return the octets of memory that this process's cgroup, or else the host, may use."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([total, *_cgroup_limits()])


def _cgroup_limits() -> list[int]:
    limits: list[int] = []
    try:
        lines = Path("/proc/self/cgroup").read_text("ascii", "replace").splitlines()
    except OSError:
        return limits
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            folder, name = Path("/sys/fs/cgroup"), "memory.max"
        elif "memory" in controllers.split(","):
            folder, name = Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"
        else:
            continue
        own = folder / path.strip("/")
        # A limit may stand on any folder above; inside a container the path may not exist at all.
        for place in (own, *own.parents):
            if place == folder.parent:
                break
            try:
                limits.append(int((place / name).read_text("ascii")))
            except (OSError, ValueError):  # absent, or "max"
                continue
    return limits


def disk_free(folder: Path) -> int:
    """Return the octets that an ordinary user may still write where `folder` is."""
    room = os.statvfs(folder)
    return room.f_bavail * room.f_frsize
