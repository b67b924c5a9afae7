"""One connection to Redis for the group commit: packed commands out, replies in, nothing repeated.

It uses the client library's connection (TLS, login, Sentinel, protocol) without its client, whose
work for each command would cost more than the commit itself.
"""

import math
from collections.abc import Sequence
from typing import Any

import redis.asyncio
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

from proxy.queue.durability import SETTINGS, parse_info
from proxy.queue.scripts import Script


class StoreConnection:
    """A connection taken out of `redis`'s pool until `close`.

    Every call raises redis.exceptions.RedisError or OSError when it fails; after anything but a
    ResponseError the connection is of no use any more. Time limits are the caller's.
    """

    def __init__(self, redis: redis.asyncio.Redis) -> None:
        self._pool = redis.connection_pool
        self._connection: AbstractConnection | None = None

    async def open(self, scripts: Sequence[Script]) -> None:
        """Connect and let the server know `scripts`."""
        connection: AbstractConnection = await self._pool.get_connection()  # type: ignore[no-untyped-call]  # the library lacks the annotation
        self._connection = connection
        for script in scripts:
            await self.command("SCRIPT", "LOAD", script.text)

    async def call(self, packed: Sequence[bytes]) -> Any:
        """Send one command, packed for the wire, and return its reply."""
        assert self._connection is not None, "not open"
        await self._connection.send_packed_command(packed, check_health=False)
        return await self._connection.read_response(timeout=math.inf)

    async def call_replicated(
        self, packed: Sequence[bytes], replicas: int, within: float
    ) -> tuple[Any, bool]:
        """Send one command, packed; return its reply and whether so many replicas have it, too.

        They are given `within` seconds.
        """
        assert self._connection is not None, "not open"
        wait = self._connection.pack_command("WAIT", replicas, int(within * 1000))
        await self._connection.send_packed_command([*packed, *wait], check_health=False)
        try:
            reply = await self._connection.read_response(
                timeout=math.inf, disconnect_on_error=False
            )
        except ResponseError:
            await self._connection.read_response(timeout=math.inf)
            raise
        return reply, await self._connection.read_response(timeout=math.inf) >= replicas

    async def replicated(self, replicas: int, within: float) -> bool:
        """Return whether so many replicas have all that was written, within so many seconds."""
        if not replicas:
            return True
        found: int = await self.command("WAIT", str(replicas), str(int(within * 1000)))
        return found >= replicas

    async def command(self, *words: str) -> Any:
        """Send `words` as one command and return its reply."""
        assert self._connection is not None, "not open"
        return await self.call(self._connection.pack_command(*words))

    async def script(self, script: Script, keys: Sequence[str], *arguments: str) -> Any:
        """Run a script that `open` loaded."""
        return await self.command("EVALSHA", script.sha, str(len(keys)), *keys, *arguments)

    async def info(self) -> dict[str, str]:
        """Return the server's INFO."""
        text = await self.command("INFO")
        return parse_info(text if isinstance(text, bytes) else text.encode())

    async def settings(self) -> dict[str, str] | None:
        """Return those of the server's settings that matter; None when it forbids to read them."""
        found: dict[str, str] = {}
        for pattern in SETTINGS:
            try:
                reply = await self.command("CONFIG", "GET", pattern)
            except ResponseError:
                return None
            flat = reply if not isinstance(reply, dict) else [x for p in reply.items() for x in p]
            words = [word.decode() if isinstance(word, bytes) else str(word) for word in flat]
            found.update(zip(words[::2], words[1::2], strict=True))
        return found

    async def close(self) -> None:
        """Give the connection up at once, whatever is under way on it."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.disconnect(nowait=True)
            await self._pool.release(connection)
