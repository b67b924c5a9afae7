"""A plan carried out: every scenario, the systems in turn, round after round."""

import shutil
import subprocess
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

import redis

from benchmarks.figures import FIGURES, Sample
from benchmarks.measures import measure
from benchmarks.results import Result
from benchmarks.scenarios import BOTH, Scenario

FAILURES = (RuntimeError, OSError, subprocess.SubprocessError, redis.RedisError)


def carry_out(
    plan: Iterable[Scenario],
    systems: Collection[str],
    rounds: int,
    folder: Path,
    generator: str,
    *,
    keep: bool = False,
    say: Callable[[str], None] = print,
) -> Iterator[Result]:
    """Measure, in `folder`, what of `plan` concerns `systems`; yield each scenario's result.

    A round that fails is said in the result; the others go on. What lay in `folder` is removed
    after each round, unless it failed or `keep` is set.
    """
    for scenario in plan:
        chosen = [one for one in scenario.systems if one in systems or one not in BOTH]
        if not chosen:
            continue
        say(f"{scenario.name}: {scenario.title}")
        result = Result(scenario.name, scenario.group, scenario.title, {one: [] for one in chosen})
        for number in range(1, rounds + 1):
            for system in chosen:
                if number > scenario.rounds(system, rounds):
                    continue
                place = folder / f"{scenario.name}-{system}-{number}"
                place.mkdir(mode=0o755)
                try:
                    sample = measure(scenario.what, system, place, generator)
                except FAILURES as error:
                    result.failed.append(f"{system}, round {number}: {error}")
                    say(f"  {system} {number}: failed: {error}")
                else:
                    result.samples[system].append(sample)
                    say(f"  {system} {number}: {in_short(sample)}")
                    if not keep:
                        shutil.rmtree(place, ignore_errors=True)
        yield result


def in_short(sample: Sample) -> str:
    """Return the figures of a sample in one line."""
    return ", ".join(
        f"{one.title} {sample[one.key]:,.{one.digits}f} {one.unit}"
        for one in FIGURES.values()
        if one.key in sample
    )
