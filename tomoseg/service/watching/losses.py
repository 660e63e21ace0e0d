"""What has been lost of results that are recorded as done; a few are compared at each look."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from functools import partial

from tomoseg.core.overlap import overlapped
from tomoseg.io.stores import READERS, Folder
from tomoseg.pipeline.checkup import lost_of

COMPARED_A_LOOK = 8

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
