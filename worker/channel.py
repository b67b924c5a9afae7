"""One login to one host: its connections and the claimed mail waiting for them.

Event driven: whatever changes (mail offered, a transaction ended, a connection opened, a second
passed) ends in `feed`, which starts all transactions that can be started. No task per message.
"""

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

from proxy import log
from proxy.config.model import Settings
from proxy.metrics import relaying
from worker import ledger, relay
from worker.claims import Claim, Claims, Settlement
from worker.gate import Gate
from worker.outcomes import Outcomes
from worker.permits import Permits
from worker.relay import Passage, Step
from worker.route import Reason
from worker.smarthost.connection import Connection
from worker.smarthost.host import Budget, Logins, RouteClosed, Smarthost, Way
from worker.smarthost.pool import Pool
from worker.smarthost.sasl import Login
from worker.smarthost.transaction import Transaction, TransactionReplies
from worker.suspicion import Cause, Suspicion
from worker.verdict import Blame, Judgement, judge

READY_PER_CONNECTION = 4
"""Messages claimed for each connection: two on the wire, two to follow at once."""

_STOP_S = 10.0
_ENDED = "the worker that sent it ended before the reply came"


class Channel:
    """All mail of the streams that share one login to one host."""

    def __init__(
        self,
        settings: Settings,
        streams: Sequence[str],
        way: Way,
        smarthost: Smarthost,
        budget: Budget,
        claims: Claims,
        outcomes: Outcomes,
        *,
        roomy: Callable[[], None],
        where: str,
    ) -> None:
        """Make a channel for `streams` (names in the configuration) by `way`.

        `roomy` is called whenever mail could be claimed that could not before. `where` is this
        host, whose workers share their troubles with the network.
        """
        self.streams = tuple(streams)
        self.gate = Gate(
            streams,
            time.monotonic,
            claims.board,
            name=way.route(),
            host=way.host,
            where=where,
            turned=self._turned,
        )
        self._way = way
        self.octets = 0  # of the messages held
        self._settings = settings
        self._logins = Logins(way)
        self._budget = budget
        self._claims = claims
        self._outcomes = outcomes
        self._roomy = roomy
        self._ready: deque[Passage] = deque()
        self._in_flight: dict[str, Passage] = {}
        self._landed = asyncio.Event()
        self._landed.set()
        self._permits = Permits(claims)
        self._closing = False
        self._pool = Pool(
            smarthost, self._logins, budget, opened=self._opened, failed=self._not_opened
        )
        self._suspicion = Suspicion()
        budget.join(self)
        self._width = 0
        self._measure()

    # -- what the claiming loop and the budget ask ---------------------------------------------

    @property
    def held(self) -> int:
        """Messages claimed and not settled."""
        return len(self._ready) + len(self._in_flight)

    @property
    def wants_connections(self) -> bool:
        """Tell whether a share of the host's connections would be used."""
        return bool(self._ready or self._in_flight)

    @property
    def open_connections(self) -> int:
        """Connections open or being opened."""
        return len(self._pool)

    def room(self) -> int:
        """Return how many more messages can be taken; 0 while the gate is closed."""
        if self._closing:
            return 0
        if self.gate.reason is not None:
            # Only a refusing route needs a message to be probed, and each time another one.
            probe = self.gate.reason is Reason.REFUSING and self.gate.probe_due
            return 1 if probe and not self.held else 0
        capacity = self._width * READY_PER_CONNECTION
        room = capacity - self.held
        # Few large claims cost less than many small ones: wait until a good part is free.
        return room if room * 3 >= capacity or not self._ready else 0

    def _measure(self) -> None:
        """See how many connections may be used now; too dear to ask for each message."""
        self._width = self.gate.width(self._budget.allowed(self))

    def offer(self, claims: Iterable[Claim], now: float) -> None:
        """Take claimed messages; those past their `expires_at` at `now` (s since 1970) die here."""
        self._measure()
        for claim in claims:
            if self._is_to_be_asked_for(claim):
                self._outcomes.ask(claim)
                continue
            self.octets += len(claim.body)
            expires_at = claim.envelope.expires_at
            passage = relay.begin(claim)
            if claim.envelope.refused:
                self._end(passage, relay.leave_dead(passage))
            elif claim.dot:
                self._take_over(passage)
            elif expires_at is not None and now > expires_at:
                self._end(passage, relay.bury(passage, "it expired before it could be sent"))
            else:
                self._ready.append(passage)
        self.feed()

    def _is_to_be_asked_for(self, claim: Claim) -> bool:
        """Tell whether nobody is left of a message but those whose outcome Postmark is asked."""
        if not claim.dot or not relay.asks_for_all(claim):
            return False
        if self._outcomes.policy(claim.stream) != "ask":
            return False
        if not claim.envelope.asked:
            log.unknown(claim.id, stream=claim.stream, recipients=claim.dot, detail=_ENDED)
        return True

    def _take_over(self, passage: Passage) -> None:
        """Go on with a message whose last transaction nobody knows the end of."""
        claim = passage.claim
        log.unknown(claim.id, stream=claim.stream, recipients=claim.dot, detail=_ENDED)
        step = relay.resume(passage, _ENDED, self._outcomes.policy(claim.stream))
        if step is None:
            self._ready.append(passage)
        else:
            self._end(passage, step)

    # -- the dispatcher ------------------------------------------------------------------------

    def feed(self) -> None:
        """Start every transaction that can be started now, and open connections for the rest."""
        reason = self.gate.reason
        if reason is None or (reason is Reason.REFUSING and self.gate.probe_due):
            if not self._closing:
                self._start_ready()
        else:  # another worker closed it, or a claim was under way when this one did
            self._clear_ready(reason)
        if self.room():
            self._roomy()

    def _start_ready(self) -> None:
        held_up = []  # messages that need a fresh connection must not stop those that do not
        while self._ready:
            passage = self._ready[0]
            if not self._claims.holds(passage.claim):
                self._forget(self._ready.popleft())  # we were taken for dead: another has it
                continue
            connection = self._pool.free(fresh=passage.wants_fresh)
            if connection is not None:
                self._ready.popleft()
                self._start(connection, passage)
            elif passage.wants_fresh:
                held_up.append(self._ready.popleft())
            else:
                break
        if held_up:
            self._ready.extendleft(reversed(held_up))
        if self._ready:
            self._pool.grow(len(self._ready), self._width, fresh=bool(held_up))

    def _start(self, connection: Connection, passage: Passage) -> None:
        claim, recipients = passage.claim, passage.next_recipients
        # Sent off with the envelope and awaited only before the dot: the mark costs no time.
        marked = self._claims.mark(claim, recipients)
        may_send_dot = partial(self._permits.ask, claim.id, marked)
        try:
            transaction = Transaction(
                passage.envelope.mail_from, recipients, claim.body, before_dot=may_send_dot
            )
        except ValueError as error:  # the listener lets no such address in
            self._our_defect(passage, error)
            return
        self._in_flight[claim.id] = passage
        self._landed.clear()
        fresh = self._pool.is_fresh(connection)
        replies = connection.submit(transaction)
        replies.add_done_callback(partial(self._finished, connection, passage, recipients, fresh))

    def _finished(
        self,
        connection: Connection,
        passage: Passage,
        recipients: tuple[str, ...],
        fresh: bool,
        future: "asyncio.Future[TransactionReplies]",
    ) -> None:
        """Judge a transaction that ended, and go on."""
        del self._in_flight[passage.claim.id]
        self._pool.ended(connection)
        dot_out = recipients  # until it is known better
        try:
            replies = future.result()
            dot_out = recipients if replies.dot_sent else ()
            judgement = judge(replies, recipients)
            ledger.transaction(passage, connection.endpoint, replies, judgement)
            self._settle(passage, judgement, replies, connection, fresh=fresh)
        except Exception as error:
            self._our_defect(passage, error, dot_out)
        if not self._in_flight:
            self._landed.set()
        if self._refill(connection):
            if self.room():
                self._roomy()
        else:
            self.feed()

    def _refill(self, connection: Connection) -> bool:
        """Start the next message on a connection that has just ended one, without a search."""
        if not self._ready or self.gate.reason is not None or self._closing:
            return False
        passage = self._ready[0]
        usable = connection.free_slots and len(self._pool) <= self._width
        if not usable or passage.wants_fresh or not self._claims.holds(passage.claim):
            return False
        self._start(connection, self._ready.popleft())
        return True

    def _settle(
        self,
        passage: Passage,
        judgement: Judgement,
        replies: TransactionReplies,
        connection: Connection,
        *,
        fresh: bool,
    ) -> None:
        retry = self._settings.retry
        if passage.claim.id in self._permits.stopped and not replies.dot_sent:
            self._end(passage, relay.bury(passage, "stopped by hand before it was sent"))
            return
        if self._closing and judgement.unknown and self._policy(passage) != "ask":
            self._give_back(passage, "the worker stops", dot=tuple(judgement.unknown))
            return
        cause = self._learn(passage, judgement, replies, connection)
        if cause is Cause.ROUTE:
            self._give_back(passage, judgement.reason)
        elif cause is Cause.UNCLEAR:
            # To the end of the line: the next probe must be another message.
            self._end(passage, relay.postpone(passage, judgement.reason, delay=retry.first))
        else:
            if judgement.blame is Blame.CREDENTIALS:
                deferred = {**judgement.deferred, **judgement.again}
                judgement = replace(judgement, deferred=deferred, again={})
            step = relay.advance(
                passage,
                judgement,
                fresh=fresh,
                retry=retry,
                unknown_outcome=self._policy(passage),
                chance=random.random(),
                ask_in=self._outcomes.first_pause() if judgement.unknown else 0.0,
            )
            self._end(passage, step, connection)

    def _policy(self, passage: Passage) -> str:
        return self._outcomes.policy(passage.claim.stream)

    def _learn(
        self,
        passage: Passage,
        judgement: Judgement,
        replies: TransactionReplies,
        connection: Connection,
    ) -> Cause:
        """Let gate and pool learn from a transaction; return what it is put down to."""
        blame = judgement.blame
        if replies.final is not None and replies.final.positive:
            self._pool.avoid = None
            self._suspicion.accepted(time.monotonic())
            self.gate.accepted()
        elif blame is Blame.CREDENTIALS:
            return self._learn_of_policy(passage, judgement, connection)
        elif blame is Blame.CONGESTION:
            self.gate.narrow(self._pool.reached)
        elif judgement.midway:
            self._pool.avoid = connection.endpoint
        refusal = judgement.refusal
        if refusal is not None and judgement.dead:
            closed = self.gate.reason is Reason.REFUSING
            reply = f"{refusal.code} {refusal.enhanced}"
            if self.gate.refused(passage.claim.id, reply) or closed:
                self._close_gate(Reason.REFUSING, judgement.reason or str(refusal))
                return Cause.UNCLEAR
        return Cause.MESSAGE

    def _learn_of_policy(
        self, passage: Passage, judgement: Judgement, connection: Connection
    ) -> Cause:
        cause = self._suspicion.judge(passage.claim.id, time.monotonic())
        if cause is Cause.ROUTE:
            self._pool.retire(connection)
            if self._logins.refused(self._pool.login_of(connection)) is None:
                self._close_gate(Reason.CREDENTIALS, judgement.reason)
        return cause

    def _our_defect(
        self, passage: Passage, error: Exception, dot_out: tuple[str, ...] = ()
    ) -> None:
        """Defer a message that we cannot handle: no attempt counted, no bounce, no loss.

        What became of those in `dot_out` is unknown.
        """
        log.defect("relay", error=error, message_id=passage.claim.id)
        relaying.DEFECTS.labels("relay").inc()
        reply = f"a defect in Franker: {error!r}; the log has more"
        step = relay.postpone(passage, reply, delay=self._settings.retry.cap)
        self._claims.settle(passage.claim, replace(step.settlement, dot=dot_out))
        ledger.step(passage, step, None)
        self._forget(passage)

    def _end(self, passage: Passage, step: Step, connection: Connection | None = None) -> None:
        """Record one step: in the queue, the log and the metrics."""
        self._claims.settle(passage.claim, step.settlement)
        ledger.step(passage, step, connection.endpoint if connection else None)
        if step.passage is None:
            self._forget(passage)
        elif self._closing or self.gate.reason is not None:
            self._give_back(step.passage, "the route is closed")
        else:
            self._ready.appendleft(step.passage)

    def _give_back(self, passage: Passage, why: str, dot: tuple[str, ...] = ()) -> None:
        """Return a message to the head of its queue: nothing was its fault."""
        self._claims.settle(passage.claim, Settlement("back", passage.envelope, dot=dot))
        log.returned(passage.claim.id, stream=passage.claim.stream, detail=why)
        self._forget(passage)

    def _forget(self, passage: Passage) -> None:
        self.octets -= len(passage.claim.body)
        self._permits.stopped.discard(passage.claim.id)

    # -- the gate ------------------------------------------------------------------------------

    def _close_gate(self, reason: Reason, detail: str) -> None:
        self.gate.close(reason, detail)
        self._clear_ready(reason)

    def _clear_ready(self, reason: Reason) -> None:
        while self._ready:
            self._give_back(self._ready.pop(), f"the route is paused: {reason}")

    def start(self) -> None:
        """See at once whether mail can leave, rather than with the first message."""
        if self._logins.first() is None:
            self._close_gate(
                Reason.CREDENTIALS, f"no credential: {self._logins.way.names} is not set"
            )
        elif self.gate.reason is None and self._budget.room():
            self._pool.open_one()

    def _opened(self, login: Login) -> None:
        self._suspicion.logged_in(time.monotonic())
        for stream in self.streams:
            for name in self._way.each_name:
                used = relaying.CREDENTIAL_USED.labels(stream, name)
                used.set(name == login.name)
        self.gate.reached()
        self.feed()

    def _not_opened(self, closed: RouteClosed) -> None:
        if closed.reason is Reason.UNREACHABLE and self._pool.reached:
            # Others are open: the host is there and wants no more of us.
            self.gate.narrow(self._pool.reached + 1)
        elif not self._closing:
            self._close_gate(closed.reason, closed.detail)

    def tick(self) -> None:
        """Do what time alone makes due; called about once a second."""
        self._measure()
        self._pool.tidy(time.monotonic(), self._width)
        self.gate.rename(self._way.route())  # a secret that was changed is tried at once
        self._turned()

    def _turned(self) -> None:
        """Do what the gate, as it now stands, asks for."""
        reason = self.gate.reason
        probing = reason not in (None, Reason.REFUSING) and self.gate.probe_due
        if probing and not self._pool.opening and not self._closing:
            self._pool.open_one()
        self.feed()

    # -- the end -------------------------------------------------------------------------------

    def stop(self, job_id: str) -> None:
        """Make a message a dead letter, unless its final dot is out: a person stopped it."""
        for passage in self._ready:
            if passage.claim.id == job_id:
                self._ready.remove(passage)
                self._end(passage, relay.bury(passage, "stopped by hand before it was sent"))
                return
        if job_id in self._in_flight:
            self._permits.stopped.add(job_id)

    async def close(self) -> None:
        """Finish what is on the wire, within 10 s, and give back what is not."""
        self._closing = True
        while self._ready:
            self._give_back(self._ready.pop(), "the worker stops")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_S):
                await self._landed.wait()
        self._pool.abort("the worker stops")
        await self._landed.wait()
        await self._pool.close()
