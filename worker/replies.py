"""What the far end says: SMTP replies (RFC 5321 §4.2), read from octets within bounds. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

MAX_LINE = 8192
"""Octets of one line; RFC 5321 §4.5.3.1.5 allows 512, but EHLO lines of real servers are longer."""

MAX_REPLY = 32_768
"""Octets of one reply with all its lines."""

MAX_TEXT = 1000
"""Characters of a reply's text that are kept: it is stored with the message, and logged."""

_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?", re.DOTALL)
_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?!\S)")
_CACHED = 256


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply: `code` is 200 to 599, `text` all its lines without the codes, joined by LF."""

    code: int
    text: str

    @property
    def enhanced(self) -> str:
        """The enhanced status code (RFC 2034) that opens the text, or "".

        One whose class is not that of `code` is none: the two contradict each other.
        """
        found = _ENHANCED.match(self.text)
        return found[1] if found and int(found[1][0]) == self.code // 100 else ""

    @property
    def positive(self) -> bool:
        """Tell whether the command was done: 2yz."""
        return 200 <= self.code < 300

    def __str__(self) -> str:
        """Return the reply on one line, as a person would quote it."""
        text = self.text.replace("\n", " ")
        return f"{self.code} {text}" if text else str(self.code)


@dataclass(frozen=True, slots=True)
class TransactionReplies:
    """How a transaction went, reply by reply; None where none came.

    `recipients` has the reply to each RCPT that was answered. `final` is the reply to the content.
    `dot_sent` says that the final dot may have left this host, for a message with at least one
    accepted recipient: then, and without `final`, the outcome is unknown. `broken` says why the
    connection ended before the transaction did, or is "". `ours` says that it was us who ended it
    (`before_dot` said no, or the connection was closed under it): nobody else is to blame.
    `owed` says that the far end owed a reply to this very transaction when it broke, rather
    than to the one before it.
    """

    mail: Reply | None = None
    recipients: Mapping[str, Reply] = field(default_factory=dict)
    data: Reply | None = None
    final: Reply | None = None
    dot_sent: bool = False
    broken: str = ""
    ours: bool = False
    owed: bool = False


class ReplyReader:
    """Turns the octets of a connection into replies, however they are cut into pieces.

    `fault` becomes non-empty, for good, when the octets are no SMTP replies or exceed the bounds;
    the replies before that place are still returned.
    """

    __slots__ = ("_cache", "_lines", "_rest", "_size", "fault")

    def __init__(self) -> None:
        self.fault = ""
        self._rest = b""
        self._lines: list[bytes] = []
        self._size = 0
        self._cache: dict[bytes, Reply] = {}

    def feed(self, octets: bytes) -> list[Reply]:
        """Return the replies that `octets` complete, in order."""
        if self.fault:
            return []
        lines = (self._rest + octets if self._rest else octets).split(b"\n")
        self._rest = lines.pop()
        replies = []
        for line in lines:
            # Most replies are the same few lines again and again; parsing them once is enough.
            reply = None if self._lines or self.fault else self._cache.get(line)
            reply = reply or self._read(line)
            if reply is not None:
                replies.append(reply)
        if len(self._rest) > MAX_LINE:
            self.fault = "a reply line without end"
        return replies

    def _read(self, line: bytes) -> Reply | None:
        """Return the reply that `line` ends; None when it goes on, or when it is none."""
        if self.fault:
            return None
        found = _LINE.fullmatch(line.rstrip(b"\r"))
        self._size += len(line)
        if found is None:
            self.fault = f"not an SMTP reply: {text_of(line[:80])!r}"
            return None
        if self._size > MAX_REPLY or len(line) > MAX_LINE:
            self.fault = "a reply without end"
            return None
        self._lines.append((found[3] or b"").strip(b" \t"))
        if found[2] == b"-":
            return None
        reply = Reply(int(found[1]), text_of(b"\n".join(self._lines)))
        if len(self._lines) == 1 and len(self._cache) < _CACHED:
            self._cache[line] = reply
        self._lines = []
        self._size = 0
        return reply


def text_of(octets: bytes) -> str:
    """Return `octets` as text that can be stored and shown, cut to MAX_TEXT characters."""
    return octets.decode("utf-8", "backslashreplace")[:MAX_TEXT]


class Phase(StrEnum):
    """How far a connection came before it failed."""

    RESOLVE = "name lookup"
    CONNECT = "connect"
    GREETING = "greeting"
    EHLO = "EHLO"
    OFFER = "STARTTLS not offered"
    STARTTLS = "STARTTLS"
    HANDSHAKE = "TLS handshake"
    CERTIFICATE = "certificate"
    MECHANISM = "no common AUTH mechanism"
    AUTH = "AUTH"
    PROOF = "server's proof in AUTH"


class ConnectFailure(Exception):
    """No usable connection came about: nothing was sent but, at most, a refused login.

    `phase` says where it ended, `reply` is the deciding reply if there was one, `detail` tells a
    person in one line, without secrets. `certificate_expiry` (seconds since 1970) is known when
    the TLS handshake had passed.
    """

    def __init__(
        self,
        phase: Phase,
        reply: Reply | None,
        detail: str,
        certificate_expiry: float | None = None,
    ) -> None:
        super().__init__(f"{phase}: {detail}")
        self.phase = phase
        self.reply = reply
        self.detail = detail
        self.certificate_expiry = certificate_expiry
