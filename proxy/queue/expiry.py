"""When mail is not to be sent any more (`expires` of a rule), by a clock that nobody can set.

`expires_at` is for people to read, and for other hosts. What decides, wherever it can, is the time
since the boot: a step of the system clock neither makes mail expire nor lets it live for ever. It
can where the message is judged on the host, and after the boot, on which it was accepted; elsewhere
the system clock has to do.
"""

import hashlib
import time
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from proxy.queue.job import JobEnvelope


@dataclass(frozen=True, slots=True)
class Instant:
    """A moment: `wall` in seconds since 1970, `uptime` in seconds since the boot `boot`.

    `uptime` goes on while the machine sleeps. An empty `boot` can be compared with none.
    """

    wall: float
    uptime: float
    boot: str


def read_clocks() -> Instant:
    """Return what the clocks of this host say now."""
    return Instant(time.time(), time.clock_gettime(time.CLOCK_BOOTTIME), boot_name())


@cache
def boot_name() -> str:
    """Return a short name for this boot of this host; "" where /proc says nothing."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        clock = Path("/proc/self/ns/time")  # a container may have a time since boot of its own
        place = str(clock.readlink()) if clock.is_symlink() else ""
    except OSError:
        return ""
    return hashlib.blake2b(f"{boot} {place}".encode(), digest_size=6).hexdigest()


def stamped(envelope: JobEnvelope, now: Instant) -> JobEnvelope:
    """Return `envelope`, whose time begins `now`, with its end by the time since the boot, too."""
    if envelope.expires_at is None:
        return envelope
    lasts = max(0.0, envelope.expires_at - envelope.accepted_at)
    return replace(envelope, expires_up=now.uptime + lasts, boot=now.boot)


def renewed(envelope: JobEnvelope, now: Instant) -> JobEnvelope:
    """Return a dead letter's envelope as of a message accepted `now`: it was put back by hand."""
    expires_at = envelope.expires_at
    if expires_at is not None:
        expires_at = now.wall + max(0.0, expires_at - envelope.accepted_at)
    anew = replace(envelope, accepted_at=now.wall, attempts=0, waited=0.0, expires_at=expires_at)
    return stamped(anew, now)


def has_expired(envelope: JobEnvelope, now: Instant) -> bool:
    """Tell whether the time is over in which the message may be sent."""
    if envelope.expires_at is None:
        return False
    if envelope.boot and envelope.boot == now.boot:
        return now.uptime > envelope.expires_up
    return now.wall > envelope.expires_at
