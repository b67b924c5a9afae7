"""The open connections of one login to one host: chosen, opened and closed as mail needs them."""

import asyncio
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from functools import partial
from weakref import WeakKeyDictionary

from worker.smarthost.connection import Connection
from worker.smarthost.endpoints import Endpoint
from worker.smarthost.handshake import Course
from worker.smarthost.host import Budget, Logins, RouteClosed, Smarthost
from worker.smarthost.sasl import Login

IDLE_S = 60.0
"""A connection without mail for so long is closed."""


class _OtherLogin(Exception):
    """The attempt that went ahead was let in by another login than this one would show."""


@dataclass(slots=True)
class _Ahead:
    """The attempt that goes ahead while no connection stands; the `others` wait for its `end`.

    `end` is the login that it was let in by, None when it failed. `offered`: the far end is there.
    """

    end: asyncio.Future[Login | None]
    offered: bool = False
    others: set[asyncio.Task[None]] = field(default_factory=set)


class Pool:
    """The connections of one channel.

    `opened` is called after each new connection, with what it logged in by, `failed` when none can
    be had, `growable` when `grow` may do more than before; all in the event loop, after the pool
    has taken note.
    """

    def __init__(
        self,
        smarthost: Smarthost,
        logins: Logins,
        budget: Budget,
        opened: Callable[[Login], None],
        failed: Callable[[RouteClosed], None],
        growable: Callable[[], None],
    ) -> None:
        self.avoid: Endpoint | None = None
        """Where something just went wrong in the middle of a message: tried last."""
        self._smarthost = smarthost
        self._logins = logins
        self._budget = budget
        self._opened = opened
        self._failed = failed
        self._growable = growable
        self._connections: dict[Connection, int] = {}  # with the transactions each has ended
        self._outgoing: set[Connection] = set()  # to be closed when they have ended what they have
        self._logged_in: WeakKeyDictionary[Connection, Login] = WeakKeyDictionary()
        self._opening: set[asyncio.Task[None]] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._ahead: _Ahead | None = None
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

        While none stands one goes ahead, so that a dead host costs one attempt and not ten. The
        others set out when the far end has answered it, and log in when it was let in, so that a
        password that has become a wrong one is shown once. `fresh`: where there is no room for one
        more, the idlest makes place.
        """
        wanted -= len(self._opening)
        if self._ahead is not None:
            wanted = wanted if self._ahead.offered else 0
        elif not self._stands:
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

    @property
    def _stands(self) -> bool:
        return self._reached and bool(self._connections)

    def open_one(self) -> None:
        """Begin to open a connection; while none stands, and none goes ahead, this one does."""
        if self._ahead is None and not self._stands:
            self._ahead = _Ahead(asyncio.get_running_loop().create_future())
            task = asyncio.create_task(self._go_ahead(self._ahead), name="connect")
        else:
            task = asyncio.create_task(self._follow(self._ahead), name="connect")
            if self._ahead is not None:
                self._ahead.others.add(task)
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _go_ahead(self, ahead: _Ahead) -> None:
        async def at_once(_: Login) -> None:
            pass

        renewals = self._renewals
        course = Course(partial(self._far_end_answered, ahead), at_once)
        try:
            connection, login = await self._smarthost.open(self._logins, course, self.avoid)
        except RouteClosed as closed:
            self._let_others(ahead, None)
            self._refused(closed)
        else:
            self._let_others(ahead, login)
            self._take_up(connection, login, renewals)
        finally:  # where it was cancelled
            self._let_others(ahead, None)

    def _far_end_answered(self, ahead: _Ahead) -> None:
        ahead.offered = True
        asyncio.get_running_loop().call_soon(self._growable)

    def _let_others(self, ahead: _Ahead, login: Login | None) -> None:
        """Let the others log in as well, or, where `login` is None, end their attempts."""
        if ahead.end.done():
            return
        self._ahead = None
        ahead.end.set_result(login)
        if login is None:
            self._give_up(ahead.others & self._opening)

    def _give_up(self, tasks: Iterable[asyncio.Task[None]]) -> None:
        for task in tasks:
            self._opening.discard(task)
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
            task.cancel()

    async def _follow(self, ahead: _Ahead | None) -> None:
        """Open a connection behind the one that goes `ahead`, if one does."""

        async def let_in(login: Login) -> None:
            if ahead is not None and await asyncio.shield(ahead.end) != login:
                raise _OtherLogin

        renewals = self._renewals
        course = Course(lambda: None, let_in)
        try:
            connection, login = await self._smarthost.open(self._logins, course, self.avoid)
        except _OtherLogin:
            self._opening.discard(_this_task())
            self._growable()
        except RouteClosed as closed:
            # What the one ahead meets with says more, and all there is to say where it failed.
            if ahead is None or await asyncio.shield(ahead.end) is not None:
                self._refused(closed)
        else:
            self._take_up(connection, login, renewals)

    def _refused(self, closed: RouteClosed) -> None:
        self._opening.discard(_this_task())
        self._reached = False
        self._failed(closed)

    def _take_up(self, connection: Connection, login: Login, renewals: int) -> None:
        """Use `connection` from now on; `renewals` had been counted when it was begun."""
        self._opening.discard(_this_task())
        self._connections[connection] = 0
        self._logged_in[connection] = login
        self._reached = True
        if renewals != self._renewals and login not in self._logins.way.logins():
            self.retire(connection)  # its secret was changed meanwhile
            self.open_one()
            return
        self._opened(login)

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
        """Forget what is dead; close what is idle for too long, or more than `width` allows.

        Attempts that wait for the one ahead are given up, too, where they are too many.
        """
        for connection in [c for c in self._connections if not c.alive and not c.outstanding]:
            del self._connections[connection]
        surplus = len(self) - width
        for connection in list(self._connections):
            if connection.outstanding:
                continue
            if surplus > 0 or now - connection.idle_since > IDLE_S:
                surplus -= 1
                self.retire(connection)
        if surplus > 0 and self._ahead is not None:  # others have mail, and this far end lingers
            self._give_up(list(self._ahead.others & self._opening)[:surplus])

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
        for connection in list(self._connections):  # opened in the turn in which it was cancelled
            self.retire(connection)
        await asyncio.gather(*self._closing, return_exceptions=True)


def _this_task() -> asyncio.Task[None]:
    task = asyncio.current_task()
    assert task is not None
    return task
