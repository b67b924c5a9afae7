"""Whether Redis still is the store that this host knows, or an older copy of it.

Redis keeps a number that rises for as long as anybody looks; each host notes on its disk how far it
has seen it (see `marks`). A store that says less was restored from a backup: mail in it may have
been sent since, and is held, in the step in which that is found. What is accepted later goes out.
"""

import asyncio
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import redis.asyncio
from redis.exceptions import RedisError, ResponseError

from proxy.log import events
from proxy.queue.connection import end_if_cancelled
from proxy.queue.holds import RESTORED
from proxy.queue.marks import Mark, Marks
from proxy.queue.refusal import before_running
from proxy.queue.scripts import load
from proxy.queue.selection import when

Word: TypeAlias = Literal["known", "first", "other", "empty", "restored"]

LAG_S = 3.0
"""How far a store may go back without being an older copy: what Redis may lose in a crash."""

LOOK_EVERY_S = 2.0
_MOVE_EVERY_S = 1.9
WRITE_EVERY_S = 5.0

_REASON = (
    "Redis was restored from a backup; what is in it may have been sent since. Look with `franker"
    " queue list --state held`; then `franker queue release NAME`, or delete what was sent"
)


@dataclass(frozen=True, slots=True)
class Look:
    """What a look has found: which store it is, and the turn of its holds."""

    word: Word
    turn: int


class Lineage:
    """Looks of one process at its store; `role` names the process among those of this host."""

    def __init__(
        self,
        redis: redis.asyncio.Redis,
        data_dir: Path,
        role: str,
        *,
        host: str,
        lag: float = LAG_S,
    ) -> None:
        self._redis = redis
        self._host = host
        self._marks = Marks(data_dir, role, lag=lag)
        self._store = ""
        self._has_read = False
        self._write_at = 0.0
        self._unwritable = ""
        self._moves_every = min(lag, _MOVE_EVERY_S)
        self._move_at = 0.0
        self.looked = False
        """Whether Redis was ever asked: before that nothing of it may be sent."""
        self.fault = ""
        """Why it could not be looked though Redis answers: a defect; "" when all is well."""

    @property
    def floor(self) -> tuple[str, int]:
        """Id and number that the store must have, or more; "" and 0 when nothing is known."""
        mark = self._marks.known.get(self._store)
        if mark is not None:
            return self._store, mark.tick
        if self._marks.known:  # of other stores: any id is as good, but there must be one
            return next(iter(self._marks.known)), 0
        return "", 0

    async def look(self) -> Look:
        """Look once; hold the mail of an older copy, and say so.

        Raises:
            redis.exceptions.RedisError, OSError: Redis is away.
        """
        if not self._has_read:
            self._marks.read()
            self._has_read = True
        self._marks.ripen(time.monotonic())
        known = {
            store: {"tick": mark.tick, "time": mark.time}
            for store, mark in self._marks.known.items()
        }
        hold = {"since": time.time(), "by": f"Franker on {self._host}", "reason": _REASON}
        script = self._redis.register_script(load("lineage").text)
        fresh = secrets.token_hex(8)
        moves = time.monotonic() >= self._move_at  # each move is a write for Redis's disk
        words: list[str | int] = [json.dumps(known), fresh, RESTORED, json.dumps(hold), int(moves)]
        word, store, tick, turn, mail, name, others = await script(args=words)
        if moves:
            self._move_at = time.monotonic() + self._moves_every
        found: Word = word.decode()
        previous, self._store = self._store, store.decode()
        if found in ("restored", "empty") or self._store != previous:
            self._marks.forget_fresh()
            self._tell(
                found,
                previous,
                int(mail),
                name.decode(),
                [each.decode("utf-8", "replace") for each in others],
            )
        self.looked = True
        self._marks.seen(self._store, Mark(int(tick), time.time()), time.monotonic())
        return Look(found, int(turn))

    def _tell(self, word: Word, previous: str, mail: int, hold: str, others: Sequence[str]) -> None:
        mark = self._marks.known.get(self._store) or max(
            self._marks.known.values(), key=lambda one: one.time, default=Mark(0, 0.0)
        )
        if word == "restored":
            events.store_restored(messages=mail, before=when(mark.time), hold=hold, others=others)
        elif word == "empty":
            events.notice(
                "Redis is empty and new: what was in it when it was last seen, at"
                f" {when(mark.time)}, is not there; mail is taken and sent as always"
            )
        elif word == "other" and previous:
            events.notice("Redis is another store than before; mail is taken and sent as always")

    @contextmanager
    def passing_over(self) -> Iterator[None]:
        """Pass over a Redis that is away; say once what is a fault of ours, or of its content."""
        try:
            yield
        except (RedisError, OSError) as error:
            # That Redis is away is said by those who cannot do without.
            if isinstance(error, ResponseError) and not before_running(error):
                self._blame(error)
        except Exception as error:  # nobody else would notice that this ended
            self._blame(error)
        else:
            self.fault = ""

    def _blame(self, error: Exception) -> None:
        fault = f"it cannot be told what is held: {error}"
        if fault != self.fault:
            events.defect("look at the store", error=error)
        self.fault = fault

    async def write(self, *, now: bool = False) -> None:
        """Bring to disk what counts: each few seconds, or `now`."""
        if not self._marks.unwritten or (not now and time.monotonic() < self._write_at):
            return
        self._write_at = time.monotonic() + WRITE_EVERY_S
        try:
            await asyncio.to_thread(self._marks.write)
            self._unwritable = ""
        except OSError as error:
            if str(error) != self._unwritable:
                events.notice(f"a Redis restored from a backup will not be noticed: {error}")
            self._unwritable = str(error)

    async def run(
        self, heard: Callable[[Look], Awaitable[None]] | None = None, *, every: float = LOOK_EVERY_S
    ) -> None:
        """Look, and hand each look to `heard`, until cancelled; then write once more."""
        try:
            while True:
                with self.passing_over():
                    look = await self.look()
                    if heard is not None:
                        await heard(look)
                await self.write()
                end_if_cancelled()
                await asyncio.sleep(every)
        finally:
            await self.write(now=True)
