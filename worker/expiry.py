"""Mail whose time is over (`expires`) dies where it waits, and its owner hears of it then.

What is claimed is looked at before it is sent. But mail of a paused route is not claimed, nor
deferred mail before it is due: so each worker looks over what waits, some of it every second.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence

from redis.exceptions import RedisError

from proxy import log
from proxy.metrics import relaying
from proxy.queue.connection import end_if_cancelled
from proxy.queue.expiry import has_expired, read_clocks
from proxy.queue.job import JobDecodeError, decode_envelope
from worker.claim import Claim
from worker.claims import Claims
from worker.relay import Passage

_EVERY_S = 1.0
_BITE = 500
"""Messages in one look: about half a millisecond of Redis."""

_BITES = 4
"""Looks at one stream a turn: 100,000 that wait are seen within a minute."""

_MOST = 50
"""Messages that die in one step."""


def expired(passages: Iterable[Passage]) -> list[Passage]:
    """Return those of `passages` whose time is over now."""
    ending = [one for one in passages if one.envelope.expires_at is not None]
    now = read_clocks() if ending else None
    return [one for one in ending if now and has_expired(one.envelope, now)]


class Expiry:
    """Looks over the queues of `streams`; what has expired is claimed and given to `offer`.

    The channel that it is offered to makes a dead letter of it.
    """

    def __init__(
        self, claims: Claims, streams: Sequence[str], offer: Callable[[list[Claim]], None]
    ) -> None:
        self._claims = claims
        self._places = dict.fromkeys(streams, 0)
        self._offer = offer

    def go_by(self, streams: Sequence[str]) -> None:
        """Look over the queues of other streams from now on."""
        self._places = {stream: self._places.get(stream, 0) for stream in streams}

    async def run(self) -> None:
        """Look, until cancelled."""
        while True:
            await asyncio.sleep(_EVERY_S)
            for stream in list(self._places):
                try:
                    await self._look(stream)
                except (RedisError, OSError):
                    pass  # said by the claims
                except Exception as error:  # nothing here may end a worker
                    log.defect("expiry", error=error)
                    relaying.DEFECTS.labels("expiry").inc()
            end_if_cancelled()

    async def _look(self, stream: str) -> None:
        places = self._places
        if stream not in places:  # it is no longer configured
            return
        for _ in range(_BITES):
            place = places[stream]
            seen, found = await self._claims.ending(stream, place, _BITE)
            over = {job_id: octets for job_id, octets in found.items() if _is_over(octets)}
            # From the start again after the last one; what dies leaves its place to the next.
            places[stream] = 0 if seen < _BITE else place + seen - len(over)
            ids = list(over)
            for at in range(0, len(ids), _MOST):
                some = {job_id: over[job_id] for job_id in ids[at : at + _MOST]}
                if claims := await self._claims.take(stream, some):
                    self._offer(claims)
            if seen < _BITE:
                return


def _is_over(octets: bytes) -> bool:
    try:
        return has_expired(decode_envelope(octets), read_clocks())
    except JobDecodeError:
        return False  # whoever claims it says so
