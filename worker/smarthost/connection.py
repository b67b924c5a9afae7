"""One connection to the far end, ready for mail: transactions in, their replies out.

The next transaction's envelope travels with the content of the one before (RFC 2920 §3.1), so that
a message costs one round trip. Replies come in the order of the commands; the first transaction
that is not done is the one they belong to.
"""

import asyncio
import math
from collections import deque

from worker.replies import Reply, ReplyReader, TransactionReplies
from worker.smarthost.endpoints import Endpoint
from worker.smarthost.transaction import (
    Exchange,
    Offers,
    ProtocolFault,
    Stage,
    Transaction,
    dot_stuffed,
)

SLOTS = 2
"""Transactions outstanding on one connection where PIPELINING is offered: one sent, one riding."""

CHUNK = 122_880
"""Octets of content written at once; longer ones are streamed as the far end takes them.

From 128 KiB on each copy of a piece would be memory fresh from the kernel, which is dear.
"""

QUIT_S = 5.0
"""How long a farewell may take, in seconds."""


class Connection(asyncio.Protocol):
    """A session that may send mail. It is used until it breaks, and never mended.

    `certificate_expiry` is in seconds since 1970. `lost` is done when the connection is gone, its
    result says why; it never raises. All methods belong to the loop's thread.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        transport: asyncio.Transport,
        offers: Offers,
        *,
        command_timeout: float,
        final_timeout: float,
        certificate_expiry: float | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.offers = offers
        self.certificate_expiry = certificate_expiry
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[str] = self._loop.create_future()
        self._transport = transport
        self._command_timeout = command_timeout
        self._final_timeout = final_timeout
        self._reader = ReplyReader()
        self._line: deque[tuple[Exchange, asyncio.Future[TransactionReplies]]] = deque()
        self._slots = SLOTS if offers.pipelining else 1
        self._reset_due = False
        self._broken = ""
        self._ours = False
        self._quitting = False
        self._pump_due = False
        self._asking: asyncio.Future[bool] | None = None  # made by us of a coroutine
        self._streaming: asyncio.Task[None] | None = None
        self._room = asyncio.Event()
        self._room.set()
        self._deadline = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._idle_since = self._loop.time()

    def take_over(self) -> None:
        """Become the transport's protocol, in place of the one that shook hands."""
        self._transport.set_protocol(self)
        self._transport.set_write_buffer_limits(high=2 * CHUNK)

    # -- what the owner asks ------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Tell whether a transaction could be sent now."""
        return not (self._broken or self._quitting or self._transport.is_closing())

    @property
    def outstanding(self) -> int:
        """Transactions submitted and not answered."""
        return len(self._line)

    @property
    def free_slots(self) -> int:
        """How many transactions `submit` takes now."""
        return self._slots - len(self._line) if self.alive else 0

    @property
    def busy(self) -> bool:
        """Tell whether no transaction can be submitted before another one has ended."""
        return len(self._line) >= self._slots

    @property
    def idle_since(self) -> float:
        """Since when (loop time, seconds) nothing is outstanding; now while something is."""
        return self._loop.time() if self._line else self._idle_since

    def submit(self, transaction: Transaction) -> "asyncio.Future[TransactionReplies]":
        """Send `transaction` as soon as the line allows; return the future of its replies.

        The future never raises: a connection that breaks is told in the replies. It must not be
        cancelled, since what was sent cannot be.

        Raises:
            RuntimeError: no slot is free.
        """
        future: asyncio.Future[TransactionReplies] = self._loop.create_future()
        exchange = Exchange(transaction, self.offers)
        if not self.alive:
            why = self._broken or "the connection is closing"
            future.set_result(exchange.replies(why, ours=self._ours or self._quitting))
            return future
        if len(self._line) >= self._slots:
            raise RuntimeError("no free slot on this connection")
        self._line.append((exchange, future))
        self._pump_soon()
        return future

    async def close(self) -> None:
        """Say QUIT when nothing is outstanding, and close; return when the connection is gone.

        Outstanding transactions end broken, by us; one whose dot is out has an unknown outcome.
        """
        if self.alive and not self._line:
            self._quitting = True
            self._transport.write(b"QUIT\r\n")
            await asyncio.wait((self.lost,), timeout=QUIT_S)
        self.abort("closed by us")
        await asyncio.wait((self.lost,), timeout=QUIT_S)

    def abort(self, why: str) -> None:
        """Close at once; outstanding transactions end broken, by us, because of `why`."""
        self._break(why, ours=True)

    # -- writing --------------------------------------------------------------------------------

    def _pump_soon(self) -> None:
        # One turn later: what else is submitted in this turn goes out in the same write.
        if not self._pump_due:
            self._pump_due = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Write all that may be written now, in one piece."""
        self._pump_due = False
        if self._broken:
            return
        if self._transport.is_closing():
            self._break("the connection is closing")
            return
        pieces: list[bytes] = []
        for place, (exchange, _) in enumerate(self._line):
            written = len(pieces)
            if exchange.stage is Stage.START:
                pieces.append(exchange.open(reset=self._reset_due))
                self._reset_due = False
            elif exchange.stage is Stage.CONTENT and exchange.permitted:
                if not exchange.streamed:
                    pieces.append(dot_stuffed(exchange.transaction.content))
                pieces.append(b".\r\n")
                exchange.dot_out()
            elif exchange.stage is Stage.NO_CONTENT:
                pieces.append(b".\r\n")
                exchange.dot_out()
            if place == 0 and len(pieces) > written:
                self._await_reply(exchange)
            if exchange.ends_group:
                break
        if pieces:
            self._transport.write(b"".join(pieces))

    def _begin_content(self, exchange: Exchange) -> None:
        """354 has come: ask for leave to send the content with its dot, if long when it is out."""
        exchange.begun = True
        if len(exchange.transaction.content) > CHUNK:
            self._streaming = self._loop.create_task(self._stream(exchange))
        else:
            self._ask_leave(exchange)

    def _ask_leave(self, exchange: Exchange) -> None:
        try:
            answer = exchange.transaction.before_dot()
            permission = asyncio.ensure_future(answer)
        except Exception as error:
            self._withhold(repr(error))
            return
        if permission is not answer:
            self._asking = permission
        if permission.done():
            self._permitted(exchange, permission)
        else:
            permission.add_done_callback(lambda _: self._permitted(exchange, permission))

    def _permitted(self, exchange: Exchange, permission: "asyncio.Future[bool]") -> None:
        self._asking = None
        if permission.cancelled():
            self._withhold("cancelled")
        elif (error := permission.exception()) is not None:
            self._withhold(repr(error))
        elif not permission.result():
            self._withhold("no")
        elif not self._broken:
            exchange.permitted = True
            self._pump_soon()

    def _withhold(self, answer: str) -> None:
        self._break(f"the final dot was held back by us: {answer}", ours=True)

    async def _stream(self, exchange: Exchange) -> None:
        """Write a long content as fast as it is taken, then ask for leave to send the dot.

        Not before: others may take this worker for dead while the far end takes its time.
        """
        content = exchange.transaction.content
        start = 0
        try:
            while start < len(content):
                end = content.find(b"\n", start + CHUNK) + 1 or len(content)
                self._transport.write(dot_stuffed(content[start:end]))
                start = end
                if not self._room.is_set():
                    async with asyncio.timeout(self._command_timeout):
                        await self._room.wait()
            exchange.streamed = True
            self._ask_leave(exchange)
        except TimeoutError:
            self._break(f"the message was not taken within {self._command_timeout:g} s")
        finally:
            self._streaming = None

    # -- reading --------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Give each reply to the transaction that waits for it."""
        replies = self._reader.feed(data)
        for place, reply in enumerate(replies):
            if not self._take(reply, unasked=place > 0 and not self.offers.pipelining):
                return
        if self._reader.fault:
            self._break(self._reader.fault)
        elif replies:
            self._go_on()

    def _take(self, reply: Reply, *, unasked: bool) -> bool:
        """Take one reply; return whether the connection goes on."""
        if self._quitting:
            self._break("closed by us", ours=True)
        elif unasked or not self._line:
            self._break(f"the far end said unasked: {reply}")
        if self._broken:
            return False
        exchange, future = self._line[0]
        early = exchange.stage is Stage.CONTENT
        try:
            exchange.take(reply)
        except ProtocolFault as fault:
            self._break(str(fault))
            return False
        if exchange.stage is Stage.DONE:
            self._line.popleft()
            self._reset_due = exchange.needs_reset
            self._idle_since = self._loop.time()
            if not future.done():
                future.set_result(exchange.replies())
            if early:
                self._break(f"refused before the message was sent: {reply}")
        if reply.code == 421:
            self._break(f"the far end closes: {reply}")
        return not self._broken

    def _go_on(self) -> None:
        """See what the first transaction in line needs, now that replies have come."""
        self._deadline = math.inf
        if not self._line:
            return
        exchange = self._line[0][0]
        if exchange.stage is Stage.CONTENT:
            if not exchange.begun:
                self._begin_content(exchange)
        elif exchange.stage in (Stage.START, Stage.NO_CONTENT):
            self._pump_soon()
        else:
            command = exchange.next_command()
            if command:
                self._transport.write(command)
            self._await_reply(exchange)

    def eof_received(self) -> bool:
        """Take the far end's end as the end."""
        self._break("the far end closed the connection")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Settle what is left and tell the owner."""
        self._break(f"the connection was lost: {exc}" if exc else "the connection was lost")
        if not self.lost.done():
            self.lost.set_result(self._broken)

    def pause_writing(self) -> None:
        """Hold a streamed content: the far end takes no more for now."""
        self._room.clear()

    def resume_writing(self) -> None:
        """Let a streamed content go on."""
        self._room.set()

    # -- time and end ------------------------------------------------------------------------

    def _await_reply(self, exchange: Exchange) -> None:
        final = exchange.stage in (Stage.FINAL, Stage.NO_FINAL)
        limit = self._final_timeout if final else self._command_timeout
        self._deadline = self._loop.time() + limit
        # One timer serves many replies: it is moved only when it would ring too late.
        if self._timer is not None and self._timer.when() > self._deadline:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(self._deadline, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._deadline == math.inf:
            return
        if self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._ring)
            return
        exchange = self._line[0][0]
        limit = self._final_timeout if exchange.dot_sent else self._command_timeout
        self._break(f"no reply to {exchange.stage.words} within {limit:g} s")

    def _break(self, why: str, *, ours: bool = False) -> None:
        """End the connection now; every outstanding transaction learns why."""
        if self._broken:
            return
        self._broken, self._ours = why, ours
        self._deadline = math.inf
        if self._timer is not None:
            self._timer.cancel()
        for task in (self._streaming, self._asking):
            if task is not None and task is not asyncio.current_task():
                task.cancel()
        first = True
        while self._line:
            exchange, future = self._line.popleft()
            owed = first and not ours and exchange.stage is not Stage.START
            if not future.done():
                future.set_result(exchange.replies(why, ours=ours, owed=owed))
            first = False
        self._transport.abort()
