"""Counts of what happens, as Prometheus reads them; no name of a tomogram or block among them.

Blocks are counted where they run: in Dask workers, whose own ``/metrics`` shows them, or in the
process itself. Stages are counted where the flow runs, tomograms where the sessions are watched.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    start_http_server,
)
from prometheus_client.core import GaugeMetricFamily

from tomoseg import __version__
from tomoseg.capacity import ENDED, Times
from tomoseg.devices import memory_bytes
from tomoseg.errors import RequestError
from tomoseg.events import Listener, Work, listen

ADDRESS = "TOMOSEG_METRICS_ADDRESS"
BLOCK_SECONDS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)
STAGE_SECONDS = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200)
RESULT_SECONDS = (60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800, 86400)
OUTCOMES = ("done", "failed")


class WorkMetrics(Listener):
    """Blocks and stages that are worked on in this process.

    Parameters
    ----------
    registry
        What the process shows.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        by_stage: dict[str, Any] = {"labelnames": ("stage",), "registry": registry}
        by_outcome: dict[str, Any] = {"labelnames": ("stage", "outcome"), "registry": registry}
        Info("tomoseg", "The version of tomoseg.", registry=registry).info({"version": __version__})
        self._blocks = Counter("tomoseg_blocks", "Blocks that ended.", **by_outcome)
        self._in_work = Gauge("tomoseg_blocks_in_work", "Blocks being computed.", **by_stage)
        self._voxels = Counter("tomoseg_voxels", "Voxels of blocks done.", **by_stage)
        self._block_seconds = Histogram(
            "tomoseg_block_seconds", "Seconds a block done.", buckets=BLOCK_SECONDS, **by_stage
        )
        self._stages = Counter("tomoseg_stages", "Stages of tomograms that ended.", **by_outcome)
        self._stage_seconds = Histogram(
            "tomoseg_stage_seconds",
            "Seconds a stage of a tomogram that was done.",
            buckets=STAGE_SECONDS,
            **by_stage,
        )

    def began(self, work: Work) -> None:
        """Count what is in work; what may fail is shown from now on, as 0."""
        stage = work.place.stage
        ends = self._blocks if work.kind == "block" else self._stages
        for outcome in OUTCOMES:
            ends.labels(stage, outcome)
        if work.kind == "block":
            self._in_work.labels(stage).inc()

    def ended(self, work: Work, seconds: float, *, is_done: bool) -> None:
        """Count what ended, and how long it took if it is done."""
        stage, outcome = work.place.stage, "done" if is_done else "failed"
        if work.kind == "stage":
            self._stages.labels(stage, outcome).inc()
            if is_done:
                self._stage_seconds.labels(stage).observe(seconds)
            return
        self._in_work.labels(stage).dec()
        self._blocks.labels(stage, outcome).inc()
        if is_done:
            self._voxels.labels(stage).inc(work.voxels)
            self._block_seconds.labels(stage).observe(seconds)


class WatchMetrics(Listener):
    """Tomograms of the sessions that are watched; nothing is shown before the first look.

    What ended before this process started is not counted.
    """

    def __init__(self, registry: CollectorRegistry, began: datetime | None = None) -> None:
        self._registry = registry
        self._began = began or datetime.now(UTC)
        self._known: set[tuple[str, str, datetime]] = set()
        self._shown: _Tomograms | None = None

    def looked(self, tomograms: Sequence[Times]) -> None:
        """Show how all tomograms stand, and count what is new among them."""
        if self._shown is None:
            self._shown = _Tomograms(self._registry)
        known = set()
        for one in tomograms:
            for event, when in (("arrived", one.complete), ("ended", one.finished)):
                if when is None or when < self._began:
                    continue
                known.add((one.name, event, when))
                if (one.name, event, when) not in self._known:
                    self._shown.count(one, event)
        self._known = known
        self._shown.show(tomograms)


