"""From a message as it came in to the octets that go to Postmark."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate

from proxy.mail.address import Mailbox
from proxy.mail.correspondents import Origin, settle_from, settle_others
from proxy.mail.envelope import Client
from proxy.mail.fields import Header, Parsed
from proxy.mail.marks import mark
from proxy.mail.treatment import Treatment

_ONLY_ONE = (
    b"from",
    b"sender",
    b"reply-to",
    b"to",
    b"cc",
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
"""Fields that may stand once (RFC 5322 §3.6); of several the first counts, for everybody."""


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
    repairs: tuple[str, ...]
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
    kinds = set(parsed.kinds)
    header = Header(parsed.fields)
    _apply_rule(header, treatment)
    for name in _ONLY_ONE:
        if header.count(name) > 1 and header.keep_first(name):
            kinds.add("duplicate")
    header.remove(b"bcc")
    header.remove(b"resent-bcc")
    settled = settle_from(header, mailboxes, origin)
    kinds |= settled.kinds
    kinds |= settle_others(header, origin, settled.address)
    _put_received(header, trace)
    kinds |= mark(header, treatment, trace.message_id)
    kinds |= _add_missing(header, trace, settled.address)
    body = memoryview(parsed.octets)[parsed.body_at :]
    octets = b"".join((header.octets(), b"\r\n", body))
    return Rewritten(octets, settled.address, tuple(sorted(kinds)), settled.replaced)


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
    helo = client.helo.encode("utf-8")[:64].translate(_HELO) or b"unknown"
    header.put_on_top(
        b"Received",
        b" from %b (%b) by %b\r\n with %b id %b; %b"
        % (
            helo,
            client.address.encode("ascii", "replace"),
            trace.host.encode("ascii", "replace"),
            client.protocol.encode("ascii"),
            trace.message_id.encode("ascii"),
            _date(int(trace.now)),
        ),
    )


def _add_missing(header: Header, trace: Trace, from_address: str) -> set[str]:
    kinds: set[str] = set()
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
