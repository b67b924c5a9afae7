"""The sink as a process of its own, and what it says."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

from benchmarks.processes import cpu_seconds

_LOOK_S = 0.02


class Far:
    """A running sink: where it is, and its count. `delay` in seconds is that of a round trip."""

    def __init__(self, folder: Path, delay: float = 0.0) -> None:
        program = [sys.executable, "-m", "benchmarks.sink", "--folder", str(folder)]
        self._process = subprocess.Popen(
            [*program, "--delay", str(delay)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        said = self._heard()
        self.port: int = said["port"]
        self.ca_file: str = said["ca_file"]

    def _heard(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the sink ended")
        said: dict[str, Any] = json.loads(line)
        return said

    def ask(self, line: str = "count") -> dict[str, Any]:
        """Have `line` obeyed (see `benchmarks.sink`) and return the count before that."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._heard()

    def cpu_seconds(self) -> float:
        """Return the processor time that the sink has used."""
        return cpu_seconds(self._process.pid)

    def wait_for(self, messages: int, timeout: float) -> dict[str, Any]:
        """Wait until `messages` have come; return the count, `at` being when the last of them did.

        Raises:
            RuntimeError: they did not come within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while (said := self.ask(f"at {messages}"))["messages"] < messages:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{said['messages']} of {messages} messages in {timeout:.0f} s")
            time.sleep(_LOOK_S)
        return said

    def settled(self, messages: int) -> None:
        """See that as many as `messages` came, no more, and all of them over TLS.

        Raises:
            RuntimeError: it is not so.
        """
        time.sleep(0.5)  # not for the numbers: to see what comes too much
        said = self.ask()
        if said["messages"] != messages:
            raise RuntimeError(f"{said['messages']} messages came instead of {messages}")
        if said["in_clear"]:
            raise RuntimeError(f"{said['in_clear']} messages came without TLS")

    def close(self) -> None:
        """End it."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(10)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
