"""Content-Type: what kind of thing a body is (RFC 2045 §5, RFC 2231); any text can be read."""

import re
from urllib.parse import unquote_to_bytes

from proxy.mail.charset import codec_of
from proxy.mail.fields import Header, unfolded
from proxy.mail.words import fold

_TYPE = re.compile(r"[^\s/;=\"]+/[^\s/;=\"]+")
_PARAMETER = re.compile(r'; ?([^\s=;"]+) ?= ?("(?:[^"\\]|\\.)*"|[^\s;"]+)')
_ESCAPE = re.compile(r"\\(.)")
_UNKNOWN = ("", "8bit", "unknown-8bit", "x-unknown", "unknown")


class ContentType:
    """The Content-Type of one header, read and set. What is no type counts as text/plain."""

    __slots__ = ("_header", "_parameters", "_written")

    def __init__(self, header: Header) -> None:
        self._header = header
        value = unfolded(header.first(b"content-type") or b"").decode("ascii", "replace")
        value = " ".join(value.split())
        match = _TYPE.match(value)
        self._written = match[0] if match else "text/plain"
        self._parameters: list[tuple[str, str]] = _PARAMETER.findall(value) if match else []

    @property
    def name(self) -> str:
        """The type and subtype in lower case."""
        return self._written.lower()

    @property
    def main(self) -> str:
        """The type alone in lower case."""
        return self.name.partition("/")[0]

    @property
    def boundary(self) -> str:
        """What stands between the parts of a multipart, "" where that is not said."""
        return self._parameter("boundary").rstrip()

    @property
    def charset(self) -> str:
        """The declared charset where it can be right for 8-bit text, else ""."""
        name = self._parameter("charset").strip().lower()
        return "" if name in _UNKNOWN or codec_of(name) == "ascii" else name

    def set_charset(self, charset: str) -> None:
        """Declare this charset, whatever was declared before."""
        self._parameters = [
            parameter for parameter in self._parameters if _base(parameter[0]) != "charset"
        ]
        self._parameters.append(("charset", charset))
        self._write()

    def become_text(self) -> None:
        """Declare plain text, with no parameters."""
        self._written = "text/plain"
        self._parameters = []
        self._write()

    def _parameter(self, wanted: str) -> str:
        found = [(name, value) for name, value in self._parameters if _base(name) == wanted]
        if not found:
            return ""
        if "*" not in found[0][0]:
            return _unquoted(found[0][1])
        # Continued or encoded (RFC 2231): charset'language'percent-encoded, then more of it.
        text = "".join(_unquoted(value) for _, value in found)
        encoded = text.rpartition("'")[2]
        return unquote_to_bytes(encoded).decode("utf-8", "replace")

    def _write(self) -> None:
        value = self._written + "".join(f"; {name}={value}" for name, value in self._parameters)
        octets = value.encode("ascii", "replace")
        self._header.set(b"Content-Type", fold(octets, b"Content-Type"))


def _base(name: str) -> str:
    return name.partition("*")[0].lower()


def _unquoted(value: str) -> str:
    return _ESCAPE.sub(r"\1", value[1:-1]) if value.startswith('"') else value
