"""Whether a stream's way out is open: pauses that are the route's fault, never the mail's.

While a route is paused nothing is claimed for it and no attempt is counted; it is probed with
growing pauses and opens by itself (CONTRACT §1). Pure: time (seconds, monotonic) and chance
(0 to 1) are arguments.
"""

from dataclasses import dataclass, replace
from enum import StrEnum


class Reason(StrEnum):
    """Why a route is paused; the label of `franker_route_paused`."""

    UNREACHABLE = "unreachable"
    TLS = "tls"
    CREDENTIALS = "credentials"
    REFUSING = "refusing"


class Scope(StrEnum):
    """Whom a pause concerns: all who use the account, or the workers of one host."""

    ACCOUNT = "account"
    HOST = "host"


SCOPES: dict[Reason, Scope] = {
    Reason.UNREACHABLE: Scope.HOST,
    Reason.TLS: Scope.HOST,
    Reason.CREDENTIALS: Scope.ACCOUNT,
    Reason.REFUSING: Scope.ACCOUNT,
}

# (first, longest) pause in seconds. The longest before a host is tried again is a little less than
# the 15 s within which its mail should flow again, since a login takes its time. A refused login
# is repeated seldom, since far ends count them; a changed secret is tried at once, whatever the
# pause. What refuses all mail is probed with a message that waits when it is refused: soon, since
# five bad ones running look alike.
_PAUSES: dict[Reason, tuple[float, float]] = {
    Reason.UNREACHABLE: (1.0, 14.0),
    Reason.TLS: (1.0, 14.0),
    Reason.CREDENTIALS: (15.0, 300.0),
    Reason.REFUSING: (2.0, 300.0),
}
_JITTER = 0.2


@dataclass(frozen=True, slots=True)
class Pause:
    """A closed route: `since` and `probe_at` in seconds of the caller's clock."""

    reason: Reason
    detail: str
    since: float
    probe_at: float
    failures: int = 1

    def due(self, now: float) -> bool:
        """Tell whether it is time to probe."""
        return now >= self.probe_at


def pause(before: Pause | None, reason: Reason, detail: str, *, now: float, chance: float) -> Pause:
    """Return the pause after one more failure at `now`: twice as long as the last of its reason."""
    first, longest = _PAUSES[reason]
    failures, since = 1, now
    if before is not None:
        since = before.since
        failures = before.failures + 1 if before.reason is reason else 1
    wait = min(longest, first * 2.0 ** min(failures - 1, 20))
    wait = min(longest, wait * (1 + _JITTER * (2 * chance - 1)))
    return Pause(reason, detail, since, now + wait, failures)


def probe_now(before: Pause, *, now: float, failures: int | None = None) -> Pause:
    """Return `before` with its probe due: something that may have mended it was seen.

    `failures` is how many are still counted, None: all.
    """
    return replace(before, probe_at=now, failures=before.failures if failures is None else failures)


REFUSALS_TO_PAUSE = 5
"""Different messages refused alike, with nothing taken between, that speak against the route."""
