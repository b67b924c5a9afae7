"""Charsets as messages name them, which is not always what they are."""

import codecs

# Python knows these as encodings of text, but no mail is written in them, and reading one of the
# first two takes time that grows with the square of the length.
_NO_CHARSETS = frozenset(
    ("punycode", "idna", "unicode_escape", "raw_unicode_escape", "undefined", "mbcs", "oem")
)


def codec_of(charset: str) -> str:
    """Return the codec for a charset's name, any case; "" for one that is unknown or is none."""
    try:
        found = codecs.lookup(charset)
        b"x".decode(charset, errors="replace")
    except (LookupError, ValueError):
        return ""
    name = found.name.replace("-", "_")
    return "" if name in _NO_CHARSETS else found.name


def fits(octets: bytes, charset: str) -> bool:
    """Say whether `octets` can be text in `charset`."""
    codec = codec_of(charset)
    if not codec:
        return False
    try:
        octets.decode(codec)
    except ValueError:
        return False
    return True


def decode(octets: bytes, charset: str) -> str:
    """Return `octets` as text, octet by octet where the charset is unknown; never fails."""
    return octets.decode(codec_of(charset) or "latin-1", errors="replace")


def decode_undeclared(octets: bytes, charset: str) -> str:
    """Return `octets` as text: UTF-8 if they are, else `charset`; never fails."""
    return octets.decode("utf-8") if fits(octets, "utf-8") else decode(octets, charset)
