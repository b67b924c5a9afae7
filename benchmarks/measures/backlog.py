"""How much is kept and relayed while much waits; what waiting costs; a start with all of it."""

import time
from dataclasses import replace
from pathlib import Path

from benchmarks.far import Far
from benchmarks.figures import Sample
from benchmarks.load import send
from benchmarks.measures.drain import rate
from benchmarks.measures.running import PATIENCE_S
from benchmarks.memory import use_and_free
from benchmarks.processes import resident_octets
from benchmarks.scenarios import Backlog, Load
from benchmarks.systems import Make


def measure_backlog(what: Backlog, make: Make, folder: Path, generator: str) -> Sample:
    """Fill, measure what is kept on top, start anew, measure what leaves from then on.

    What is kept is measured a second time in memory that was used just before. What is left is
    thrown away.
    """
    place = folder / "system"
    with Far(folder / "sink") as far:
        with make(place, far, what.setup) as system:
            empty = system.kept_octets()
            fill = Load(what.queued, sessions=50, random=True)
            send(fill, system.ports, generator, PATIENCE_S)
            full = system.kept_octets()
            sent = send(what.load, system.ports, generator, PATIENCE_S)
            use_and_free()
            lent = send(what.load, system.ports, generator, PATIENCE_S)
        began = time.monotonic()
        with make(place, far, replace(what.setup, relaying=False)) as system:
            started = time.monotonic()
            system.release()
            released = time.monotonic()
            count = far.wait_for(what.load.messages, PATIENCE_S)
            peaks = {
                f"peak.{name}": float(resident_octets(pid, peak=True))
                for pid, name in system.processes().items()
            }
    found = {
        "kept": what.load.messages / (sent.ended - sent.began),
        "kept_lent": what.load.messages / (lent.ended - lent.began),
        "relayed": rate(count, what.load.messages),
        "start": started - began,
        "first": count["first"] - released,
        **peaks,
    }
    if full:
        found["memory_each"] = (full - empty) / what.queued / 1024
    return found
