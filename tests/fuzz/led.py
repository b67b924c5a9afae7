"""One target led by coverage: atheris, in a process of its own that libFuzzer never returns to.

python -m tests.fuzz.led TARGET CASES SEED REPORT
"""

import json
import os
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["proxy", "worker"], enable_loader_override=False):
    from tests.fuzz.engine import HANG_S, LONGEST, Outcome, resident
    from tests.fuzz.target import Target
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Run libFuzzer on a copy of the corpus, and write down what it came to."""
    name, count, seed, report = sys.argv[1:]
    target = TARGETS[name]
    outcome = Outcome(memory_before=resident())
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    for path in target.corpus():
        (folder / path.name).write_bytes(path.read_bytes())
    words = folder.with_suffix(".dict")
    words.write_text("".join(f'"{_escaped(token)}"\n' for token in target.tokens))
    began = time.monotonic()

    def write_down() -> None:
        outcome.seconds = time.monotonic() - began
        outcome.memory_after = resident()
        told = asdict(outcome)
        told["failed"] = None if outcome.failed is None else outcome.failed.hex()
        Path(report).write_text(json.dumps(told))

    warm = min(int(count) // 10, 20_000)

    def check(octets: bytes) -> None:
        _check(target, octets, outcome)
        if outcome.cases == warm:
            outcome.memory_before = resident()
        if outcome.fault or outcome.cases >= int(count):
            write_down()
            os._exit(0)  # libFuzzer itself would not return either

    arguments = [
        sys.argv[0], str(folder), f"-seed={seed}", f"-dict={words}",
        f"-max_len={LONGEST}", f"-timeout={HANG_S}", "-rss_limit_mb=2000", "-close_fd_mask=0",
    ]  # fmt: skip
    atheris.Setup(arguments, check)
    atheris.Fuzz()


def _check(target: Target, octets: bytes, outcome: Outcome) -> None:
    began = time.process_time()
    try:
        target.check(octets)
        outcome.cases += 1
    except Exception as fault:
        outcome.failed = octets
        outcome.fault = f"{type(fault).__name__}: {fault}"
        sys.excepthook(type(fault), fault, fault.__traceback__)
    outcome.slowest_s = max(outcome.slowest_s, time.process_time() - began)


def _escaped(octets: bytes) -> str:
    return "".join(f"\\x{octet:02x}" for octet in octets[:64])


if __name__ == "__main__":
    main()
