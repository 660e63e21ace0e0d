"""Where Prometheus finds the workers: it asks the scheduler, and they may come and go.

The scheduler's HTTP server answers ``/tomoseg/targets`` in the form of Prometheus's ``http_sd``.
"""

from __future__ import annotations

import json
from typing import Any

from tornado.web import RequestHandler

PLACE = "/tomoseg/targets"


def add_targets(scheduler: Any) -> None:
    """Let a scheduler's HTTP server say where its workers' metrics are."""
    route = (PLACE, TargetsHandler, {"scheduler": scheduler})
    scheduler.http_application.add_handlers(r".*$", [route])


def targets(workers: list[tuple[str, int]]) -> list[dict[str, Any]]:
    """Return what Prometheus reads of workers at these hosts and ports.

    >>> targets([("10.0.0.2", 8790), ("10.0.0.1", 8790), ("::1", 4)])
    [{'targets': ['10.0.0.1:8790', '10.0.0.2:8790', '[::1]:4'], 'labels': {}}]
    """
    places = (f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in workers)
    return [{"targets": sorted(places), "labels": {}}]


class TargetsHandler(RequestHandler):
    """Answers with the workers of a scheduler."""

    def initialize(self, scheduler: Any) -> None:
        """Remember whose workers they are."""
        self._scheduler = scheduler

    def get(self) -> None:
        """Answer with a list, as JSON."""
        workers = [
            (worker.host, int(worker.services["dashboard"]))
            for worker in self._scheduler.workers.values()
            if "dashboard" in worker.services
        ]
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(targets(workers)))
