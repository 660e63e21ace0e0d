"""Where each tomogram of a watched session stands, since when and why: one answer for all who ask.

A tomogram stands where what looks saw, what runs did and the clock put it::

    settling → incomplete → ready → running → done
                              ↑        ↓
                           resting ← (failed) → set aside

What is not there any more before it is done is ``gone``, and comes back where it stood. What would
be begun stands as its session does: ``paused`` if a person lets that wait, ``refused`` if its
recipe is wrong, ``resting`` if its last run was stopped by a cluster, disk or store that failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from tomoseg.service.arrivals.facts import (
    DONE,
    REFUSED,
    RUNNING,
    SPARED,
    Seen,
    SessionWork,
    Sights,
    TomogramWork,
    iso,
)

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
    REFUSED = "refused"


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
    until
        When what rests may be tried again, ISO 8601.
    """

    standing: Standing
    since: str
    say: str = ""
    remedy: str = ""
    attempts: int = 0
    until: str = ""


def find_stands(
    sights: Sights, work: SessionWork, now: datetime, *, is_at_work: bool = False
) -> dict[str, Stand]:
    """Tell where every tomogram of a session stands, by name.

    Parameters
    ----------
    is_at_work
        Whether somebody holds the output now.
    """
    held = _held(sights, work, now)
    return {
        name: _stand(sights, seen, work.tomograms.get(name), now, held, is_at_work=is_at_work)
        for name, seen in sights.tomograms.items()
    }


def _held(sights: Sights, work: SessionWork, now: datetime) -> Stand | None:
    """Return where stands what would be begun in a session, if it is not to be begun now."""
    for kind, standing in (("paused", Standing.PAUSED), ("recipe", Standing.REFUSED)):
        for each in sights.hindrances:
            if each.kind == kind:
                return Stand(standing, each.since, each.say, each.remedy)
    trouble = work.trouble
    if trouble is None or not trouble.counts(sights):
        return None
    since = trouble.since or trouble.at
    if trouble.is_refusal:
        return Stand(Standing.REFUSED, since, trouble.error, trouble.remedy)
    until = after(trouble.at, sights.pauses_seconds, trouble.number)
    held = Stand(Standing.RESTING, since, trouble.error, trouble.remedy, until=iso(until))
    return held if now < until else None


def _stand(
    sights: Sights,
    seen: Seen,
    worked: TomogramWork | None,
    now: datetime,
    held: Stand | None,
    *,
    is_at_work: bool,
) -> Stand:
    # While the recipe is wrong, what was done with the one before stays so.
    is_wrong = any(each.kind == "recipe" for each in sights.hindrances)
    if worked is not None and not worked.counts(seen, worked.recipe if is_wrong else sights.recipe):
        worked = None
    attempts = worked.attempts if worked else 0
    pauses = sights.pauses_seconds
    standing = standing_of(seen, worked, now, pauses_seconds=pauses, is_at_work=is_at_work)
    if standing in (Standing.SETTLING, Standing.INCOMPLETE):
        return Stand(standing, seen.changed, seen.waits)
    if standing == Standing.GONE:
        return Stand(standing, seen.gone, f"{seen.url} is not there", "Put it back.", attempts)
    until = rests_until(worked, pauses) if worked else ""
    if standing == Standing.READY:
        if held is not None:
            return replace(held, attempts=attempts)
        rested = until if worked is None or until <= iso(now) else worked.ended
        since = max(seen.complete, seen.again, sights.again, sights.free_since, rested)
        return Stand(standing, since, attempts=attempts)
    assert worked is not None
    say = DIED if worked.state == RUNNING and standing != Standing.RUNNING else worked.error
    until = until if standing == Standing.RESTING else ""
    return Stand(standing, worked.ended, say, worked.remedy, attempts, until)


def standing_of(
    seen: Seen,
    worked: TomogramWork | None,
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
    is_over = iso(now) >= rests_until(worked, pauses_seconds)
    return Standing.READY if is_over else Standing.RESTING


def rests_until(worked: TomogramWork, pauses_seconds: Sequence[float]) -> str:
    """Return when a tomogram that failed may be tried again, ISO 8601.

    Whose file was not there goes on as soon as that is seen again; and where nobody noted that a
    run died, all the service did: that is no reason to wait.
    """
    number = worked.spared if worked.state == SPARED else worked.attempts
    is_waiting = number > 0 and worked.state != RUNNING
    return iso(after(worked.ended, pauses_seconds, number)) if is_waiting else worked.ended


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
