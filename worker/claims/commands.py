"""What is published to a worker: that there is work, and what stock tools order it to do."""

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from proxy.log import events
from proxy.queue import keys
from proxy.queue.connection import cancellations

_CHANNEL = "rq:pubsub:"
_PATIENCE_S = 5.0
_PAUSE_S = 0.5


class Commands:
    """The subscription of one worker, made anew whenever it breaks or the worker's name changes.

    `wake` is called when there may be work, `shutdown` when a tool asks the worker to end, `stop`
    with the job's id for "stop-job", and with None, meaning every job, for "kill-horse".
    """

    def __init__(
        self,
        connect: Callable[[], Redis],
        *,
        wake: Callable[[], None],
        shutdown: Callable[[], None],
        stop: Callable[[str | None], None],
    ) -> None:
        self._redis = connect()
        self._wake = wake
        self._shutdown = shutdown
        self._stop = stop
        self._renamed = asyncio.Event()
        self._name = ""

    def listen_as(self, name: str) -> None:
        """Take commands for the worker `name` from now on."""
        self._name = name
        self._renamed.set()

    async def run(self) -> None:
        """Listen, until cancelled."""
        while not cancellations():
            pubsub = self._redis.pubsub()
            try:
                await self._listen(pubsub)
            except (RedisError, OSError):
                pass
            finally:
                with contextlib.suppress(Exception):
                    await pubsub.aclose()  # type: ignore[no-untyped-call] # unannotated in redis-py
            if not self._renamed.is_set() and not cancellations():
                await asyncio.sleep(_PAUSE_S)

    async def _listen(self, pubsub: PubSub) -> None:
        self._renamed.clear()
        await pubsub.subscribe(keys.WAKE_CHANNEL, _CHANNEL + self._name)
        self._wake()  # what was published while nobody listened
        while not self._renamed.is_set() and not cancellations():
            message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=_PATIENCE_S)
            if message is None:
                await pubsub.ping()
            elif message["type"] == "message":
                self._take(message)

    def _take(self, message: dict[str, Any]) -> None:
        if message["channel"] == keys.WAKE_CHANNEL.encode():
            self._wake()
            return
        try:
            order = json.loads(message["data"])
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
