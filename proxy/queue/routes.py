"""Routes that are paused, as all workers of a Redis, and the operator's commands, see them.

A worker writes and reads these records with its heartbeat (worker/claims/scripts/beat.lua). One is
there while the route is paused: under the route's name what concerns its account, for everybody;
under the name, "@" and a host what only the workers of that host suffer from.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import redis.asyncio

from proxy.queue import keys


@dataclass(frozen=True, slots=True)
class PausedRoute:
    """Why mail of `streams` does not leave. Times are seconds since 1970 by Redis's clock.

    `host` is Postmark's; `where` the host whose workers are concerned, "" for all. `probing`: a
    worker tries it just now; else the next try is at `probe_at`.
    """

    streams: tuple[str, ...]
    reason: str
    detail: str
    host: str
    where: str
    since: float
    probe_at: float
    probing: bool

    def __str__(self) -> str:
        """Say it in one line, without times."""
        concerned = f" for the workers on {self.where}" if self.where else ""
        return f"paused{concerned} ({self.reason}): {self.detail}"


def paused_route(record: Mapping[str, Any]) -> PausedRoute:
    """Return what a record says; what it lacks is left empty."""
    return PausedRoute(
        streams=tuple(map(str, record.get("streams") or ())),
        reason=str(record.get("reason", "")),
        detail=str(record.get("detail", "")),
        host=str(record.get("host", "")),
        where=str(record.get("where", "")),
        since=float(record.get("since", 0)),
        probe_at=float(record.get("probe_at", 0)),
        probing=bool(record.get("prober")),
    )


async def paused_routes(client: redis.asyncio.Redis) -> tuple[PausedRoute, ...]:
    """Return all that are paused now, by stream.

    Raises:
        redis.exceptions.RedisError: Redis is away.
    """
    found = await client.hvals(keys.ROUTES)
    routes = [paused_route(json.loads(one)) for one in found]
    return tuple(sorted(routes, key=lambda route: (route.streams, route.where)))
