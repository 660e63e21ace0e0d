"""The work of one run on a session: what is ready, a tomogram after the other or a few at once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from tomoseg.core.attempts import explaining
from tomoseg.core.errors import (
    REFUSALS,
    AwayError,
    ClaimError,
    FullDiskError,
    MissingError,
    ModelError,
    ResourceError,
    StoreError,
    TomosegError,
)
from tomoseg.io.stores import Claim
from tomoseg.io.volumes.sources import Found
from tomoseg.pipeline.journal import Journal, note_trouble
from tomoseg.pipeline.session import Records, Session, failed_row
from tomoseg.service.arrivals import (
    DONE,
    FAILED,
    REFUSED,
    RUNNING,
    SPARED,
    SessionWork,
    Sights,
    TomogramWork,
    iso,
    trouble_after,
)
from tomoseg.service.watching.hindrances import find_pause
from tomoseg.service.watching.looks import SessionLook, look_at
from tomoseg.service.watching.recipes import missing_model
from tomoseg.service.watching.settings import Watch
from tomoseg.service.watching.sightings import entries_of, has_tomograms, is_there

WRONG = REFUSALS
"""What no second try mends: of a recipe, or of a tomogram."""
SPARING = (AwayError, FullDiskError)
"""What is no fault of a tomogram, however often it happens."""
PATIENCE_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)

log = logging.getLogger(__name__)

Process = Callable[[Found, Records], dict[str, Any]]
"""Takes a tomogram through the stages, fills in their records and returns its row."""


@dataclass(frozen=True)
class Outcome:
    """What a run has done.

    Parameters
    ----------
    rows
        Of the tomograms that were begun and have ended, as in ``session.json``.
    left
        Tomograms that wait for the next run.
    error
        What ended the run before its time; None if nothing did.
    waits
        Why nothing, or not all, was begun or ended, which is no failure: another run is at work,
        the session is paused, its files are gone, a drive is away.
    """

    rows: tuple[dict[str, Any], ...]
    left: int
    error: TomosegError | None = None
    waits: str = ""


@dataclass
class SessionRun:
    """A run's hold on a session, from :func:`tomoseg.service.watching.opening.opened_run`.

    Parameters
    ----------
    session
        With the tomograms that are to be begun; None if there are none.
    held
        The claim on the output; None if another run has it.
    waits
        Why there are none, or why no more are begun.
    """

    watch: Watch
    seen: SessionLook
    session: Session | None
    held: Claim | None
    clock: Callable[[], datetime]
    work: SessionWork = field(default_factory=SessionWork)
    waits: str = ""
    before: dict[str, TomogramWork | None] = field(default_factory=dict)
    """What was known of each tomogram that is in work."""

    @property
    def claim(self) -> Claim:
        """The claim on the output."""
        assert self.held is not None
        return self.held

    def through(self, process: Process) -> Outcome:
        """Take every tomogram through ``process``; a failure stops only its tomogram.

        A machine, a cluster or a disk that gives out stops the run: what was not begun waits for
        the next, which comes after a pause.

        Raises
        ------
        ClaimError
            If another run has taken the output over.
        StoreError
            If the results cannot be written.
        """
        session = self.session
        left = len(self.seen.ready) - (len(session.tomograms) if session else 0)
        if session is None:
            return Outcome((), left, waits=self.waits)
        seen = self.seen.sights.tomograms
        journal = session.journal([Found(name, seen[name].url) for name in self.seen.ready])
        rows: list[dict[str, Any]] = []
        error: TomosegError | None = None
        for row, failure in self._each(journal, process):
            if isinstance(failure, ResourceError):
                error = failure
            if row["state"] != "waiting":
                rows.append(row)
        _patiently(journal.finish)
        if error is not None:
            self._stop(error)
        left += len(session.tomograms) - len(rows)
        return Outcome(tuple(rows), left, error, self.waits)

    def refuse(self, error: TomosegError) -> None:
        """Record what keeps the whole session from being processed."""
        missing = missing_model(self.seen.recipe) if isinstance(error, ModelError) else ""
        self._stop(error, is_refusal=isinstance(error, WRONG), missing=missing)

    def _each(
        self, journal: Journal, process: Process
    ) -> Iterator[tuple[dict[str, Any], TomosegError | None]]:
        """Yield the row of each tomogram as it ends, and its error; begin no more after some."""
        assert self.session is not None
        waiting = list(reversed(self.session.tomograms))
        flight: dict[Future[dict[str, Any]], tuple[Found, Records]] = {}
        at_once = self.watch.limits.tomograms_at_once
        with ThreadPoolExecutor(at_once, "tomogram") as pool, self._given_back(journal):
            while waiting or flight:
                while waiting and len(flight) < self.watch.limits.tomograms_at_once:
                    if why := self._why_to_wait():
                        self.waits = why
                        waiting.clear()
                        break
                    found, records = waiting.pop(), Records()
                    self._begin(found.name, journal)
                    future = pool.submit(copy_context().run, process, found, records)
                    flight[future] = found, records
                for future in wait(flight, return_when=FIRST_COMPLETED).done if flight else ():
                    found, records = flight.pop(future)
                    row, error = self._end(future, found, records, journal)
                    self.before.pop(found.name)
                    if isinstance(error, ResourceError):
                        waiting.clear()
                    yield row, error

    @contextmanager
    def _given_back(self, journal: Journal) -> Iterator[None]:
        """Give back what is in work if the block is told to end, and do not wait for it."""
        try:
            yield
        except Exception:
            raise
        except BaseException:
            self._give_back(journal)
            raise

    def _give_back(self, journal: Journal) -> None:
        """Leave what is in work as it was found: a run that is told to end was no attempt."""
        rows = {**self.work.tomograms, **self.before}
        kept = {name: row for name, row in rows.items() if row is not None}
        self.work = replace(self.work, tomograms=kept)
        try:
            with explaining():
                self.claim.check()
                self.work.write(self.seen.session.results)
                for name in self.before:
                    journal.note({"name": name, "state": "waiting"})
        except TomosegError as error:
            log.warning("what is in work counts as begun: %s", error)
        finally:
            self.claim.give_up()

    def _begin(self, name: str, journal: Journal) -> None:
        seen, old = self.seen.sights.tomograms[name], self.work.tomograms.get(name)
        digest = self._digest
        is_again = old is not None and old.counts(seen, digest)
        attempts = old.attempts + 1 if old and is_again else 1
        self.before[name] = old
        self._note(
            name,
            TomogramWork(
                seen.size, seen.version, digest, RUNNING, attempts,
                seen.first_seen, seen.complete, iso(self.clock()),
                spared=old.spared if old and is_again else 0,
            ),
        )  # fmt: skip
        _patiently(lambda: journal.note({"name": name, "state": "running"}))

    def _end(
        self, future: Future[dict[str, Any]], found: Found, records: Records, journal: Journal
    ) -> tuple[dict[str, Any], TomosegError | None]:
        """Write what became of a tomogram; return its row and error."""
        begun = self.work.tomograms[found.name]
        done = replace(begun, finished=iso(self.clock()))
        error: TomosegError | None = None
        try:
            with explaining():
                row = future.result()
            done = replace(done, seconds=row.get("seconds", {}))
            self._note(found.name, replace(done, state=DONE))
        except ClaimError:
            raise
        except TomosegError as failure:
            error = failure
            done = replace(done, error=error.message, remedy=error.remedy)
            is_back = is_there(found.url)
            was_gone = isinstance(error, MissingError) and found.url in error.message
            if isinstance(error, SPARING) or was_gone or not is_back:
                row = self._spared(found, done, error, is_there=is_back)
            else:
                row = self._failed(found, done, error, records)
        _patiently(lambda: journal.note(row))
        return row, error

    def _spared(
        self, found: Found, done: TomogramWork, error: TomosegError, *, is_there: bool
    ) -> dict[str, Any]:
        """Note that a tomogram waits without fault of its own; return its row."""
        why = error.message if is_there else f"{found.url} is not there"
        self.waits = f"{found.name}: {why}"
        log.warning("%s waits, which is no attempt: %s", found.name, why)
        spared = done.spared + 1 if is_there else 0
        worked = replace(done, state=SPARED, attempts=done.attempts - 1, spared=spared, error=why)
        self._note(found.name, worked)
        self._look_again()
        return {"name": found.name, "state": "waiting", "notes": [f"waits: {why}"]}

    def _failed(
        self, found: Found, done: TomogramWork, error: TomosegError, records: Records
    ) -> dict[str, Any]:
        """Note a tomogram's failure; return its row."""
        # What is missing beside a tomogram, such as its mask, may come.
        is_wrong = isinstance(error, WRONG) and not isinstance(error, MissingError)
        done = replace(done, spared=0)
        if not isinstance(error, ResourceError):
            self.work = replace(self.work, trouble=None)
        self._note(found.name, replace(done, state=REFUSED if is_wrong else FAILED))
        return failed_row(found.name, error, records) | {
            "attempts": done.attempts,
            "is_set_aside": is_wrong or done.attempts > len(self.watch.pauses_seconds),
        }

    def _look_again(self) -> None:
        """Take note of what is gone meanwhile; if it cannot be, the next look does."""
        try:
            with explaining():
                look_at(self.watch, self.seen.session, self.clock(), is_mine=True)
        except TomosegError as error:
            log.warning("%s: %s", self.seen.session.name, error)

    def _why_to_wait(self) -> str:
        """Say why nothing more is to be begun now; empty if nothing hinders."""
        session = self.seen.session
        try:
            with explaining():
                entries = entries_of(session)
                sights = Sights.read(session.results)
                found = find_pause(self.watch, session, sights, entries, self.clock())
        except TomosegError as error:
            return error.message
        if found:
            return f"paused: {found[0].say}"
        return "" if has_tomograms(entries) else f"{session.url} is empty or gone"

    def _note(self, name: str, worked: TomogramWork) -> None:
        """Write a tomogram's row; one that is done shows that there is no trouble any more."""
        self.claim.check()
        work = self.work.with_one(name, worked)
        self.work = replace(work, trouble=None) if worked.state == DONE else work
        _patiently(lambda: self.work.write(self.seen.session.results))

    def _stop(self, error: TomosegError, *, is_refusal: bool = False, missing: str = "") -> None:
        now, output = self.clock(), self.seen.session.results
        trouble = trouble_after(self.work.trouble, error, self._digest, now)
        trouble = replace(trouble, is_refusal=is_refusal, missing=missing)
        self.work = replace(self.work, trouble=trouble)
        _patiently(lambda: self.work.write(output))
        _patiently(lambda: note_trouble(output, error, now, is_refusal=is_refusal))

    @property
    def _digest(self) -> str:
        assert self.seen.recipe is not None
        return self.seen.recipe.digest


def _patiently(write: Callable[[], Any]) -> None:
    """Write, again and again for about a minute where the store does not answer."""
    for pause in PATIENCE_SECONDS:
        try:
            with explaining():
                write()
            return
        except StoreError as error:
            log.warning("the store does not answer, trying again in %g s: %s", pause, error)
            time.sleep(pause)
    with explaining():
        write()
