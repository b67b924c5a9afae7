"""What Postmark finds wrong with a message after it said 250: its silences, in one pure place.

Over SMTP nearly every fault surfaces later, as a bounce of type SMTPApiError with the number that
the HTTP API has for it, or (metadata beyond its limits, as one user saw) not at all.
"""

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass

from proxy.sandbox.account import HOST_NAMES, Account
from proxy.sandbox.message import Taken

MESSAGE_OCTETS = 10_000_000
RECIPIENTS = 50
TAG_CHARACTERS = 1000
SUBJECT_CHARACTERS = 2000
FROM_CHARACTERS = 255
METADATA_FIELDS = 10
METADATA_KEY = 20
METADATA_VALUE = 80

TEST_DOMAIN = "bounce-testing.postmarkapp.com"
"""Mail to TYPE@ this domain bounces at once with that type."""

FORBIDDEN = (
    "vbs|exe|bin|bat|chm|com|cpl|crt|hlp|hta|inf|ins|isp|jse|lnk|mdb|pcd|pif|reg|scr|sct|shs|vbe|"
    "vba|wsf|wsh|wsl|msc|msi|msp|mst"
)
_FORBIDDEN_NAME = re.compile(
    rb'(?i)\b(?:file)?name\*?=(?:"[^"\r\n]*|[^\s;"]*)\.('
    + FORBIDDEN.encode()
    + rb')"?\s*(?:;|\r\n)'
)
_PART_HEADER_OCTETS = 8192


@dataclass(frozen=True, slots=True)
class Trouble:
    """One SMTPApiError: the API's number for it, in words, and for whom it means no mail."""

    number: int
    text: str
    recipients: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """What becomes of a message: lost without a word, or in trouble for some or all recipients."""

    lost: str = ""
    troubles: tuple[Trouble, ...] = ()

    def refused(self) -> frozenset[str]:
        """The recipients that get nothing."""
        return frozenset(address for trouble in self.troubles for address in trouble.recipients)


def examine(taken: Taken, account: Account, suppressed: Container[str]) -> Finding:
    """Judge one message; `suppressed` holds the stream's suppressed addresses in lower case."""
    if lost := _lost(taken):
        return Finding(lost=lost)
    whole = _whole(taken, account)
    if whole:
        return Finding(troubles=(Trouble(*whole, taken.recipients),))
    inactive = tuple(one for one in taken.recipients if one.lower() in suppressed)
    if not inactive:
        return Finding()
    text = "You tried to send to a recipient that has been marked as inactive: " + ", ".join(
        one.lower() for one in inactive
    )
    return Finding(troubles=(Trouble(406, text, inactive),))


def _lost(taken: Taken) -> str:
    if len(taken.metadata) > METADATA_FIELDS:
        return f"more than {METADATA_FIELDS} metadata fields"
    for key, value in taken.metadata.items():
        if len(key) > METADATA_KEY:
            return f"metadata key {key!r} is longer than {METADATA_KEY} characters"
        if len(value) > METADATA_VALUE:
            return f"metadata value of {key!r} is longer than {METADATA_VALUE} characters"
    return ""


def _whole(taken: Taken, account: Account) -> tuple[int, str] | None:
    """Return number and words for what is wrong with the message as a whole."""
    if len(taken.content) > MESSAGE_OCTETS:
        return 300, f"The message is {len(taken.content)} bytes, the limit is {MESSAGE_OCTETS}."
    if len(taken.recipients) > RECIPIENTS:
        return 300, f"More than {RECIPIENTS} recipients ({len(taken.recipients)})."
    if stream := _stream(taken, account):
        return stream
    if not taken.sender:
        return 300, "Invalid 'From' address: there is none."
    if len(taken.field("From") or "") > FROM_CHARACTERS:
        return 300, f"'From' is longer than {FROM_CHARACTERS} characters."
    if not account.may_send_from(taken.sender):
        return 400, (
            f"The 'From' address you supplied ({taken.sender}) is not a Sender Signature on your "
            "account."
        )
    for address in (taken.sender, *taken.recipients):
        if not address.isascii():
            return 300, f"Non-ASCII characters in the mailbox {address!r} are not supported."
    return _parts(taken)


def _stream(taken: Taken, account: Account) -> tuple[int, str] | None:
    kind = account.streams.get(taken.stream)
    if kind is None:
        return 1235, f"The message stream '{taken.stream}' does not exist on this server."
    if kind == "inbound":
        return 1236, f"The message stream '{taken.stream}' is for inbound mail and cannot send."
    if HOST_NAMES[kind] != taken.host:
        # What the real one does here is not known: the stand-in takes the stricter reading.
        return 300, f"The {kind} stream '{taken.stream}' sends by {HOST_NAMES[kind]} only."
    return None


def _parts(taken: Taken) -> tuple[int, str] | None:
    if len(taken.tag) > TAG_CHARACTERS:
        return 300, f"The tag is longer than {TAG_CHARACTERS} characters."
    if len(taken.all_of("X-PM-Tag")) > 1:
        return 300, "More than one tag."
    if len(taken.field("Subject") or "") > SUBJECT_CHARACTERS:
        return 300, f"The subject is longer than {SUBJECT_CHARACTERS} characters."
    if not taken.body.strip():
        return 300, "Zero-length body: provide either a TextBody or an HtmlBody, or both."
    if extension := _forbidden_extension(taken):
        return 411, f"Attachments with the extension .{extension} are not allowed."
    return None


def _forbidden_extension(taken: Taken) -> str:
    """Return the extension of the first attachment that is not allowed, "" for none.

    Looks at the header and at what follows each boundary only, since bodies may be 10 MB.
    """
    if "name" not in (taken.field("Content-Type") or "") and b"\r\n--" not in taken.content:
        return ""
    at = 0
    while at >= 0:
        end = taken.content.find(b"\r\n\r\n", at, at + _PART_HEADER_OCTETS)
        header = taken.content[at : end + 2 if end >= 0 else at + _PART_HEADER_OCTETS]
        if named := _FORBIDDEN_NAME.search(header):
            return named[1].decode().lower()
        at = taken.content.find(b"\r\n--", at + 1)
    return ""


def wanted_bounces(recipients: Sequence[str]) -> list[tuple[str, str]]:
    """Return (recipient, wanted bounce type) of those who stand at Postmark's test domain."""
    pairs = (one.rpartition("@") for one in recipients)
    return [
        (f"{local}@{domain}", local) for local, _, domain in pairs if domain.lower() == TEST_DOMAIN
    ]
