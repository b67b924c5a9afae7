"""The group commit: one script call, and so one fsync, for all messages that wait at that moment.

Each call is fenced. The committer has a hash in Redis with its epoch and the number of its last
batch; the script refuses a batch of another epoch or a number it has seen. When a reply was lost,
raising the epoch and reading the number is one script too: it tells whether the batch was applied
and makes sure that it will not be afterwards. Only then does anything else go on.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import redis.asyncio
from redis.exceptions import NoScriptError, OutOfMemoryError, RedisError, ResponseError

from proxy.config import Settings
from proxy.log import events
from proxy.queue import keys, refusal
from proxy.queue.batch import Batch, Lanes, Waiting, pack_commit
from proxy.queue.connection import open_redis, target
from proxy.queue.durability import Durability
from proxy.queue.job import RelayJob
from proxy.queue.outage import Outage
from proxy.queue.refusal import NotKept
from proxy.queue.scripts import load
from proxy.queue.store import StoreConnection
from proxy.queue.watch import Demands, StoreWatch

__all__ = ["GroupCommit", "NotKept", "group_commit"]

PATIENCE_S = 10.0
"""How long clients are kept waiting while Redis is away, counted from when it went."""

_RECONNECT_S = (0.02, 0.5)  # first pause and longest
_FENCE_LIFE_S = 30 * 86400
_WITHDRAWN_AT_ONCE = 500

_COMMIT, _FENCE, _WITHDRAW = load("commit"), load("fence"), load("withdraw")
_T = TypeVar("_T")


class GroupCommit:
    """Keeps messages in Redis for many sessions at once; used on one event loop.

    `redis` should have no time-out of its own: the limit on every exchange is `patience` seconds.
    """

    def __init__(
        self,
        redis: redis.asyncio.Redis,
        demands: Demands | None = None,
        *,
        patience: float = PATIENCE_S,
    ) -> None:
        self._redis = redis
        self._patience = patience
        self._watch = StoreWatch(demands or Demands())
        self._outage = Outage(patience, self._give_up)
        self._trouble: NotKept | None = None

        self._fence = keys.fence_key(secrets.token_hex(8))
        self._epoch = 0
        self._number = 0
        self._lanes = Lanes()
        self._wake = asyncio.Event()
        self._flying: Batch | None = None  # sent, its fate not known yet
        self._regretted: deque[Waiting] = deque()  # kept after "not kept" was said
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    @property
    def trouble(self) -> NotKept | None:
        """Why no message can be kept at this moment; None when it can, as far as is known."""
        return self._trouble

    @property
    def unready(self) -> str:
        """Why no mail can be kept now, in plain words for an operator; "" when it can."""
        if self._trouble is not None:
            found = self._watch.durability
            detail = f": {found.reason}" if found is not None and found.reason else ""
            return f"{self._trouble}{detail}"
        if self._watch.full:
            return str(refusal.full(self._watch.full))
        return "" if self._watch.durability is not None else str(refusal.away())

    @property
    def durability(self) -> Durability | None:
        """What the last look at the server gave; None while it is away."""
        return self._watch.durability

    async def start(self) -> None:
        """Begin to connect. Returns at once: Redis may come later than we do."""
        self._outage.goes_on("not connected yet")
        self._task = asyncio.create_task(self._run(), name="group commit")

    async def commit(self, job: RelayJob) -> None:
        """Keep `job`; return when Redis has it on disk.

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
        if not self._watch.has_room(waiting.size):
            raise refusal.full(self._watch.full)
        self._lanes.add(waiting)
        self._wake.set()
        await waiting.done

    async def close(self, grace: float = 10.0) -> None:
        """Keep what waits, within `grace` seconds, and end; whoever still waits is told no."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=grace)
        self._outage.forget()
        if self._flying is not None:
            _settle(self._flying.messages, refusal.unknown())
        _settle(self._lanes.clear(), refusal.ending())
        while self._task is not None and not self._task.done():
            # Once is not always enough: Python 3.11's wait_for, in the library, may swallow it.
            self._task.cancel()
            await asyncio.wait([self._task], timeout=0.1)
        await self._redis.aclose()

    # One task from here on: it alone speaks to Redis.

    async def _run(self) -> None:
        pause = _RECONNECT_S[0]
        while not self._finished():
            store = StoreConnection(self._redis)
            try:
                await self._in_time(self._open(store))
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
        return self._closing and not len(self._lanes) and self._flying is None

    def _lost(self, error: Exception) -> None:
        self._watch.lost()
        self._outage.goes_on(str(error) or type(error).__name__)

    def _give_up(self) -> None:
        """Tell everybody that Redis is away, and whoever comes until it is back."""
        self._trouble = refusal.away()
        if self._flying is not None:
            _settle(self._flying.messages, refusal.unknown())
        _settle(self._lanes.clear(), self._trouble)

    async def _open(self, store: StoreConnection) -> None:
        await store.open((_COMMIT, _FENCE, _WITHDRAW))
        await self._take_up(store)
        await self._inspect(store, verify=True)
        self._outage.over()

    async def _serve(self, store: StoreConnection) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if loop.time() >= self._watch.inspect_at:
                await self._in_time(self._inspect(store))
            self._wake.clear()
            if messages := self._lanes.take():
                self._number += 1
                await self._keep(store, Batch(self._number, messages))
            elif self._closing:
                return
            else:
                alarm = loop.call_at(self._watch.inspect_at, self._wake.set)
                await self._wake.wait()
                alarm.cancel()

    async def _inspect(self, store: StoreConnection, *, verify: bool = False) -> None:
        now = asyncio.get_running_loop().time()
        found = await self._watch.inspect(store, now, batches=self._number, verify=verify)
        self._trouble = found
        if found is not None:
            _settle(self._lanes.clear(), found)

    async def _keep(self, store: StoreConnection, batch: Batch) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        packed = pack_commit(_COMMIT.sha, self._fence, self._epoch, batch, now)
        self._flying = batch
        try:
            applied, safe = await self._in_time(self._call(store, packed))
        except ResponseError as error:
            self._flying = None
            self._refused(batch, error)
            return
        self._flying = None
        if applied != 1:
            # Somebody emptied the server, or our fence ran out: take it up anew, and try again.
            self._lanes.put_back(batch.messages)
            await self._in_time(self._take_up(store))
        elif safe:
            _settle(batch.messages, None)
        else:
            self._regret(batch)
            await self._in_time(self._withdraw(store))

    async def _call(self, store: StoreConnection, packed: Sequence[bytes]) -> tuple[Any, bool]:
        """Return the script's answer, and whether as many servers have it as must."""
        if not self._watch.replicas:
            return await store.call(packed), True
        return await store.call_replicated(packed, self._watch.replicas, self._patience / 2)

    async def _in_time(self, exchange: Coroutine[Any, Any, _T]) -> _T:
        """Return what `exchange` gives; when it takes too long Redis is away since its beginning.

        Raises:
            TimeoutError: it took longer than we have patience.
        """
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(self._patience):
                return await exchange
        except TimeoutError:
            self._outage.goes_on("no answer in time", began)
            raise

    def _refused(self, batch: Batch, error: ResponseError) -> None:
        """Deal with an error reply: the script did not run, or met what it cannot handle."""
        if isinstance(error, NoScriptError):
            self._lanes.put_back(batch.messages)
        elif isinstance(error, OutOfMemoryError):
            self._watch.fills_up(str(error))
            _settle(batch.messages, refusal.full(self._watch.full))
            return
        elif _before_running(error):
            events.store_away(process="proxy", detail=str(error))
            _settle(batch.messages, refusal.unwritable())
        else:
            events.defect("commit.lua", error=error)
            self._regret(batch)
        raise error

    async def _take_up(self, store: StoreConnection) -> None:
        """Raise the fence, learn the fate of a batch that was on its way, set right what it did."""
        self._epoch += 1
        last = await store.script(_FENCE, (self._fence,), str(self._epoch), str(_FENCE_LIFE_S))
        batch = self._flying
        if batch is not None and last < batch.number:
            self._lanes.put_back([each for each in batch.messages if not each.done.done()])
        elif batch is not None:
            if not await store.replicated(self._watch.replicas, self._patience / 2):
                _settle(batch.messages, refusal.unknown())
            # Whoever was told no, or has gone, will bring it again.
            self._regretted.extend(each for each in batch.messages if each.done.done())
            _settle(batch.messages, None)
        self._flying = None
        await self._withdraw(store)

    def _regret(self, batch: Batch) -> None:
        """Tell the clients of a batch no, and note that it may be there all the same."""
        _settle(batch.messages, refusal.unknown())
        self._regretted.extend(batch.messages)

    async def _withdraw(self, store: StoreConnection) -> None:
        while self._regretted:
            count = min(len(self._regretted), _WITHDRAWN_AT_ONCE)
            jobs = [self._regretted[place].job for place in range(count)]
            words = [word for job in jobs for word in (keys.queue_name(job.stream), job.id)]
            said = await store.script(_WITHDRAW, (), *words)
            found = [word.decode() if isinstance(word, bytes) else word for word in said]
            for message_id, what in zip(found[::2], found[1::2], strict=True):
                verb = "goes out" if what == "taken" else "may have gone out"
                events.notice(f"{message_id} {verb} though its client was told 451")
            for _ in range(count):
                self._regretted.popleft()


def group_commit(settings: Settings, data_dir: Path) -> GroupCommit:
    """Return the committer that `settings` describe, not started yet."""
    limit = settings.redis.max_memory
    demands = Demands(
        require_durable=settings.redis.require_durable,
        max_memory=None if limit == "auto" else limit,
        data_dir=None if settings.redis.url else data_dir,
        replicated=bool(target(settings, data_dir).sentinels),
    )
    return GroupCommit(open_redis(settings, data_dir, timeout=None), demands)


def _settle(messages: Sequence[Waiting], trouble: NotKept | None) -> None:
    for waiting in messages:
        if waiting.done.done():
            continue
        if trouble is None:
            waiting.done.set_result(None)
        else:
            waiting.done.set_exception(trouble.again())


_REFUSALS = ("NOREPLICAS", "MISCONF", "MASTERDOWN", "BUSY", "NOAUTH", "NOPERM", "CLUSTERDOWN")


def _before_running(error: ResponseError) -> bool:
    """Return whether the server refused the script because of its own state, before running it."""
    return type(error) is not ResponseError or str(error).startswith(_REFUSALS)
