"""What a look found, as text for people and as times for what counts them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from tomoseg.compute.monitoring.capacity import Times
from tomoseg.core.lookalikes import told_left_out
from tomoseg.service.arrivals import Hindrance, Looks, Standing, Standstill, looks_of, standstill
from tomoseg.service.arrivals.times import account_times
from tomoseg.service.arrivals.words import (
    OF_SESSION,
    QUIET,
    line_of,
    sentence,
    tell_hindrance,
    tell_stand,
)
from tomoseg.service.watching.looks import SessionLook, counts

ALWAYS = (Standing.READY, Standing.RUNNING, Standing.DONE)
"""Columns that are there though nothing stands so."""
GONE_NAMED = 3
"""Tomograms of one session that are told by name to be gone."""


def table(
    looks: Sequence[SessionLook],
    warnings: Sequence[Hindrance] = (),
    *,
    still: Standstill | None = None,
    now: datetime | None = None,
) -> str:
    """Return a line a session with how many tomograms stand where, and why some do not go on.

    Parameters
    ----------
    warnings
        What is wrong with the watch as a whole.
    still
        If the work of all stands still.
    now
        When the looks were.
    """
    now = now or datetime.now(UTC)
    found = [counts(one) for one in looks]
    columns = [
        str(each) for each in Standing if each in ALWAYS or any(row[str(each)] for row in found)
    ]
    rows = [("session", *columns)]
    rows += [
        (one.session.name, *(str(row[each] or "-") for each in columns))
        for one, row in zip(looks, found, strict=True)
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(text.ljust(w) for text, w in zip(row, widths, strict=True)) for row in rows]
    lines += [f"STANDSTILL: {sentence(still.say, still.remedy)}"] if still else []
    lines += [f"the watch: {tell_hindrance(each, now)}" for each in warnings]
    lines += [why for one in looks for why in _why(one, now)]
    return "\n".join(line.rstrip() for line in lines)


def _why(one: SessionLook, now: datetime) -> list[str]:
    """Return what a person should know of a session: what hinders it, is missing, or failed."""
    name, hindrances = one.session.name, one.account.hindrances
    lines = [f"{name}: {tell_hindrance(each, now, one.session.results)}" for each in hindrances]
    if one.problem and not any(each.kind == "unreadable" for each in hindrances):
        lines.append(f"{name}: {one.problem}")
    if left_out := told_left_out(one.sights.left_out, is_watched=True):
        lines.append(f"{name}: {left_out}")
    reasons = {each.say for each in hindrances}
    is_gone = any(each.kind == "gone" for each in hindrances)
    gone = [] if is_gone else one.named(Standing.GONE)
    wanted = [each for each in Standing if each not in (*QUIET, *OF_SESSION, Standing.GONE)]
    failed = {each: one.stands[each] for each in (*one.named(*wanted), *gone[:GONE_NAMED])}
    lines += [
        line_of(f"{name}/{each}", stand.standing, tell_stand(stand, now))
        for each, stand in failed.items()
        if stand.say not in reasons
    ]
    lines += [f"{name}: {len(gone) - GONE_NAMED} more are gone"] if len(gone) > GONE_NAMED else []
    return lines


def standstill_of(
    looks: Sequence[SessionLook], now: datetime, every: Looks | None = None
) -> Standstill | None:
    """Tell whether the work of a watch stands still, as these looks found it.

    Parameters
    ----------
    every
        How often the watch looks, and when it last did; None asks its file.
    """
    if every is None:
        every = looks_of(next((one.sights.watch for one in looks if one.sights.watch), ""))
    return standstill({one.session.name: one.account for one in looks}, now, every)


def times(one: SessionLook) -> list[Times]:
    """Return when what happened to the tomograms of a session that are complete."""
    return account_times(one.account, one.session.name)
