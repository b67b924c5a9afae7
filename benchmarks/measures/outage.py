"""The far end goes away, mail comes meanwhile, the far end returns."""

import time
from pathlib import Path

from benchmarks.far import Far
from benchmarks.figures import Sample
from benchmarks.load import send
from benchmarks.measures.drain import rate
from benchmarks.measures.running import PATIENCE_S, warm_up
from benchmarks.scenarios import AS_SHIPPED, Outage
from benchmarks.systems import Make


def measure_outage(what: Outage, make: Make, folder: Path, generator: str) -> Sample:
    """Measure from the far end's return to the first message's arrival and to the last one's."""
    load = what.load
    with Far(folder / "sink") as far, make(folder / "system", far, AS_SHIPPED) as system:
        warm_up(system, far, load, generator)
        far.ask("down")
        down = time.monotonic()
        sent = send(load, system.ports, generator, PATIENCE_S)
        time.sleep(max(0.0, down + what.down_s - time.monotonic()))
        if far.ask("up")["messages"]:
            raise RuntimeError("mail came while the far end was away")
        up = time.monotonic()
        count = far.wait_for(load.messages, PATIENCE_S)
        far.settled(load.messages)
    return {
        "kept": load.messages / (sent.ended - sent.began),
        "first": count["first"] - up,
        "last": count["last"] - up,
        "relayed": rate(count, load.messages),
    }
