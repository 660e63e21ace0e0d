"""One look at all sessions: what is new, waiting, ready, done, set aside; and what to start."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from fnmatch import fnmatchcase

from tomoseg.arrivals import (
    PLACE,
    Seen,
    Sights,
    Standing,
    Works,
    after,
    iso,
    observed,
    standing,
)
from tomoseg.attempts import explaining
from tomoseg.discovery import Among, tomograms_among
from tomoseg.errors import FormatError, RequestError, TomosegError, VoxelSizeError
from tomoseg.formats.compressed import compression_of
from tomoseg.lookalikes import seeming, told_left_out
from tomoseg.recipe import Recipe
from tomoseg.sources import Found, named, open_source
from tomoseg.stores import Entry, Folder, claimed, digest, fingerprint, living_owner
from tomoseg.watching.places import Place, places_of
from tomoseg.watching.recipes import SessionRecipe, session_recipe
from tomoseg.watching.settings import Watch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SessionLook:
    """What one look found out about one session.

    Parameters
    ----------
    place
        The session.
    recipe
        Its recipe, or what is wrong with it; None if the look failed.
    sights, works
        What is known of its tomograms.
    standings
        Where each stands, by name.
    is_at_work
        Whether a run holds its output now.
    problem
        Why the look failed; the next one may not.
    """

    place: Place
    recipe: SessionRecipe | None = None
    sights: Sights = field(default_factory=Sights)
    works: Works = field(default_factory=Works)
    standings: Mapping[str, Standing] = field(default_factory=dict)
    is_at_work: bool = False
    problem: str = ""

    def named(self, *wanted: Standing) -> list[str]:
        """Return the tomograms that stand so, those first that failed least and wait longest."""
        rows, seen = self.works.tomograms, self.sights.tomograms
        names = [name for name, one in self.standings.items() if one in wanted]

        def turn(name: str) -> tuple[int, str, str]:
            worked = rows.get(name)
            is_again = worked is not None and worked.counts(seen[name], self._digest)
            return (worked.attempts if worked and is_again else 0, seen[name].complete, name)

        return sorted(names, key=turn)

    @property
    def ready(self) -> list[str]:
        """Tomograms to begin, in order."""
        return self.named(Standing.READY)

    @property
    def _digest(self) -> str:
        return self.recipe.digest if self.recipe else ""

    def is_live(self, watch: Watch, now: datetime) -> bool:
        """Tell whether something came within the last hours."""
        since = iso(now - timedelta(hours=watch.live_hours))
        return any(seen.changed >= since for seen in self.sights.tomograms.values())

    def has_work(self, watch: Watch, now: datetime) -> bool:
        """Tell whether a run should be started: a wrong recipe's run says so, once."""
        if self.recipe is None or self.is_at_work or not self.standings:
            return False
        trouble = self.works.trouble
        if trouble and trouble.recipe == self._digest and self.sights.again <= trouble.at:
            is_over = now >= after(trouble.at, watch.pauses_seconds, trouble.number)
            return bool(self.ready) and is_over and not trouble.is_refusal
        return bool(self.ready) or self.recipe.error is not None

    @property
    def key(self) -> str:
        """Tells the run that is to be started from every other: by content, recipe and attempt."""
        rows = self.works.tomograms
        ready = [
            (name, one.size, one.version, one.again, rows[name].started if name in rows else "")
            for name, one in sorted(self.sights.tomograms.items())
            if self.standings[name] == Standing.READY
        ]
        trouble = self.works.trouble.at if self.works.trouble else ""
        values = [self.place.url, self.place.output, self._digest, ready, trouble]
        return f"{self.place.name}:{digest([*values, self.sights.again])[:32]}"


def look(watch: Watch, now: datetime) -> list[SessionLook]:
    """Look at every session; what cannot be looked at now is told, and the others are.

    What was seen is written into the sessions' outputs, if it is news.

    Raises
    ------
    RequestError
        If the watch's places contradict each other.
    """
    return [_guarded(watch, place, now) for place in places_of(watch)]


def _guarded(watch: Watch, place: Place, now: datetime) -> SessionLook:
    try:
        with explaining():
            return look_at(watch, place, now)
    except TomosegError as error:
        log.warning("session %s: %s", place.name, error)
        return SessionLook(place, problem=str(error))


def look_at(watch: Watch, place: Place, now: datetime, *, is_mine: bool = False) -> SessionLook:
    """Look at one session.

    Parameters
    ----------
    is_mine
        Whether the caller holds the output: then nobody else is at work.

    Raises
    ------
    RequestError
        If two tomograms have one name.
    ClaimError
        If another watch looks at the same moment.
    StoreError
        If the store does not answer.
    """
    output, entries = place.results, Folder(place.url).entries()
    recipe = session_recipe(watch, place, entries)
    urls = {f"{place.url}/{entry.name}": entry for entry in entries}
    among, found = _found(recipe, urls)
    old = Sights.read(output)
    sights = old
    if entries:
        sights = replace(_observe(watch, old, found, urls, now), left_out=among.left_out)
    if sights != old:
        _keep(place, old, sights)
    works = Works.read(output)
    there = {name: seen for name, seen in sights.tomograms.items() if entries}
    standings = _standings(watch, recipe, there, works, now)
    is_pending = set(standings.values()) & {Standing.READY, Standing.PAUSED, Standing.SET_ASIDE}
    is_at_work = not is_mine and bool(is_pending) and living_owner(output) is not None
    if is_at_work:
        standings = _standings(watch, recipe, there, works, now, is_at_work=True)
    return SessionLook(place, recipe, sights, works, standings, is_at_work)


