"""How far a tomogram is, as a small file beside its receipts says while it runs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from tomoseg.errors import StoreError
from tomoseg.stores import Folder

PLACE = ".tomoseg/progress.json"


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


def read_progress(folder: Folder) -> PassProgress | None:
    """Return where a tomogram stood when it was last written down; None if nothing has begun."""
    try:
        return PassProgress(**folder.read_json(PLACE))
    except StoreError:
        return None
