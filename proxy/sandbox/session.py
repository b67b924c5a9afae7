"""One SMTP session of the sandbox, speaking as Postmark's front end (a Postfix) does.

aiosmtpd carries the connection: the stream, STARTTLS, time-outs, the envelope. The commands are
answered here, since a load test needs them quick, pipelined (RFC 2920) and able to fail on demand.
"""

import asyncio
import base64
import binascii
import contextlib
import re
import secrets
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, Any, NoReturn

from aiosmtpd.smtp import SMTP

from proxy.sandbox import sasl
from proxy.sandbox.account import HOST_NAMES
from proxy.sandbox.faults import Fault, Moment

if TYPE_CHECKING:
    from proxy.sandbox.ports import Port
    from proxy.sandbox.sandbox import Sandbox

SIZE_LIMIT = 20_480_000
"""What EHLO announces. The product's own limit of 10 MB shows later, as an SMTPApiError."""

ERROR_LIMIT = 20
_LINE_LIMIT = 4096
_READ_AHEAD = 65_536

_MAIL = re.compile(r"(?i)FROM:\s*<([^<>]*)>\s*(.*)")
_RCPT = re.compile(r"(?i)TO:\s*<(?:@[^:<>]*:)?([^<>]+)>\s*(.*)")
_MAIL_PARAMETERS = frozenset({"SIZE", "BODY", "AUTH", "RET", "ENVID"})
_RCPT_PARAMETERS = frozenset({"NOTIFY", "ORCPT"})


class _Over(Exception):  # noqa: N818 - the end of a conversation, not an error
    """The conversation ends here; the connection is closed."""


