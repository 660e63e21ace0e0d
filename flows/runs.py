"""The runs of sessions as Prefect knows them: which are at work, which are dead, which are held."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterState,
    FlowRunFilterStateName,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.states import Cancelled, Scheduled

from tomoseg.core.attempts import explaining
from tomoseg.core.errors import TomosegError
from tomoseg.io.stores import Life, Owner, living_owner
from tomoseg.service.arrivals import iso
from tomoseg.service.watching.changes import pause_session
from tomoseg.service.watching.looks import SessionLook

ARRIVALS = "tomoseg arrivals"
STOPPED, HELD = "Stopped", "Session paused"
"""States beside Prefect's own: ended from outside, goes on; cancelled by a person, does not."""
GRACE = timedelta(seconds=15)
"""So long a run that says nothing of its process may have none that holds the output."""
SILENT = timedelta(minutes=3)
"""The same of a run whose process cannot be seen from here."""
KEPT = timedelta(days=1)
OLD_RUNNER = "Runner is shutting down."
"""What earlier versions left of runs that ended with their watch."""


log = logging.getLogger("tomoseg.service.watching.runs")


def stopped(why: str) -> State[Any]:
    """Return the state of a run that was ended from outside; that is no attempt."""
    return Cancelled(name=STOPPED, message=f"{why}; its session goes on with the next look")


def is_attempt(state: State[Any]) -> bool:
    """Tell whether a run ended by itself, and not from outside."""
    return state.name not in (STOPPED, HELD)


def busy(
    client: SyncPrefectClient,
    looks: Sequence[SessionLook],
    watch: Path,
    now: datetime,
    mine: Collection[object] = (),
) -> set[str]:
    """Return the watch's sessions with a run that has not ended; the dead are told to Prefect.

    Parameters
    ----------
    watch
        The file; runs of other watches hold no place of this one.
    mine
        Ids of runs whose processes this process looks after.
    """
    wanted = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
    by_name = {one.session.name: one for one in looks}
    found = set()
    for run in _runs(client, FlowRunFilterState(type=FlowRunFilterStateType(any_=wanted))):
        session = session_of(run.parameters)
        if not is_of(run.parameters, watch):
            continue
        if run.id in mine or not _has_ended(client, run, by_name.get(session), now):
            found.add(session)
    return found


def hold_cancelled(
    client: SyncPrefectClient, looks: Sequence[SessionLook], watch: Path, now: datetime
) -> set[str]:
    """Pause each session whose run a person cancelled in Prefect; return their names."""
    held = set()
    by_name = {one.session.name: one for one in looks}
    cancelled = FlowRunFilterState(
        type=FlowRunFilterStateType(any_=[StateType.CANCELLED]),
        name=FlowRunFilterStateName(any_=["Cancelled"]),
    )
    recent = FlowRunFilterEndTime.model_validate({"after_": now - KEPT})
    for run in _runs(client, cancelled, recent):
        session = session_of(run.parameters)
        if not is_of(run.parameters, watch) or session not in by_name or run.state is None:
            continue
        if run.state.message == OLD_RUNNER:
            continue
        held.add(session)
        try:
            with explaining():
                pause_session(by_name[session].session, now, "its run was cancelled in Prefect")
        except TomosegError as error:
            log.warning("session %s is not paused yet: %s", session, error)
            continue
        said = "a person cancelled it: its session waits until it is resumed"
        client.set_flow_run_state(run.id, Cancelled(name=HELD, message=said), force=True)
    return held


def session_of(parameters: Mapping[str, Any]) -> str:
    """Return the session that a run with these parameters is of."""
    return str(parameters.get("session", ""))


def is_of(parameters: Mapping[str, Any], watch: Path) -> bool:
    """Tell whether a run belongs to a watch; one that says nothing belongs to all."""
    return bool(parameters.get("watch", str(watch)) == str(watch))


def _runs(
    client: SyncPrefectClient,
    state: FlowRunFilterState,
    ended: FlowRunFilterEndTime | None = None,
) -> list[FlowRun]:
    return client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=[ARRIVALS])),
        flow_run_filter=FlowRunFilter(state=state, end_time=ended),
    )


def _has_ended(
    client: SyncPrefectClient, run: FlowRun, one: SessionLook | None, now: datetime
) -> bool:
    """Tell whether a run that nobody here looks after is dead, then Prefect knows; else help it."""
    try:
        if why := _why_dead(run, one, now):
            is_cancelled = run.state is not None and run.state.is_cancelling()
            state = Cancelled(message=why) if is_cancelled else stopped(why)
            log.warning("session %s: its run is over: %s", run.name, state.message)
            client.set_flow_run_state(run.id, state, force=True)
            return True
        _hasten(client, run, one, now)
    except TomosegError as error:
        log.warning("whether the run of %s lives is not known: %s", run.name, error)
    return False


def _why_dead(run: FlowRun, one: SessionLook | None, now: datetime) -> str:
    """Say why a run is dead; nothing if it is not, or that cannot be told."""
    if run.state is None or run.state.is_scheduled():
        return ""
    life = Life.read(run.infrastructure_pid)
    if life is not None and life.is_gone:
        return f"its process {life.pid} on {life.host} is gone"
    if one is None or one.problem:
        return ""
    silent = GRACE if life is None else SILENT
    rows = one.work.tomograms.values()
    signs = [iso(run.state.timestamp), *(row.finished or row.started for row in rows)]
    if datetime.fromisoformat(max(signs)) > now - silent or _owner(one) is not None:
        return ""
    return "it holds no output and writes nothing"


def _owner(one: SessionLook) -> Owner | None:
    with explaining():
        return living_owner(one.session.results)


def _hasten(
    client: SyncPrefectClient, run: FlowRun, one: SessionLook | None, now: datetime
) -> None:
    """Have what nobody looks after go on: a cancelled run ends, one that waits in vain begins."""
    state, life = run.state, Life.read(run.infrastructure_pid)
    if state is None:
        return
    if state.name == "AwaitingConcurrencySlot":
        client.set_flow_run_state(run.id, Scheduled(scheduled_time=now), force=True)
    if state.is_cancelling() and state.timestamp < now - GRACE and life and life.is_visible and one:
        owner = _owner(one)
        if owner is not None and owner.pid == life.pid:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(life.pid, signal.SIGTERM)
