"""The alerts of a process, at work for as long as it runs."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from prometheus_client import Gauge

from proxy.alerts.alerts import Alerts, View
from proxy.alerts.said import Said
from proxy.alerts.standing import Kind
from proxy.config import Settings
from proxy.config.model import Notify
from proxy.queue.connection import open_redis

_ANSWER_S = 2.0  # people are told without Redis, too


@contextlib.asynccontextmanager
async def open_alerts(
    settings: Settings,
    data_dir: Path,
    look: Callable[[Notify], View],
    *,
    shown: Gauge,
    mine: Callable[[Kind, str], bool],
) -> AsyncIterator[Alerts]:
    """Tell of what `look` sees, as `Alerts` does, until the block is left."""
    client = open_redis(settings, data_dir, timeout=_ANSWER_S)
    alerts = Alerts(
        look,
        Said(client),
        settings.notify,
        host=socket.gethostname(),
        shown=shown,
        mine=mine,
        clock=time.monotonic,
    )
    task = asyncio.create_task(alerts.run(), name="alerts")
    try:
        yield alerts
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        with contextlib.suppress(Exception):
            await client.aclose()
