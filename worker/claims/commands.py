"""What is published to a worker: that there is work, and what stock tools order it to do."""

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from proxy.log import events
from proxy.queue import keys
from proxy.queue.connection import end_if_cancelled
from proxy.queue.wire import Wire, pack

_CHANNEL = "rq:pubsub:"
_WAKE_CHANNEL = keys.WAKE_CHANNEL.encode()
_PATIENCE_S = 5.0
_PAUSE_S = 0.5


class Commands:
    """The subscription of one worker, made anew whenever it breaks or the worker's name changes.

    `wake` is called when there may be work, `shutdown` when a tool asks the worker to end, `stop`
    with the job's id for "stop-job", and with None, meaning every job, for "kill-horse".
    """

    def __init__(
        self,
        redis: Redis,
        *,
        wake: Callable[[], None],
        shutdown: Callable[[], None],
        stop: Callable[[str | None], None],
    ) -> None:
        self._redis = redis
        self._wake = wake
        self._shutdown = shutdown
        self._stop = stop
        self._turned = asyncio.Event()  # something changed for who waits in `_listen`
        self._renamed = self._broken = self._heard = False
        self._name = ""

    def listen_as(self, name: str) -> None:
        """Take commands for the worker `name` from now on."""
        self._name = name
        self._renamed = True
        self._turned.set()

    async def run(self) -> None:
        """Listen, until cancelled."""
        while True:
            wire = Wire(self._redis, self._hear)
            try:
                await self._listen(wire)
            except (RedisError, OSError):
                pass
            finally:
                with contextlib.suppress(Exception):
                    await wire.close()
            end_if_cancelled()
            if not self._renamed:
                await asyncio.sleep(_PAUSE_S)

    async def _listen(self, wire: Wire) -> None:
        self._renamed = self._broken = False
        await wire.open()
        wire.say(pack("SUBSCRIBE", keys.WAKE_CHANNEL, _CHANNEL + self._name))
        silent = 0
        while not self._renamed and not self._broken and silent < 2:
            self._turned.clear()
            self._heard = False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE_S):
                    await self._turned.wait()
            silent = 0 if self._heard else silent + 1
            if silent:
                wire.say(pack("PING"))

    def _hear(self, said: Any) -> None:
        self._heard = True
        if isinstance(said, Exception):  # refused, or the connection is lost
            self._broken = True
            self._turned.set()
        elif isinstance(said, list) and said[0] == b"subscribe":
            self._wake()  # what was published while nobody listened, up to now
        elif isinstance(said, list) and said[0] == b"message":
            self._take(said[1], said[2])

    def _take(self, channel: bytes, data: bytes) -> None:
        if channel == _WAKE_CHANNEL:
            self._wake()
            return
        try:
            order = json.loads(data)
            command = order["command"]
        except (ValueError, KeyError, TypeError) as error:
            events.defect("command", error=error)
            return
        events.notice(f"command from a tool: {command}")
        if command == "shutdown":
            self._shutdown()
        elif command == "stop-job" and isinstance(order.get("job_id"), str):
            self._stop(order["job_id"])
        elif command == "kill-horse":
            self._stop(None)

    async def close(self) -> None:
        """Close the connection."""
        with contextlib.suppress(Exception):
            await self._redis.aclose()
