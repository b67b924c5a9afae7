"""How much mail may wait: the limit on Redis's memory, and the disk that must stay free.

Redis has no limit of its own (it would stop the worker from settling what was sent): Franker
refuses new mail instead.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from proxy.config.model import PRIVATE_DISK_FLOOR

AUTO_SHARE = 0.4
"""Of the memory there is, for `redis.max_memory = "auto"`."""

OWN_LIMIT_SHARE = 0.9
"""Of a maxmemory that the server has after all, so that settling goes on when intake stops."""

DISK_FLOOR = PRIVATE_DISK_FLOOR
"""Octets that must stay free where the private server writes: with none it ends itself."""


@dataclass(frozen=True, slots=True)
class Room:
    """What counts against a limit now, in octets, and what sets that limit, in words."""

    used: int
    limit: int
    key: str
    is_servers: bool = False
    """Whether the limit is the server's own, which a journal gets round."""

    @property
    def left(self) -> int:
        """Octets that still fit; below 0 when the limit was lowered."""
        return self.limit - self.used

    @property
    def is_full(self) -> bool:
        """Whether next to nothing fits: mail of an ordinary size is refused, or is about to be."""
        return self.left < min(self.limit // 20, 1_000_000)

    def __str__(self) -> str:
        used, limit = self.used / 1e6, self.limit / 1e6
        return f"{used:.1f} of {limit:.1f} MB are used ({self.key})"


def room_for_mail(
    max_memory: int | None, info: Mapping[str, str], *, private: bool, here: int
) -> Room:
    """Return the room for queued mail: that of the limit which is reached first.

    `max_memory` is `redis.max_memory`, None for "auto"; `info` is the server's INFO; `here` the
    memory of this host or its cgroup, which counts for a `private` server.
    """
    there = _octets(info, "total_system_memory")
    limit, key = max_memory, "redis.max_memory"
    if limit is None:
        limit = int((here if private or not there else there) * AUTO_SHARE)
        key = f"redis.max_memory, auto: {AUTO_SHARE:.0%} of the memory"
    used = _octets(info, "used_memory")
    mail = Room(octets_of_mail(info), limit, key)
    own = _octets(info, "maxmemory")
    if not own:
        return mail
    key = f"{OWN_LIMIT_SHARE:.0%} of Redis's maxmemory"
    whole = Room(used, int(own * OWN_LIMIT_SHARE), key, is_servers=True)
    return min(mail, whole, key=lambda room: room.left)


def octets_of_mail(info: Mapping[str, str]) -> int:
    """Return the octets that a server's data takes, by its own reckoning in INFO.

    What else is in `used_memory` differs: Redis 8 counts the memory of its Lua, which grows to
    twice the largest message, Redis 7.0 and Valkey do not. Only the server knows what it counted.
    """
    used = _octets(info, "used_memory")
    data = _octets(info, "used_memory_dataset") if "used_memory_dataset" in info else used
    # What a client has just given back it still takes off: below 0 it wraps round.
    return data if data <= used else 0


def _octets(info: Mapping[str, str], name: str) -> int:
    return int(info.get(name) or "0")


def no_room_on_disk(folder: Path) -> str:
    """Return why the disk of `folder` can take no more mail, "" when it can."""
    free = disk_free(folder)
    if free >= DISK_FLOOR:
        return ""
    return (
        f"the disk of data_dir has {free / 1e6:.0f} MB free, {DISK_FLOOR / 1e6:.0f} MB must stay so"
    )


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
