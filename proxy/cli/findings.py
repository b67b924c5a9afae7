"""What `franker check` finds, and what of it the queue tells."""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

from proxy.cli.host import Host
from proxy.cli.store import TIMEOUT_S

if TYPE_CHECKING:
    import redis.asyncio

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. Only `state` "failed" makes the command fail."""

    what: str  # "configuration", "alerts", "store", "route NAME", "stream NAME", ...
    where: str
    state: Literal["ok", "note", "failed"]
    detail: str
    certificate_days: int | None = None


async def paused(host: Host) -> list[Finding]:
    """Say which routes the workers hold paused."""
    from proxy.queue.routes import paused_routes

    here = ("", socket.gethostname())
    return [
        Finding(
            f"route {name}", route.host, "failed" if route.where in here else "note", str(route)
        )
        for route in await _asked(host, paused_routes) or ()
        for name in route.streams
    ]


async def held(host: Host) -> list[Finding]:
    """Say what is held, by hand or for safety."""
    from proxy.cli.held import counted_holds

    found = await _asked(host, lambda client: counted_holds(client, None)) or ()
    return [Finding(f"hold {each.name}", "queue", "note", f"{each}; {n}") for each, n in found]


async def left_behind(host: Host) -> list[Finding]:
    """Say which streams have mail and are not configured (any more): nobody relays it."""
    from proxy.queue.depths import all_depths

    streams = list(host.settings.streams)
    depths = await _asked(host, lambda client: all_depths(client, streams, time.time())) or ()
    found = []
    for depth in depths:
        what, dead = f"stream {depth.stream}", depth.messages["dead"]
        count = sum(depth.messages.values()) - dead
        if depth.stream in host.settings.streams:
            continue
        if count:
            wait = "1 message waits" if count == 1 else f"{count:,} messages wait"
            kept = f" ({depth.messages['held']:,} held)" if depth.messages["held"] else ""
            detail = f"{wait}{kept}, and no such stream is configured"
            if depth.unserved:
                detail += "; it goes when [streams] names it"
                found.append(Finding(what, "queue", "failed", detail))
            else:
                detail += " here; workers elsewhere serve it"
                found.append(Finding(what, "queue", "note", detail))
        if dead:
            letters = "1 dead letter is" if dead == 1 else f"{dead:,} dead letters are"
            detail = f"{letters} kept, and no such stream is configured; see `franker queue dead`"
            found.append(Finding(what, "queue", "note", detail))
    return found


async def _asked(
    host: Host, ask: "Callable[[redis.asyncio.Redis], Awaitable[_Answer]]"
) -> _Answer | None:
    """Return what Redis answers; None where it does not: that is the store's own finding."""
    from redis.exceptions import RedisError

    from proxy.queue.connection import open_redis

    try:
        client = open_redis(host.settings, host.data_dir, timeout=TIMEOUT_S)
    except ValueError:
        return None
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await ask(client)
    except (RedisError, OSError, TimeoutError):
        return None
    finally:
        await client.aclose()
