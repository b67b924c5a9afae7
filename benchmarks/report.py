"""What was measured, as tables in Markdown that can also be read as they are. Pure."""

from collections.abc import Iterable, Mapping, Sequence

from benchmarks.check import Point
from benchmarks.figures import FIGURES, MEGABYTE, Figure, Sample, by_process
from benchmarks.plan import GROUPS
from benchmarks.results import Measured, Result
from benchmarks.targets import Outcome

_COSTS = "Processor time (µs a message), memory (MB, at its peak; of the idle one at rest)"


def report(
    facts: Mapping[str, str],
    results: Sequence[Result],
    reached: Sequence[Outcome],
    points: Sequence[Point],
) -> str:
    """Return everything."""
    parts = ["# Measured", "\n".join(f"- {name}: {said}" for name, said in facts.items())]
    if reached:
        parts += ["## To reach", targets_table(reached)]
    for group, (title, keys) in GROUPS.items():
        chosen = [one for one in results if one.group == group]
        if chosen:
            parts += [f"## {title}", group_table(chosen, keys)]
    costs = cost_table(results)
    if costs:
        parts += [
            f"## {_COSTS}",
            costs,
        ]
    if points:
        parts += ["## The model beside what was measured", points_table(points)]
    failed = [f"- {one.name}: {words}" for one in results for words in one.failed]
    if failed:
        parts += ["## Failed", "\n".join(failed)]
    return "\n\n".join(parts) + "\n"


def group_table(results: Iterable[Result], keys: Sequence[str]) -> str:
    """Return the figures `keys` of a group's scenarios: medians, with the range of the rounds."""
    results = list(results)
    systems = list(dict.fromkeys(name for one in results for name in one.samples))
    ratios = any(one.ratio(key) for one in results for key in keys)
    rows = [["", "", *systems, *(["ratio"] if ratios else [])]]
    for one in results:
        for key in keys:
            figure = FIGURES[key]
            cells = [shown(one.measured(system, key), figure) for system in systems]
            if any(cells):
                ratio = [_ratio(one.ratio(key))] if ratios else []
                rows.append([one.title, f"{figure.title}, {figure.unit}", *cells, *ratio])
    return _table(rows)


def shown(measured: Measured | None, figure: Figure) -> str:
    """Return a figure as it stands in a table; "" where there is none."""
    if measured is None:
        return ""
    digits = figure.digits
    text = f"{measured.median:,.{digits}f}"
    if measured.low == measured.high:
        return text
    return f"{text} ({measured.low:,.{digits}f}-{measured.high:,.{digits}f})"


def targets_table(reached: Iterable[Outcome]) -> str:
    """Return what was to be reached, and what was."""
    rows = [["", "to reach", "measured", ""]]
    for one in reached:
        target = one.target
        sign = "<=" if target.at_most else ">="
        limit = f"{sign} {target.limit:g} {target.unit}"
        value = f"{one.value:.2f} {target.unit}"
        rows.append([target.words, limit, value, "" if one.reached else "missed"])
    return _table(rows)


def cost_table(results: Iterable[Result]) -> str:
    """Return what each process used; "" where nothing was measured."""
    rows = [["", "", "processor", "sink, % of a core", "memory"]]
    for one in results:
        for system in one.samples:
            sample = one.median_sample(system)
            cpu = {name: cost for name, cost in by_process(sample, "cpu").items() if cost >= 1}
            peaks = by_process(sample, "peak") or by_process(sample, "rest")
            if cpu or peaks:
                memory = {name: octets / MEGABYTE for name, octets in peaks.items()}
                own = f"{sum(cpu.values()):.0f}: {_listed(cpu)}" if cpu else ""
                rows.append([one.title, system, own, _sink_share(sample), _listed(memory)])
    return _table(rows) if len(rows) > 1 else ""


def points_table(points: Iterable[Point]) -> str:
    """Return each point with what the model says about it."""
    rows = [["", "measured/s", "expected/s", "off by", "limit formed by"]]
    for one in points:
        off = "sets the model" if one.sets_model else f"{one.error:+.0%}"
        numbers = [f"{one.measured:,.0f}", f"{one.expected:,.0f}", off]
        rows.append([one.title, *numbers, one.limit])
    return _table(rows)


def _ratio(ratio: Measured | None) -> str:
    if ratio is None:
        return ""
    text = f"{ratio.median:.2f}"
    return text if ratio.low == ratio.high else f"{text} ({ratio.low:.2f}-{ratio.high:.2f})"


def _sink_share(sample: Sample) -> str:
    """Return how busy the sink was: what shows that it is not the sink that was measured."""
    share = sample.get("cpu.sink", 0.0) * sample.get("relayed", 0.0) / 1e4
    return f"{share:.0f}" if share else ""


def _listed(numbers: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {one:.0f}" for name, one in numbers.items())


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
