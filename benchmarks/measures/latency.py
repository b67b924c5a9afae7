"""How long one message takes when there is nothing else to do."""

import smtplib
import time
from pathlib import Path
from random import Random

from benchmarks.far import Far
from benchmarks.figures import Sample
from benchmarks.load import RECIPIENT, SENDER, message
from benchmarks.measures.running import PATIENCE_S, warm_up
from benchmarks.scenarios import AS_SHIPPED, AtRest, Load
from benchmarks.systems import Make


def measure_at_rest(what: AtRest, make: Make, folder: Path, generator: str) -> Sample:
    """Measure from a client's connect to its 250, and from there to the far end's 250."""
    load = Load()
    content, accepted, passed = message(load.size, Random(1)), [], []
    with Far(folder / "sink") as far, make(folder / "system", far, AS_SHIPPED) as system:
        warm_up(system, far, load, generator)
        for number in range(1, what.messages + 1):
            time.sleep(what.pause_s)
            began, kept = _hand_in(system.ports[0], content)
            count = far.wait_for(number, PATIENCE_S)
            accepted.append(kept - began)
            passed.append(count["last"] - kept)
        far.settled(what.messages)
    return {
        f"{name}_p{share}": 1000 * percentile(found, share)
        for name, found in (("accept", accepted), ("pass", passed))
        for share in (50, 99)
    }


def _hand_in(port: int, content: bytes) -> tuple[float, float]:
    began = time.monotonic()
    with smtplib.SMTP("127.0.0.1", port, local_hostname="load.invalid", timeout=30) as client:
        client.sendmail(SENDER, [RECIPIENT], content)
        kept = time.monotonic()
    return began, kept


def percentile(values: list[float], share: int) -> float:
    """Return the least of `values` that at least `share` per cent of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * share // 100) - 1)]
