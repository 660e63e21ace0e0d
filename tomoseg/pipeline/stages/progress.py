"""Writing down how far a tomogram is, and why no further, for whoever asks while it runs."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import asdict

from tomoseg.core.errors import TomosegError
from tomoseg.io.stores import Folder
from tomoseg.pipeline.progress import PLACE, PassProgress, read_progress
from tomoseg.pipeline.stages.context import Progress

__all__ = ["PLACE", "PassProgress", "note_waiting", "noted", "read_progress"]

SECONDS_BETWEEN = 5.0


def noted(
    progress: Progress, folder: Folder, clock: Callable[[], float] = time.monotonic
) -> Progress:
    """Return a function that is told of each block, writes that down and tells ``progress``.

    Parameters
    ----------
    folder
        The tomogram's results. It is written at most every five seconds, and where a pass begins.
    """
    lock = threading.Lock()
    last = ("", float("-inf"))

    def tell(tomogram: str, work: str, done: int, number: int) -> None:
        nonlocal last
        with lock:
            if work != last[0] or clock() - last[1] >= SECONDS_BETWEEN:
                last = (work, clock())
                _write(folder, PassProgress.now(work, done, number))
        progress(tomogram, work, done, number)

    return tell


def note_waiting(folder: Folder, why: str) -> None:
    """Write down what keeps the blocks of a tomogram from being done; the next one ends that."""
    if (progress := read_progress(folder)) is not None:
        _write(folder, progress.waiting(why))


def _write(folder: Folder, progress: PassProgress) -> None:
    # It is only for people: the work goes on without it.
    with contextlib.suppress(OSError, TomosegError):
        folder.write_json(PLACE, asdict(progress))