class Session(SMTP):
    """A client's connection to one port of the sandbox."""

    line_length_limit = _READ_AHEAD  # of the stream: how much is read ahead of us

    def __init__(self, sandbox: "Sandbox", port: "Port") -> None:
        self._kind = sandbox.hosts[port.address]
        super().__init__(
            None,
            hostname=HOST_NAMES[self._kind],
            ident="sandbox",
            tls_context=sandbox.authority.context(),
            timeout=sandbox.idle,
            data_size_limit=SIZE_LIMIT,
            loop=asyncio.get_running_loop(),
        )
        self.address = port.address
        self.port = port.number
        self.user = ""
        self._sandbox = sandbox
        self._out: list[bytes] = []
        self._late: deque[bytes] = deque()
        self._errors = 0
        self._mail_from: str | None = None
        self._recipients: list[str] = []

    # -- the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register with the sandbox; called again when TLS stands (RFC 3207 §4.2)."""
        self._sandbox.joined(self)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        """Take leave of the sandbox."""
        self._sandbox.left(self)
        super().connection_lost(error)

    def _timeout_cb(self) -> None:
        self._say(f"421 4.4.2 {self.hostname} Error: timeout exceeded")
        self._flush()
        super()._timeout_cb()

    def abort(self, *, reset: bool = False) -> None:
        """Cut the connection, with a TCP reset when `reset`."""
        transport = self._original_transport or self.transport
        if transport is None:
            return
        if reset:
            connection = transport.get_extra_info("socket")
            with contextlib.suppress(OSError):
                linger = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()  # type: ignore[attr-defined]  # aiosmtpd keeps it as a base transport

    @property
    def tls(self) -> str:
        """The TLS version of the connection, "" for clear text."""
        if self._tls_protocol is None or self.transport is None:
            return ""
        version = self.transport.get_extra_info("ssl_object")
        return version.version() or "" if version is not None else ""

    # -- the dialog

    async def _handle_client(self) -> None:
        try:
            await self._converse()
        except (_Over, ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            await self._close()

    async def _close(self) -> None:
        self._flush()
        while self._late and self.transport is not None:
            await asyncio.sleep(self._sandbox.latency)
        if self.transport is not None:
            self.transport.close()

    async def _converse(self) -> None:
        if not await self._fails("connect"):
            self._say(f"220 {self.hostname} ESMTP {self.__ident__}")
        while True:
            line = await self._read_line()
            self._reset_timeout()
            verb, _, argument = line.partition(" ")
            method = self._smtp_methods.get(verb.upper())
            if method is None:
                self._refuse("502 5.5.2 Error: command not recognized")
            else:
                await method(argument.strip())

    async def _fails(self, moment: Moment, *addresses: str) -> bool:
        """Whether the command is dealt with by a fault that strikes at this moment."""
        book = self._sandbox.faults
        fault = book.strike(moment, self.address, self.port, addresses)
        return fault is not None and await self._suffer(fault)

    async def _suffer(self, fault: Fault) -> bool:
        if fault.do == "delay":
            await asyncio.sleep(fault.seconds)
            return False
        if fault.do == "certificate":
            self.tls_context = self._sandbox.authority.context(fault.what)  # type: ignore[arg-type]  # checked there
            return False
        if fault.do == "reply":
            self._say(fault.reply.replace("\r\n", "\n").replace("\n", "\r\n"))
            if fault.at == "connect" or fault.reply.startswith("421"):
                raise _Over
            return True
        self._flush()
        if fault.do == "hang":
            await self._hang()
        if fault.do == "reset":
            self.abort(reset=True)
        raise _Over

    async def _hang(self) -> NoReturn:
        self._timeout_handle.cancel()  # type: ignore[union-attr]  # set since the connection was made
        await asyncio.get_running_loop().create_future()
        raise _Over

    def _say(self, reply: str) -> None:
        self._out.append(reply.encode("utf-8", "replace") + b"\r\n")

    def _refuse(self, reply: str) -> None:
        self._say(reply)
        self._errors += 1
        if self._errors >= ERROR_LIMIT:
            self._say(f"421 4.7.0 {self.hostname} Error: too many errors")
            raise _Over

    def _flush(self) -> None:
        """Write all replies there are in one go: called before anything waits for the client."""
        if not self._out or self.transport is None:
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
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(octets)  # type: ignore[attr-defined]  # a base transport to aiosmtpd

    async def push(self, status: str | bytes) -> None:
        """Answer at once: what aiosmtpd itself says (about STARTTLS)."""
        self._out.append((status.encode() if isinstance(status, str) else status) + b"\r\n")
        self._flush()

    # -- reading: straight from the stream's buffer, so that a load test is not about the reader

    async def _more(self) -> None:
        reader: Any = self._reader
        reader._maybe_resume_transport()
        if reader.at_eof() or reader._eof:
            raise _Over
        self._flush()
        await reader._wait_for_data("sandbox")

    async def _read_line(self) -> str:
        reader: Any = self._reader
        while (end := reader._buffer.find(b"\n")) < 0:
            if len(reader._buffer) > _LINE_LIMIT:
                self._say(f"421 4.7.0 {self.hostname} Error: line too long")
                raise _Over
            await self._more()
        line: bytes = bytes(reader._buffer[:end])
        del reader._buffer[: end + 1]
        return line.rstrip(b"\r").decode("utf-8", "replace")

    async def _read_content(self) -> bytes | None:
        """Return the message, dot-stuffing undone; None when it is above SIZE_LIMIT."""
        reader: Any = self._reader
        data = bytearray(b"\r\n")
        too_big = False
        searched = 0
        while True:
            data += reader._buffer
            reader._buffer.clear()
            if len(data) > 2 and await self._fails("content", *self._parties()):
                raise _Over
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
        if too_big:
            return None
        return bytes(data.replace(b"\r\n.", b"\r\n")[2:])

    def _parties(self) -> list[str]:
        return [self._mail_from or "", *self._recipients]

    # -- the commands

    def _forget_transaction(self) -> None:
        self._mail_from = None
        self._recipients = []

    def _set_rset_state(self) -> None:
        super()._set_rset_state()
        self._forget_transaction()

    async def smtp_HELO(self, hostname: str) -> None:  # noqa: N802 - aiosmtpd's way to name them
        """RFC 5321 §4.1.1.1."""
        if not hostname:
            self._refuse("501 Syntax: HELO hostname")
            return
        self._greeted(hostname)
        self._say(f"250 {self.hostname}")

    async def smtp_EHLO(self, hostname: str) -> None:  # noqa: N802
        """RFC 5321 §4.1.1.1, with the extensions seen at Postmark."""
        if not hostname:
            self._refuse("501 Syntax: EHLO hostname")
            return
        if await self._fails("ehlo", hostname):
            return
        self._greeted(hostname)
        offers = ["PIPELINING", f"SIZE {SIZE_LIMIT}", "VRFY", "ETRN"]
        if self._tls_protocol is None:
            offers.append("STARTTLS")
        offers += [
            "AUTH " + " ".join(sasl.MECHANISMS),
            "ENHANCEDSTATUSCODES",
            "8BITMIME",
            "DSN",
        ]
        hidden = self._sandbox.faults.hidden(self.address, self.port)
        if hidden:
            offers = [one for one in offers if one.partition(" ")[0] not in hidden]
            mechanisms = [one for one in sasl.MECHANISMS if one not in hidden]
            offers = [
                "AUTH " + " ".join(mechanisms) if one.startswith("AUTH ") else one for one in offers
            ]
        lines = [self.hostname, *offers]
        self._say("\r\n".join(f"250-{one}" for one in lines[:-1]) + f"\r\n250 {lines[-1]}")

    def _greeted(self, hostname: str) -> None:
        self._set_rset_state()
        assert self.session is not None
        self.session.host_name = hostname

    async def smtp_STARTTLS(self, arg: str) -> None:  # noqa: N802
        """RFC 3207; leaves behind all that was known before."""
        if self._tls_protocol is not None:
            self._refuse("554 5.5.1 Error: TLS already active")
            return
        if arg:
            self._refuse("501 5.5.4 Syntax: STARTTLS")
            return
        if await self._fails("starttls"):
            return
        book = self._sandbox.faults
        fault = book.strike("tls", self.address, self.port)
        if fault is not None:
            self._say("220 2.0.0 Ready to start TLS")
            await self._suffer(fault)
        self.user = ""
        try:
            await super().smtp_STARTTLS(None)  # type: ignore[arg-type]  # no argument is None to it
        except Exception as error:  # the handshake failed, in whichever of ssl's ways
            raise _Over from error
        if self.transport is None:
            raise _Over

    async def smtp_AUTH(self, arg: str) -> None:  # noqa: N802
        """RFC 4954, offered in the clear as well, as Postmark's front end did when seen."""
        name, _, initial = arg.partition(" ")
        name = name.upper()
        if self.user:
            self._refuse("503 5.5.1 Error: already authenticated")
        elif not self.session or not self.session.host_name:
            self._refuse("503 5.5.1 Error: send HELO/EHLO first")
        elif self._mail_from is not None:
            self._refuse("503 5.5.1 Error: MAIL transaction in progress")
        elif name not in sasl.MECHANISMS:
            self._refuse("535 5.7.8 Error: authentication failed: Invalid authentication mechanism")
        else:
            await self._authenticate_by(name, initial)

    async def _authenticate_by(self, name: str, initial: str) -> None:
        exchange = sasl.MECHANISMS[name](
            self._sandbox.account.password, secrets.token_hex(12), self.hostname
        )
        user, accepted = "", False
        try:
            challenge = next(exchange)
            if initial and name in sasl.INITIAL_RESPONSE:
                challenge = exchange.send(b"" if initial == "=" else _decoded(initial))
            while True:
                self._say("334 " + base64.b64encode(challenge).decode())
                response = await self._read_line()
                if response == "*":
                    self._refuse("501 5.7.0 Authentication aborted")
                    return
                challenge = exchange.send(_decoded(response))
        except StopIteration as end:
            user, accepted = end.value, True
        except sasl.LoginRefused as refused:
            user = refused.user
        except binascii.Error:
            self._refuse("501 5.5.2 Error: Invalid base64 data in response")
            return
        self._sandbox.tried(name, user, accepted=accepted, session=self)
        if await self._fails("auth", user):
            return
        if accepted:
            self.user = user
            self._say("235 2.7.0 Authentication successful")
        else:
            self._refuse("535 5.7.8 Error: authentication failed: UGFzc3dvcmQ6")

    async def smtp_MAIL(self, arg: str | None) -> None:  # noqa: N802
        """RFC 5321 §4.1.1.2."""
        match = _MAIL.fullmatch(arg or "")
        assert self.session is not None
        if not self.session.host_name:
            self._refuse("503 5.5.1 Error: send HELO/EHLO first")
        elif self._mail_from is not None:
            self._refuse("503 5.5.1 Error: nested MAIL command")
        elif match is None:
            self._refuse("501 5.5.4 Syntax: MAIL FROM:<address>")
        elif complaint := _complaint(match[1], match[2], _MAIL_PARAMETERS):
            self._refuse(complaint)
        elif not await self._fails("mail", match[1]):
            self._mail_from = match[1]
            self._say("250 2.1.0 Ok")

    async def smtp_RCPT(self, arg: str | None) -> None:  # noqa: N802
        """RFC 5321 §4.1.1.3. Without a login nothing is relayed."""
        match = _RCPT.fullmatch(arg or "")
        limit = self._sandbox.recipient_limit
        if self._mail_from is None:
            self._refuse("503 5.5.1 Error: need MAIL command")
        elif match is None:
            self._refuse("501 5.1.3 Bad recipient address syntax")
        elif not self.user:
            self._refuse(f"554 5.7.1 <{match[1]}>: Relay access denied")
        elif complaint := _complaint(match[1], match[2], _RCPT_PARAMETERS):
            self._refuse(complaint)
        elif limit and len(self._recipients) >= limit:
            self._say("452 4.5.3 Error: too many recipients")
        elif not await self._fails("rcpt", match[1]):
            self._recipients.append(match[1])
            self._say("250 2.1.5 Ok")

    async def smtp_DATA(self, arg: str | None) -> None:  # noqa: N802
        """RFC 5321 §4.1.1.4."""
        if self._mail_from is None:
            self._refuse("503 5.5.1 Error: need MAIL command")
        elif not self._recipients:
            self._refuse("554 5.5.1 Error: no valid recipients")
        elif arg:
            self._refuse("501 5.5.4 Syntax: DATA")
        elif not await self._fails("data", *self._parties()):
            self._say("354 End data with <CR><LF>.<CR><LF>")
            content = await self._read_content()
            if content is None:
                self._refuse("552 5.3.4 Error: message file too big")
            elif not await self._fails("dot", *self._parties()):
                queue_id = self._sandbox.take(
                    self, self._mail_from, tuple(self._recipients), content
                )
                if not await self._fails("taken", *self._parties()):
                    self._say(f"250 2.0.0 Ok: queued as {queue_id}")
            self._forget_transaction()

    async def smtp_RSET(self, arg: str | None) -> None:  # noqa: N802
        """RFC 5321 §4.1.1.5."""
        if not await self._fails("rset"):
            self._forget_transaction()
            self._say("250 2.0.0 Ok")

    async def smtp_NOOP(self, arg: str | None) -> None:  # noqa: N802
        """RFC 5321 §4.1.1.9."""
        if not await self._fails("noop"):
            self._say("250 2.0.0 Ok")

    async def smtp_VRFY(self, arg: str | None) -> None:  # noqa: N802
        """RFC 5321 §4.1.1.6: tells nobody anything."""
        self._say(f"252 2.0.0 {arg}")

    async def smtp_ETRN(self, arg: str | None) -> None:  # noqa: N802
        """RFC 1985: offered, of no use."""
        self._say("459 4.0.0 Unable to queue messages")

    async def smtp_QUIT(self, arg: str | None) -> None:  # noqa: N802
        """RFC 5321 §4.1.1.10."""
        if not await self._fails("quit"):
            self._say("221 2.0.0 Bye")
            raise _Over


def _decoded(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _complaint(address: str, parameters: str, known: frozenset[str]) -> str:
    """Return the reply that refuses an address or its parameters, "" when all is well."""
    if not address.isascii():
        return "553 5.6.7 Error: SMTPUTF8 is not offered here"
    for parameter in parameters.split():
        name, _, value = parameter.partition("=")
        if name.upper() not in known:
            return f"555 5.5.4 Unsupported option: {parameter}"
        if name.upper() == "SIZE":
            if not value.isdigit():
                return "501 5.5.4 Bad message size syntax"
            if int(value) > SIZE_LIMIT:
                return "552 5.3.4 Message size exceeds fixed limit"
    return ""
