"""The open connections of one login to one host: chosen, opened and closed as mail needs them."""

import asyncio
from collections.abc import Callable, Collection
from weakref import WeakKeyDictionary

from worker.smarthost.connection import Connection
from worker.smarthost.endpoints import Endpoint
from worker.smarthost.host import Budget, Logins, RouteClosed, Smarthost
from worker.smarthost.sasl import Login

IDLE_S = 60.0
"""A connection without mail for so long is closed."""


class Pool:
    """The connections of one channel.

    `opened` is called after each new connection, with what it logged in by, `failed` when none can
    be had; both in the event loop, after the pool has taken note.
    """

    def __init__(
        self,
        smarthost: Smarthost,
        logins: Logins,
        budget: Budget,
        *,
        opened: Callable[[Login], None],
        failed: Callable[[RouteClosed], None],
    ) -> None:
        self.avoid: Endpoint | None = None
        """Where something just went wrong in the middle of a message: tried last."""
        self._smarthost = smarthost
        self._logins = logins
        self._budget = budget
        self._opened = opened
        self._failed = failed
        self._connections: dict[Connection, int] = {}  # with the transactions each has ended
        self._outgoing: set[Connection] = set()  # to be closed when they have ended what they have
        self._logged_in: WeakKeyDictionary[Connection, Login] = WeakKeyDictionary()
        self._opening: set[asyncio.Task[None]] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._reached = False
        self._renewals = 0

    def __len__(self) -> int:
        """Connections open or being opened."""
        return len(self._connections) + len(self._outgoing) + len(self._opening)

    @property
    def reached(self) -> int:
        """Connections open."""
        return len(self._connections)

    @property
    def opening(self) -> bool:
        """Tell whether a connection is being opened."""
        return bool(self._opening)

    def free(self, *, fresh: bool) -> Connection | None:
        """Return a connection that can take a transaction, an idle one first; None: there is none.

        `fresh`: only one that has never carried mail.
        """
        best = None
        for connection, ended in self._connections.items():
            if connection.outstanding:
                if not best and not fresh and connection.free_slots:
                    best = connection
            elif not (fresh and ended) and connection.free_slots:
                return connection
        return best

    def takes(self, connection: Connection) -> bool:
        """Tell whether one more transaction may go to `connection`."""
        return connection in self._connections and connection.free_slots > 0

    def is_fresh(self, connection: Connection) -> bool:
        """Tell whether `connection` has never carried mail."""
        return not connection.outstanding and not self._connections.get(connection, 0)

    def login_of(self, connection: Connection) -> Login:
        """Return what `connection` logged in with."""
        return self._logged_in[connection]

    def ended(self, connection: Connection) -> None:
        """Note the end of a transaction on `connection`; drop it when it is of no more use."""
        if connection in self._connections:
            self._connections[connection] += 1
            if not connection.alive:
                del self._connections[connection]
        elif connection in self._outgoing and not connection.outstanding:
            self.retire(connection)

    def grow(self, wanted: int, width: int, *, fresh: bool = False) -> None:
        """Open up to `wanted` more connections, `width` in all.

        Until one stands only one is tried, so that a dead host, or a password that has become a
        wrong one, costs one attempt and not ten. `fresh`: where there is no room for one more, the
        idlest makes place.
        """
        wanted -= len(self._opening)
        if not self._reached or not self._connections:
            wanted = min(wanted, 1 - len(self._opening))
        for _ in range(min(wanted, width - len(self))):
            if not self._budget.room():
                break
            self.open_one()
        if fresh and wanted > 0 and not self._opening:
            idle = next((c for c, n in self._connections.items() if n and not c.outstanding), None)
            if idle is not None:
                self.retire(idle)
                self.open_one()

    def open_one(self) -> None:
        """Begin to open a connection."""
        task = asyncio.create_task(self._open(), name="connect")
        self._opening.add(task)

    async def _open(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        renewals = self._renewals
        try:
            connection, login = await self._smarthost.open(self._logins, self.avoid)
        except RouteClosed as closed:
            self._opening.discard(task)
            self._reached = False
            self._failed(closed)
        else:
            self._opening.discard(task)
            self._connections[connection] = 0
            self._logged_in[connection] = login
            self._reached = True
            if renewals != self._renewals and login not in self._logins.way.logins():
                self.retire(connection)  # its secret was changed meanwhile
                self.open_one()
                return
            self._opened(login)
        finally:
            self._opening.discard(task)

    def renew(self, logins: Collection[Login]) -> None:
        """Use no connection any more that logged in by something else than `logins`.

        While none of them can be read the old ones are better than nothing.
        """
        if not logins:
            return
        self._renewals += 1
        for connection in list(self._connections):
            if self._logged_in[connection] in logins:
                continue
            if connection.outstanding:
                del self._connections[connection]
                self._outgoing.add(connection)
            else:
                self.retire(connection)

    def tidy(self, now: float, width: int) -> None:
        """Forget what is dead; close what is idle for too long, or more than `width` allows."""
        for connection in [c for c in self._connections if not c.alive and not c.outstanding]:
            del self._connections[connection]
        surplus = len(self) - width
        for connection in list(self._connections):
            if connection.outstanding:
                continue
            if surplus > 0 or now - connection.idle_since > IDLE_S:
                surplus -= 1
                self.retire(connection)

    def retire(self, connection: Connection) -> None:
        """Take `connection` out of use and end it politely."""
        self._connections.pop(connection, None)
        self._outgoing.discard(connection)
        task = asyncio.create_task(connection.close(), name="quit")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def abort(self, why: str) -> None:
        """Drop every connection: what is on them ends as it stands."""
        for connection in (*self._connections, *self._outgoing):
            connection.abort(why)

    async def close(self) -> None:
        """End every connection and every attempt at one."""
        for task in self._opening:
            task.cancel()
        for connection in (*self._connections, *self._outgoing):
            self.retire(connection)
        await asyncio.gather(*self._opening, *self._closing, return_exceptions=True)
