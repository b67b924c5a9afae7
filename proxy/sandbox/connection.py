"""The connection under a sandbox session: replies gathered, octets read, faults suffered.

aiosmtpd carries it: the stream, STARTTLS, time-outs. Reading goes straight to the stream's buffer
and replies leave together just before anything waits for the client, so that a load test measures
the client and not its stand-in, and pipelined commands (RFC 2920) are answered in one go.
"""

import asyncio
import contextlib
import socket
import struct
from collections import deque
from typing import Any, NoReturn, Protocol, cast

from aiosmtpd.smtp import SMTP

from proxy.sandbox.account import HOST_NAMES, Kind
from proxy.sandbox.certificates import Authority
from proxy.sandbox.faults import Fault, FaultBook, Flaw, Moment
from proxy.sandbox.ports import Port

SIZE_LIMIT = 20_480_000
"""What EHLO announces. The product's own limit of 10 MB shows later, as an SMTPApiError."""

ERROR_LIMIT = 20
_LINE_LIMIT = 4096
_READ_AHEAD = 65_536


class Over(Exception):
    """The conversation ends here; the connection is closed."""


class Premises(Protocol):
    """What a connection knows of the sandbox that it is a part of."""

    hosts: dict[str, Kind]
    authority: Authority
    faults: FaultBook
    idle: float
    latency: float

    def joined(self, session: "Connection") -> None:
        """Note that the connection stands."""

    def left(self, session: "Connection") -> None:
        """Note that it is gone."""


