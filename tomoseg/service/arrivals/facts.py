"""What is known of a session that is watched: a watch's state, beside the results.

Two small files in an output, each with one writer at a time::

    .tomoseg/arrivals/seen.json     by a look, which holds a claim on that folder
    .tomoseg/arrivals/worked.json   by the run that holds the output
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Self

from tomoseg.core.errors import FullDiskError, StoreError, TomosegError
from tomoseg.core.layout import ARRIVALS
from tomoseg.io.stores import Folder
from tomoseg.io.volumes.sources import Found

SEEN, WORKED = "seen.json", "worked.json"
RUNNING, DONE, FAILED, REFUSED = "running", "done", "failed", "refused"
SPARED = "spared"


@dataclass(frozen=True)
class Seen:
    """A tomogram as looks saw it; times are ISO 8601, UTC.

    Parameters
    ----------
    url, size, version
        Where it is and what tells its content from another (:func:`tomoseg.io.stores.fingerprint`).
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
    gone
        Since when no file of that name is there; empty while there is one.
    """

    url: str
    size: int
    version: str
    first_seen: str
    changed: str
    complete: str = ""
    waits: str = ""
    again: str = ""
    gone: str = ""


@dataclass(frozen=True)
class TomogramWork:
    """What became of a tomogram; times are ISO 8601, UTC.

    Parameters
    ----------
    size, version, recipe
        The content, and the digest of the recipe.
    state
        ``running``, ``done``, ``failed`` (it may be tried again), ``refused``, or ``spared``: its
        file, a drive, the store or a disk gave out, which is no attempt.
    attempts
        How often it was begun with that content and recipe, and not spared.
    first_seen, complete
        As in :class:`Seen`.
    started, finished
        Of the last attempt.
    error, remedy
        Of a failure.
    seconds
        Stage → seconds, of what was worked out.
    spared
        How often in a row it was spared although its file was there.
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
    spared: int = 0

    @property
    def ended(self) -> str:
        """When its last attempt ended, or began if nobody said how that ended."""
        return self.finished or self.started

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
    is_full
        Whether a disk was too full.
    missing
        URL of a model that was not there; once it is, that is over.
    since
        When the first of that row was.
    """

    recipe: str
    at: str
    error: str
    remedy: str
    number: int = 1
    is_refusal: bool = False
    is_full: bool = False
    missing: str = ""
    since: str = ""

    def counts(self, sights: Sights) -> bool:
        """Tell whether it was of the recipe that is wanted, and nobody asked again since."""
        return self.recipe == sights.recipe and sights.again <= self.at


@dataclass(frozen=True)
class Hindrance:
    """What keeps a whole session from being worked on, as a look found it.

    Parameters
    ----------
    kind
        ``gone``: its folder is not there or empty; ``recipe``: that is wrong; ``unreadable``: the
        look failed; ``paused``: a person wants it to wait; ``elsewhere``: another watch serves its
        output from another folder; ``stopped``: its last run was, by a cluster, disk or store that
        failed, and is tried again. Of a whole watch: ``gone``, if a pattern matches nothing.
    say, remedy
        What it is and what mends it, for people.
    since
        When it was first found, ISO 8601.
    is_full
        Whether that is a disk without room: what an error says of it is old.
    """

    kind: Literal["gone", "recipe", "unreadable", "paused", "elsewhere", "stopped"]
    say: str
    remedy: str
    since: str
    is_full: bool = False


@dataclass(frozen=True)
class Sights:
    """All that looks saw of a session.

    Parameters
    ----------
    tomograms
        By name.
    again
        When the whole session was asked for again.
    recipe
        Digest of its recipe; empty before the first look.
    pauses_seconds
        After each failure of a tomogram but the last.
    paused
        When a person asked by command to let it wait, or cancelled its run; empty if nobody did.
    hindrances
        What keeps it from being worked on now.
    watch
        URL of the file in which the watch that serves it says who it is
        (:mod:`tomoseg.service.arrivals.presence`).
    why_paused
        As that person said.
    free_since
        When that recipe was first wanted with nothing that hinders; empty where that is not known.
    left_out
        Files that are no tomograms: why, by URL.
    """

    tomograms: Mapping[str, Seen] = field(default_factory=dict)
    again: str = ""
    recipe: str = ""
    pauses_seconds: tuple[float, ...] = ()
    paused: str = ""
    hindrances: tuple[Hindrance, ...] = ()
    watch: str = ""
    why_paused: str = ""
    free_since: str = ""
    left_out: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, output: Folder) -> Self:
        """Read it from an output; nothing was seen where there is nothing."""
        values = _read(output, SEEN)
        rows = values.get("tomograms", {})
        return cls(
            {name: Seen(**row) for name, row in rows.items()},
            values.get("again", ""),
            values.get("recipe", ""),
            tuple(values.get("pauses_seconds", ())),
            values.get("paused", ""),
            tuple(Hindrance(**each) for each in values.get("hindrances", ())),
            values.get("watch", ""),
            values.get("why_paused", ""),
            values.get("free_since", ""),
            values.get("left_out", {}),
        )

    def write(self, output: Folder) -> None:
        """Write it; the caller holds the claim on ``ARRIVALS``."""
        (output / ARRIVALS).write_json(SEEN, asdict(self))


@dataclass(frozen=True)
class SessionWork:
    """All that runs did of a session: tomograms by name, and what stopped the last run."""

    tomograms: Mapping[str, TomogramWork] = field(default_factory=dict)
    trouble: Trouble | None = None

    @classmethod
    def read(cls, output: Folder) -> Self:
        """Read it from an output; nothing was done where there is nothing."""
        values = _read(output, WORKED)
        rows = values.get("tomograms", {})
        trouble = values.get("trouble")
        return cls(
            {name: TomogramWork(**row) for name, row in rows.items()},
            None if trouble is None else Trouble(**trouble),
        )

    def write(self, output: Folder) -> None:
        """Write it; the caller holds the claim on the output."""
        rows = {name: asdict(worked) for name, worked in self.tomograms.items()}
        trouble = None if self.trouble is None else asdict(self.trouble)
        (output / ARRIVALS).write_json(WORKED, {"trouble": trouble, "tomograms": rows})

    def with_one(self, name: str, worked: TomogramWork) -> Self:
        """Return the same with one tomogram's row replaced."""
        return replace(self, tomograms={**self.tomograms, name: worked})


