"""Whether what is recorded of a finished stage still stands where people find it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tomoseg.core.errors import StoreError
from tomoseg.io.stores import Entry, Folder, Ledger, is_array, seals
from tomoseg.io.stores.ledger import STAGED
from tomoseg.pipeline.stages.soundness import is_sound

# Listings of folders that are held while what is recorded is compared with what is there.
LISTINGS = 64
# How a shard or a sidecar stands: as it was written, otherwise but well, cut, or not at all.
WRITTEN, EDITED, CUT, ABSENT = "written", "edited", "cut", "absent"


@dataclass(frozen=True)
class Condition:
    """What does not stand as it was recorded, by paths in the tomogram's folder.

    Parameters
    ----------
    lost
        Files and arrays that are not there, or of which shards are not.
    cut
        Those that are there in part.
    changed
        Those that somebody else wrote, or wrote into, and that can be read.
    """

    lost: tuple[str, ...] = ()
    cut: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether nothing is lost; what a person put there counts as there."""
        return not self.lost and not self.cut

    def __add__(self, other: Condition) -> Condition:
        """Return what does not stand of both."""
        return Condition(self.lost + other.lost, self.cut + other.cut, self.changed + other.changed)


def condition(
    folder: Folder,
    record: Mapping[str, Any],
    receipts: Callable[[], Ledger],
    *,
    reads: bool = True,
) -> Condition:
    """Compare a finished stage's record with what is in the tomogram's folder.

    Files must be there, and an array's shards must be those that were written. What has another
    size is lost if it is cut.

    Parameters
    ----------
    receipts
        Returns those of the stage's blocks; they are looked at where an array has changed.
    reads
        Whether what has another size is read; without, only listings are made, and it counts as
        changed.
    """
    published = record.get("published", {})
    sizes: Mapping[str, int] = published.get("sizes", {})
    state_of = states(folder, reads=reads)
    of_files = {name: state_of(name, size) for name, size in sizes.items()}
    names = {*published.get("files", ()), *published.get("written", ())}
    names = (names | set(record["summary"].get("files", ()))) - sizes.keys()
    entries = lru_cache(LISTINGS)(lambda place: {one.name: one for one in folder.entries(place)})
    stand = {name: entries(name.rpartition("/")[0]).get(name.rpartition("/")[2]) for name in names}
    of_arrays = _of_arrays(folder, published.get("arrays", {}), receipts, reads=reads)
    return of_arrays + Condition(
        lost=_sorted(of_files, ABSENT) + _named(stand, lambda entry: entry is None),
        cut=_sorted(of_files, CUT) + _named(stand, _is_empty),
        changed=_sorted(of_files, EDITED),
    )


def _sorted(states: Mapping[str, str], wanted: str) -> tuple[str, ...]:
    return tuple(sorted(name for name, state in states.items() if state == wanted))


def _named(
    entries: Mapping[str, Entry | None], is_meant: Callable[[Entry | None], bool]
) -> tuple[str, ...]:
    return tuple(sorted(name for name, entry in entries.items() if is_meant(entry)))


def states(folder: Folder, *, reads: bool = True) -> Callable[[str, int], str]:
    """Return what tells of a file in a folder, and of the bytes that it had, how it stands."""
    sizes = lru_cache(LISTINGS)(folder.sizes)

    def state_of(name: str, size: int) -> str:
        place, _, file = name.rpartition("/")
        found = sizes(place).get(file)
        if found is None:
            return ABSENT
        if found == size:
            return WRITTEN
        is_whole = not reads or is_sound(folder, name, is_less=found < size)
        return EDITED if found and is_whole else CUT

    return state_of


def _is_empty(entry: Entry | None) -> bool:
    return entry is not None and not entry.is_folder and entry.size == 0


def _of_arrays(
    folder: Folder, arrays: Mapping[str, Any], receipts: Callable[[], Ledger], *, reads: bool
) -> Condition:
    gone = {path for path in arrays if not is_array(folder, path)}
    there = {path: were for path, were in arrays.items() if path not in gone}
    changed = [path for path, were in there.items() if seals(folder, path) != were]
    found: dict[str, Counter[str]] = {path: Counter() for path in changed}
    state_of = states(folder, reads=reads)

    def note(name: str, size: int) -> bool:
        path = name.removeprefix(f"{STAGED}/")
        for array in changed:
            if path.startswith(f"{array}/"):
                found[array][state_of(path, size)] += 1
        return True

    try:
        for _ in receipts().lost(note) if changed else ():
            pass
    except StoreError:
        # A receipt was cut: which shards its block wrote is not known.
        return Condition(tuple(sorted(gone)), tuple(changed))
    cut = {path for path, counts in found.items() if counts[CUT]}
    # zarr stores no empty shards: who rewrote some may have emptied others.
    gone |= {path for path, counts in found.items() if counts[ABSENT] and not counts[EDITED]} - cut
    edited = tuple(path for path, counts in found.items() if counts[EDITED])
    return Condition(tuple(sorted(gone)), tuple(sorted(cut)), edited)
