"""Whether Redis, as it is set now, keeps what it has confirmed: read, judged, never assumed."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Durability:
    """`durable`: what Redis confirms is on its disk. `reason` says why not, "" when it is."""

    durable: bool
    reason: str = ""


_WANTED = {
    "appendonly": ("yes", "CONFIG SET appendonly yes"),
    "appendfsync": ("always", "CONFIG SET appendfsync always"),
    "no-appendfsync-on-rewrite": ("no", "CONFIG SET no-appendfsync-on-rewrite no"),
    "maxmemory-policy": ("noeviction", "CONFIG SET maxmemory-policy noeviction"),
}

SETTINGS = ("append*", "no-appendfsync-on-rewrite", "maxmemory*", "min-replicas-to-write")
"""What CONFIG GET is asked for, one at a time (more at once is new in Redis 7)."""


def judge(
    settings: Mapping[str, str] | None, info: Mapping[str, str], *, replicated: bool = False
) -> Durability:
    """Return whether a server with these `settings` and this INFO keeps what it confirms.

    `settings` is None when the server does not let them be read (managed ones): what cannot be
    proved does not count. `replicated`: another server may take this one's place (Sentinel), so
    that its own disk is not enough.
    """
    if settings is None:
        return Durability(False, "the server does not show its settings (CONFIG is forbidden)")
    for name, (wanted, remedy) in _WANTED.items():
        found = settings.get(name, "not known to it")
        if found != wanted:
            return Durability(False, f"{name} is {found}, needed is {wanted}: {remedy}")
    if info.get("role", "master") != "master":
        return Durability(False, "the server is a replica, not a master")
    if info.get("aof_enabled") != "1":
        return Durability(False, "the append-only file is not in use yet")
    if info.get("aof_last_write_status", "ok") != "ok":
        return Durability(False, "its last write to the append-only file failed")
    if replicated and int(settings.get("min-replicas-to-write", "0")) < 1:
        return Durability(False, "behind Sentinel min-replicas-to-write is 0, needed is at least 1")
    return Durability(True)


def parse_info(text: bytes) -> dict[str, str]:
    """Return the fields of INFO's reply."""
    pairs = (line.partition(":") for line in text.decode("utf-8", "replace").splitlines())
    return {name: value for name, colon, value in pairs if colon}
