"""What arrives in a session and what becomes of it: a watch's state, beside the results.

Two small files in an output, each with one writer at a time::

    .tomoseg/arrivals/seen.json     by a look, which holds a claim on that folder
    .tomoseg/arrivals/worked.json   by the run that holds the output

A tomogram stands where these two and the clock put it::

    settling → incomplete → ready → running → done
                              ↑        ↓
                           paused ← (failed) → set aside

Content counts, not names: a file of another size or version is a new arrival, and so is every
file under another recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Self

from tomoseg.errors import StoreError, TomosegError
from tomoseg.sources import Found
from tomoseg.stores import Folder

PLACE = ".tomoseg/arrivals"
SEEN, WORKED = "seen.json", "worked.json"
RUNNING, DONE, FAILED, REFUSED = "running", "done", "failed", "refused"
DIED = "its run ended without a word"


class Standing(StrEnum):
    """Where a tomogram stands."""

    SETTLING = "settling"
    INCOMPLETE = "incomplete"
    READY = "ready"
    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    SET_ASIDE = "set aside"


@dataclass(frozen=True)
class Seen:
    """A tomogram as looks saw it; times are ISO 8601, UTC.

    Parameters
    ----------
    url, size, version
        Where it is and what tells its content from another (:func:`tomoseg.stores.fingerprint`).
    first_seen
        When a file of that name was first seen.
    changed
        When this content was.
    complete
        When it counted as complete; empty until then.
    waits
        Why it does not, though it changes no more.
    again
        When a person asked to have it tried again.
    """

    url: str
    size: int
    version: str
    first_seen: str
    changed: str
    complete: str = ""
    waits: str = ""
    again: str = ""


@dataclass(frozen=True)
class Worked:
    """What became of a tomogram; times are ISO 8601, UTC.

    Parameters
    ----------
    size, version, recipe
        The content, and the digest of the recipe.
    state
        ``running``, ``done``, ``failed`` (it may be tried again) or ``refused``.
    attempts
        How often it was begun with that content and recipe.
    first_seen, complete
        As in :class:`Seen`.
    started, finished
        Of the last attempt.
    error, remedy
        Of a failure.
    seconds
        Stage → seconds, of what was worked out.
    """

    size: int
    version: str
    recipe: str
    state: str
    attempts: int
    first_seen: str
    complete: str
    started: str
    finished: str = ""
    error: str = ""
    remedy: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)

    def counts(self, seen: Seen, recipe: str) -> bool:
        """Tell whether it was of this content and recipe, and nobody asked for it since."""
        same = (self.size, self.version, self.recipe) == (seen.size, seen.version, recipe)
        return same and seen.again <= self.started


@dataclass(frozen=True)
class Trouble:
    """What stopped a whole session: a wrong recipe, or a cluster, disk or store that failed.

    Parameters
    ----------
    recipe
        Digest of the recipe.
    at
        When, ISO 8601.
    error, remedy
        As the error said.
    number
        How often in a row.
    is_refusal
        Whether only another recipe helps.
    """

    recipe: str
    at: str
    error: str
    remedy: str
    number: int = 1
    is_refusal: bool = False


@dataclass(frozen=True)
class Sights:
    """All that looks saw of a session.

    Parameters
    ----------
    tomograms
        By name.
    again
        When it was asked for again.
    left_out
        Files that are no tomograms: why, by URL.
    """

    tomograms: Mapping[str, Seen] = field(default_factory=dict)
    again: str = ""
    left_out: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, output: Folder) -> Self:
        """Read it from an output; nothing was seen where there is nothing."""
        values = _read(output, SEEN)
        rows = values.get("tomograms", {})
        seen = {name: Seen(**row) for name, row in rows.items()}
        return cls(seen, values.get("again", ""), values.get("left_out", {}))

    def write(self, output: Folder) -> None:
        """Write it; the caller holds the claim on ``PLACE``."""
        rows = {name: asdict(seen) for name, seen in self.tomograms.items()}
        values = {"again": self.again, "left_out": dict(self.left_out), "tomograms": rows}
        (output / PLACE).write_json(SEEN, values)


@dataclass(frozen=True)
class Works:
    """All that runs did of a session: tomograms by name, and what stopped the last run."""

    tomograms: Mapping[str, Worked] = field(default_factory=dict)
    trouble: Trouble | None = None

    @classmethod
    def read(cls, output: Folder) -> Self:
        """Read it from an output; nothing was done where there is nothing."""
        values = _read(output, WORKED)
        rows = values.get("tomograms", {})
        trouble = values.get("trouble")
        return cls(
            {name: Worked(**row) for name, row in rows.items()},
            None if trouble is None else Trouble(**trouble),
        )

    def write(self, output: Folder) -> None:
        """Write it; the caller holds the claim on the output."""
        rows = {name: asdict(worked) for name, worked in self.tomograms.items()}
        trouble = None if self.trouble is None else asdict(self.trouble)
        (output / PLACE).write_json(WORKED, {"trouble": trouble, "tomograms": rows})

    def with_one(self, name: str, worked: Worked) -> Self:
        """Return the same with one tomogram's row replaced."""
        return replace(self, tomograms={**self.tomograms, name: worked})


