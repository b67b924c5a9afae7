"""Held mail that is let go: it goes back to the head of its queue, in order, once.

A release first stops claiming of its streams and then puts mail back in bites; a worker ends what
a command left. Raises redis.exceptions.RedisError when Redis is away.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import redis.asyncio
from redis.exceptions import RedisError

from proxy.queue import keys
from proxy.queue.connection import plain
from proxy.queue.holds import (
    Hold,
    HoldError,
    holds_of,
    met,
    readable,
    standing_holds,
    taken_by,
    write_holds,
)
from proxy.queue.inventory import known_streams
from proxy.queue.notes import hold_note
from proxy.queue.scripts import load
from proxy.queue.selection import Selection

_BITE = 200
_STALE_S = 5.0


@dataclass(frozen=True, slots=True)
class Released:
    """What was done: the `holds` that ended or take less now; how many messages came `back`.

    `queued` messages waited in their queues all the while and go on from there. `kept` names the
    holds that keep some of the mail all the same.
    """

    holds: tuple[str, ...]
    back: int
    queued: int = 0
    kept: tuple[str, ...] = ()


class ReleaseBegun(Exception):
    """Redis was lost in the middle: nothing is held any more, and a worker puts back the rest."""


async def release(
    client: redis.asyncio.Redis,
    now: float,
    *,
    names: Sequence[str] = (),
    selection: Selection | None = None,
    by: str = "",
) -> Released:
    """Hold no longer what `selection` takes (None: all), of the holds of `names`, or of all.

    A hold that takes more stands on, without what is released now and comes later; but if it keeps
    nothing of it at this moment, it stays as it is. `now` is in seconds since 1970.

    Raises:
        HoldError: no hold is of one of the names, or it is being released already.
        ReleaseBegun: it will be done.
    """
    selection = selection or Selection()
    mark = f"release-{secrets.token_hex(4)}"
    while True:
        records = await plain(client).hgetall(keys.HOLDS)
        standing = {each.name: each for each in holds_of(records)}
        _refuse_unknown(names, standing, records)
        meant = [
            each
            for each in standing.values()
            if (not names or each.name in names) and not selection.is_apart_from(each.selection)
        ]
        waiting = await _kept_of(client, selection, meant)
        changes: dict[str, dict[str, Any] | None] = {}
        said = []
        for each in meant:
            if selection.takes_all_of(each.selection):
                changes[each.name] = None
            elif waiting[each.name]:
                changes[each.name] = _without(each, selection).record()
            else:
                continue
            mail = each.selection if changes[each.name] is None else selection
            said.append(hold_note("released", each.name, str(mail), by=by))
        stream = {} if selection.stream is None else {"stream": selection.stream}
        returning = {"returning": now, "names": list(changes), **stream}
        if await write_holds(client, records, changes | {mark: returning}, said):
            break
    try:
        back = await _return_all(client, [selection.stream] if selection.stream else None)
        await plain(client).hdel(keys.HOLDS, mark)
        queued, kept = await _what_is_left(client, [waiting[name] for name in changes])
    except (RedisError, OSError) as error:
        raise ReleaseBegun(str(error) or type(error).__name__) from error
    return Released(tuple(changes), back, queued, kept)


def _refuse_unknown(
    names: Sequence[str], standing: dict[str, Hold], records: dict[bytes, bytes]
) -> None:
    for name in names:
        if name in standing:
            continue
        for octets in records.values():
            record = readable(octets) or {}
            released = record.get("names") if "returning" in record else None
            if isinstance(released, list) and name in released:
                raise HoldError(
                    f"{name!r} is being released already: a worker puts back what it held"
                )
        raise HoldError(f"there is no hold {name!r}; `franker queue holds` lists them")


def _without(hold: Hold, selection: Selection) -> Hold:
    """Return `hold` without what `selection` takes; what that covers anyway is not named twice."""
    others = [each for each in hold.released if not selection.takes_all_of(each)]
    return replace(hold, released=(*others, selection))


_Places = list[tuple[str, str, list[str]]]


async def _kept_of(
    client: redis.asyncio.Redis, selection: Selection, holds: Sequence[Hold]
) -> dict[str, _Places]:
    """Return what each of `holds` keeps of the mail of `selection`: stream, state, ids."""
    found: dict[str, _Places] = {each.name: [] for each in holds}
    if not holds:
        return found
    async for stream, state, ids in met(client, await known_streams(client), selection):
        for each in holds if ids else ():
            names = await taken_by(client, stream, ids, (each,))
            taken = [one for one, name in zip(ids, names, strict=True) if name]
            if taken:
                found[each.name].append((stream, state, taken))
    return found


async def _what_is_left(
    client: redis.asyncio.Redis, places: Sequence[_Places]
) -> tuple[int, tuple[str, ...]]:
    """Return how many that were queued are free now, and the names of holds that keep others."""
    free: set[str] = set()
    kept: set[str] = set()
    standing = await standing_holds(client)
    for stream, state, ids in (one for each in places for one in each):
        names = await taken_by(client, stream, ids, standing)
        kept |= {name for name in names if name}
        if state == "queued":
            free |= {one for one, name in zip(ids, names, strict=True) if not name}
    return len(free), tuple(each.name for each in standing if each.name in kept)


async def finish_releases(client: redis.asyncio.Redis, now: float) -> int:
    """Put back what a release left that came to no end; return how many messages came back."""
    back = 0
    for name, octets in (await plain(client).hgetall(keys.HOLDS)).items():
        record = readable(octets)
        if record is None or "returning" not in record:
            continue
        since = record["returning"]
        # In the future: a clock was set back.
        if isinstance(since, int | float) and 0 <= now - since < _STALE_S:
            continue
        stream = record.get("stream")
        back += await _return_all(client, [stream] if isinstance(stream, str) else None)
        await plain(client).hdel(keys.HOLDS, name)
    return back


async def _return_all(client: redis.asyncio.Redis, streams: Sequence[str] | None) -> int:
    if streams is None:
        names = await plain(client).smembers(keys.QUEUES)
        streams = [each for name in names if (each := keys.stream_of(name.decode()))]
    script = client.register_script(load("unhold").text)
    back = 0
    for stream in streams:
        last: bytes = b""
        while True:
            came, last = await script(args=[keys.queue_name(stream), last, _BITE])
            back += came
            if not last:
                break
    return back
