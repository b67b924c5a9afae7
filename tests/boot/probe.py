"""Whether this machine lets a Debian be booted in a folder at all, tried with nothing of Franker's.

What cannot be had here by any package is no test's failure; whatever else goes wrong is one.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.boot.groups import own_groups

_PATIENCE_S = 300.0
_TOOLS = {
    "debootstrap": "debootstrap",
    "systemd-nspawn": "systemd-container",
    "nsenter": "util-linux",
    "ip": "iproute2",
}


def missing_tools() -> str:
    """Return which programs of Debian's are not here, "" when all are."""
    lacking = [f"{one} (package {package})" for one, package in _TOOLS.items() if not _has(one)]
    return f"not on this host: {', '.join(lacking)}" if lacking else ""


def _has(program: str) -> bool:
    return shutil.which(program) is not None


def impossible() -> str:
    """Return why no container can be started here, "" when one can."""
    if os.geteuid() != 0:
        return "only root can boot a Debian in a folder"
    name = f"franker-probe-{os.getpid()}"
    if said := _said("ip", "netns", "add", name):
        return said
    try:
        with tempfile.TemporaryDirectory(prefix="franker-probe-") as work:
            folder = Path(work)
            for part in ("usr", "etc", "proc", "sys", "dev", "run", "tmp", "var"):
                (folder / part).mkdir()
            for part in ("bin", "lib", "lib64", "sbin"):
                (folder / part).symlink_to(f"usr/{part}")
            # This host's own programs, of which one is run that does nothing.
            return _run_in(
                folder, f"--network-namespace-path=/run/netns/{name}", "--bind-ro=/usr", "/bin/true"
            )
    finally:
        _said("ip", "netns", "delete", name)


def cannot_boot(folder: Path) -> str:
    """Return why a plain Debian in `folder` cannot be booted here, "" when it can.

    It is told to switch itself off at once.
    """
    return _run_in(folder, "--private-network", "--boot", "systemd.unit=poweroff.target")


def _run_in(folder: Path, *options: str) -> str:
    """Return what systemd-nspawn says when it fails, and "" when it does not."""
    quiet = ("--quiet", f"--directory={folder}", "--register=no", "--keep-unit", "--console=pipe")
    try:
        with own_groups() as groups:
            return _said(*groups.command("systemd-nspawn", *quiet, *options))
    except OSError as error:
        return f"no control group can be made: {error}"


def _said(*command: str) -> str:
    """Return what `command` says when it fails, and "" when it does not.

    Raises:
        subprocess.TimeoutExpired: it hangs, which is no answer.
    """
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        timeout=_PATIENCE_S,
    )
    if not done.returncode:
        return ""
    shown = " ".join(command).rpartition('"$@" sh ')[2]
    return f"{shown}: exit {done.returncode}: {done.stdout.strip()}"[-1500:]
