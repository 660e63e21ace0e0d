"""One look at what has arrived, and a run for each session with work: light, as it is often."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterEndTime,
)
from prefect.client.schemas.objects import FlowRun, State
from prefect.deployments import run_deployment
from prefect.logging import get_run_logger
from prefect.states import Completed

from flows.runs import ARRIVALS, KEPT, busy, hold_cancelled, is_attempt
from tomoseg.service.arrivals import after, iso
from tomoseg.service.watching.looks import SessionLook, orders, survey
from tomoseg.service.watching.settings import Watch, load_watch
from tomoseg.service.watching.shown import show

LOOK = "tomoseg watch"
FORGOTTEN_AT_ONCE = 20

log = logging.getLogger("tomoseg.service.watching.look")


@flow(name=LOOK, flow_run_name="look", validate_parameters=False, persist_result=False)
def look_for_arrivals(watch: str) -> State[Any]:
    """Look at every session once, asked by a person or an event.

    Parameters
    ----------
    watch
        Path of the watch's file.
    """
    said = look_once(Path(watch))
    get_run_logger().info(said)
    return Completed(message=said)


def look_once(path: Path, mine: Collection[object] = ()) -> str:
    """Look at every session, start a run for each that has work and may have its turn; say so.

    What was seen is written and shown before Prefect is asked.

    Parameters
    ----------
    path
        Of the watch's file.
    mine
        Ids of the runs that this process looks after.
    """
    settings, now = load_watch(path, os.environ), datetime.now(UTC)
    found = survey(settings, now)
    looks, warnings = found.looks, found.presence.warnings
    still = show(looks, settings, now, missing_places=len(warnings))
    for each in warnings:
        log.warning("the watch: %s. %s", each.say, each.remedy)
    with get_client(sync_client=True) as client:
        at_work = busy(client, looks, path, now, mine)
        held = hold_cancelled(client, looks, path, now)
        _forget(client, now)
    chosen = orders(looks, settings, now, at_work | held)
    started = [one.session.name for one in chosen if start(one, settings, path, now)]
    problems = sum(bool(one.problem) for one in looks)
    if still is not None:
        log.error("standstill: %s. %s", still.say, still.remedy)
    said = f"{len(looks)} sessions, {len(at_work)} in work, started: {', '.join(started) or 'none'}"
    return said + (f"; {problems} could not be looked at" if problems else "")


def start(one: SessionLook, watch: Watch, path: Path, now: datetime) -> FlowRun | None:
    """Start a session's run, or find the one that was.

    One that failed or died by itself is followed after a pause, one that was ended at once.
    """
    attempts = 0
    for number in count(1):
        run = run_deployment(
            f"{ARRIVALS}/session",
            parameters={"session": one.session.name, "watch": str(path)},
            flow_run_name=one.session.name,
            timeout=0,
            as_subflow=False,
            idempotency_key=f"{one.key}:{number}",
            tags=["live" if one.is_live(watch, now) else "backlog"],
        )
        assert isinstance(run, FlowRun)
        if run.state is None or not run.state.is_final():
            return run
        if is_attempt(run.state):
            attempts += 1
            if now < after(iso(run.state.timestamp), watch.pauses_seconds, attempts):
                return None
    return None


def _forget(client: SyncPrefectClient, now: datetime) -> None:
    """Remove looks of other days: those of earlier versions, one each minute, fill the server."""
    old = client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=[LOOK])),
        flow_run_filter=FlowRunFilter(
            end_time=FlowRunFilterEndTime.model_validate({"before_": now - KEPT})
        ),
        limit=FORGOTTEN_AT_ONCE,
    )
    for run in old:
        client.delete_flow_run(run.id)
