"""A message that came in, judged and made ready: taken, thrown away by a rule, or refused.

Pure: the whole way from what a client said to what is put into the queue.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from proxy.config.model import Settings
from proxy.mail import ids
from proxy.mail.address import Mailbox, ascii_domain, normal_address, parse_mailboxes, split_address
from proxy.mail.charset import decode_undeclared
from proxy.mail.correspondents import Origin, Verified
from proxy.mail.encoding import least_size
from proxy.mail.envelope import Client, Envelope
from proxy.mail.fields import LONGEST_HEADER, Header, Parsed, parse, unfolded
from proxy.mail.limits import RECEIVED_FIELDS
from proxy.mail.lines import canonical_lines
from proxy.mail.local import LocalNames, checked, compile_local
from proxy.mail.refusal import Refusal, RefusedError, refused, shown
from proxy.mail.repairs import Repair
from proxy.mail.rewriting import Trace, rewrite
from proxy.mail.words import decode_words
from proxy.queue.job import JobEnvelope, RelayJob
from proxy.routing import CompiledRule, Route, compile_rules, route

__all__ = [
    "Accepted",
    "Discarded",
    "Policy",
    "Refusal",
    "check_sender",
    "choose",
    "compile_policy",
    "resolve_recipient",
    "submit",
]


@dataclass(frozen=True, slots=True)
class Policy:
    """The configuration as far as it judges messages, compiled once."""

    rules: tuple[CompiledRule, ...]
    local: LocalNames
    verified: Verified
    charset: str
    max_size: int
    needs_subject: bool


@dataclass(frozen=True, slots=True)
class Accepted:
    """A message ready for the queue. `repairs` are the kinds of what was mended in it."""

    job: RelayJob
    repairs: tuple[Repair, ...]
    route: Route


@dataclass(frozen=True, slots=True)
class Discarded:
    """A message that is answered with 250 and thrown away, because `rule` says so."""

    rule: str


def compile_policy(
    settings: Settings, *, host_names: Sequence[str], aliases_text: str = ""
) -> Policy:
    """Return the policy of these settings.

    `host_names` are this host's own names, the full one first; `aliases_text` is what stands in
    local.aliases_file.
    """
    rules = compile_rules(settings)
    verified = settings.postmark.verified
    return Policy(
        rules=rules,
        local=compile_local(settings.local, host_names, aliases_text),
        verified=Verified(
            domains=frozenset(ascii_domain(one).lower() for one in verified if "@" not in one),
            addresses=frozenset(normal_address(one).lower() for one in verified if "@" in one),
        ),
        charset=settings.listen.charset,
        max_size=settings.listen.max_message_size,
        needs_subject=any(rule.needs_subject for rule in rules),
    )


def check_sender(policy: Policy, reverse_path: str) -> Refusal | None:
    """Judge a reverse-path at MAIL; "" is the null one. None: it may go on."""
    if not reverse_path or policy.local.is_local(reverse_path):
        reverse_path = (split_address(reverse_path)[0] or "postmaster") + "@localhost"
    try:
        checked(reverse_path, "sender")
    except RefusedError as error:
        return error.refusal
    return None


def resolve_recipient(policy: Policy, address: str) -> tuple[str, ...] | Refusal:
    """Return whom mail for this forward-path goes to, at least one address, or why it is refused.

    The answer at RCPT; `submit` resolves the same again from what the client gave.
    """
    try:
        return policy.local.recipients(address)
    except RefusedError as error:
        return error.refusal


def submit(
    policy: Policy, envelope: Envelope, content: bytes, *, message_id: str, now: float
) -> Accepted | Discarded | Refusal:
    """Judge a message and make it ready for the queue.

    `content` is what came between DATA and the dot, dot-stuffing undone, otherwise raw.
    `envelope.recipients` are as the client gave them. `now` is seconds since 1970.
    """
    try:
        return _submit(policy, envelope, content, message_id, now)
    except RefusedError as error:
        return error.refusal


def choose(policy: Policy, envelope: Envelope, parsed: Parsed) -> tuple[list[Mailbox], Route]:
    """Return the mailboxes of a message's From, and where the rules have it go."""
    mailboxes = parse_mailboxes(_text(parsed, b"from", policy.charset))
    subject = (
        decode_words(_text(parsed, b"subject", policy.charset)) if policy.needs_subject else ""
    )
    sender = mailboxes[0].address if mailboxes else ""
    return mailboxes, route(policy.rules, envelope, sender, subject)


