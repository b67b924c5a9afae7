"""Deferred mail sent at once instead of when it is due: attempts and age stand as they are."""

from collections.abc import Sequence
from dataclasses import dataclass

import redis.asyncio

from proxy.queue import keys
from proxy.queue.holds import met
from proxy.queue.inventory import BITE, bites
from proxy.queue.scripts import load
from proxy.queue.selection import Selection


@dataclass(frozen=True, slots=True)
class Flushed:
    """What was done: how many messages are `due` now, and `routes` are tried now.

    Those that Postmark is `asked` for, or that are `held`, stay as they are.
    """

    due: int = 0
    asked: int = 0
    held: int = 0
    routes: int = 0


async def flush(
    client: redis.asyncio.Redis, streams: Sequence[str], selection: Selection
) -> Flushed:
    """Make what `selection` takes of the deferred mail of `streams` due, and probe its routes.

    Of a sender, a rule or an age only the routes of streams that have such mail.

    Raises:
        redis.exceptions.RedisError: Redis is away.
    """
    script = client.register_script(load("flush").text)
    due = asked = held = 0
    concerned = set()
    async for stream, state, ids in met(client, streams, selection):
        if ids:
            concerned.add(stream)
        if state == "deferred":
            for bite in bites(ids, BITE):
                counts: list[int] = await script(args=[keys.queue_name(stream), *bite])
                due, asked, held = due + counts[0], asked + counts[1], held + counts[2]
    if selection == Selection(selection.stream):  # its routes, also when nothing is deferred
        concerned = set() if selection.stream is None else {selection.stream}
    elif not concerned:
        return Flushed(due, asked, held)
    routes = int(await client.register_script(load("probe").text)(args=sorted(concerned)))
    return Flushed(due, asked, held, routes)
