"""From rounds to numbers: medians, spread, ratios; pure."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Round:
    """One measured run. Rates are messages a second, costs microseconds a message.

    `kept` is the rate at which the 250s came, `relayed` that from the first message offered to
    the last one arrived. `memory` holds the peak of each process in octets.
    """

    system: str
    messages: int
    kept: float
    relayed: float
    connections: int
    cpu: Mapping[str, float] = field(default_factory=dict)
    memory: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Summary:
    """The rounds of one system: the median, the slowest, the fastest of what was relayed."""

    system: str
    rounds: int
    kept: float
    relayed: float
    slowest: float
    fastest: float
    connections: int
    cpu: Mapping[str, float]
    memory: Mapping[str, int]

    @property
    def spread(self) -> float:
        """How far slowest and fastest are apart, as a share of the median."""
        return (self.fastest - self.slowest) / self.relayed


def summarize(rounds: Sequence[Round]) -> Summary:
    """Return the summary of one system's rounds, at least one."""
    relayed = [one.relayed for one in rounds]
    parts = sorted({part for one in rounds for part in one.cpu})
    return Summary(
        system=rounds[0].system,
        rounds=len(rounds),
        kept=statistics.median(one.kept for one in rounds),
        relayed=statistics.median(relayed),
        slowest=min(relayed),
        fastest=max(relayed),
        connections=max(one.connections for one in rounds),
        cpu={part: statistics.median(one.cpu.get(part, 0.0) for one in rounds) for part in parts},
        memory={part: max(one.memory.get(part, 0) for one in rounds) for part in parts},
    )


def table(title: str, summaries: Sequence[Summary]) -> str:
    """Return a scenario's summaries for people, the ratio to the last one beside each."""
    rows = [f"{title}", f"{'':10}{'kept/s':>9}{'relayed/s':>11}{'range':>15}{'spread':>8}"]
    base = summaries[-1]
    for one in summaries:
        span = f"{one.slowest:.0f}-{one.fastest:.0f}"
        row = f"{one.system:10}{one.kept:9.0f}{one.relayed:11.0f}{span:>15}{one.spread:8.0%}"
        if one is not base:
            row += f"   {one.relayed / base.relayed:.1f} x {base.system}"
        rows.append(row)
    for one in summaries:
        busy = {part: cost for part, cost in one.cpu.items() if cost >= 1}
        costs = ", ".join(f"{part} {cost:.0f}" for part, cost in busy.items())
        peaks = ", ".join(
            f"{part} {one.memory[part] / 1_048_576:.0f}" for part in busy if part in one.memory
        )
        rows.append(f"{one.system}: CPU microseconds a message: {costs}")
        if peaks:
            rows.append(f"{one.system}: memory at its peak, MB: {peaks}")
    return "\n".join(rows)


def as_json(summary: Summary, rounds: Sequence[Round]) -> dict[str, Any]:
    """Return a summary and its rounds as plain values."""
    return {
        "system": summary.system,
        "kept_per_second": round(summary.kept, 1),
        "relayed_per_second": round(summary.relayed, 1),
        "relayed_per_second_of_each_round": [round(one.relayed, 1) for one in rounds],
        "spread": round(summary.spread, 3),
        "connections": summary.connections,
        "cpu_microseconds_per_message": {k: round(v, 1) for k, v in summary.cpu.items()},
        "peak_memory_octets": dict(summary.memory),
    }
