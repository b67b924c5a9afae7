"""The sink as a process of its own, and what it says."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self


class Far:
    """A running sink: where it is, and its count."""

    def __init__(self, folder: Path, delay: float) -> None:
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

    @property
    def pid(self) -> int:
        """The sink's process."""
        return self._process.pid

    def _heard(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the sink ended")
        said: dict[str, Any] = json.loads(line)
        return said

    def ask(self, word: str = "count") -> dict[str, Any]:
        """Return the count; "reset" begins a new one after it."""
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        return self._heard()

    def wait_for(self, messages: int, timeout: float) -> dict[str, Any]:
        """Wait until `messages` have come and return the count.

        Raises:
            RuntimeError: they did not come within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while (said := self.ask())["messages"] < messages:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{said['messages']} of {messages} messages in {timeout:.0f} s")
            time.sleep(0.02)
        return said

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
