"""What one look sees of a session's tomograms: what is there, whole, still growing, or gone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from tomoseg.core.attempts import explaining
from tomoseg.core.errors import AwayError, MissingError, TomosegError, VoxelSizeError
from tomoseg.core.lookalikes import guess_kind, told_left_out
from tomoseg.io.discovery import Among, tomograms_among
from tomoseg.io.stores import Entry, Folder, fingerprint, open_file
from tomoseg.io.volumes.compressed import compression_of
from tomoseg.io.volumes.sources import Found, by_name, kind_of, open_source
from tomoseg.recipe.recipe import Recipe
from tomoseg.service.arrivals import DONE, Seen, SessionWork, Sights, iso, observe
from tomoseg.service.watching.recipes import SessionRecipe
from tomoseg.service.watching.sessions import WatchedSession
from tomoseg.service.watching.settings import Watch

FORGOTTEN = timedelta(days=3)
"""After so long what is gone and was not done is no longer told; if it comes back it is new."""

log = logging.getLogger("tomoseg.service.watching.looks")


def entries_of(session: WatchedSession) -> list[Entry]:
    """Return what stands in a session's folder, without links to what is not there."""
    folder = Folder(session.url)
    return [one for one in folder.entries() if one.size or one.is_folder or folder.exists(one.name)]


def is_there(url: str) -> bool:
    """Tell whether a tomogram's file is there, on a drive or in a store that answers."""
    folder, _, name = url.rpartition("/")
    try:
        with explaining():
            if not Folder(folder).exists(name):
                return False
            if kind_of(url) != "zarr":
                with open_file(url) as file:
                    _ = file.read(1)
    except TomosegError as error:
        return not isinstance(error, MissingError | AwayError)
    return True


def has_tomograms(entries: Sequence[Entry]) -> bool:
    """Tell whether any file of a tomogram is there; a drive that is not mounted has none."""
    return any(kind_of(entry.name) is not None for entry in entries)


def seen_gone(old: Sights, now: datetime) -> Sights:
    """Return what is known of a session of whose tomograms none is there: all of it."""
    rows = {name: _gone(seen, now) for name, seen in old.tomograms.items()}
    return replace(old, tomograms=rows)


def seen_there(
    watch: Watch,
    session: WatchedSession,
    known: tuple[Sights, SessionWork],
    recipe: SessionRecipe,
    entries: Sequence[Entry],
    now: datetime,
) -> Sights:
    """Return what is known of a session's tomograms after one more look.

    Parameters
    ----------
    known
        What was before.
    """
    old, work = known
    urls = {f"{session.url}/{entry.name}": entry for entry in entries}
    beside = {entry.name for entry in entries}
    rows = {}
    among, found = _found(recipe, urls)
    for one in found:
        entry = urls[one.url]
        rows[one.name] = observe(
            old.tomograms.get(one.name),
            one,
            _content(one, entry),
            now,
            settle_seconds=watch.settle_seconds,
            incomplete=_asking(watch, one, entry, beside),
        )
    for name, seen in old.tomograms.items():
        worked = work.tomograms.get(name)
        is_done = worked is not None and worked.state == DONE
        # What is there and no tomogram any more is so by another recipe.
        if name not in rows and seen.url not in urls and _is_kept(seen, now, is_done=is_done):
            rows[name] = _gone(seen, now)
    return replace(old, tomograms=dict(sorted(rows.items())), left_out=among.left_out)


def _gone(seen: Seen, now: datetime) -> Seen:
    return replace(seen, gone=seen.gone or iso(now))


def _is_kept(seen: Seen, now: datetime, *, is_done: bool) -> bool:
    """Tell whether a file that is gone is remembered: not what never was whole, as a first name."""
    gone = datetime.fromisoformat(seen.gone) if seen.gone else now
    return is_done or (seen.complete != "" and now - gone < FORGOTTEN)


def _found(recipe: SessionRecipe, urls: Mapping[str, Entry]) -> tuple[Among, list[Found]]:
    """Return what is there, and the tomograms by name."""
    right = recipe.recipe or Recipe()
    remove, mask = right.session.tomogram_name_remove, right.source.mask
    companions = [mask] if mask else []
    there = tomograms_among(urls, name_remove=remove, companions=companions, is_arriving=True)
    if there.left_out:
        log.info("%s", told_left_out(there.left_out, is_watched=True))
    return there, by_name(there.tomograms, remove)


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
        if seems := guess_kind(entry.name):
            return f"it looks like {seems.kind}; its tomogram may still come"
        return _shortfall(found)

    return incomplete


def _shortfall(found: Found) -> str:
    """Say what a header shows to be missing; a wrong voxel size is nothing that will still come."""
    if compression_of(found.url):
        return ""
    try:
        with explaining(), open_source(found.url) as source:
            _ = source.header
    except VoxelSizeError:
        return ""
    except TomosegError as error:
        return error.message
    return ""
