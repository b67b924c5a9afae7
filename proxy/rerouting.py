"""Today's rules for a message that was rewritten by yesterday's. Pure.

What the first rewriting put into the message is taken out, as far as the envelope knows it; then
the message is submitted as if it came in now. Of its client only the address is left, so rules by
`user` or `login` do not match, and `recipient` sees what aliases made of them. What an earlier rule
took out of the header does not come back; what came without a From keeps the one it was given.
"""

from dataclasses import replace

from proxy.mail.address import parse_mailboxes
from proxy.mail.envelope import Client, Envelope
from proxy.mail.fields import Field, Header, parse, unfolded
from proxy.mail.ids import LENGTH
from proxy.mail.postmark_fields import ID_FIELD
from proxy.mail.words import decode_words
from proxy.queue.job import JobEnvelope, RelayJob
from proxy.submission import Accepted, Discarded, Policy, Refusal, submit

_STREAM_FIELD = b"X-PM-Message-Stream"


def reroute(
    policy: Policy, job_id: str, envelope: JobEnvelope, body: bytes, *, now: float
) -> RelayJob | Discarded | Refusal:
    """Return a stored message as today's rules have it, under the id it has.

    Its clock begins anew at `now` (seconds since 1970). Discarded, Refusal: that is what today's
    rules do with it.
    """
    message_id = job_id[:LENGTH]
    content, received = _as_it_came(envelope, body, message_id)
    came = Envelope(
        reverse_path=envelope.reverse_path,
        recipients=envelope.recipients,
        client=Client(envelope.client),
        notify=envelope.notify,
    )
    outcome = submit(policy, came, content, message_id=message_id, now=now)
    if not isinstance(outcome, Accepted):
        return outcome
    fresh = outcome.job
    return RelayJob(
        job_id,
        fresh.stream,
        replace(
            envelope,
            mail_from=fresh.envelope.mail_from,
            recipients=fresh.envelope.recipients,
            accepted_at=now,
            attempts=0,
            waited=0.0,
            rule=fresh.envelope.rule,
            owner=fresh.envelope.owner,
            expires_at=fresh.envelope.expires_at,
            replaced={
                name: envelope.replaced.get(name, said)
                for name, said in fresh.envelope.replaced.items()
            },
            added=fresh.envelope.added,
            once="",
            refused=False,
        ),
        _with_received(fresh.body, received),
    )


def _as_it_came(envelope: JobEnvelope, body: bytes, message_id: str) -> tuple[bytes, bytes | None]:
    """Return the message without what the first rewriting added, and our own Received's value."""
    parsed = parse(body, mbox=False)
    fields = list(parsed.fields)
    received = _take_received(fields, message_id)
    header = Header(fields)
    for name in (_STREAM_FIELD, ID_FIELD, *(name.encode("ascii") for name in envelope.added)):
        header.remove(name.lower())
    if old := envelope.replaced.get("From"):
        _restore_from(header, old)
    return header.octets() + parsed.rest, received


def _take_received(fields: list[Field], message_id: str) -> bytes | None:
    mark = b" id " + message_id.encode("ascii", "replace") + b";"
    for place, (name, value) in enumerate(fields):
        if name.lower() == b"received":
            if mark not in value:
                return None
            del fields[place]
            return value
    return None


def _restore_from(header: Header, old: str) -> None:
    """Give From what it said before: `old` as text, its octets where the rewriting kept them.

    Where it kept them nowhere, From was only mended, and stays as it is.
    """
    kept = header.first(b"x-original-from")
    if kept is not None and _text(kept) == old:
        header.set(b"From", kept)
        header.remove(b"x-original-from")
        return
    reply_to = header.first(b"reply-to")
    if reply_to is None:
        return
    there = [one.address for one in parse_mailboxes(_text(reply_to))]
    now = [one.address for one in parse_mailboxes(_text(header.first(b"from") or b""))]
    if len(there) == 1 and there != now and there[0] in old:
        header.set(b"From", reply_to)
        header.remove(b"reply-to")


def _text(value: bytes) -> str:
    return decode_words(unfolded(value).decode("utf-8", "replace"))


def _with_received(body: bytes, received: bytes | None) -> bytes:
    """Return the message with the trace of its first and only way here."""
    if received is None:
        return body
    parsed = parse(body, mbox=False)
    fields = list(parsed.fields)
    for place, (name, _) in enumerate(fields):
        if name == b"Received":
            fields[place] = (name, received)
            break
    return Header(fields).octets() + parsed.rest
