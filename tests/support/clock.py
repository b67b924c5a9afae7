"""A system clock for real processes that a test can set, by a library preloaded into them.

Only the clock that people can set is another one; the time since the boot goes on as it is, as it
does when somebody sets the clock of a machine. Times of files are the true ones.
"""

import mmap
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

_SOURCE = Path(__file__).with_name("clock.c")

YEAR_S = 365 * 86_400


class SystemClock:
    """The clock of all processes that are started with `environ`; its files are in `folder`."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            pytest.skip("needs a C compiler (Debian: gcc, libc6-dev)")
        library, said = folder / "clock.so", folder / "clock"
        command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(_SOURCE)]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        said.write_bytes(bytes(8))
        with said.open("r+b") as file:
            self._ahead = mmap.mmap(file.fileno(), 8)
        self.environ = {"LD_PRELOAD": str(library), "CLOCK_AHEAD": str(said)}

    def set(self, seconds: int) -> None:
        """Let the clock be so many seconds ahead of the true time (below 0: behind), at once."""
        self._ahead[:] = struct.pack("=q", seconds)
