"""How much mail waits, for the metrics: counted in Redis, at most a few hundred ids looked at."""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any

import redis.asyncio
from redis.exceptions import RedisError

from proxy.mail.ids import LENGTH, accepted_ms
from proxy.metrics.depths import Depth, QueueDepths
from proxy.queue import keys
from proxy.queue.connection import end_if_cancelled
from proxy.queue.holds import holds_of
from proxy.queue.inventory import known_streams

FEED_EVERY_S = 5.0
_LOOKED_AT = 100  # ids at either end of a queue


async def read_depths(
    redis: redis.asyncio.Redis, streams: Sequence[str], now: float
) -> tuple[Depth, ...]:
    """Return the depth of each of `streams` at `now` (seconds since 1970).

    The oldest message is looked for at both ends of the queue (deferred ones come back at the
    tail), among those being sent and the deferred, not among those that are held. One that a person
    sent to be tried again has a new clock, which its id does not tell: it is left out while it is
    queued.

    Raises:
        redis.exceptions.RedisError: Redis is away.
    """
    if not streams:
        return ()
    pipeline = redis.pipeline(transaction=False)
    for stream in streams:
        pipeline.llen(keys.queue_key(stream))
        pipeline.zcard(keys.started_key(stream))
        pipeline.zcard(keys.scheduled_key(stream))
        pipeline.zcard(keys.failed_key(stream))
        pipeline.lrange(keys.queue_key(stream), 0, _LOOKED_AT - 1)
        pipeline.lrange(keys.queue_key(stream), -_LOOKED_AT, -1)
        pipeline.zrange(keys.started_key(stream), 0, _LOOKED_AT - 1)
        pipeline.zrange(keys.deferred_key(stream), 0, 0, withscores=True)
        pipeline.zcard(keys.held_key(stream))
    pipeline.hmget(keys.DISCARDED, list(streams))
    pipeline.hgetall(keys.HOLDS)
    replies: list[Any] = await pipeline.execute()
    holds = holds_of(replies.pop())
    discarded = replies.pop()
    depths = []
    for stream, thrown in zip(streams, discarded, strict=True):
        queued, started, deferred, dead, head, tail, claims, late, held = replies[:9]
        del replies[:9]
        times = [*_times(head), *_times(tail), *_times(claim.split(b":")[0] for claim in claims)]
        times += [score for _, score in late if score > 0]
        if any(hold.takes_stream(stream) for hold in holds):
            queued, held = 0, held + queued
            times = _times(claim.split(b":")[0] for claim in claims)
        depths.append(
            Depth(
                stream,
                {
                    "queued": queued,
                    "started": started,
                    "deferred": deferred,
                    "held": held,
                    "dead": dead,
                },
                max(0.0, now - min(times) / 1000) if times else 0.0,
                int(thrown or 0),
            )
        )
    return tuple(depths)


async def all_depths(
    redis: redis.asyncio.Redis, configured: Collection[str], now: float
) -> tuple[Depth, ...]:
    """Return the depth of each stream `configured`, and of each other one that has mail.

    Raises:
        redis.exceptions.RedisError: Redis is away.
    """
    others = [name for name in await known_streams(redis) if name not in configured]
    depths = await read_depths(redis, [*configured, *others], now)
    ours, strange = depths[: len(configured)], depths[len(configured) :]
    strange = tuple(depth for depth in strange if any(depth.messages.values()))
    if not strange:
        return ours
    pipeline = redis.pipeline(transaction=False)
    for depth in strange:
        pipeline.exists(keys.workers_key(depth.stream))
    served: list[int] = await pipeline.execute()
    return ours + tuple(
        replace(depth, unserved=not somebody)
        for depth, somebody in zip(strange, served, strict=True)
    )


def _times(ids: Iterable[bytes]) -> list[int]:
    times = []
    for job_id in ids:
        if len(job_id) == LENGTH:
            with contextlib.suppress(ValueError):
                times.append(accepted_ms(job_id.decode()))
    return times


async def feed_depths(
    shown: QueueDepths,
    redis: redis.asyncio.Redis,
    streams: Collection[str],
    *,
    clock: Callable[[], float],
    every: float = FEED_EVERY_S,
) -> None:
    """Show the depths of `streams` and of others with mail, anew each `every` s, until cancelled.

    `clock` returns the seconds since 1970. While Redis is away nothing is shown.
    """
    while True:
        try:
            shown.feed(await all_depths(redis, list(streams), clock()))
        except (RedisError, OSError):
            shown.forget()
        end_if_cancelled()
        await asyncio.sleep(every)
