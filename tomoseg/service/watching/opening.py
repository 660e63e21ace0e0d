"""A run's hold on a session: the output is claimed, the recipe checked, the cluster reached."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from tomoseg.compute.clusters import runner_at
from tomoseg.core.attempts import explaining
from tomoseg.core.errors import ClaimError, TomosegError
from tomoseg.io.stores import claimed
from tomoseg.io.volumes.sources import Found
from tomoseg.pipeline.checks import check_session
from tomoseg.pipeline.session import (
    Records,
    Session,
    plan_session,
    process_tomogram,
    session_address,
)
from tomoseg.service.arrivals import DIED, FAILED, RUNNING, SessionWork, iso
from tomoseg.service.watching.looks import SessionLook, look_at, with_losses
from tomoseg.service.watching.run import Process, SessionRun
from tomoseg.service.watching.sessions import WatchedSession, find_session
from tomoseg.service.watching.settings import Watch


@contextmanager
def opened_run(
    watch: Watch, name: str, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> Iterator[SessionRun]:
    """Hold a session's output and yield what is to be done, checked as ``validate`` does.

    Parameters
    ----------
    name
        Of the session, or its URL. If another run works on it, this one waits.

    Raises
    ------
    RequestError, ModelError
        If its recipe is wrong; that is recorded, and not tried again before it changes.
    ResourceError
        If the disk is too full or the cluster is not there; recorded, and tried after a pause.
    """
    session = find_session(watch, name)
    with explaining(), ExitStack() as stack:
        claim, waits = None, ""
        try:
            claim = stack.enter_context(claimed(session.results))
        except ClaimError as error:
            waits = error.message
        if claim is None:
            yield SessionRun(watch, SessionLook(session), None, None, clock, waits=waits)
            return
        now = clock()
        seen = look_at(watch, session, now, is_mine=True)
        if not seen.is_held:
            seen = with_losses(seen, seen.comparable(now), now, is_mine=True)
        run = SessionRun(watch, seen, None, claim, clock, seen.work)
        run.waits = next((each.say for each in seen.hindrances if each.kind != "recipe"), "")
        with recording(run):
            run.session = _planned(watch, seen)
        yield run


@contextmanager
def recording(run: SessionRun) -> Iterator[None]:
    """Record what goes wrong in the block as trouble of the whole session, and raise it."""
    try:
        with explaining():
            yield
    except ClaimError:
        raise
    except TomosegError as error:
        run.refuse(error)
        raise


def note_death(session: WatchedSession, why: str, now: datetime) -> None:
    """Record that the process of a session's run died: what it had in work has failed once.

    Raises
    ------
    ClaimError
        If another run works on it.
    """
    with explaining(), claimed(session.results):
        work = SessionWork.read(session.results)
        for name, row in work.tomograms.items():
            if row.state == RUNNING:
                dead = replace(row, state=FAILED, finished=iso(now), error=f"{DIED}: {why}")
                work = work.with_one(name, dead)
        work.write(session.results)


def _planned(watch: Watch, seen: SessionLook) -> Session | None:
    if seen.recipe is None or seen.is_held:
        return None
    recipe, ready = seen.recipe.right, seen.ready[: watch.limits.tomograms_a_run]
    if not ready:
        return None
    rows = seen.sights.tomograms
    session = plan_session(recipe, [Found(name, rows[name].url) for name in ready])
    check_session(session)
    return replace(session, left_out=seen.sights.left_out)


@contextmanager
def cluster_of(run: SessionRun) -> Iterator[tuple[str | None, str]]:
    """Start or reach the workers of a session; yield the scheduler's address and its dashboard.

    Raises
    ------
    ResourceError
        If that is not possible; recorded, and tried after a pause.
    """
    session = run.session
    if session is None:
        yield None, ""
        return
    with recording(run), session_address(session) as address:
        with runner_at(address, session.recipe.compute) as runner:
            dashboard = runner.dashboard
        yield address, dashboard


def processing(run: SessionRun, address: str | None) -> Process:
    """Return what takes a tomogram through the stages in this process."""
    session = run.session
    assert session is not None

    def process(found: Found, records: Records) -> dict[str, Any]:
        with runner_at(address, session.recipe.compute) as runner:
            run_stage = session.stages_on(runner, lambda *progress: run.claim.check())
            return process_tomogram(session, found, run_stage, records)

    return process
