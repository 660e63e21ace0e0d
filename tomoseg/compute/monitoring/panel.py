"""The worker's own page on its Dask dashboard, ``/tomoseg``: what it does now, and how fast.

Here, and nowhere in the metrics, a tomogram and a block have names. Without bokeh, or where the
worker's dashboard is off, there is no page.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from tomoseg.compute.devices import memory_bytes
from tomoseg.core.events import Listener, Span, listen

PAGE = "/tomoseg"
KEPT = 500
REFRESH_MILLISECONDS = 1000
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442", "#000000")
"""Okabe and Ito's: told apart by everyone."""


@dataclass(frozen=True)
class Ended:
    """A block that ended at a time, UTC."""

    span: Span
    when: datetime
    seconds: float
    is_done: bool


class Recent(Listener):
    """The blocks that are in work in this process, and the last that ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_work: dict[Span, float] = {}
        self._ended: deque[Ended] = deque(maxlen=KEPT)

    def began(self, span: Span) -> None:
        """Remember a block and when it began."""
        if span.kind == "block":
            with self._lock:
                self._in_work[span] = time.monotonic()

    def ended(self, span: Span, seconds: float, *, is_done: bool) -> None:
        """Remember how a block ended."""
        if span.kind == "block":
            with self._lock:
                self._in_work.pop(span, None)
                self._ended.append(Ended(span, datetime.now(UTC), seconds, is_done))

    def in_work(self) -> dict[str, list[Any]]:
        """Return a table of what is in work, by column."""
        with self._lock:
            rows = list(self._in_work.items())
        now = time.monotonic()
        return {
            "tomogram": [span.scope.tomogram for span, _ in rows],
            "stage": [span.scope.stage for span, _ in rows],
            "block": [span.scope.block for span, _ in rows],
            "seconds": [round(now - begun, 1) for _, begun in rows],
        }

    def points(self) -> dict[str, list[Any]]:
        """Return the blocks that ended, by column: when, how long, how many voxels a second."""
        with self._lock:
            rows = list(self._ended)
        stages = sorted({one.span.scope.stage for one in rows})
        return {
            "when": [one.when for one in rows],
            "seconds": [one.seconds for one in rows],
            "speed": [one.span.voxels / max(one.seconds, 1e-3) / 1e6 for one in rows],
            "stage": [one.span.scope.stage for one in rows],
            "block": [f"{one.span.scope.tomogram} {one.span.scope.block}" for one in rows],
            "colour": [COLOURS[stages.index(one.span.scope.stage) % len(COLOURS)] for one in rows],
            "marker": ["circle" if one.is_done else "x" for one in rows],
        }


def add_panel(worker: Any) -> None:
    """Add the page to a worker's HTTP server, as Dask adds its own."""
    if not worker.http_application.applications:
        return
    from distributed.dashboard.core import BokehApplication
    from tornado.ioloop import IOLoop

    recent = Recent()
    listen(recent)
    page = BokehApplication({PAGE: partial(_page, recent)}, worker)
    worker.http_application.add_application(page)
    page.initialize(IOLoop.current())
    page.start()


def _page(recent: Recent, worker: Any, _extra: Any, document: Any) -> None:
    """Fill the page that somebody opens; it is brought up to date while it is open."""
    from bokeh.layouts import column, row
    from bokeh.models import ColumnDataSource, DataTable, Div, TableColumn

    head = Div(text=f"<h2>tomoseg worker {worker.address}</h2>", sizing_mode="stretch_width")
    memory = Div(text="")
    in_work, points = ColumnDataSource(recent.in_work()), ColumnDataSource(recent.points())
    columns = [TableColumn(field=name, title=name) for name in in_work.data]
    table = DataTable(source=in_work, columns=columns, height=140, sizing_mode="stretch_width")
    plots = [
        _plot(points, "seconds", "seconds a block"),
        _plot(points, "speed", "million voxels a second"),
    ]

    def refresh() -> None:
        in_work.data, points.data = recent.in_work(), recent.points()
        used = [
            f"GPU {device}: {taken / 2**30:.1f} of {total / 2**30:.1f} GiB in use"
            for device, (taken, total) in memory_bytes().items()
        ]
        memory.text = "<br>".join(used) or "computes on processors: no GPU is visible"

    refresh()
    document.title = "tomoseg worker"
    document.add_root(
        column(
            head,
            memory,
            Div(text="<h3>Blocks in work</h3>"),
            table,
            row(*plots, sizing_mode="stretch_width"),
            sizing_mode="stretch_width",
        )
    )
    document.add_periodic_callback(refresh, REFRESH_MILLISECONDS)


def _plot(points: Any, value: str, title: str) -> Any:
    from bokeh.models import HoverTool
    from bokeh.plotting import figure

    plot = figure(
        title=f"{title}; a cross has failed",
        x_axis_type="datetime",
        y_axis_type="log",
        height=320,
        sizing_mode="stretch_width",
        tools="pan,wheel_zoom,reset",
    )
    plot.scatter(
        "when", value, source=points, color="colour", marker="marker", size=7, legend_field="stage"
    )
    plot.add_tools(HoverTool(tooltips=[(name, f"@{name}") for name in ("block", "stage", value)]))
    plot.add_layout(plot.legend[0], "right")
    return plot
