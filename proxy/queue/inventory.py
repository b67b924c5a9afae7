"""What an operator may see of the queue, and do with it: list, show, retry, delete.

Everything works while proxy and worker run. What changes the queue is one script for each bite of
jobs, so that no job is ever in two places, or in none. All of it raises
redis.exceptions.RedisError when Redis is away.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, TypeVar, get_args

import redis.asyncio

from proxy.queue import keys
from proxy.queue.by_hand import note
from proxy.queue.job import (
    JobDecodeError,
    JobEnvelope,
    RelayJob,
    decode_envelope,
    encode_envelope,
)
from proxy.queue.scripts import load

State: TypeAlias = Literal["queued", "started", "deferred", "dead"]
STATES: tuple[State, ...] = get_args(State)
Retried: TypeAlias = Literal["retried", "queued", "sending", "changed", "absent"]
Rerouted: TypeAlias = Literal["retried", "not_dead", "changed", "absent"]
Deleted: TypeAlias = Literal["deleted", "sending", "absent"]

_BITE = 200
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Entry:
    """One job as it stands. `envelope` is None when this version cannot read it.

    `size` is in octets of the body; `due` is when a deferred one is tried again (seconds since
    1970), else None.
    """

    id: str
    stream: str
    state: State
    envelope: JobEnvelope | None
    size: int
    due: float | None = None


async def known_streams(redis: redis.asyncio.Redis) -> tuple[str, ...]:
    """Return the streams that have, or had, mail: those of the configuration may be fewer."""
    names: set[bytes] = await _plain(redis).smembers(keys.QUEUES)
    streams = (keys.stream_of(name.decode()) for name in names)
    return tuple(sorted(stream for stream in streams if stream))


async def entries(
    redis: redis.asyncio.Redis,
    streams: Sequence[str],
    states: Sequence[State] = STATES,
    *,
    most: int | None = None,
) -> AsyncIterator[Entry]:
    """Yield the jobs of `streams` that are in one of `states`, each stream's in that order.

    Queued ones come as they will be sent, deferred ones as they are due. At most `most` of each
    stream and state. A job that ends, or is put elsewhere, meanwhile may be left out or come twice.
    """
    for stream in streams:
        for state in states:
            places = await _places(redis, stream, state, most)
            for bite in _bites(places, _BITE):
                pipeline = redis.pipeline(transaction=False)
                for job_id, _ in bite:
                    pipeline.hget(keys.job_key(job_id), "envelope")
                    pipeline.hstrlen(keys.job_key(job_id), "body")
                replies: list[Any] = await pipeline.execute()
                for (job_id, due), envelope, size in zip(
                    bite, replies[::2], replies[1::2], strict=True
                ):
                    if envelope is not None:
                        yield Entry(job_id, stream, state, _readable(envelope), size, due)


async def _places(
    redis: redis.asyncio.Redis, stream: str, state: State, most: int | None
) -> list[tuple[str, float | None]]:
    last = -1 if most is None else most - 1
    if most == 0:
        return []
    if state == "queued":
        ids: list[bytes] = await _plain(redis).lrange(keys.queue_key(stream), 0, last)
        return [(job_id.decode(), None) for job_id in ids]
    if state == "started":
        claims: list[bytes] = await _plain(redis).zrange(keys.started_key(stream), 0, last)
        return [(claim.decode().partition(":")[0], None) for claim in claims]
    if state == "dead":
        ids = await _plain(redis).zrange(keys.failed_key(stream), 0, last)
        return [(job_id.decode(), None) for job_id in ids]
    scored = await _plain(redis).zrange(keys.scheduled_key(stream), 0, last, withscores=True)
    return [(job_id.decode(), float(due)) for job_id, due in scored]


def _readable(envelope: bytes) -> JobEnvelope | None:
    try:
        return decode_envelope(envelope)
    except JobDecodeError:
        return None


async def find(redis: redis.asyncio.Redis, job_id: str) -> Entry | None:
    """Return the job `job_id` as it stands; None when there is no such job (any more)."""
    job = keys.job_key(job_id)
    origin, status, envelope = await _plain(redis).hmget(job, ["origin", "status", "envelope"])
    if origin is None or envelope is None:
        return None
    stream = keys.stream_of(origin.decode())
    if stream is None:
        return None
    size: int = await _plain(redis).hstrlen(job, "body")
    due: float | None = await _plain(redis).zscore(keys.scheduled_key(stream), job_id)
    state = _STATES_OF_RQ.get((status or b"").decode(), "queued")
    return Entry(job_id, stream, state, _readable(envelope), size, due)


_STATES_OF_RQ: dict[str, State] = {
    "queued": "queued",
    "started": "started",
    "scheduled": "deferred",
    "failed": "dead",
    "stopped": "dead",
}


async def read_body(redis: redis.asyncio.Redis, job_id: str) -> bytes | None:
    """Return the message of a job as it goes to Postmark; None when there is no such job."""
    body: bytes | None = await _plain(redis).hget(keys.job_key(job_id), "body")
    return body


async def parts(redis: redis.asyncio.Redis, message_id: str) -> tuple[Entry, ...]:
    """Return the jobs split off a message: recipients that are asked for, then those that died."""
    streams = await known_streams(redis)
    found = [
        entry
        async for entry in entries(redis, streams, ("started", "deferred", "dead"))
        if entry.id.partition("-")[0] == message_id
    ]
    return tuple(found)


async def retry(
    redis: redis.asyncio.Redis, job_ids: Iterable[str], *, now: float
) -> dict[str, Retried]:
    """Put jobs at their queues' tails and return what became of each.

    A dead one starts a new clock: no attempts, no age, its rule's time to expire anew. A deferred
    one is only tried earlier.
    """
    script = redis.register_script(load("retry").text)
    outcome: dict[str, Retried] = {}
    for bite in _bites(list(dict.fromkeys(job_ids)), _BITE):
        pipeline = redis.pipeline(transaction=False)
        for job_id in bite:
            pipeline.hmget(keys.job_key(job_id), ["envelope", "origin"])
        found: list[list[bytes | None]] = await pipeline.execute()
        envelopes = [each[0] for each in found]
        origins = {job_id: each[1] for job_id, each in zip(bite, found, strict=True)}
        words: list[bytes | str] = []
        for job_id, old in zip(bite, envelopes, strict=True):
            envelope = _readable(old) if old else None
            said = note("retried", job_id, _stream_in(origins.get(job_id)), envelope)
            words += [job_id, old or b"", _new_clock(old or b"", now), said]
        answers: list[bytes] = await script(args=words)
        for job_id, answer in zip(bite, answers, strict=True):
            outcome[job_id] = _one_of(answer.decode(), Retried)
    return outcome


async def reroute(
    redis: redis.asyncio.Redis,
    job_ids: Iterable[str],
    judge: Callable[[str, JobEnvelope, bytes], RelayJob | str],
) -> dict[str, str]:
    """Put dead letters, as `judge` has them now, at the tails of the queues that it chooses.

    `judge` is given id, envelope and message of each. Returns what became of each: one of
    `Rerouted`, or the words of `judge` on a letter that stays dead.
    """
    script = redis.register_script(load("reroute").text)
    outcome: dict[str, str] = {}
    for job_id in dict.fromkeys(job_ids):
        # One at a time: of large messages many do not fit in memory.
        job = keys.job_key(job_id)
        status, octets, body = await _plain(redis).hmget(job, ["status", "envelope", "body"])
        envelope = None if octets is None else _readable(octets)
        if octets is None or body is None:
            outcome[job_id] = "absent"
        elif status != b"failed":
            outcome[job_id] = "not_dead"
        elif envelope is None:
            outcome[job_id] = "it was written by a later version of Franker"
        else:
            anew = judge(job_id, envelope, body)
            if isinstance(anew, str):
                outcome[job_id] = anew
                continue
            queue = keys.queue_name(anew.stream)
            said = note("retried", job_id, anew.stream, anew.envelope)
            words = [job_id, octets, queue, encode_envelope(anew.envelope), anew.body, said]
            [answer] = await script(args=words)
            outcome[job_id] = _one_of(answer.decode(), Rerouted)
    return outcome


async def refused(redis: redis.asyncio.Redis, job_ids: Iterable[str]) -> list[str]:
    """Return those of the jobs that were refused when they were handed in, and never rewritten."""
    found: list[str] = []
    for bite in _bites(list(dict.fromkeys(job_ids)), _BITE):
        pipeline = redis.pipeline(transaction=False)
        for job_id in bite:
            pipeline.hget(keys.job_key(job_id), "envelope")
        replies: list[bytes | None] = await pipeline.execute()
        for job_id, octets in zip(bite, replies, strict=True):
            envelope = _readable(octets) if octets else None
            if envelope is not None and envelope.refused:
                found.append(job_id)
    return found


def _stream_in(origin: bytes | None) -> str:
    return keys.stream_of((origin or b"").decode()) or ""


def _new_clock(octets: bytes, now: float) -> bytes:
    envelope = _readable(octets)
    if envelope is None:
        return octets  # a later version's: it goes as it is
    expires_at = envelope.expires_at
    if expires_at is not None:
        expires_at = now + max(0.0, expires_at - envelope.accepted_at)
    return encode_envelope(
        replace(envelope, accepted_at=now, attempts=0, waited=0.0, expires_at=expires_at)
    )


async def delete(redis: redis.asyncio.Redis, job_ids: Iterable[str]) -> dict[str, Deleted]:
    """Delete jobs for good and return what became of each; one that is being sent stays.

    A proxy logs each with its recipients (see by_hand), and they are counted: discarded by hand.
    """
    script = redis.register_script(load("delete").text)
    outcome: dict[str, Deleted] = {}
    for bite in _bites(list(dict.fromkeys(job_ids)), _BITE):
        found = {job_id: await find(redis, job_id) for job_id in bite}
        words: list[str | int] = []
        for job_id, entry in found.items():
            envelope = entry.envelope if entry else None
            said = note("discarded", job_id, entry.stream if entry else "", envelope)
            words += [job_id, len(envelope.recipients) if envelope else 1, said]
        answers: list[bytes] = await script(args=words)
        for job_id, answer in zip(found, answers, strict=True):
            outcome[job_id] = _one_of(answer.decode(), Deleted)
    return outcome


def _plain(redis: redis.asyncio.Redis) -> Any:
    """Return `redis` without the library's types: they allow decoded replies, ours are octets."""
    return redis


def _one_of(word: str, words: Any) -> Any:
    assert word in get_args(words), f"the script answered {word!r}"
    return word


def _bites(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
