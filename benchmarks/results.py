"""From rounds to numbers: medians, ranges, ratios. Pure."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from benchmarks.figures import Sample
from benchmarks.scenarios import FRANKER, POSTFIX


@dataclass(frozen=True, slots=True)
class Measured:
    """One figure of one system: the median of its rounds, the least and the most."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Return what `values`, at least one, come to."""
        return cls(statistics.median(values), min(values), max(values))

    @property
    def spread(self) -> float:
        """How far least and most are apart, as a share of the median."""
        return (self.high - self.low) / self.median if self.median else 0.0


@dataclass(frozen=True, slots=True)
class Result:
    """What a scenario gave: samples of each system, in order, and what failed, in words."""

    name: str
    group: str
    title: str
    samples: Mapping[str, list[Sample]]
    failed: list[str] = field(default_factory=list)

    def measured(self, system: str, key: str) -> Measured | None:
        """Return the figure `key` of `system`; None where it was not measured."""
        values = [one[key] for one in self.samples.get(system, ()) if key in one]
        return Measured.of(values) if values else None

    def ratio(self, key: str) -> Measured | None:
        """Return Franker's figure over Postfix's; None where one is missing.

        The ratio of the medians, and the least and the most of the rounds that followed each other.
        """
        ours, theirs = self.measured(FRANKER, key), self.measured(POSTFIX, key)
        if ours is None or theirs is None or not theirs.median:
            return None
        median = ours.median / theirs.median
        pairs = zip(self.samples[FRANKER], self.samples[POSTFIX], strict=False)
        ratios = [one[key] / other[key] for one, other in pairs if other[key]]
        return Measured(median, min(ratios, default=median), max(ratios, default=median))

    def median_sample(self, system: str) -> Sample:
        """Return the median of everything that was measured of `system`; {}: nothing was."""
        samples = self.samples.get(system, ())
        keys = sorted({key for one in samples for key in one})
        return {key: statistics.median(one[key] for one in samples if key in one) for key in keys}

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values, the medians beside the samples."""
        systems = {
            system: {
                "median": {k: round(v, 4) for k, v in self.median_sample(system).items()},
                "rounds": [{k: round(v, 4) for k, v in one.items()} for one in samples],
            }
            for system, samples in self.samples.items()
        }
        named = {"name": self.name, "group": self.group, "title": self.title}
        return {**named, "systems": systems, "failed": self.failed}

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Self:
        """Return what `as_json` wrote."""
        samples = {system: one["rounds"] for system, one in said["systems"].items()}
        return cls(said["name"], said["group"], said["title"], samples, said["failed"])
