"""What has been lost of results that are recorded as done; a few are compared at each look."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from functools import partial

from tomoseg.errors import StoreError
from tomoseg.overlap import overlapped
from tomoseg.stores import READERS, Folder, is_array

COMPARED_A_LOOK = 8
MANIFEST, RECORDS = "manifest.json", ".tomoseg"

log = logging.getLogger(__name__)


def turn_of(
    done: Sequence[tuple[str, str]], now: datetime, seconds_between: float
) -> list[tuple[str, str]]:
    """Return the part of what is done whose turn it is, so that in some looks all had it.

    Parameters
    ----------
    done
        Sessions and tomograms.
    """
    begin = COMPARED_A_LOOK * int(now.timestamp() // seconds_between)
    number = min(COMPARED_A_LOOK, len(done))
    return [done[(begin + step) % len(done)] for step in range(number)]


def losses(output: Folder, names: Sequence[str]) -> dict[str, list[str]]:
    """Return what is lost of tomograms, by name; those of which all stands are left out."""
    found = overlapped(partial(lost_of, output), names, threads=READERS)
    lost = {name: paths for name, paths in zip(names, found, strict=True) if paths}
    for name, paths in lost.items():
        more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
        said = ", ".join(paths[:3])
        log.warning("%s/%s: lost, and to be made again: %s%s", output, name, said, more)
    return lost


def lost_of(output: Folder, name: str) -> list[str]:
    """Return what is not there any more, or is empty, of a tomogram that is recorded as done.

    Listings alone; nothing is changed.

    Returns
    -------
    Paths in the tomogram's folder; none if all stands.
    """
    folder = output / name
    try:
        stages = list(folder.read_json(MANIFEST)["stages"])
    except StoreError:
        return [MANIFEST]
    lost = []
    for path in (f"{RECORDS}/{stage}.json" for stage in stages):
        try:
            record = folder.read_json(path)
        except StoreError:
            lost.append(path)
            continue
        published = record.get("published", {})
        names = {*published.get("files", ()), *published.get("written", ())}
        names |= set(record["summary"].get("files", ()))
        sizes = {place: folder.sizes(place) for place in {_parts(each)[0] for each in names}}
        for place, file in map(_parts, names.difference(published.get("empty", ()))):
            if not sizes[place].get(file):
                lost.append(f"{place}/{file}".lstrip("/"))
        lost += [each for each in published.get("arrays", {}) if not is_array(folder, each)]
    return sorted(lost)


def _parts(path: str) -> tuple[str, str]:
    place, _, file = path.rpartition("/")
    return place, file
