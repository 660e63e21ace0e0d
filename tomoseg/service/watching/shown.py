"""What metrics show of a look, and whether the work stands still."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from tomoseg.compute.monitoring.metrics import show_disk, show_look
from tomoseg.compute.monitoring.tomograms import LookSeen, SessionSeen, SessionState
from tomoseg.service.arrivals import Looks, Standstill
from tomoseg.service.arrivals.times import incomplete_since
from tomoseg.service.watching.looks import SessionLook
from tomoseg.service.watching.settings import Watch
from tomoseg.service.watching.tables import standstill_of, times

SESSIONS: dict[str, SessionState] = {
    "unreadable": "unreadable",
    "gone": "gone",
    "elsewhere": "elsewhere",
    "recipe": "refused",
    "stopped": "stopped",
    "paused": "paused",
}
"""Kind of a hindrance → how a session is counted; the first that there is."""


def shown(one: SessionLook) -> SessionSeen:
    """Return what metrics show of a session; if the look failed, as it was known before."""
    kinds = {each.kind for each in one.account.hindrances}
    found = (state for kind, state in SESSIONS.items() if kind in kinds)
    state: SessionState = "unreadable" if one.problem else next(found, "seen")
    return SessionSeen(one.session.name, state, times(one), incomplete_since(one.account))


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
        if one.session.results.is_local:
            show_disk(one.session.results.path)
    return still
