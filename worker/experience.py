"""What one channel learns from how its transactions end: whom to blame, and who must not die."""

import asyncio
import time
from collections.abc import Callable, Iterable
from functools import partial

from proxy.metrics import relaying
from worker.claim import Leave
from worker.claims import Claims
from worker.congestion import Congestion
from worker.gate import Gate
from worker.pauses import Reason
from worker.relay import Passage
from worker.replies import Reply, TransactionReplies
from worker.smarthost.connection import Connection
from worker.smarthost.host import Logins
from worker.smarthost.pool import Pool
from worker.smarthost.sasl import Login
from worker.suspicion import Cause, Suspicion
from worker.verdict import Blame, Judgement


class Experience:
    """Tells pool, gate and queue what a transaction shows, and what it is put down to."""

    def __init__(
        self,
        claims: Claims,
        gate: Gate,
        congestion: Congestion,
        pool: Pool,
        logins: Logins,
        close_gate: Callable[[Reason, str], None],
    ) -> None:
        self._claims = claims
        self._gate = gate
        self._congestion = congestion
        self._pool = pool
        self._logins = logins
        self._close_gate = close_gate
        self._suspicion = Suspicion()
        self._refused: set[str] = set()

    @property
    def in_question(self) -> int:
        """Messages refused as a whole of which it is not known yet whether they die of it."""
        return len(self._refused)

    def logged_in(self, login: Login, streams: Iterable[str]) -> None:
        """Note that a fresh connection was let in with `login`, by which `streams` go."""
        self._suspicion.logged_in(time.monotonic())
        for stream in streams:
            for name in self._logins.way.each_name:
                used = relaying.CREDENTIAL_USED.labels(stream, name)
                used.set(name == login.name)

    def learn(
        self,
        passage: Passage,
        judgement: Judgement,
        replies: TransactionReplies,
        connection: Connection,
        proof: str,
    ) -> Cause | None:
        """Learn from a transaction; return what a refusal for policy is put down to, if it was one.

        `proof` was the gate's when the transaction was begun.
        """
        blame = judgement.blame
        if replies.final is not None and replies.final.positive:
            self._pool.avoid = None
            self._suspicion.accepted(time.monotonic())
            row = self._gate.accepted(proof)
            if row:
                self._claims.passed(passage.claim, self._gate.name, row)
        elif blame is Blame.CREDENTIALS:
            return self._learn_of_policy(passage, judgement, connection)
        elif blame is Blame.CONGESTION:
            self._congestion.narrow(self._pool.reached, time.monotonic())
        elif judgement.midway:
            self._pool.avoid = connection.endpoint
        return None

    def _learn_of_policy(
        self, passage: Passage, judgement: Judgement, connection: Connection
    ) -> Cause:
        cause = self._suspicion.judge(passage.claim.id, time.monotonic())
        if cause is Cause.ROUTE:
            self._pool.retire(connection)
            if self._logins.refused(self._pool.login_of(connection)) is None:
                self._close_gate(Reason.CREDENTIALS, judgement.reason)
        return cause

    def refused(self, passage: Passage, refusal: Reply, then: Callable[[Leave], None]) -> None:
        """Ask whether a message that was refused as a whole dies of it; `then` hears the answer.

        The refusals of all workers are counted in one place, so nobody dies before that was asked.
        """
        self._refused.add(passage.claim.id)
        reply = f"{refusal.code} {refusal.enhanced}"
        leave = self._claims.refused(passage.claim, self._gate.name, reply)
        leave.add_done_callback(partial(self._answered, passage.claim.id, then))

    def _answered(
        self, job_id: str, then: Callable[[Leave], None], leave: "asyncio.Future[Leave]"
    ) -> None:
        self._refused.discard(job_id)
        then(leave.result())
