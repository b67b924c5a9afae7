"""How cases are made: from the corpus and a target's tokens by chance, or led by coverage.

The first engine needs nothing but Python. The second is Google's atheris (libFuzzer for Python).
Both give the same cases for the same seed, as long as the code is the same.
"""

import gc
import os
import random
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from tests.fuzz.target import Target

LONGEST = 4096
"""Octets of a case at most."""

HANG_S = 10
"""A case that takes longer than this hangs."""

_KEPT = 400


class Hang(BaseException):
    """A case took too long; nothing that a target catches."""


@dataclass(slots=True)
class Outcome:
    """What a run over one target came to. Memory is what the process holds, in octets."""

    cases: int = 0
    seconds: float = 0.0
    slowest_s: float = 0.0
    memory_before: int = 0
    memory_after: int = 0
    failed: bytes | None = None
    fault: str = ""


def resident() -> int:
    """Return the octets of memory that this process holds now."""
    gc.collect()
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGESIZE")


def mutated(cases: list[bytes], tokens: tuple[bytes, ...], chance: random.Random) -> bytes:
    """Return a new case, made of one that there is or of nothing."""
    octets = bytearray(chance.choice(cases) if cases and chance.random() < 0.6 else b"")
    for _ in range(int(chance.expovariate(0.2)) + 1):
        at = chance.randrange(len(octets) + 1)
        way = chance.random()
        if way < 0.6:
            octets[at:at] = chance.choice(tokens)
        elif way < 0.7:
            octets[at:at] = chance.randbytes(chance.randrange(1, 6))
        elif way < 0.8:
            del octets[at : at + chance.randrange(1, 20)]
        elif way < 0.88 and octets:
            octets[at % len(octets)] = chance.randrange(256)
        elif way < 0.94:
            start = chance.randrange(len(octets) + 1)
            octets[at:at] = octets[start : start + chance.randrange(1, 200)]
        elif cases:
            other = chance.choice(cases)
            octets[at:] = other[chance.randrange(len(other) + 1) :]
    return bytes(octets[:LONGEST])


def by_chance(target: Target, count: int, seed: int) -> Outcome:
    """Run the corpus and then `count` cases; stop at the first that fails."""
    chance = random.Random(f"{seed} {target.name}")
    cases = [path.read_bytes() for path in target.corpus()]
    began = time.monotonic()
    outcome = Outcome(memory_before=resident())

    def alarm(_signal: int, _frame: FrameType | None) -> None:
        raise Hang(f"more than {HANG_S} s")

    previous = signal.signal(signal.SIGALRM, alarm)
    try:
        for case in cases:
            _run(target, case, outcome)
        # What the first cases load and cache is no growth.
        warm = min(count // 10, 20_000)
        for number in range(count):
            if number == warm:
                outcome.memory_before = resident()
            case = mutated(cases, target.tokens, chance)
            _run(target, case, outcome)
            if chance.random() < 0.01:
                _keep(cases, case, chance)
    except KeyboardInterrupt:
        raise
    except BaseException as fault:
        outcome.failed = case
        outcome.fault = f"{type(fault).__name__}: {fault}"
        sys.excepthook(type(fault), fault, fault.__traceback__)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    outcome.memory_after = resident()
    outcome.seconds = time.monotonic() - began
    return outcome


def _run(target: Target, case: bytes, outcome: Outcome) -> None:
    signal.setitimer(signal.ITIMER_REAL, HANG_S)
    began = time.process_time()  # others on this machine make no case slow
    target.check(case)
    outcome.slowest_s = max(outcome.slowest_s, time.process_time() - began)
    outcome.cases += 1


def _keep(cases: list[bytes], case: bytes, chance: random.Random) -> None:
    """Let later cases be made of this one."""
    if len(cases) < _KEPT:
        cases.append(case)
    else:
        cases[chance.randrange(_KEPT)] = case
