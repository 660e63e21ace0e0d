"""Looks that are due run in the process that serves: one of their own costs seconds each minute."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.responses import OrchestrationResult, SetStateStatus
from prefect.exceptions import PrefectSignal
from prefect.flow_engine import run_flow_sync
from prefect.states import Cancelled, Pending

from flows.look import look_for_arrivals
from tomoseg.attempts import explaining
from tomoseg.errors import TomosegError

SECONDS_BETWEEN = 2.0
"""Between two questions to Prefect's server, a hundredth of a second each."""
STOP_SECONDS = 10.0

log = logging.getLogger("tomoseg.watching.due")


@contextmanager
def looking(deployment: UUID) -> Iterator[None]:
    """Run, beside the block, the looks that are due of a deployment, one at a time."""
    stop = threading.Event()
    thread = threading.Thread(target=_keep_looking, args=(deployment, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(STOP_SECONDS)


def _keep_looking(deployment: UUID, stop: threading.Event) -> None:
    while not stop.wait(SECONDS_BETWEEN):
        try:
            with explaining():
                run_due(deployment)
        except TomosegError as error:
            log.warning("no look: %s", error)
        except PrefectSignal as signal:
            log.warning("Prefect's server ended a look: %s", signal)


def run_due(deployment: UUID) -> bool:
    """Run the last look that is due; tell whether one was.

    Those before it are cancelled: they would find nothing else.
    """
    with get_client(sync_client=True) as client:
        now = datetime.now(UTC)
        due = client.get_scheduled_flow_runs_for_deployments([deployment], now)
        due.sort(key=lambda run: run.next_scheduled_start_time or now)
        for run in due[:-1]:
            client.set_flow_run_state(run.id, Cancelled(message="a later look was due too"))
        if not due:
            return False
        # Only one of several watches gets it.
        answer: OrchestrationResult[Any] = client.set_flow_run_state(due[-1].id, Pending())
        if answer.status != SetStateStatus.ACCEPT:
            return False
        last = client.read_flow_run(due[-1].id)
    run_flow_sync(look_for_arrivals, flow_run=last, parameters=last.parameters, return_type="state")
    return True
