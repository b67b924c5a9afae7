"""Signs of life for systemd, given by the process's own loop (sd_watchdog_enabled(3)).

A loop that stands still gives none, and systemd starts the process again.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping

from proxy.log import systemd


def pause(environ: Mapping[str, str], pid: int) -> float | None:
    """Return the seconds between two signs of life of process `pid`: half of what systemd waits.

    None when nobody waits for one, or it is another process's to give.
    """
    wanted = environ.get("WATCHDOG_USEC", "")
    if not wanted.isdecimal() or not int(wanted):
        return None
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    return int(wanted) / 2 / 1_000_000


@contextlib.asynccontextmanager
async def watched() -> AsyncIterator[None]:
    """Give signs of life as long as the block is in, if anybody waits for them."""
    seconds = pause(os.environ, os.getpid())
    if seconds is None:
        yield
        return
    task = asyncio.create_task(_live(seconds), name="watchdog")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _live(seconds: float) -> None:
    while True:
        systemd.tell("WATCHDOG=1")
        await asyncio.sleep(seconds)
