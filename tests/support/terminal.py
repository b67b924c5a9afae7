"""A program at a terminal, as a person sits there: keys in, what is shown out."""

import os
import pty
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

_PATIENCE_S = 30.0


class Terminal:
    """`command` at a terminal of its own."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str]) -> None:
        self._descriptor, far = pty.openpty()
        self._process = subprocess.Popen(
            command, env=environ, stdin=far, stdout=far, stderr=far, start_new_session=True
        )
        os.close(far)
        self._seen = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)
        self._process.kill()
        self._process.wait()

    def type(self, keys: str) -> None:
        """Press `keys`."""
        os.write(self._descriptor, keys.encode())

    def until(self, text: str) -> None:
        """Return when `text` is shown; what was shown up to it is forgotten."""
        deadline = time.monotonic() + _PATIENCE_S
        while text not in self._seen:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._descriptor], [], [], left)[0]:
                raise AssertionError(f"no {text!r} in {self._seen!r}")
            self._seen += os.read(self._descriptor, 4096).decode("utf-8", "replace")
        self._seen = self._seen.partition(text)[2]
