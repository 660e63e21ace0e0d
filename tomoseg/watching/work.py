"""The work of one run on a session: what is ready, a tomogram after the other or a few at once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from tomoseg.arrivals import (
    DONE,
    FAILED,
    REFUSED,
    RUNNING,
    Worked,
    Works,
    iso,
    stopped,
)
from tomoseg.attempts import explaining
from tomoseg.checks import check_session
from tomoseg.clusters import runner_at
from tomoseg.errors import (
    ClaimError,
    FormatError,
    ModelError,
    RequestError,
    ResourceError,
    StoreError,
    TomosegError,
)
from tomoseg.session import (
    Journal,
    Session,
    failed_row,
    finished_row,
    guarded_stage,
    plan_session,
    session_address,
)
from tomoseg.sources import Found
from tomoseg.stages import STAGES
from tomoseg.stores import Claim, Folder, claimed
from tomoseg.watching.looks import SessionLook, look_at
from tomoseg.watching.places import place_of
from tomoseg.watching.settings import Watch

WRONG = (RequestError, FormatError, ModelError)
"""What no second try mends: of a recipe, or of a tomogram."""
PATIENCE_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)

log = logging.getLogger(__name__)

Records = dict[str, dict[str, Any]]
Process = Callable[[Found, Records], dict[str, Any]]
"""Takes a tomogram through the stages, fills in their records and returns its row."""


@dataclass(frozen=True)
class Outcome:
    """What a run has done.

    Parameters
    ----------
    rows
        Of the tomograms that were begun, as in ``session.json``.
    left
        Tomograms that are ready and wait for the next run.
    error
        What ended the run before its time; None if nothing did.
    """

    rows: tuple[dict[str, Any], ...]
    left: int
    error: TomosegError | None = None


@dataclass
class Work:
    """A run's hold on a session, from :func:`opened_work`.

    Parameters
    ----------
    session
        With the tomograms that are to be begun; None if there are none.
    claim
        On the output.
    """

    watch: Watch
    seen: SessionLook
    session: Session | None
    claim: Claim
    clock: Callable[[], datetime]
    works: Works = field(default_factory=Works)

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
            return Outcome((), left)
        journal = Journal.begin(session, self._earlier_rows(session))
        rows: list[dict[str, Any]] = []
        error: TomosegError | None = None
        for row, failure in self._each(journal, process):
            rows.append(row)
            if isinstance(failure, ResourceError):
                error = failure
        _patiently(journal.finish)
        if error is not None:
            self._stop(error)
        return Outcome(tuple(rows), left + len(session.tomograms) - len(rows), error)

    def refuse(self, error: TomosegError) -> None:
        """Record what keeps the whole session from being processed."""
        self._stop(error, is_refusal=isinstance(error, WRONG))

    def _each(
        self, journal: Journal, process: Process
    ) -> Iterator[tuple[dict[str, Any], TomosegError | None]]:
        """Yield the row of each tomogram as it ends, and its error; begin no more after some."""
        waiting = list(reversed(journal.session.tomograms))
        flight: dict[Future[dict[str, Any]], tuple[Found, Records]] = {}
        with ThreadPoolExecutor(self.watch.limits.tomograms_at_once, "tomogram") as pool:
            while waiting or flight:
                while waiting and len(flight) < self.watch.limits.tomograms_at_once:
                    found, records = waiting.pop(), Records()
                    self._begin(found.name, journal)
                    future = pool.submit(copy_context().run, process, found, records)
                    flight[future] = found, records
                for future in wait(flight, return_when=FIRST_COMPLETED).done:
                    found, records = flight.pop(future)
                    row, error = self._end(future, found, records, journal)
                    if isinstance(error, ResourceError):
                        waiting.clear()
                    yield row, error

    def _begin(self, name: str, journal: Journal) -> None:
        seen, old = self.seen.sights.tomograms[name], self.works.tomograms.get(name)
        digest = self._digest
        is_again = old is not None and old.counts(seen, digest)
        attempts = old.attempts + 1 if old and is_again else 1
        self._note(
            name,
            Worked(
                seen.size, seen.version, digest, RUNNING, attempts,
                seen.first_seen, seen.complete, iso(self.clock()),
            ),
        )  # fmt: skip
        _patiently(lambda: journal.note({"name": name, "state": "running"}))

    def _end(
        self, future: Future[dict[str, Any]], found: Found, records: Records, journal: Journal
    ) -> tuple[dict[str, Any], TomosegError | None]:
        """Write what became of a tomogram; return its row and error."""
        begun = self.works.tomograms[found.name]
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
            is_wrong = isinstance(error, WRONG)
            state = REFUSED if is_wrong else FAILED
            worked = replace(done, state=state, error=error.message, remedy=error.remedy)
            row = failed_row(found.name, error, records) | {
                "attempts": begun.attempts,
                "is_set_aside": is_wrong or begun.attempts > len(self.watch.pauses_seconds),
            }
            self._note(found.name, worked)
        _patiently(lambda: journal.note(row))
        return row, error

    def _note(self, name: str, worked: Worked) -> None:
        """Write a tomogram's row; one that is done shows that there is no trouble any more."""
        self.claim.check()
        works = self.works.with_one(name, worked)
        self.works = replace(works, trouble=None) if worked.state == DONE else works
        _patiently(lambda: self.works.write(self.seen.place.results))

    def _stop(self, error: TomosegError, *, is_refusal: bool = False) -> None:
        trouble = stopped(self.works.trouble, error, self._digest, self.clock())
        self.works = replace(self.works, trouble=replace(trouble, is_refusal=is_refusal))
        _patiently(lambda: self.works.write(self.seen.place.results))

    @property
    def _digest(self) -> str:
        assert self.seen.recipe is not None
        return self.seen.recipe.digest

    def _earlier_rows(self, session: Session) -> list[dict[str, Any]]:
        """Return rows of earlier runs, and of what waits for the next."""
        kept = _rows_of(session.output)
        waiting = [{"name": name, "state": "waiting"} for name in self.seen.ready]
        return [
            {"name": row["name"], "state": "waiting"} if row["state"] == "running" else row
            for row in (*kept, *waiting)
        ]


