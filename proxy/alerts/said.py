"""What was said already, by any process on the same Redis: so that people hear it once."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import redis.asyncio
from redis.exceptions import NoScriptError, RedisError

from proxy.queue import keys
from proxy.queue.scripts import load


class Said:
    """The record in Redis. While that is away everything is to be said: twice is better than never.

    No method raises.
    """

    def __init__(self, client: redis.asyncio.Redis) -> None:
        """`client` should wait for an answer a short time only."""
        self._redis = client
        self._script = load("said", __package__)
        self._unrecorded: set[str] = set()  # said here while Redis was away

    async def standing(self) -> dict[str, str] | None:
        """Return the headlines of what is said to be wrong, by key; None: Redis is away."""
        try:
            found: Any = await self._redis.hgetall(keys.ALERTS)
            return {key.decode(): str(json.loads(one)["headline"]) for key, one in found.items()}
        except (RedisError, OSError, ValueError, LookupError):
            return None

    async def say(self, key: str, headline: str, lasts: float) -> float:
        """Return 0 when it is to be said now, else for how many seconds it needs no word more.

        Said now, it is said for all for `lasts` seconds.
        """
        try:
            left = float(await self._run("say", key, headline, lasts) or 0)
        except (RedisError, OSError):
            self._unrecorded.add(key)
            return 0.0
        self._unrecorded.discard(key)
        return left

    async def over(self, key: str) -> bool:
        """Return whether its end is to be said now."""
        try:
            return bool(await self._run("over", key)) or key in self._unrecorded
        except (RedisError, OSError):
            return True
        finally:
            self._unrecorded.discard(key)

    async def _run(self, *words: str | float) -> Any:
        execute: Callable[..., Awaitable[Any]] = self._redis.execute_command
        try:
            return await execute("EVALSHA", self._script.sha, 0, *words)
        except NoScriptError:
            return await execute("EVAL", self._script.text, 0, *words)
