"""The gate before a route: open, or closed for a reason that is not the mail's.

Keeps the state of `worker.pauses` for one channel, shares it with the other workers by the board,
and tells log and metrics of every change.
"""

import contextlib
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from proxy import log
from proxy.metrics import relaying
from worker import pauses
from worker.board import ANY_ROW, Board
from worker.pauses import SCOPES, Pause, Reason, Scope

_TRIAL_S = 30.0
"""For so long a pause from before a secret changed stands without a word from the others."""


class Gate:
    """Whether mail of `streams` may be sent by this worker now."""

    def __init__(
        self,
        streams: Sequence[str],
        clock: Callable[[], float],
        board: Board | None = None,
        *,
        name: str = "",
        host: str = "",
        where: str = "",
        turned: Callable[[], None] = lambda: None,
    ) -> None:
        """`clock` returns seconds, monotonic.

        `name` is the route's, the same for all who go by the same credentials; `host` Postmark's,
        `where` the worker's own. `turned` is called when another worker's word changed something,
        and when it is this one's turn to probe.
        """
        self.tried = False
        """Whether it was ever seen if the route can be used."""
        self.proof = ""
        """The row of refusals that a 250 to mail begun now proves to be over; "": nothing."""
        self._streams = tuple(streams)
        self._clock = clock
        self._board = board or Board()
        self._name = name
        self._host = host
        self._where = where
        self._turned = turned
        self._pauses: dict[Scope, Pause] = {}
        self._trial: dict[Scope, float] = {}  # what is not known of the route by its new name
        self._first: Pause | None = None
        self._row = ""
        self._show(self._streams)
        self._board.join(self)

    @property
    def names(self) -> Mapping[Scope, str]:
        """What the route is called for all workers, and for those of this host."""
        return {Scope.ACCOUNT: self._name, Scope.HOST: f"{self._name}@{self._where}"}

    @property
    def pauses(self) -> tuple[Pause, ...]:
        """Everything for which the gate is closed: first what keeps it from the host."""
        return tuple(self._pauses[scope] for scope in reversed(Scope) if scope in self._pauses)

    @property
    def reason(self) -> Reason | None:
        """Why the gate is closed; None while it is open."""
        return self._first.reason if self._first is not None else None

    @property
    def probe_due(self) -> bool:
        """Tell whether a closed gate should be tried now, and by this worker."""
        return self._first is not None and self._first.due(self._clock())

    def close(self, reason: Reason, detail: str) -> None:
        """Close the gate, or keep it closed longer after a probe that failed.

        What was under way when it closed, and fails of the same, is no probe and changes nothing.
        """
        scope, now = SCOPES[reason], self._clock()
        if scope is Scope.ACCOUNT:  # the host had its say: it is there, and no more to be probed
            self._drop(Scope.HOST)
        before = self._pauses.get(scope)
        if before is not None and before.reason is reason and not before.due(now):
            return
        self.tried = True
        self._trial.pop(scope, None)
        after = pauses.pause(before, reason, detail, now=now, chance=random.random())
        self._keep(scope, after)
        self._say(scope)
        for stream in self._streams:
            log.route_paused(stream, reason=reason, detail=detail, retry_in=after.probe_at - now)

    def probe_now(self) -> None:
        """Make the next probe due."""
        for scope, pause in list(self._pauses.items()):
            self._keep(scope, pauses.probe_now(pause, now=self._clock()))
            self._board.probe(self.names[scope])

    def rename(self, name: str) -> None:
        """Go on as another route: a secret has changed. What is paused is tried at once.

        The others are told only what that try shows: they may go by the new secret all along.
        """
        if name == self._name:
            return
        self._name = name
        self.hear_row("")
        now = self._clock()
        for scope, pause in list(self._pauses.items()):
            self._keep(scope, pauses.probe_now(pause, now=now, failures=0))
            self._trial[scope] = now + _TRIAL_S

    def reached(self) -> None:
        """Note that a login was accepted: only an account that refuses may still be in the way."""
        self.tried = True
        self._drop(Scope.HOST)
        account = self._pauses.get(Scope.ACCOUNT)
        if account is not None and account.reason is not Reason.REFUSING:
            self._drop(Scope.ACCOUNT)

    def open(self) -> None:
        """Open the gate: mail was taken."""
        for scope in Scope:
            self._drop(scope)

    def _say(self, scope: Scope) -> None:
        facts = {
            "streams": self._streams,
            "host": self._host,
            "where": self._where if scope is Scope.HOST else "",
        }
        self._board.closed(self.names[scope], self._pauses[scope], self._clock(), facts)

    def _drop(self, scope: Scope) -> None:
        if scope in self._pauses:
            self._forget(scope)
            self._board.opened(self.names[scope])

    # -- what all workers know -----------------------------------------------------------------

    def hear(self, scope: Scope, told: Mapping[str, Any] | None) -> None:
        """Take over how the route stands for all; None: it is not paused."""
        before, now = self._pauses.get(scope), self._clock()
        if told is None and now < self._trial.get(scope, now):
            return
        self._trial.pop(scope, None)
        if told is None:
            if before is not None:
                self._forget(scope)
                self._turned()
            return
        self.tried = True
        reason = Reason(told["reason"])
        if not told["mine"]:
            probe_at = math.inf  # another one tries it, or nobody yet
        elif before is not None and before.due(now):
            probe_at = before.probe_at
        else:
            probe_at = now
        detail, failures = str(told["detail"]), int(told["failures"])
        self._keep(scope, Pause(reason, detail, now - told["age"], probe_at, failures))
        if before is None or before.reason is not reason:
            retry_in = max(0.0, float(told["wait"]))
            for stream in self._streams:
                heard = f"{self._source(told)}: {detail}"
                log.route_paused(stream, reason=reason, detail=heard, retry_in=retry_in)
        if before is None or self._pauses[scope].due(now) != before.due(now):
            self._turned()

    def _source(self, told: Mapping[str, Any]) -> str:
        """Return who found it out, for people: a record is of whoever found it first."""
        streams = [str(stream) for stream in told.get("streams") or ()]
        if not streams or set(streams) & set(self._streams):
            return "another worker"
        return f"found by mail of {', '.join(streams)}, which has the same login"

    # -- one place for the metric ----------------------------------------------------------------

    def _keep(self, scope: Scope, pause: Pause) -> None:
        before = self._pauses.get(scope)
        self._pauses[scope] = pause
        self._first = self.pauses[0]
        self._see_proof()
        for stream in self._streams:
            if before is not None and before.reason is not pause.reason:
                relaying.ROUTE_PAUSED.labels(stream, before.reason).set(0)
            relaying.ROUTE_PAUSED.labels(stream, pause.reason).set(1)

    def _forget(self, scope: Scope) -> None:
        before = self._pauses.pop(scope)
        self._trial.pop(scope, None)
        self._first = self.pauses[0] if self._pauses else None
        self._see_proof()
        for stream in self._streams:
            relaying.ROUTE_PAUSED.labels(stream, before.reason).set(0)
            log.route_released(stream, reason=before.reason, seconds=self._clock() - before.since)

    def _show(self, streams: Iterable[str]) -> None:
        """Show of `streams` for which reasons their mail cannot leave."""
        reasons = {pause.reason for pause in self._pauses.values()}
        for stream in streams:
            for reason in Reason:
                relaying.ROUTE_PAUSED.labels(stream, reason).set(reason in reasons)

    # -- other settings ------------------------------------------------------------------------

    def serve(self, streams: Sequence[str]) -> None:
        """Be the gate of other `streams` that go by the same credentials."""
        if set(streams) == set(self._streams):
            return
        self._forget_streams(set(self._streams) - set(streams))
        self._streams = tuple(streams)
        self._show(streams)
        for scope in self._pauses:
            if scope not in self._trial:
                self._say(scope)

    def leave(self) -> None:
        """Say nothing any more, neither to the other workers nor to people."""
        self._forget_streams(self._streams)
        self._streams = ()
        self._board.leave(self)
        self._board = Board()

    def _forget_streams(self, streams: Iterable[str]) -> None:
        for stream in streams:
            for reason in Reason:
                with contextlib.suppress(KeyError):
                    relaying.ROUTE_PAUSED.remove(stream, reason)

    # -- refusals of whole messages ------------------------------------------------------------

    @property
    def name(self) -> str:
        """What the route is called for all workers."""
        return self._name

    def hear_row(self, row: str) -> None:
        """Hear the name of the row of refusals in which the account is; "": in none."""
        self._row = row
        self._see_proof()

    def _see_proof(self) -> None:
        account = self._pauses.get(Scope.ACCOUNT)
        refusing = account is not None and account.reason is Reason.REFUSING
        self.proof = self._row or (ANY_ROW if refusing else "")

    def accepted(self, proof: str) -> str:
        """Note a 250 to a message; `proof` was the gate's when that was begun.

        Returns the row of refusals that is over with it, "" where it proves nothing: mail that was
        under way when the refusals began may be taken, and the account be suspended all the same.
        """
        account = self._pauses.get(Scope.ACCOUNT)
        refusing = account is not None and account.reason is Reason.REFUSING
        if proof and proof in (ANY_ROW, self._row):
            self.hear_row("")
            if refusing:
                self.open()
            return proof
        if account is not None and refusing and not account.due(self._clock()):
            # Only a hint, but worth a look at once: five bad messages may have come together.
            self._keep(Scope.ACCOUNT, pauses.probe_now(account, now=self._clock(), failures=0))
            self._board.probe(self.names[Scope.ACCOUNT])
        return ""
