"""What a look found, as text for people and as times for what counts them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime

from tomoseg.arrivals import DIED, RUNNING, Standing
from tomoseg.capacity import State, Times, times_of
from tomoseg.lookalikes import told_left_out
from tomoseg.watching.looks import SessionLook, counts

COLUMNS = tuple(str(each) for each in Standing)
STATES: dict[Standing, State] = {
    Standing.READY: "waiting",
    Standing.PAUSED: "waiting",
    Standing.RUNNING: "running",
    Standing.DONE: "done",
    Standing.SET_ASIDE: "set aside",
}
"""What is not complete has not arrived yet."""


def table(looks: Sequence[SessionLook]) -> str:
    """Return a line a session with how many tomograms stand where, and why some wait."""
    rows = [("session", *COLUMNS)]
    rows += [(one.place.name, *(str(n or "-") for n in counts(one).values())) for one in looks]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(text.ljust(w) for text, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(
        line.rstrip() for line in [*lines, *(why for one in looks for why in _why(one))]
    )


def _why(one: SessionLook) -> list[str]:
    """Return what a person should know of a session: what is wrong, missing, or set aside."""
    name = one.place.name
    said = [f"{name}: {one.problem}"] if one.problem else []
    if one.recipe is not None and one.recipe.error is not None:
        said.append(f"{name}: {one.recipe.error}")
    elif one.works.trouble is not None:
        trouble = one.works.trouble
        said.append(f"{name}: {trouble.error}. {trouble.remedy}".rstrip())
    seen = one.sights.tomograms
    said += [f"{name}/{each}: {seen[each].waits}" for each in one.named(Standing.INCOMPLETE)]
    if left_out := told_left_out(one.sights.left_out, is_watched=True):
        said.append(f"{name}: {left_out}")
    for aside in one.named(Standing.SET_ASIDE):
        worked = one.works.tomograms[aside]
        error = DIED if worked.state == RUNNING else f"{worked.error}. {worked.remedy}".rstrip()
        said.append(f"{name}/{aside}: set aside after {worked.attempts} attempts: {error}")
    return said


def incomplete_since(one: SessionLook) -> list[datetime]:
    """Return when each of the files last grew that are not whole and grow no more."""
    seen = one.sights.tomograms
    return [datetime.fromisoformat(seen[name].changed) for name in one.named(Standing.INCOMPLETE)]


def times(one: SessionLook) -> list[Times]:
    """Return when what happened to the tomograms of a session that are complete."""
    rows = []
    for name, standing in one.standings.items():
        if standing in STATES:
            begun = standing not in (Standing.READY, Standing.PAUSED)
            worked = asdict(one.works.tomograms[name]) if begun else {}
            complete = one.sights.tomograms[name].complete
            rows.append({**worked, "name": name, "state": STATES[standing], "complete": complete})
    return times_of(rows, one.place.name)
