"""Counts of what happens, as Prometheus reads them; no name of a tomogram or block among them.

Blocks are counted where they run: in Dask workers, whose own ``/metrics`` shows them, or in the
process itself; tomograms and their stages where the sessions are watched.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
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

from tomoseg.compute.devices import memory_bytes
from tomoseg.compute.monitoring.disks import Disks
from tomoseg.compute.monitoring.tomograms import LookSeen, TomogramMetrics
from tomoseg.core.errors import RequestError
from tomoseg.core.events import Listener, Span, listen
from tomoseg.core.version import code_version

ADDRESS = "TOMOSEG_METRICS_ADDRESS"
BLOCK_SECONDS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)
OUTCOMES = ("done", "failed")


class WorkMetrics(Listener):
    """Blocks that are worked on in this process.

    Parameters
    ----------
    registry
        What the process shows.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        by_stage: dict[str, Any] = {"labelnames": ("stage",), "registry": registry}
        by_outcome: dict[str, Any] = {"labelnames": ("stage", "outcome"), "registry": registry}
        said = Info("tomoseg", "The version of tomoseg.", registry=registry)
        said.info({"version": code_version()})
        self._blocks = Counter("tomoseg_blocks", "Blocks that ended.", **by_outcome)
        self._in_work = Gauge("tomoseg_blocks_in_work", "Blocks being computed.", **by_stage)
        self._voxels = Counter("tomoseg_voxels", "Voxels of blocks done.", **by_stage)
        self._block_seconds = Histogram(
            "tomoseg_block_seconds", "Seconds a block done.", buckets=BLOCK_SECONDS, **by_stage
        )

    def began(self, span: Span) -> None:
        """Count what is in work; what may fail is shown from now on, as 0."""
        if span.kind != "block":
            return
        stage = span.scope.stage
        for outcome in OUTCOMES:
            self._blocks.labels(stage, outcome)
        self._in_work.labels(stage).inc()

    def ended(self, span: Span, seconds: float, *, is_done: bool) -> None:
        """Count what ended, and how long it took if it is done."""
        if span.kind != "block":
            return
        stage, outcome = span.scope.stage, "done" if is_done else "failed"
        self._in_work.labels(stage).dec()
        self._blocks.labels(stage, outcome).inc()
        if is_done:
            self._voxels.labels(stage).inc(span.voxels)
            self._block_seconds.labels(stage).observe(seconds)


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
def shown_metrics() -> Disks:
    """Let this process count what happens in it, from the first call on; return its disks."""
    disks = Disks()
    REGISTRY.register(DeviceMemory())
    REGISTRY.register(disks)
    listen(WorkMetrics(REGISTRY))
    return disks


def show_disk(folder: str | os.PathLike[str]) -> None:
    """Show the file system of a folder, as it is whenever somebody asks."""
    shown_metrics().add(folder)


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
    _watched()
    try:
        server, _ = start_http_server(int(port), host.strip("[]"))
    except OSError as error:
        raise RequestError(
            f"metrics cannot be shown at {address}: {error}",
            remedy=f"Choose another port in {ADDRESS}.",
        ) from error
    return f"http://{host}:{server.server_port}/metrics"


def show_look(look: LookSeen) -> None:
    """Show how all sessions and tomograms stand that are watched, as the look that ends now did."""
    _watched().looked(look, time.time())


@cache
def _watched() -> TomogramMetrics:
    """Count what comes and goes from the first call on."""
    return TomogramMetrics(REGISTRY)
