"""One measured run: start a system, send it a load, wait for the last message at the sink."""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from benchmarks.far import Far
from benchmarks.franker import Franker
from benchmarks.load import Load, send
from benchmarks.postfix import Postfix
from benchmarks.processes import cpu_seconds, resident_octets
from benchmarks.report import Round

System = Franker | Postfix
WARM_UP = 200
_PATIENCE_S = 300.0
_PATIENCE_AHEAD_S = 30.0


def measure(
    make: Callable[[Path, Far], System],
    folder: Path,
    load: Load,
    delay: float,
    generator: str,
    timeout: float = _PATIENCE_S,
) -> Round:
    """Run once in `folder`, which is new, and return what was measured.

    A few messages go ahead, so that connections stand and programs are warm.

    Raises:
        RuntimeError: a part failed, or messages got lost or came twice.
    """
    with Far(folder / "sink", delay) as far, make(folder / "system", far) as system:
        ahead = Load(min(WARM_UP, load.messages), load.sessions, load.size, load.fresh)
        send(ahead, system.port, generator, _PATIENCE_AHEAD_S)
        far.wait_for(ahead.messages, _PATIENCE_AHEAD_S)
        far.ask("reset")
        before = _cpu(system)
        began, kept = send(load, system.port, generator, timeout)
        count = far.wait_for(load.messages, timeout)
        after = _cpu(system)
        memory: dict[str, int] = {}
        for pid, name in system.processes().items():
            memory[name] = max(memory.get(name, 0), resident_octets(pid, peak=True))
        time.sleep(0.5)  # not for the numbers: to see what comes too much
        late = far.ask()["messages"]
    if late != load.messages:
        raise RuntimeError(f"{late} messages came instead of {load.messages}")
    if count["in_clear"]:
        raise RuntimeError(f"{count['in_clear']} messages came without TLS")
    per_message = 1e6 / load.messages
    return Round(
        system=system.name,
        messages=load.messages,
        kept=load.messages / (kept - began),
        relayed=load.messages / (count["last"] - began),
        connections=count["most_open"],
        cpu={name: (after[name] - before[name]) * per_message for name in after},
        memory=memory,
    )


def _cpu(system: System) -> Counter[str]:
    used: Counter[str] = Counter()
    for pid, name in system.processes().items():
        used[name] += cpu_seconds(pid)  # type: ignore[assignment]  # a Counter adds floats as well
    return used
