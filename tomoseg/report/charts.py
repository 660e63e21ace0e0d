"""Line charts as SVG that stands inside a page and takes on its colours.

title
1.0 ┤            ___--- actin
    │      __----   |
    │ ___-          |      |: the mark
0.0 ┼────────────────
    0   200   400  x label

What stands where is worked out here; ``templates/chart.html`` draws it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from matplotlib.ticker import LogLocator, MaxNLocator

LEFT, RIGHT, TOP, BOTTOM = 52, 144, 12, 40
"""Pixels between the border and the plot; names of lines, where there are any, on the right."""
UNNAMED_RIGHT = 20
LINE_OF_TEXT = 15
ROUND = (1, 2, 5)

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Parameters
    ----------
    name
        Written at its end.
    colour
        ``"#rrggbb"``; by default that of the page's text.
    points
        (x, y) in the order of x, finite.
    dotted
        Whether each point is shown, with its values when pointed at.
    """

    name: str
    points: tuple[Point, ...]
    colour: str = "currentColor"
    dotted: bool = False


@dataclass(frozen=True)
class Axis:
    """How values become pixels."""

    low: float
    high: float
    begin_px: float
    end_px: float
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Return the pixel of a value, to a tenth."""
        of: Callable[[float], float] = math.log10 if self.logarithmic else float
        share = (of(value) - of(self.low)) / (of(self.high) - of(self.low))
        return round(self.begin_px + share * (self.end_px - self.begin_px), 1)

    @property
    def ticks(self) -> list[float]:
        """The round values to write at the axis.

        >>> Axis(30.0, 1200.0, 0, 100).ticks
        [200.0, 400.0, 600.0, 800.0, 1000.0, 1200.0]
        >>> Axis(30.0, 1200.0, 0, 100, logarithmic=True).ticks
        [50.0, 100.0, 200.0, 500.0, 1000.0]
        """
        few = LogLocator(subs=ROUND) if self.logarithmic else MaxNLocator(6, steps=[*ROUND, 10])
        begin, end = sorted((self.begin_px, self.end_px))
        values = [float(value) for value in few.tick_values(self.low, self.high)]
        return [value for value in values if begin <= self.place(value) <= end]


@dataclass(frozen=True)
class Chart:
    """Lines over one axis.

    Parameters
    ----------
    title, x_name
        What y and x are.
    lines
        Those without a point are left out, and so is a chart without a line.
    y_range
        Lowest and highest y; None takes those of the lines, on a logarithmic axis where they are
        positive and span a factor of 20.
    mark
        An x to point out, if there is one.
    """

    width: ClassVar[int] = 560
    height: ClassVar[int] = 270

    title: str
    x_name: str
    lines: tuple[Line, ...]
    y_range: tuple[float, float] | None = None
    mark: float | None = None

    @cached_property
    def drawn(self) -> list[Line]:
        """Lines that have a point."""
        return [line for line in self.lines if line.points]

    @cached_property
    def across(self) -> Axis:
        """The axis of x."""
        xs = [x for line in self.drawn for x, _ in line.points]
        right = RIGHT if any(line.name for line in self.lines) else UNNAMED_RIGHT
        return Axis(*_spread(min(xs), max(xs)), LEFT, self.width - right)

    @cached_property
    def up(self) -> Axis:
        """The axis of y."""
        ys = [y for line in self.drawn for _, y in line.points]
        low, high = self.y_range or (min(ys), max(ys))
        logarithmic = self.y_range is None and 0 < 20 * low < high
        return Axis(*_spread(low, high), self.height - BOTTOM, TOP, logarithmic)

    @property
    def is_marked(self) -> bool:
        """Whether the mark lies on the sheet."""
        return self.mark is not None and self.across.low <= self.mark <= self.across.high

    @property
    def names(self) -> list[tuple[float, Line]]:
        """Where each line's name stands beside its end, moved down where two would overlap."""
        ends = [(self.up.place(line.points[-1][1]), line) for line in self.drawn if line.name]
        ends.sort(key=lambda end: end[0])
        free = -math.inf
        # What is pushed down at the end must still stand on the sheet.
        lowest = self.height - 8 - LINE_OF_TEXT * (len(ends) - 1)
        places = []
        for number, (wanted, line) in enumerate(ends):
            y = round(max(min(wanted, lowest + LINE_OF_TEXT * number), free), 1)
            free = y + LINE_OF_TEXT
            places.append((y, line))
        return places


def _spread(low: float, high: float) -> tuple[float, float]:
    """Return a range that is not empty."""
    return (low, high) if high > low else (low - 0.5, high + 0.5)
