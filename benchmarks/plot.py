"""The same as a picture: bars side by side, as SVG. Pure; no library draws forty bars for years."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from benchmarks.check import Point
from benchmarks.figures import FIGURES
from benchmarks.plan import GROUPS
from benchmarks.results import Measured, Result
from benchmarks.scenarios import FRANKER, POSTFIX

PANELS = (
    ("flow", "relayed"),
    ("flow", "kept"),
    ("sizes", "megabytes"),
    ("queue", "relayed"),
    ("queue", "kept"),
    ("outage", "first"),
    ("rest", "pass_p50"),
    ("rest", "accept_p50"),
    ("backlog", "kept"),
    ("backlog", "relayed"),
    ("scale", "relayed"),
)
"""Groups and figures that are drawn, in this order."""

_COLORS = {FRANKER: "#1b6ca8", POSTFIX: "#d98032", "expected": "#9fb8c8"}
_WIDTH, _LABELS, _VALUES = 760, 320, 90
_BAR, _GAP, _TITLE = 13, 8, 34


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: whose it is, and what it shows."""

    system: str
    value: Measured


@dataclass(frozen=True, slots=True)
class Panel:
    """Bars with one scale: rows with a label, and some bars each."""

    title: str
    digits: int
    rows: Sequence[tuple[str, Sequence[Bar]]]


def panels(results: Sequence[Result], points: Sequence[Point]) -> list[Panel]:
    """Return what there is to draw."""
    found = []
    for group, key in PANELS:
        figure = FIGURES[key]
        rows = []
        for one in results:
            measured = {system: one.measured(system, key) for system in one.samples}
            bars = [Bar(system, value) for system, value in measured.items() if value is not None]
            if one.group == group and bars:
                rows.append((one.title, bars))
        if rows:
            title = f"{GROUPS[group][0]}: {figure.title}, {figure.unit}"
            found.append(Panel(title, figure.digits, rows))
    if points:
        pairs = [
            (one.title, [_plain(FRANKER, one.measured), _plain("expected", one.expected)])
            for one in points
        ]
        found.append(Panel("The model beside what was measured, messages/s", 0, pairs))
    return found


def svg(title: str, drawn: Iterable[Panel]) -> str:
    """Return the picture."""
    parts, top = [_text(10, 22, title, size=15, bold=True), _legend()], 60
    for panel in drawn:
        shapes, top = _panel(panel, top)
        parts += shapes
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{top}"'
        f' viewBox="0 0 {_WIDTH} {top}" font-family="sans-serif" font-size="11">'
    )
    ground = f'<rect width="{_WIDTH}" height="{top}" fill="white"/>'
    return "\n".join([head, ground, *parts, "</svg>"]) + "\n"


def _plain(system: str, value: float) -> Bar:
    return Bar(system, Measured(value, value, value))


def _panel(panel: Panel, top: int) -> tuple[list[str], int]:
    """Return a panel's shapes, and where the next one begins."""
    shapes = [_text(10, top + 18, panel.title, size=12, bold=True)]
    most = max(bar.value.high for _, bars in panel.rows for bar in bars) or 1.0
    scale = (_WIDTH - _LABELS - _VALUES) / most
    y = top + _TITLE - 6
    for label, bars in panel.rows:
        middle = y + _BAR * len(bars) / 2 + 4
        shapes.append(_text(_LABELS - 8, middle, label, anchor="end"))
        for bar in bars:
            shapes += _bar(bar, y, scale, panel.digits)
            y += _BAR
        y += _GAP
    return shapes, y + 4


def _bar(bar: Bar, y: int, scale: float, digits: int) -> list[str]:
    value = bar.value
    width, low, high = (max(0.0, one * scale) for one in (value.median, value.low, value.high))
    shape = f'<rect x="{_LABELS}" y="{y}" width="{width:.1f}" height="{_BAR - 2}"'
    shapes = [f'{shape} fill="{_COLORS.get(bar.system, "#777777")}"/>']
    if high > low:
        line = f"M{_LABELS + low:.1f} {y + 5.5}H{_LABELS + high:.1f}"
        shapes.append(f'<path d="{line}" stroke="black" stroke-width="1.5"/>')
    text = f"{value.median:,.{digits}f}"
    return [*shapes, _text(_LABELS + max(width, high) + 5, y + _BAR - 3, text)]


def _legend() -> str:
    shapes, x = [], 10
    for name, color in _COLORS.items():
        shapes.append(f'<rect x="{x}" y="34" width="11" height="11" fill="{color}"/>')
        shapes.append(_text(x + 16, 44, name))
        x += 90
    return "\n".join([*shapes, _text(x, 44, "the line: range of the rounds")])


def _text(
    x: float, y: float, words: str, *, size: int = 11, bold: bool = False, anchor: str = "start"
) -> str:
    weight = ' font-weight="bold"' if bold else ""
    place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}"'
    return f"<text {place}{weight}>{escape(words)}</text>"
