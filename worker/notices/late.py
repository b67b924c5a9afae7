"""Mail that has waited for long: found by a look over the queues, so that its owner may hear."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import redis.asyncio

from proxy.mail.ids import accepted_ms
from proxy.queue import keys
from worker.notices.books import Books

WAITING = ("queued", "scheduled", "started", "deferred")
"""What RQ calls the states of mail that is still to be sent; of what is held, "deferred"."""

_BITE = 2000
_MOST_TOLD = 20_000
"""Late messages of one owner in one notice; the next has the others."""


class LateMail:
    """What was late at the last look, by owner ("" for nobody's own), oldest first."""

    def __init__(
        self,
        redis: redis.asyncio.Redis,
        books: Books,
        streams: Sequence[str],
        *,
        delay: float,
    ) -> None:
        self._redis: Any = redis
        self._books = books
        self._streams = tuple(streams)
        self._delay = delay
        self._done: set[str] = set()  # told, or of which nobody is to be told
        self._found: dict[str, list[str]] = {}

    def owners(self) -> tuple[str, ...]:
        """Return those who have late mail that they have not been told of."""
        return tuple(self._found)

    def of(self, owner: str) -> list[str]:
        """Return the ids of an owner's late messages."""
        return self._found.get(owner, [])[:_MOST_TOLD]

    def told(self, owner: str, ids: Sequence[str]) -> None:
        """Note that an owner was told of `ids`."""
        self._done.update(ids)
        left = [job_id for job_id in self._found.pop(owner, []) if job_id not in self._done]
        if left:
            self._found[owner] = left

    async def look(self, now: float) -> None:
        """Look over all queues at `now` (seconds since 1970, Redis's)."""
        before = (now - self._delay) * 1000
        found: defaultdict[str, list[str]] = defaultdict(list)
        there: set[str] = set()
        for stream in self._streams:
            old = await self._old(stream, before)
            there.update(old)
            fresh = [job_id for job_id in old if job_id not in self._done]
            for start in range(0, len(fresh), _BITE):
                for each in await self._books.read(fresh[start : start + _BITE]):
                    envelope = each.envelope
                    if each.late or envelope is None or not envelope.notify:
                        self._done.add(each.id)
                    # A letter that was put back by hand has a clock newer than its id.
                    elif envelope.accepted_at * 1000 <= before and each.status in WAITING:
                        found[envelope.owner].append(each.id)
        self._done &= there
        self._found = {owner: sorted(ids) for owner, ids in found.items()}

    async def _old(self, stream: str, before: float) -> list[str]:
        old: dict[str, None] = {}
        deferred = await self._redis.zrangebyscore(keys.deferred_key(stream), 0, before)
        old.update(dict.fromkeys(_older(deferred, before)))
        held = await self._redis.zrange(keys.held_key(stream), 0, -1)
        old.update(dict.fromkeys(_older(held, before)))
        at = 0
        while bite := await self._redis.lrange(keys.queue_key(stream), at, at + _BITE - 1):
            old.update(dict.fromkeys(_older(bite, before)))
            at += _BITE
        return list(old)


def _older(ids: Sequence[bytes], before: float) -> Iterator[str]:
    for octets in ids:
        job_id = octets.decode("ascii", "replace")
        try:
            if accepted_ms(job_id) <= before:
                yield job_id
        except ValueError:
            continue  # not ours
