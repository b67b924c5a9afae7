"""A message of the queue as the commands show it: for people, or for programs."""

from typing import TYPE_CHECKING, Any

from proxy.cli.options import printable

if TYPE_CHECKING:
    from proxy.queue.inventory import Entry

_MARKS = {
    "queued": "waits",
    "started": "is being sent",
    "deferred": "later",
    "held": "held",
    "dead": "dead",
}


def lines_of(entry: "Entry", now: float, *, every_recipient: bool = False) -> list[str]:
    """Return an entry as people read it: one line, then one for each recipient with a reply."""
    envelope = entry.envelope
    if envelope is None:
        return [f"{entry.id}  {entry.stream}  written by a later version of Franker"]
    age = duration_text(now - envelope.accepted_at)
    state = _MARKS[entry.state]
    if entry.due is not None:
        what = "Postmark is asked for it in" if envelope.asked else "next try in"
        state = f"{what} {duration_text(max(0.0, entry.due - now))}"
    if entry.hold:
        state = f"held by {entry.hold}"
    first = "  ".join(
        (entry.id, entry.stream, f"{age} old", size_text(entry.size), state)
        + ((f"rule {envelope.rule}",) if envelope.rule else ())
        + (("notice by Franker",) if envelope.notice else ())
    )
    sender = f"    from {envelope.reverse_path or '<>'}"
    if envelope.mail_from and envelope.mail_from != envelope.reverse_path:
        sender += f", as {envelope.mail_from}"
    lines = [first, sender]
    shown = envelope.recipients if every_recipient else envelope.recipients[:5]
    for recipient in shown:
        reply = envelope.replies.get(recipient, "")
        lines.append(f"    to {recipient}" + (f": {reply}" if reply else ""))
    if len(shown) < len(envelope.recipients):
        lines.append(f"    and {len(envelope.recipients) - len(shown)} more")
    return list(map(printable, lines))


def as_dict(entry: "Entry") -> dict[str, Any]:
    """Return an entry as programs read it."""
    envelope = entry.envelope
    known = (
        {}
        if envelope is None
        else {
            "from": envelope.reverse_path,
            "as": envelope.mail_from,
            "recipients": list(envelope.recipients),
            "replies": envelope.replies,
            "accepted_at": envelope.accepted_at,
            "attempts": envelope.attempts,
            "asked_for": envelope.asked > 0,
            "rule": envelope.rule,
            "client": envelope.client,
        }
    )
    return {
        "id": entry.id,
        "stream": entry.stream,
        "state": entry.state,
        "size": entry.size,
        "due": entry.due,
        "hold": entry.hold,
        **known,
    }


def duration_text(seconds: float) -> str:
    """Return a time in its largest unit: "12s", "3m", "5h", "2d"."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return f"{int(max(0, seconds))}s"


def size_text(octets: int) -> str:
    """Return a size in its largest unit: "812 B", "5.1 kB", "3.0 MB"."""
    for unit, length in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if octets >= length:
            return f"{octets / length:.1f} {unit}"
    return f"{octets} B"
