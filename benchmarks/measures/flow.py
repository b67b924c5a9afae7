"""Mail comes and is relayed at the same time."""

from pathlib import Path

from benchmarks.far import Far
from benchmarks.figures import Sample
from benchmarks.load import send
from benchmarks.measures.running import PATIENCE_S, Cost, warm_up
from benchmarks.scenarios import Flow
from benchmarks.systems import Make


def measure_flow(what: Flow, make: Make, folder: Path, generator: str) -> Sample:
    """Measure from the first message offered to the last 250, and to the last one's arrival."""
    load = what.load
    with (
        Far(folder / "sink", what.delay_ms / 1000) as far,
        make(folder / "system", far, what.setup) as system,
    ):
        warm_up(system, far, load, generator)
        cost = Cost(system, far)
        sent = send(load, system.ports, generator, PATIENCE_S)
        count = far.wait_for(load.messages, PATIENCE_S)
        each = cost.each(load.messages, sent)
        far.settled(load.messages)
    relayed = load.messages / (count["last"] - sent.began)
    return {
        "kept": load.messages / (sent.ended - sent.began),
        "relayed": relayed,
        "megabytes": relayed * load.size / 1e6,
        "connections": count["most_open"],
        **each,
    }
