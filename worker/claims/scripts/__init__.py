"""The Lua scripts of a worker's life, each one step that happens whole or not at all.

Every script is one text for Redis: a line that lets it run while Redis is out of memory (what
settles mail frees memory), the names of the keys out of `proxy.queue.keys`, the words all scripts
share (common.lua), for those that claim the words about holds, then its own.
"""

import hashlib
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from proxy.queue import keys
from proxy.queue.holds import RESTORED
from proxy.queue.scripts import holding
from proxy.queue.wire import Wire, pack
from worker.claims.identity import OURS

_NAMES = {
    "QUEUE": keys.queue_key(""),
    "JOB": keys.job_key(""),
    "STARTED": keys.started_key(""),
    "SCHEDULED": keys.scheduled_key(""),
    "FAILED": keys.failed_key(""),
    "DEFERRED": keys.deferred_key(""),
    "HELD": keys.held_key(""),
    "HOLDS": keys.HOLDS,
    "STORE": keys.STORE,
    "RESTORED": RESTORED,
    "RESULTS": keys.results_key(""),
    "UNTOLD": keys.untold_key(""),
    "TOLD": keys.TOLD,
    "QUEUE_NAME": keys.queue_name(""),
    "QUEUES": keys.QUEUES,
    "WORKERS": keys.WORKERS,
    "PROCESSES": keys.PROCESSES,
    "GRANTS": keys.GRANTS,
    "WORKER": keys.worker_key(""),
    "SUSPENDED": keys.SUSPENDED,
    "WAKE": keys.WAKE_CHANNEL,
    "TASK": keys.TASK,
    "ROUTES": keys.ROUTES,
    "REFUSALS": keys.REFUSALS,
    "APIS": keys.APIS,
    "OURS": OURS,
}


def _text(name: str) -> str:
    return (files(__name__) / f"{name}.lua").read_text(encoding="utf-8")


class Script:
    """One script, sent by its hash, and as text to a Redis that does not know it (yet, again)."""

    def __init__(self, name: str) -> None:
        names = "".join(f"local {key} = '{value}'\n" for key, value in _NAMES.items())
        words = _text("common") + (holding() if name in ("claim", "take") else "")
        self._text = "#!lua flags=allow-oom\n" + names + words + _text(name)
        self.sha = hashlib.sha1(self._text.encode(), usedforsecurity=False).hexdigest()

    async def run(self, redis: Redis, *args: bytes | str | float) -> Any:
        """Return what the script answers to `args`; raises what redis-py raises, never repeats."""
        execute: Callable[..., Awaitable[Any]] = redis.execute_command
        try:
            return await execute("EVALSHA", self.sha, 0, *args)
        except NoScriptError:
            return await execute("EVAL", self._text, 0, *args)

    async def call(self, wire: Wire, *args: bytes | str | float) -> Any:
        """Return what the script answers to `args`, over `wire`, which is open."""
        try:
            return await wire.call(pack("EVALSHA", self.sha, 0, *args))
        except NoScriptError:
            return await wire.call(pack("EVAL", self._text, 0, *args))


CLAIM = Script("claim")
TAKE = Script("take")
ENDING = Script("ending")
SETTLE = Script("settle")
REGISTER = Script("register")
BEAT = Script("beat")
REAP = Script("reap")
SWEEP = Script("sweep")
KEEP_TO = Script("keep_to")
