"""How far a tomogram is, as a small file beside its receipts says while it runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Self

from tomoseg.core.errors import StoreError
from tomoseg.io.stores import Folder

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
        return PassProgress(**folder.read_json(PLACE))
    except StoreError:
        return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
