"""What the sink and the generator can do without a system between them: the ceiling of the rest."""

import subprocess
import sys
from pathlib import Path

from benchmarks.far import Far
from benchmarks.figures import Sample
from benchmarks.load import send
from benchmarks.measures.running import PATIENCE_S
from benchmarks.scenarios import LoadAlone, SinkAlone


def measure_sink(what: SinkAlone, folder: Path) -> Sample:
    """Measure how fast the sink takes what does not wait for it, over TLS."""
    with Far(folder / "sink") as far:
        before = far.cpu_seconds()
        words = ["--port", far.port, "--ca", far.ca_file, "--messages", what.messages]
        words += ["--connections", what.connections]
        subprocess.run(
            [sys.executable, "-m", "benchmarks.straight", *map(str, words)],
            check=True,
            timeout=PATIENCE_S,
        )
        count = far.wait_for(what.messages, PATIENCE_S)
        used = far.cpu_seconds() - before
        far.settled(what.messages)
    return {
        "relayed": (what.messages - 1) / (count["last"] - count["first"]),
        "cpu.sink": 1e6 * used / what.messages,
    }


def measure_load(what: LoadAlone, folder: Path, generator: str) -> Sample:
    """Measure how fast the generator sends to the sink itself, in the clear."""
    load = what.load
    with Far(folder / "sink") as far:
        sent = send(load, (far.port,), generator, PATIENCE_S)
        far.wait_for(load.messages, PATIENCE_S)
    return {
        "kept": load.messages / (sent.ended - sent.began),
        "cpu.load": 1e6 * sent.cpu / load.messages,
    }