def observe(
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
    old = replace(old, url=found.url, gone="")
    if old.complete:
        return old
    age = now - datetime.fromisoformat(old.changed)
    if age < timedelta(seconds=settle_seconds):
        return old
    waits = incomplete(age)
    return replace(old, waits=waits, complete="" if waits else iso(now))


def trouble_after(
    trouble: Trouble | None, error: TomosegError, recipe: str, now: datetime
) -> Trouble:
    """Return what is known of a session's trouble after it failed once more."""
    number, since = 1, iso(now)
    if trouble is not None and trouble.recipe == recipe:
        number, since = trouble.number + 1, trouble.since or trouble.at
    return Trouble(
        recipe, iso(now), error.message, error.remedy, number,
        is_full=isinstance(error, FullDiskError), since=since,
    )  # fmt: skip


def iso(now: datetime) -> str:
    """Return a time as it is written: UTC, so that texts sort as times do.

    >>> iso(datetime(2026, 1, 1, tzinfo=UTC))
    '2026-01-01T00:00:00.000+00:00'
    """
    return now.astimezone(UTC).isoformat(timespec="milliseconds")


def _read(output: Folder, name: str) -> dict[str, Any]:
    folder = output / ARRIVALS
    try:
        return dict(folder.read_json(name))
    except StoreError:
        if not folder.exists(name):
            return {}
        # It may have been written since.
        return dict(folder.read_json(name))
