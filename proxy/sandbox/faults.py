"""Failures on demand: at which moment, for whom, how often, and what happens then.

A fault is a value; the book of faults decides which one strikes. The first one in the book that
matches does, the others wait.
"""

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any, Literal, get_args

Moment = Literal[
    "connect",  # before the greeting; also where ports are closed or made silent
    "ehlo",
    "starttls",  # instead of the 220 to STARTTLS
    "tls",  # after it: the handshake
    "auth",
    "mail",
    "rcpt",
    "data",  # instead of the 354
    "content",  # while the message comes in, before its final dot is looked for
    "dot",  # after the final dot; the message is not taken
    "taken",  # after the message is taken, instead of its 250: the unknown outcome
    "rset",
    "noop",
    "quit",
]

Act = Literal[
    "reply",  # answer `reply`; 421 closes the connection as well
    "drop",  # close the connection
    "reset",  # close it with a TCP reset
    "hang",  # never answer, keep the connection
    "delay",  # answer as usual, `seconds` later
    "hide",  # "ehlo": do not offer the extension `what`
    "certificate",  # "starttls": show the certificate `what` (see Flaw)
    "refuse",  # "connect": the port is closed
    "blackhole",  # "connect": the port swallows packets, so that connecting times out
]

Flaw = Literal["", "ending", "expired", "name", "untrusted"]
"""What is wrong with a certificate: nothing, it is good for 10 days only, it is good no more, whom
it names, who signed it."""

PortState = Literal["", "refuse", "blackhole"]
"""What has become of a whole port: open, closed, swallowing packets."""

PORT_ACTS = ("refuse", "blackhole")
"""Acts on a port as a whole, as long as the fault stands."""

_REPLY = re.compile(r"[2-5]\d\d(?:[ -]|$)")
_TYPES: Mapping[str, type | tuple[type, ...]] = MappingProxyType(
    {
        "reply": str,
        "what": str,
        "host": str,
        "address": str,
        "seconds": (int, float),
        "port": int,
        "skip": int,
        "times": int,
    }
)

_numbers = itertools.count(1)


class FaultError(ValueError):
    """A fault that makes no sense; str() says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One failure on demand.

    `port` 0 and `host` "" stand for all of them; `host` is an address the sandbox listens on.
    `address` is a pattern with `*`: the login at "auth", the reverse-path at "mail", the
    forward-path at "rcpt", any of them later on; case does not matter. The first `skip` times
    nothing happens; after that it strikes `times` times (0: always).

    Raises:
        FaultError: unknown moment or act, or one that does not go with the other.
    """

    at: Moment
    do: Act = "reply"
    reply: str = ""
    what: str = ""
    seconds: float = 0.0
    port: int = 0
    host: str = ""
    address: str = "*"
    skip: int = 0
    times: int = 0

    def __post_init__(self) -> None:
        """Refuse what could never strike: a test with such a fault would pass for nothing."""
        if self.at not in get_args(Moment):
            raise FaultError(f"at = {self.at!r}: one of {', '.join(get_args(Moment))}")
        if self.do not in get_args(Act):
            raise FaultError(f"do = {self.do!r}: one of {', '.join(get_args(Act))}")
        for name, wanted in _TYPES.items():
            if not isinstance(getattr(self, name), wanted):
                raise FaultError(f"{name} = {getattr(self, name)!r}: not of its type")
        if self.do == "reply" and not _REPLY.match(self.reply):
            raise FaultError(f"reply = {self.reply!r}: a reply begins with its three digits")
        if self.do in PORT_ACTS and self.at != "connect":
            raise FaultError(f"do = {self.do!r} goes with at = 'connect' only")
        if self.do in PORT_ACTS and (self.skip or self.times):
            raise FaultError(f"do = {self.do!r} holds until it is removed: no skip, no times")
        if self.do == "hide" and (self.at != "ehlo" or not self.what):
            raise FaultError("do = 'hide' goes with at = 'ehlo' and names the extension in what")
        if self.do == "certificate" and (
            self.at != "starttls" or not self.what or self.what not in get_args(Flaw)
        ):
            raise FaultError(
                "do = 'certificate' goes with at = 'starttls'"
                " and what = ending, expired, name or untrusted"
            )
        if self.at == "tls" and self.do not in ("drop", "reset", "hang"):
            raise FaultError("at = 'tls' goes with drop, reset or hang")

    def concerns(self, host: str, port: int) -> bool:
        """Whether this fault is about the listening address `host`, `port`."""
        return self.port in (0, port) and self.host in ("", host)


class FaultBook:
    """The faults in force, in the order they were added, each with a number of its own."""

    def __init__(self) -> None:
        self._entries: dict[int, tuple[Fault, list[int]]] = {}
        self._moments: frozenset[str] = frozenset()

    def add(self, fault: Fault) -> int:
        """Put `fault` in force and return its number."""
        number = next(_numbers)
        self._entries[number] = (fault, [0])
        self._index()
        return number

    def remove(self, number: int) -> bool:
        """Take one fault out of force; False when there is none of that number."""
        found = self._entries.pop(number, None) is not None
        self._index()
        return found

    def clear(self) -> None:
        """Take all faults out of force."""
        self._entries.clear()
        self._index()

    def listed(self) -> list[dict[str, Any]]:
        """Return all faults in force as plain values, with `number` and how often each `met`."""
        return [
            {"number": number, "met": met[0]}
            | {name.name: getattr(fault, name.name) for name in fields(fault)}
            for number, (fault, met) in self._entries.items()
        ]

    def port_act(self, host: str, port: int) -> PortState:
        """Return what has become of a whole port: "refuse", "blackhole", or "" for nothing."""
        for fault, _ in self._entries.values():
            if fault.do in ("refuse", "blackhole") and fault.concerns(host, port):
                return fault.do
        return ""

    def strike(
        self, at: Moment, host: str, port: int, addresses: Iterable[str] = ("",)
    ) -> Fault | None:
        """Return the fault that strikes now, and count it; None on most days."""
        if at not in self._moments:
            return None
        for fault, met in self._entries.values():
            if fault.at != at or fault.do in PORT_ACTS or fault.do == "hide":
                continue
            if fault.concerns(host, port) and self._matches(fault, addresses):
                met[0] += 1
                if met[0] > fault.skip and not (fault.times and met[0] > fault.skip + fault.times):
                    return fault
        return None

    def hidden(self, host: str, port: int) -> set[str]:
        """Return the names of the extensions that EHLO does not offer there, in upper case."""
        return {
            fault.what.upper()
            for fault, _ in self._entries.values()
            if fault.do == "hide" and fault.concerns(host, port)
        }

    def _index(self) -> None:
        self._moments = frozenset(fault.at for fault, _ in self._entries.values())

    @staticmethod
    def _matches(fault: Fault, addresses: Iterable[str]) -> bool:
        pattern = fault.address.lower()
        return pattern == "*" or any(fnmatchcase(one.lower(), pattern) for one in addresses)