class _Tomograms:
    """The metrics of tomograms."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._arrived = Counter(
            "tomoseg_tomograms_arrived", "Tomograms whose file became complete.", registry=registry
        )
        self._ended = Counter(
            "tomoseg_tomograms_ended", "Tomograms that ended.", ("state",), registry=registry
        )
        for state in ENDED:
            self._ended.labels(state)
        self._now = Gauge(
            "tomoseg_tomograms", "Tomograms by where they stand.", ("state",), registry=registry
        )
        self._age = Gauge(
            "tomoseg_queue_age_seconds",
            "Seconds since the file of the tomogram that waits longest was complete.",
            registry=registry,
        )
        self._result = Histogram(
            "tomoseg_result_seconds",
            "Seconds from a complete file to its result.",
            buckets=RESULT_SECONDS,
            registry=registry,
        )
        self._stage = Histogram(
            "tomoseg_tomogram_stage_seconds",
            "Seconds of a stage of the tomograms that ended.",
            ("stage",),
            buckets=STAGE_SECONDS,
            registry=registry,
        )
        self._look = Gauge(
            "tomoseg_last_look_timestamp_seconds",
            "When the sessions were last looked at.",
            registry=registry,
        )

    def count(self, tomogram: Times, event: str) -> None:
        """Count a tomogram that arrived or ended."""
        if event == "arrived":
            self._arrived.inc()
            return
        self._ended.labels(tomogram.state).inc()
        for stage, seconds in tomogram.seconds.items():
            self._stage.labels(stage).observe(seconds)
        if tomogram.state == "done" and tomogram.complete and tomogram.finished:
            self._result.observe((tomogram.finished - tomogram.complete).total_seconds())

    def show(self, tomograms: Sequence[Times]) -> None:
        """Show how all tomograms stand now."""
        for state in ("waiting", "running", *ENDED):
            self._now.labels(state).set(sum(one.state == state for one in tomograms))
        now = time.time()
        waiting = [one.complete for one in tomograms if one.state == "waiting" and one.complete]
        self._age.set(max((now - when.timestamp() for when in waiting), default=0.0))
        self._look.set(now)


class DeviceMemory:
    """Collects the memory of the GPUs that this process may use, at each scrape."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield what all processes use of each, and what there is."""
        labels = ("device",)
        used = GaugeMetricFamily("tomoseg_device_memory_used_bytes", "In use.", labels=labels)
        size = GaugeMetricFamily("tomoseg_device_memory_size_bytes", "There is.", labels=labels)
        for device, (taken, total) in memory_bytes().items():
            used.add_metric((device,), taken)
            size.add_metric((device,), total)
        yield used
        yield size


@cache
def shown_metrics() -> tuple[Gauge, Gauge]:
    """Let this process count what happens in it, from the first call on; return those of disks."""
    REGISTRY.register(DeviceMemory())
    listen(WorkMetrics(REGISTRY))
    listen(WatchMetrics(REGISTRY))
    return (
        Gauge("tomoseg_disk_free_bytes", "Free where files are written.", ("place",)),
        Gauge("tomoseg_disk_size_bytes", "The size of that disk.", ("place",)),
    )


def show_disk(place: str, folder: str | os.PathLike[str]) -> None:
    """Show the disk under a folder as ``scratch`` or ``output``; NaN while there is no folder."""

    def usage(kind: str) -> Callable[[], float]:
        def read() -> float:
            try:
                return float(getattr(shutil.disk_usage(folder), kind))
            except OSError:
                return math.nan

        return read

    free, size = shown_metrics()
    free.labels(place).set_function(usage("free"))
    size.labels(place).set_function(usage("total"))


def serve_metrics() -> str | None:
    """Show the metrics of this process over HTTP if TOMOSEG_METRICS_ADDRESS says where.

    Returns
    -------
    The URL; None if nothing is shown.

    Raises
    ------
    RequestError
        If the address is not HOST:PORT, or cannot be had.
    """
    address = os.environ.get(ADDRESS, "")
    if not address:
        return None
    host, separator, port = address.rpartition(":")
    if not (separator and host and port.isdecimal() and int(port) < 2**16):
        raise RequestError(f"{ADDRESS} is {address!r}, not HOST:PORT, such as 127.0.0.1:9108")
    shown_metrics()
    try:
        server, _ = start_http_server(int(port), host.strip("[]"))
    except OSError as error:
        raise RequestError(
            f"metrics cannot be shown at {address}: {error}",
            remedy=f"Choose another port in {ADDRESS}.",
        ) from error
    return f"http://{host}:{server.server_port}/metrics"
