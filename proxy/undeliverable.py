"""Mail that was refused when nobody was there to hear it: dead from the beginning. Pure."""

from collections.abc import Mapping

from proxy.mail.envelope import Envelope
from proxy.mail.fields import HIDDEN, Field, Header, parse
from proxy.mail.lines import canonical_lines
from proxy.mail.postmark_fields import ID_FIELD, OWN
from proxy.queue.job import JobEnvelope, RelayJob
from proxy.submission import Policy, choose


def dead_letter(
    policy: Policy,
    envelope: Envelope,
    content: bytes,
    replies: Mapping[str, str],
    *,
    message_id: str,
    now: float,
    owner: str = "",
) -> RelayJob:
    """Return the dead letter for the recipients in `replies`, each with the words of its refusal.

    The rule that takes the message says whose it is and which stream's; without an owner it is
    `owner`'s. The message stays as it came, but for Bcc and Postmark's own fields: today's rules
    have to take it (`franker queue retry` has them look again) before it can go anywhere. Where the
    header is too long nothing is taken out: any rules refuse that.
    """
    octets, _ = canonical_lines(content)
    parsed = parse(octets)
    _, chosen = choose(policy, envelope, parsed)
    fields: list[Field] = [
        (name, value)
        for name, value in parsed.fields
        if not parsed.complete  # the last of them may go on behind them
        or not (name.lower() in HIDDEN or name.lower().startswith(OWN))
    ]
    header = Header(fields)
    header.put_on_top(b"X-PM-Message-Stream", b" " + chosen.treatment.stream_id.encode("ascii"))
    header.put_on_top(ID_FIELD, b" " + message_id.encode("ascii"))
    return RelayJob(
        id=message_id,
        stream=chosen.stream,
        envelope=JobEnvelope(
            mail_from=envelope.reverse_path,
            recipients=tuple(replies),
            accepted_at=now,
            reverse_path=envelope.reverse_path,
            rule=chosen.rule,
            owner=chosen.owner or owner,
            notify=envelope.notify,
            replies=dict(replies),
            client=envelope.client.address,
            once=envelope.once,
            refused=True,
        ),
        body=header.octets() + parsed.rest,
    )
