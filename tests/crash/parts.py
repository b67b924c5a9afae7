"""One process of a round: started, killed, made to stand still; what it wrote stays readable."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import clean_environ

END_S = 15.0
"""How long a process may take to end after SIGTERM."""


@dataclass(slots=True)
class Life:
    """One process from start to end (times in seconds since 1970, None: it lives)."""

    log: Path
    began: float
    ended: float | None = None
    killed: bool = False


class Part:
    """A process that is started again and again. Whoever disturbs it holds `turn` meanwhile."""

    def __init__(
        self, name: str, command: Sequence[str], folder: Path, environ: Mapping[str, str]
    ) -> None:
        self.name = name
        self.turn = asyncio.Lock()
        self.lives: list[Life] = []
        self._command = list(command)
        self._folder = folder
        self._environ = clean_environ(**environ)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether there is a process now."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How the last process ended; None while it runs."""
        return self._process.poll() if self._process else None

    def start(self) -> None:
        """Start it."""
        assert not self.running
        log = self._folder / f"{self.name}.{len(self.lives)}.log"
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                self._command,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        self.lives.append(Life(log, time.time()))

    def has_said(self, text: str) -> bool:
        """Whether the process that runs now has written `text`."""
        return text in self.lives[-1].log.read_text(encoding="utf-8", errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if there is a process."""
        if self.running:
            assert self._process is not None
            os.kill(self._process.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.signal(signal.SIGKILL)
        self.note_end(killed=True)

    def note_end(self, *, killed: bool = False) -> None:
        """Note that it has ended, waiting for that when it was killed."""
        if self._process is not None:
            self._process.wait(10)
            self.lives[-1].ended = self.lives[-1].ended or time.time()
            self.lives[-1].killed |= killed

    async def end(self) -> str:
        """Ask it to end; return what was wrong with that, "" for nothing. Kill it if it must be."""
        if not self.running:
            return ""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        deadline = time.monotonic() + END_S
        while self.running:
            if time.monotonic() > deadline:
                self.kill()
                return f"{self.name} did not end within {END_S:.0f} s of SIGTERM"
            await asyncio.sleep(0.02)
        self.note_end()
        code = self.exit_code
        if code == -signal.SIGTERM and (self.name == "redis" or not self.has_said("started")):
            return ""  # asked before it could know how to
        return f"{self.name} ended with {code} after SIGTERM" if code else ""
