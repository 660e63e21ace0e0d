"""The Prefect flow that looks what has arrived and starts runs: light, as it runs every minute."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.deployments import run_deployment
from prefect.logging import get_run_logger
from prefect.states import Completed, Crashed

from tomoseg.arrivals import after, iso
from tomoseg.watching.looks import SessionLook, look, orders
from tomoseg.watching.settings import Watch, load_watch
from tomoseg.watching.shown import show

ARRIVALS = "tomoseg arrivals"
LOOK = "tomoseg watch"
SILENT = timedelta(minutes=3)
"""After so long, a run that holds no output and wrote nothing has died."""
KEPT = timedelta(days=1)
FORGOTTEN_AT_ONCE = 20


@flow(name=LOOK, flow_run_name="look", validate_parameters=False, persist_result=False)
def look_for_arrivals(watch: str) -> State[Any]:
    """Look at every session once, and start a run for each that has work and may have its turn.

    Parameters
    ----------
    watch
        Path of the watch's file.
    """
    log = get_run_logger()
    settings, now = load_watch(watch, os.environ), datetime.now(UTC)
    looks = look(settings, now)
    still = show(looks, settings, now)
    with get_client(sync_client=True) as client:
        busy = _busy(client, looks, now)
        _forget(client, now)
    chosen = orders(looks, settings, now, busy)
    started = [one.place.name for one in chosen if start(one, settings, now)]
    problems = sum(bool(one.problem) for one in looks)
    said = f"{len(looks)} sessions, {len(busy)} in work, started: {', '.join(started) or 'none'}"
    said += f"; {problems} could not be looked at" if problems else ""
    log.info(said)
    if still is not None:
        log.error("standstill: %s. %s", still.say, still.remedy)
    return Completed(message=said)


def start(one: SessionLook, watch: Watch, now: datetime) -> FlowRun | None:
    """Start a session's run, or find the one that was; one that died is followed after a pause."""
    for number in count(1):
        run = run_deployment(
            f"{ARRIVALS}/session",
            parameters={"session": one.place.name},
            flow_run_name=one.place.name,
            timeout=0,
            as_subflow=False,
            idempotency_key=f"{one.key}:{number}",
            tags=["live" if one.is_live(watch, now) else "backlog"],
        )
        assert isinstance(run, FlowRun)
        if run.state is None or not run.state.is_final():
            return run
        if now < after(iso(run.state.timestamp), watch.pauses_seconds, number):
            return None
    return None


def _busy(client: SyncPrefectClient, looks: Sequence[SessionLook], now: datetime) -> set[str]:
    """Return the sessions with a run that has not ended; runs that died are told to Prefect."""
    wanted = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
    runs = client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=[ARRIVALS])),
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=wanted))
        ),
    )
    by_name = {one.place.name: one for one in looks}
    busy = set()
    for run in runs:
        session = str(run.parameters.get("session", ""))
        if session in by_name and _has_died(run, by_name[session], now):
            client.set_flow_run_state(
                run.id, Crashed(message="it holds no output and writes nothing"), force=True
            )
        else:
            busy.add(session)
    return busy


def _has_died(run: FlowRun, one: SessionLook, now: datetime) -> bool:
    if one.is_at_work or one.problem or run.state is None or run.state.is_scheduled():
        return False
    rows = one.works.tomograms.values()
    signs = [iso(run.state.timestamp), *(row.finished or row.started for row in rows)]
    return datetime.fromisoformat(max(signs)) < now - SILENT


def _forget(client: SyncPrefectClient, now: datetime) -> None:
    """Remove looks of other days: a minute each, they would fill the server."""
    old = client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=[LOOK])),
        flow_run_filter=FlowRunFilter(
            end_time=FlowRunFilterEndTime.model_validate({"before_": now - KEPT})
        ),
        limit=FORGOTTEN_AT_ONCE,
    )
    for run in old:
        client.delete_flow_run(run.id)
