"""The group commit: one script call, and so one fsync, for all messages that wait at that moment.

Each call is fenced (see fence.py). When a reply was lost, the fence is raised before anything else
goes on: it tells whether the batch was applied and makes sure that it will not be afterwards.

A Redis that stands still cannot be asked that. When there is a journal, the messages of the batch
in flight are kept there under the batch's number, and what comes later under higher ones; a record
enters Redis only if its number is above the fence's, so that the answer may come at any time, and
to any process. New mail goes to Redis again when all of the journal has: numbers never fall.
"""

import asyncio
import secrets
from collections import deque
from functools import partial
from pathlib import Path
from typing import Any

import redis.asyncio
from redis.exceptions import NoScriptError, OutOfMemoryError, RedisError, ResponseError

from proxy.config import Settings
from proxy.log import events
from proxy.queue import keys, refusal
from proxy.queue.batch import Batch, Lanes, Waiting, pack_commit
from proxy.queue.connection import open_redis, target
from proxy.queue.diversion import Diversion
from proxy.queue.durability import Durability
from proxy.queue.fates import WITHDRAW, Fates, settle
from proxy.queue.fence import RAISE, Fence
from proxy.queue.job import RelayJob, rq_date
from proxy.queue.journal.drain import Drain
from proxy.queue.journal.folder import Bounds
from proxy.queue.journal.journal import Journal
from proxy.queue.outage import Outage
from proxy.queue.refusal import NotKept, before_running
from proxy.queue.scripts import load
from proxy.queue.store import StoreConnection
from proxy.queue.watch import Demands, StoreWatch
from proxy.queue.wire import Packed

__all__ = ["GroupCommit", "NotKept", "group_commit"]

PATIENCE_S = 10.0
"""How long an answer of Redis is waited for; without a journal clients wait as long, too."""

STALL_S = 2.0
"""How long clients are kept waiting when there is one, counted from when Redis went."""

_MOST_HEARD = 10_000
_RECONNECT_S = (0.02, 0.5)  # first pause and longest
_COMMIT = load("commit")


