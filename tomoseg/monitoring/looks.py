"""From each look at the sessions to the process that shows metrics: one small local file.

A look runs in a process of its own, which ends; the one that serves the watch lives on and is
asked by Prometheus. It names a file in the environment that its children inherit::

    serve_metrics()  ── TOMOSEG_LOOK_FILE ──▶  look: tell_look()  ──▶  file  ──▶  /metrics
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric

from tomoseg.capacity import Times, times_of
from tomoseg.monitoring.tomograms import TomogramMetrics

LOOK_FILE = "TOMOSEG_LOOK_FILE"


def tell_look(tomograms: Sequence[Times]) -> None:
    """Tell how all tomograms stand that are watched; nothing is done where nobody shows it."""
    path = os.environ.get(LOOK_FILE)
    if not path:
        return
    part = Path(f"{path}.{os.getpid()}")
    part.write_text(json.dumps([asdict(one) for one in tomograms], default=datetime.isoformat))
    part.replace(path)


class Looks:
    """Collects the metrics of tomograms at each scrape, from the file of the last look.

    Parameters
    ----------
    path
        That file; there is none before the first look.
    began
        As in :class:`TomogramMetrics`.
    """

    def __init__(self, path: Path, began: datetime | None = None) -> None:
        self._path = path
        self._registry = CollectorRegistry()
        self._metrics = TomogramMetrics(self._registry, began)
        self._seen = 0

    def describe(self) -> list[Metric]:
        """Return nothing: what will be shown is not known before the first look."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Read the last look if it is new, and yield what is known since."""
        written = self._path.stat().st_mtime_ns if self._path.exists() else 0
        if written != self._seen:
            self._seen = written
            self._metrics.looked(times_of(json.loads(self._path.read_text())), written / 1e9)
        yield from self._registry.collect()
