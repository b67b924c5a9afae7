"""`make crash`: rounds without end, or as many as wanted, and a table of what came of them."""

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.crash import disk, table
from tests.crash.plan import LOAD_S, make_plan
from tests.crash.site import Demands, Result, Site

SLOW_S = 25.0
"""A round whose queue took longer to empty leaves its logs: nothing was wrong, but why so long?"""


async def run_round(
    seed: str, number: int, demands: Demands, *, load_s: float = LOAD_S, disks: bool = True
) -> tuple[Result, Path]:
    """Carry out one round in a new folder; return its result and the folder with its logs."""
    folder = Path(tempfile.mkdtemp(prefix="cr"))
    plan = make_plan(seed, number, load_s=load_s, disks=disks)
    return await Site(folder, plan, demands).run(), folder


def _arguments() -> argparse.Namespace:
    arguments = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    arguments.add_argument("--rounds", type=int, default=10)
    arguments.add_argument("--seed", default=str(int(time.time())))
    arguments.add_argument("--first", type=int, default=1, help="number of the first round")
    arguments.add_argument("--rate", type=float, default=240.0, help="messages a second")
    arguments.add_argument("--seconds", type=float, default=LOAD_S, help="of load in a round")
    arguments.add_argument(
        "--api", action="store_true", help="give it an API token: nothing may come twice"
    )
    arguments.add_argument(
        "--journal", action="store_true", help="nothing may be refused while Redis is away"
    )
    arguments.add_argument("--keep", action="store_true", help="keep the logs of every round")
    return arguments.parse_args()


def main() -> None:
    """Run the rounds; exit with 1 when one of them failed."""
    given = _arguments()
    for number in (signal.SIGTERM, signal.SIGINT):  # either way nothing is left running
        signal.signal(number, signal.default_int_handler)
    demands = Demands(api=given.api, journal=given.journal, rate=given.rate)
    with tempfile.TemporaryDirectory() as place:
        disks = disk.available(Path(place))
    print(f"seed {given.seed}, {given.rounds} rounds from {given.first}, {demands}")
    if not disks:
        print("no small disk can be mounted here (root may): no round has its disk full")
    print(table.HEAD, flush=True)
    results: list[Result] = []
    for number in range(given.first, given.first + given.rounds):
        try:
            result, folder = asyncio.run(
                run_round(given.seed, number, demands, load_s=given.seconds, disks=disks)
            )
        except KeyboardInterrupt:
            break
        results.append(result)
        print(table.line(result))
        for words in table.details(result):
            print(words)
        if result.faults or result.drain_s > SLOW_S or given.keep:
            print(f"       its logs: {folder}", flush=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)
        sys.stdout.flush()
    if results:
        print(table.sums(results))
    sys.exit(any(result.faults for result in results))


if __name__ == "__main__":
    main()
