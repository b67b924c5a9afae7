"""Who handles mail on this host today: port 25, /usr/sbin/sendmail, root's mail."""

import contextlib
import errno
import re
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

_LISTENING = "0A"  # proc(5): the state of a socket in /proc/net/tcp
_LOOPBACK_OR_ANY = {
    "0100007F",
    "00000000",
    "00000000000000000000000000000000",
    "00000000000000000000000001000000",
}
_MAILBOX = re.compile(r"[^\s@,:|\"/\\]+@[A-Za-z0-9.-]+\.[A-Za-z0-9-]+")


@dataclass(frozen=True, slots=True)
class Holder:
    """The program that listens on a port. `unit` is systemd's name for it, "" when it has none."""

    pid: int
    program: str
    unit: str

    def __str__(self) -> str:
        unit = f", {self.unit}" if self.unit else ""
        return f"{self.program} (process {self.pid}{unit})"


def is_free(port: int) -> bool:
    """Return whether nobody listens on `port` of either loopback address."""
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as one:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                one.bind((host, port))
                one.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:  # anything else: no IPv6 here
                return False
    return True


def holder(port: int) -> Holder | None:
    """Return who listens on `port` for programs of this host, None when nobody can be seen."""
    sockets = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        with contextlib.suppress(OSError):
            for line in table.read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                host, _, number = fields[1].partition(":")
                if fields[3] == _LISTENING and int(number, 16) == port and host in _LOOPBACK_OR_ANY:
                    sockets.add(f"socket:[{fields[9]}]")
    # systemd holds the sockets of its units beside the service: the service says more.
    pids = sorted(
        pid for pid in map(_number, Path("/proc").iterdir()) if pid and _has(pid, sockets)
    )
    pid = next((pid for pid in pids if pid != 1), pids[0] if pids else 0)
    if not pid:
        return None
    return Holder(pid, _program(pid), _socket_unit(port) if pid == 1 else _unit(pid))


def _number(entry: Path) -> int:
    return int(entry.name) if entry.name.isdigit() else 0


def _has(pid: int, sockets: set[str]) -> bool:
    with contextlib.suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if str(descriptor.readlink()) in sockets:
                    return True
    return False


def _program(pid: int) -> str:
    """Return the program of process `pid` by the package it is from, or else by its path."""
    try:
        path = str(Path(f"/proc/{pid}/exe").readlink()).removesuffix(" (deleted)")
    except OSError:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    package = owner(path)
    return f"{package}'s {path}" if package else path


def owner(path: str) -> str:
    """Return the Debian package that `path` belongs to, "" when none does."""
    with contextlib.suppress(OSError):
        answer = said("dpkg-query", "--search", path)
        for line in answer.splitlines():
            package, _, name = line.partition(": ")
            if name == path and not package.startswith("diversion "):
                return package.partition(":")[0].partition(",")[0]
    return ""


def _unit(pid: int) -> str:
    """Return the service of `pid`; if that is a part (postfix@-.service), the whole one."""
    with contextlib.suppress(OSError):
        groups = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8")
        found = re.search(r"/([^/\n]+\.service)(?:/|$)", groups, re.MULTILINE)
        if found:
            whole = said("systemctl", "show", "--property=PartOf", "--value", found[1]).split()
            return next((one for one in whole if one.endswith(".service")), found[1])
    return ""


def _socket_unit(port: int) -> str:
    for line in said("systemctl", "list-sockets", "--no-legend", "--full").splitlines():
        address, unit, *_ = [*line.split(), "", ""]
        if address.endswith(f":{port}"):
            return unit
    return ""


def said(*command: str) -> str:
    """Return what `command` printed, whether it failed or not."""
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return answer.stdout


def root_alias(aliases: Path = Path("/etc/aliases")) -> str:
    """Return the address that `root:` of /etc/aliases names, "" when it names none, or several."""
    try:
        text = aliases.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    found = re.search(r"^root\s*:[ \t]*(.*)$", text, re.MULTILINE | re.IGNORECASE)
    value = found[1].partition("#")[0].strip() if found else ""
    return value if _MAILBOX.fullmatch(value) else ""