def observed(
    old: Seen | None,
    found: Found,
    content: tuple[int, str],
    now: datetime,
    *,
    settle_seconds: float,
    incomplete: Callable[[timedelta], str],
) -> Seen:
    """Return what is known of a tomogram after one more look.

    Parameters
    ----------
    old
        What was known before; None if it is new.
    content
        Its size and version now.
    settle_seconds
        So long it must not have changed.
    incomplete
        Given for how long it has not changed, says why it is not complete all the same; asked
        only of what has settled, and no more once it is complete.
    """
    if old is None or (old.size, old.version) != content:
        first = old.first_seen if old else iso(now)
        return Seen(found.url, *content, first, iso(now), again=old.again if old else "")
    if old.complete:
        return replace(old, url=found.url)
    age = now - datetime.fromisoformat(old.changed)
    if age < timedelta(seconds=settle_seconds):
        return replace(old, url=found.url)
    waits = incomplete(age)
    return replace(old, url=found.url, waits=waits, complete="" if waits else iso(now))


def standing(
    seen: Seen,
    worked: Worked | None,
    recipe: str,
    now: datetime,
    *,
    pauses_seconds: Sequence[float],
    is_at_work: bool = False,
) -> Standing:
    """Tell where a tomogram stands.

    Parameters
    ----------
    seen, worked
        What looks and runs know of it.
    recipe
        Digest of the recipe that it is to be processed with.
    pauses_seconds
        After each failure but the last.
    is_at_work
        Whether somebody holds the output now.
    """
    if not seen.complete:
        return Standing.INCOMPLETE if seen.waits else Standing.SETTLING
    if worked is None or not worked.counts(seen, recipe):
        return Standing.READY
    if worked.state == DONE:
        return Standing.DONE
    if worked.state == RUNNING and is_at_work:
        return Standing.RUNNING
    if worked.state == REFUSED or worked.attempts > len(pauses_seconds):
        return Standing.SET_ASIDE
    since = worked.finished or worked.started
    is_over = now >= after(since, pauses_seconds, worked.attempts)
    return Standing.READY if is_over else Standing.PAUSED


def after(since: str, pauses_seconds: Sequence[float], number: int) -> datetime:
    """Return when to try again after so many failures; the last pause repeats.

    >>> [after("2026-01-01T00:00:00+00:00", (60, 600), n).minute for n in (1, 2, 3)]
    [1, 10, 10]
    """
    pause = pauses_seconds[min(number, len(pauses_seconds)) - 1] if pauses_seconds else 0.0
    return datetime.fromisoformat(since) + timedelta(seconds=pause)


def stopped(trouble: Trouble | None, error: TomosegError, recipe: str, now: datetime) -> Trouble:
    """Return what is known of a session's trouble after it failed once more."""
    number = 1 if trouble is None or trouble.recipe != recipe else trouble.number + 1
    return Trouble(recipe, iso(now), error.message, error.remedy, number)


def iso(now: datetime) -> str:
    """Return a time as it is written: UTC, so that texts sort as times do.

    >>> iso(datetime(2026, 1, 1, tzinfo=UTC))
    '2026-01-01T00:00:00.000+00:00'
    """
    return now.astimezone(UTC).isoformat(timespec="milliseconds")


def _read(output: Folder, name: str) -> dict[str, Any]:
    folder = output / PLACE
    try:
        return dict(folder.read_json(name))
    except StoreError:
        if not folder.exists(name):
            return {}
        # It may have been written since.
        return dict(folder.read_json(name))
