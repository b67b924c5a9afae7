"""Mail is kept while nothing relays; then it is relayed while nothing comes."""

import time
from pathlib import Path
from typing import Any

from benchmarks.far import Far
from benchmarks.figures import Sample
from benchmarks.load import send
from benchmarks.measures.running import PATIENCE_S, Cost, keep_ahead
from benchmarks.scenarios import Drain
from benchmarks.systems import Make


def measure_drain(what: Drain, make: Make, folder: Path, generator: str) -> Sample:
    """Measure the rate of the 250s, then that of arrivals between the first and the last."""
    load = what.load
    with (
        Far(folder / "sink", what.delay_ms / 1000) as far,
        make(folder / "system", far, what.setup) as system,
    ):
        total = keep_ahead(system, load, generator) + load.messages
        sent = send(load, system.ports, generator, PATIENCE_S)
        if far.ask()["messages"]:
            raise RuntimeError("mail was relayed that should have waited")
        began = time.monotonic()
        system.release()
        far.wait_for(1, PATIENCE_S)
        # Only from here on, since what a worker's start costs is no message's cost.
        cost, gone = Cost(system, far), far.ask()["messages"]
        count = far.wait_for(total, PATIENCE_S)
        each = cost.each(max(1, total - gone))
        far.settled(total)
    return {
        "kept": load.messages / (sent.ended - sent.began),
        "relayed": rate(count, total),
        "first": count["first"] - began,
        "connections": count["most_open"],
        **each,
    }


def rate(count: dict[str, Any], number: int) -> float:
    """Return the messages a second from the first to message `number`, which `count` is `at`.

    Raises:
        RuntimeError: there are too few for a rate.
    """
    if number < 2 or count["at"] <= count["first"]:
        raise RuntimeError(f"{number} messages make no rate")
    return float((number - 1) / (count["at"] - count["first"]))
