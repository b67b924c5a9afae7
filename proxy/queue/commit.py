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
from typing import Any, Literal, TypeAlias, TypeVar

import redis.asyncio
from redis.exceptions import NoScriptError, OutOfMemoryError, RedisError, ResponseError

from proxy.config import Settings
from proxy.log import events
from proxy.metrics import intake
from proxy.queue import keys
from proxy.queue.batch import Batch, Lanes, Waiting, pack_commit
from proxy.queue.capacity import DISK_FLOOR, disk_free, memory_here, memory_limit
from proxy.queue.connection import open_redis
from proxy.queue.durability import Durability, judge
from proxy.queue.job import RelayJob
from proxy.queue.scripts import load
from proxy.queue.store import StoreConnection

_T = TypeVar("_T")

NotKeptKind: TypeAlias = Literal["away", "full", "not_durable", "unknown"]

PATIENCE_S = 10.0
"""How long clients are kept waiting while Redis is away, counted from when it went."""

INSPECT_EVERY_S = 1.0
VERIFY_EVERY_S = 10.0
_RECONNECT_S = (0.02, 0.5)  # first pause and longest
_SAY_AWAY_AFTER_S = 2.0  # a restart within that time concerns nobody
_FENCE_LIFE_S = 30 * 86400
_PER_MESSAGE = 1024  # octets beside body and envelope, for the estimate between two inspections

_COMMIT, _FENCE, _WITHDRAW = load("commit"), load("fence"), load("withdraw")


class NotKept(Exception):
    """The message was not kept, and the client must be told so (4yz, never 5yz).

    `kind` "full" means 452, anything else 451; `text` is for the client. Of kind "unknown" it may
    be that it was kept after all: it is withdrawn when Redis answers, unless it went out already.
    """

    def __init__(self, kind: NotKeptKind, text: str) -> None:
        super().__init__(text)
        self.kind: NotKeptKind = kind
        self.text = text


def _away() -> NotKept:
    return NotKept("away", "the mail store does not answer; try again later")


def _unknown() -> NotKept:
    return NotKept("unknown", "the mail store did not confirm in time; try again later")


def _ending() -> NotKept:
    return NotKept("away", "shutting down; try again later")


def _full(what: str) -> NotKept:
    return NotKept("full", f"the mail store{what} is full; try again later")


