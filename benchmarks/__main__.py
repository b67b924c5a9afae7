"""`make bench`: Franker, and Postfix beside it when it is installed, in alternating rounds.

    python -m benchmarks [--quick] [--rounds 3] [NAME ...]

Everything runs on this machine: the load (smtp-source when present), the program, a sink with
STARTTLS. Nothing else should run meanwhile. The tables go to standard output; they, the numbers as
JSON and a picture go to files of the run's own, written anew after each scenario.
"""

import argparse
import datetime as dt
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import postfix
from benchmarks.asked import arguments, chosen
from benchmarks.check import Point, points
from benchmarks.load import generator
from benchmarks.machine import BUSY, facts, in_memory, settings
from benchmarks.plot import panels, svg
from benchmarks.report import report
from benchmarks.results import Result
from benchmarks.rounds import carry_out
from benchmarks.scenarios import BOTH, FRANKER, Scenario
from benchmarks.targets import outcomes


def main() -> None:
    """Measure, print, write; exit code 1: a round failed."""
    given = arguments()
    if given.show:
        print(written_again(given.show))
        return
    plan = chosen(given)
    if not plan:
        sys.exit(f"no scenario is called {' or '.join(given.names)}: see --list")
    if given.list:
        print("\n".join(f"{one.name:24} {one.group:8} {one.title}" for one in plan))
        return
    systems = [given.only] if given.only else list(BOTH)
    missing = postfix.available()
    if missing and systems != [FRANKER]:
        print(f"{missing}: Franker is measured alone.")
        systems = [FRANKER]
    folder = given.folder or Path(tempfile.mkdtemp(prefix="franker-bench-"))
    # Postfix's own user must be able to reach its queue.
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    failed = False
    try:
        failed = any(one.failed for one in carried_out(given, plan, systems, folder))
    finally:
        if given.folder is None and not failed:
            shutil.rmtree(folder, ignore_errors=True)
    if failed:
        sys.exit(f"what failed has its logs in {folder}")


def carried_out(
    given: argparse.Namespace, plan: Sequence[Scenario], systems: Sequence[str], folder: Path
) -> list[Result]:
    """Measure `plan` and write what came of it, after each scenario and at the end."""
    started = dt.datetime.now(dt.UTC)
    target = given.json or Path(__file__).parent / f"results/{started:%Y%m%dT%H%M%SZ}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    name = generator(own=given.own_load)
    rounds = given.rounds or (1 if given.quick else 3)
    about = {"started": started.isoformat(timespec="seconds"), **facts(folder, name)}
    about["rounds"] = f"{rounds}, the systems in turn; medians, in brackets their range"
    if given.quick:
        about["quick"] = "far too little mail for figures that say anything"
    if os.getloadavg()[0] > BUSY:
        print("Something else runs on this machine: the figures are worth little.")
    if in_memory(folder):
        print(f"{folder} is not on a disk: --folder names one that is.")
    results: list[Result] = []
    keep = given.folder is not None
    for one in carry_out(plan, systems, rounds, folder, name, keep=keep, say=_say):
        results.append(one)
        found = points(plan, {each.name: each for each in results}, os.cpu_count() or 1)
        text = write(target, about, results, found)
    print(f"\n{text}\nwritten to {target}, and beside it as .md and .svg")
    return results


def write(
    target: Path, about: Mapping[str, str], results: Sequence[Result], found: Sequence[Point]
) -> str:
    """Write numbers, tables and picture to `target` and beside it, and return the tables."""
    reached = [] if "quick" in about else outcomes({one.name: one for one in results})
    text = report(about, results, reached, found)
    document = {
        "about": dict(about),
        "settings": settings(),
        "scenarios": [one.as_json() for one in results],
        "model": [one.as_json() for one in found],
    }
    target.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    target.with_suffix(".md").write_text(text, encoding="utf-8")
    title = f"Franker and Postfix, {about['started'][:10]}, {about['machine']}"
    target.with_suffix(".svg").write_text(svg(title, panels(results, found)), encoding="utf-8")
    return text


def written_again(source: Path) -> str:
    """Return the tables of the run that lies at `source`; its picture is drawn anew."""
    document = json.loads(source.read_text(encoding="utf-8"))
    results = [Result.from_json(one) for one in document["scenarios"]]
    found = [Point.from_json(one) for one in document["model"]]
    return write(source, document["about"], results, found)


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
