"""How much disk the outputs of sessions take, by what it is for."""

from __future__ import annotations

from collections import Counter

from tomoseg.core.layout import IMAGE, PREVIOUS, RECORDS, WORK
from tomoseg.io.stores import Folder, sizes_below

RESULTS, RECEIPTS = "results", "receipts"
KINDS = (RESULTS, WORK, RECEIPTS, PREVIOUS)
"""What is found; what later stages start from; what is known of blocks; what was replaced."""
_BEGINNINGS = {f"{RECORDS}/": RECEIPTS, f"{IMAGE}/{WORK}/": WORK, f"{PREVIOUS}/": PREVIOUS}


def disk_of(output: Folder) -> dict[str, int]:
    """Return the bytes of all files of a session's output, by kind, and their ``total``.

    Every folder is listed, so that it takes minutes where there are millions of files on a network
    drive; of object storage a request for each thousand. What is held are the files of a tomogram.
    """
    found = Counter(dict.fromkeys(KINDS, 0))
    for entry in output.entries():
        if not entry.is_folder:
            found[RESULTS] += entry.size
            continue
        for path, size in sizes_below(output, entry.name).items():
            inside = path.removeprefix(f"{entry.name}/")
            # The session's own receipts stand beside the tomograms, not in a folder of one.
            name = path if entry.name == RECORDS else inside
            found[_kind(name)] += size
    return {**found, "total": found.total()}


def _kind(name: str) -> str:
    return next((kind for start, kind in _BEGINNINGS.items() if name.startswith(start)), RESULTS)
