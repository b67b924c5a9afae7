"""What this host has seen of its stores: the number each was at, and when, on this host's disk.

A file for each process, in a folder that all processes of the host read at their start: none waits
for another, and a crash while one writes leaves the old file.
"""

import json
import os
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = "marks"
_MOST_STORES = 16


@dataclass(frozen=True, slots=True)
class Mark:
    """A store has answered that it is at `tick`; `time` is when, in seconds since 1970."""

    tick: int
    time: float


class Marks:
    """The marks of all stores that this host has seen.

    `role` names the file of this process. A mark counts only when it is `lag` seconds old: a
    server that writes to its disk each second, or has a replica, may go back by so much in a
    crash, and that is no older copy.
    """

    def __init__(self, data_dir: Path, role: str, *, lag: float) -> None:
        self._folder = data_dir / FOLDER
        self._path = self._folder / f"{role}.json"
        self._lag = lag
        self._known: dict[str, Mark] = {}
        self._fresh: deque[tuple[float, str, Mark]] = deque()
        self._written: dict[str, Mark] = {}

    @property
    def known(self) -> Mapping[str, Mark]:
        """The last mark of each store that counts."""
        return self._known

    def read(self) -> None:
        """Read the files of all processes of this host; what cannot be read says nothing."""
        for path in sorted(self._folder.glob("*.json")):
            try:
                found: Any = json.loads(path.read_bytes())
                for store, (tick, time) in found.items():
                    self._count(str(store), Mark(int(tick), float(time)))
            except (OSError, ValueError, TypeError, AttributeError):
                continue

    def seen(self, store: str, mark: Mark, clock: float) -> None:
        """Note what a store has answered; `clock` is in seconds, monotonic."""
        self._fresh.append((clock, store, mark))
        self.ripen(clock)

    def ripen(self, clock: float) -> None:
        """Let count what is old enough."""
        while self._fresh and clock - self._fresh[0][0] >= self._lag:
            _, store, mark = self._fresh.popleft()
            self._count(store, mark)

    def forget_fresh(self) -> None:
        """Drop what does not count yet: the store was found to be another one than it was."""
        self._fresh.clear()

    def _count(self, store: str, mark: Mark) -> None:
        before = self._known.get(store)
        if before is None or mark.tick > before.tick:
            self._known[store] = mark

    @property
    def unwritten(self) -> bool:
        """Whether something counts that is not in the file."""
        return self._known != self._written

    def write(self) -> None:
        """Bring what counts to disk.

        Raises:
            OSError: it cannot be written; the file is as it was.
        """
        newest = sorted(self._known.items(), key=lambda one: one[1].time)[-_MOST_STORES:]
        text = json.dumps({store: [mark.tick, mark.time] for store, mark in newest})
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = self._path.with_suffix(f".{os.getpid()}")
        try:
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
        finally:
            new.unlink(missing_ok=True)
        self._written = dict(self._known)
