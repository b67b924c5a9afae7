"""What is to be reached, and whether it was. Pure.

The figures are a promise to whoever chooses Franker for its speed; the page on performance shows
them. On a machine with other than two cores they may be missed without a fault.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.results import Result
from benchmarks.scenarios import FRANKER


@dataclass(frozen=True, slots=True)
class Target:
    """A limit for the figure `key` of a scenario.

    Franker's own figure, or, with `ratio`, that over Postfix's, or, with `against`, that over
    Franker's own in another scenario.
    """

    words: str
    scenario: str
    key: str
    limit: float
    at_most: bool = False
    ratio: bool = False
    against: str = ""
    unit: str = "x"


TARGETS = (
    Target("kept and relayed, 20 sessions", "sessions-20", "relayed", 5, ratio=True),
    Target("kept only, 50 sessions", "queue", "kept", 6, ratio=True),
    Target(
        "a new connection for each message, kept and relayed", "fresh", "relayed", 3, ratio=True
    ),
    Target("one strictly sequential client, kept", "sessions-1", "kept", 1.5, ratio=True),
    Target("drain, 30 ms, 10 connections", "queue-30ms", "relayed", 3, ratio=True),
    Target("after an outage: first message", "outage", "first", 15, at_most=True, unit="s"),
    Target("after an outage: rate, to that of a queue", "outage", "relayed", 0.9, against="queue"),
    Target(
        "500,000 waiting, to 1,000: kept", "backlog-500000", "kept", 0.9, against="backlog-1000"
    ),
    Target(
        "500,000 waiting, to 1,000: kept, in memory used before",
        "backlog-500000",
        "kept_lent",
        0.9,
        against="backlog-1000",
    ),
    Target(
        "500,000 waiting, to 1,000: relayed",
        "backlog-500000",
        "relayed",
        0.9,
        against="backlog-1000",
    ),
    Target(
        "memory a waiting message", "backlog-100000", "memory_each", 6.5, at_most=True, unit="KB"
    ),
    Target("at rest, 250 to the far end's, p50", "rest", "pass_p50", 1, at_most=True, ratio=True),
    Target("100 KB, MB/s", "size-100kb", "megabytes", 2, ratio=True),
    Target("5 MB, MB/s", "size-5mb", "megabytes", 2, ratio=True),
    Target("idle: processor", "idle", "idle_cpu", 2, at_most=True, unit="%"),
    Target("idle: memory", "idle", "rest_memory", 160, at_most=True, unit="MB"),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A target and what was measured for it."""

    target: Target
    value: float

    @property
    def reached(self) -> bool:
        """Whether the value keeps the limit."""
        limit = self.target.limit
        return self.value <= limit if self.target.at_most else self.value >= limit


def outcomes(results: Mapping[str, Result]) -> list[Outcome]:
    """Return how the targets fare that `results`, by name, say something about."""
    found = []
    for target in TARGETS:
        value = _value(target, results)
        if value is not None:
            found.append(Outcome(target, value))
    return found


def _value(target: Target, results: Mapping[str, Result]) -> float | None:
    result = results.get(target.scenario)
    if result is None:
        return None
    if target.ratio:
        ratio = result.ratio(target.key)
        return ratio.median if ratio else None
    own = result.measured(FRANKER, target.key)
    if own is None or not target.against:
        return own.median if own else None
    other = results.get(target.against)
    base = other.measured(FRANKER, target.key) if other else None
    return own.median / base.median if base else None
