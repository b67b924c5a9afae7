"""Header fields that are not what RFC 5322 allows: octets above 127, controls, endless lines."""

import re

from proxy.mail.address import normal_address, parse_mailboxes
from proxy.mail.words import (
    encode_mailbox,
    encode_text,
    join_mailboxes,
)

ADDRESS_FIELDS = frozenset(
    (
        b"from",
        b"sender",
        b"reply-to",
        b"to",
        b"cc",
        b"bcc",
        b"resent-from",
        b"resent-sender",
        b"resent-to",
        b"resent-cc",
        b"resent-bcc",
        b"disposition-notification-to",
    )
)
_PARAMETER_FIELDS = frozenset((b"content-type", b"content-disposition"))
_PARAMETER = re.compile(r';\s*([^\s=;"]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;"]*)')
_UNWANTED = bytes((*range(9), 11, 12, *range(14, 32), *range(127, 256)))
"""All that may not stand in a field: controls but for TAB, CR and LF, and octets above 126."""
_EMPTY_FOLD = re.compile(rb"\r\n[ \t]+(?=\r\n|\Z)")


def encode_field(name: bytes, text: str) -> bytes:
    """Return the value of a field for `text`, whatever letters it has; `name` in lower case.

    Raises:
        AddressError: an address field with a mailbox that is not ASCII or no address.
    """
    if name not in ADDRESS_FIELDS or text.isascii():
        return encode_text(text, name)
    mailboxes = [
        encode_mailbox(mailbox.name, normal_address(mailbox.address))
        for mailbox in parse_mailboxes(text)
    ]
    return join_mailboxes(mailboxes)
