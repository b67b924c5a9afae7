"""The octets between the socket and the commands.

The one place that looks into `asyncio.StreamReader`: aiosmtpd, whose dialogs read from it, does so
too. Its fields have been the same from Python 3.8 on; tests/test_listener_aiosmtpd.py sees when
they change.
"""

import asyncio
from collections.abc import Awaitable, Callable


class Reader(asyncio.StreamReader):
    """A stream reader that can tell what it has, and take octets back."""

    crlf = False
    """Whether a line that aiosmtpd's dialogs (AUTH) have read ended in CRLF."""

    _buffer: bytearray
    _eof: bool
    _exception: Exception | None
    _paused: bool
    _transport: asyncio.Transport | None
    # What the type stubs leave out.
    _maybe_resume_transport: Callable[[], None]
    _wait_for_data: Callable[[str], Awaitable[None]]

    @property
    def pending(self) -> bool:
        """Whether octets are here that nobody has read."""
        return bool(self._buffer)

    @property
    def has_line(self) -> bool:
        """Whether `take_line` would have one to give."""
        return b"\n" in self._buffer

    def take_line(self) -> bytes | None:
        """Take the next line with its LF out of what is here; None when none is whole."""
        buffer = self._buffer
        end = buffer.find(b"\n") + 1
        return self._take(end) if end else None

    def take_all(self) -> bytes:
        """Take all that is here."""
        return self._take(len(self._buffer)) if self._buffer else b""

    def _take(self, count: int) -> bytes:
        buffer = self._buffer
        if count == len(buffer):
            taken = bytes(buffer)
            buffer.clear()
        else:
            taken = bytes(buffer[:count])
            del buffer[:count]
        if self._paused:
            self._maybe_resume_transport()
        return taken

    def keep_last(self, count: int) -> int:
        """Throw away all that is here but the last `count` octets; return how many those were."""
        surplus = len(self._buffer) - count
        if surplus <= 0:
            return 0
        del self._buffer[:surplus]
        return surplus

    async def more(self) -> bool:
        """Wait until more octets come; False when there will be none.

        Raises:
            OSError: the connection broke.
        """
        if self._exception is not None:
            raise self._exception
        if self._eof:
            return False
        await self._wait_for_data("more")
        return True

    async def readline(self) -> bytes:
        """Return the next line, noting how it ends."""
        line = await super().readline()
        self.crlf = self.crlf or line.endswith(b"\r\n")
        return line

    def put_back(self, octets: bytes) -> None:
        """Let `octets` be what is read next, while nobody waits and nothing is here."""
        self._buffer += octets

    def change_transport(self, transport: asyncio.Transport) -> None:
        """Go on reading from `transport` (STARTTLS)."""
        self._transport = transport
