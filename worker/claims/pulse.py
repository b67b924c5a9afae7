"""A worker's heartbeat, and what is done with it: watching the others, seeing what is due."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from redis.exceptions import RedisError

from proxy.log import events
from proxy.queue.job import rq_date
from worker.board import Board
from worker.claims.identity import Registration
from worker.claims.link import Link
from worker.claims.liveness import BEAT_S, SAFE_S, Observer, clock
from worker.claims.process import has_ended
from worker.claims.scripts import BEAT, REAP, SWEEP

_SWEEP_EVERY_S = 10.0
_SHOW_EVERY_S = 5.0
_STRANDED_AFTER_S = 60.0  # as long as RQ gives a stock worker between pop and claim


@dataclass(slots=True)
class Facts:
    """What a worker tells about itself at each heartbeat: jobs that are gone, jobs with dead."""

    busy: bool = False
    gone: int = 0
    died: int = 0


class Pulse:
    """The heartbeat of one worker.

    `limit` is the number of connections that all workers may hold to one host name together,
    `in_use` says how many this one holds. `absurd` is how many seconds ahead a deferred job's
    time can at most be; a later one is the work of a clock that was set. What `board` has to say of
    the routes goes with each beat.
    """

    def __init__(
        self,
        link: Link,
        streams: Sequence[str],
        *,
        limit: int,
        absurd: float,
        in_use: Callable[[], int],
        facts: Callable[[], Facts],
        registration: Callable[[], Registration],
        lost: Callable[[Registration], Awaitable[None]],
        wake: Callable[[], None],
        board: Board,
    ) -> None:
        self.share = 0
        self.suspended = False
        self._link = link
        self._streams = tuple(streams)
        self._limit = limit
        self._absurd = absurd
        self._in_use = in_use
        self._facts = facts
        self._registration = registration
        self._lost = lost
        self._wake = wake
        self._board = board
        self._hurried = asyncio.Event()
        board.hurry = self._hurried.set
        self._observer = Observer()
        self._confirmed: float | None = None
        self._next_sweep = self._next_shown = 0.0
        self._shown: tuple[str, bool, bool] | None = None
        self._standing: dict[tuple[bytes, bytes], float] = {}
        self._foreign: set[str] = set()
        self._unserved: set[str] = set()

    def go_by(self, streams: Sequence[str], *, limit: int, absurd: float) -> None:
        """Beat for other streams and limits; the others and the tools see it at once."""
        self._streams, self._limit, self._absurd = tuple(streams), limit, absurd
        self._shown = None
        self._hurried.set()

    def fresh(self) -> bool:
        """Return whether a heartbeat sent within the last SAFE_S seconds was confirmed."""
        return self._confirmed is not None and clock() - self._confirmed < SAFE_S

    def forget(self) -> None:
        """Count no heartbeat of an earlier registration."""
        self._confirmed = None
        self.share = 0

    async def run(self) -> None:
        """Beat, until cancelled."""
        due = clock()
        while True:
            try:
                await self.beat()
                await self._sweep()
            except (RedisError, OSError):
                pass  # said by the link; the next beat tries again
            except Exception as error:  # the heart must not stop for a defect elsewhere
                events.defect("heartbeat", error=error)
            due = max(due + BEAT_S, clock())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(due - clock()):
                    await self._hurried.wait()
                due = clock()
            self._hurried.clear()

    async def beat(self) -> None:
        """Beat once, and end the claims of those that are found dead."""
        me, sent_at = self._registration(), clock()
        # What tools are shown is written now and then: each octet of it stays in Redis's file.
        state = (me.incarnation, self._facts().busy, self.suspended)
        due = sent_at >= self._next_shown or state != self._shown
        shown = _flat(me.rq_fields | _changing(self._facts(), self.suspended)) if due else []
        answer = await self._link.ask(
            BEAT,
            me.incarnation,
            self._limit,
            self._in_use(),
            self._absurd,
            self._board.words(),
            len(self._streams),
            *self._streams,
            *shown,
        )
        if not answer:
            await self._lost(me)
            return
        if me is not self._registration():
            return
        self._confirmed = sent_at
        self._board.heard(answer[4])
        self._board.heard_rows(answer[5])
        self._board.heard_apis(answer[6])
        if due:
            self._shown, self._next_shown = state, sent_at + _SHOW_EVERY_S
        was_suspended, had = self.suspended, self.share
        self.suspended, self.share = bool(answer[0]), answer[1]
        if (was_suspended and not self.suspended) or self.share > had or answer[2]:
            self._wake()
        others = answer[3]
        counters = {others[at].decode(): int(others[at + 1]) for at in range(0, len(others), 3)}
        dead = set(self._observer.observe(clock(), counters))
        dead.update(
            others[at].decode()
            for at in range(0, len(others), 3)
            if has_ended(others[at + 2].decode())
        )
        for incarnation in sorted(dead):
            struck, jobs, name = await self._link.ask(REAP, incarnation, counters[incarnation])
            if struck:
                events.worker_reaped(name.decode(), jobs=jobs)
                self._wake()

    async def _sweep(self) -> None:
        now = clock()
        if now < self._next_sweep:
            return
        self._next_sweep = now + _SWEEP_EVERY_S
        stranded = [
            word
            for job, since in self._standing.items()
            if now - since >= _STRANDED_AFTER_S
            for word in job
        ]
        count, standing, foreign, unserved = await self._link.ask(SWEEP, *stranded)
        seen = zip(standing[::2], standing[1::2], strict=True)
        self._standing = {job: self._standing.get(job, now) for job in seen}
        if count:
            events.worker_reaped("unknown", jobs=count)
            self._wake()
        self._tell_foreign({name.decode() for name in foreign})
        waiting = zip(unserved[::2], unserved[1::2], strict=True)
        self._tell_unserved({stream.decode(): count for stream, count in waiting})

    def _tell_foreign(self, foreign: set[str]) -> None:
        """Say it once when a stock worker serves our queues."""
        for name in sorted(foreign - self._foreign):
            events.notice(
                f"the RQ worker {name} serves a queue of mail: it relays nothing, and puts each"
                " message that it takes off by 30 s; stop it"
            )
        self._foreign = foreign

    def _tell_unserved(self, unserved: dict[str, int]) -> None:
        """Say it once when mail waits for a stream that is no longer configured."""
        for stream in sorted(unserved.keys() - self._unserved):
            events.notice(
                f"{unserved[stream]} messages wait for the stream {stream!r}, which no worker"
                " serves: is it missing in the configuration?"
            )
        self._unserved = set(unserved)


def _flat(fields: dict[str, str]) -> list[str]:
    return [word for field in fields.items() for word in field]


def _changing(facts: Facts, suspended: bool) -> dict[str, str]:
    # No current_job: by the time a tool looks it up it is gone, and rq-dashboard fails on that.
    state = "busy" if facts.busy else "suspended" if suspended else "idle"
    return {
        "last_heartbeat": rq_date(),
        "state": state,
        "successful_job_count": str(facts.gone),
        "failed_job_count": str(facts.died),
    }