def _found(recipe: SessionRecipe, urls: Mapping[str, Entry]) -> tuple[Among, list[Found]]:
    """Return what is there, and the tomograms by name."""
    right = recipe.recipe or Recipe()
    remove, mask = right.session.tomogram_name_remove, right.source.mask
    companions = [mask] if mask else []
    there = tomograms_among(urls, name_remove=remove, companions=companions, is_arriving=True)
    if there.left_out:
        log.info("%s", told_left_out(there.left_out, is_watched=True))
    return there, named(there.tomograms, remove)


def orders(
    looks: Sequence[SessionLook], watch: Watch, now: datetime, busy: Collection[str] = ()
) -> list[SessionLook]:
    """Return the sessions to start now: live ones first, then those that wait longest.

    Parameters
    ----------
    busy
        Names of sessions with a run that has been started and has not ended.
    """
    at_work = {one.place.name for one in looks if one.is_at_work} | set(busy)
    waiting = [one for one in looks if one.has_work(watch, now) and one.place.name not in at_work]

    def turn(one: SessionLook) -> tuple[bool, str]:
        complete = [one.sights.tomograms[name].complete for name in one.ready]
        return not one.is_live(watch, now), min(complete, default="")

    return sorted(waiting, key=turn)[: max(0, watch.limits.session_runs - len(at_work))]


def ask_again(watch: Watch, pattern: str, now: datetime) -> list[str]:
    """Have what was set aside tried again; return the names of what was asked for.

    Parameters
    ----------
    pattern
        ``SESSION`` for all of it, ``SESSION/TOMOGRAM`` or ``TOMOGRAM``; ``*`` and ``?`` match.

    Raises
    ------
    RequestError
        If nothing of that name is set aside.
    """
    asked = [name for one in look(watch, now) for name in _ask(one, pattern, now)]
    if not asked:
        raise RequestError(
            f"nothing called {pattern} is set aside", remedy="Look what is: --look lists it."
        )
    return asked


def counts(one: SessionLook) -> dict[str, int]:
    """Return how many tomograms of a session stand where."""
    found = Counter(one.standings.values())
    return {str(each): found[each] for each in Standing}


def _ask(one: SessionLook, pattern: str, now: datetime) -> list[str]:
    session = one.place.name
    aside = one.named(Standing.SET_ASIDE)
    whole = fnmatchcase(session, pattern) and bool(aside or one.works.trouble)
    names = [
        name
        for name in aside
        if whole or any(fnmatchcase(text, pattern) for text in (name, f"{session}/{name}"))
    ]
    if not names and not whole:
        return []
    rows = dict(one.sights.tomograms)
    for name in names:
        rows[name] = replace(rows[name], again=iso(now))
    again = iso(now) if whole else one.sights.again
    _keep(one.place, one.sights, replace(one.sights, tomograms=rows, again=again))
    return [f"{session}/{name}" for name in names] or [session]


def _keep(place: Place, old: Sights, new: Sights) -> None:
    """Write what was seen, unless somebody else wrote in the meantime."""
    with claimed(place.results / PLACE):
        if Sights.read(place.results) == old:
            new.write(place.results)


def _observe(
    watch: Watch, old: Sights, found: Sequence[Found], urls: Mapping[str, Entry], now: datetime
) -> Sights:
    beside = {entry.name for entry in urls.values()}
    rows = {}
    for one in found:
        entry = urls[one.url]
        rows[one.name] = observed(
            old.tomograms.get(one.name),
            one,
            _content(one, entry),
            now,
            settle_seconds=watch.settle_seconds,
            incomplete=_asking(watch, one, entry, beside),
        )
    return Sights(rows, old.again)


def _content(found: Found, entry: Entry) -> tuple[int, str]:
    if not entry.is_folder:
        return entry.size, entry.version
    whole = fingerprint(found.url)
    return whole["size"], whole["version"]


def _asking(
    watch: Watch, found: Found, entry: Entry, beside: Collection[str]
) -> Callable[[timedelta], str]:
    def incomplete(age: timedelta) -> str:
        if watch.sentinel is not None:
            wanted = watch.sentinel.replace("{name}", found.name).replace("{file}", entry.name)
            if wanted not in beside:
                return f"there is no {wanted}"
        if age >= timedelta(minutes=watch.incomplete_minutes):
            return ""
        if seems := seeming(entry.name):
            return f"it looks like {seems.kind}; its tomogram may still come"
        return _shortfall(found)

    return incomplete


def _shortfall(found: Found) -> str:
    """Say what a header shows to be missing; a wrong voxel size is nothing that will still come."""
    if compression_of(found.url):
        return ""
    try:
        with open_source(found.url) as source:
            _ = source.header
    except VoxelSizeError:
        return ""
    except FormatError as error:
        return error.message
    return ""


def _standings(
    watch: Watch,
    recipe: SessionRecipe,
    tomograms: Mapping[str, Seen],
    works: Works,
    now: datetime,
    *,
    is_at_work: bool = False,
) -> dict[str, Standing]:
    return {
        name: standing(
            seen,
            works.tomograms.get(name),
            recipe.digest,
            now,
            pauses_seconds=watch.pauses_seconds,
            is_at_work=is_at_work,
        )
        for name, seen in tomograms.items()
    }
