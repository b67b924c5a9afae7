"""What the proxy needs of the host it runs on: its names, its users' aliases, enough open files."""

import errno
import os
import resource
import socket
from pathlib import Path

from proxy import log
from proxy.config import Settings

_SPARE_FILES = 64  # descriptors beside those of the sessions


class StartError(OSError):
    """The proxy cannot start; the text is for the person who started it."""


def host_names() -> tuple[str, tuple[str, ...]]:
    """Return what this host calls itself in SMTP, and all names it has. May ask DNS."""
    name = socket.gethostname()
    full = socket.getfqdn(name)
    if "." not in full or full.endswith((".arpa", "localdomain")):
        full = name
    names = dict.fromkeys(one.lower() for one in (full, name, name.partition(".")[0]) if one)
    return full or "localhost", tuple(names)


def read_aliases(settings: Settings) -> str:
    """Return the text of `local.aliases_file`, "" when none is named.

    Raises:
        OSError: it is named and cannot be read.
    """
    if not settings.local.aliases_file:
        return ""
    try:
        return Path(settings.local.aliases_file).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        why = error.strerror or os.strerror(error.errno or errno.EIO)
        raise StartError(
            f"local.aliases_file: {settings.local.aliases_file}: {why}"
        ) from error  # fmt: skip


def raise_file_limit(connections: int) -> None:
    """Be allowed as many open files as `connections` need, as far as the system lets us."""
    wanted = connections + _SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        possible = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))
        if possible < wanted:
            log.notice(
                f"the system allows {possible} open files: fewer connections than the "
                f"{connections} of listen.max_connections"
            )
