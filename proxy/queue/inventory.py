"""What an operator may see of the queue, while proxy and worker run: list, show.

All of it raises redis.exceptions.RedisError when Redis is away.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar, get_args

import redis.asyncio

from proxy.queue import keys
from proxy.queue.connection import plain
from proxy.queue.holds import standing_holds, taken_by
from proxy.queue.job import JobDecodeError, JobEnvelope, decode_envelope

State: TypeAlias = Literal["queued", "started", "deferred", "held", "dead"]
STATES: tuple[State, ...] = get_args(State)

BITE = 200
_WITH_HELD: tuple[State, ...] = ("held", "queued", "deferred")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Entry:
    """One job as it stands. `envelope` is None when this version cannot read it.

    `size` is in octets of the body; `due` is when a deferred one is tried again (seconds since
    1970), else None. `hold` is the name of the hold that keeps it; "" for none.
    """

    id: str
    stream: str
    state: State
    envelope: JobEnvelope | None
    size: int
    due: float | None = None
    hold: str = ""


async def known_streams(redis: redis.asyncio.Redis) -> tuple[str, ...]:
    """Return the streams that have, or had, mail: those of the configuration may be fewer."""
    names: set[bytes] = await plain(redis).smembers(keys.QUEUES)
    streams = (keys.stream_of(name.decode("utf-8", "replace")) for name in names)
    return tuple(sorted(stream for stream in streams if stream))


async def entries(
    redis: redis.asyncio.Redis,
    streams: Sequence[str],
    states: Sequence[State] = STATES,
    *,
    most: int | None = None,
) -> AsyncIterator[Entry]:
    """Yield the jobs of `streams` that are in one of `states`, each stream's in that order.

    Queued ones come as they will be sent, deferred ones as they are due, held ones by age. At most
    `most` of each stream and state. A job that ends, or is put elsewhere, meanwhile may be left out
    or come twice. What is held counts so wherever it waits, for its turn or until it is due.
    """
    any_holds = bool(await standing_holds(redis))
    for stream in streams:
        for state in states:
            count = 0
            for place in _WITH_HELD if any_holds and state == "held" else (state,):
                async for entry in _found_in(redis, stream, place, any_holds=any_holds):
                    if count == most:
                        break
                    if entry.state == state:
                        count += 1
                        yield entry


async def _found_in(
    redis: redis.asyncio.Redis, stream: str, place: State, *, any_holds: bool
) -> AsyncIterator[Entry]:
    for bite in bites(await _places(redis, stream, place), BITE):
        pipeline = redis.pipeline(transaction=False)
        for job_id, _ in bite:
            pipeline.hget(keys.job_key(job_id), "envelope")
            pipeline.hstrlen(keys.job_key(job_id), "body")
        replies: list[Any] = await pipeline.execute()
        holds = [""] * len(bite)
        if any_holds and place in _WITH_HELD:
            holds = await taken_by(redis, stream, [job_id for job_id, _ in bite])
        for (job_id, due), envelope, size, hold in zip(
            bite, replies[::2], replies[1::2], holds, strict=True
        ):
            if envelope is not None:
                state: State = "held" if hold and place in _WITH_HELD else place
                yield Entry(job_id, stream, state, readable_envelope(envelope), size, due, hold)


async def _places(
    redis: redis.asyncio.Redis, stream: str, state: State
) -> list[tuple[str, float | None]]:
    if state == "queued":
        ids: list[bytes] = await plain(redis).lrange(keys.queue_key(stream), 0, -1)
        return [(job_id.decode(), None) for job_id in ids]
    if state == "started":
        claims: list[bytes] = await plain(redis).zrange(keys.started_key(stream), 0, -1)
        return [(claim.decode().partition(":")[0], None) for claim in claims]
    if state == "held":
        ids = await plain(redis).zrange(keys.held_key(stream), 0, -1)
        return [(job_id.decode(), None) for job_id in ids]
    if state == "dead":
        ids = await plain(redis).zrange(keys.failed_key(stream), 0, -1)
        return [(job_id.decode(), None) for job_id in ids]
    scored = await plain(redis).zrange(keys.scheduled_key(stream), 0, -1, withscores=True)
    return [(job_id.decode(), float(due)) for job_id, due in scored]


def readable_envelope(envelope: bytes) -> JobEnvelope | None:
    """Return an envelope as it is kept; None when this version cannot read it."""
    try:
        return decode_envelope(envelope)
    except JobDecodeError:
        return None


async def find(redis: redis.asyncio.Redis, job_id: str) -> Entry | None:
    """Return the job `job_id` as it stands; None when there is no such job (any more)."""
    job = keys.job_key(job_id)
    origin, status, envelope = await plain(redis).hmget(job, ["origin", "status", "envelope"])
    if origin is None or envelope is None:
        return None
    stream = keys.stream_of(origin.decode())
    if stream is None:
        return None
    size: int = await plain(redis).hstrlen(job, "body")
    due: float | None = await plain(redis).zscore(keys.scheduled_key(stream), job_id)
    state = _STATES_OF_RQ.get((status or b"").decode(), "queued")
    hold = ""
    if state in _WITH_HELD:
        [hold] = await taken_by(redis, stream, [job_id])
    if hold:
        state = "held"
    return Entry(job_id, stream, state, readable_envelope(envelope), size, due, hold)


_STATES_OF_RQ: dict[str, State] = {
    "queued": "queued",
    "started": "started",
    "scheduled": "deferred",
    "deferred": "held",
    "failed": "dead",
    "stopped": "dead",
}


async def read_body(redis: redis.asyncio.Redis, job_id: str) -> bytes | None:
    """Return the message of a job as it goes to Postmark; None when there is no such job."""
    body: bytes | None = await plain(redis).hget(keys.job_key(job_id), "body")
    return body


async def refused(redis: redis.asyncio.Redis, job_ids: Sequence[str]) -> frozenset[str]:
    """Return those of the jobs that were refused when they were handed in, and never rewritten."""
    found = set()
    for bite in bites(job_ids, BITE):
        pipeline = redis.pipeline(transaction=False)
        for job_id in bite:
            pipeline.hget(keys.job_key(job_id), "envelope")
        octets: list[bytes | None] = await pipeline.execute()
        envelopes = [readable_envelope(one) if one else None for one in octets]
        found |= {one for one, its in zip(bite, envelopes, strict=True) if its and its.refused}
    return frozenset(found)


async def parts(redis: redis.asyncio.Redis, message_id: str) -> tuple[Entry, ...]:
    """Return the jobs split off a message: recipients that are asked for, then those that died."""
    streams = await known_streams(redis)
    found = [
        entry
        async for entry in entries(redis, streams, ("started", "deferred", "held", "dead"))
        if entry.id.partition("-")[0] == message_id
    ]
    return tuple(found)


def bites(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    """Yield `items` in parts of at most `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
