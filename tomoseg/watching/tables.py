"""What a look found, as text for people and as times for what counts them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime

from tomoseg.arrivals import Hindrance, Standing
from tomoseg.capacity import State, Times, times_of
from tomoseg.watching.looks import SessionLook, counts

COLUMNS = tuple(str(each) for each in Standing)
STATES: dict[Standing, State] = {
    Standing.GONE: "waiting",
    Standing.READY: "waiting",
    Standing.PAUSED: "waiting",
    Standing.RESTING: "waiting",
    Standing.RUNNING: "running",
    Standing.DONE: "done",
    Standing.SET_ASIDE: "set aside",
}
"""What is not complete has not arrived yet; what is gone has, and is waited for."""


GONE_NAMED = 3
"""Tomograms of one session that are told by name to be gone."""


def table(looks: Sequence[SessionLook], warnings: Sequence[Hindrance] = ()) -> str:
    """Return a line a session with how many tomograms stand where, and why some wait.

    Parameters
    ----------
    warnings
        What is wrong with the watch as a whole.
    """
    rows = [("session", *COLUMNS)]
    rows += [(one.place.name, *(str(n or "-") for n in counts(one).values())) for one in looks]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(text.ljust(w) for text, w in zip(row, widths, strict=True)) for row in rows]
    lines += [f"the watch: {_told(each)}" for each in warnings]
    lines += [why for one in looks for why in _why(one)]
    return "\n".join(line.rstrip() for line in lines)


def _why(one: SessionLook) -> list[str]:
    """Return what a person should know of a session: what is wrong, missing, or set aside."""
    name = one.place.name
    hindrances = [each for each in one.hindrances if each.kind != "unreadable" or not one.problem]
    said = [f"{name}: {one.problem}"] if one.problem else []
    said += [f"{name}: {_told(each)}" for each in hindrances]
    is_wrong = any(each.kind == "recipe" for each in hindrances)
    if one.trouble is not None and not is_wrong:
        said.append(f"{name}: {one.trouble.said(one.place.results)}")
    stands = one.stands
    gone = one.named(Standing.GONE) if not one.is_held else []
    said += [
        f"{name}/{each}: gone since {stands[each].since[:19]}: {stands[each].say}"
        for each in gone[:GONE_NAMED]
    ]
    if len(gone) > GONE_NAMED:
        said.append(f"{name}: {len(gone) - GONE_NAMED} more are gone")
    said += [
        f"{name}/{each}: tried again later, after {stands[each].attempts} attempts: "
        f"{stands[each].say}"
        for each in one.named(Standing.RESTING)
    ]
    said += [f"{name}/{each}: {stands[each].say}" for each in one.named(Standing.INCOMPLETE)]
    for aside in one.named(Standing.SET_ASIDE):
        stand = stands[aside]
        error = f"{stand.say}. {stand.remedy}".rstrip()
        said.append(f"{name}/{aside}: set aside after {stand.attempts} attempts: {error}")
    return said


def _told(hindrance: Hindrance) -> str:
    """Return what hinders, since when (UTC), and the remedy."""
    remedy = f". {hindrance.remedy}" if hindrance.remedy else ""
    return f"{hindrance.say} (since {hindrance.since[:19]}){remedy}"


def incomplete_since(one: SessionLook) -> list[datetime]:
    """Return when each of the files last grew that are not whole and grow no more."""
    seen = one.sights.tomograms
    return [datetime.fromisoformat(seen[name].changed) for name in one.named(Standing.INCOMPLETE)]


def times(one: SessionLook) -> list[Times]:
    """Return when what happened to the tomograms of a session that are complete."""
    rows = []
    for name, standing in one.standings.items():
        if standing in STATES and one.sights.tomograms[name].complete:
            begun = standing in (Standing.RUNNING, Standing.DONE, Standing.SET_ASIDE)
            worked = asdict(one.works.tomograms[name]) if begun else {}
            seen = one.sights.tomograms[name]
            complete = max(seen.complete, seen.again)
            rows.append({**worked, "name": name, "state": STATES[standing], "complete": complete})
    return times_of(rows, one.place.name)
