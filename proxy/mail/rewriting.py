"""From a message as it came in to the octets that go to Postmark."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate

from proxy.mail.address import Mailbox, NonASCIIMailboxError
from proxy.mail.correspondents import Origin, settle_from, settle_others
from proxy.mail.encoding import fill_empty, is_clean, repair_body
from proxy.mail.envelope import Client
from proxy.mail.fields import HIDDEN, Field, Header, Parsed, unfolded
from proxy.mail.limits import SUBJECT
from proxy.mail.lines import has_long_line
from proxy.mail.postmark_fields import mark
from proxy.mail.raw import repair_fields
from proxy.mail.refusal import non_ascii_mailbox
from proxy.mail.repairs import Repair
from proxy.mail.treatment import Treatment
from proxy.mail.words import decode_words, encode_text

_ONLY_ONE = frozenset(
    (
        b"from",
        b"sender",
        b"reply-to",
        b"subject",
        b"date",
        b"message-id",
        b"in-reply-to",
        b"references",
        b"mime-version",
        b"content-type",
        b"content-transfer-encoding",
        b"content-disposition",
    )
)
"""Fields that may stand once (RFC 5322 §3.6); of several the first counts, for everybody."""
_LISTS = (b"to", b"cc")
"""Fields that may stand once, and whose values can be put together."""


_BODY_KINDS = frozenset(("8bit", "long_lines", "empty_body"))
_BLANK_REACH = 256


@dataclass(frozen=True, slots=True)
class Trace:
    """What Received says of a message's way here (RFC 5321 §4.4), never for whom it is.

    `now` is seconds since 1970, `host` our own name.
    """

    message_id: str
    now: float
    host: str
    client: Client


@dataclass(frozen=True, slots=True)
class Rewritten:
    """`octets` with canonical line ends; `mail_from` is the address of the final From.

    `repairs` are the kinds of what was mended, sorted; `replaced` holds what fields said before.
    """

    octets: bytes
    mail_from: str
    repairs: tuple[Repair, ...]
    replaced: Mapping[str, str]


def rewrite(
    parsed: Parsed,
    mailboxes: list[Mailbox],
    treatment: Treatment,
    origin: Origin,
    trace: Trace,
    charset: str,
) -> Rewritten:
    """Return the message as it goes to Postmark.

    `mailboxes` are those of its From field; `charset` is that of undeclared 8-bit text which is
    not UTF-8. The body comes back octet by octet unless it has to be repaired, and doing this
    twice is doing it once, but for Received.

    Raises:
        RefusedError: it has no From, or one of its addresses cannot be mended.
    """
    octets, body_at = parsed.octets, parsed.body_at
    kinds = set(parsed.kinds)
    fields, mended = _mended_fields(parsed, charset)
    kinds |= mended
    header = Header(fields)
    old_from = parsed.first(b"from")
    _apply_rule(header, treatment)
    kinds |= _without_duplicates(header)
    for name in HIDDEN:
        header.remove(name)
    settled = settle_from(header, mailboxes, origin)
    kinds |= settled.kinds
    kinds |= settle_others(header, origin, settled.address)
    body: bytes | memoryview = memoryview(octets)[body_at:]
    if not octets[body_at : body_at + _BLANK_REACH].strip() and not parsed.body.strip():
        body = fill_empty(header)
        kinds.add("empty_body")
    elif not is_clean(octets):
        body = _mended_body(header, parsed.body, charset, kinds)
    if b"dkim-signature" in header and (
        old_from != header.first(b"from") or not kinds.isdisjoint(_BODY_KINDS)
    ):
        header.remove(b"dkim-signature")
        kinds.add("dkim")
    kinds |= _limit(header)
    kinds |= _add_missing(header, trace, settled.address)
    _put_received(header, trace)
    kinds |= mark(header, treatment, trace.message_id)
    return Rewritten(
        b"".join((header.octets(), b"\r\n", body)),
        settled.address,
        tuple(sorted(kinds)),
        settled.replaced,
    )


def _without_duplicates(header: Header) -> set[Repair]:
    kinds: set[Repair] = set()
    for name in header.repeated():
        if name in _ONLY_ONE:
            header.keep_first(name)
            kinds.add("duplicate")
        elif name in _LISTS:
            values = [b" " + value.strip() for value in header.values(name) if value.strip()]
            header.set(name, b",\r\n".join(values))
            kinds.add("duplicate")
    return kinds


def _mended_fields(parsed: Parsed, charset: str) -> tuple[list[Field], set[Repair]]:
    header = parsed.octets[: parsed.body_at]
    try:
        return repair_fields(parsed.fields, header, charset)
    except NonASCIIMailboxError as error:
        raise non_ascii_mailbox(error.address) from None


def _mended_body(header: Header, body: bytes, charset: str, kinds: set[Repair]) -> bytes:
    mended = repair_body(header, body, charset)
    if not mended.strip():  # it was called base64, and had no letter of it
        kinds.add("empty_body")
        return fill_empty(header)
    if mended != body:  # one with a signed part may be put together again as it was
        if not body.isascii():
            kinds.add("8bit")
        if has_long_line(body):
            kinds.add("long_lines")
    # Broken quoted-printable may have joined the last line to nothing.
    return mended if mended.endswith(b"\r\n") else mended + b"\r\n"


def _limit(header: Header) -> set[Repair]:
    value = header.first(b"subject")
    if value is None or len(value) <= SUBJECT:
        return set()
    text = decode_words(unfolded(value).decode("ascii", "replace"))
    if len(text) <= SUBJECT:
        return set()
    header.set(b"Subject", encode_text(text[: SUBJECT - 3] + "...", b"Subject"))
    return {"limits"}


def _apply_rule(header: Header, treatment: Treatment) -> None:
    for name in treatment.remove:
        header.remove(name)
    for written, value in treatment.set_fields:
        header.remove(written.lower())
        header.add(written, value)


@functools.lru_cache(maxsize=4)
def _date(second: int) -> bytes:
    return formatdate(second).replace("-0000", "+0000").encode("ascii")


_HELO = bytes.maketrans(
    bytes(range(256)),
    bytes(
        octet if octet in b".:-_[]" or (octet < 128 and chr(octet).isalnum()) else ord("?")
        for octet in range(256)
    ),
)


def _put_received(header: Header, trace: Trace) -> None:
    client = trace.client
    helo = client.helo.encode("utf-8", "replace")[:64].translate(_HELO) or b"unknown"
    header.put_on_top(
        b"Received",
        b" from %b (%b) by %b\r\n with %b id %b; %b"
        % (
            helo,
            client.address.encode("ascii", "replace"),
            trace.host.encode("ascii", "replace").translate(_HELO),  # DNS may have said it
            client.protocol.encode("ascii"),
            trace.message_id.encode("ascii"),
            _date(int(trace.now)),
        ),
    )


def _add_missing(header: Header, trace: Trace, from_address: str) -> set[Repair]:
    kinds: set[Repair] = set()
    if b"date" not in header:
        header.add(b"Date", b" " + _date(int(trace.now)))
        kinds.add("date")
    if b"message-id" not in header:
        domain = from_address.rpartition("@")[2]
        header.add(b"Message-ID", f" <{trace.message_id}@{domain}>".encode("ascii"))
        kinds.add("message_id")
    if b"mime-version" not in header:
        header.add(b"MIME-Version", b" 1.0")
        kinds.add("mime_version")
    return kinds