def _submit(
    policy: Policy, envelope: Envelope, content: bytes, message_id: str, now: float
) -> Accepted | Discarded:
    octets, kinds = canonical_lines(content)
    parsed = parse(octets)
    _check_header(parsed)
    mailboxes, chosen = choose(policy, envelope, parsed)
    if chosen.action == "discard":
        return Discarded(chosen.rule)
    if chosen.action == "reject":
        raise refused(550, "5.7.1", f'Refused by the rule "{shown(chosen.rule)}"', "rule")
    if not octets.isascii():
        _check_size(least_size(Header(parsed.fields), parsed.body), content, policy, "at least ")
    recipients: dict[str, None] = {}
    for recipient in envelope.recipients:
        recipients.update(dict.fromkeys(policy.local.recipients(recipient)))
    rewritten = rewrite(
        parsed,
        mailboxes,
        chosen.treatment,
        Origin(
            policy.local,
            policy.verified,
            envelope.reverse_path,
            chosen.treatment.from_,
            _written_on(policy, envelope.client),
        ),
        Trace(message_id, now, policy.local.host, envelope.client),
        policy.charset,
    )
    _check_size(len(rewritten.octets), content, policy)
    job = RelayJob(
        id=message_id,
        stream=chosen.stream,
        envelope=JobEnvelope(
            mail_from=rewritten.mail_from,
            recipients=tuple(recipients),
            accepted_at=now,
            reverse_path=envelope.reverse_path,
            rule=chosen.rule,
            owner=chosen.owner,
            notify=envelope.notify,
            once=envelope.once,
            expires_at=None if chosen.expires is None else now + chosen.expires,
            replaced=dict(rewritten.replaced),
            client=envelope.client.address,
            added=chosen.treatment.names(),
        ),
        body=rewritten.octets,
    )
    return Accepted(job, (*kinds, *rewritten.repairs), chosen)


def _text(parsed: Parsed, name: bytes, charset: str) -> str:
    value = parsed.first(name)
    return "" if value is None else decode_undeclared(unfolded(value), charset)


def _check_header(parsed: Parsed) -> None:
    if not parsed.complete:
        raise refused(
            552, "5.3.4", f"The message's header is longer than {LONGEST_HEADER} octets", "header"
        )
    received = 0
    for name, value in parsed.fields:
        if len(name) == 8 and name.lower() == b"received":
            received += 1
        elif len(name) == 24 and name.lower() == b"x-pm-metadata-franker-id" and _is_ours(value):
            raise refused(
                554,
                "5.4.6",
                "Mail loop: this message has been through Franker before (it has a field "
                "X-PM-Metadata-franker-id); to send it again, take that field out",
                "loop",
            )
    if received >= RECEIVED_FIELDS:
        raise refused(
            554,
            "5.4.6",
            f"Mail loop: the message has {received} Received fields, {RECEIVED_FIELDS} are a loop",
            "loop",
        )


def _is_ours(value: bytes) -> bool:
    try:
        ids.accepted_ms(unfolded(value).decode("ascii"))
    except ValueError:
        return False
    return True


def _written_on(policy: Policy, client: Client) -> str:
    if client.address in ("unix", "::1") or client.address.startswith("127."):
        return policy.local.host
    return client.helo if "." in client.helo else client.address


def _check_size(size: int, content: bytes, policy: Policy, least: str = "") -> None:
    if size > policy.max_size:
        raise refused(
            552,
            "5.3.4",
            f"The message is {least}{size} octets as it goes to Postmark ({len(content)} as it "
            f"came), the limit is {policy.max_size} (listen.max_message_size)",
            "size",
        )
