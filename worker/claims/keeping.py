"""A worker keeps to what is held, and sends nothing of a store that is an older copy of itself."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from redis.asyncio import Redis

from proxy.queue.lineage import Lineage, Look
from proxy.queue.releases import finish_releases
from worker.claims.identity import Registration
from worker.claims.liveness import BEAT_S
from worker.claims.scripts import KEEP_TO

_FINISH_EVERY_S = 5.0


class Keeping:
    """Looks at store and holds with each heartbeat's time, over a connection of its own.

    `recall` gives back what is claimed and not begun, and returns when that will be done;
    `claiming` is held by whoever claims, until what came is where `recall` finds it. `wake` says
    that there may be something to claim.
    """

    def __init__(
        self,
        redis: Redis,
        data_dir: Path,
        *,
        number: int,
        registration: Callable[[], Registration],
        recall: Callable[[], Iterable["asyncio.Future[bool]"]],
        claiming: asyncio.Lock,
        wake: Callable[[], None],
    ) -> None:
        self._redis = redis
        self._lineage = Lineage(redis, data_dir, f"worker-{number}", host=socket.gethostname())
        self._registration = registration
        self._recall = recall
        self._claiming = claiming
        self._wake = wake
        self._kept: int | None = None
        self._told: tuple[Registration, int] | None = None
        self._finish_at = 0.0

    @property
    def floor(self) -> tuple[str, int] | None:
        """Which store it must be, and at least how far, for its mail to be sent.

        Id ("" when nothing is known) and number; None: nobody has looked yet, nothing is sent.
        """
        return self._lineage.floor if self._lineage.looked else None

    @property
    def fault(self) -> str:
        """Why nothing is known of the holds though Redis answers; "" when all is well."""
        return self._lineage.fault

    async def look(self) -> None:
        """Look once; a Redis that is away is passed over."""
        with self._lineage.passing_over():
            await self._heard(await self._lineage.look())

    async def settle_lineage(self) -> None:
        """Find out what became of a store that is not what it was."""
        with self._lineage.passing_over():
            await self._lineage.look()
            self._wake()

    async def run(self) -> None:
        """Look, until cancelled."""
        await self._lineage.run(self._heard, every=BEAT_S)

    async def close(self) -> None:
        """Close the connection."""
        with contextlib.suppress(Exception):
            await self._redis.aclose()

    async def _heard(self, look: Look) -> None:
        if look.turn != self._kept:
            async with self._claiming:
                back = tuple(self._recall())
            await asyncio.gather(*back)
            self._kept = look.turn
            self._wake()
        # Only now, and anew when the worker got a new name: who made a hold waits for this word.
        told = (self._registration(), look.turn)
        if told != self._told and await KEEP_TO.run(self._redis, told[0].incarnation, look.turn):
            self._told = told
            self._wake()
        if time.monotonic() >= self._finish_at:
            self._finish_at = time.monotonic() + _FINISH_EVERY_S
            await finish_releases(self._redis, time.time())
