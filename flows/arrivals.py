"""The Prefect flow over what has arrived in a session that is watched."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from typing import Any
from uuid import UUID

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectNotFound, TerminationSignal
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed
from prefect.utilities.urls import url_for

from flows.artifacts import (
    Meter,
    progress_of,
    quietly,
    show_links,
    show_picture,
    show_rows,
    show_trouble,
)
from flows.runs import ARRIVALS, stopped
from flows.session import process_stage
from tomoseg.compute.clusters import runner_at
from tomoseg.compute.monitoring import configure_logs
from tomoseg.core.errors import BlockError, ClaimError, StoreError, TomosegError
from tomoseg.core.events import at
from tomoseg.core.layout import PAGE
from tomoseg.io.volumes.sources import Found
from tomoseg.pipeline.session import Records, RunStage, process_tomogram
from tomoseg.service.watching.opening import cluster_of, opened_run
from tomoseg.service.watching.run import Outcome, SessionRun
from tomoseg.service.watching.settings import load_watch

ON_DEVICE = "segment"
LEASE_SECONDS = 60.0
"""After so long, the least that Prefect takes, the slot of a process that died is free again."""


def _is_storage(_task: Any, _run: Any, state: State[Any]) -> bool:
    """Tell whether the store failed: that may pass soon. All else waits for the next attempt."""
    return isinstance(state.result(raise_on_failure=False), StoreError)


@flow(
    name=ARRIVALS,
    flow_run_name="{session}",
    validate_parameters=False,
    persist_result=False,
)
def process_arrivals(session: str, watch: str) -> State[Any]:
    """Take what has arrived in a session and is complete through the stages.

    A wrong recipe fails at once, and is not tried again before it changes. What arrives while it
    runs is left to the next run. Told to end (SIGTERM, SIGINT), it leaves what is in work as it
    found it and gives the output free.

    Parameters
    ----------
    session
        Its name, as in the watch's tables, or its URL.
    watch
        Path of the watch's file.
    """
    configure_logs()
    log = get_run_logger()
    names = {"run": str(flow_run.id), "session": session}
    try:
        with (
            at(**names),
            told_once(),
            opened_run(load_watch(watch, os.environ), session) as run,
        ):
            outcome = _through(run, session)
    except TerminationSignal:
        return _ended()
    except ClaimError as error:
        return Completed(message=f"waits: {error}")
    except TomosegError as error:
        log.error("%s", error, exc_info=isinstance(error, BlockError))
        show_trouble(session, error)
        return Failed(message=str(error))
    return _said(outcome)


@contextmanager
def told_once() -> Iterator[None]:
    """Let the first signal to end raise TerminationSignal in the block, and hear no other after.

    The group that this process is in may be told as well as it is itself.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGTERM, signal.SIGINT)

    def end(number: int, _frame: object) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise TerminationSignal(signal=number)

    earlier = [signal.signal(number, end) for number in numbers]
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is end:
            for number, handler in zip(numbers, earlier, strict=True):
                signal.signal(number, handler)


def _ended() -> State[Any]:
    """Return the state of this run after it was told to end: by a person, or with its watch."""
    with quietly(), get_client(sync_client=True) as client:
        state = client.read_flow_run(UUID(flow_run.id)).state
        if state is not None and state.is_cancelling():
            return Cancelled(message="cancelled")
    return stopped("told to end")


def _through(run: SessionRun, session: str) -> Outcome:
    if run.session is None:
        return run.through(lambda found, records: {})
    logs: dict[str, str] = {}
    output = run.session.output
    with cluster_of(run) as (address, dashboard):
        show_links(session, {"report": f"{output.url}/{PAGE}", "dask": dashboard})
        take = Take(run, session, address, logs)
        outcome = run.through(take)
    show_rows(session, outcome.rows, logs)
    return outcome


class Take:
    """Takes a tomogram through the stages, each a task of its own.

    Parameters
    ----------
    run, session
        The run's hold on the session, and its name.
    address
        Of the Dask scheduler; None computes in this process.
    logs
        Gets the page of the task's log for each tomogram that fails.
    """

    def __init__(
        self, run: SessionRun, session: str, address: str | None, logs: dict[str, str]
    ) -> None:
        assert run.session is not None
        self._run = run
        self._planned = run.session
        self._session = session
        self._address = address
        self._logs = logs
        self._meter: Meter = progress_of(session, len(self._planned.tomograms))
        self._limit = existing_limit(run.watch.limits.gpu)

    def __call__(self, found: Found, records: Records) -> dict[str, Any]:
        """Fill in the stages' records and return the tomogram's row."""
        try:
            with runner_at(self._address, self._planned.recipe.compute) as runner:
                run_stage = partial(self._stage, self._planned.stages_on(runner, self._progress))
                row = process_tomogram(self._planned, found, run_stage, records)
        finally:
            self._meter.end(found.name)
        show_picture(self._session, self._planned.output, row)
        return row

    def _progress(self, *done: Any) -> None:
        self._run.claim.check()
        self._meter(*done)

    def _stage(self, run_stage: RunStage, found: Found, stage: str) -> dict[str, Any]:
        task = process_stage.with_options(retry_condition_fn=_is_storage)
        with (
            at(tomogram=found.name, stage=stage),
            slot(self._limit) if stage == ON_DEVICE else nullcontext(),
        ):
            state = task(found, stage, run_stage, return_state=True)
        if not state.is_completed() and state.state_details.task_run_id:
            self._logs[found.name] = url_for("task-run", state.state_details.task_run_id) or ""
        result: dict[str, Any] = state.result()
        return result


def existing_limit(name: str) -> str:
    """Return a global concurrency limit's name if somebody made it, and nothing otherwise."""
    found = ""
    with quietly(), get_client(sync_client=True) as client, suppress(ObjectNotFound):
        found = client.read_global_concurrency_limit_by_name(name).name
    return found


@contextmanager
def slot(limit: str) -> Iterator[None]:
    """Hold a slot of a global concurrency limit, if one is named."""
    with concurrency(
        limit or [], lease_duration=LEASE_SECONDS, raise_on_lease_renewal_failure=False
    ):
        yield


def _said(outcome: Outcome) -> State[Any]:
    rows = outcome.rows
    if outcome.error is None and not rows:
        return Completed(message=f"waits: {outcome.waits}" if outcome.waits else "nothing is ready")
    failed = [row["name"] for row in rows if row["state"] == "failed"]
    said = f"{len(rows) - len(failed)} of {len(rows)} tomograms done"
    said += f", {outcome.left} left to the next run" if outcome.left else ""
    said += f"; waits: {outcome.waits}" if outcome.waits else ""
    if outcome.error is not None:
        return Failed(message=f"{said}; stopped: {outcome.error}")
    if failed:
        return Failed(message=f"{said}; failed: {', '.join(failed)}")
    return Completed(message=said)
