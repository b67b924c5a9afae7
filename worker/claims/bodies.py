"""Large bodies of claimed messages, which the scripts leave where they are."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from proxy.queue import keys
from proxy.queue.wire import Wire, pack

_ID, _BODY = 1, 3  # places in a row of what claim.lua answers


class _Bodies:
    """Asked with ids: what each has for a body, and who holds it; None for what is not there."""

    async def call(self, wire: Wire, *ids: bytes | str | float) -> Any:
        """Read them all in one piece."""
        jobs = (keys.job_key(str(each)) for each in ids)
        return await asyncio.gather(
            *(wire.call(pack("HMGET", job, "body", "claim")) for job in jobs)
        )


BODIES = _Bodies()


async def read_bodies(
    rows: Sequence[list[Any]], execution: str, ask: Callable[..., Awaitable[Any]]
) -> None:
    """Put the body into each of `rows` that has only the number of its octets.

    None where `execution` no longer holds the message, or somebody has deleted it. `ask` is a
    link's, and raises what that does.
    """
    large = [row for row in rows if isinstance(row[_BODY], int)]
    if large:
        found = await ask(BODIES, *(row[_ID].decode() for row in large))
        for row, (body, holder) in zip(large, found, strict=True):
            row[_BODY] = body if holder == execution.encode() else None
