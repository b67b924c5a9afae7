"""How one event becomes one line of text: pure functions over its fields.

A line can never be forged by what a client or the far end says: every character that is not
printable is escaped, so that line ends, escape sequences of terminals and reversed text stay text.
"""

import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence

Value = str | int | float | bool | Sequence[str]
"""What a field may hold. A sequence is shown as a list, with commas between."""

_PLAIN = re.compile(r"[!#-<>-\[\]-~]+").fullmatch  # ASCII without blank, quote, = and backslash
_LOCAL_PART = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^\s<>()"@,;:\\\[\]]+)@')
_NAMED = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_JSON = json.JSONEncoder(separators=(",", ":")).encode


class Clock:
    """Makes time stamps; remembers the last second's text, since most lines share it."""

    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def stamp(self, now: float) -> str:
        """Return `now`, seconds since 1970, as "2026-11-20T09:43:01.123Z"."""
        milliseconds = int(now * 1000)
        second = milliseconds // 1000
        if second != self._second:
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = second
        return f"{self._text}.{milliseconds - second * 1000:03d}Z"


def _escaped(character: str) -> str:
    if character in _NAMED:
        return _NAMED[character]
    if character.isprintable():
        return character
    code = ord(character)
    if code > 0xFFFF:
        return f"\\U{code:08x}"
    return f"\\u{code:04x}" if code > 0xFF else f"\\x{code:02x}"


def quoted(text: str) -> str:
    """Return `text` bare if that is clear, else in double quotes with escapes; "" becomes "-"."""
    if _PLAIN(text):
        return text
    if not text:
        return "-"
    if text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return '"' + "".join(map(_escaped, text)) + '"'


def kv(stamp: str, event: str, fields: Mapping[str, Value]) -> str:
    """Return the line "STAMP EVENT key=value ...", without a line end."""
    parts = [stamp, event]
    for key, value in fields.items():
        if isinstance(value, str):
            text = value if _PLAIN(value) else quoted(value)
        elif isinstance(value, bool):
            text = "yes" if value else "no"
        elif isinstance(value, int):
            text = str(value)
        elif isinstance(value, float):
            text = f"{value:.3f}"
        else:
            text = quoted(",".join(value))
        parts.append(f"{key}={text}")
    return " ".join(parts)


def as_json(stamp: str, event: str, fields: Mapping[str, Value]) -> str:
    """Return one JSON object with "time", "event" and the fields, in ASCII, without a line end."""
    return _JSON({"time": stamp, "event": event, **fields})


def domain_only(address: str) -> str:
    """Return `address` without its local-part: "@example.com"; a bare name becomes "(local)"."""
    _, at, domain = address.rpartition("@")
    if at:
        return at + domain
    return "(local)" if address else ""


def domains_only(text: str) -> str:
    """Return `text`, such as a reply, with the local-part of every address in it left out."""
    return _LOCAL_PART.sub("@", text)


def without(text: str, secrets: Iterable[str]) -> str:
    """Return `text` with every one of `secrets` replaced by "***"."""
    for secret in secrets:
        if secret in text:
            text = text.replace(secret, "***")
    return text
