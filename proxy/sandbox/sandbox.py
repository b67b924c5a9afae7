"""A stand-in for Postmark on loopback: it takes mail and keeps it, and nothing leaves it."""

import asyncio
import ipaddress
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from proxy.sandbox.account import HOST_NAMES, Account, Kind
from proxy.sandbox.certificates import Authority
from proxy.sandbox.connection import Connection
from proxy.sandbox.faults import Act, Fault, FaultBook, Moment
from proxy.sandbox.message import Taken
from proxy.sandbox.ports import Port
from proxy.sandbox.session import Session
from proxy.sandbox.store import Entry, Login, Store

HOSTS: Mapping[str, Kind] = MappingProxyType(
    {"127.0.0.1": "transactional", "127.0.0.2": "broadcast"}
)
"""The two hosts as two loopback addresses, since both listen on the same ports."""


class Sandbox:
    """Both of Postmark's SMTP hosts, each on the same ports, and the account behind them.

    `ports` may hold zeros: free ones are taken, the same for all hosts. `latency` is how many
    seconds later every reply is sent (a round trip), `idle` after how many seconds without a
    command a connection ends with 421. `recipient_limit` answers 452 4.5.3 beyond so many in one
    transaction (0: no such limit). Of what was taken the newest `keep_octets` are kept. `folder`
    holds the authority's certificate and key. `on_taken` is called for each message, before its
    250.

    Use as `async with`, or `start` and `close`.

    Raises:
        ValueError: a host that is not a loopback address: the stand-in must not be reachable.
        OSError: at `start`, when a port cannot be had.
    """

    def __init__(
        self,
        folder: Path,
        account: Account | None = None,
        *,
        ports: Sequence[int] = (0, 0, 0),
        hosts: Mapping[str, Kind] = HOSTS,
        latency: float = 0.0,
        idle: float = 300.0,
        recipient_limit: int = 0,
        keep_octets: int = 400_000_000,
        on_taken: Callable[[Entry], None] | None = None,
    ) -> None:
        for host in hosts:
            if not ipaddress.ip_address(host).is_loopback:
                raise ValueError(f"the sandbox listens on loopback only, not on {host}")
        self.account = account or Account()
        self.hosts = dict(hosts)
        self.ports = tuple(ports)
        self.latency = latency
        self.idle = idle
        self.recipient_limit = recipient_limit
        self.authority = Authority(folder)
        self.faults = FaultBook()
        self.store = Store(self.account, keep_octets=keep_octets)
        self.sessions: set[Connection] = set()
        self.connections_made: Counter[tuple[str, int]] = Counter()
        self.most_connections: Counter[str] = Counter()
        self._on_taken = on_taken
        self._listening: list[Port] = []

    @property
    def ca_file(self) -> Path:
        """The certificate of the authority that a client has to trust."""
        return self.authority.ca_file

    async def start(self) -> None:
        """Listen on all hosts and ports; afterwards `ports` holds their real numbers."""
        try:
            self.ports = tuple(self._listen(number) for number in self.ports)
        except OSError:
            await self.close()
            raise

    def _listen(self, wanted: int) -> int:
        """Listen on one port of all hosts: when any may be taken, on one that all have free."""
        for attempt in range(20):
            taken: list[Port] = []
            try:
                for host in self.hosts:
                    number = taken[0].number if taken else wanted
                    taken.append(Port(host, number, lambda port: Session(self, port)))
            except OSError:
                for port in taken:
                    port.become("refuse")
                if wanted or attempt == 19:
                    raise
                continue
            self._listening += taken
            return taken[0].number
        raise AssertionError("unreachable")

    async def close(self) -> None:
        """Close ports and connections; what was taken can still be read."""
        for port in self._listening:
            await port.close()
        sessions = list(self.sessions)
        for session in sessions:
            session.abort()
        running = [s._handler_coroutine for s in sessions if s._handler_coroutine is not None]
        await asyncio.gather(*running, return_exceptions=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # -- failures on demand

    def fail(self, at: Moment, reply: str = "", *, do: Act = "reply", **rest: Any) -> int:
        """Put a fault in force at once and return its number; see `Fault` for the rest.

        Raises:
            FaultError: a fault that makes no sense.
        """
        return self.add_fault(Fault(at=at, do=do, reply=reply, **rest))

    def add_fault(self, fault: Fault) -> int:
        """Put `fault` in force at once and return its number."""
        number = self.faults.add(fault)
        self._set_ports()
        return number

    def mend(self, number: int | None = None) -> bool:
        """Take one fault out of force, or all of them; False when there is none of that number."""
        if number is None:
            self.faults.clear()
            found = True
        else:
            found = self.faults.remove(number)
        self._set_ports()
        return found

    def _set_ports(self) -> None:
        for port in self._listening:
            act = self.faults.port_act(port.address, port.number)
            port.become(act)

    def cut(self, *, reset: bool = False) -> int:
        """Cut all connections there are now; return how many."""
        sessions = list(self.sessions)
        for session in sessions:
            session.abort(reset=reset)
        return len(sessions)

    # -- told by the sessions

    def joined(self, session: Connection) -> None:
        """A connection was made, or its TLS stands."""
        if session in self.sessions:
            return
        self.sessions.add(session)
        self.connections_made[session.address, session.port] += 1
        now = sum(one.address == session.address for one in self.sessions)
        self.most_connections[session.address] = max(self.most_connections[session.address], now)

    def left(self, session: Connection) -> None:
        """A connection is gone."""
        self.sessions.discard(session)

    def tried(self, mechanism: str, user: str, *, accepted: bool, session: Session) -> None:
        """Somebody tried to log in."""
        tls = bool(session.tls)
        self.store.logins.append(
            Login(mechanism, user, accepted, tls, session.address, session.port)
        )

    def take(
        self, session: Session, reverse_path: str, recipients: tuple[str, ...], content: bytes
    ) -> str:
        """Keep one message and return its queue id."""
        number = self.store.count + 1
        queue_id = f"4S{number:012X}"
        entry = self.store.add(
            Taken(
                number=number,
                id=str(uuid.uuid4()),
                queue_id=queue_id,
                at=time.time(),
                host=HOST_NAMES[session.kind],
                port=session.port,
                tls=session.tls,
                login=session.user,
                bound_stream=self.account.stream_of(session.user),
                helo=session.helo,
                reverse_path=reverse_path,
                recipients=recipients,
                content=content,
            )
        )
        if self._on_taken is not None:
            self._on_taken(entry)
        return queue_id