class Connection(SMTP):
    """A client's connection to one port of the sandbox, before any command is understood."""

    line_length_limit = _READ_AHEAD  # of the stream: how much is read ahead of us

    def __init__(self, sandbox: Premises, port: Port) -> None:
        self.kind = sandbox.hosts[port.address]
        super().__init__(
            None,
            hostname=HOST_NAMES[self.kind],
            ident="sandbox",
            tls_context=sandbox.authority.context(),
            timeout=sandbox.idle,
            data_size_limit=SIZE_LIMIT,
            loop=asyncio.get_running_loop(),
        )
        self.address = port.address
        self.port = port.number
        self._sandbox = sandbox
        self._out: list[bytes] = []
        self._late: deque[bytes] = deque()
        self._errors = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register with the sandbox; called again when TLS stands (RFC 3207 §4.2)."""
        self._sandbox.joined(self)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        """Take leave of the sandbox."""
        self._sandbox.left(self)
        super().connection_lost(error)

    def _timeout_cb(self) -> None:
        self.say(f"421 4.4.2 {self.hostname} Error: timeout exceeded")
        self.flush()
        if self.transport is not None:
            self.transport.close()

    def abort(self, *, reset: bool = False) -> None:
        """Cut the connection, with a TCP reset when `reset`."""
        transport = cast("asyncio.Transport | None", self._original_transport or self.transport)
        if transport is None:
            return
        if reset:
            connection = transport.get_extra_info("socket")
            with contextlib.suppress(OSError):
                linger = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()

    @property
    def tls(self) -> str:
        """The TLS version of the connection, "" for clear text."""
        if self._tls_protocol is None or self.transport is None:
            return ""
        layer = self.transport.get_extra_info("ssl_object")
        return layer.version() or "" if layer is not None else ""

    async def start_tls(self) -> None:
        """Answer STARTTLS with 220 and shake hands.

        Raises:
            Over: the handshake failed.
        """
        try:
            await super().smtp_STARTTLS(None)
        except Exception as error:
            raise Over from error
        if self.transport is None:
            raise Over

    # -- the conversation

    async def converse(self) -> None:
        """Talk until one side has had enough."""
        raise NotImplementedError

    async def _handle_client(self) -> None:
        try:
            await self.converse()
        except (Over, ConnectionError):
            pass
        finally:
            self.flush()
            if self._late:
                await asyncio.sleep(self._sandbox.latency)
            self._sandbox.left(self)
            if self._timeout_handle is not None:
                self._timeout_handle.cancel()
            for transport in (self.transport, self._original_transport):
                if transport is not None:
                    transport.close()

    async def fails(self, moment: Moment, *addresses: str) -> bool:
        """Whether the command is dealt with by a fault that strikes at this moment.

        Raises:
            Over: it was the connection's end.
        """
        fault = self._sandbox.faults.strike(moment, self.address, self.port, addresses)
        return fault is not None and await self.suffer(fault)

    async def suffer(self, fault: Fault) -> bool:
        """Let `fault` happen; False when the command is to be answered as usual after all."""
        if fault.do == "delay":
            await asyncio.sleep(fault.seconds)
            return False
        if fault.do == "certificate":
            self.tls_context = self._sandbox.authority.context(cast("Flaw", fault.what))
            return False
        if fault.do == "reply":
            self.say(fault.reply.replace("\r\n", "\n").replace("\n", "\r\n"))
            if fault.at == "connect" or fault.reply.startswith("421"):
                raise Over
            return True
        self.flush()
        if fault.do == "hang":
            await self._hang()
        if fault.do == "reset":
            self.abort(reset=True)
        raise Over

    async def _hang(self) -> NoReturn:
        if self._timeout_handle is not None:
            self._timeout_handle.cancel()
        await asyncio.get_running_loop().create_future()
        raise Over

    # -- replies

    def say(self, reply: str) -> None:
        """Answer; it leaves with the next `flush`."""
        self._out.append(reply.encode("utf-8", "replace") + b"\r\n")

    def refuse(self, reply: str) -> None:
        """Answer with an error; too many of them end the conversation.

        Raises:
            Over: this was one too many.
        """
        self.say(reply)
        self._errors += 1
        if self._errors >= ERROR_LIMIT:
            self.say(f"421 4.7.0 {self.hostname} Error: too many errors")
            raise Over

    def flush(self) -> None:
        """Write all replies there are in one go, `latency` seconds later."""
        if not self._out:
            return
        octets = b"".join(self._out)
        self._out.clear()
        if self._sandbox.latency:
            self._late.append(octets)
            asyncio.get_running_loop().call_later(self._sandbox.latency, self._write_late)
        else:
            self._write(octets)

    def _write_late(self) -> None:
        self._write(self._late.popleft())

    def _write(self, octets: bytes) -> None:
        transport = cast("asyncio.Transport | None", self.transport)
        if transport is not None and not transport.is_closing():
            transport.write(octets)

    async def push(self, status: str | bytes) -> None:
        """Answer at once: what aiosmtpd itself says (about STARTTLS)."""
        self._out.append((status.encode() if isinstance(status, str) else status) + b"\r\n")
        self.flush()
        if self._late:  # it must be gone before TLS takes over the transport
            await asyncio.sleep(self._sandbox.latency)

    # -- reading

    async def _more(self) -> None:
        reader: Any = self._reader
        reader._maybe_resume_transport()
        if reader._eof:
            raise Over
        self.flush()
        await reader._wait_for_data("sandbox")

    async def read_line(self) -> str:
        """Return the next line without its end.

        Raises:
            Over: the client is gone, or the line is endless.
        """
        reader: Any = self._reader
        while (end := reader._buffer.find(b"\n")) < 0:
            if len(reader._buffer) > _LINE_LIMIT:
                self.say(f"421 4.7.0 {self.hostname} Error: line too long")
                raise Over
            await self._more()
        line = bytes(reader._buffer[:end])
        del reader._buffer[: end + 1]
        return line.rstrip(b"\r").decode("utf-8", "replace")

    async def read_content(self, *parties: str) -> bytes | None:
        """Return the message, dot-stuffing undone; None when it is above SIZE_LIMIT.

        `parties` are the addresses that a fault at "content" may be about.
        """
        reader: Any = self._reader
        data = bytearray(b"\r\n")
        too_big = False
        searched = 0
        while True:
            data += reader._buffer
            reader._buffer.clear()
            if len(data) > 2 and await self.fails("content", *parties):
                raise Over
            if (end := data.find(b"\r\n.\r\n", searched)) >= 0:
                break
            searched = max(0, len(data) - 4)
            if len(data) > SIZE_LIMIT + 2:
                too_big = True
                del data[:-4]
                searched = 0
            await self._more()
        reader._buffer[:0] = data[end + 5 :]
        del data[end + 2 :]
        if too_big or end > SIZE_LIMIT:
            return None
        return bytes(data.replace(b"\r\n.", b"\r\n")[2:])
