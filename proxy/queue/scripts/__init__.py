"""The scripts that Redis runs for us, each with the names of keys put before it."""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources

from proxy.queue import keys


@dataclass(frozen=True, slots=True)
class Script:
    """One Lua script as Redis is given it, and the SHA-1 by which EVALSHA names it."""

    text: str
    sha: str


# So that keys.py stays the one source of names. These are prefixes: JOB .. id, QUEUE .. name.
_NAMES = {
    "TASK": keys.TASK,
    "QUEUES": keys.QUEUES,
    "WAKE_CHANNEL": keys.WAKE_CHANNEL,
    "JOB": keys.job_key(""),
    "NEW": keys.new_key(""),
    "QUEUE": keys.queue_key("").removesuffix(keys.QUEUE_PREFIX),
    "STARTED": keys.started_key("").removesuffix(keys.QUEUE_PREFIX),
    "SCHEDULED": keys.scheduled_key("").removesuffix(keys.QUEUE_PREFIX),
    "FAILED": keys.failed_key("").removesuffix(keys.QUEUE_PREFIX),
    "DEFERRED": keys.deferred_key(""),
    "HELD": keys.held_key("").removesuffix(keys.QUEUE_PREFIX),
    "RESULTS": keys.results_key(""),
    "WORKERS": keys.WORKERS,
    "PROCESSES": keys.PROCESSES,
    "GRANTS": keys.GRANTS,
    "HOLDS": keys.HOLDS,
    "ROUTES": keys.ROUTES,
    "TURN": keys.TURN,
    "STORE": keys.STORE,
    "DISCARDED": keys.DISCARDED,
    "UNTOLD": keys.untold_key(""),
    "TOLD": keys.TOLD,
    "BY_HAND": keys.BY_HAND,
    "ONCE": keys.ONCE,
    "ALERTS": keys.ALERTS,
    "QUEUE_PREFIX": keys.QUEUE_PREFIX,
}
_PRELUDE = "".join(f"local {name} = '{value}'\n" for name, value in _NAMES.items())


def holding() -> str:
    """Return the Lua words about holds; they need the name HOLDS."""
    return resources.files(__name__).joinpath("holding.lua").read_text("utf-8")


@cache
def load(name: str, package: str = __name__) -> Script:
    """Return the script `name`.lua of `package`, with the names of keys as Lua locals.

    Its first lines may say more: "#!lua flags=..." for Redis (with allow-oom it runs on a server
    that is out of memory, too: it settles things, or writes little that leads to that), and
    "-- with: holding" that it needs the words about holds.
    """
    own = resources.files(package).joinpath(f"{name}.lua").read_text("utf-8")
    flags = ""
    if own.startswith("#!"):
        flags, _, own = own.partition("\n")
        flags += "\n"
    words = holding() if own.startswith("-- with: holding\n") else ""
    text = flags + _PRELUDE + words + own
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
