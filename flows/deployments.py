"""What ``python -m flows.watch`` serves: looks that are asked for, and sessions' runs."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.types.entrypoint import EntrypointType

from flows.arrivals import process_arrivals
from flows.look import look_for_arrivals
from flows.watch import EVENT


def deployed(path: Path) -> tuple[UUID, UUID]:
    """Tell Prefect of ``tomoseg watch/watch`` and ``tomoseg arrivals/session``; return their ids.

    Earlier versions gave the first a schedule, and the second a limit, whose slots outlived those
    who held them: both are removed. How many runs there are is for looks to say.
    """
    sooner = DeploymentEventTrigger(name="tomoseg: look sooner", expect={EVENT})
    looking = look_for_arrivals.to_deployment(
        "watch",
        triggers=[sooner],
        parameters={"watch": str(path)},
        description="Looks now what has arrived in the sessions; the watch does so by itself, too.",
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    working = process_arrivals.to_deployment(
        "session",
        parameters={"watch": str(path)},
        description="Processes what is ready in one session.",
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    looks, runs = _applied(looking), _applied(working)
    with get_client(sync_client=True) as client:
        for schedule in client.read_deployment_schedules(looks):
            client.delete_deployment_schedule(looks, schedule.id)
    return looks, runs


def _applied(deployment: object) -> UUID:
    assert isinstance(deployment, RunnerDeployment)
    # Said, and not left out: only then a limit that there was is removed.
    deployment.concurrency_limit = None
    found = deployment.apply()
    assert isinstance(found, UUID)
    return found
