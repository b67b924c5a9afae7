"""The life of an RQ worker on asyncio: claims, marks and settles in batches, heartbeats.

What a stock RQ worker does in some twenty round trips a job happens here in three scripts a
batch. Every call is fenced by a number or an execution, so that a repeat after a lost reply, or a
call that lay in a socket meanwhile, changes nothing twice.
"""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from proxy.config import Settings
from proxy.log import events
from proxy.queue import keys
from proxy.queue.connection import open_redis
from proxy.queue.expiry import read_clocks, renewed
from proxy.queue.job import JobDecodeError, JobEnvelope, decode_envelope, rq_date
from worker.board import Board
from worker.claim import Claim, Leave, Settlement
from worker.claims.bodies import read_bodies
from worker.claims.commands import Commands
from worker.claims.flushing import Flusher
from worker.claims.identity import Registration, new_registration
from worker.claims.keeping import Keeping
from worker.claims.link import Line, Link, Weather
from worker.claims.process import identity
from worker.claims.pulse import Facts, Pulse
from worker.claims.scripts import CLAIM, ENDING, REAP, REGISTER, TAKE

_CLAIM_OCTETS = 4_000_000
_ANSWER_S = 5.0
_BEAT_ANSWER_S = 2.0
_GOODBYE_S = 3.0  # after the 10 s for what is on the wire: 15 s in all are never used up


