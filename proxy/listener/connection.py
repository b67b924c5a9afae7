"""One connection: octets in and out, time-outs, and an end that loses nothing.

aiosmtpd's protocol with its hot spots replaced (each is named where it is). What it does not do,
and we need: replies of one batch of pipelined commands leave together; a client that is too slow
hears 421; a client that goes away never cancels what is being done with its mail; one that has
only closed its sending side is answered.
"""

import asyncio
import logging
import socket
from typing import cast

from aiosmtpd.smtp import SMTP

from proxy import log
from proxy.listener import replies
from proxy.listener.content import Content
from proxy.listener.door import Door
from proxy.listener.peer import local_uid, plain_address, unix_uid
from proxy.listener.reader import Reader
from proxy.metrics.intake import MESSAGES_REFUSED

LINE_LIMIT = 16_384
"""Octets of a command line: RFC 4954 §4 asks for 12,288 in AUTH."""

LINGER_S = 2.0
"""How long a client may take to notice that we have closed."""

NEVER = float("inf")

# What it says at WARNING is what clients do; what matters of that is logged here.
logging.getLogger("mail.log").setLevel(logging.ERROR)


class ClientGoneError(Exception):
    """The client closed its connection, or was cut off: nobody is there to answer."""


class SmtpConnection(SMTP):
    """One client's connection. Subclasses know what to say on it."""

    # With all of them in its dict, a session would be beyond what CPython keeps quick (30 names).
    __slots__ = (
        "_closing",
        "_content",
        "_content_answered",
        "_content_began",
        "_content_ended",
        "_counted",
        "_idle",
        "_linger",
        "_lingering",
        "_out",
        "_reader",
        "_writable",
        "address",
        "crlf",
        "deadline",
        "door",
        "envelope",
        "in_tls",
        "loop",
        "office",
        "port",
        "session",
        "transaction_until",
        "transport",
    )

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
        self.in_tls = False
        self.deadline = NEVER
        self.transaction_until = NEVER  # when a mail that was begun must have come to its DATA
        self.address = ""  # of the client, "unix" for one that has none
        self.port = 0
        self._out: list[bytes] = []
        self._writable: asyncio.Future[None] | None = None  # there while the client does not read
        self._idle = False
        self._closing = False  # nothing is obeyed any more
        self._linger = True  # not once the client has said goodbye
        self._lingering = False  # our side is closed, the client's not yet
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
        elif refusal := office.crowd.enter(self, office.limits.connections):
            answer = replies.no_room(refusal, office.limits.connections)
            self._crowded(refusal, answer)
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

    def _crowded(self, reason: str, answer: bytes) -> None:
        """Count one that had to go, and log it unless many were just now."""
        MESSAGES_REFUSED.labels(reason).inc()
        times = self.office.crowding.due(reason, self.office.clock())
        if times:
            log.refused(self.address, reason=reason, reply=replies.words(answer), times=times)

    def local_uid(self, *, only_if_cheap: bool = True) -> int | None:
        """Return the user of this host whose program the client is; None when nobody can say."""
        if self.address == "unix":
            return unix_uid(self.connection)
        server = self.connection.getsockname()
        here = plain_address(server[0]), server[1]
        return local_uid((self.address, self.port), here, only_if_cheap=only_if_cheap)

    def connection_lost(self, error: Exception | None) -> None:
        """Let what waits for the client know; what works for it goes on (aiosmtpd cancels it)."""
        asyncio.StreamReaderProtocol.connection_lost(self, error)
        self.lost()

    def lost(self) -> None:
        """The connection is no more."""
        self.office.sessions.discard(self)
        self.office.crowd.leave(self)
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
        """Give the client its time anew, but for what it has for the whole of a mail."""
        self.deadline = min(
            self.office.clock() + self.office.limits.timeout, self.transaction_until
        )

    def expire(self) -> None:
        """End a session whose deadline is over: 421, and if even that does not go out, a cut."""
        assert self.transport is not None
        if self._closing:
            self.transport.abort()
            return
        if not self._content_answered:
            self.say(replies.TOO_SLOW)
        self.end()

    def ask_to_end(self) -> None:
        """End the session as soon as it has no mail in hand; at once when it is waiting for one."""
        if self._idle and not self.in_transaction and not self._closing:
            self.say(replies.STOPPING)
            self.end()

    def give_way(self) -> None:
        """End the session for another that needs its place: it has no mail in hand."""
        self._crowded("connections_idle", replies.GIVE_WAY)
        self.say(replies.GIVE_WAY)
        self._linger = False  # or a flood would have as many places as come in LINGER_S
        self.end()
        self.deadline = self.office.clock() + LINGER_S

    def cut(self) -> None:
        """End the session whatever it is doing: its mail was not taken, and it hears so."""
        if not self._closing:
            self.say(replies.STOPPING)
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
        self.deadline = self.office.clock() + LINGER_S
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

    def say(self, answer: bytes) -> None:
        """Say `answer`, a whole reply, before anything more is waited for."""
        self._out.append(answer)

    async def push(self, status: bytes | str) -> None:
        """Say `status`, without its CRLF: what aiosmtpd's own dialogs (AUTH) do."""
        if isinstance(status, str):
            status = status.encode("ascii", "backslashreplace")
        self.say(status + b"\r\n")
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
                out = self._out
                self.transport.write(out[0] if len(out) == 1 else b"".join(out))
            self._out.clear()

    # Content

    async def receive_content(self) -> Content:
        """Return what comes until the end of data. Its octets are counted in `office.memory`.

        Raises:
            ClientGoneError: before the end came.
        """
        reader = self._reader
        await self.flush()
        # A client that did not wait for our 354: all of it is here, so this does not wait either.
        early = reader.take_all()
        content = self._content = Content(self.office.limits.message_size, crlf=self.crlf)
        ended = self._content_ended = self.loop.create_future()
        self._content_began = self.office.clock()
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
            now = self.office.clock()
            self.deadline = limits.timeout + min(
                now, self._content_began + content.size / limits.slowest
            )
            if not content.whole:
                self._count(0)
                if content.size > 10 * limits.message_size:
                    # It may have no end at all. The reply is there before its time; whoever goes
                    # on regardless is cut off after one more `timeout`.
                    self._content_answered = True
                    self.say(replies.endless(content.size, limits.message_size))
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
