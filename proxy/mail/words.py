"""Text in header fields: encoded words (RFC 2047), and values that fit their lines."""

import re
from email.errors import HeaderParseError
from email.header import Header, decode_header

from proxy.mail.lines import LONGEST

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~ -]*")
_WORD_MARK = "=?"
_SHORT = 78  # what a line should not exceed (RFC 5322 §2.1.1)


def one_line(text: str) -> str:
    """Return `text` without line ends and other control characters, a space for each run."""
    return _CONTROLS.sub(" ", text).strip()


def decode_octets(octets: bytes, charset: str) -> str:
    """Return raw octets of a header as text: UTF-8 if they are, else `charset`; never fails."""
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        return octets.decode(charset, errors="replace")


def decode_words(text: str) -> str:
    """Return a field's text with its encoded words decoded as far as that is possible."""
    if _WORD_MARK not in text:
        return text
    try:
        parts = decode_header(text)
    except HeaderParseError:
        return text
    decoded: list[str] = []
    for octets, charset in parts:
        if isinstance(octets, str):
            decoded.append(octets)
            continue
        try:
            decoded.append(octets.decode(charset or "ascii", errors="replace"))
        except LookupError:
            decoded.append(octets.decode("latin-1"))
    return "".join(decoded)


def encode_text(text: str, name: bytes) -> bytes:
    """Return the value of the unstructured field `name` for `text`, with its leading space.

    Printable ASCII stays as it is where it fits a line; everything else becomes encoded words.
    """
    text = one_line(text)
    if text.isascii() and _WORD_MARK not in text and len(name) + 2 + len(text) <= LONGEST:
        return b" " + text.encode("ascii")
    return b" " + _encoded(text, len(name) + 2)


def encode_mailbox(name: str, address: str) -> bytes:
    """Return a mailbox as it stands in a field, without a leading space.

    `name` is the display name as it is meant, "" for none; `address` must be ASCII and valid.
    """
    octets = address.encode("ascii")
    name = one_line(name)
    if not name:
        return octets
    if not name.isascii() or _WORD_MARK in name or len(name) > _SHORT:
        return _encoded(name, _SHORT // 2) + b" <" + octets + b">"
    if _PLAIN_NAME.fullmatch(name):
        return f"{name} <".encode("ascii") + octets + b">"
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{quoted}" <'.encode("ascii") + octets + b">"


def join_mailboxes(mailboxes: list[bytes]) -> bytes:
    """Return the value of an address field, folded between mailboxes, with its leading space."""
    return b" " + b",\r\n ".join(mailboxes)


def fold(value: bytes, name: bytes) -> bytes:
    """Return the unfolded ASCII `value` of the field `name` in lines that are short enough.

    It is folded at white space; a word that fits no line makes the whole value encoded words.
    """
    lines, used = [b""], len(name) + 1
    for word in value.split(b" "):
        if used > len(name) + 1 and word and used + 1 + len(word) > _SHORT:
            lines.append(b"")
            used = 0
        if used + 1 + len(word) > LONGEST:
            return b" " + _encoded(value.decode("ascii"), len(name) + 2)
        lines[-1] += b" " + word
        used += 1 + len(word)
    return b"\r\n".join(lines)


def _encoded(text: str, first_line_used: int) -> bytes:
    words = Header(text, "utf-8", maxlinelen=76, header_name="x" * (first_line_used - 2))
    return words.encode(linesep="\r\n").encode("ascii")
