"""What one address that we listen on offers, and to whom."""

import asyncio
import functools
import ipaddress
import re
import ssl
import time
from collections.abc import Callable, Hashable, Iterable
from typing import Protocol, TypeAlias

from proxy.listener.crowd import Crowd
from proxy.listener.intake import Intake
from proxy.listener.limits import Limits, Memory, Rarely

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


class Guest(Hashable, Protocol):
    """A connection that stands; `deadline` is when its client has taken too long."""

    deadline: float

    def expire(self) -> None:
        """End it: the deadline is over."""

    def ask_to_end(self) -> None:
        """End it as soon as no mail is in hand."""

    def cut(self) -> None:
        """End it at once."""


class Office:
    """What all sessions of this process share: where mail goes in, and what may be held."""

    def __init__(
        self,
        intake: Intake,
        limits: Limits,
        hostname: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.intake = intake
        self.limits = limits
        self.hostname = hostname
        self.clock = clock
        self.memory = Memory(limits.memory)
        self.sessions: set[Guest] = set()
        self.tasks: set[asyncio.Future[None]] = set()
        """What has to come to its end before we do: dialogs, and what is being done for them."""
        self.crowd = Crowd()
        self.crowding = Rarely()
        self.stopping = False


class Door:
    """One address: who may come in, and what EHLO says there.

    `networks` None lets everybody in who can reach it (a unix socket's permissions decide).
    """

    def __init__(
        self,
        office: Office,
        *,
        networks: Iterable[str] | None,
        auth: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.office = office
        self.auth = auth
        self.tls = tls
        self._networks = None if networks is None else parse_networks(networks)
        self.allows = functools.lru_cache(maxsize=4096)(self._allows)
        # DNS may have said it: nothing in it may end the line.
        name = re.sub(rb"[^!-~]", b"?", office.hostname.encode("ascii", "replace"))
        self.greeting = b"220 %s ESMTP Franker\r\n" % name
        self.helo = b"250 %s\r\n" % name
        self.ehlo = self._ehlo(name, in_tls=False)
        self.ehlo_in_tls = self._ehlo(name, in_tls=True)

    def _ehlo(self, name: bytes, *, in_tls: bool) -> bytes:
        words = [
            name,
            b"SIZE %d" % self.office.limits.message_size,
            b"PIPELINING",
            b"8BITMIME",
            b"SMTPUTF8",
            b"XONCE",
        ]
        if self.tls is not None and not in_tls:
            words.append(b"STARTTLS")
        if self.auth:
            words.append(b"AUTH PLAIN LOGIN")
        lines = b"".join(b"250-%s\r\n" % word for word in words)
        return lines + b"250 ENHANCEDSTATUSCODES\r\n"

    def _allows(self, address: str) -> bool:
        if self._networks is None:
            return True
        host = ipaddress.ip_address(address)
        return any(host in network for network in self._networks)


def parse_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Return the networks of an allow list; a bare address is a network of one."""
    return tuple(ipaddress.ip_network(text, strict=False) for text in texts)
