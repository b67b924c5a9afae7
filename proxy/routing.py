"""Rules: which mail it is, and what is done with it. The first that matches wins.

Within a rule, different keys combine by AND, the values of one key by OR. Values are matched as
they came in, before anything is replaced.
"""

import ipaddress
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from proxy.config.model import Settings
from proxy.config.rule import Rule
from proxy.mail.address import normal_address
from proxy.mail.envelope import Envelope
from proxy.mail.raw import encode_field
from proxy.mail.treatment import Treatment
from proxy.mail.words import encode_text

Action = Literal["relay", "reject", "discard"]
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

DEFAULT_STREAM = "outbound"

_TRACK_OPENS = {None: b"", True: b" true", False: b" false"}


class Pattern:
    """Text in which `*` stands for any run of characters; case does not matter.

    Matching takes time linear in the text, whatever the pattern.
    """

    __slots__ = ("_first", "_last", "_middle", "_single", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        first, *rest = text.casefold().split("*")
        self._single = not rest
        self._first = first
        self._last = rest[-1] if rest else ""
        self._middle = tuple(filter(None, rest[:-1]))

    def __repr__(self) -> str:
        return f"Pattern({self.text!r})"

    def matches(self, value: str) -> bool:
        """Say whether all of `value`, which must be casefolded, fits."""
        if self._single:
            return value == self._first
        at, end = len(self._first), len(value) - len(self._last)
        if at > end or not value.startswith(self._first) or not value.endswith(self._last):
            return False
        for piece in self._middle:
            at = value.find(piece, at, end)
            if at < 0:
                return False
            at += len(piece)
        return True


@dataclass(frozen=True, slots=True)
class Facts:
    """What rules look at. `senders` are those that count, each as it came in and casefolded."""

    envelope: Envelope
    senders: tuple[tuple[str, str], ...]
    subject: str


Condition = Callable[[Facts], str]
"""Returns why it holds, in words, or "" where it does not."""


@dataclass(frozen=True, slots=True)
class Route:
    """What is done with a message, and why. `rule` is "" where none matched."""

    rule: str
    why: tuple[str, ...]
    stream: str
    action: Action
    treatment: Treatment
    owner: str = ""
    expires: float | None = None


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """A rule of the configuration, ready to be asked; without conditions it takes everything."""

    conditions: tuple[Condition, ...]
    route: Route
    needs_subject: bool = False


def _sent_by(patterns: Sequence[str]) -> Condition:
    compiled = [Pattern(text) for text in patterns]

    def condition(facts: Facts) -> str:
        for value, folded in facts.senders:
            for pattern in compiled:
                if pattern.matches(folded):
                    return f"sender {value} matches {pattern.text}"
        return ""

    return condition


def _any_of(key: str, patterns: Sequence[str], read: Callable[[Facts], Iterable[str]]) -> Condition:
    compiled = [Pattern(text) for text in patterns]

    def condition(facts: Facts) -> str:
        for value in read(facts):
            folded = value.casefold()
            for pattern in compiled:
                if pattern.matches(folded):
                    return f"{key} {value} matches {pattern.text}"
        return ""

    return condition


def _all_recipients(patterns: Sequence[str]) -> Condition:
    compiled = [Pattern(text) for text in patterns]

    def condition(facts: Facts) -> str:
        for recipient in facts.envelope.recipients:
            folded = recipient.casefold()
            if not any(pattern.matches(folded) for pattern in compiled):
                return ""
        return "every recipient matches " + " or ".join(pattern.text for pattern in compiled)

    return condition


def _client_in(values: Sequence[str]) -> Condition:
    names = {value.lower() for value in values}
    networks: list[_Network] = []
    for value in values:
        try:
            networks.append(ipaddress.ip_network(value, strict=False))
        except ValueError:
            continue  # "unix", which has no address

    def condition(facts: Facts) -> str:
        client = facts.envelope.client.address
        if client in names:
            return f"client {client}"
        try:
            address = ipaddress.ip_address(client)
        except ValueError:
            return ""
        for network in networks:
            if address.version == network.version and address in network:
                return f"client {client} is in {network}"
        return ""

    return condition


def _senders(envelope: Envelope, first_from: str) -> tuple[tuple[str, str], ...]:
    reverse_path = envelope.reverse_path or "<>"
    sent_by = (reverse_path, reverse_path.casefold())
    if not first_from or first_from == reverse_path:
        return (sent_by,)
    return (sent_by, (first_from, first_from.casefold()))


def _users(facts: Facts) -> Iterable[str]:
    client = facts.envelope.client
    if client.user:
        yield client.user
    if client.uid is not None:
        yield str(client.uid)


def _logins(facts: Facts) -> Iterable[str]:
    return (facts.envelope.client.login,) if facts.envelope.client.login else ()


def _subjects(facts: Facts) -> Iterable[str]:
    return (facts.subject,)


def _conditions(rule: Rule) -> Iterable[Condition]:
    # The cheap ones first.
    if rule.sender:
        yield _sent_by(rule.sender)
    if rule.user:
        yield _any_of("user", rule.user, _users)
    if rule.login:
        yield _any_of("login", rule.login, _logins)
    if rule.subject:
        yield _any_of("subject", rule.subject, _subjects)
    if rule.recipient:
        yield _all_recipients(rule.recipient)
    if rule.client:
        yield _client_in(rule.client)


def _stream_id(settings: Settings, name: str) -> str:
    stream = settings.streams.get(name)
    return (stream.id if stream is not None else "") or name


def _treatment(rule: Rule, stream_id: str) -> Treatment:
    return Treatment(
        stream_id=stream_id,
        tag=encode_text(rule.tag, b"X-PM-Tag") if rule.tag else b"",
        metadata=tuple(
            (key.encode("ascii"), encode_text(value, b"X-PM-Metadata-" + key.encode()))
            for key, value in rule.metadata.items()
        ),
        from_=normal_address(rule.from_) if rule.from_ else "",
        keep_id=rule.keep_id,
        track_opens=_TRACK_OPENS[rule.track_opens],
        track_links=f" {rule.track_links}".encode() if rule.track_links else b"",
        set_fields=tuple(
            (name.encode("ascii"), encode_field(name.lower().encode("ascii"), value))
            for name, value in rule.set_headers.items()
        ),
        remove=tuple(name.lower().encode("ascii") for name in rule.remove_headers),
    )


def compile_rules(settings: Settings) -> tuple[CompiledRule, ...]:
    """Return the rules in their order, ended by the one that takes what none of them matched."""
    rules = [
        CompiledRule(
            conditions=tuple(_conditions(rule)),
            route=Route(
                rule=rule.name,
                why=("the rule has no conditions",),
                stream=rule.stream,
                action=rule.action,
                treatment=_treatment(rule, _stream_id(settings, rule.stream)),
                owner=rule.owner,
                expires=rule.expires,
            ),
            needs_subject=bool(rule.subject),
        )
        for rule in settings.rules
    ]
    otherwise = Route(
        rule="",
        why=("no rule matches",),
        stream=DEFAULT_STREAM,
        action="relay",
        treatment=Treatment(stream_id=_stream_id(settings, DEFAULT_STREAM)),
    )
    return (*rules, CompiledRule(conditions=(), route=otherwise))


def route(
    rules: Sequence[CompiledRule], envelope: Envelope, first_from: str, subject: str
) -> Route:
    """Return the route of the first rule that matches.

    `rules` are those of `compile_rules`. `first_from` is the first From mailbox's address, as it
    came in, "" without one. `subject` is the decoded subject; it may be "" where no rule
    `needs_subject`.
    """
    facts = Facts(envelope, _senders(envelope, first_from), subject)
    for rule in rules:
        why: list[str] = []
        for condition in rule.conditions:
            reason = condition(facts)
            if not reason:
                break
            why.append(reason)
        else:
            return replace(rule.route, why=tuple(why)) if why else rule.route
    raise ValueError("the last rule must have no conditions")
