"""How far a tomogram is, as a small file beside its receipts says while it runs."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Self

from tomoseg.core.errors import StoreError, TomosegError
from tomoseg.core.layout import PROGRESS
from tomoseg.io.stores import Folder

SECONDS_BETWEEN = 5.0

Progress = Callable[[str, str, int, int], None]
"""Called with tomogram, stage and pass, the blocks done and all blocks."""


@dataclass(frozen=True)
class PassProgress:
    """Where a tomogram stood.

    Parameters
    ----------
    work
        Stage and pass.
    done, number
        Its blocks done, and all of them.
    at
        When, ISO 8601.
    waits, waits_since
        What keeps its blocks from being done, for people, and since when; empty where they are.
    """

    work: str
    done: int
    number: int
    at: str
    waits: str = ""
    waits_since: str = ""

    @classmethod
    def now(cls, work: str, done: int, number: int) -> Self:
        """Return where it stands at this moment."""
        return cls(work, done, number, _now())

    def waiting(self, why: str) -> Self:
        """Return the same where no block is done for some reason."""
        return replace(self, waits=why, waits_since=self.waits_since or _now())

    def __str__(self) -> str:
        """Say it in one line, for people."""
        waits = f"; {self.waits}" if self.waits else ""
        return f"{self.work}, {self.done} of {self.number} blocks at {self.at}{waits}"


def read_progress(folder: Folder) -> PassProgress | None:
    """Return where a tomogram stood when it was last written down; None if nothing has begun."""
    try:
        return PassProgress(**folder.read_json(PROGRESS))
    except StoreError:
        return None


def noting_progress(
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
        folder.write_json(PROGRESS, asdict(progress))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
