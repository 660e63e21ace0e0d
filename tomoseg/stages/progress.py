"""How far a tomogram is, in a small file beside its receipts, for whoever asks while it runs."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Self

from tomoseg.errors import StoreError, TomosegError
from tomoseg.stages.context import Progress
from tomoseg.stores import Folder

PLACE = ".tomoseg/progress.json"
SECONDS_BETWEEN = 5.0


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
    """

    work: str
    done: int
    number: int
    at: str

    @classmethod
    def now(cls, work: str, done: int, number: int) -> Self:
        """Return where it stands at this moment."""
        return cls(work, done, number, datetime.now(UTC).isoformat(timespec="seconds"))

    def __str__(self) -> str:
        """Say it in one line, for people."""
        return f"{self.work}, {self.done} of {self.number} blocks at {self.at}"


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
                # It is only for people: the work goes on without it.
                with contextlib.suppress(OSError, TomosegError):
                    folder.write_json(PLACE, asdict(PassProgress.now(work, done, number)))
        progress(tomogram, work, done, number)

    return tell


def read_progress(folder: Folder) -> PassProgress | None:
    """Return where a tomogram stood when it was last written down; None if nothing has begun."""
    try:
        return PassProgress(**folder.read_json(PLACE))
    except StoreError:
        return None