@contextmanager
def opened_work(
    watch: Watch, name: str, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> Iterator[Work]:
    """Hold a session's output and yield what is to be done, checked as ``validate`` does.

    Parameters
    ----------
    name
        Of the session, or its URL.

    Raises
    ------
    ClaimError
        If another run works on it.
    RequestError, ModelError
        If its recipe is wrong; that is recorded, and not tried again before it changes.
    ResourceError
        If the disk is too full or the cluster is not there; recorded, and tried after a pause.
    """
    place = place_of(watch, name)
    with explaining(), claimed(place.results) as claim:
        seen = look_at(watch, place, clock(), is_mine=True)
        work = Work(watch, seen, None, claim, clock, seen.works)
        with recording(work):
            work.session = _planned(watch, seen)
        yield work


@contextmanager
def recording(work: Work) -> Iterator[None]:
    """Record what goes wrong in the block as trouble of the whole session, and raise it."""
    try:
        with explaining():
            yield
    except ClaimError:
        raise
    except TomosegError as error:
        work.refuse(error)
        raise


def _planned(watch: Watch, seen: SessionLook) -> Session | None:
    assert seen.recipe is not None
    recipe, ready = seen.recipe.right, seen.ready[: watch.limits.tomograms_a_run]
    if not ready:
        return None
    rows = seen.sights.tomograms
    session = plan_session(recipe, [Found(name, rows[name].url) for name in ready])
    check_session(session)
    return replace(session, left_out=seen.sights.left_out)


def _rows_of(output: Folder) -> list[dict[str, Any]]:
    if not output.exists("session.json"):
        return []
    return list(output.read_json("session.json")["tomograms"])


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


@contextmanager
def cluster_of(work: Work) -> Iterator[tuple[str | None, str]]:
    """Start or reach the workers of a session; yield the scheduler's address and its dashboard.

    Raises
    ------
    ResourceError
        If that is not possible; recorded, and tried after a pause.
    """
    session = work.session
    if session is None:
        yield None, ""
        return
    with recording(work), session_address(session) as address:
        with runner_at(address, session.recipe.compute) as runner:
            dashboard = runner.dashboard
        yield address, dashboard


def processing(work: Work, address: str | None) -> Process:
    """Return what takes a tomogram through the stages in this process."""
    session = work.session
    assert session is not None

    def process(found: Found, records: Records) -> dict[str, Any]:
        with runner_at(address, session.recipe.compute) as runner:
            context = session.context(found, runner, lambda *progress: work.claim.check())
            for stage in STAGES:
                records[stage] = guarded_stage(context, stage)
            return finished_row(context, records)

    return process
