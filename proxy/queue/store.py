"""One connection to Redis for the group commit: nothing is repeated on it."""

import asyncio
from collections.abc import Sequence
from typing import Any

import redis.asyncio
from redis.exceptions import ResponseError

from proxy.queue.durability import SETTINGS, parse_info
from proxy.queue.scripts import Script
from proxy.queue.wire import Packed, Wire, pack


class StoreConnection:
    """A connection taken out of `redis`'s pool until `close`.

    Every call raises redis.exceptions.RedisError or OSError when it fails; after anything but a
    ResponseError the connection is of no use any more. Time limits are the caller's.
    """

    def __init__(self, redis: redis.asyncio.Redis) -> None:
        self._wire = Wire(redis)

    async def open(self, scripts: Sequence[Script]) -> None:
        """Connect and let the server know `scripts`."""
        await self._wire.open()
        for script in scripts:
            await self.command("SCRIPT", "LOAD", script.text)

    async def call(self, packed: Packed) -> Any:
        """Send a script's call and return what it said."""
        return packed.said(await self._wire.call(packed.octets, packed.replies))

    async def call_replicated(
        self, packed: Packed, replicas: int, within: float
    ) -> tuple[Any, bool]:
        """Send a script's call; return what it said and whether so many replicas have it, too.

        They are given `within` seconds.
        """
        reply = self._wire.call(packed.octets, packed.replies)
        copies = self._wire.call(pack("WAIT", replicas, int(within * 1000)))
        await asyncio.wait((reply, copies))
        return packed.said(reply.result()), copies.result() >= replicas

    async def replicated(self, replicas: int, within: float) -> bool:
        """Return whether so many replicas have all that was written, within so many seconds."""
        if not replicas:
            return True
        found: int = await self.command("WAIT", str(replicas), str(int(within * 1000)))
        return found >= replicas

    async def command(self, *words: str) -> Any:
        """Send `words` as one command and return its reply."""
        return await self._wire.call(pack(*words))

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
        await self._wire.close()
