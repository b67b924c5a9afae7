"""The octets between the socket and the commands.

The one place that looks into `asyncio.StreamReader`: aiosmtpd, whose dialogs read from it, does so
too. Its fields have been the same from Python 3.8 on; tests/test_listener_reader.py holds us to it.
"""

import asyncio


class Reader(asyncio.StreamReader):
    """A stream reader that can tell what it has, and take octets back."""

    crlf = False
    """Whether a line that aiosmtpd's dialogs (AUTH) have read ended in CRLF."""

    _buffer: bytearray
    _transport: asyncio.Transport | None

    @property
    def pending(self) -> bool:
        """Whether octets are here that nobody has read."""
        return bool(self._buffer)

    @property
    def has_line(self) -> bool:
        """Whether `readuntil` would not have to wait."""
        return b"\n" in self._buffer

    async def read_pending(self) -> bytes:
        """Return what is here, without waiting for more."""
        return await self.read(len(self._buffer)) if self._buffer else b""

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
