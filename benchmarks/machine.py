"""What a figure is worth nothing without: the machine, the versions, how safe the mail was."""

import importlib.metadata
import os
import platform
import subprocess
import time
from pathlib import Path

from benchmarks import franker, postfix
from proxy.queue.server import ServerError, find_server

_WRITES = 200
_OCTETS = b"x" * 5120
BUSY = 0.5
"""A load of the machine above which something else runs on it."""


def facts(folder: Path, generator: str) -> dict[str, str]:
    """Return what to say about this machine and what runs on it; `folder` is where mail is kept."""
    found = {
        "machine": f"{_cpu()}, {os.cpu_count()} cores, {_memory()} of memory",
        "system": f"{platform.platform()}, Python {platform.python_version()}",
        "disk": f"{_filesystem(folder)}; 5 KB written and fsynced in {_fsync_ms(folder):.2f} ms",
        "load before": f"{os.getloadavg()[0]:.2f}",
        "generator": generator,
        "franker": f"{_version()}, with {_redis()}",
        "franker keeps": "a message is in Redis's file, fsynced (always), before its 250",
    }
    found["franker is set"] = "as shipped, but for addresses, and connections where a row says so"
    if not postfix.available():
        found["postfix"] = postfix.version()
        found["postfix is set"] = postfix.IN_WORDS
        found["postfix keeps"] = "a message is in a file of its own, fsynced, before its 250"
    return found


def in_memory(folder: Path) -> bool:
    """Tell whether `folder` is on no disk, where an fsync costs nothing."""
    return _filesystem(folder).startswith(("tmpfs", "ramfs"))


def settings() -> dict[str, str]:
    """Return how the systems are configured, as templates: all else is the default."""
    return {"franker": franker.CONFIG.strip(), "postfix": postfix.MAIN.strip()}


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _memory() -> str:
    octets = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return f"{octets / 2**30:.0f} GB"


def _filesystem(folder: Path) -> str:
    done = subprocess.run(
        ["df", "--output=fstype,source", folder], capture_output=True, text=True, check=False
    )
    words = done.stdout.split()[-2:]
    return " on ".join(words) if words else "unknown"


def _fsync_ms(folder: Path) -> float:
    """Return the median of what a small write with its fsync takes, in milliseconds."""
    file = folder / "fsync"
    took = []
    with file.open("ab", buffering=0) as out:
        for _ in range(_WRITES):
            began = time.monotonic()
            out.write(_OCTETS)
            os.fdatasync(out.fileno())
            took.append(time.monotonic() - began)
    file.unlink()
    return 1000 * sorted(took)[_WRITES // 2]


def _version() -> str:
    """Return the version and, in a checkout, the commit; "+": with changes."""
    try:
        number = importlib.metadata.version("franker")
    except importlib.metadata.PackageNotFoundError:
        number = "not installed"
    try:
        done = subprocess.run(
            ["git", "-C", franker.ROOT, "describe", "--always", "--dirty=+"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return number
    return f"{number} ({done.stdout.strip()})"


def _redis() -> str:
    try:
        return str(find_server())
    except ServerError as error:
        return str(error)
