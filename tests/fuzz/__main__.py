"""Fuzz: as many cases as wanted over all readers of foreign octets; number and seed are printed.

    python -m tests.fuzz                            all targets, 200,000 cases by chance
    python -m tests.fuzz --cases 10000000 --seed 7
    python -m tests.fuzz --engine atheris fields    one target, led by coverage: pip install atheris
    python -m tests.fuzz fields FILE                one case, as a failed run has left it

A case that fails is written to a file, whose name is printed. What it teaches belongs into
tests/data/corpus/TARGET/, under a name that says what was wrong: `make test` runs those for good.
"""

import argparse
import json
import math
import multiprocessing
import secrets
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.fuzz.engine import Outcome
from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS, by_chance_named

LED = 0.02
"""The part of the cases that coverage leads, where both engines run: it takes ten times as long."""

GROWTH = 32_000_000
"""Octets of memory that a run over one target may take beyond its beginning."""


def main() -> int:
    """Run what the command line says; 1 when something failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--cases", type=int, default=200_000, help="over all targets together")
    parser.add_argument("--seed", type=int, default=None, help="to have the same cases again")
    parser.add_argument("--engine", choices=("chance", "atheris", "both"), default="chance")
    given = parser.parse_args()
    if len(given.targets) == 2 and given.targets[1] not in TARGETS:
        TARGETS[given.targets[0]].check(Path(given.targets[1]).read_bytes())
        print("the case passes")
        return 0
    for name in given.targets:
        if name not in TARGETS:
            parser.error(f"no target {name}; there are: {', '.join(TARGETS)}")
    wanted = [TARGETS[name] for name in given.targets or TARGETS]
    seed = secrets.randbelow(2**31) if given.seed is None else given.seed
    return run(wanted, given.cases, seed, given.engine)


def run(targets: list[Target], cases: int, seed: int, engine: str) -> int:
    """Spread `cases` over `targets`, run each in a process of its own, and print a table."""
    print(f"seed {seed}, {cases} cases over {len(targets)} targets", flush=True)
    print("target        engine       cases  seconds   slowest    growth", flush=True)
    shares = sum(target.share for target in targets)
    parts = {"chance": 1.0 - LED, "atheris": LED} if engine == "both" else {engine: 1.0}
    total, faults = 0, 0
    for name, part in parts.items():
        for target in targets:
            count = math.ceil(cases * part * target.share / shares)
            outcome = _apart(target, count, seed, name)
            total += outcome.cases
            faults += _told(target, name, outcome)
    print(f"{total} cases, seed {seed}, {faults} targets failed", flush=True)
    return 1 if faults else 0


def _told(target: Target, engine: str, outcome: Outcome) -> bool:
    """Print what a run over one target came to; return whether it failed."""
    growth = outcome.memory_after - outcome.memory_before
    print(
        f"{target.name:<14}{engine:<8}{outcome.cases:>10}{outcome.seconds:>9.1f}"
        f"{outcome.slowest_s * 1000:>7.0f} ms{growth / 1e6:>7.1f} MB",
        flush=True,
    )
    fault = outcome.fault
    if not fault and growth > GROWTH:
        fault = f"memory grew by {growth} octets"
    if fault:
        print(f"  FAILED: {fault}", flush=True)
    if outcome.failed is not None:
        with tempfile.NamedTemporaryFile(prefix=f"{target.name}-", delete=False) as file:
            file.write(outcome.failed)
        print(f"  again:  python -m tests.fuzz {target.name} {file.name}", flush=True)
    return bool(fault)


def _apart(target: Target, count: int, seed: int, engine: str) -> Outcome:
    """Run one target in a new process: memory is told apart, and none disturbs another."""
    if engine == "chance":
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawn) as processes:
            return processes.submit(by_chance_named, target.name, count, seed).result()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report"
        command = [sys.executable, "-m", "tests.fuzz.led", target.name, str(count), str(seed)]
        ended = subprocess.run([*command, str(report)], capture_output=True, text=True, check=False)
        if not report.exists():
            return Outcome(fault=f"{ended.stdout}\n{ended.stderr}"[-4000:])
        told = json.loads(report.read_text())
        failed = told.pop("failed")
        outcome = Outcome(**told, failed=None if failed is None else bytes.fromhex(failed))
        if outcome.fault:
            print(f"{ended.stdout}\n{ended.stderr}"[-4000:])
        return outcome


if __name__ == "__main__":
    sys.exit(main())
