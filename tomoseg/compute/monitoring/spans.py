"""Dask's spans left out: a scheduler keeps them, and a note of every task, for as long as it runs.

https://github.com/dask/distributed/issues/7977
"""

from __future__ import annotations

from typing import Any

from dask.utils import key_split
from distributed.spans import SpansSchedulerExtension

KEYS_KEPT = 1000


class NoSpans(SpansSchedulerExtension):  # type: ignore[misc]
    """Takes what is told of tasks, and keeps nothing; the dashboard shows all work as one."""

    _seen = 0

    def observe_tasks(self, *_: Any, **__: Any) -> dict[Any, dict[Any, Any]]:
        """Put no task into a span, and forget the last keys: up to 100,000 would be kept."""
        self._seen += 1
        if self._seen % KEYS_KEPT == 0:
            key_split.cache_clear()
        return {}

    def heartbeat(self, *_: Any) -> None:
        """Take a worker's times, which are in the scheduler's sums too."""


def forget_spans(scheduler: Any) -> None:
    """Let a scheduler that has no task yet keep no spans."""
    scheduler.extensions["spans"] = NoSpans(scheduler)
