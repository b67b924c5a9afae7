"""Bodies made 7-bit with short lines: quoted-printable for text, base64 for other parts.

Only what needs it is touched: parts that are 7-bit with short lines come back octet by octet, and
so does everything that is signed or encrypted. Postmark damages some 8-bit text, and lines over
998 octets may be cut anywhere on the way (RFC 5321 §4.5.3.1.6).
"""

import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass

from proxy.mail.charset import fits
from proxy.mail.content_type import ContentType
from proxy.mail.fields import Header, parse, unfolded
from proxy.mail.lines import LONGEST, canonical_lines, has_long_line
from proxy.mail.raw import repair_fields
from proxy.mail.refusal import refused

NO_TEXT = b"(no text)\r\n"

MOST_PARTS = 1000
"""MIME parts of a message that is repaired, all levels together."""

MOST_PART_FIELDS = 10_000
"""Header fields of all these parts and of attached messages."""

_DEEPEST = 20
_CRLF = b"\r\n"
_LF = 0x0A
_SIGNED = re.compile(
    rb"(?i)\s*(?:multipart/(?:signed|encrypted)|application/(?:x-)?p(?:kcs7|gp))\b"
)
_INLINE_PGP = re.compile(rb"(?m)^-----BEGIN PGP (?:SIGNED )?MESSAGE-----")
_ENCODED = frozenset((b"quoted-printable", b"base64"))
_MESSAGES = frozenset(("message/rfc822", "message/global"))
_META_CHARSET = re.compile(rb"(?i)<meta[^>]{1,200}charset\s{0,9}=\s{0,9}[\"']?([\w-]{1,40})")
_META_REACH = 2048
_NO_BASE64 = re.compile(rb"[^A-Za-z0-9+/=]+")
_BASE64_LINE = re.compile(rb".{1,76}", re.DOTALL)
_EIGHT_BIT = bytes(range(128, 256))
_DELIMITER_END = re.compile(rb"[ \t]*(?:\r\n|\Z)")
_BOUNDARY = re.compile(r"[ -~]{1,200}")  # RFC 2046 §5.1.1 allows 70
_QUESTION_MARKS = bytes((*range(128), *b"?" * 128))


@dataclass(slots=True)
class _Effort:
    """What one message's repair has cost so far: each part and field takes 10 µs or more.

    Without a limit one message of 10 MB could hold up everybody else's mail for 20 seconds.
    """

    parts: int = 0
    fields: int = 0

    def add(self, *, parts: int = 0, fields: int = 0) -> None:
        """Count so many more.

        Raises:
            RefusedError: that is too many.
        """
        self.parts += parts
        self.fields += fields
        if self.parts > MOST_PARTS or self.fields > MOST_PART_FIELDS:
            raise refused(
                554,
                "5.6.0",
                "The message has 8-bit text or long lines, and is in too many pieces to have them "
                f"encoded here: over {MOST_PARTS} MIME parts, or over {MOST_PART_FIELDS} header "
                "fields in them; send it 7-bit (quoted-printable, base64)",
                "parts",
            )


def is_clean(octets: bytes) -> bool:
    """Say whether canonical `octets` are 7-bit with lines that are short enough."""
    return octets.isascii() and not has_long_line(octets)


def is_signed(header: Header) -> bool:
    """Say whether what is below this header must stay as it is: S/MIME, PGP/MIME."""
    value = header.first(b"content-type")
    return value is not None and _SIGNED.match(unfolded(value)) is not None


def repair_body(header: Header, body: bytes, charset: str) -> bytes:
    """Return `body` 7-bit with short lines, its fields in `header` adjusted.

    `charset` is that of undeclared 8-bit text which is not UTF-8. A body that is clean, signed or
    encrypted comes back as the same octets. Decoding the result gives what decoding `body` gave,
    with the charset that is now declared. A multipart that cannot be taken apart becomes text.

    Raises:
        RefusedError: it has too many parts.
    """
    return _repair(header, body, charset, 0, _Effort())


def _repair(header: Header, body: bytes, charset: str, depth: int, effort: _Effort) -> bytes:
    if is_clean(body) or is_signed(header) or depth > _DEEPEST:
        return body
    kind = ContentType(header)
    if kind.main == "multipart":
        parts = _repair_parts(kind.boundary, body, charset, depth, effort)
        if parts is not None:
            _declare_seven_bit(header)
            return parts
        kind.become_text()
    if (
        kind.name in ("message/rfc822", "message/global")
        and _transfer_encoding(header) not in _ENCODED
    ):
        repaired = _repair_message(body, charset, depth, effort)
        _declare_seven_bit(header)
        return repaired
    if kind.main in ("text", "message"):
        return _repair_text(header, kind, body, charset)
    return _repair_data(header, body)


def least_size(header: Header, body: bytes) -> int:
    """Return what `body` comes to at least once repaired, 0 where that cannot be told at once.

    Quoted-printable makes three octets of one: what would be too large need not be made first.
    """
    if body.isascii() or is_signed(header) or _transfer_encoding(header) in _ENCODED:
        return 0
    if ContentType(header).main != "text" or _INLINE_PGP.search(body) is not None:
        return 0
    return len(body) + 2 * (len(body) - len(body.translate(None, _EIGHT_BIT)))


def fill_empty(header: Header) -> bytes:
    """Return what is put in for an empty body, and declare it as text."""
    if b"content-type" in header:
        kind = ContentType(header)
        if kind.main != "text":
            kind.become_text()
    header.remove(b"content-transfer-encoding")
    return NO_TEXT


def _transfer_encoding(header: Header) -> bytes:
    value = unfolded(header.first(b"content-transfer-encoding") or b"7bit")
    return value.partition(b";")[0].strip().lower()


