"""All that listens for SMTP in this process: opened, watched over, and ended in order."""

import asyncio
import contextlib
import ssl
from collections.abc import Sequence

from proxy.config.model import Listen, ListenTLS
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

    def __init__(self, intake: Intake, limits: Limits, hostname: str) -> None:
        self._office = Office(intake, limits, hostname)
        self._servers: list[asyncio.Server] = []
        self._doors: list[Door] = []
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
    def takes_local(self) -> bool:
        """Whether programs on this host may hand mail in at any of its addresses."""
        loopback = ("127.0.0.1", "::1")
        return any(door.allows(one) for door in self._doors for one in loopback)

    async def open(self, sockets: Sequence[Bound], listen: Listen) -> None:
        """Take clients on `sockets`, which are closed if that cannot be; `listen` is for all.

        Raises:
            BindError: a certificate cannot be used.
        """
        loop = asyncio.get_running_loop()
        try:
            self._doors = [self._door(bound, listen) for bound in sockets]
            for bound, door in zip(sockets, self._doors, strict=True):
                self._servers.append(await self._serve(loop, bound, door))
        except BaseException:
            for bound in sockets:
                bound.socket.close()
            raise
        self.names = tuple(bound.name for bound in sockets)
        self._watch = asyncio.create_task(self._expire_sessions(), name="session time-outs")

    def _door(self, bound: Bound, listen: Listen) -> Door:
        settings = bound.settings
        networks = settings.allow
        if networks is None and not bound.is_unix:
            networks = listen.allow
        return Door(
            self._office,
            networks=None if bound.is_unix else networks,
            auth=settings.auth == "accept",
            tls=None if settings.tls is None else tls_context(settings.tls, settings.address),
        )

    async def _serve(
        self, loop: asyncio.AbstractEventLoop, bound: Bound, door: Door
    ) -> asyncio.Server:
        def session() -> SmtpSession:
            return SmtpSession(door, loop)

        if bound.is_unix:
            return await loop.create_unix_server(session, sock=bound.socket, backlog=1024)
        return await loop.create_server(session, sock=bound.socket, backlog=1024)

    async def _expire_sessions(self) -> None:
        """End sessions whose time is over: one look at all of them, no timer for each command."""
        office = self._office
        loop = asyncio.get_running_loop()
        pause = min(1.0, office.limits.timeout / 5)
        while True:
            await asyncio.sleep(pause)
            now = loop.time()
            for session in [one for one in office.sessions if one.deadline < now]:
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
