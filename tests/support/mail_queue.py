"""Messages put into a real queue as the proxy puts them, and claims opened on it."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import redis

from proxy.config import Settings
from proxy.mail.ids import new_id
from proxy.queue import keys
from proxy.queue.job import JobEnvelope, encode_envelope
from proxy.queue.scripts import load
from worker.claims import Claim, Claims

BROADCASTS = Settings.model_validate(
    {"streams": {"outbound": {}, "broadcasts": {"kind": "broadcast"}}}
)


MARKED = (
    b"From: app@shop.example\r\nX-PM-Metadata-franker-id: {id}\r\nSubject: hello\r\n\r\nhello\r\n"
)
"""A message that carries its id, as the proxy's do: Postmark can be asked for it."""


def envelope(*recipients: str, **more: Any) -> JobEnvelope:
    """Return an envelope with what a test does not care about filled in."""
    return JobEnvelope(
        mail_from="app@shop.example",
        recipients=recipients or ("you@example.net",),
        accepted_at=more.pop("accepted_at", time.time()),
        **more,
    )


def put(
    client: redis.Redis,
    count: int = 1,
    *,
    stream: str = "outbound",
    body: bytes = b"Subject: hello\r\n\r\nhello\r\n",
    mail: JobEnvelope | None = None,
) -> list[str]:
    """Put `count` messages at the tail of a queue, with the proxy's own script; return the ids.

    "{id}" in `body` is replaced by each message's id.
    """
    now_ms = int(time.time() * 1000)
    ids = [new_id(now_ms + place) for place in range(count)]
    octets = encode_envelope(mail or envelope())
    words: list[Any] = [keys.queue_name(stream), count]
    for message_id in ids:
        words += (message_id, octets, body.replace(b"{id}", message_id.encode()))
    fence = keys.fence_key("test")
    client.hsetnx(fence, "epoch", 1)
    batch = client.hincrby("test:batches", "n", 1)
    client.hsetnx(fence, "batch", 0)
    date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    assert client.eval(load("commit").text, 1, fence, 1, batch, date, *words) == 1
    return ids


def queued(client: redis.Redis, stream: str = "outbound") -> list[str]:
    """Return the ids waiting in a queue, head first."""
    return [each.decode() for each in client.lrange(keys.queue_key(stream), 0, -1)]


def started(client: redis.Redis, stream: str = "outbound") -> list[str]:
    """Return the ids claimed by anybody."""
    members = client.zrange(keys.started_key(stream), 0, -1)
    return sorted(each.decode().partition(":")[0] for each in members)


def scheduled(client: redis.Redis, stream: str = "outbound") -> list[str]:
    """Return the ids of deferred messages."""
    return [each.decode() for each in client.zrange(keys.scheduled_key(stream), 0, -1)]


def unsettled(client: redis.Redis, stream: str = "outbound") -> list[str]:
    """Return the ids queued, claimed or deferred at one moment.

    Asked for one list after another, a message that moves meanwhile may be seen in none.
    """
    with client.pipeline(transaction=True) as moment:
        moment.lrange(keys.queue_key(stream), 0, -1)
        moment.zrange(keys.started_key(stream), 0, -1)
        moment.zrange(keys.scheduled_key(stream), 0, -1)
        return [each.decode().partition(":")[0] for ids in moment.execute() for each in ids]


def dead(client: redis.Redis, stream: str = "outbound") -> list[str]:
    """Return the ids of dead letters."""
    return [each.decode() for each in client.zrange(keys.failed_key(stream), 0, -1)]


def job(client: redis.Redis, job_id: str) -> dict[str, bytes]:
    """Return the fields of a job."""
    return {name.decode(): value for name, value in client.hgetall(keys.job_key(job_id)).items()}


@asynccontextmanager
async def claims_on(
    data_dir: Path,
    streams: Sequence[str] = ("outbound",),
    *,
    settings: Settings | None = None,
    number: int = 1,
) -> AsyncIterator[Claims]:
    """Open the claims of a worker, and close them in order."""
    claims = Claims(settings or Settings(), data_dir, streams, number=number)
    await claims.start()
    try:
        yield claims
    finally:
        await claims.close()


async def claim_all(claims: Claims, count: int, stream: str = "outbound") -> list[Claim]:
    """Claim until `count` messages are there."""
    found: list[Claim] = []
    async with asyncio.timeout(20):
        while len(found) < count:
            got = await claims.claim({stream: count - len(found)})
            found += got
            if not got:
                await claims.wait_for_work(0.2)
    return found
