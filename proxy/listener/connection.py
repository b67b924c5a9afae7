"""One connection: octets in and out, time-outs, and an end that loses nothing.

Replies of one batch of pipelined commands leave together; a client that is too slow hears 421; a
client that goes away never cancels what is being done with its mail; one that has only closed its
sending side is answered.
"""

import asyncio
import socket
from collections.abc import Coroutine
from typing import Any, cast

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


class SmtpConnection(asyncio.Protocol):
    """One client's connection. Subclasses know what to say on it."""

    __slots__ = (
        "_closing",
        "_content",
        "_content_answered",
        "_content_began",
        "_counted",
        "_deaf",
        "_due",
        "_ended",
        "_linger",
        "_lingering",
        "_out",
        "_reader",
        "_rests",
        "_work",
        "address",
        "crlf",
        "deadline",
        "door",
        "in_tls",
        "loop",
        "office",
        "port",
        "transaction_until",
        "transport",
    )

    def __init__(self, door: Door, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.door = door
        self.office = door.office
        self.transport: asyncio.Transport | None = None
        self._reader = Reader(LINE_LIMIT)
        self.crlf = False  # ever sent by the client
        self.in_tls = False
        self.deadline = NEVER
        self.transaction_until = NEVER  # when a mail that was begun must have come to its DATA
        self.address = ""  # of the client, "unix" for one that has none
        self.port = 0
        self._out: list[bytes] = []
        self._deaf = False  # the client does not read
        self._due = False  # it goes on at the loop's next turn, and no earlier
        self._rests = False  # as far as the crowd knows
        self._work: asyncio.Task[None] | None = None  # what is waited for before the next line
        # Done when nothing more is waited for of the client: a stop waits for this, and for work.
        self._ended: asyncio.Future[None] = loop.create_future()
        self._closing = False  # nothing is obeyed any more, and `go_on` ends the session
        self._linger = True  # closing waits for the client's side; not once it has said goodbye
        self._lingering = False  # our side is closed, the client's not yet: nothing can be said
        self._content: Content | None = None
        self._content_began = 0.0
        self._content_answered = False
        self._counted = 0  # octets of office.memory that are ours

    # The connection's life

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let the client in, or tell it why not."""
        # uvloop's are not of asyncio's class.
        self.transport = cast(asyncio.Transport, transport)
        self._reader.set_transport(self.transport)
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
            office.tasks.add(self._ended)
            self.touch()
            self.say(self.door.greeting)
            self.go_on()

    def _turn_away(self, answer: bytes) -> None:
        assert self.transport is not None
        self._closing = True
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

    def connection_lost(self, _error: Exception | None) -> None:
        """Let what waits for the client know; what works for it goes on."""
        self.lost()

    def lost(self) -> None:
        """Count the connection no more: it is gone, and there is nothing left to close."""
        self.office.sessions.discard(self)
        self.office.crowd.leave(self)
        self._closing = True
        self._let_go()

    def pause_writing(self) -> None:
        """Obey nothing more: the client does not read the replies."""
        self._deaf = True

    def resume_writing(self) -> None:
        """Let commands and replies go on."""
        self._deaf = False
        self.go_on()

    def eof_received(self) -> bool:
        """Go on answering a client that has only closed its sending side."""
        if self._lingering:
            return False
        self._linger = False
        self._reader.feed_eof()
        self._content_lost()
        self.go_on()
        return not self.in_tls

    def data_received(self, data: bytes) -> None:
        """Take octets: lines for the commands, or a message's content."""
        if self._closing:
            return
        if self._content is None:
            self._reader.feed_data(data)
        else:
            try:
                self._content_received(data)
            except Exception as error:
                self._content_failed(error)
        self.go_on()

    # What is done with it

    def go_on(self) -> None:
        """Obey what has come, until it is used up or something has to be waited for."""
        raise NotImplementedError

    def defect(self, error: Exception) -> bytes:
        """Note an error of our own, and return what the client is told."""
        raise NotImplementedError

    def _fail(self, error: Exception, *, answered: bool = False) -> None:
        """Note an error of our own after which nothing more can be obeyed."""
        self.defect(error)
        if not answered:
            self.say(replies.OUR_FAULT_CLOSING)
        self._closing = True

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Have `work` done, whatever becomes of the client; until then no line is obeyed."""
        self._work = self.loop.create_task(self._do(work))
        self.office.tasks.add(self._work)

    async def _do(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            self.say(self.defect(error))
        except BaseException:
            self._closing = True  # nothing can be said of the work, and no other reply in its place
            raise
        finally:
            assert self._work is not None
            self.office.tasks.discard(self._work)
            self._work = None
            self.go_on()

    @property
    def _waits(self) -> bool:
        """Whether no line can be obeyed now."""
        return (
            self._closing
            or self._work is not None
            or self._content is not None
            or self._deaf
            or self._due
        )

    # Its end

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
        if not self._waits and not self.in_transaction:
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
        if self._rests:
            self._rests = False
            self.office.crowd.works(self)
        self._close()
        self._let_go()

    def _close(self) -> None:
        """Close the connection: our side first where `_linger`, both where not and in TLS."""
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

    def _let_go(self) -> None:
        """Wait for nothing more of the client, and keep nothing of it; work goes on."""
        self._reader.discard()
        self._reader.feed_eof()
        self._content_lost()
        if self._work is None and not self._ended.done():
            self._ended.set_result(None)
            self.office.tasks.discard(self._ended)

    @property
    def in_transaction(self) -> bool:
        """Whether there was a MAIL whose end has not come yet."""
        raise NotImplementedError

    def reset_transaction(self) -> None:
        """Forget what MAIL and RCPT said."""
        raise NotImplementedError

    def _tls_began(self, transport: asyncio.Transport) -> None:
        """Go on over `transport`, the encrypted one."""
        self.transport = transport
        self._reader.set_transport(transport)
        self.in_tls = True

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

    def _write(self) -> None:
        if self._out:
            out, self._out = self._out, []  # first: nothing is said twice, whatever comes of it
            if (
                self.transport is not None
                and not self._lingering
                and not self.transport.is_closing()
            ):
                self.transport.write(out[0] if len(out) == 1 else b"".join(out))

    # Content

    def receive_content(self) -> None:
        """Take what comes until the end of data; then `content_came` is begun.

        Its octets are counted in `office.memory`. Of a client that is lost before, nothing is left.
        """
        self._content_answered = False
        try:
            self._content = Content(self.office.limits.message_size, crlf=self.crlf)
            self._content_began = self.office.clock()
            # A client that did not wait for our 354: all of it may be here.
            early = self._reader.take_all()
            if early:
                self._content_received(early)
        except Exception as error:
            self._content_failed(error)
        if self._reader.ended:
            self._content_lost()

    def content_came(self, content: Content) -> Coroutine[Any, Any, None]:
        """Have a message that has come whole, or was too much, judged and answered."""
        raise NotImplementedError

    def _content_received(self, data: bytes) -> None:
        content = self._content
        assert content is not None
        if content.whole and not self._count_at_least(content.held + len(data)):
            content.discard()
        if content.feed(data):
            self._content = None
            self.crlf = content.crlf
            self._reader.put_back(content.rest)
            content.rest = b""
            self.begin(self.content_came(content))
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

    def _content_failed(self, error: Exception) -> None:
        """End the session for an error of our own: what comes is content, and not to be obeyed."""
        self._content = None
        self._count(0)
        self._fail(error, answered=self._content_answered)

    def _content_lost(self) -> None:
        if self._content is not None:
            self._content = None
            self._count(0)

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
