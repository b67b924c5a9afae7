"""All that listens for SMTP in this process: opened, watched over, and ended in order."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import Callable, Sequence

from proxy.config.model import Listen, ListenAddress, ListenTLS
from proxy.listener import replies
from proxy.listener.door import Door, Office
from proxy.listener.intake import Intake
from proxy.listener.limits import Limits
from proxy.listener.session import SmtpSession
from proxy.listener.sockets import BindError, Bound
from proxy.metrics.intake import CONNECTIONS

DRAIN_S = 10.0
"""What is in flight gets this long when the process is asked to end."""


def tls_context(tls: ListenTLS, address: str) -> ssl.SSLContext:
    """Return the context with which clients of `address` are offered STARTTLS.

    Raises:
        BindError: certificate or key cannot be read, or do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.cert, tls.key)
    except OSError as error:
        why = error.strerror or str(error)
        raise BindError(
            f"listen.smtp {address} tls: {tls.cert} and {tls.key} cannot be used: {why}"
        ) from error
    return context


class Listener:
    """The sockets of `[listen]` and the sessions on them, on one event loop."""

    def __init__(
        self,
        intake: Intake,
        limits: Limits,
        hostname: str,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` gives seconds that never go back."""
        self._office = Office(intake, limits, hostname, clock)
        self._servers: list[asyncio.Server] = []
        self._bound: tuple[Bound, ...] = ()
        self._doors: list[Door] = []  # of `_bound`, for those who come now
        self._watch: asyncio.Task[None] | None = None
        self.names: tuple[str, ...] = ()
        """Where it listens, as `listen.smtp` writes it."""
        CONNECTIONS.set_function(lambda: len(self._office.sessions))

    @property
    def held(self) -> int:
        """Octets of messages in memory now, as `listen.memory` counts them."""
        return self._office.memory.held

    @property
    def sessions(self) -> int:
        """Clients connected now."""
        return len(self._office.sessions)

    @property
    def refuses_local(self) -> str:
        """The reply that every program on this host hears at each of its addresses; "" for none."""
        loopback = ("127.0.0.1", "::1")
        if any(door.allows(one) for door in self._doors for one in loopback):
            return ""
        return replies.words(replies.NOT_ALLOWED)

    async def open(self, sockets: Sequence[Bound], listen: Listen) -> None:
        """Take clients on `sockets`, which are closed if that cannot be; `listen` is for all.

        Raises:
            BindError: a certificate cannot be used.
        """
        loop = asyncio.get_running_loop()
        self._bound = tuple(sockets)
        try:
            self._open_doors(listen, self.certificates(listen))
            for place, bound in enumerate(sockets):
                self._servers.append(await self._serve(loop, bound, place))
        except BaseException:
            for bound in sockets:
                bound.socket.close()
            raise
        self.names = tuple(bound.name for bound in sockets)
        self._watch = asyncio.create_task(self._expire_sessions(), name="session time-outs")

    def certificates(self, listen: Listen) -> tuple[ssl.SSLContext | None, ...]:
        """Return what each of the open sockets offers for STARTTLS where `listen` holds.

        Raises:
            BindError: some cannot be used; its text has all of them.
        """
        found, faults = [], []
        for settings in self._settings(listen):
            try:
                tls = settings.tls
                found.append(None if tls is None else tls_context(tls, settings.address))
            except BindError as error:
                faults.append(str(error))
        if faults:
            raise BindError("; ".join(faults))
        return tuple(found)

    def change(
        self,
        intake: Intake,
        limits: Limits,
        listen: Listen,
        certificates: Sequence[ssl.SSLContext | None],
    ) -> None:
        """Go by other settings: a client that is there from its next mail on, others at once."""
        self._office.intake, self._office.limits = intake, limits
        self._office.memory.limit = limits.memory
        self._open_doors(listen, certificates)

    def _settings(self, listen: Listen) -> list[ListenAddress]:
        """Return what `listen` says of the address of each open socket."""
        said = {one.address: one for one in listen.smtp}
        opened = [bound.settings for bound in self._bound]
        return [one if one in listen.smtp else said.get(one.address, one) for one in opened]

    def _open_doors(self, listen: Listen, certificates: Sequence[ssl.SSLContext | None]) -> None:
        self._doors = []
        for bound, settings, tls in zip(
            self._bound, self._settings(listen), certificates, strict=True
        ):
            networks = listen.allow if settings.allow is None else settings.allow
            self._doors.append(
                Door(
                    self._office,
                    networks=None if bound.is_unix else networks,
                    auth=settings.auth == "accept",
                    tls=tls,
                )
            )

    async def _serve(
        self, loop: asyncio.AbstractEventLoop, bound: Bound, place: int
    ) -> asyncio.Server:
        def session() -> SmtpSession:
            return SmtpSession(self._doors[place], loop)

        if bound.is_unix:
            return await loop.create_unix_server(session, sock=bound.socket, backlog=1024)
        return await loop.create_server(session, sock=bound.socket, backlog=1024)

    async def _expire_sessions(self) -> None:
        """End sessions whose time is over: one look at all of them, no timer for each command."""
        while True:
            await asyncio.sleep(min(1.0, self._office.limits.timeout / 5))
            self.end_overdue()

    def end_overdue(self) -> None:
        """End all sessions whose time is over now."""
        now = self._office.clock()
        for session in [one for one in self._office.sessions if one.deadline < now]:
            session.expire()

    async def close(self, drain: float = DRAIN_S) -> None:
        """Take no more clients, let mail in hand be finished for `drain` seconds, then cut.

        Clients that are between two mails hear 421 at once. Mail whose end has come is kept or
        refused before its session ends, however long that takes within `drain`.
        """
        office = self._office
        office.stopping = True
        for server in self._servers:
            server.close()
        for session in list(office.sessions):
            session.ask_to_end()
        if office.tasks:
            await asyncio.wait(set(office.tasks), timeout=drain)
        for session in list(office.sessions):
            session.cut()
        late = set(office.tasks)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=1)
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
        self._servers.clear()
