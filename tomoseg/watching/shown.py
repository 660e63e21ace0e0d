"""What metrics show of a look, and whether the work stands still."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from tomoseg.arrivals import Looks, Standstill
from tomoseg.monitoring.metrics import show_disk, show_look
from tomoseg.monitoring.tomograms import LookSeen
from tomoseg.watching.looks import SessionLook, standstill_of
from tomoseg.watching.settings import Watch
from tomoseg.watching.tables import shown


def show(
    looks: Sequence[SessionLook], watch: Watch, now: datetime, *, missing_places: int = 0
) -> Standstill | None:
    """Let metrics show what a look found; return whether the work stands still.

    Parameters
    ----------
    missing_places
        Patterns of the watch that match nothing, and folders that are not there.
    """
    every = None if watch.cron else watch.seconds_between_looks
    still = standstill_of(looks, now, Looks(every) if every else None)
    show_look(
        LookSeen(
            tuple(shown(one) for one in looks),
            missing_places,
            None if still is None else datetime.fromisoformat(still.since),
            every,
        )
    )
    for one in looks:
        if one.place.results.is_local:
            show_disk(one.place.results.path)
    return still
