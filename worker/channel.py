"""One login to one host: its connections and the claimed mail waiting for them.

Event driven: whatever changes (mail offered, a transaction ended, a connection opened, a second
passed) ends in `feed`, which starts all transactions that can be started. No task per message.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from proxy import log
from proxy.config.model import Settings
from worker import ledger, relay
from worker.claim import Claim, Leave
from worker.claims import Claims
from worker.congestion import Congestion
from worker.experience import Experience
from worker.expiry import expired
from worker.gate import Gate
from worker.in_hand import InHand
from worker.outcomes import ENDED, Outcomes
from worker.pauses import Reason
from worker.relay import Passage, Step, UnknownOutcome
from worker.replies import TransactionReplies
from worker.smarthost.connection import Connection
from worker.smarthost.host import Budget, Logins, RouteClosed, Smarthost, Way
from worker.smarthost.pool import Pool
from worker.smarthost.sasl import Login
from worker.smarthost.transaction import Transaction
from worker.suspicion import Cause
from worker.verdict import Blame, Judgement, judge

READY_PER_CONNECTION = 4
"""Messages claimed for each connection: two on the wire, two to follow at once."""

_STOP_S = 10.0
_CHANGED = "its stream's settings have changed"


class _Trip(NamedTuple):
    """A transaction under way: a message for some of its recipients on a connection.

    `fresh`: it is the first there. `proof`: see `Gate.proof`, when it began.
    """

    connection: Connection
    passage: Passage
    recipients: tuple[str, ...]
    fresh: bool
    proof: str


def _was_taken(future: "asyncio.Future[TransactionReplies]") -> bool:
    if future.cancelled() or future.exception() is not None:
        return False
    final = future.result().final
    return final is not None and final.positive


class Channel(InHand):
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
        super().__init__(claims)
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
        self.way = way
        self._settings = settings
        self._logins = Logins(way)
        self._budget = budget
        self._outcomes = outcomes
        self._roomy = roomy
        self._closing = ""  # why no more mail is taken
        self._pool = Pool(
            smarthost, self._logins, budget, self._opened, self._not_opened, self.feed
        )
        self._congestion = Congestion()
        self._experience = Experience(
            claims, self.gate, self._congestion, self._pool, self._logins, self._close_gate
        )
        budget.join(self)
        self._width = 0

    # -- what the claiming loop and the budget ask ---------------------------------------------

    @property
    def in_hand(self) -> int:
        """Messages claimed and not settled."""
        return super().in_hand + self._experience.in_question

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
            return 1 if probe and not self.in_hand else 0
        capacity = self._width * READY_PER_CONNECTION
        room = capacity - self.in_hand
        # Few large claims cost less than many small ones: wait until a good part is free.
        return room if room * 3 >= capacity or not self._ready else 0

    def _measure(self) -> None:
        """See how many connections may be used now; too dear to ask for each message."""
        self._width = 0
        if not self._closing:
            self._width = self._congestion.width(self._budget.allowed(self), time.monotonic())

    def offer(self, claims: Iterable[Claim]) -> None:
        """Take claimed messages; those whose time (`expires`) is over die here."""
        self._measure()
        for claim in claims:
            if self._outcomes.takes(claim):
                continue
            self.octets += len(claim.body)
            passage = relay.begin(claim)
            if claim.envelope.refused:
                self._end(passage, relay.leave_dead(passage))
            elif claim.dot:
                self._take_over(passage)
            else:
                self._ready.append(passage)
        self._bury_expired()
        self.feed()

    def _take_over(self, passage: Passage) -> None:
        """Go on with a message whose last transaction nobody knows the end of."""
        claim = passage.claim
        log.unknown(claim.id, stream=claim.stream, recipients=claim.dot, detail=ENDED)
        step = relay.resume(passage, ENDED, self._outcomes.policy(claim.stream))
        if step is None:
            self._ready.append(passage)
        else:
            self._end(passage, step)

    def _bury_expired(self) -> None:
        """Let nothing that has an end wait here beyond it, and above all not be sent."""
        for passage in expired(self._ready):
            self._ready.remove(passage)
            self._end(passage, relay.expire(passage))

    # -- the dispatcher ------------------------------------------------------------------------

    def feed(self) -> None:
        """Start every transaction that can be started now, and open connections for the rest."""
        reason = self.gate.reason
        if reason is None or (reason is Reason.REFUSING and self.gate.probe_due):
            if not self._closing:
                self._start_ready()
        else:  # another worker closed it, or a claim was under way when this one did
            self.recall(f"the route is paused: {reason}")
        if self.room():
            self._roomy()

    def _start_ready(self) -> None:
        self._bury_expired()
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
            self._our_defect(passage, error, self._settings.retry)
            return
        self._in_flight[claim.id, claim.execution] = passage
        self._landed.clear()
        fresh = self._pool.is_fresh(connection)
        trip = _Trip(connection, passage, recipients, fresh, self.gate.proof)
        connection.submit(transaction).add_done_callback(partial(self._finished, trip))

    def _finished(self, trip: _Trip, future: "asyncio.Future[TransactionReplies]") -> None:
        """Go on after a transaction that ended: judge it, and start what can be started now.

        After a 250 the next message goes first. Each one costs a round trip: what is to be done
        about the last can be done while the next is on its way.
        """
        self._pool.ended(trip.connection)
        conclude = partial(self._conclude, trip, future)
        if self._ready and _was_taken(future):
            # Before the refill, so that this settle and that mark go to Redis together.
            asyncio.get_running_loop().call_soon(conclude)
            self._refill(trip.connection)
        else:
            conclude()

    def _conclude(self, trip: _Trip, future: "asyncio.Future[TransactionReplies]") -> None:
        """Judge a transaction that ended, and start what can be started because of it."""
        connection, passage, recipients = trip.connection, trip.passage, trip.recipients
        del self._in_flight[passage.claim.id, passage.claim.execution]
        dot_out = recipients  # until it is known better
        try:
            replies = future.result()
            dot_out = recipients if replies.dot_sent else ()
            judgement = judge(replies, recipients)
            ledger.transaction(passage, connection.endpoint, replies, judgement)
            self._settle(trip, judgement, replies)
        except Exception as error:
            self._our_defect(passage, error, self._settings.retry, dot_out)
        if not self._in_flight:
            self._landed.set()
        if connection.busy or self._refill(connection):
            if self.room():
                self._roomy()
        else:
            self.feed()

    def _refill(self, connection: Connection) -> bool:
        """Start the next message on a connection that has just ended one, without a search."""
        if not self._ready or self.gate.reason is not None or self._closing:
            return False
        passage = self._ready[0]
        usable = self._pool.takes(connection) and len(self._pool) <= self._width
        if not usable or passage.wants_fresh or not self._claims.holds(passage.claim):
            return False
        if passage.envelope.expires_at is not None:
            return False  # `feed` looks whether it may still be sent
        self._start(connection, self._ready.popleft())
        return True

    def _settle(self, trip: _Trip, judgement: Judgement, replies: TransactionReplies) -> None:
        passage = trip.passage
        if passage.claim.id in self._permits.stopped and not replies.dot_sent:
            self._end(passage, relay.bury(passage, "stopped by hand before it was sent"))
            return
        if self._closing and judgement.unknown and self._policy(passage) != "ask":
            self._give_back(passage, self._closing, dot=tuple(judgement.unknown))
            return
        cause = self._experience.learn(passage, judgement, replies, trip.connection, trip.proof)
        if cause is Cause.ROUTE:
            self._give_back(passage, judgement.reason)
        elif cause is Cause.UNCLEAR:
            # To the end of the line: the next probe must be another message.
            self._put_off(passage, judgement)
        elif judgement.refusal is not None and judgement.dead:
            may_die = partial(self._may_die, trip, judgement)
            self._experience.refused(passage, judgement.refusal, may_die)
        else:
            if judgement.blame is Blame.CREDENTIALS:
                deferred = {**judgement.deferred, **judgement.again}
                judgement = replace(judgement, deferred=deferred, again={})
            self._advance(trip, judgement)

    def _may_die(self, trip: _Trip, judgement: Judgement, leave: Leave) -> None:
        """Go on with a message that was refused as a whole, now that all workers were heard."""
        try:
            match leave:
                case Leave.DIES:
                    self._advance(trip, judgement)
                case Leave.WAITS:
                    self._close_gate(Reason.REFUSING, judgement.reason)
                    self._put_off(trip.passage, judgement)
                case Leave.LOST:
                    self._forget(trip.passage)
        except Exception as error:
            self._our_defect(trip.passage, error, self._settings.retry)
        self.feed()

    def _put_off(self, passage: Passage, judgement: Judgement) -> None:
        delay = self._settings.retry.first
        self._end(passage, relay.postpone(passage, judgement.reason, delay=delay))

    def _advance(self, trip: _Trip, judgement: Judgement) -> None:
        passage = trip.passage
        step = relay.advance(
            passage,
            judgement,
            fresh=trip.fresh,
            retry=self._settings.retry,
            unknown_outcome=self._policy(passage),
            chance=random.random(),
            ask_in=self._outcomes.first_pause() if judgement.unknown else 0.0,
        )
        self._end(passage, step, trip.connection)

    def _policy(self, passage: Passage) -> UnknownOutcome:
        return self._outcomes.policy(passage.claim.stream)

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

    # -- the gate ------------------------------------------------------------------------------

    def _close_gate(self, reason: Reason, detail: str) -> None:
        self.gate.close(reason, detail)
        self.recall(f"the route is paused: {reason}")

    def start(self) -> None:
        """See at once whether mail can leave, rather than with the first message."""
        self._measure()
        if self._logins.first() is None:
            self._close_gate(
                Reason.CREDENTIALS, f"no credential: {self._logins.way.names} is not set"
            )
        elif self.gate.reason is None and self._budget.room():
            self._pool.open_one()

    def _opened(self, login: Login) -> None:
        self._experience.logged_in(login, self.streams)
        self.gate.rename(self.way.route())  # it may have changed since the last tick
        self.gate.reached()
        self.feed()

    def _not_opened(self, closed: RouteClosed) -> None:
        if closed.reason is Reason.UNREACHABLE and self._pool.reached:
            # Others are open: the host is there and wants no more of us.
            self._congestion.narrow(self._pool.reached + 1, time.monotonic())
        elif not self._closing:
            self.gate.rename(self.way.route())
            if closed.reason is Reason.CREDENTIALS and closed.route != self.gate.name:
                self._turned()  # what was refused is not what is there now
            else:
                self._close_gate(closed.reason, closed.detail)

    def tick(self) -> None:
        """Do what time alone makes due; called about once a second."""
        self._measure()
        self._pool.tidy(time.monotonic(), self._width)
        self.gate.rename(self.way.route())  # a secret that was changed is tried at once
        self._turned()

    def _turned(self) -> None:
        """Do what the gate, as it now stands, asks for."""
        reason = self.gate.reason
        probing = reason not in (None, Reason.REFUSING) and self.gate.probe_due
        if probing and not self._pool.opening and not self._closing:
            self._pool.open_one()
        self.feed()

    # -- other settings ------------------------------------------------------------------------

    def go_by(self, settings: Settings, streams: Sequence[str], roomy: Callable[[], None]) -> None:
        """Use other settings for the same way; what waits here for a stream that went goes back.

        Connections by a secret that is no longer the one take no more mail.
        """
        self._settings, self._roomy = settings, roomy
        ledger.forget_credentials(set(self.streams) - set(streams), self.way.each_name)
        self.streams = tuple(streams)
        self.gate.serve(streams)
        self.recall(_CHANGED, lambda passage: passage.claim.stream not in streams)
        self._pool.renew(self.way.logins())
        self._measure()
        self.feed()

    def leave(self) -> Coroutine[Any, Any, None]:
        """Take no more mail from now on; the rest is gone when all on the wire has its reply."""
        self._closing = _CHANGED
        ledger.forget_credentials(self.streams, self.way.each_name)
        self.gate.leave()
        return self._leave()

    async def _leave(self) -> None:
        await self.close(patience=None, why=_CHANGED)
        self._budget.leave(self)

    # -- the end -------------------------------------------------------------------------------

    def stop(self, job_id: str) -> None:
        """Make a message a dead letter, unless its final dot is out: a person stopped it."""
        for passage in self._ready:
            if passage.claim.id == job_id:
                self._ready.remove(passage)
                self._end(passage, relay.bury(passage, "stopped by hand before it was sent"))
                return
        if any(job_id == each for each, _ in self._in_flight):
            self._permits.stopped.add(job_id)

    async def close(self, patience: float | None = _STOP_S, why: str = "the worker stops") -> None:
        """Finish what is on the wire, within `patience` seconds, and give back what is not."""
        self._closing = why
        self._width = 0
        self.recall(why)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._landed.wait()
        self._pool.abort(why)
        await self._landed.wait()
        await self._pool.close()
