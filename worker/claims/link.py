"""A worker's connections to Redis: one for its mail, one for its heartbeat.

What is asked is repeated here, and only here, until Redis answers: each question can be asked again
without harm.
"""

import asyncio
import contextlib
from typing import Any, Protocol

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MasterDownError, ReadOnlyError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from proxy.log import events
from proxy.queue.wire import Wire

_FIRST_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 0.5


class Weather:
    """Whether Redis answers on every link, said once when it stops and once when it is back."""

    def __init__(self) -> None:
        self._failing: set[object] = set()

    @property
    def fine(self) -> bool:
        """Whether no link is failing."""
        return not self._failing

    def failed(self, link: object, error: Exception) -> None:
        """Note that a command failed."""
        if not self._failing:
            events.store_away(process="worker", detail=str(error) or type(error).__name__)
        self._failing.add(link)

    def answered(self, link: object) -> None:
        """Note that a command was answered."""
        if link in self._failing:
            self._failing.remove(link)
            if not self._failing:
                events.store_back(process="worker")


class Question(Protocol):
    """What can be asked of Redis, and asked again: a script mostly."""

    async def call(self, wire: Wire, *args: bytes | str | float) -> Any:
        """Return the answer, over `wire`, which is open; raises RedisError or OSError."""


class Line:
    """One connection, opened when it is needed; each question has `patience` seconds in all."""

    def __init__(self, redis: Redis, patience: float) -> None:
        self._redis = redis
        self._patience = patience
        self._wire: Wire | None = None
        self._opening = asyncio.Lock()

    async def run(self, question: Question, *args: bytes | str | float) -> Any:
        """Return the answer; raises RedisError or OSError."""
        wire = self._wire
        if wire is None or not wire.alive:
            wire = await self._open()
        try:
            async with asyncio.timeout(self._patience):
                return await question.call(wire, *args)
        except (ReadOnlyError, MasterDownError):
            await wire.close()  # who is the master now, a new connection finds out
            raise
        except TimeoutError as error:
            await wire.close()  # what else waits on it hears so at once
            raise RedisTimeoutError(f"no answer within {self._patience:g} s") from error

    async def _open(self) -> Wire:
        async with self._opening:
            if self._wire is None or not self._wire.alive:
                await self._close_wire()
                self._wire = Wire(self._redis)
                await self._wire.open()
            return self._wire

    async def _close_wire(self) -> None:
        if self._wire is not None:
            wire, self._wire = self._wire, None
            with contextlib.suppress(Exception):
                await wire.close()

    async def close(self) -> None:
        """Close the connection."""
        await self._close_wire()
        with contextlib.suppress(Exception):
            await self._redis.aclose()


class Link:
    """One kind of call over `line`.

    `patient` may be set to False, to have `insist` fail from then on as `ask` does.
    """

    def __init__(self, line: Line, weather: Weather) -> None:
        self.patient = True
        self._line = line
        self._weather = weather

    async def ask(self, question: Question, *args: bytes | str | float) -> Any:
        """Return the answer; raises RedisError or OSError without a second attempt."""
        try:
            answer = await self._line.run(question, *args)
        except (RedisError, OSError) as error:
            self._weather.failed(self, error)
            raise
        self._weather.answered(self)
        return answer

    async def insist(self, question: Question, *args: bytes | str | float) -> Any:
        """Return the answer, however long Redis takes to come back."""
        pause = _FIRST_PAUSE_S
        while True:
            try:
                return await self.ask(question, *args)
            except (RedisError, OSError) as error:
                if not self.patient:
                    raise
                if not isinstance(error, RedisConnectionError | RedisTimeoutError | OSError):
                    pause = _LONGEST_PAUSE_S  # LOADING, MISCONF: an answer, but no
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_S)
