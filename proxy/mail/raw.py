"""Header fields that are not what RFC 5322 allows: octets above 127, controls, endless lines."""

import re
from urllib.parse import quote

from proxy.mail.address import (
    AddressError,
    NonASCIIMailboxError,
    is_bare_name,
    normal_address,
    parse_mailboxes,
)
from proxy.mail.charset import decode_undeclared, fits
from proxy.mail.fields import Field, unfolded
from proxy.mail.lines import has_long_line
from proxy.mail.repairs import Repair
from proxy.mail.words import (
    decode_words,
    encode_mailbox,
    encode_text,
    fold,
    join_mailboxes,
    one_line,
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
_LONGEST_PARAMETER = 200
_CHUNK = 60


def encode_field(name: bytes, text: str) -> bytes:
    """Return the value of a field for `text`, whatever letters it has; `name` in lower case."""
    if name in ADDRESS_FIELDS and not text.isascii() and (value := _mailboxes(text, strict=False)):
        return value
    return encode_text(text, name)


def repair_fields(
    fields: list[Field], header: bytes, charset: str, *, strict: bool = True
) -> tuple[list[Field], set[Repair]]:
    """Return the fields as RFC 5322 allows them, and the kinds of repair this took.

    `header` is the octets they were taken from: what needs nothing is seen there at once. Text
    outside of ASCII becomes encoded words (RFC 2047) or parameters (RFC 2231), `charset` being
    that of what is not UTF-8; controls become spaces; endless lines are folded. Kinds are
    "raw_header" and "long_header".

    Raises:
        NonASCIIMailboxError: `strict`, and an address field has a mailbox that is not ASCII.
    """
    unwanted = len(header.translate(None, _UNWANTED)) != len(header)
    long = has_long_line(header)
    if not unwanted and not long and _EMPTY_FOLD.search(header) is None:
        return fields, set()
    kinds: set[Repair] = set()
    repaired = []
    for name, value in fields:
        if b"\r" in value:
            value, empty = _EMPTY_FOLD.subn(b"", value)
            if empty:
                kinds.add("raw_header")
        if len(value.translate(None, _UNWANTED)) != len(value):
            kinds.add("raw_header")
            repaired.append((name, _repaired(name.lower(), value, charset, strict)))
        elif long and has_long_line(name + b":" + value + b"\r\n"):
            kinds.add("long_header")
            repaired.append((name, _folded(name.lower(), unfolded(value).decode("ascii"))))
        else:
            repaired.append((name, value))
    return repaired, kinds


def _repaired(name: bytes, value: bytes, charset: str, strict: bool) -> bytes:
    octets = unfolded(value)
    # Japanese text may be 7-bit, known by its escapes.
    escaped = b"\x1b" in octets and octets.isascii() and fits(octets, "iso-2022-jp")
    text = octets.decode("iso2022_jp") if escaped else decode_undeclared(octets, charset)
    text = one_line(text)
    if text.isascii():
        return _folded(name, text)
    if name in ADDRESS_FIELDS:
        return _mailboxes(text, strict) or encode_text(decode_words(text), name)
    if name in _PARAMETER_FIELDS:
        return _parameters(name, text)
    return encode_text(decode_words(text), name)


def _folded(name: bytes, text: str) -> bytes:
    if name in ADDRESS_FIELDS and (value := _mailboxes(text, strict=False)):
        return value
    if name in _PARAMETER_FIELDS:
        return _parameters(name, text)
    return fold(text.encode("ascii"), name)


def _mailboxes(text: str, strict: bool) -> bytes:
    """Return the value of an address field, "" when `text` has something that is no address."""
    found = parse_mailboxes(text)
    try:
        written = [
            encode_mailbox(
                decode_words(one.name),
                one.address if is_bare_name(one.address) else normal_address(one.address),
            )
            for one in found
        ]
    except (AddressError, UnicodeEncodeError) as error:
        if strict and isinstance(error, NonASCIIMailboxError):
            raise
        return b""
    return join_mailboxes(written) if written else b""


def _parameters(name: bytes, text: str) -> bytes:
    """Return Content-Type or Content-Disposition with its parameters in ASCII (RFC 2231)."""
    main, semicolon, rest = text.partition(";")
    rest = _PARAMETER.sub(_parameter, semicolon + rest)
    return fold((main + rest).encode("ascii", "replace"), name)


def _parameter(match: re.Match[str]) -> str:
    name, value = match[1], match[2].strip()
    if value.isascii() and len(value) <= _LONGEST_PARAMETER:
        return f"; {name}={value}"
    if value.startswith('"'):
        value = re.sub(r"\\(.)", r"\1", value[1:-1])
    encoded = quote(value, safe="")
    pieces = re.findall(rf"(?:%..|[^%]){{1,{_CHUNK}}}", encoded)
    if len(pieces) == 1:
        return f"; {name}*=utf-8''{encoded}"
    first, *others = pieces
    return f"; {name}*0*=utf-8''{first}" + "".join(
        f"; {name}*{number}*={piece}" for number, piece in enumerate(others, 1)
    )
