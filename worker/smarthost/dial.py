"""A TCP connection to whichever address of a name answers first (RFC 8305, "happy eyeballs")."""

import asyncio
import os
import socket

import aiohappyeyeballs

from worker.replies import ConnectFailure, Phase
from worker.smarthost.endpoints import Endpoint

STAGGER_S = 0.25
"""The next address is tried when the one before has failed, or was silent for so long."""

_KEEPALIVE = (
    # A far end that vanished is noticed after about five minutes, and routers in between keep
    # the connection in mind while a slow final reply is waited for.
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPIDLE", 0), 30),
    (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPINTVL", 0), 30),
    (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPCNT", 0), 9),
)

Address = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]
"""One entry of getaddrinfo: family, type, protocol, canonical name, socket address."""


async def resolve(endpoint: Endpoint, patience: float) -> list[Address]:
    """Return the addresses of `endpoint`, IPv6 and IPv4, as the system orders them.

    Raises:
        ConnectFailure: the name has none, or the lookup took more than `patience` seconds.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(patience):
            found = await loop.getaddrinfo(
                endpoint.host, endpoint.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
            )
    except TimeoutError:
        raise ConnectFailure(
            Phase.RESOLVE, None, f"no answer about {endpoint.host} within {patience:g} s"
        ) from None
    except (OSError, UnicodeError) as error:
        reason = _reason(error)
        raise ConnectFailure(Phase.RESOLVE, None, f"{endpoint.host}: {reason}") from error
    return [entry for entry in found if entry[0] in (socket.AF_INET, socket.AF_INET6)]  # type: ignore[misc]  # typeshed also has the bytes form of other families


async def first_to_answer(addresses: list[Address], patience: float) -> socket.socket:
    """Return a connected socket; each address gets at least `patience` seconds.

    Raises:
        ConnectFailure: none answered.
    """
    limit = patience + STAGGER_S * (len(addresses) - 1)
    try:
        async with asyncio.timeout(limit):
            connected = await aiohappyeyeballs.start_connection(
                addresses, happy_eyeballs_delay=STAGGER_S
            )
    except TimeoutError:
        raise ConnectFailure(Phase.CONNECT, None, f"no answer within {limit:g} s") from None
    except (OSError, RuntimeError, ValueError) as error:
        reason = _reason(error)
        raise ConnectFailure(Phase.CONNECT, None, reason) from error
    for level, option, value in _KEEPALIVE:
        if option:
            connected.setsockopt(level, option, value)
    return connected


def without(addresses: list[Address], tried: socket.socket) -> list[Address]:
    """Return `addresses` less the one that `tried` is connected to."""
    try:
        peer = tried.getpeername()
    except OSError:
        return []
    left = [entry for entry in addresses if entry[4][:2] != peer[:2]]
    return left if len(left) < len(addresses) else []  # or the same would be tried for ever


def _reason(error: Exception) -> str:
    """Return the system's words for an error, without addresses and Python around them."""
    number = getattr(error, "errno", None)
    if isinstance(error, socket.gaierror) or not isinstance(number, int):
        return str(getattr(error, "strerror", None) or error)
    return os.strerror(number)
