"""Watches that are there: at every look each says who it is, what it serves and what it knows.

A small file a watch, beside the outputs, so that whoever reads these, and other watches, find it::

    <output before {session}>/.tomoseg/watches/<digest of host and watch's file>.json
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from tomoseg.core.errors import AwayError, StoreError
from tomoseg.core.layout import WATCHES
from tomoseg.io.stores import Folder, Owner, digest
from tomoseg.service.arrivals.facts import Hindrance

SILENT_LOOKS = 3
"""A watch that has not looked for so many times between looks is gone, wherever it runs."""
LEAST_SILENT_MINUTES = 2.0
KEPT = timedelta(days=7)
"""So long a dead watch's file is kept."""

# What this process has written.
_told_here: set[str] = set()


@dataclass(frozen=True)
class Known:
    """A session's folder that a watch has looked at; ``gone`` since when there is none."""

    url: str
    gone: str = ""


@dataclass(frozen=True)
class Presence:
    """A watch as it was at its last look; times are ISO 8601, UTC.

    Parameters
    ----------
    owner
        The process that looks.
    file
        The watch's file.
    sessions, output
        As that says.
    seconds_between_looks, session_runs
        From one look to the next, and how many sessions may be in work.
    looked
        When it last looked, by the clock of the look.
    places
        The sessions' folders, by the sessions' names.
    warnings
        What is wrong with the watch as a whole.
    """

    owner: Owner
    file: str
    sessions: tuple[str, ...]
    output: str
    seconds_between_looks: float
    session_runs: int
    looked: str = ""
    places: Mapping[str, Known] = field(default_factory=dict)
    warnings: tuple[Hindrance, ...] = ()

    @property
    def is_alive(self) -> bool:
        """Whether its process looks on."""
        return self.owner.is_alive

    @property
    def is_here(self) -> bool:
        """Whether it is this process."""
        here = Owner.here(LEAST_SILENT_MINUTES)
        mine, its = ((one.host, one.pid, one.processes) for one in (here, self.owner))
        return mine == its

    @property
    def url(self) -> str:
        """Where its file is."""
        name = digest([self.owner.host, self.file])[:16]
        return f"{home(self.output).url}/{WATCHES}/{name}.json"

    def __str__(self) -> str:
        """Say who it is, from which file and for which sessions."""
        return f"{self.owner}, with {self.file} for {', '.join(self.sessions)}"


def presence_here(
    file: str,
    sessions: tuple[str, ...],
    output: str,
    *,
    seconds_between_looks: float,
    session_runs: int,
) -> Presence:
    """Return the presence of a watch in this process, which has not looked yet."""
    silent = max(LEAST_SILENT_MINUTES, SILENT_LOOKS * seconds_between_looks / 60)
    return Presence(Owner.here(silent), file, sessions, output, seconds_between_looks, session_runs)


def home(output: str) -> Folder:
    """Return the folder below which all outputs of a watch lie.

    >>> str(home("s3://bucket/out/x-{session}/results"))
    's3://bucket/out'
    """
    before, is_many, _ = output.partition("{session}")
    return Folder(before.rpartition("/")[0] if is_many else output)


def presences(root: Folder) -> list[Presence]:
    """Return the watches that wrote below a folder, alive or not; what cannot be read is none."""
    found = (read_presence(f"{root.url}/{WATCHES}/{name}") for name in root.names(WATCHES))
    return [one for one in found if one is not None]


def read_presence(url: str) -> Presence | None:
    """Return what a watch wrote of itself; None if nothing is there, or nothing that is sound."""
    place, _, name = url.rpartition("/")
    if not name.endswith(".json"):
        return None
    try:
        values: dict[str, Any] = Folder(place).read_json(name)
        owner = Owner(**values.pop("owner"))
        times = [owner.began, owner.seen, *filter(None, [values["looked"]])]
        if any(datetime.fromisoformat(time).tzinfo is None for time in times):
            return None
        places = {name: Known(**known) for name, known in values.pop("places").items()}
        warnings = tuple(Hindrance(**each) for each in values.pop("warnings"))
        sessions = tuple(values.pop("sessions"))
        return Presence(owner, sessions=sessions, places=places, warnings=warnings, **values)
    except (StoreError, TypeError, ValueError, KeyError, AttributeError):
        return None


def check_home(presence: Presence) -> None:
    """Refuse to look where results are gone that this process has seen: all would be begun anew.

    Raises
    ------
    AwayError
        If what this process said of itself is not there any more, as where a drive is unmounted.
    """
    place, _, name = presence.url.rpartition("/")
    if presence.url in _told_here and not Folder(place).exists(name):
        raise AwayError(
            f"the results in {home(presence.output)} are not there any more",
            remedy="Mount their drive or put them back; if they were removed on purpose, start "
            "the watch again",
        )


def announced(presence: Presence, known: list[Presence]) -> Presence:
    """Write what a watch says of itself; return that.

    Another process that serves the same file and lives stays its owner: who only looks is not
    the watch.

    Parameters
    ----------
    known
        What stood there before (:func:`presences`); files of watches that are long dead, or that
        this one follows, are removed.
    """
    before = next((one for one in known if one.url == presence.url), None)
    if before is not None and before.is_here:
        presence = replace(presence, owner=replace(presence.owner, began=before.owner.began))
    elif before is not None and before.is_alive:
        presence = replace(presence, owner=before.owner, looked=before.looked)
    root = home(presence.output)
    root.write_json(presence.url.removeprefix(f"{root.url}/"), asdict(presence))
    _told_here.add(presence.url)
    for one in known:
        is_old = one.owner.seconds_silent > KEPT.total_seconds()
        if one.url != presence.url and not one.is_alive and (is_old or one.file == presence.file):
            root.remove(one.url.removeprefix(f"{root.url}/"))
    return presence


def said_others(presence: Presence, known: list[Presence]) -> list[str]:
    """Say which other processes serve outputs where this one does; nothing if none does."""
    living = [one for one in known if one.is_alive and not one.is_here]
    said = [f"this watch runs already: {one}" for one in living if one.url == presence.url]
    return said + [
        f"another watch has outputs below {home(presence.output)}: {one}. Of sessions of one name "
        "it works on its own, and this one waits; give each another output"
        for one in living
        if one.url != presence.url and home(one.output) == home(presence.output)
    ]
