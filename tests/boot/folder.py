"""A Debian in a folder: made by debootstrap once, kept, and borrowed by each test as a copy.

`python -m tests.boot.folder bookworm trixie` makes those that are not there yet.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.boot.groups import own_groups
from tests.boot.probe import impossible, missing_tools
from tests.boot.reach import mirror, options, recipe, script
from tests.support.processes import ROOT

CACHE = Path(os.environ.get("BOOT_CACHE", "/var/tmp/franker-boot"))  # not in /tmp: big
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "python3", "python3-venv"),
    *("redis-server", "cron", "s-nail", "procps", "iproute2", "gnucobol", "libc6-dev"),
)
_ATTEMPTS = 3  # at what comes over a network


def plain_folder(suite: str) -> Path:
    """Return a folder with the least of Debian `suite`; made at the first call."""

    def make(new: Path) -> None:
        debs = CACHE / f"{suite}-debs"
        debs.mkdir(exist_ok=True)
        command = ["debootstrap", "--variant=minbase", "--include=ca-certificates"]
        command += [f"--cache-dir={debs}", *recipe(suite), suite]
        for left in reversed(range(_ATTEMPTS)):
            try:
                run(*command, new, mirror(suite), *script(suite))
                return
            except AssertionError:
                if not left:
                    raise
                shutil.rmtree(new)

    return _kept(f"{suite}-plain", make)


def base_folder(suite: str) -> Path:
    """Return a folder with Debian `suite` and what the tests use in it; made at the first call."""
    plain = plain_folder(suite)

    def make(new: Path) -> None:
        run("cp", "--archive", "--reflink=auto", plain, new)
        add_packages(new, *PACKAGES)
        _settle(new)

    asked = hashlib.sha256(" ".join(PACKAGES).encode()).hexdigest()[:8]
    return _kept(f"{suite}-{asked}", make)


def _kept(name: str, make: Callable[[Path], None]) -> Path:
    """Return the folder that is kept as `name`; `make` fills it at the first call of all."""
    folder = CACHE / name
    with _alone(name):
        if not folder.exists():
            new = CACHE / f"{name}.new-{uuid.uuid4().hex[:8]}"
            try:
                make(new)
                new.rename(folder)
            finally:
                shutil.rmtree(new, ignore_errors=True)
    return folder


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """Wait until no other run of these tests does what is called `name`."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _settle(folder: Path) -> None:
    """Make `folder` a host of its own."""
    (folder / "etc/hostname").write_text("legacy\n")
    (folder / "etc/hosts").write_text("127.0.0.1 localhost legacy\n::1 localhost legacy\n")
    (folder / "etc/resolv.conf").unlink(missing_ok=True)
    (folder / "etc/machine-id").write_text("")
    for service in ("redis-server", "systemd-networkd-wait-online"):
        (folder / f"etc/systemd/system/{service}.service").symlink_to("/dev/null")


@contextmanager
def copy_of(base: Path) -> Iterator[Path]:
    """Lend a folder that begins as `base`, which stays as it is."""
    work = CACHE / f"copy-{uuid.uuid4().hex[:8]}"
    upper, inner, merged = work / "upper", work / "work", work / "root"
    for folder in (upper, inner, merged):
        folder.mkdir(parents=True)
    layers = f"lowerdir={base},upperdir={upper},workdir={inner}"
    mounted = not subprocess.run(
        ["mount", "-t", "overlay", "overlay", "-o", layers, merged],
        capture_output=True,
        check=False,
    ).returncode
    if not mounted:  # as where this folder is an overlay itself
        run("cp", "--archive", "--reflink=auto", f"{base}/.", merged)
    try:
        yield merged
    finally:
        if mounted:
            run("umount", "--lazy", merged)
        shutil.rmtree(work, ignore_errors=True)


def add_packages(folder: Path, *packages: str) -> None:
    """Install Debian packages in `folder`, not booted."""
    get = "apt-get --quiet --yes --option=Acquire::Retries=3"
    install = f"{get} install --no-install-recommends {' '.join(packages)}"
    # A list that was kept for long names packages that are gone.
    fetch(folder, "/bin/sh", "-c", f"{install} || {{ {get} update && {install}; }}")


def fetch(folder: Path, *command: str) -> str:
    """Run `command` in `folder`, not booted, with this host's ways to its indexes.

    Return what it printed. What it writes need not outlive a loss of power: nothing is made to
    wait for the disk.
    """
    with own_groups() as groups:
        return run(
            *groups.command(
                *("systemd-nspawn", "--quiet", f"--directory={folder}", "--register=no"),
                *("--keep-unit", "--as-pid2", "--pipe", "--resolv-conf=bind-host"),
                *("--suppress-sync=yes", "--setenv=DEBIAN_FRONTEND=noninteractive"),
                *(*options(), *command),
            )
        )


def run(*command: str | Path) -> str:
    """Run `command`, and return what it printed; fail with what it said when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = f"{done.stderr[-2000:]}\n{done.stdout[-8000:]}"
        raise AssertionError(f"{' '.join(map(str, command))}: exit {done.returncode}\n{said}")
    return done.stdout


def wheel_of(folder: Path) -> Path:
    """Build a wheel of this tree in `folder`; return it."""
    with tempfile.TemporaryDirectory(prefix="franker-wheel-") as work:
        for name in ("proxy", "worker", "share"):
            shutil.copytree(ROOT / name, Path(work, name))
        for name in ("pyproject.toml", "README.md"):
            shutil.copy(ROOT / name, work)
        pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
        run(*pip, f"--wheel-dir={folder}", work)
    return next(folder.glob("franker-*.whl"))


def libraries(suite: str, wheel: Path) -> Path:
    """Return a folder with all that pip needs beside our `wheel` on Debian `suite`.

    It is fetched once for each pyproject.toml.
    """
    asked = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()[:16]
    base = base_folder(suite)

    def make(new: Path) -> None:
        with copy_of(base) as there:
            shutil.copy(wheel, there / "srv")
            command = "python3 -m venv /tmp/v && /tmp/v/bin/pip download --quiet --dest /wheels"
            named = f"/srv/{wheel.name} 'setuptools>=77' wheel"
            fetch(there, "/bin/sh", "-c", f"{command} {named} && rm /wheels/{wheel.name}")
            shutil.copytree(there / "wheels", new)

    return _kept(f"{suite}-libraries-{asked}", make)


def main() -> None:
    """Make the folders of the suites that the command line names, unless none can be booted."""
    if why := missing_tools() or impossible():
        raise SystemExit(f"no Debian can be booted here: {why}")
    with tempfile.TemporaryDirectory(prefix="franker-wheel-") as work:
        wheel = wheel_of(Path(work))
        with ThreadPoolExecutor() as pool:
            for _ in pool.map(lambda suite: libraries(suite, wheel), sys.argv[1:]):
                pass


if __name__ == "__main__":
    main()
