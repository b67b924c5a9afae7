"""When deferred mail is tried again, and for how long. Pure: chance is an argument."""

from proxy.config.model import Retry
from proxy.queue.job import JobEnvelope

JITTER = 0.2
"""A delay is spread by this share to both sides, so that what failed together comes back apart."""

_MAX_DOUBLINGS = 64  # more would overflow a float before the cap is applied


def delay(attempts: int, retry: Retry, chance: float) -> float:
    """Return the seconds to wait after `attempts` (1 or more) that failed.

    `retry.first`, doubling up to `retry.cap`, spread by JITTER with `chance` (0 to 1).
    """
    doublings = min(max(attempts, 1) - 1, _MAX_DOUBLINGS)
    nominal = min(retry.cap, retry.first * 2.0**doublings)
    return nominal * (1 + JITTER * (2 * chance - 1))


def exhausted(envelope: JobEnvelope, retry: Retry) -> bool:
    """Tell whether mail has waited for as long as `retry.horizon` allows.

    What counts is the time it was deferred for, not the clock: neither an outage of the route nor
    a step of the clock makes mail expire.
    """
    return envelope.waited >= retry.horizon
