"""Who is alive: pure decisions over counters and times.

A worker moves a counter while it lives. Whoever watches counts only time in which Redis did
answer him: when Redis stalls, nobody's counter moves and nobody dies of it.
"""

import time
from collections.abc import Mapping

DEAD_AFTER_S = 8.0
"""Seconds of observed standstill after which a worker is dead."""

SAFE_S = 6.0
"""Seconds after its last confirmed heartbeat in which a worker may send a final dot: less than
DEAD_AFTER_S by what the rest of a dot takes."""

BEAT_S = 0.5
"""Seconds between two heartbeats."""

_LONGEST_GAP_S = 3 * BEAT_S


def clock() -> float:
    """Return seconds that also pass while the machine sleeps, and that no one can set."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Observer:
    """What one worker has seen of the others' counters."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._seen: dict[str, tuple[int, float]] = {}

    def observe(self, now: float, counters: Mapping[str, int]) -> list[str]:
        """Return the workers that are dead, after Redis gave `counters` at `now` (seconds).

        A gap longer than a few heartbeats counts as a few: Redis, or we, stood still in it.
        """
        gap = 0.0 if self._last is None else max(0.0, min(now - self._last, _LONGEST_GAP_S))
        self._last = now
        seen: dict[str, tuple[int, float]] = {}
        for worker, counter in counters.items():
            before, still = self._seen.get(worker, (None, 0.0))
            seen[worker] = (counter, still + gap if counter == before else 0.0)
        self._seen = seen
        return [worker for worker, (_, still) in seen.items() if still >= DEAD_AFTER_S]

    def counter(self, worker: str) -> int:
        """Return the counter at which `worker` was last seen."""
        return self._seen[worker][0]