class GroupCommit:
    """Keeps messages in Redis for many sessions at once; used on one event loop.

    `redis` should have no time-out of its own: the limit on every exchange is `patience` seconds.
    `journal` is a data_dir and its bounds: there mail is kept when Redis stands still for `stall`
    seconds, or is away that long.
    """

    def __init__(
        self,
        redis: redis.asyncio.Redis,
        demands: Demands | None = None,
        *,
        patience: float = PATIENCE_S,
        journal: tuple[Path, Bounds] | None = None,
        stall: float = STALL_S,
    ) -> None:
        self._redis = redis
        self._patience = patience
        self._watch = StoreWatch(demands or Demands())
        self._trouble: NotKept | None = None

        incarnation = secrets.token_hex(8)
        self._lanes = Lanes()
        self._fates = Fates(Fence(incarnation))
        way = None if journal is None else Journal(*journal, incarnation)
        self._diversion = Diversion(way, self._lanes, self._fates)
        self._stall = min(stall, patience)
        self._outage = Outage(patience, self._bearable, self._give_up)
        self._overflowing = False  # something waits for which the server has no room
        self._heard: deque[str] = deque(maxlen=_MOST_HEARD)
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._connected_once = False
        self._closing = False

    @property
    def trouble(self) -> NotKept | None:
        """Why no message can be kept at this moment; None when it can, as far as is known."""
        return self._trouble

    @property
    def unready(self) -> str:
        """Why no mail can be kept now, in plain words for an operator; "" when it can."""
        if self._trouble is not None:
            return str(self._trouble)
        journal, possible = self._diversion.journal, self._diversion.possible
        if journal is not None and journal.taking:
            if not journal.full:
                return ""
            return "; ".join(filter(None, (self.obstacle, journal.why_full)))
        if self._watch.full and not (possible and self._watch.server_is_short):
            return str(refusal.full(self._watch.full))
        if possible and self._connected_once:
            return ""
        return "" if self._watch.durability is not None else str(refusal.away())

    @property
    def obstacle(self) -> str:
        """What keeps mail in the journal from the queue, in plain words; "" for nothing."""
        if self._watch.durability is None:
            return str(refusal.away())
        if self._trouble is not None:
            return str(self._trouble)
        return str(refusal.full(self._watch.full)) if self._watch.full else ""

    @property
    def journal(self) -> Journal | None:
        """The journal, if there is one: whether it is in use, and how much waits in it."""
        return self._diversion.journal

    @property
    def durability(self) -> Durability | None:
        """What the last look at the server gave; None while it is away."""
        return self._watch.durability

    async def start(self) -> None:
        """Begin to connect. Returns at once: Redis may come later than we do."""
        self._outage.goes_on("not connected yet")
        self._task = asyncio.create_task(self._run(), name="group commit")

    async def commit(self, job: RelayJob) -> bool:
        """Keep `job`; return when it is on disk, in Redis or in the journal.

        False: it was kept before, under the id that its envelope says it is kept `once` under, as
        far as that can be said now; nothing is kept a second time in any case.

        A caller that is cancelled disturbs nobody else; its message is dropped if it was still
        waiting, and kept if it was on its way.

        Raises:
            NotKept: it was not kept, or nobody can say.
        """
        if self._closing:
            raise refusal.ending()
        if self._trouble is not None:
            raise self._trouble.again()
        waiting = Waiting(job, asyncio.get_running_loop().create_future())
        if self._diversion.taken:
            self._diversion.keep(waiting)
        else:
            if not self._watch.has_room(waiting.size):
                why = self._watch.found_no_room(waiting.size)
                if not (self._diversion.possible and self._watch.server_is_short):
                    raise refusal.full(why)
                self._overflowing = True
            self._lanes.add(waiting)
            self._wake.set()
        await waiting.done
        return not waiting.known

    def heard(self, once: str) -> None:
        """Forget the id of mail that is kept only once: its client knows that it is kept."""
        self._heard.append(once)

    async def close(self, grace: float = 10.0) -> None:
        """Keep what waits, within `grace` seconds, and end; whoever still waits is told no."""
        self._closing = True
        self._wake.set()
        deadline = asyncio.get_running_loop().time() + grace
        while self._task is not None and not self._task.done():
            if self._outage.lasts and self._diversion.possible:
                self._give_up()
                if self._finished():
                    break
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                break
            await asyncio.wait([self._task], timeout=min(left, 0.05))
        if self._diversion.possible and (self._fates.flying is not None or len(self._lanes)):
            self._diversion.divert("shutting down")
        self._outage.forget()
        if self._fates.flying is not None:
            settle(self._fates.flying.messages, refusal.unknown())
        settle(self._lanes.clear(), refusal.ending())
        while self._task is not None and not self._task.done():
            # Once is not always enough: Python 3.11's wait_for, in the library, may swallow it.
            self._task.cancel()
            await asyncio.wait([self._task], timeout=0.1)
        await self._diversion.close()
        await self._redis.aclose()

    # One task from here on: it alone speaks to Redis.

    async def _run(self) -> None:
        pause = _RECONNECT_S[0]
        while not self._finished():
            store = StoreConnection(self._redis)
            try:
                await self._diversion.look()
                self._outage.reconsider()
                await self._outage.in_time(self._open(store))
                pause = _RECONNECT_S[0]
                await self._serve(store)
            except (RedisError, OSError, TimeoutError) as error:
                self._lost(error)
            except Exception as error:  # a defect here must not end the intake for good
                events.defect("group commit", error=error)
                self._lost(error)
            finally:
                await store.close()
            if not self._finished():
                await asyncio.sleep(pause)
                pause = min(2 * pause, _RECONNECT_S[1])

    def _finished(self) -> bool:
        if len(self._lanes) or self._fates.flying is not None:
            return False
        return self._closing and self._diversion.idle

    def _lost(self, error: Exception) -> None:
        self._watch.lost()
        self._outage.goes_on(str(error) or type(error).__name__)

    def _give_up(self) -> None:
        """Keep clients waiting no longer: their mail goes to the journal, or back to them."""
        if self._diversion.possible:
            self._trouble = None
            self._diversion.divert("the mail store does not answer")
            return
        self._trouble = refusal.away()
        if self._fates.flying is not None:
            settle(self._fates.flying.messages, refusal.unknown())
        settle(self._lanes.clear(), self._trouble)

    def _bearable(self) -> float:
        return self._stall if self._diversion.possible else self._patience

    async def _open(self, store: StoreConnection) -> None:
        await store.open((_COMMIT, RAISE, WITHDRAW))
        await self._take_up(store)
        await self._inspect(store, verify=True)
        self._connected_once = True
        self._outage.over()

    async def _serve(self, store: StoreConnection) -> None:
        loop = asyncio.get_running_loop()
        diversion, drain = self._diversion, None
        if diversion.journal is not None:
            call = partial(self._call, store)
            drain = Drain(diversion.journal, self._fates.fence, store, call)
        while True:
            if loop.time() >= self._watch.inspect_at:
                await self._outage.in_time(self._inspect(store))
            self._wake.clear()
            if self._overflowing:
                self._overflowing = False
                if self._diversion.possible:
                    self._diversion.divert("the mail store is full")
            if drain is not None and self._trouble is None and not self._closing:
                await diversion.look()
                take_up = partial(self._take_up, store)
                if await diversion.move(drain, self._watch, self._outage.in_time, take_up):
                    continue
            if diversion.pending:
                if self._closing:
                    self._diversion.divert("shutting down")
                    return
            elif messages := self._lanes.take():
                await self._keep(store, Batch(self._fates.next_number(), messages))
                continue
            elif self._closing:
                await self._outage.in_time(self._fates.fence.remove(store))
                return
            alarm = loop.call_at(self._watch.inspect_at, self._wake.set)
            await self._wake.wait()
            alarm.cancel()

    async def _inspect(self, store: StoreConnection, *, verify: bool = False) -> None:
        # Not while a message lies in the journal: it may be one that was handed in again.
        if self._heard and not self._diversion.pending:
            ids = tuple(self._heard)
            self._heard.clear()
            await store.command("ZREM", keys.ONCE, *ids)
        now = asyncio.get_running_loop().time()
        found = await self._watch.inspect(store, now, batches=self._fates.number, verify=verify)
        self._trouble = found
        if found is not None:
            self._diversion.halted()
            settle(self._lanes.clear(), found)

    async def _take_up(self, store: StoreConnection) -> None:
        again = await self._fates.take_up(
            store, self._watch.replicas, self._patience / 2, sure=self._diversion.pending
        )
        self._lanes.put_back(again)

    async def _keep(self, store: StoreConnection, batch: Batch) -> None:
        now = rq_date()
        fence, number = self._fates.fence, batch.number
        packed = pack_commit(_COMMIT.sha, fence.key, fence.epoch, number, batch.messages, now)
        self._fates.flying = batch
        try:
            applied, safe = await self._outage.in_time(self._call(store, packed))
        except ResponseError as error:
            if not self._fates.landed(batch):
                raise
            self._refused(batch, error)
            return
        if not self._fates.landed(batch):  # the answer came so late that the journal has it, too
            await self._outage.in_time(self._take_up(store))
            return
        if applied == 0:
            # Somebody emptied the server, or our fence ran out: take it up anew, and try again.
            self._lanes.put_back(batch.messages)
            await self._outage.in_time(self._take_up(store))
            return
        if isinstance(applied, list):
            batch.mark_known(applied)
        if safe:
            self._fates.kept(batch)
        else:
            self._fates.regret(batch)
        if self._fates.regretted:
            await self._outage.in_time(self._fates.withdraw(store))

    async def _call(self, store: StoreConnection, packed: Packed) -> tuple[Any, bool]:
        """Return the script's answer, and whether as many servers have it as must."""
        if not self._watch.replicas:
            return await store.call(packed), True
        return await store.call_replicated(packed, self._watch.replicas, self._patience / 2)

    def _refused(self, batch: Batch, error: ResponseError) -> None:
        """Deal with an error reply: the script did not run, or met what it cannot handle."""
        if isinstance(error, NoScriptError):
            self._lanes.put_back(batch.messages)
        elif isinstance(error, OutOfMemoryError):
            self._watch.fills_up(str(error))
            if self._diversion.possible:
                self._lanes.put_back(batch.messages)
                self._overflowing = True
            else:
                settle(batch.messages, refusal.full(self._watch.full))
            return
        elif before_running(error):
            events.store_away(process="proxy", detail=str(error))
            if self._diversion.possible:
                self._lanes.put_back(batch.messages)
            else:
                settle(batch.messages, refusal.unwritable())
        else:
            events.defect("commit.lua", error=error)
            self._fates.regret(batch)
        raise error


def group_commit(settings: Settings, data_dir: Path) -> GroupCommit:
    """Return the committer that `settings` describe, not started yet."""
    limit = settings.redis.max_memory
    demands = Demands(
        require_durable=settings.redis.require_durable,
        max_memory=None if limit == "auto" else limit,
        data_dir=None if settings.redis.url else data_dir,
        replicated=bool(target(settings, data_dir).sentinels),
    )
    bounds = Bounds(
        max_size=settings.journal.max_size,
        disk_floor=settings.journal.disk_floor,
        moves_here=not settings.redis.url,
    )
    store = open_redis(settings, data_dir, timeout=None)
    return GroupCommit(store, demands, journal=(data_dir, bounds))
