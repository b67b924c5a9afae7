"""`make bench`: Franker, and Postfix beside it when it is installed, in alternating rounds.

    python -m benchmarks [--rounds 3] [--messages 10000] [--delay 0 --delay 30] [--backlog 100000]

Everything runs on this machine: the load (smtp-source when present), the program, a sink with
STARTTLS. Nothing else should run meanwhile. Results go to standard output and, as JSON, to a file.
"""

import argparse
import datetime as dt
import json
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import postfix
from benchmarks.backlog import measure_backlog
from benchmarks.franker import Franker
from benchmarks.load import Load, generator
from benchmarks.postfix import Postfix
from benchmarks.report import Round, as_json, summarize, table
from benchmarks.rounds import measure

# Postfix through 10 connections at 30 ms makes about 100/s: a tenth of the messages is enough.
_FAR_SHARE = 10


def _arguments() -> argparse.Namespace:
    arguments = argparse.ArgumentParser(prog="python -m benchmarks")
    arguments.add_argument("--rounds", type=int, default=3, help="of each system")
    arguments.add_argument("--messages", type=int, default=Load().messages)
    arguments.add_argument("--sessions", type=int, default=Load().sessions)
    arguments.add_argument("--size", type=int, default=Load().size, help="octets of a message")
    arguments.add_argument("--fresh", action="store_true", help="a connection for each message")
    arguments.add_argument(
        "--delay", type=float, action="append", help="round trip to the sink in ms; 0 and 30"
    )
    arguments.add_argument("--backlog", type=int, default=0, help="measure a queue of so many")
    arguments.add_argument("--only", choices=("franker", "postfix"), help="one system alone")
    arguments.add_argument("--own-load", action="store_true", help="do not use smtp-source")
    arguments.add_argument(
        "--folder", type=Path, help="where to work, on the disk to be measured; kept afterwards"
    )
    arguments.add_argument("--json", type=Path, help="default: benchmarks/results/TIME.json")
    return arguments.parse_args()


def main() -> None:
    """Measure, print, write."""
    given = _arguments()
    missing = postfix.available()
    systems = {
        name: make
        for name, make in (("franker", Franker), ("postfix", Postfix))
        if given.only in (None, name) and not (name == "postfix" and missing)
    }
    if not systems:
        sys.exit(missing)
    if missing:
        print(f"{missing}: Franker is measured alone.")
    name = generator(own=given.own_load)
    started = dt.datetime.now(dt.UTC)
    folder = given.folder or Path(tempfile.mkdtemp(prefix="franker-bench-"))
    # Postfix's own user must be able to reach its queue.
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    results: dict[str, Any] = {
        "started": started.isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.platform()}",
        "python": platform.python_version(),
        "load": f"{name}, {given.sessions} sessions, {given.size} octets",
        "scenarios": [],
    }
    print(f"{results['machine']}; load: {results['load']}")
    try:
        for delay in given.delay or [0.0, 30.0]:
            count = given.messages // (_FAR_SHARE if delay else 1)
            load = Load(count, given.sessions, given.size, given.fresh)
            rounds: dict[str, list[Round]] = {system: [] for system in systems}
            for number in range(given.rounds):
                for system, make in systems.items():
                    place = folder / f"{system}-{delay:.0f}-{number}"
                    done = measure(make, place, load, delay / 1000, name)
                    rounds[system].append(done)
                    print(f"  {system} round {number + 1}: {done.relayed:.0f}/s", flush=True)
                    if given.folder is None:
                        shutil.rmtree(place)
            summaries = [summarize(one) for one in rounds.values()]
            title = f"{count} messages, round trip to the sink {delay:.0f} ms"
            print(f"\n{table(title, summaries)}\n", flush=True)
            rows = [as_json(one, rounds[one.system]) for one in summaries]
            results["scenarios"].append({"title": title, "delay_ms": delay, "systems": rows})
        if given.backlog:
            load = Load(given.backlog, given.sessions, given.size)
            backlog = measure_backlog(folder / "backlog", load)
            print(f"{backlog.lines()}\n")
            results["backlog"] = backlog.as_json()
    finally:
        if given.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    target = given.json or Path(__file__).parent / f"results/{started:%Y%m%dT%H%M%SZ}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(f"written to {target}")


if __name__ == "__main__":
    main()
