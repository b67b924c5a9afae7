"""What every measurement does around its own: warming up, and the cost by process."""

import time
from collections import defaultdict
from dataclasses import replace

from benchmarks.far import Far
from benchmarks.figures import Sample
from benchmarks.load import Sent, send
from benchmarks.processes import cpu_seconds, resident_octets
from benchmarks.scenarios import Load
from benchmarks.systems import System

PATIENCE_S = 900.0
"""A measurement that takes longer has failed."""

WARM_UP = 200
_WARM_UP_OCTETS = 20_000_000
_PATIENCE_AHEAD_S = 60.0


def warm_up(system: System, far: Far, load: Load, generator: str) -> None:
    """Send a few messages of the kind of `load` ahead, which do not count."""
    far.wait_for(keep_ahead(system, load, generator), _PATIENCE_AHEAD_S)
    far.ask("reset")


def keep_ahead(system: System, load: Load, generator: str) -> int:
    """Send a few messages of the kind of `load`, and return how many."""
    few = max(load.sessions, min(WARM_UP, load.messages, _WARM_UP_OCTETS // load.size))
    send(replace(load, messages=few), system.ports, generator, _PATIENCE_AHEAD_S)
    return few


class Cost:
    """What processes use from now on."""

    def __init__(self, system: System, far: Far) -> None:
        self._system, self._far = system, far
        self._began = time.monotonic()
        self._before = self._used()

    def _used(self) -> dict[str, float]:
        used: defaultdict[str, float] = defaultdict(float)
        for pid, name in self._system.processes().items():
            used[name] += cpu_seconds(pid)
        used["sink"] += self._far.cpu_seconds()
        return used

    def each(self, messages: int, sent: Sent | None = None) -> Sample:
        """Return processor time by process in microseconds a message, and peaks of memory.

        With what the generator took to have them `sent`, where that belongs to it.
        """
        after = self._used()
        used = {name: after[name] - self._before.get(name, 0.0) for name in after}
        if sent is not None:
            used["load"] = sent.cpu
        found = {f"cpu.{name}": 1e6 * one / messages for name, one in used.items()}
        for pid, name in self._system.processes().items():
            key = f"peak.{name}"
            found[key] = max(found.get(key, 0.0), resident_octets(pid, peak=True))
        return found

    def share(self) -> Sample:
        """Return by process how much of a core it used, in per cent."""
        seconds, after = time.monotonic() - self._began, self._used()
        return {
            f"idle.{name}": 100 * (after[name] - self._before.get(name, 0.0)) / seconds
            for name in after
            if name != "sink"
        }
