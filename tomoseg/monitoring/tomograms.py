"""Counts of the tomograms that are watched, as Prometheus reads them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from tomoseg.capacity import ENDED, Times

STAGE_SECONDS = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200)
RESULT_SECONDS = (60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800, 86400)

REMEMBERED = timedelta(days=7)


class TomogramMetrics:
    """How tomograms stand, and how many came and went since this process started.

    Nothing is shown before the first look.

    Parameters
    ----------
    registry
        What the process shows.
    began
        What came or went before is not counted; None for now.
    """

    def __init__(self, registry: CollectorRegistry, began: datetime | None = None) -> None:
        self._registry = registry
        self._began = began or datetime.now(UTC)
        self._known: set[tuple[str, str, datetime]] = set()
        self._shown: _Shown | None = None

    def looked(
        self, tomograms: Sequence[Times], when: float, incomplete: Sequence[datetime] = ()
    ) -> None:
        """Show how all tomograms stood at a time (seconds since 1970), and count what is new.

        ``incomplete`` has the last changes of files that are not whole and grow no more.
        """
        if self._shown is None:
            self._shown = _Shown(self._registry)
        known = set()
        since = max(self._began, datetime.fromtimestamp(when, UTC) - REMEMBERED)
        for one in tomograms:
            for event, moment in (("arrived", one.complete), ("ended", one.finished)):
                if moment is not None and moment >= since:
                    known.add((one.name, event, moment))
                    if (one.name, event, moment) not in self._known:
                        self._shown.count(one, event)
        # A session that could not be looked at is not forgotten.
        self._known = known | {each for each in self._known if each[2] >= since}
        self._shown.show(tomograms, when, incomplete)


class _Shown:
    """The metrics themselves."""

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
        self._stuck = Gauge(
            "tomoseg_incomplete_age_seconds",
            "Seconds since the file that is incomplete for longest has last grown.",
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

    def show(self, tomograms: Sequence[Times], when: float, incomplete: Sequence[datetime]) -> None:
        """Show how all tomograms stood; what waits grows older between looks."""
        for state in ("waiting", "running", *ENDED):
            self._now.labels(state).set(sum(one.state == state for one in tomograms))
        waiting = [one.complete for one in tomograms if one.state == "waiting" and one.complete]
        for gauge, since in ((self._age, waiting), (self._stuck, incomplete)):
            gauge.set_function(_age(min(since, default=None)))
        self._look.set(when)


def _age(since: datetime | None) -> Callable[[], float]:
    return lambda: 0.0 if since is None else time.time() - since.timestamp()
