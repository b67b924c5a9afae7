"""Mail that waits because a person, or Franker for safety, said so.

A hold is a record in Redis that stands until it is released: what comes later and matches waits,
too. Workers ask for holds in the step in which they claim. One that takes whole streams keeps
them from claiming there; what another one takes is set aside when its turn comes, with its
attempts and its age, and goes back to the head of its queue, in order, when nothing holds it any
more. The functions raise redis.exceptions.RedisError when Redis is away.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import redis.asyncio

from proxy.queue import keys
from proxy.queue.connection import plain
from proxy.queue.notes import hold_note
from proxy.queue.scripts import load
from proxy.queue.selection import Selection, makes_sense, selection_of, when

RESTORED = "restored"
"""The name of the hold on mail of a store that is an older copy of itself.

A further copy has its own, with a number behind it, where the first one cannot be widened.
"""

MOST = 50
"""Holds at a time: each is looked at for each message while there is any."""

_BITE = 200
_NAME = re.compile(r"(?!-)[a-z0-9._-]{1,40}")
_RESTORED = re.compile(rf"{RESTORED}\d*")
_STEP_S = 0.05


class HoldError(ValueError):
    """A hold cannot be made as asked for; the text says why."""


@dataclass(frozen=True, slots=True)
class Hold:
    """What is held, without what `released` names of it. `since` is in seconds since 1970."""

    name: str
    selection: Selection
    since: float
    by: str = ""
    reason: str = ""
    released: tuple[Selection, ...] = ()

    def record(self) -> dict[str, Any]:
        """Return what a script reads."""
        found: dict[str, Any] = {**self.selection.record(), "since": self.since, "by": self.by}
        if self.reason:
            found["reason"] = self.reason
        if self.released:
            found["except"] = [each.record() for each in self.released]
        return found

    @property
    def is_restored(self) -> bool:
        """Whether it keeps the mail of an older copy of the store."""
        return _RESTORED.fullmatch(self.name) is not None

    def takes_stream(self, stream: str) -> bool:
        """Tell whether it takes all mail of `stream`, so that none is claimed."""
        whole = self.selection.is_whole and self.selection.stream in (None, stream)
        return whole and not any(
            each.is_whole and each.stream in (None, stream) for each in self.released
        )

    def __str__(self) -> str:
        """Say in one line what is held, since when, by whom and why."""
        but = "".join(f", except {str(each).removeprefix('all ')}" for each in self.released)
        why = f": {self.reason}" if self.reason else ""
        return f"{self.selection}{but}, since {when(self.since)} by {self.by or 'nobody'}{why}"


async def standing_holds(client: redis.asyncio.Redis) -> tuple[Hold, ...]:
    """Return the holds that stand, the oldest first."""
    return holds_of(await plain(client).hgetall(keys.HOLDS))


def holds_of(records: dict[bytes, bytes]) -> tuple[Hold, ...]:
    """Return the holds that stand, of all records as they are kept."""
    found = []
    for name, octets in records.items():
        record = readable(octets)
        if record is not None and "returning" not in record:
            found.append(_hold_of(name.decode("utf-8", "replace"), record))
    return tuple(sorted(found, key=lambda hold: (hold.since, hold.name)))


def readable(octets: bytes) -> dict[str, Any] | None:
    """Return a record as it is kept; None when it makes no sense."""
    try:
        record = json.loads(octets)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _hold_of(name: str, record: dict[str, Any]) -> Hold:
    found = record.get("except")
    released = found if isinstance(found, list) else []
    since = record.get("since")
    return Hold(
        name,
        selection_of(record),
        float(since) if isinstance(since, int | float) else 0.0,
        str(record.get("by", "")),
        str(record.get("reason", "")),
        tuple(selection_of(each) for each in released if makes_sense(each)),
    )


async def hold(client: redis.asyncio.Redis, wanted: Hold) -> tuple[Hold, int]:
    """Let `wanted` stand; return it, or the one that takes the same already, and the turn.

    From the return on nothing that it takes is claimed. What a worker has claimed before, and not
    begun to send, it gives back: see `kept_to`. A `name` of "" is chosen here.

    Raises:
        HoldError: the name cannot be, or is taken, or there are too many.
    """
    if wanted.name and not _NAME.fullmatch(wanted.name):
        raise HoldError("a name is 1 to 40 of a-z, 0-9, '.', '_' and '-', and begins with no '-'")
    if wanted.is_restored:
        raise HoldError(f"the name {wanted.name!r} is kept for mail of a restored backup")
    while True:
        records = await plain(client).hgetall(keys.HOLDS)
        standing = holds_of(records)
        for each in standing:
            same = each.selection.record() == wanted.selection.record() and not each.released
            if same and wanted.name in ("", each.name):
                return each, int(await plain(client).get(keys.TURN) or 0)
        names = {each.name for each in standing}
        if wanted.name in names:
            raise HoldError(f"there is another hold of the name {wanted.name!r}")
        if len(names) >= MOST:
            raise HoldError(f"there are {MOST} holds already; release one first")
        free = next(
            f"hold{number}" for number in range(1, MOST + 2) if f"hold{number}" not in names
        )
        name = wanted.name or free
        made = Hold(name, wanted.selection, wanted.since, wanted.by, wanted.reason)
        said = hold_note("held", name, str(made.selection), by=made.by, reason=made.reason)
        turn = await write_holds(client, records, {name: made.record()}, [said])
        if turn:
            return made, turn


async def write_holds(
    client: redis.asyncio.Redis,
    records: dict[bytes, bytes],
    changes: dict[str, dict[str, Any] | None],
    said: Sequence[str],
) -> int:
    """Write records anew, None striking one off, and what the log shall say.

    Returns the turn, 0 when they changed meanwhile.
    """
    words: list[str | bytes | int] = [len(said), *said]
    for name, record in changes.items():
        anew = "" if record is None else json.dumps(record, separators=(",", ":"))
        words += [name, records.get(name.encode(), b""), anew]
    return int(await client.register_script(load("hold").text)(args=words))


async def kept_to(client: redis.asyncio.Redis, turn: int, patience: float) -> tuple[str, ...]:
    """Wait until all workers keep to the holds of `turn`; return the names of those that do not.

    They are given `patience` seconds. Until then one may still send what it had claimed before.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    while True:
        late = []
        for incarnation in await plain(client).hkeys(keys.WORKERS):
            key = keys.worker_key(incarnation.decode())
            name, reached = await plain(client).hmget(key, ["name", "turn"])
            if name is not None and int(reached or 0) < turn:
                late.append(name.decode("utf-8", "replace"))
        if not late or loop.time() >= deadline:
            return tuple(late)
        await asyncio.sleep(_STEP_S)


