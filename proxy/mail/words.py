"""Text in header fields: encoded words (RFC 2047), and values that fit their lines."""

import binascii
import re
import string
from collections.abc import Iterator

from proxy.mail.charset import decode
from proxy.mail.lines import LONGEST

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~ -]*")
_WORD_MARK = "=?"
_ENCODED_WORD = re.compile(r"=\?([!->@-~]+)\?([bBqQ])\?([!->@-~]*)\?=")
_LETTERS = [bytes([octet]) for octet in (string.ascii_letters + string.digits + " ").encode()]
_Q_LITERAL = frozenset(string.ascii_letters + string.digits + "!*+-/")  # in any field: RFC 2047 §5
_Q_SPACE = {" ": "_"}
_WORD_ROOM = 60  # with its frame a word stays below 75 octets (RFC 2047 §2)
_SHORT = 78  # what a line should not exceed (RFC 5322 §2.1.1)


def one_line(text: str) -> str:
    """Return `text` without line ends and other control characters, a space for each run."""
    return _CONTROLS.sub(" ", text).strip()


def decode_words(text: str) -> str:
    """Return a field's text with its encoded words decoded, those that can be; never fails."""
    if _WORD_MARK not in text:
        return text
    decoded: list[str] = []
    octets, charset, at = b"", "", 0
    for match in _ENCODED_WORD.finditer(text):
        between = text[at : match.start()]
        # White space between two encoded words is none; letters may be split over them.
        if charset and (between.strip() or match[1].lower() != charset):
            decoded.append(decode(octets, charset.partition("*")[0]))
            octets = b""
        if not charset or between.strip():
            decoded.append(between)
        charset, at = match[1].lower(), match.end()
        octets += _word_octets(match[2], match[3])
    if charset:
        decoded.append(decode(octets, charset.partition("*")[0]))
    decoded.append(text[at:])
    return "".join(decoded)


def _word_octets(encoding: str, text: str) -> bytes:
    if encoding in "qQ":
        return binascii.a2b_qp(text.encode("ascii"), header=True)
    try:
        return binascii.a2b_base64(text + "=" * (-len(text) % 4))
    except binascii.Error:
        return text.encode("ascii")


def encode_text(text: str, name: bytes) -> bytes:
    """Return the value of the unstructured field `name` for `text`, with its leading space.

    Printable ASCII stays as it is, folded where it fits no line; all else becomes encoded words.
    """
    text = one_line(text)
    if text.isascii() and _WORD_MARK not in text:
        octets = text.encode("ascii")
        return b" " + octets if len(name) + 2 + len(text) <= LONGEST else fold(octets, name)
    return b" " + _encoded(text)


def encode_mailbox(name: str, address: str) -> bytes:
    """Return a mailbox as it stands in a field, without a leading space.

    `name` is the display name as it is meant, "" for none; `address` must be ASCII and valid.
    """
    octets = address.encode("ascii")
    name = one_line(name)
    if not name:
        return octets
    if not name.isascii() or _WORD_MARK in name or len(name) > LONGEST // 2:
        return _encoded(name) + b" <" + octets + b">"
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
            return b" " + _encoded(value.decode("ascii"))
        lines[-1] += b" " + word
        used += 1 + len(word)
    return b"\r\n".join(lines)


def _encoded(text: str) -> bytes:
    """Return `text` as encoded words of UTF-8, one a line; no letter is split over two of them."""
    octets = text.encode("utf-8")
    plain = sum(map(octets.count, _LETTERS))
    words = _in_q(text) if plain * 3 > len(octets) * 2 else _in_b(octets)
    return b"\r\n ".join(words)


def _in_q(text: str) -> Iterator[bytes]:
    word = ""
    for letter in text:
        written = letter if letter in _Q_LITERAL else _Q_SPACE.get(letter) or _escaped(letter)
        if len(word) + len(written) > _WORD_ROOM:
            yield f"=?utf-8?q?{word}?=".encode("ascii")
            word = ""
        word += written
    yield f"=?utf-8?q?{word}?=".encode("ascii")


def _escaped(letter: str) -> str:
    return "".join(f"={octet:02X}" for octet in letter.encode("utf-8"))


def _in_b(octets: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(octets):
        end = at + _WORD_ROOM * 3 // 4
        while end < len(octets) and octets[end] & 0xC0 == 0x80:
            end -= 1
        yield b"=?utf-8?b?%b?=" % binascii.b2a_base64(octets[at:end], newline=False)
        at = end
