"""A process's look at its store: is it still the same, and what of its mail is held."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from proxy.config import Settings
from proxy.queue.connection import open_redis
from proxy.queue.holds import Hold, standing_holds
from proxy.queue.lineage import LOOK_EVERY_S, Lineage, Look

_ANSWER_S = 5.0


class Holdings:
    """The holds that stood at the last look; None before the first."""

    def __init__(self) -> None:
        self.holds: tuple[Hold, ...] | None = None


@asynccontextmanager
async def look_after(
    settings: Settings, data_dir: Path, role: str, *, every: float = LOOK_EVERY_S
) -> AsyncIterator[Holdings]:
    """Look at the store each few seconds for as long as the block runs."""
    redis = open_redis(settings, data_dir, timeout=_ANSWER_S)
    lineage = Lineage(redis, data_dir, role, host=socket.gethostname())
    holdings = Holdings()

    async def heard(_look: Look) -> None:
        holdings.holds = await standing_holds(redis)

    task = asyncio.create_task(lineage.run(heard, every=every), name="look at the store")
    try:
        yield holdings
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await redis.aclose()
