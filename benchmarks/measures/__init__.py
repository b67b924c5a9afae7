"""How each thing that `benchmarks.scenarios` names is measured: one round of one system."""

from pathlib import Path

from benchmarks.figures import Sample
from benchmarks.measures.alone import measure_load, measure_sink
from benchmarks.measures.backlog import measure_backlog
from benchmarks.measures.drain import measure_drain
from benchmarks.measures.flow import measure_flow
from benchmarks.measures.idle import measure_idle
from benchmarks.measures.latency import measure_at_rest
from benchmarks.measures.outage import measure_outage
from benchmarks.scenarios import (
    AtRest,
    Backlog,
    Drain,
    Flow,
    Idle,
    LoadAlone,
    Outage,
    SinkAlone,
    What,
)
from benchmarks.systems import SYSTEMS


def measure(what: What, system: str, folder: Path, generator: str) -> Sample:
    """Run `what` once with `system` in `folder`, which is new, and return what was measured.

    Raises:
        RuntimeError, OSError, subprocess.SubprocessError: a part failed, or messages got lost,
            came twice or came without TLS.
    """
    if isinstance(what, SinkAlone):
        return measure_sink(what, folder)
    if isinstance(what, LoadAlone):
        return measure_load(what, folder, generator)
    make = SYSTEMS[system]
    match what:
        case Flow():
            return measure_flow(what, make, folder, generator)
        case Drain():
            return measure_drain(what, make, folder, generator)
        case Outage():
            return measure_outage(what, make, folder, generator)
        case AtRest():
            return measure_at_rest(what, make, folder, generator)
        case Backlog():
            return measure_backlog(what, make, folder, generator)
        case Idle():
            return measure_idle(what, make, folder, generator)