class Claims:
    """The queues of `streams` as one worker sees them.

    `number` is the worker's among those of this host. `on_shutdown` is called when a tool asks
    the worker to end, `on_stop_job` with the id of a claimed job that a tool asks to stop; both
    in the event loop. `connections_in_use` should say how many connections to one host name
    are open, so that another worker's share waits for them to close.
    """

    def __init__(
        self, settings: Settings, data_dir: Path, streams: Sequence[str], *, number: int
    ) -> None:
        self.on_shutdown: Callable[[], None] = lambda: None
        self.on_stop_job: Callable[[str], None] = lambda _job_id: None
        self.connections_in_use: Callable[[], int] = lambda: 0
        self.on_recall: Callable[[], Iterable[asyncio.Future[bool]]] = lambda: ()
        """Called when the holds change: gives back what is not begun, says when that is done."""
        self.board = Board()
        """How the routes stand for all workers of this Redis."""
        self._data_dir = data_dir
        self._number = number
        self._set_out(settings, streams)
        self._turn = 0
        self._claimed: dict[str, None] = {}  # the ids, in order
        self._gone = self._died = 0
        self._work = asyncio.Event()
        self._renewal = asyncio.Lock()
        self._one_claim = asyncio.Lock()
        self._me = self._new_registration()
        self._lost: Registration | None = None
        self._tasks: list[asyncio.Task[None]] = []
        weather = self._weather = Weather()
        # What is claimed and what is settled go together: one fsync for both.
        self._mail = Line(self._connect(_ANSWER_S), _ANSWER_S)
        self._life = Line(self._connect(_BEAT_ANSWER_S), _BEAT_ANSWER_S)
        self._claiming = Link(self._mail, weather)
        self._living = Link(self._life, weather)
        self._settling = Link(self._mail, weather)
        self._commands = Commands(
            self._connect(_ANSWER_S),
            wake=self._work.set,
            shutdown=lambda: self.on_shutdown(),
            stop=self._stop,
        )
        self._flusher = Flusher(self._settling, lambda: self._me, self._renew, self.board)
        self._keeping = Keeping(
            self._connect(_BEAT_ANSWER_S),
            data_dir,
            number=number,
            registration=lambda: self._me,
            recall=lambda: self.on_recall(),
            claiming=self._one_claim,
            wake=self._work.set,
        )
        self._pulse = Pulse(
            self._living,
            streams,
            limit=settings.postmark.connections,
            absurd=self._absurd,
            in_use=lambda: self.connections_in_use(),
            facts=self._facts,
            registration=lambda: self._me,
            lost=self._renew,
            wake=self._work.set,
            board=self.board,
        )

    def _set_out(self, settings: Settings, streams: Sequence[str]) -> None:
        self._settings = settings
        # Transactional mail first; within a kind the first place goes round.
        kinds = {name: stream.kind for name, stream in settings.streams.items()}
        self._first = [name for name in streams if kinds.get(name) != "broadcast"]
        self._second = [name for name in streams if kinds.get(name) == "broadcast"]
        self._absurd = 2 * settings.retry.cap + 3600

    def go_by(self, settings: Settings) -> None:
        """Serve the streams of `settings` from now on; mail of others is left where it is."""
        self._set_out(settings, list(settings.streams))
        self._me.rq_fields["queues"] = ",".join(self._queues())
        limit = settings.postmark.connections
        self._pulse.go_by(list(settings.streams), limit=limit, absurd=self._absurd)
        self._work.set()

    @property
    def name(self) -> str:
        """The worker's name as RQ's tools show it."""
        return self._me.name

    @property
    def incarnation(self) -> str:
        """What this registration of the worker is known by in Redis."""
        return self._me.incarnation

    @property
    def share(self) -> int:
        """How many connections to each host name this worker may hold now; 0 or more."""
        return self._pulse.share

    @property
    def suspended(self) -> bool:
        """Whether `rq suspend` holds the workers: nothing is claimed until `rq resume`."""
        return self._pulse.suspended

    @property
    def store_answers(self) -> bool:
        """Whether the last call of each kind to Redis was answered."""
        return self._weather.fine

    @property
    def store_fault(self) -> str:
        """Why it cannot be told what is held, so that little or nothing is sent; "" else."""
        return self._keeping.fault

    async def start(self) -> None:
        """Register with Redis, waiting for it as long as it takes, and begin to beat."""
        await self._register(self._me)
        with contextlib.suppress(RedisError, OSError):
            await self._keeping.look()
            await self._pulse.beat()
        self._tasks = [
            asyncio.create_task(self._pulse.run(), name="heartbeat"),
            asyncio.create_task(self._flusher.run(), name="settles"),
            asyncio.create_task(self._commands.run(), name="commands"),
            asyncio.create_task(self._keeping.run(), name="look at the store"),
        ]

    async def claim(self, slots: Mapping[str, int]) -> list[Claim]:
        """Return messages to relay, at most `slots[stream]` of each stream; perhaps none.

        Waits while Redis is away. Bounded in octets too (4 MB, or one message). After a lost
        reply, or when an earlier call was cancelled, the messages of that call are returned.
        """
        self._work.clear()
        async with self._one_claim:
            return await self._claim(slots)

    async def _claim(self, slots: Mapping[str, int]) -> list[Claim]:
        if not self._claiming.patient:
            return []
        floor = self._keeping.floor
        if floor is None:
            return []
        me = self._me
        words: list[str | int] = []
        for stream in self._order():
            words += (stream, max(0, slots.get(stream, 0)))
        if not any(words[1::2]):
            return []
        ask = self._claiming.insist
        try:
            answer = await ask(
                CLAIM,
                me.incarnation,
                me.claim,
                _CLAIM_OCTETS,
                rq_date(),
                me.name,
                self._absurd,
                *floor,
                *words,
            )
            claims = await self._read_all(me, answer, ask)
        except (RedisError, OSError):
            return []  # only after stop_claiming
        if answer[0] == b"gone":
            await self._renew(me)
            return []
        if answer[0] == b"older":
            await self._keeping.settle_lineage()
            return []
        self._pulse.suspended = answer[0] == b"suspended"
        if answer[0] == b"spent" or (len(answer) > 1 and answer[0] != b"emptied"):
            self._work.set()
        return claims

    async def _read_all(
        self, me: Registration, answer: Sequence[Any], ask: Callable[..., Awaitable[Any]]
    ) -> list[Claim]:
        if len(answer) == 1:
            me.claim += answer[0] == b"spent"
            return []
        execution = f"{me.incarnation}-{me.claim}"
        rows = [list(answer[at : at + 6]) for at in range(1, len(answer), 6)]
        await read_bodies(rows, execution, ask)
        # Only now: when this is cancelled before, the next claim returns the same messages.
        me.claim += 1
        self._turn += 1
        if me is not self._me:  # taken for dead meanwhile: others have them
            return []
        found = (self._read(execution, row) for row in rows)
        claims = [claim for claim in found if claim is not None]
        self._claimed.update(dict.fromkeys(claim.id for claim in claims))
        return claims

    async def take(self, stream: str, messages: Mapping[str, bytes]) -> list[Claim]:
        """Claim the messages of `stream` with these ids that nobody has claimed, out of turn.

        Each with its envelope's octets as they were read: one that changed since is left alone.
        """
        async with self._one_claim:
            me, floor = self._me, self._keeping.floor
            if floor is None:
                return []
            words = [word for message in messages.items() for word in message]
            ask = self._claiming.ask
            answer = await ask(
                TAKE, me.incarnation, me.claim, rq_date(), me.name, *floor, stream, *words
            )
            return await self._read_all(me, answer, ask)

    async def ending(self, stream: str, place: int, count: int) -> tuple[int, dict[str, bytes]]:
        """Look at `count` waiting messages of `stream` from `place` on, the deferred ones last.

        Returns how many there were, and the envelopes of those with an `expires`, by id.
        """
        seen, *words = await self._living.ask(ENDING, stream, place, count)
        return seen, {words[at].decode(): words[at + 1] for at in range(0, len(words), 2)}

    def mark(self, claim: Claim, recipients: tuple[str, ...]) -> "asyncio.Future[bool]":
        """Note that the final dot of a transaction with `recipients` may be out.

        True: it is on disk and the message is still ours, so the dot may follow if `may_send`.
        False: another has the message now; no dot may follow.
        """
        return self._flusher.mark(claim, recipients)

    def settle(self, claim: Claim, settlement: Settlement) -> "asyncio.Future[bool]":
        """Note what became of `claim`. True: it is on disk; False: it is no longer ours.

        Written in the order given, after the marks and settles given before; repeated until
        Redis answers.
        """
        if settlement.then != "keep":
            self._claimed.pop(claim.id, None)
        if settlement.dead is not None:
            self._died += 1
        elif settlement.then == "gone":
            self._gone += 1
        return self._flusher.settle(claim, settlement)

    def refused(self, claim: Claim, route: str, reply: str) -> "asyncio.Future[Leave]":
        """Ask whether a message that was refused as a whole may become a dead letter.

        `reply` is the code and the enhanced code: the words often name the message. Counted over
        all workers of `route`, in one step: of the different messages refused alike, with nothing
        taken between, fewer than REFUSALS_TO_PAUSE die.
        """
        return self._flusher.refused(claim, route, reply)

    def passed(self, claim: Claim, route: str, row: str) -> None:
        """Note that `claim` was taken: the row of refusals called `row` ("*": any) is over."""
        self._flusher.passed(claim, route, row)

    def holds(self, claim: Claim) -> bool:
        """Return False when the message is certainly no longer ours: this worker was reaped."""
        return self._me is not self._lost and self._me.owns(claim.execution)

    def may_send(self) -> bool:
        """Return whether others still see this worker alive, so that a final dot may be sent."""
        return self._pulse.fresh()

    async def wait_for_work(self, timeout: float) -> bool:  # noqa: ASYNC109 - its end is no error
        """Return when there may be something to claim, at the latest after `timeout` seconds.

        True: it had to be waited for. False, at once: the last `claim` took mail and may have left
        some in the queues that were asked, or something came since it was called.
        """
        if self._work.is_set():
            return False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._work.wait()
        return True

    def wake(self) -> None:
        """Let `wait_for_work` return: there is room for mail that the last `claim` left."""
        self._work.set()

    def stop_claiming(self) -> None:
        """Let `claim` return nothing from now on, also one that waits for Redis to come back."""
        self._claiming.patient = False
        self._work.set()

    async def close(self, give_back: Iterable[Claim] = ()) -> None:
        """Write what is left, return every message still claimed, and unregister.

        All go back to the heads of their queues. Of those in `give_back` no final dot is out: a
        mark made here is taken back. The others go on with their marks, as unknown. When Redis
        does not answer within a few seconds, the others will find this worker dead.
        """
        for claim in give_back:
            self.settle(claim, Settlement("keep", dot=claim.dot))
        # The heart first: a beat after the goodbye would register the worker anew.
        await _end(self._tasks[:1])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GOODBYE_S):
                if self._tasks:
                    await self._flusher.drained()
                    await self._living.insist(REAP, self._me.incarnation, "")
        await _end(self._tasks[1:])
        for connection in (self._mail, self._life, self._commands, self._keeping):
            await connection.close()

    def _connect(self, timeout: float) -> Redis:
        return open_redis(self._settings, self._data_dir, timeout=timeout)

    def _order(self) -> list[str]:
        order: list[str] = []
        for group in (self._first, self._second):
            turn = self._turn % len(group) if group else 0
            order += group[turn:] + group[:turn]
        return order

    async def _register(self, me: Registration) -> None:
        await self._living.insist(REGISTER, me.incarnation, me.name, identity())
        self._commands.listen_as(me.name)

    def _new_registration(self) -> Registration:
        return new_registration(self._number, self._queues())

    def _queues(self) -> list[str]:
        return [keys.queue_name(stream) for stream in self._first + self._second]

    async def _renew(self, lost: Registration) -> None:
        """Register anew after Redis, or another worker, forgot the registration `lost`."""
        self._lost = lost
        async with self._renewal:
            if self._me is not lost:
                return
            events.notice(
                f"{_farewell(lost.name, len(self._claimed))}, it goes on under a new name"
            )
            self._claimed.clear()
            self._pulse.forget()
            fresh = self._new_registration()
            await self._register(fresh)
            self._me = fresh
            self._work.set()

    def _read(self, execution: str, words: Sequence[Any]) -> Claim | None:
        stream, job_id = words[0].decode(), words[1].decode()
        try:
            if words[3] is None:
                raise JobDecodeError("its body is gone, or another has claimed it")
            envelope = decode_envelope(words[2])
            dot = tuple(json.loads(words[4])) if words[4] else ()
        except (JobDecodeError, ValueError, TypeError) as error:
            # Not ours, of a later version, or damaged: kept and tried again, never lost.
            events.defect("claim", error=error, message_id=job_id)
            nobody = JobEnvelope(mail_from="", recipients=(), accepted_at=0.0)
            unread = Claim(job_id, stream, execution, nobody, b"")
            self._flusher.settle(unread, Settlement("defer", delay=self._settings.retry.cap))
            return None
        if words[5]:
            envelope = renewed(envelope, read_clocks())
        return Claim(job_id, stream, execution, envelope, words[3], dot)

    def _facts(self) -> Facts:
        return Facts(busy=bool(self._claimed), gone=self._gone, died=self._died)

    def _stop(self, job_id: str | None) -> None:
        for claimed in list(self._claimed):
            if job_id in (None, claimed):
                self.on_stop_job(claimed)


def _farewell(name: str, claimed: int) -> str:
    # With nothing claimed nothing was taken: mostly Redis is a new one, or came out of a backup.
    if not claimed:
        return f"Redis no longer knows worker {name}; it had no mail in hand"
    theirs = "1 message is" if claimed == 1 else f"{claimed} messages are"
    return f"worker {name} was taken for dead; its {theirs} with the others"


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    while running := [task for task in tasks if not task.done()]:
        for task in running:
            task.cancel()
        # Once is not always enough: the library's own time-outs may swallow it in Python 3.11.
        await asyncio.wait(running, timeout=2.0)
    await asyncio.gather(*tasks, return_exceptions=True)
