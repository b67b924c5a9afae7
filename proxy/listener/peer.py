"""Who is at the other end: the user whose process opened a connection on this host.

The kernel is asked for the client's own socket: by netlink (sock_diag(7), 20 µs however many
connections there are), and where that is closed to us from /proc/net/tcp and tcp6 (proc(5)).

A socket whose program has closed it is nobody's: the kernel shows it with inode 0, and with uid 0,
which must not be taken for root's.
"""

import functools
import ipaddress
import pwd
import socket
import struct
from pathlib import Path

_SOCK_DIAG_BY_FAMILY = 20
_NETLINK_SOCK_DIAG = 4
_NLM_F_REQUEST = 1
_NO_COOKIE = 0xFFFFFFFF
_ANSWER_S = 0.2  # the kernel answers within the call that asks

Inet = tuple[str, int]


def plain_address(host: str) -> str:
    """Return `host` in its shortest form: IPv4 for ::ffff:a.b.c.d, no scope."""
    host = host.partition("%")[0]
    if ":" not in host:
        return host
    address = ipaddress.IPv6Address(host)
    return str(address.ipv4_mapped or address)


def local_uid(client: Inet, server: Inet, *, only_if_cheap: bool = False) -> int | None:
    """Return the user id of the process on this host whose socket goes from `client` to `server`.

    None when it is not of this host, when its process has closed it, or when the kernel does not
    say; `only_if_cheap`: by netlink.
    """
    if not ipaddress.ip_address(client[0]).is_loopback:
        return None
    # A socket of the other family may stand behind a mapped address.
    families = [socket.AF_INET6] if ":" in client[0] else [socket.AF_INET, socket.AF_INET6]
    for family in families:
        try:
            uid = _ask_kernel(family, client, server)
        except OSError:
            uid = None if only_if_cheap else _read_proc(family, client, server)
        if uid is not None:
            return uid
    return None


def unix_uid(connection: socket.socket) -> int | None:
    """Return the user id of the process at the other end of a unix socket (SO_PEERCRED)."""
    try:
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    except OSError:
        return None
    uid: int = struct.unpack("iii", credentials)[1]
    return uid


@functools.lru_cache(maxsize=256)
def user_name(uid: int) -> str:
    """Return the name of user `uid`; "" when it has none here."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


def _packed(family: int, host: str) -> bytes:
    if family == socket.AF_INET6 and ":" not in host:
        host = "::ffff:" + host
    return socket.inet_pton(family, host)


def _ask_kernel(family: int, client: Inet, server: Inet) -> int | None:
    """Return the uid by sock_diag(7), None when there is no such socket or it is nobody's.

    Raises:
        OSError: netlink is not open to us, or does not know this question.
    """
    # struct inet_diag_req_v2: family, protocol, extensions, padding, states, then the socket's id.
    ports = struct.pack(">HH", client[1], server[1])
    hosts = b"".join(_packed(family, host).ljust(16, b"\0") for host in (client[0], server[0]))
    question = struct.pack("=BBBxI", family, socket.IPPROTO_TCP, 0, 0xFFFFFFFF) + ports + hosts
    question += struct.pack("=III", 0, _NO_COOKIE, _NO_COOKIE)
    header = struct.pack("=IHHII", 16 + len(question), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_SOCK_DIAG) as netlink:
        netlink.settimeout(_ANSWER_S)
        netlink.sendto(header + question, (0, 0))
        answer = netlink.recv(8192)
    kind = struct.unpack_from("=IH", answer)[1]
    if kind != _SOCK_DIAG_BY_FAMILY:
        failure = -struct.unpack_from("=i", answer, 16)[0]
        if failure == 2:  # ENOENT: no such socket
            return None
        raise OSError(failure, "sock_diag")
    # struct inet_diag_msg: 4 octets, the id (48), expires, rqueue, wqueue, uid, inode.
    found_ports = answer[20:24]
    uid: int
    uid, inode = struct.unpack_from("=II", answer, 16 + 4 + 48 + 12)
    # Other ports: a listening socket's.
    return uid if inode and found_ports == ports else None


def _read_proc(family: int, client: Inet, server: Inet) -> int | None:
    """Return the uid that /proc/net/tcp or tcp6 shows, None when no socket of anybody is there."""

    def shown(end: Inet) -> str:
        octets = _packed(family, end[0])
        # Each 32-bit word in the host's byte order.
        numbers = struct.unpack(f"={len(octets) // 4}I", octets)
        return "".join(f"{number:08X}" for number in numbers) + f":{end[1]:04X}"

    wanted = f" {shown(client)} {shown(server)} "
    table = Path("/proc/net/tcp6" if family == socket.AF_INET6 else "/proc/net/tcp")
    try:
        text = table.read_text(encoding="ascii")
    except OSError:
        return None
    at = text.find(wanted)
    if at < 0:
        return None
    # st, queues, timer, retransmits, uid, timeout, inode
    fields = text[at + len(wanted) :].split(maxsplit=7)
    return int(fields[4]) if int(fields[6]) else None
