"""Line charts as SVG that stands inside a page and takes on its colours.

title
1.0 ┤            ___--- actin
    │      __----   |
    │ ___-          |      |: the mark
0.0 ┼────────────────
    0   200   400  x label
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tomoseg.report.markup import escaped

WIDTH, HEIGHT = 560, 270
LEFT, RIGHT, TOP, BOTTOM = 52, 144, 12, 40
"""Pixels between the border and the plot; names of lines, where there are any, on the right."""
UNNAMED_RIGHT = 20
LINE_OF_TEXT = 15


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Parameters
    ----------
    name
        Written at its end.
    colour
        ``"#rrggbb"``; empty for that of the page's text.
    points
        (x, y) in the order of x, finite.
    dotted
        Whether each point is shown, with its values when pointed at.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    colour: str = ""
    dotted: bool = False


@dataclass(frozen=True)
class Chart:
    """Lines over one axis.

    Parameters
    ----------
    title, x_name
        What y and x are.
    lines
        At least one with a point.
    y_range
        Lowest and highest y; None takes those of the lines, on a logarithmic axis where they are
        positive and span a factor of 20.
    mark
        An x to point out, if there is one.
    """

    title: str
    x_name: str
    lines: tuple[Line, ...]
    y_range: tuple[float, float] | None = None
    mark: float | None = None


@dataclass(frozen=True)
class _Axis:
    """How values become pixels."""

    low: float
    high: float
    begin_px: float
    end_px: float
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Return the pixel of a value."""
        of: Callable[[float], float] = math.log10 if self.logarithmic else float
        share = (of(value) - of(self.low)) / (of(self.high) - of(self.low))
        return self.begin_px + share * (self.end_px - self.begin_px)

    def ticks(self) -> list[float]:
        """Return the round values to write at the axis."""
        if not self.logarithmic:
            return _round_values(self.low, self.high)
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        values = (step * 10.0**power for power in powers for step in (1, 2, 5))
        return [value for value in values if self.low <= value <= self.high]


def chart_svg(chart: Chart) -> str:
    """Draw a chart.

    Returns
    -------
    A ``figure`` element; empty if no line has a point.
    """
    points = [point for line in chart.lines for point in line.points]
    if not points:
        return ""
    across, up = _axes(chart, points)
    parts = [*_grid(across, up), *_mark(chart.mark, across)]
    for line in chart.lines:
        parts += _drawn(line, across, up)
    parts += _names(chart.lines, across, up)
    middle = (across.begin_px + across.end_px) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 6}">{escaped(chart.x_name)}</text>')
    body = "\n".join(parts)
    scale = ", logarithmic" if up.logarithmic else ""
    return f"""<figure>
<figcaption>{escaped(chart.title)}{scale}</figcaption>
<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">
{body}
</svg>
</figure>
"""


def _axes(chart: Chart, points: Sequence[tuple[float, float]]) -> tuple[_Axis, _Axis]:
    begin, end = _spread(min(x for x, _ in points), max(x for x, _ in points))
    low, high = chart.y_range or (min(y for _, y in points), max(y for _, y in points))
    logarithmic = chart.y_range is None and 0 < 20 * low < high
    low, high = _spread(low, high)
    right = RIGHT if any(line.name for line in chart.lines) else UNNAMED_RIGHT
    across = _Axis(begin, end, LEFT, WIDTH - right)
    return across, _Axis(low, high, HEIGHT - BOTTOM, TOP, logarithmic)


def _spread(low: float, high: float) -> tuple[float, float]:
    """Return a range that is not empty."""
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _grid(across: _Axis, up: _Axis) -> list[str]:
    lines = []
    for value in up.ticks():
        y = up.place(value)
        lines.append(f'<path class="grid" d="M{across.begin_px} {y:.1f}H{across.end_px}"/>')
        lines.append(f'<text class="y" x="{LEFT - 6}" y="{y + 4:.1f}">{value:g}</text>')
    for value in across.ticks():
        x = across.place(value)
        lines.append(f'<text x="{x:.1f}" y="{up.begin_px + 17}">{value:,g}</text>')
    return lines


def _mark(value: float | None, across: _Axis) -> list[str]:
    if value is None or not across.low <= value <= across.high:
        return []
    x = across.place(value)
    return [
        f'<path class="mark" d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}"><title>kept network: '
        f"{value:,g}</title></path>"
    ]


def _drawn(line: Line, across: _Axis, up: _Axis) -> list[str]:
    """Return a line on a wider, faint one, so that yellow shows on white and green on black."""
    places = [(across.place(x), up.place(y)) for x, y in line.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    stroke = line.colour or "currentColor"
    parts = [
        f'<polyline class="casing" points="{path}"/>',
        f'<polyline points="{path}" stroke="{stroke}"/>',
    ]
    if line.dotted:
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{stroke}">'
            f"<title>{escaped(line.name)}: {point[1]:.3f} at {point[0]:,g}</title></circle>"
            for (x, y), point in zip(places, line.points, strict=True)
        ]
    return parts


def _names(lines: Sequence[Line], across: _Axis, up: _Axis) -> list[str]:
    """Write each line's name beside its end, moved down where two would overlap."""
    ends = [(up.place(line.points[-1][1]) + 4, line) for line in lines if line.points and line.name]
    ends.sort(key=lambda end: end[0])
    parts: list[str] = []
    free = -math.inf
    # What is pushed down at the end must still stand on the sheet.
    lowest = HEIGHT - LINE_OF_TEXT * (len(ends) - 1)
    for number, (wanted, line) in enumerate(ends):
        y = max(min(wanted, lowest + LINE_OF_TEXT * number - 4), free)
        free = y + LINE_OF_TEXT
        stroke = line.colour or "currentColor"
        x = across.end_px + 8
        parts.append(f'<path d="M{x} {y - 4:.1f}h12" stroke="{stroke}"/>')
        name = line.name if len(line.name) <= 16 else f"{line.name[:15]}…"
        parts.append(f'<text class="name" x="{x + 17}" y="{y:.1f}">{escaped(name)}</text>')
    return parts


def _round_values(low: float, high: float) -> list[float]:
    """Return multiples of 1, 2 or 5 × 10^k between two values, six at most.

    >>> _round_values(0.0, 1.0), _round_values(30.0, 1200.0)
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [200.0, 400.0, 600.0, 800.0, 1000.0, 1200.0])
    """
    least = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(least))
    step = next(size * power for size in (1, 2, 5, 10) if size * power >= least)
    begin, end = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{number * step:.12g}") for number in range(begin, end + 1)]
