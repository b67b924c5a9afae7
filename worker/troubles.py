"""What a worker sees to be wrong, in words for people."""

from collections.abc import Sequence

from proxy.alerts import Kind, Trouble
from worker.pauses import SCOPES, Pause, Reason, Scope

_ADVICE = {
    Reason.CREDENTIALS: "Put a right token where it is looked for: it is tried at once.",
    Reason.REFUSING: "Postmark refuses whatever is sent: look at the account, and at its words.",
    Reason.TLS: "Nothing is sent in clear text or to a server that cannot prove its name.",
    Reason.UNREACHABLE: "Look at this host's network, its firewall, and status.postmarkapp.com.",
}
_REST = "The mail waits and is sent when this is mended. `franker check` looks again."


def is_of(host: str, kind: Kind, subject: str) -> bool:
    """Tell whether a worker on `host` sees troubles of this `kind` and `subject`."""
    return kind is Kind.ROUTE and (" on " not in subject or subject.endswith(f" on {host}"))


def streams_of(subject: str) -> tuple[str, ...]:
    """Return the streams of a trouble's `subject`."""
    return tuple(subject.partition(" on ")[0].split(","))


def paused(streams: Sequence[str], pause: Pause, host: str) -> Trouble:
    """Mail of `streams` does not leave, by any worker or by those of `host`."""
    named = ", ".join(streams)
    here = SCOPES[pause.reason] is Scope.HOST
    subject = f"{','.join(streams)} on {host}" if here else ",".join(streams)
    headline = f"mail of {named} does not leave ({pause.reason}): {pause.detail}"
    return Trouble(Kind.ROUTE, subject, headline, f"{_ADVICE[pause.reason]} {_REST}")
