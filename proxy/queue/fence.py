"""What keeps anything from entering Redis twice: a number that only rises, and an epoch.

Every process that keeps mail has a fence in Redis: a hash with an epoch and the number of the last
batch that was applied. A batch is applied only if it bears the epoch and a higher number. Raising
the fence gives it an epoch that nobody ever had, and reads the number: from then on nothing that
was sent before can be applied any more, so that the number is the last word on what was.
"""

import secrets

from proxy.queue import keys
from proxy.queue.scripts import load
from proxy.queue.store import StoreConnection

RAISE = load("fence")
LIFE_S = 2 * 366 * 86400
"""Longer than a journal may lie unread, and than any step of a clock; removed before, as a rule."""


class Fence:
    """The fence of the process `incarnation`; `last` is what it said when it was last raised."""

    def __init__(self, incarnation: str) -> None:
        self.key = keys.fence_key(incarnation)
        self.epoch = ""
        self.last = 0
        self._raised_on: StoreConnection | None = None

    def is_raised_on(self, store: StoreConnection) -> bool:
        """Return whether it was raised over this connection."""
        return self._raised_on is store

    async def raise_on(self, store: StoreConnection) -> None:
        """Take a new epoch and learn `last`."""
        epoch = secrets.token_hex(8)
        self._raised_on = None
        self.last = await store.script(RAISE, (self.key,), epoch, str(LIFE_S))
        self.epoch, self._raised_on = epoch, store

    def forget(self) -> None:
        """Note that it has another epoch by now."""
        self._raised_on = None

    async def remove(self, store: StoreConnection) -> None:
        """Remove it: nothing of this incarnation can be applied any more, nor will be."""
        await store.command("DEL", self.key)
