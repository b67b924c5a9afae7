"""The books of who was told what, in Redis: read here, written by scripts only.

Everything raises redis.exceptions.RedisError or OSError when Redis is away.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import redis.asyncio

from proxy.queue import keys
from proxy.queue.connection import plain
from proxy.queue.job import JobDecodeError, JobEnvelope, decode_envelope, encode_envelope
from proxy.queue.scripts import Script
from worker.notices.scripts import ANNOUNCE, LEAVE, LETTERS, TELL

HEAD_OCTETS = 16_384
"""How much of a message is read for its subject."""

_BITE = 100


@dataclass(frozen=True, slots=True)
class Standing:
    """A job as it stands now. `envelope` is None when this version cannot read it."""

    id: str
    stream: str
    status: str
    envelope: JobEnvelope | None
    head: bytes
    late: bool
    leaving: bool


@dataclass(frozen=True, slots=True)
class Notice:
    """A notice ready for the queue of `stream`, and what it tells.

    `deaths` are owners ("" for nobody's own) and ids of dead letters, `late` ids of late messages.
    `last` is when its reader was last written to, as it was read.
    """

    id: str
    stream: str
    envelope: JobEnvelope
    body: bytes
    last: bytes
    deaths: Sequence[tuple[str, str]]
    late: Sequence[str]


class Books:
    """The books in `redis`."""

    def __init__(self, redis: redis.asyncio.Redis) -> None:
        self._redis = redis
        self._plain = plain(redis)

    async def now(self) -> float:
        """Return Redis's time, in seconds since 1970: the one clock of all books."""
        seconds, micros = await self._plain.time()
        return float(seconds) + float(micros) / 1e6

    async def first_worker(self) -> str:
        """Return the incarnation of the first of the workers that live, "" for none."""
        names: list[bytes] = await self._plain.hkeys(keys.WORKERS)
        return min(names, default=b"").decode()

    async def last_told(self) -> dict[str, bytes]:
        """Return all owners with deaths, and when each was last written to."""
        found: dict[bytes, bytes] = await self._plain.hgetall(keys.TOLD)
        return {owner.decode("utf-8", "surrogateescape"): last for owner, last in found.items()}

    async def untold(self, owner: str, most: int) -> list[tuple[str, float]]:
        """Return ids of dead letters that `owner` has not been told of, and since when."""
        found = await self._plain.zrange(keys.untold_key(owner), 0, most - 1, withscores=True)
        return [(job_id.decode(), float(since)) for job_id, since in found]

    async def are_untold(self, letters: Sequence[tuple[str, str]]) -> list[bool]:
        """Tell of each (owner, id) whether the owner has still to be told."""
        if not letters:
            return []
        pipeline = self._redis.pipeline(transaction=False)
        for owner, job_id in letters:
            pipeline.zscore(keys.untold_key(owner), job_id)
        return [score is not None for score in await pipeline.execute()]

    async def forget(self, deaths: Iterable[tuple[str, str]]) -> None:
        """Strike out dead letters of which nobody need be told."""
        pipeline = self._redis.pipeline(transaction=False)
        for owner, job_id in deaths:
            pipeline.zrem(keys.untold_key(owner), job_id)
        await pipeline.execute()

    async def forget_all_but(self, owner: str, most: int) -> None:
        """Keep only the `most` newest of what `owner` has not been told."""
        await self._plain.zremrangebyrank(keys.untold_key(owner), 0, -most - 1)

    async def read(self, ids: Sequence[str], *, heads: bool = False) -> list[Standing]:
        """Return how the jobs of `ids` stand, without those that are gone, in that order."""
        found: list[Standing] = []
        for start in range(0, len(ids), _BITE):
            bite = ids[start : start + _BITE]
            words = await self._run(LETTERS, HEAD_OCTETS if heads else 0, *bite)
            for place, job_id in enumerate(bite):
                origin, status, envelope, head, late, leaving = words[6 * place : 6 * place + 6]
                stream = keys.stream_of(origin.decode("utf-8", "replace"))
                if stream is None:
                    continue
                found.append(
                    Standing(
                        job_id,
                        stream,
                        status.decode("ascii", "replace"),
                        _readable(envelope),
                        head,
                        late == b"1",
                        leaving == b"1",
                    )
                )
        return found

    async def tell(self, notice: Notice, owner: str, *, least: float, date: str) -> bool:
        """Queue `notice` for `owner` and note what it tells; False: it was not the time for it."""
        told: list[str] = [word for death in notice.deaths for word in death]
        answer: bytes = await self._run(
            TELL,
            owner,
            notice.last,
            int(least),
            date,
            keys.queue_name(notice.stream),
            notice.id,
            encode_envelope(notice.envelope),
            notice.body,
            len(notice.deaths),
            *told,
            *notice.late,
        )
        return answer == b"told"

    async def announce(self, letters: Iterable[tuple[str, str, str]]) -> None:
        """Note that dead letters (id, when they died, owner) are to leave the store."""
        await self._run(ANNOUNCE, *(word for letter in letters for word in letter))

    async def leave(self, letters: Sequence[tuple[str, str]]) -> list[bool]:
        """Take dead letters (id, when they died) away; tell of each whether that was done."""
        answer = await self._run(LEAVE, *(word for letter in letters for word in letter))
        return [bool(word) for word in answer]

    async def _run(self, script: Script, *words: bytes | str | int) -> Any:
        return await self._redis.register_script(script.text)(args=list(words))


def _readable(envelope: bytes) -> JobEnvelope | None:
    try:
        return decode_envelope(envelope)
    except JobDecodeError:
        return None
