"""Charsets as messages name them, which is not always what they are."""

import codecs
import functools
import pkgutil
import re
from encodings import __path__ as _where
from encodings.aliases import aliases as _aliases

# Python knows these as encodings of text, but no mail is written in them, and reading one of the
# first two takes time that grows with the square of the length.
_NO_CHARSETS = frozenset(
    ("punycode", "idna", "unicode_escape", "raw_unicode_escape", "undefined", "mbcs", "oem")
)
_LONGEST_NAME = 40
_PUNCTUATION = re.compile(r"[^a-z0-9.]+")


def _known() -> dict[str, str]:
    """Return the names of Python's codecs, by each of their names."""
    modules = {module.name for module in pkgutil.iter_modules(_where)} - _NO_CHARSETS
    aliases = {alias: codec for alias, codec in _aliases.items() if codec in modules}
    return {name: name for name in modules} | aliases


_KNOWN = _known()


@functools.cache
def _text_codec(name: str) -> str:
    """Return the name of the codec called `name` (one of `_KNOWN`), "" when it is not of text."""
    try:
        b"x".decode(name, errors="replace")
        return codecs.lookup(name).name
    except (LookupError, ValueError):
        return ""  # a module of another kind, or octets to octets


@functools.lru_cache(maxsize=256)
def codec_of(charset: str) -> str:
    """Return the codec for a charset's name, any case; "" for one that is unknown or is none.

    Python's own lookup is not asked: it remembers every name that it was ever asked for, and
    names come with the mail.
    """
    if len(charset) > _LONGEST_NAME:
        return ""
    name = _PUNCTUATION.sub("_", charset.lower())
    codec = _KNOWN.get(name) or _KNOWN.get(name.replace(".", "_"))
    return _text_codec(codec) if codec else ""


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
    codec = codec_of(charset) or "latin-1"
    text = octets.decode(codec, errors="replace")
    if codec == "utf-7":  # can say half a pair of surrogates, which nothing else can
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def decode_undeclared(octets: bytes, charset: str) -> str:
    """Return `octets` as text: UTF-8 if they are, else `charset`; never fails."""
    return octets.decode("utf-8") if fits(octets, "utf-8") else decode(octets, charset)
