"""The octets between the socket and the commands."""

import asyncio


class Reader:
    """What a client has sent and nobody has taken yet.

    Beyond twice `limit` octets the client is held back, until there are no more than `limit`, or
    `keep_last` says that its line's end is awaited. So what is here is at most twice `limit` and
    what comes in one read more.
    """

    __slots__ = ("_buffer", "_limit", "_paused", "_transport", "_waiting", "crlf", "ended")

    def __init__(self, limit: int) -> None:
        self.ended = False
        """Whether nothing more will come."""
        self.crlf = False
        """Whether a line that `readline` returned ended in CRLF."""
        self._limit = limit
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self._waiting: asyncio.Future[None] | None = None

    def set_transport(self, transport: asyncio.Transport) -> None:
        """Hold back what comes over `transport`, from now on."""
        self._transport = transport

    def feed_data(self, octets: bytes) -> None:
        """Add what has come."""
        self._buffer += octets
        if len(self._buffer) > 2 * self._limit and not self._paused:
            assert self._transport is not None
            self._transport.pause_reading()
            self._paused = True
        self._wake()

    def feed_eof(self) -> None:
        """Note that nothing more will come."""
        self.ended = True
        self._wake()

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

    def discard(self) -> None:
        """Throw away all that is here, and hold the client back no longer."""
        self._buffer.clear()
        if self._transport is not None and not self._transport.is_closing():
            self._resume()

    def keep_last(self, count: int) -> int:
        """Throw away all that is here but the last `count` octets; return how many those were.

        What is here is no whole line, so the client is held back no longer, room or not.
        """
        if self._paused:
            self._resume()
        surplus = len(self._buffer) - count
        if surplus <= 0:
            return 0
        del self._buffer[:surplus]
        return surplus

    def put_back(self, octets: bytes) -> None:
        """Let `octets` be what is read next, while nobody waits and nothing is here."""
        self._buffer += octets

    async def readline(self) -> bytes:
        """Return the next line, noting how it ends; what is left of one at the end.

        Raises:
            ValueError: it has more octets than the limit. All of it is taken.
        """
        while (line := self.take_line()) is None:
            if self.ended:
                return self.take_all()
            self.keep_last(self._limit + 1)
            self._waiting = asyncio.get_running_loop().create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None
        if len(line) > self._limit:
            raise ValueError("a line is too long")
        self.crlf = self.crlf or line.endswith(b"\r\n")
        return line

    def _take(self, count: int) -> bytes:
        buffer = self._buffer
        if count == len(buffer):
            taken = bytes(buffer)
            buffer.clear()
        else:
            taken = bytes(buffer[:count])
            del buffer[:count]
        if self._paused and len(buffer) <= self._limit:
            self._resume()
        return taken

    def _resume(self) -> None:
        if self._paused:
            assert self._transport is not None
            self._paused = False
            self._transport.resume_reading()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
