"""What comes after DATA, until its end: found in octets as they arrive, however they are cut.

Pure: no I/O, no clock. RFC 5321 §4.5.2 (transparency), §4.1.1.4 (end of data).
"""

PIECE = 65_536
"""From so many octets on what came is set aside: one block of 5 MB would be copied as it grows."""

_KEPT_BACK = 4  # octets of an end that is cut in two


class Content:
    """The octets of one message on their way in.

    The end is CRLF.CRLF, and nothing else in a session that has ever sent a CRLF (`crlf`): a bare
    LF.LF, or any mix of the two, that another host passed on as text must not end the message
    here, or whoever wrote it could append commands of his own (SMTP smuggling). A session that
    knows only LF ends its data with LF.LF; no relay speaks like that.

    What goes over `limit` octets is not held, only counted; `size` tells both. `discard` gives
    up what is held and holds nothing more, so that the rest of a refused message costs nothing.
    """

    __slots__ = (
        "_aside",
        "_before",
        "_begun",
        "_drop",
        "_held",
        "_scanned",
        "crlf",
        "limit",
        "rest",
        "size",
    )

    def __init__(self, limit: int, *, crlf: bool) -> None:
        self.limit = limit
        self.crlf = crlf
        self.size = 0  # octets that came so far, the end not counted once it was found
        self.rest = b""  # what came after the end: the next commands
        self._aside: list[bytearray] = []  # what came before `_held`, unless it was let go
        self._before = 0  # octets that came before `_held`
        self._held = bytearray()
        # The line end before the first octet: that of the DATA command.
        self._begun = b".\r\n" if crlf else b".\n"
        self._scanned = 0  # where in `_held` the search for the end goes on
        self._drop = False

    @property
    def held(self) -> int:
        """Octets in memory now."""
        return len(self._held) + (0 if self._drop else self._before)

    @property
    def whole(self) -> bool:
        """Whether all that came is held."""
        return not self._drop

    def discard(self) -> None:
        """Let go of what is held, and hold nothing of what still comes."""
        self._drop = True
        self._aside.clear()
        self._set_aside()

    def feed(self, octets: bytes) -> bool:
        """Take the next octets; return True when the end is among them, and `rest` is set."""
        held = self._held
        held += octets
        end = self._crlf_end() if self.crlf else self._any_end()
        if end >= 0:
            # `end` is where the line with the dot begins.
            after = end + (3 if self.crlf else 2)
            self.rest = bytes(held[after:])
            del held[end:]
            self.size = self._before + end
            if self.size > self.limit:
                self.discard()
            return True
        self.size = self._before + len(held)
        if not self._drop and self.size > self.limit + 3:  # the end itself may still be in there
            self.discard()
        elif self._drop or len(held) >= PIECE:
            self._set_aside()
        return False

    def take(self) -> bytes:
        """Return the message without the dots of transparency; afterwards nothing is held."""
        content = b"".join((*self._aside, self._held))
        self._aside.clear()
        self._before = 0
        self._held = bytearray()
        if content.startswith(b"."):
            content = content[1:]
        # A line that a bare LF begins was not known as a line to whoever doubled the dots.
        line_end = b"\r\n" if self.crlf else b"\n"
        # To find the last dot is cheap, and in base64 it is that of the header.
        if content.find(line_end + b".", 0, content.rfind(b".") + 1) < 0:
            return content
        return content.replace(line_end + b".", line_end)

    def _crlf_end(self) -> int:
        held = self._held
        if self._at_begin():
            return 0
        found = held.find(b".", self._scanned)  # cheap, and base64 has none
        if found >= 0:
            found = held.find(b"\r\n.\r\n", self._scanned)
        self._scanned = max(self._scanned, len(held) - _KEPT_BACK)
        return found + 2 if found >= 0 else -1

    def _any_end(self) -> int:
        held = self._held
        if self._at_begin():
            return 0
        first = held.find(b"\r\n", self._scanned)
        found = held.find(b"\n.\n", self._scanned, first if first >= 0 else len(held))
        if found >= 0:
            return found + 1
        if first < 0:
            self._scanned = max(0, len(held) - 2)
            return -1
        # From here on this is a session with CRLF, and what LF has begun LF cannot end.
        self.crlf = True
        self._scanned = first
        return self._crlf_end()

    def _at_begin(self) -> bool:
        return not self._before and self._held.startswith(self._begun)

    def _set_aside(self) -> None:
        """Begin a new block with the last octets, and keep or drop the one that is here."""
        held = self._held
        surplus = len(held) - _KEPT_BACK
        if surplus > 0:
            self._held = held[surplus:]
            if not self._drop:
                del held[surplus:]
                self._aside.append(held)
            self._before += surplus
            self._scanned = max(0, self._scanned - surplus)
