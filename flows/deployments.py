"""What ``python -m flows.watch`` serves: looks by schedule and by event, and sessions' runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.types.entrypoint import EntrypointType

from flows.arrivals import process_arrivals
from flows.look import look_for_arrivals
from flows.watch import EVENT
from tomoseg.watching.settings import Watch


def deployments(watch: Watch, path: Path) -> tuple[RunnerDeployment, RunnerDeployment]:
    """Return the deployments ``tomoseg watch/watch`` and ``tomoseg arrivals/session``."""
    schedule: dict[str, Any] = {"interval": watch.seconds_between_looks}
    if watch.cron is not None:
        schedule = {"cron": watch.cron}
    sooner = DeploymentEventTrigger(name="tomoseg: look sooner", expect={EVENT})
    looking = look_for_arrivals.to_deployment(
        "watch",
        **schedule,
        paused=False,
        triggers=[sooner],
        parameters={"watch": str(path)},
        description="Looks what has arrived in the sessions, and starts a run for each with work.",
        concurrency_limit=ConcurrencyLimitConfig(
            limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW
        ),
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    working = process_arrivals.to_deployment(
        "session",
        parameters={"watch": str(path)},
        description="Processes what is ready in one session.",
        concurrency_limit=ConcurrencyLimitConfig(
            limit=watch.limits.session_runs, collision_strategy=ConcurrencyLimitStrategy.ENQUEUE
        ),
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    assert isinstance(looking, RunnerDeployment)
    assert isinstance(working, RunnerDeployment)
    return looking, working
