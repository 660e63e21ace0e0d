"""What a look found, as text for people and as what metrics count."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from tomoseg.arrivals import Standing, Standstill
from tomoseg.arrivals.times import account_times, incomplete_since
from tomoseg.arrivals.words import OF_SESSION, QUIET, said, sentence, told
from tomoseg.capacity import Times
from tomoseg.monitoring.tomograms import SessionSeen, SessionState
from tomoseg.watching.looks import SessionLook, counts

ALWAYS = (Standing.READY, Standing.RUNNING, Standing.DONE)
"""Columns that are there though nothing stands so."""
SESSIONS: dict[str, SessionState] = {
    "unreadable": "unreadable",
    "gone": "gone",
    "recipe": "refused",
    "stopped": "stopped",
    "paused": "paused",
}
"""Kind of a hindrance → how a session is counted; the first that there is."""


def table(
    looks: Sequence[SessionLook], now: datetime | None = None, still: Standstill | None = None
) -> str:
    """Return a line a session with how many tomograms stand where, and why some do not go on.

    Parameters
    ----------
    still
        If the work of all stands still.
    """
    now = now or datetime.now(UTC)
    found = [counts(one) for one in looks]
    columns = [
        str(each) for each in Standing if each in ALWAYS or any(row[str(each)] for row in found)
    ]
    rows = [("session", *columns)]
    rows += [
        (one.place.name, *(str(row[each] or "-") for each in columns))
        for one, row in zip(looks, found, strict=True)
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(text.ljust(w) for text, w in zip(row, widths, strict=True)) for row in rows]
    lines += [f"STANDSTILL: {sentence(still.say, still.remedy)}"] if still else []
    lines += [why for one in looks for why in _why(one, now)]
    return "\n".join(line.rstrip() for line in lines)


def _why(one: SessionLook, now: datetime) -> list[str]:
    """Return what a person should know of a session: what hinders it, is missing, or failed."""
    name, hindrances = one.place.name, one.account.hindrances
    lines = [f"{name}: {told(each, now, one.place.results)}" for each in hindrances]
    if one.problem and not any(each.kind == "unreadable" for each in hindrances):
        lines.append(f"{name}: {one.problem}")
    wanted = [each for each in Standing if each not in (*QUIET, *OF_SESSION)]
    for each in one.named(*wanted):
        stand = one.stands[each]
        if not any(stand.say == hindrance.say for hindrance in hindrances):
            lines.append(f"{name}/{each}: {said(stand, now)}")
    return lines


def shown(one: SessionLook) -> SessionSeen:
    """Return what metrics show of a session; if the look failed, as it was known before."""
    kinds = {each.kind for each in one.account.hindrances}
    found = (state for kind, state in SESSIONS.items() if kind in kinds)
    state: SessionState = "unreadable" if one.problem else next(found, "seen")
    return SessionSeen(one.place.name, state, times(one), incomplete_since(one.account))


def times(one: SessionLook) -> list[Times]:
    """Return when what happened to the tomograms of a session that are complete."""
    return account_times(one.account, one.place.name)