def _declare_seven_bit(header: Header) -> None:
    if b"content-transfer-encoding" in header:
        header.set(b"Content-Transfer-Encoding", b" 7bit")


def _repair_text(header: Header, kind: ContentType, body: bytes, charset: str) -> bytes:
    if _INLINE_PGP.search(body) is not None:
        return body
    encoding = _transfer_encoding(header)
    if encoding == b"base64":
        return _rewrapped(body)
    data = binascii.a2b_qp(body) if encoding == b"quoted-printable" else body
    if not data.isascii() and not kind.charset:
        kind.set_charset(_guessed_charset(kind, data, charset))
    header.set(b"Content-Transfer-Encoding", b" quoted-printable")
    return _quoted_printable(data)


def _guessed_charset(kind: ContentType, data: bytes, charset: str) -> str:
    if kind.name == "text/html" and (meta := _META_CHARSET.search(data, 0, _META_REACH)):
        name = meta[1].decode("ascii").lower()
        if fits(data, name):
            return name
    return "utf-8" if fits(data, "utf-8") else charset


def _quoted_printable(data: bytes) -> bytes:
    if canonical_lines(data)[0] not in (data, data + _CRLF):
        # Only out of a broken quoted-printable: line ends that are none for us, kept as they are.
        octets = binascii.b2a_qp(data, istext=False)
        return octets.replace(_CRLF, b"\n").replace(b"\n", _CRLF)
    if data.endswith(_CRLF):
        return binascii.b2a_qp(data, istext=True)
    # Without a line end the encoder would break lines by LF alone and leave a last space bare.
    return binascii.b2a_qp(data + _CRLF, istext=True)[:-2]


def _repair_data(header: Header, body: bytes) -> bytes:
    encoding = _transfer_encoding(header)
    if encoding == b"base64":
        return _rewrapped(body)
    if encoding == b"quoted-printable":
        return _quoted_printable(binascii.a2b_qp(body))
    header.set(b"Content-Transfer-Encoding", b" base64")
    return _rewrapped(binascii.b2a_base64(body, newline=False))


def _rewrapped(body: bytes) -> bytes:
    """Return base64 text in short lines, without what is not of its alphabet (RFC 2045 §6.8)."""
    return _CRLF.join([*_BASE64_LINE.findall(_NO_BASE64.sub(b"", body)), b""])


def _repair_message(body: bytes, charset: str, depth: int, effort: _Effort) -> bytes:
    end = b"" if body.endswith(_CRLF) else _CRLF
    parsed = parse(body + end)
    effort.add(fields=len(parsed.fields))
    fields, _ = repair_fields(parsed.fields, body[: parsed.body_at], charset, strict=False)
    inner = Header(fields)
    repaired = _repair(inner, parsed.body, charset, depth + 1, effort)
    return (inner.octets() + _CRLF + repaired).removesuffix(end)


def _repair_parts(
    boundary: str, body: bytes, charset: str, depth: int, effort: _Effort
) -> bytes | None:
    """Return a multipart's body with the parts repaired; None when it has no parts."""
    if not _BOUNDARY.fullmatch(boundary):
        return None
    pieces: list[bytes] = []
    at, inside = 0, False

    def mend(octets: bytes) -> bytes:
        return (
            _repair_part(octets, charset, depth + 1, effort) if inside else _repair_comment(octets)
        )

    for begin, end, closes in _delimiters(body, b"--" + boundary.encode("ascii")):
        pieces += (mend(body[at:begin]), body[begin:end])
        at, inside = end, not closes
        if inside:
            effort.add(parts=1)
    if not pieces:
        return None
    pieces.append(mend(body[at:]))
    return b"".join(pieces)


def _delimiters(body: bytes, dashes: bytes) -> Iterator[tuple[int, int, bool]]:
    """Yield where each line between two parts begins and ends, and whether no part follows it.

    Found by hand: patterns made of a boundary would stay in memory long after its message.
    """
    at = 0
    while (begin := body.find(dashes, at)) >= 0:
        at = begin + len(dashes)
        if begin and body[begin - 1] != _LF:
            continue
        closes = body.startswith(b"--", at)
        end = _DELIMITER_END.match(body, at + 2 if closes else at)
        if end is not None:
            yield begin, end.end(), closes
            if closes:
                return
            at = end.end()


def _repair_part(part: bytes, charset: str, depth: int, effort: _Effort) -> bytes:
    if is_clean(part):
        return part
    end = _CRLF if part.endswith(_CRLF) else b""  # it belongs to the delimiter that follows
    content = part.removesuffix(_CRLF)
    parsed = parse(content + _CRLF, mbox=False)
    effort.add(fields=len(parsed.fields))
    fields, _ = repair_fields(parsed.fields, content[: parsed.body_at], charset, strict=False)
    header = Header(fields)
    body = _repair(header, content[parsed.body_at :], charset, depth, effort)
    return header.octets() + _CRLF + body + end


def _repair_comment(octets: bytes) -> bytes:
    """Return what stands before the first part or after the last, which nobody is shown."""
    if is_clean(octets):
        return octets
    octets = octets.translate(_QUESTION_MARKS)
    pieces: list[bytes] = []
    start, end = 0, len(octets)
    while end - start > LONGEST:
        cut = octets.rfind(_CRLF, start, start + LONGEST + 2) + 2
        if cut < start + 2:  # no line end in reach
            cut = start + LONGEST
            pieces += (octets[start:cut], _CRLF)
        else:
            pieces.append(octets[start:cut])
        start = cut
    return b"".join((*pieces, octets[start:]))
