"""Claims: one run at a time on an output, on a file system and in object storage.

A claim is a small file, ``.tomoseg/claim-000007.json``, and the highest number holds. The only
atomic step is to create a file that must not exist: whoever finds the highest claim released or
dead creates the next number, and of several who try one succeeds. The owner renews its file;
when it finds a higher one it has been taken for dead, and stops::

    claim-000007  released          → create 000008: one of all who try
    claim-000008  alive             → refused, with its owner's name
    claim-000008  silent for long   → create 000009; 000008 stops at its next sign of life
"""

from __future__ import annotations

import contextlib
import getpass
import logging
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from tomoseg.core.errors import ClaimError, StoreError, TomosegError
from tomoseg.core.layout import RECORDS
from tomoseg.io.stores.folders import Folder
from tomoseg.io.stores.lives import Life

SILENT_MINUTES = 2.0
BEATS = 8
"""Signs of life in the time after which a silent owner is taken for dead."""
COMMAND_LENGTH = 200

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Owner:
    """Who holds an output, as its claim says.

    Parameters
    ----------
    user, host, pid, command
        The process.
    processes
        What tells this set of process numbers from others, such as those of a container; empty
        where that is not known.
    began, seen
        Start and last sign of life by the owner's clock, ISO 8601.
    silent_minutes
        An owner that gave no sign for so long is dead.
    is_released
        Whether it has ended on its own.
    """

    user: str
    host: str
    pid: int
    command: str
    processes: str
    began: str
    seen: str
    silent_minutes: float
    is_released: bool = False

    @classmethod
    def here(cls, silent_minutes: float) -> Owner:
        """Return this process."""
        command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
        now, life = _now().isoformat(), Life.here()
        return cls(
            _user(), life.host, life.pid, command[:COMMAND_LENGTH],
            life.processes, now, now, silent_minutes,
        )  # fmt: skip

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended, gave a sign in time and, if it is to be seen here, runs."""
        if self.is_released or self.seconds_silent > self.silent_minutes * 60:
            return False
        return not Life(self.host, self.pid, self.processes).is_gone

    @property
    def seconds_silent(self) -> float:
        """Seconds since its last sign of life."""
        return (_now() - datetime.fromisoformat(self.seen)).total_seconds()

    def __str__(self) -> str:
        """Say who it is, since when, and when it was last seen."""
        age = (_now() - datetime.fromisoformat(self.began)).total_seconds()
        return (
            f"{self.user}@{self.host}, process {self.pid} ({self.command}), for {_span(age)}, "
            f"last sign of life {_span(self.seconds_silent)} ago"
        )


class Claim:
    """The right to write into an output, from :func:`claimed`.

    Parameters
    ----------
    folder
        The output.
    number
        Of this claim.
    owner
        This process.
    """

    def __init__(self, folder: Folder, number: int, owner: Owner) -> None:
        self._folder = folder
        self._number = number
        self._owner = owner
        self._is_lost = False
        self._is_given_up = False

    def give_up(self) -> None:
        """Let what still works under this claim end at its next check."""
        self._is_given_up = True

    def check(self) -> None:
        """Raise ClaimError if another run has taken the output over, or this one is to end.

        It costs nothing but after a sleep (of the process, or of the whole machine): then it looks
        before it answers.
        """
        if self._is_given_up:
            raise ClaimError(f"this run on {self._folder} was told to end")
        if self._owner.seconds_silent > self._owner.silent_minutes * 60:
            self.renew()
        if self._is_lost:
            _, other = _highest(self._folder)
            raise ClaimError(
                f"{self._folder} was taken over by {other}: this run gave no sign of life for "
                f"{self._owner.silent_minutes:g} minutes",
                remedy="Let the other run finish; finished blocks are kept.",
            )

    def renew(self) -> None:
        """Give a sign of life, or learn that another run has taken over.

        A store that does not answer changes nothing: the next sign may get through.
        """
        try:
            if max(_numbers(self._folder), default=0) > self._number:
                self._is_lost = True
            else:
                self._say(replace(self._owner, seen=_now().isoformat()))
        except (OSError, TomosegError) as error:
            log.warning("no sign of life could be written to %s: %s", self._folder, error)

    def release(self) -> None:
        """Say that this run has ended; where that cannot be written, remove the claim."""
        if self._is_lost:
            return
        try:
            self._say(replace(self._owner, seen=_now().isoformat(), is_released=True))
        except (OSError, TomosegError):
            with contextlib.suppress(OSError, TomosegError):
                self._folder.remove(_name(self._number))

    def _say(self, owner: Owner) -> None:
        self._folder.write_json(_name(self._number), asdict(owner))
        self._owner = owner


@contextlib.contextmanager
def claimed(folder: Folder, *, silent_minutes: float = SILENT_MINUTES) -> Iterator[Claim]:
    """Hold an output while the block runs, however it ends.

    Parameters
    ----------
    folder
        The output.
    silent_minutes
        After so long without a sign of life others may take this run for dead.

    Raises
    ------
    ClaimError
        If another run holds it; its owner is named.

    Notes
    -----
    On a local or a network file system and on object storage with conditional writes
    (``If-None-Match``) two runs never both begin. A store that ignores the condition lets two
    begin that ask within the same moment; the first learns it at its next sign of life.
    The clocks of hosts that share an output must agree to well under ``silent_minutes``.
    What a run that was taken for dead had in flight lies under its stages' digests and is not
    published: its blocks find no arrays, and the run itself looks at its claim before each step of
    publishing. On a file system its half-written files are removed when it is taken over.
    """
    claim = _take(folder, Owner.here(silent_minutes))
    is_over = threading.Event()

    def live() -> None:
        while not is_over.wait(silent_minutes * 60 / BEATS):
            claim.renew()

    life = threading.Thread(target=live, name="tomoseg-claim", daemon=True)
    life.start()
    try:
        yield claim
    finally:
        is_over.set()
        life.join()
        claim.release()


def living_owner(folder: Folder) -> Owner | None:
    """Return who holds an output now; None if nobody does."""
    _, owner = _highest(folder)
    return owner if owner is not None and owner.is_alive else None


def _take(folder: Folder, owner: Owner) -> Claim:
    number, other = _highest(folder)
    if other is not None and other.is_alive:
        raise _refused(folder, other)
    number += 1
    is_first = folder.create_json(_name(number), asdict(owner))
    older = _numbers(folder)
    if not is_first or max(older, default=number) > number:
        raise _refused(folder, _highest(folder)[1])
    if other is not None and not other.is_released:
        log.warning("%s: taking over from a run that ended without a word: %s", folder, other)
        folder.remove_parts()
    for old in older:
        if old < number:
            folder.remove(_name(old))
    return Claim(folder, number, owner)


def _refused(folder: Folder, other: Owner | None) -> ClaimError:
    minutes = SILENT_MINUTES if other is None else other.silent_minutes
    return ClaimError(
        f"{folder} is being written by {other or 'another run'}",
        remedy="Wait for it, end it, or choose another output; "
        f"if it is dead, its claim lapses {minutes:g} minutes after its last sign of life.",
    )


def _highest(folder: Folder) -> tuple[int, Owner | None]:
    """Return the number and the owner of the claim that holds; no owner if it cannot be read.

    A claim that is cut in the middle may be passed over: who writes it looks for a higher number
    before it begins.
    """
    number = max(_numbers(folder), default=0)
    try:
        return number, Owner(**folder.read_json(_name(number))) if number else None
    except (StoreError, TypeError):
        return number, None


def _numbers(folder: Folder) -> list[int]:
    names = [name.removesuffix(".json").partition("-") for name in folder.names(RECORDS)]
    return [int(digits) for kind, _, digits in names if kind == "claim" and digits.isdecimal()]


def _name(number: int) -> str:
    return f"{RECORDS}/claim-{number:06d}.json"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _now() -> datetime:
    return datetime.now(UTC)


def _span(seconds: float) -> str:
    """Return a time for people.

    >>> _span(4.2), _span(200), _span(9000)
    ('4 s', '3 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
