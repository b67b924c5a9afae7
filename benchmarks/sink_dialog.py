"""The sink's side of an SMTP dialog, as short as it can be, and the count of what came."""

import asyncio
import socket
import ssl
import time
from array import array
from collections import deque
from dataclasses import dataclass, field
from typing import Any, cast

_EHLO = b"250-sink.invalid\r\n250-PIPELINING\r\n250-SIZE 20480000\r\n"
_END = b"\r\n.\r\n"
_REPLIES = {
    b"MAIL": b"250 2.1.0 Ok\r\n",
    b"RCPT": b"250 2.1.5 Ok\r\n",
    b"RSET": b"250 2.0.0 Ok\r\n",
    b"NOOP": b"250 2.0.0 Ok\r\n",
    b"AUTH": b"235 2.7.0 Authentication successful\r\n",
}


@dataclass(slots=True)
class Count:
    """What came since the last reset; times are monotonic seconds."""

    times: "array[float]" = field(default_factory=lambda: array("d"))
    octets: int = 0
    connections: int = 0
    open: int = 0
    most_open: int = 0
    in_clear: int = 0

    @property
    def messages(self) -> int:
        """How many came."""
        return len(self.times)

    def at(self, number: int) -> float:
        """Return when message `number` (from 1) came; 0: not yet."""
        return self.times[number - 1] if 0 < number <= len(self.times) else 0.0

    def reset(self) -> None:
        """Begin anew; what is open stays counted as open."""
        self.times = array("d")
        self.octets = self.connections = self.in_clear = 0
        self.most_open = self.open

    def as_json(self, number: int = 0) -> dict[str, Any]:
        """Return it as plain values, with when message `number` came."""
        return {
            "messages": self.messages,
            "octets": self.octets,
            "first": self.at(1),
            "last": self.at(self.messages),
            "at": self.at(number),
            "connections": self.connections,
            "open": self.open,
            "most_open": self.most_open,
            "in_clear": self.in_clear,
        }


class SinkProtocol(asyncio.Protocol):
    """One connection. Replies to all that one read brought leave in one write, `delay` later."""

    def __init__(self, count: Count, context: ssl.SSLContext, delay: float) -> None:
        self._count = count
        self._context = context
        self._delay = delay
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._socket: socket.socket
        self._late: deque[bytes] = deque()
        self._buffer = bytearray()
        self._in_data = False
        self._tls = False
        self._switching: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        self._transport = cast("asyncio.Transport", transport)
        self._socket = transport.get_extra_info("socket")
        count = self._count
        count.connections += 1
        count.open += 1
        count.most_open = max(count.most_open, count.open)
        self._write(b"220 sink.invalid ESMTP\r\n")

    def connection_lost(self, _error: Exception | None) -> None:
        """Count it out."""
        self._count.open -= 1
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Answer everything that is whole."""
        # A client that writes a message in pieces and leaves Nagle's algorithm on (Postfix through
        # tlsproxy) would otherwise wait 40 ms for a delayed ACK, which is not its own slowness.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        buffer = self._buffer
        buffer += data
        replies: list[bytes] = []
        while buffer and self._switching is None:
            if self._in_data:
                end = buffer.find(_END)
                if end < 0:
                    self._let_go(max(0, len(buffer) - len(_END) + 1))
                    break
                self._let_go(end)
                del buffer[: len(_END)]
                self._in_data = False
                self._took()
                replies.append(b"250 2.0.0 Ok: queued as SINK\r\n")
                continue
            end = buffer.find(b"\n")
            if end < 0:
                break
            verb = bytes(buffer[:4]).upper()
            del buffer[: end + 1]
            replies.append(self._answer(verb))
        if replies and self._switching is None:
            self._write(b"".join(replies))
            if replies[-1].startswith(b"221"):
                self._end()

    def _answer(self, verb: bytes) -> bytes:
        if verb in _REPLIES:
            return _REPLIES[verb]
        if verb == b"DATA":
            self._in_data = True
            # What follows may begin with the dot that ends it.
            self._buffer[:0] = b"\r\n"
            return b"354 End data with <CR><LF>.<CR><LF>\r\n"
        if verb in (b"EHLO", b"HELO"):
            return _EHLO + (b"250 AUTH PLAIN LOGIN\r\n" if self._tls else b"250 STARTTLS\r\n")
        if verb == b"STAR":
            self._switching = self._loop.create_task(self._switch())
            return b""
        if verb == b"QUIT":
            return b"221 2.0.0 Bye\r\n"
        return b"502 5.5.2 Error: command not recognized\r\n"

    def _let_go(self, octets: int) -> None:
        """Forget content that was looked at, so that nothing is looked at twice."""
        self._count.octets += octets
        del self._buffer[:octets]

    def _took(self) -> None:
        self._count.times.append(time.monotonic())
        self._count.in_clear += not self._tls

    async def _switch(self) -> None:
        assert self._transport is not None
        transport = self._transport
        if self._delay:
            await asyncio.sleep(self._delay)
        transport.pause_reading()
        transport.write(b"220 2.0.0 Ready to start TLS\r\n")
        self._buffer.clear()  # what was said in the clear is forgotten
        try:
            self._transport = await self._loop.start_tls(
                transport, self, self._context, server_side=True
            )
        except (OSError, ssl.SSLError):
            transport.abort()
            return
        self._tls = True
        self._switching = None
        self.data_received(b"")  # what came over TLS before this coroutine's turn

    def _write(self, octets: bytes) -> None:
        if self._delay:
            self._late.append(octets)
            self._loop.call_later(self._delay, self._write_late)
        elif self._transport is not None:
            self._transport.write(octets)

    def cut(self) -> None:
        """End the connection without a word."""
        if self._transport is not None:
            self._transport.abort()

    def _write_late(self) -> None:
        octets = self._late.popleft()
        if self._transport is not None:
            self._transport.write(octets)

    def _end(self) -> None:
        def close() -> None:
            if self._transport is not None:
                self._transport.close()

        self._loop.call_later(self._delay * 1.01, close)
