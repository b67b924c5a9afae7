"""What a system costs that has nothing to do, and how long it takes to start."""

import socket
import time
from pathlib import Path

from benchmarks.far import Far
from benchmarks.figures import MEGABYTE, Sample
from benchmarks.measures.running import Cost, warm_up
from benchmarks.processes import resident_octets, shared_octets
from benchmarks.scenarios import AS_SHIPPED, Idle, Load
from benchmarks.systems import Make

_SETTLE_S = 5.0


def measure_idle(what: Idle, make: Make, folder: Path, generator: str) -> Sample:
    """Measure the start until mail is taken, then processor and memory after some mail."""
    with Far(folder / "sink") as far:
        began = time.monotonic()
        with make(folder / "system", far, AS_SHIPPED) as system:
            _greeted(system.ports[0])
            started = time.monotonic()
            warm_up(system, far, Load(), generator)
            time.sleep(
                min(_SETTLE_S, what.seconds)
            )  # what follows mail, such as connections closed
            cost = Cost(system, far)
            time.sleep(what.seconds)
            shares = cost.share()
            found: Sample = {}
            shared = 0.0
            for pid, name in system.processes().items():
                found[f"rest.{name}"] = found.get(f"rest.{name}", 0.0) + resident_octets(pid)
                shared += shared_octets(pid)
    return {
        "start": started - began,
        "idle_cpu": sum(shares.values()),
        "rest_memory": sum(found.values()) / MEGABYTE,
        "rest_memory_shared": shared / MEGABYTE,
        **found,
        **shares,
    }


def _greeted(port: int) -> None:
    """Wait until somebody at `port` is ready to take mail."""
    deadline = time.monotonic() + 30
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=30) as one:
                if one.recv(3) == b"220":
                    return
                raise RuntimeError("the greeting is not 220")
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.005)
