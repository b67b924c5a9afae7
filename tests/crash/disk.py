"""A small disk of its own for the data folder: a tmpfs, which root may mount."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SIZE = 180_000_000
"""Octets: the private server wants 100 MB free and 32 MB in reserve."""


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Mount a tmpfs on `folder`.

    Raises:
        OSError: it cannot be mounted.
    """
    options = f"size={SIZE},mode=0700"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise OSError(f"no small disk: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def available(folder: Path) -> bool:
    """Return whether a small disk can be had below `folder`."""
    place = folder / "probe"
    place.mkdir()
    try:
        with small_disk(place):
            return True
    except OSError:
        return False
    finally:
        place.rmdir()


def fill(folder: Path) -> None:
    """Write until nothing more fits on the disk of `folder`."""
    with (folder / "filler").open("wb") as file, contextlib.suppress(OSError):
        room = os.statvfs(folder)
        os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_frsize)
        while True:
            os.write(file.fileno(), b"x" * 4096)


def free(folder: Path) -> None:
    """Take back what `fill` wrote."""
    (folder / "filler").unlink(missing_ok=True)
