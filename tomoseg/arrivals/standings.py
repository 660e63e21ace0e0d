"""Where each tomogram of a watched session stands, since when and why: one answer for all who ask.

A tomogram stands where what looks saw, what runs did and the clock put it::

    settling → incomplete → ready → running → done
                              ↑        ↓
                           resting ← (failed) → set aside

What is not there any more before it is done is ``gone``, and comes back where it stood. In a
session that a person lets wait, what would be begun is ``paused``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from tomoseg.arrivals.facts import DONE, REFUSED, RUNNING, SPARED, Seen, Sights, Worked, Works

DIED = "its run ended without a word"


class Standing(StrEnum):
    """Where a tomogram stands."""

    SETTLING = "settling"
    INCOMPLETE = "incomplete"
    GONE = "gone"
    READY = "ready"
    PAUSED = "paused"
    RUNNING = "running"
    RESTING = "resting"
    DONE = "done"
    SET_ASIDE = "set aside"


@dataclass(frozen=True)
class Stand:
    """Where a tomogram stands.

    Parameters
    ----------
    since
        When it came to stand there, ISO 8601.
    say, remedy
        Why, and what mends it, for people; empty where nothing is wrong.
    attempts
        How often it was begun with this content and recipe.
    """

    standing: Standing
    since: str
    say: str = ""
    remedy: str = ""
    attempts: int = 0


def stands(
    sights: Sights, works: Works, now: datetime, *, is_at_work: bool = False
) -> dict[str, Stand]:
    """Tell where every tomogram of a session stands, by name.

    Parameters
    ----------
    is_at_work
        Whether somebody holds the output now.
    """
    return {
        name: _stand(sights, seen, works.tomograms.get(name), now, is_at_work=is_at_work)
        for name, seen in sights.tomograms.items()
    }


def _stand(
    sights: Sights, seen: Seen, worked: Worked | None, now: datetime, *, is_at_work: bool
) -> Stand:
    if worked is not None and not worked.counts(seen, sights.recipe):
        worked = None
    attempts = worked.attempts if worked else 0
    standing = standing_of(
        seen, worked, now, pauses_seconds=sights.pauses_seconds, is_at_work=is_at_work
    )
    if standing in (Standing.SETTLING, Standing.INCOMPLETE):
        return Stand(standing, seen.changed, seen.waits)
    if standing == Standing.GONE:
        return Stand(standing, seen.gone, f"{seen.url} is not there", "Put it back.", attempts)
    if standing == Standing.READY:
        paused = next((each for each in sights.hindrances if each.kind == "paused"), None)
        if paused is not None:
            return Stand(Standing.PAUSED, paused.since, paused.say, paused.remedy, attempts)
        return Stand(standing, seen.complete, attempts=attempts)
    assert worked is not None
    say = DIED if worked.state == RUNNING and standing != Standing.RUNNING else worked.error
    since = worked.finished or worked.started
    return Stand(standing, since, say, worked.remedy, attempts)


def standing_of(
    seen: Seen,
    worked: Worked | None,
    now: datetime,
    *,
    pauses_seconds: Sequence[float],
    is_at_work: bool = False,
) -> Standing:
    """Tell where a tomogram stands in a session that nothing hinders.

    Parameters
    ----------
    seen, worked
        What looks and runs know of this content under the recipe that is wanted.
    pauses_seconds
        After each failure but the last.
    is_at_work
        Whether somebody holds the output now.
    """
    if worked is not None:
        if worked.state == DONE:
            return Standing.DONE
        if worked.state == RUNNING and is_at_work:
            return Standing.RUNNING
        if worked.state == REFUSED or worked.attempts > len(pauses_seconds):
            return Standing.SET_ASIDE
    if seen.gone:
        return Standing.GONE
    if worked is None:
        return _arriving(seen)
    number = worked.spared if worked.state == SPARED else worked.attempts
    # Whose file was not there goes on as soon as that is seen again; and where nobody noted that a
    # run died, all the service did: that is no reason to wait.
    is_over = (
        number == 0
        or worked.state == RUNNING
        or now >= after(worked.finished, pauses_seconds, number)
    )
    return Standing.READY if is_over else Standing.RESTING


def _arriving(seen: Seen) -> Standing:
    if seen.complete:
        return Standing.READY
    return Standing.INCOMPLETE if seen.waits else Standing.SETTLING


def after(since: str, pauses_seconds: Sequence[float], number: int) -> datetime:
    """Return when to try again after so many failures; the last pause repeats.

    >>> [after("2026-01-01T00:00:00+00:00", (60, 600), n).minute for n in (1, 2, 3)]
    [1, 10, 10]
    """
    pause = pauses_seconds[min(number, len(pauses_seconds)) - 1] if pauses_seconds else 0.0
    return datetime.fromisoformat(since) + timedelta(seconds=pause)