async def taken_by(
    client: redis.asyncio.Redis,
    stream: str,
    ids: Sequence[str],
    holds: Iterable[Hold] | None = None,
) -> list[str]:
    """Return for each job the name of the first of `holds` that takes it, "" for none.

    None: of the holds that stand.
    """
    if holds is None:
        words = ""
    else:
        words = json.dumps([{**each.record(), "name": each.name} for each in holds])
    script = client.register_script(load("taken_by").text)
    found: list[str] = []
    for start in range(0, len(ids), _BITE):
        answer = await script(args=[words, stream, *ids[start : start + _BITE]])
        found += [name.decode("utf-8", "replace") for name in answer]
    return found


async def waiting_in(client: redis.asyncio.Redis, stream: str) -> tuple[list[str], list[str]]:
    """Return the ids of `stream` that wait in its queue, and those set aside."""
    queued = await plain(client).lrange(keys.queue_key(stream), 0, -1)
    aside = await plain(client).zrange(keys.held_key(stream), 0, -1)
    return [each.decode() for each in queued], [each.decode() for each in aside]


async def met(
    client: redis.asyncio.Redis, streams: Sequence[str], selection: Selection
) -> AsyncIterator[tuple[str, str, list[str]]]:
    """Yield the ids that `selection` takes of each stream and state: queued, held, deferred."""
    asked = (Hold("met", selection, 0.0),)
    for stream in streams:
        if selection.stream not in (None, stream):
            continue
        queued, aside = await waiting_in(client, stream)
        deferred = await plain(client).zrange(keys.scheduled_key(stream), 0, -1)
        places = {
            "queued": queued,
            "held": aside,
            "deferred": [each.decode() for each in deferred],
        }
        for state, ids in places.items():
            names = await taken_by(client, stream, ids, asked)
            yield stream, state, [one for one, name in zip(ids, names, strict=True) if name]
