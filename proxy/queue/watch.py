"""What the committer knows of its server: durable or not, how full, and who must have a copy."""

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from redis.exceptions import ResponseError

from proxy.log import events
from proxy.metrics import intake
from proxy.queue import refusal
from proxy.queue.capacity import (
    Room,
    memory_here,
    no_room_on_disk,
    octets_of_mail,
    room_for_mail,
)
from proxy.queue.durability import Durability, judge
from proxy.queue.history import is_idle_work, rewrite_from
from proxy.queue.refusal import NotKept
from proxy.queue.store import StoreConnection

INSPECT_EVERY_S = 1.0
VERIFY_EVERY_S = 10.0
COMES_AND_GOES_S = 10.0
"""A store that is full again within so many seconds is said to have room when it had as long."""
_PER_MESSAGE = 1024  # octets beside body and envelope, for the estimate between two inspections


@dataclass(frozen=True, slots=True)
class Demands:
    """What a store must be and may hold.

    `max_memory` is in octets, None for a share of what there is. `data_dir` is given for a private
    server: its disk is watched, and its file kept short. `replicated`: behind Sentinels.
    """

    require_durable: bool = True
    max_memory: int | None = None
    data_dir: Path | None = None
    replicated: bool = False


class StoreWatch:
    """The last look at the server, and what was added since."""

    def __init__(self, demands: Demands) -> None:
        self._demands = demands
        self._here = memory_here()
        self._settings: dict[str, str] | None = None
        self._said: Durability | None = None
        self._room: Room | None = None
        self._added = 0
        self._lacking = 0  # octets of the message that found no room
        self._seen_at = -math.inf
        self._told_full = False
        self._told_roomy_at = -math.inf
        self._roomy_since = -math.inf
        self._steady = 0.0  # for how long there must be room before that is said
        self._batches = -1
        self._rewrite_from = 0  # a server that has run before has what the last proxy set
        self._verify_at = 0.0
        self.inspect_at = 0.0
        """The loop time at which the next look is due."""
        self.durability: Durability | None = None
        """None while the server is away."""
        self.replicas = 0
        """How many other servers must have a batch, too, before it counts as kept."""
        self.full = ""
        """Why there is no room for mail, with the limit and what sets it; "" while there is."""

    def lost(self) -> None:
        """Note that the server is away."""
        self.durability = None
        self._rewrite_from = 0
        intake.STORE_DURABLE.set(0)

    @property
    def server_is_short(self) -> bool:
        """Whether it is the server's own maxmemory that leaves no room, not `max_memory`."""
        return self._room is not None and self._room.is_servers

    def has_room(self, octets: int) -> bool:
        """Return whether a message of so many octets may come, and count it as there if so.

        Against the server's own limit what has come counts twice until the next look: there the
        clients' buffers are counted, too, and Redis 8 counts what its Lua still holds of it.
        """
        cost = octets + _PER_MESSAGE
        if self._room is not None and self._added + cost > self._room.left:
            return False
        self._added += 2 * cost if self.server_is_short else cost
        return True

    def found_no_room(self, octets: int) -> str:
        """Note that there was no room for a message of so many octets; return why."""
        self._lacking = max(self._lacking, octets + _PER_MESSAGE)
        if self._room is not None:
            self.fills_up(str(replace(self._room, used=self._room.used + self._added)))
        return self.full

    def fills_up(self, why: str) -> None:
        """Note that there is no room: mail is refused for that, or goes to the journal."""
        if not self.full and not self._told_full:
            events.store_full(detail=why)
            self._told_full = True
            often = self._seen_at - self._told_roomy_at < COMES_AND_GOES_S
            self._steady = COMES_AND_GOES_S if often else 0.0
        self.full = why

    async def inspect(
        self, store: StoreConnection, now: float, *, batches: int, verify: bool = False
    ) -> NotKept | None:
        """Look at the server; return why it can keep no mail, None when it can.

        Its settings are read anew at times, and when `verify` is set. `batches` is a number that
        rises while mail is kept.
        """
        self.inspect_at = now + INSPECT_EVERY_S
        if verify or now >= self._verify_at:
            self._settings = await store.settings()
            self._verify_at = now + VERIFY_EVERY_S
            self.replicas = 0
            if self._demands.replicated and self._settings is not None:
                self.replicas = int(self._settings.get("min-replicas-to-write", "0"))
        info = await store.info()
        private = self._demands.data_dir is not None
        room = room_for_mail(self._demands.max_memory, info, private=private, here=self._here)
        self._room, self._added = room, 0
        found = judge(self._settings, info, replicated=self._demands.replicated)
        self._note(found, now)
        idle, self._batches = self._batches == batches, batches
        if private:
            await self._spare_rewriting(store, info)
            if idle:
                await self._tidy(store, info)
        if not found.durable and self._demands.require_durable:
            return refusal.not_durable(found.reason)
        disk = no_room_on_disk(self._demands.data_dir) if self._demands.data_dir else ""
        self._seen_at = now
        self._note_room(room, disk)
        return refusal.full(disk) if disk else None

    def _note_room(self, room: Room, disk: str) -> None:
        """Say it when the room ends, and when there is enough again for what was refused.

        A journal that is drained into a full store fills each room at once: that is one story.
        """
        if disk:
            self.fills_up(disk)
        elif room.is_full:
            self.fills_up(str(room))
        elif self.full and room.left >= min(self._lacking, room.limit // 2):
            self._lacking = 0
            self.full = ""
            self._roomy_since = self._seen_at
        if self._told_full and not self.full and self._seen_at - self._roomy_since >= self._steady:
            events.store_has_room(detail=str(room))
            self._told_full, self._told_roomy_at = False, self._seen_at

    def _note(self, found: Durability, now: float) -> None:
        self.durability = found
        intake.STORE_DURABLE.set(found.durable)
        if not found.durable:
            self._verify_at = now  # so that setting it right is seen at once
        if found == self._said:
            return
        self._said = found
        if found.durable:
            events.store_durable()
        else:
            events.store_not_durable(reason=found.reason)

    async def _spare_rewriting(self, store: StoreConnection, info: Mapping[str, str]) -> None:
        """Let the private server's file grow with what waits."""
        octets = rewrite_from(octets_of_mail(info))
        if octets != self._rewrite_from:
            with contextlib.suppress(ResponseError):
                await store.command("CONFIG", "SET", "auto-aof-rewrite-min-size", str(octets))
            self._rewrite_from = octets

    async def _tidy(self, store: StoreConnection, info: Mapping[str, str]) -> None:
        """Have the private server's file rewritten while nothing happens, so that it starts fast.

        It holds the history of all mail since the last time, also of what has long left.
        """
        size = int(info.get("aof_current_size", "0"))
        busy = (
            info.get("aof_rewrite_in_progress") != "0" or info.get("aof_rewrite_scheduled") != "0"
        )
        if is_idle_work(size, octets_of_mail(info)) and not busy:
            with contextlib.suppress(ResponseError):
                await store.command("BGREWRITEAOF")
