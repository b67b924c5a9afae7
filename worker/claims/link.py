"""A worker's connections to Redis: one each for what must not wait for the other.

Scripts are repeated here, and only here, until Redis answers; each can be repeated without harm.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from proxy.log import events
from proxy.queue.connection import cancellations
from worker.claims.scripts import Script

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


class Link:
    """One connection for one kind of call, opened when it is needed.

    `patient` may be set to False, to have `insist` fail from then on as `ask` does.
    """

    def __init__(self, connect: Callable[[], Redis], weather: Weather) -> None:
        self.patient = True
        self._redis = connect()
        self._weather = weather

    async def ask(self, script: Script, *args: bytes | str | float) -> Any:
        """Return the script's answer; raises RedisError or OSError without a second attempt."""
        cancelled_before = cancellations()
        try:
            answer = await script.run(self._redis, *args)
            if cancellations() > cancelled_before:
                raise asyncio.CancelledError
        except (RedisError, OSError) as error:
            self._weather.failed(self, error)
            # The answer may still be on its way: nothing else may read it from this connection.
            with contextlib.suppress(Exception):
                await self._redis.connection_pool.disconnect()
            raise
        self._weather.answered(self)
        return answer

    async def insist(self, script: Script, *args: bytes | str | float) -> Any:
        """Return the script's answer, however long Redis takes to come back."""
        pause = _FIRST_PAUSE_S
        while True:
            try:
                return await self.ask(script, *args)
            except (RedisError, OSError) as error:
                if not self.patient:
                    raise
                if not isinstance(error, RedisConnectionError | RedisTimeoutError | OSError):
                    pause = _LONGEST_PAUSE_S  # LOADING, READONLY, MISCONF: an answer, but no
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_S)

    async def close(self) -> None:
        """Close the connection."""
        with contextlib.suppress(Exception):
            await self._redis.aclose()