class GroupCommit:
    """Keeps messages in Redis for many sessions at once; used on one event loop.

    `max_memory` limits Redis's memory in octets, None being 40 % of what there is. `data_dir` is
    given for a private server: its disk is watched. `redis` should have no socket time-out of its
    own; the limit on every exchange is `patience` seconds.
    """

    def __init__(
        self,
        redis: redis.asyncio.Redis,
        *,
        require_durable: bool = True,
        max_memory: int | None = None,
        data_dir: Path | None = None,
        replicated: bool = False,
        patience: float = PATIENCE_S,
    ) -> None:
        self._redis = redis
        self._require_durable = require_durable
        self._max_memory = max_memory
        self._data_dir = data_dir
        self._replicated = replicated
        self._patience = patience

        self._fence = keys.fence_key(secrets.token_hex(8))
        self._epoch = 0
        self._number = 0
        self._lanes = Lanes()
        self._wake = asyncio.Event()
        self._flying: Batch | None = None  # sent, its fate not known yet
        self._regretted: deque[Waiting] = deque()  # kept after "not kept" was said
        self._task: asyncio.Task[None] | None = None
        self._closing = False

        self._store: StoreConnection | None = None
        self._trouble: NotKept | None = None
        self._durability: Durability | None = None
        self._away_since: float | None = None
        self._said_away = False
        self._give_up: asyncio.TimerHandle | None = None
        self._settings: dict[str, str] | None = None
        self._inspect_at = self._verify_at = 0.0
        self._used = self._added = 0
        self._limit: int | None = None
        self._here = memory_here()

    @property
    def trouble(self) -> NotKept | None:
        """Why no message can be kept at this moment; None when it can, as far as is known."""
        return self._trouble

    @property
    def unready(self) -> str:
        """Why no mail can be kept now, in plain words; "" when it can."""
        if self._trouble is not None:
            if self._trouble.kind == "not_durable" and self._durability is not None:
                return f"the mail store is not durable: {self._durability.reason}"
            return self._trouble.text.partition(";")[0]
        return "" if self._durability is not None else "the mail store does not answer"

    @property
    def durability(self) -> Durability | None:
        """What the last look at the server's settings gave; None while it is away."""
        return self._durability

    async def start(self) -> None:
        """Begin to connect. Returns at once: Redis may come later than we do."""
        self._went_away("not connected yet")
        self._task = asyncio.create_task(self._run(), name="group commit")

    async def commit(self, job: RelayJob) -> None:
        """Keep `job`; return when Redis has it on disk.

        A caller that is cancelled disturbs nobody else; its message is dropped if it was still
        waiting, and kept if it was on its way.

        Raises:
            NotKept: it was not kept, or nobody can say.
        """
        if trouble := _ending() if self._closing else self._trouble:
            raise NotKept(trouble.kind, trouble.text)
        waiting = Waiting(job, asyncio.get_running_loop().create_future())
        cost = waiting.size + _PER_MESSAGE
        if self._limit is not None and self._used + self._added + cost > self._limit:
            raise _full("")
        self._added += cost
        self._lanes.add(waiting)
        self._wake.set()
        await waiting.done

    async def close(self, grace: float = 10.0) -> None:
        """Keep what waits, within `grace` seconds, and end; whoever still waits is told no."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=grace)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._give_up is not None:
            self._give_up.cancel()
        if self._flying is not None:
            _settle(self._flying.messages, _unknown())
        _settle(self._lanes.clear(), _ending())
        await self._redis.aclose()

    # One task from here on: it alone speaks to Redis.

    async def _run(self) -> None:
        pause = _RECONNECT_S[0]
        while not (self._closing and (not len(self._lanes) or self._trouble)):
            store = StoreConnection(self._redis)
            try:
                async with asyncio.timeout(self._patience):
                    await store.open((_COMMIT, _FENCE, _WITHDRAW))
                    await self._take_up(store)
                    await self._inspect(store, verify=True)
                self._came_back()
                pause = _RECONNECT_S[0]
                await self._serve(store)
            except (RedisError, OSError, TimeoutError) as error:
                self._went_away(_words(error))
            except Exception as error:  # a defect here must not end the intake for good
                events.defect("group commit", error=error)
                self._went_away(_words(error))
            finally:
                await store.close()
            if not self._closing or len(self._lanes):
                await asyncio.sleep(pause)
                pause = min(2 * pause, _RECONNECT_S[1])

    async def _serve(self, store: StoreConnection) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if loop.time() >= self._inspect_at:
                await self._in_time(self._inspect(store))
            self._wake.clear()
            if messages := self._lanes.take():
                self._number += 1
                await self._keep(store, Batch(self._number, messages))
            elif self._closing:
                return
            else:
                alarm = loop.call_at(self._inspect_at, self._wake.set)
                await self._wake.wait()
                alarm.cancel()

    async def _keep(self, store: StoreConnection, batch: Batch) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        packed = pack_commit(_COMMIT.sha, self._fence, self._epoch, batch, now)
        self._flying = batch
        try:
            applied = await self._in_time(store.call(packed))
        except ResponseError as error:
            self._flying = None
            self._refused(batch, error)
            return
        self._flying = None
        if applied == 1:
            _settle(batch.messages, None)
            return
        # Somebody emptied the server, or our fence ran out: take it up anew, and try again.
        self._lanes.put_back(batch.messages)
        await self._in_time(self._take_up(store))

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
            self._away_since = began
            raise

    def _refused(self, batch: Batch, error: ResponseError) -> None:
        """Deal with an error reply: the script did not run, or met what it cannot handle."""
        if isinstance(error, NoScriptError):
            self._lanes.put_back(batch.messages)
        elif isinstance(error, OutOfMemoryError):
            _settle(batch.messages, _full(""))
            return
        elif _before_running(error):
            events.store_away(detail=_words(error))
            _settle(batch.messages, NotKept("away", "the mail store cannot write; try again later"))
        else:
            events.defect("commit.lua", error=error)
            _settle(batch.messages, _unknown())
            self._regretted.extend(batch.messages)
        raise error

    async def _take_up(self, store: StoreConnection) -> None:
        """Raise the fence, learn the fate of a batch that was on its way, set right what it did."""
        self._epoch += 1
        last = await store.script(_FENCE, (self._fence,), str(self._epoch), str(_FENCE_LIFE_S))
        batch, self._flying = self._flying, None
        if batch is not None and last >= batch.number:
            self._regretted.extend(m for m in batch.messages if m.done.done())
            _settle(batch.messages, None)
        elif batch is not None:
            self._lanes.put_back([m for m in batch.messages if not m.done.done()])
        while self._regretted:
            some = [self._regretted[i] for i in range(min(len(self._regretted), 500))]
            pairs = [text for m in some for text in (keys.queue_name(m.job.stream), m.job.id)]
            for taken in await store.script(_WITHDRAW, (), *pairs):
                message_id = taken.decode() if isinstance(taken, bytes) else taken
                events.notice(f"{message_id} goes out though its client was told 451")
            for _ in some:
                self._regretted.popleft()

    async def _inspect(self, store: StoreConnection, *, verify: bool = False) -> None:
        now = asyncio.get_running_loop().time()
        self._inspect_at = now + INSPECT_EVERY_S
        if verify or now >= self._verify_at:
            self._settings = await store.settings()
            self._verify_at = now + VERIFY_EVERY_S
        info = await store.info()
        self._used, self._added = int(info.get("used_memory", "0")), 0
        self._limit = memory_limit(
            self._max_memory, info, private=self._data_dir is not None, here=self._here
        )
        found = judge(self._settings, info, replicated=self._replicated)
        if self._durability != found:
            if found.durable:
                events.store_durable()
            else:
                events.store_not_durable(reason=found.reason)
        self._durability = found
        if not found.durable:
            self._verify_at = now  # so that setting it right is seen at once
        intake.STORE_DURABLE.set(found.durable)
        self._trouble = self._judge_trouble(found)
        if self._trouble is not None:
            _settle(self._lanes.clear(), self._trouble)

    def _judge_trouble(self, found: Durability) -> NotKept | None:
        if not found.durable and self._require_durable:
            return NotKept("not_durable", "the mail store is not durable; try again later")
        if self._data_dir is not None and disk_free(self._data_dir) < DISK_FLOOR:
            return _full("'s disk")
        return None

    def _came_back(self) -> None:
        self._away_since = None
        if self._give_up is not None:
            self._give_up.cancel()
            self._give_up = None
        if self._said_away:
            self._said_away = False
            events.store_back()

    def _went_away(self, detail: str) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._away_since = now if self._away_since is None else self._away_since
        self._durability = None
        intake.STORE_DURABLE.set(0)
        if self._give_up is None:
            self._give_up = loop.call_at(self._away_since + self._patience, self._gave_up)
        if not self._said_away and now - self._away_since >= _SAY_AWAY_AFTER_S:
            self._said_away = True
            events.store_away(detail=detail)

    def _gave_up(self) -> None:
        self._trouble = _away()
        if self._flying is not None:
            _settle(self._flying.messages, _unknown())
        _settle(self._lanes.clear(), self._trouble)


def group_commit(settings: Settings, data_dir: Path) -> GroupCommit:
    """Return the committer that `settings` describe, not started yet.

    Raises:
        ValueError: `redis.url` has a form that is not known.
    """
    limit = settings.redis.max_memory
    return GroupCommit(
        open_redis(settings, data_dir, timeout=None),
        require_durable=settings.redis.require_durable,
        max_memory=None if limit == "auto" else limit,
        data_dir=None if settings.redis.url else data_dir,
        replicated="+sentinel" in settings.redis.url,
    )


def _settle(messages: Sequence[Waiting], trouble: NotKept | None) -> None:
    for waiting in messages:
        if waiting.done.done():
            continue
        if trouble is None:
            waiting.done.set_result(None)
        else:
            waiting.done.set_exception(NotKept(trouble.kind, trouble.text))


_REFUSALS = ("NOREPLICAS", "MISCONF", "MASTERDOWN", "BUSY", "NOAUTH", "NOPERM", "CLUSTERDOWN")


def _before_running(error: ResponseError) -> bool:
    """Return whether the server refused the script because of its own state, before running it."""
    return type(error) is not ResponseError or str(error).startswith(_REFUSALS)


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__
