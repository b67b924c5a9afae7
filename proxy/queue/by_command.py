"""What an operator may do with messages, while proxy and worker run: retry, reroute, delete.

What changes the queue is one script for each bite of jobs, so that no job is ever in two places,
or in none. All of it raises redis.exceptions.RedisError when Redis is away.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Literal, TypeAlias, get_args

import redis.asyncio

from proxy.queue import keys
from proxy.queue.connection import plain
from proxy.queue.expiry import read_clocks, renewed
from proxy.queue.inventory import BITE, bites, find, readable_envelope
from proxy.queue.job import JobEnvelope, RelayJob, encode_envelope
from proxy.queue.notes import note
from proxy.queue.scripts import load

Retried: TypeAlias = Literal["retried", "queued", "held", "sending", "changed", "absent"]
Rerouted: TypeAlias = Literal["retried", "not_dead", "changed", "absent"]
Deleted: TypeAlias = Literal["deleted", "sending", "absent"]


async def retry(
    redis: redis.asyncio.Redis, job_ids: Iterable[str], *, now: float
) -> dict[str, Retried]:
    """Put jobs at their queues' tails and return what became of each.

    A dead one starts a new clock: no attempts, no age, its rule's time to expire anew. A deferred
    one is only tried earlier.
    """
    script = redis.register_script(load("retry").text)
    clocks = replace(read_clocks(), wall=now)
    outcome: dict[str, Retried] = {}
    for bite in bites(list(dict.fromkeys(job_ids)), BITE):
        pipeline = redis.pipeline(transaction=False)
        for job_id in bite:
            pipeline.hmget(keys.job_key(job_id), ["envelope", "origin"])
        found: list[list[bytes | None]] = await pipeline.execute()
        envelopes = [each[0] for each in found]
        origins = {job_id: each[1] for job_id, each in zip(bite, found, strict=True)}
        words: list[bytes | str] = []
        for job_id, old in zip(bite, envelopes, strict=True):
            envelope = readable_envelope(old) if old else None
            said = note("retried", job_id, _stream_in(origins.get(job_id)), envelope)
            # A later version's goes as it is.
            anew = encode_envelope(renewed(envelope, clocks)) if envelope else old or b""
            words += [job_id, old or b"", anew, said]
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
        status, octets, body = await plain(redis).hmget(job, ["status", "envelope", "body"])
        envelope = None if octets is None else readable_envelope(octets)
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


def _stream_in(origin: bytes | None) -> str:
    return keys.stream_of((origin or b"").decode()) or ""


async def delete(redis: redis.asyncio.Redis, job_ids: Iterable[str]) -> dict[str, Deleted]:
    """Delete jobs for good and return what became of each; one that is being sent stays.

    A proxy logs each with its recipients (see notes), and they are counted: discarded by hand.
    """
    script = redis.register_script(load("delete").text)
    outcome: dict[str, Deleted] = {}
    for bite in bites(list(dict.fromkeys(job_ids)), BITE):
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


def _one_of(word: str, words: Any) -> Any:
    assert word in get_args(words), f"the script answered {word!r}"
    return word
