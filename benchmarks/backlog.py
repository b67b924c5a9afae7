"""The cost of a backlog: messages kept while nothing relays, then how fast they leave."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.far import Far
from benchmarks.franker import Franker, used_memory
from benchmarks.load import Load, send
from benchmarks.processes import resident_octets


@dataclass(frozen=True, slots=True)
class Backlog:
    """What a queue of `messages` costs: octets each in Redis, peaks of processes, drain rate."""

    messages: int
    octets_each: float
    kept_per_second: float
    drained_per_second: float
    peak_memory_octets: dict[str, int]

    def lines(self) -> str:
        """Return it for people."""
        peaks = ", ".join(f"{k} {v / 1_048_576:.0f}" for k, v in self.peak_memory_octets.items())
        return "\n".join(
            [
                f"A backlog of {self.messages} messages",
                f"Redis: {self.octets_each / 1024:.2f} KB each (KB = 1,024)",
                f"kept at {self.kept_per_second:.0f}/s, drained at {self.drained_per_second:.0f}/s",
                f"memory at its peak, MB: {peaks}",
            ]
        )

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def measure_backlog(folder: Path, load: Load, timeout: float = 900.0) -> Backlog:
    """Fill a queue with `load` of random octets, then start a worker and wait for the last one.

    Raises:
        RuntimeError: a part failed, or messages did not all come.
    """
    with (
        Far(folder / "sink", 0.0) as far,
        Franker(folder / "system", far, ("redis", "proxy")) as franker,
    ):
        empty = used_memory(franker.data_dir)
        # The own generator: its text is as good as random, which is what the limit speaks of.
        began, kept = send(load, franker.port, "own", timeout)
        full = used_memory(franker.data_dir)
        started = time.monotonic()
        franker.start("worker")
        count = far.wait_for(load.messages, timeout)
        peaks = {name: resident_octets(pid, peak=True) for pid, name in franker.processes().items()}
    return Backlog(
        messages=load.messages,
        octets_each=(full - empty) / load.messages,
        kept_per_second=load.messages / (kept - began),
        drained_per_second=load.messages / (count["last"] - (count["first"] or started)),
        peak_memory_octets=peaks,
    )
