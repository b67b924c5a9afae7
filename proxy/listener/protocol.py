"""The session's ground: octets in and out, lines, time-outs, and an end that loses nothing.

aiosmtpd's protocol with its hot spots replaced (each is named where it is). What it does not do,
and we need: replies of one batch of pipelined commands leave together; a client that is too slow
hears 421; a client that goes away never cancels what is being done with its mail; one that has
only closed its sending side is answered; whether it has ever sent a CRLF is known.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, cast

from aiosmtpd.smtp import SMTP

from proxy import log
from proxy.listener import replies
from proxy.listener.content import Content
from proxy.listener.door import Door
from proxy.listener.peer import plain_address
from proxy.listener.reader import Reader
from proxy.metrics.intake import DEFECTS, MESSAGES_REFUSED

LINE_LIMIT = 16_384
"""Octets of a command line: RFC 4954 §4 asks for 12,288 in AUTH."""

LINGER_S = 2.0
"""How long a client may take to notice that we have closed."""

_ENDLESS_LINE = 1_000_000  # of a command line: then it is not SMTP
_ERRORS = 30  # faulty commands in a row: then neither
NEVER = float("inf")
_HTTP = frozenset({b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"CONNECT", b"HOST:"})


# What it says at WARNING is what clients do; what matters of that is logged here.
logging.getLogger("mail.log").setLevel(logging.ERROR)


class ClientGoneError(Exception):
    """The client closed its connection, or was cut off: nobody is there to answer."""


class SmtpProtocol(SMTP):
    """One connection. Subclasses have the commands, as `smtp_NAME` coroutines."""

    # By octets as they come, bound to the class: aiosmtpd looks for them in every new session.
    commands: ClassVar[dict[bytes, Callable[[Any, str], Awaitable[None]]]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.commands = {
            name[5:].encode("ascii"): getattr(cls, name)
            for name in dir(cls)
            if name.startswith("smtp_")
        }

    def __init__(self, door: Door, loop: asyncio.AbstractEventLoop) -> None:
        # SMTP.__init__ is left out: it searches class and handler by reflection (100 µs for each
        # connection), asks DNS for the host's name, and empties a dict that all sessions share.
        # What is inherited and used (AUTH's dialogs) needs no more than is set here.
        self.loop = loop
        self._reader: Reader = Reader(limit=LINE_LIMIT, loop=loop)
        # No callback: bound methods in a protocol make cycles that only the collector can free.
        asyncio.StreamReaderProtocol.__init__(self, self._reader, None, loop)
        self.door = door
        self.office = door.office
        self.transport: asyncio.Transport | None = None
        self.session = None
        self.envelope = None
        self.crlf = False  # ever sent by the client
        self.data_refused = False  # the last command was DATA, and it was refused
        self.in_tls = False
        self.deadline = NEVER
        self.address = ""  # of the client, "unix" for one that has none
        self.port = 0
        self._out: list[bytes] = []
        self._writable: asyncio.Future[None] | None = None  # there while the client does not read
        self._idle = False
        self._closing = False  # nothing is obeyed any more
        self._linger = True  # not once the client has said goodbye
        self._lingering = False  # our side is closed, the client's not yet
        self._errors = 0
        self._content: Content | None = None
        self._content_began = 0.0
        self._content_answered = False
        self._content_ended: asyncio.Future[None] | None = None
        self._counted = 0  # octets of office.memory that are ours

    # The connection's life

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let the client in, or tell it why not."""
        asyncio.StreamReaderProtocol.connection_made(self, transport)
        # uvloop's are not of asyncio's class.
        self.transport = cast(asyncio.Transport, transport)
        office = self.office
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            self.address, self.port = plain_address(peer[0]), peer[1]
        else:
            self.address = "unix"
        if not self.door.allows(self.address):
            MESSAGES_REFUSED.labels("client").inc()
            log.client_refused(self.address, reply=replies.words(replies.NOT_ALLOWED))
            self._turn_away(replies.NOT_ALLOWED)
        elif len(office.sessions) >= office.limits.connections:
            answer = replies.too_many_connections(office.limits.connections)
            MESSAGES_REFUSED.labels("connections").inc()
            log.refused(self.address, reason="connections", reply=replies.words(answer))
            self._turn_away(answer)
        else:
            office.sessions.add(self)
            self.touch()
            task = self.loop.create_task(self._handle_client())
            office.tasks.add(task)
            task.add_done_callback(office.tasks.discard)

    def _turn_away(self, answer: bytes) -> None:
        assert self.transport is not None
        self.transport.write(answer)
        self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        """Let what waits for the client know; what works for it goes on (aiosmtpd cancels it)."""
        asyncio.StreamReaderProtocol.connection_lost(self, error)
        self.lost()

    def lost(self) -> None:
        """The connection is no more."""
        self.office.sessions.discard(self)
        self._closing = True
        self._content_lost()
        self.resume_writing()

    def pause_writing(self) -> None:
        """Hold replies back: the client does not read them."""
        self._writable = self.loop.create_future()

    def resume_writing(self) -> None:
        """Let replies go on."""
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    def eof_received(self) -> bool:
        """Go on answering a client that has only closed its sending side (aiosmtpd cancels)."""
        if self._lingering:
            return False
        self._linger = False
        self._reader.feed_eof()
        self._content_lost()
        return not self.in_tls

    def data_received(self, data: bytes) -> None:
        """Take octets: lines for the commands, or a message's content."""
        if self._closing:
            pass
        elif self._content is None:
            self._reader.feed_data(data)
        else:
            self._content_received(data)

    def touch(self) -> None:
        """Give the client its time anew."""
        self.deadline = self.loop.time() + self.office.limits.timeout

    def expire(self) -> None:
        """End a session whose deadline is over: 421, and if even that does not go out, a cut."""
        assert self.transport is not None
        if self._closing:
            self.transport.abort()
            return
        if not self._content_answered:
            self._out.append(replies.TOO_SLOW)
        self.end()

    def ask_to_end(self) -> None:
        """End the session as soon as it has no mail in hand; at once when it is waiting for one."""
        if self._idle and not self.in_transaction and not self._closing:
            self._out.append(replies.STOPPING)
            self.end()

    def cut(self) -> None:
        """End the session whatever it is doing: its mail was not taken, and it hears so."""
        if not self._closing:
            self._out.append(replies.STOPPING)
            self.end()

    def end(self) -> None:
        """Send what is still to be said, and close.

        A client that is in the middle of sending would lose that reply to a connection reset, so
        what it sends is thrown away for LINGER_S, or until it has closed its side.
        """
        self._closing = True
        self._write()
        if self.transport is None or self._lingering or self.transport.is_closing():
            return
        if not self._linger or self.in_tls:
            self.transport.close()
            self.touch()
            return
        self._lingering = True
        try:
            self.transport.write_eof()
        except OSError:  # the client has gone without our being told yet
            self.transport.abort()
            return
        self.deadline = self.loop.time() + LINGER_S
        self._reader.feed_eof()
        self._content_lost()

    @property
    def in_transaction(self) -> bool:
        """Whether there was a MAIL whose end has not come yet."""
        raise NotImplementedError

    def reset_transaction(self) -> None:
        """Forget what MAIL and RCPT said."""
        raise NotImplementedError

    def _tls_began(self, transport: asyncio.Transport) -> None:
        """Go on over `transport`, the encrypted one."""
        self.transport = self._transport = transport
        self._reader.change_transport(transport)
        self._over_ssl = self.in_tls = True

    @property
    def connection(self) -> socket.socket:
        """The socket, for questions about the peer."""
        assert self.transport is not None
        connection: socket.socket = self.transport.get_extra_info("socket")
        return connection

    # Replies

    async def push(self, status: bytes | str) -> None:
        """Say `status`, now or together with the replies to commands that are here already.

        Whole replies are octets; text is what aiosmtpd's own dialogs (AUTH) say, without CRLF.
        """
        if isinstance(status, str):
            status = status.encode("ascii", "backslashreplace") + b"\r\n"
        elif not status.endswith(b"\r\n"):
            status += b"\r\n"
        self._out.append(status)
        if not self._reader.has_line:
            await self.flush()

    async def flush(self) -> None:
        """Write all replies; wait only when the client does not read them."""
        self._write()
        if self._writable is not None:
            await self._writable

    def _write(self) -> None:
        if self._out:
            if (
                self.transport is not None
                and not self._lingering
                and not self.transport.is_closing()
            ):
                self.transport.write(b"".join(self._out))
            self._out.clear()

    # Commands

    async def _handle_client(self) -> None:
        """Greet, and obey commands until the client or somebody here ends the session."""
        try:
            await self.push(self.door.greeting)
            while not self._closing:
                line = await self._next_line()
                if line is None:
                    break
                await self._obey(line)
                if self.office.stopping and not self.in_transaction and not self._closing:
                    self._out.append(replies.STOPPING)
                    break
        except ClientGoneError:
            pass
        except Exception as error:
            await self.handle_exception(error)
            self._out.append(replies.OUR_FAULT_CLOSING)
        finally:
            self.end()

    async def _next_line(self) -> bytes | None:
        """Return the next command line with its end; None when no more will come."""
        reader = self._reader
        skipped = 0
        before = b""
        if not reader.has_line:
            await self.flush()
        while True:
            self._idle = True
            try:
                line = await reader.readuntil(b"\n")
            except (asyncio.IncompleteReadError, OSError):
                return None
            except asyncio.LimitOverrunError as error:
                before = await reader.read(max(1, error.consumed))
                skipped += len(before)
                if skipped > _ENDLESS_LINE:
                    self._out.append(replies.LONG_LINE)
                    self._out.append(replies.TOO_MANY_ERRORS)
                    return None
                continue
            finally:
                self._idle = False
            self.touch()
            if line.endswith(b"\r\n") or (line == b"\n" and before.endswith(b"\r")):
                self.crlf = True
            if not skipped:
                return line
            skipped, before = 0, b""
            await self.fault(replies.LONG_LINE)

    async def _obey(self, line: bytes) -> None:
        words = line.split(None, 1)
        verb = words[0].upper() if words else b""
        argument = words[1].strip() if len(words) > 1 else b""
        method = self.commands.get(verb)
        if method is None:
            if verb in _HTTP:
                # A web page in a browser on this host can make it send such requests, with a
                # body that is SMTP: nothing of it may be obeyed.
                log.refused(self.address, reason="http", reply=replies.words(replies.NOT_SMTP))
                self._out.append(replies.NOT_SMTP)
                self._closing = True
                return
            if self.data_refused:
                # It sends its message all the same, as programs do that read no replies. The
                # session ends here, or what somebody wrote into that message would be obeyed.
                log.refused(self.address, reason="data", reply=replies.words(replies.NOT_ASKED))
                self._out.append(replies.NOT_ASKED)
                self._closing = True
                return
            await self.fault(replies.UNKNOWN_COMMAND)
            return
        self.data_refused = False
        try:
            await method(self, argument.decode("utf-8", "surrogateescape"))
        except ClientGoneError:
            raise
        except Exception as error:
            if error is self._reader.exception():
                raise ClientGoneError from error
            await self.push(await self.handle_exception(error))

    async def handle_exception(self, error: Exception) -> str:
        """Log our own error, forget the mail, and return a reply that says nothing of it."""
        log.defect("listener", error=error)
        DEFECTS.labels("listener").inc()
        self.reset_transaction()
        return replies.OUR_FAULT[:-2].decode("ascii")

    async def fault(self, answer: bytes) -> None:
        """Answer a command that makes no sense; after many of them in a row, end the session."""
        self._errors += 1
        if self._errors >= _ERRORS:
            self._out.append(answer)
            self._out.append(replies.TOO_MANY_ERRORS)
            self._closing = True
        else:
            await self.push(answer)

    # Content

    async def receive_content(self) -> Content:
        """Return what comes until the end of data. Its octets are counted in `office.memory`.

        Raises:
            ClientGoneError: before the end came.
        """
        reader = self._reader
        await self.flush()
        # A client that did not wait for our 354: all of it is here, so this does not wait either.
        early = await reader.read_pending()
        content = self._content = Content(self.office.limits.message_size, crlf=self.crlf)
        ended = self._content_ended = self.loop.create_future()
        self._content_began = self.loop.time()
        self._content_answered = False
        try:
            if early:
                self._content_received(early)
            if not ended.done():
                if self._closing or reader.at_eof():
                    raise ClientGoneError
                await ended
        finally:
            self._content = self._content_ended = None
            self.crlf = content.crlf
        return content

    def _content_received(self, data: bytes) -> None:
        content, ended = self._content, self._content_ended
        assert content is not None
        assert ended is not None
        if content.whole and not self._count_at_least(content.held + len(data)):
            content.discard()
            self._count(0)
        if content.feed(data):
            self._content = None
            # Before anything else arrives. Nobody reads now, and after an end of file the
            # reader's own method would not take it.
            self._reader.put_back(content.rest)
            content.rest = b""
            if not ended.done():
                ended.set_result(None)
        elif not self._content_answered:
            limits = self.office.limits
            now = self.loop.time()
            self.deadline = limits.timeout + min(
                now, self._content_began + content.size / limits.slowest
            )
            if not content.whole:
                self._count(0)
                if content.size > 10 * limits.message_size:
                    # It may have no end at all. The reply is there before its time; whoever goes
                    # on regardless is cut off after one more `timeout`.
                    self._content_answered = True
                    self._out.append(replies.endless(content.size, limits.message_size))
                    self._write()

    def _content_lost(self) -> None:
        if self._content_ended is not None and not self._content_ended.done():
            self._content_ended.set_exception(ClientGoneError())

    def _count_at_least(self, octets: int) -> bool:
        """Count `octets` as ours in `office.memory`, or what was counted if that is more."""
        if octets <= self._counted:
            return True
        if not self.office.memory.take(octets - self._counted):
            return False
        self._counted = octets
        return True

    def _count(self, octets: int) -> None:
        """Count exactly `octets` as ours: they are there, limit or not."""
        self.office.memory.add(octets - self._counted)
        self._counted = octets
