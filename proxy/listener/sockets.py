"""The sockets we listen on: bound here, or passed by systemd (sd_listen_fds(3))."""

import errno
import os
import socket
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from proxy.config.model import ListenAddress

SMTP_PORT = 25
FALLBACK_PORT = 2525
_FIRST_PASSED = 3
_BACKLOG = 1024
_NO_IPV6 = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT})


class BindError(Exception):
    """An address cannot be listened on; the text says which, why, and what can be done."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A listening socket, and what the configuration says of its address."""

    socket: socket.socket
    settings: ListenAddress

    @property
    def name(self) -> str:
        """The address as `listen.smtp` would write it, with the port it really has."""
        return socket_name(self.socket)

    @property
    def is_unix(self) -> bool:
        """Whether clients have no address."""
        return self.socket.family == socket.AF_UNIX


def socket_name(bound: socket.socket) -> str:
    """Return "127.0.0.1:25", "[::1]:25" or "unix:PATH"."""
    name = bound.getsockname()
    if bound.family == socket.AF_UNIX:
        return f"unix:{name}"
    host = f"[{name[0]}]" if bound.family == socket.AF_INET6 else name[0]
    return f"{host}:{name[1]}"


def open_sockets(
    addresses: Sequence[ListenAddress], environ: Mapping[str, str], say: Callable[[str], None]
) -> list[Bound]:
    """Return the sockets to listen on, those that systemd passed if there are any.

    `say` is told what differs from the configuration: a port that was not ours to take, an IPv6
    that this host does not have.

    Raises:
        BindError: an address cannot be had, or none is left.
    """
    passed = _passed(environ)
    if passed:
        return [Bound(one, _settings_of(one, addresses)) for one in passed]
    bound: list[Bound] = []
    try:
        for settings in addresses:
            both = settings.address in _for_both(addresses)
            bound += (Bound(one, settings) for one in _open(settings.address, say, both=both))
    except BindError:
        for one in bound:
            one.socket.close()
        raise
    if not bound:
        raise BindError("listen.smtp: there is no address to listen on")
    return bound


def _passed(environ: Mapping[str, str]) -> list[socket.socket]:
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    found = []
    for number in range(_FIRST_PASSED, _FIRST_PASSED + int(environ.get("LISTEN_FDS", "0"))):
        os.set_inheritable(number, False)
        if stat.S_ISSOCK(os.fstat(number).st_mode):
            one = socket.socket(fileno=number)
            one.setblocking(False)
            found.append(one)
    return found


def _settings_of(one: socket.socket, addresses: Sequence[ListenAddress]) -> ListenAddress:
    """Return what is configured for the address of a passed socket; else what holds for all."""
    name = socket_name(one)
    for settings in addresses:
        if settings.address == name:
            return settings
    return ListenAddress(address=name)


def _for_both(addresses: Sequence[ListenAddress]) -> set[str]:
    """Return those of `addresses` that take IPv4 clients, too, shown as ::ffff:1.2.3.4.

    That is "[::]:PORT", unless IPv4 has an address of its own on that port.
    """
    ports = {
        one.address.rpartition(":")[2]
        for one in addresses
        if not one.address.startswith(("unix:", "["))
    }
    named = {one.address for one in addresses if one.address.startswith("[::]:")}
    return {address for address in named if address.rpartition(":")[2] not in ports}


def _open(address: str, say: Callable[[str], None], *, both: bool) -> list[socket.socket]:
    if address.startswith("unix:"):
        return [_open_unix(Path(address.removeprefix("unix:")))]
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        places = socket.getaddrinfo(
            host if host not in ("", "*") else None,
            int(port),
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )
    except OSError as error:
        raise BindError(f"listen.smtp: {address}: {error.strerror}") from error
    bound = []
    for family, _, _, _, place in places:
        try:
            bound.append(_open_inet(family, place, address, say, both=both))
        except OSError as error:
            if family == socket.AF_INET6 and error.errno in _NO_IPV6:
                say(f"no IPv6 on this host: {address} is not listened on")
                continue
            raise BindError(f"listen.smtp: {address}: {_explain(error)}") from error
    return bound


def _open_inet(
    family: int,
    place: tuple[object, ...],
    address: str,
    say: Callable[[str], None],
    *,
    both: bool,
) -> socket.socket:
    try:
        return _listen(family, place, both=both)
    except PermissionError:
        if place[1] != SMTP_PORT:
            raise
        bound = _listen(family, (place[0], FALLBACK_PORT, *place[2:]), both=both)
        say(f"no right to listen on {address}: port {FALLBACK_PORT} is used instead")
        return bound


def _listen(family: int, place: tuple[object, ...], *, both: bool) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not both)
        one.bind(place)
        one.listen(_BACKLOG)
        one.setblocking(False)
    except BaseException:
        one.close()
        raise
    return one


def _open_unix(path: Path) -> socket.socket:
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_left_over(path)
        one.bind(str(path))
        # As 127.0.0.1 does, it lets every user of this host in; the folder can say otherwise.
        path.chmod(0o666)
        one.listen(_BACKLOG)
        one.setblocking(False)
    except OSError as error:
        one.close()
        raise BindError(f"listen.smtp: unix:{path}: {_explain(error)}") from error
    return one


def _remove_left_over(path: Path) -> None:
    """Remove a socket that a process which is gone has left; never anything else.

    Raises:
        OSError: somebody listens there, or it is no socket.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, "there is something that is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:
            pass  # its backlog is full: somebody lives
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _explain(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another program listens there already; stop it or choose another address"
    if error.errno == errno.EACCES:
        return "no right to listen there (a port under 1024 needs CAP_NET_BIND_SERVICE)"
    return error.strerror or str(error)
