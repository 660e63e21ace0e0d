"""The process of one session's run: ``python -m flows.run ID`` of a run that Prefect knows."""

from __future__ import annotations

import sys
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.exceptions import Abort
from prefect.flow_engine import run_flow_sync

from flows.arrivals import process_arrivals
from tomoseg.compute.monitoring import configure_logs


def main(arguments: list[str]) -> int:
    """Take the run through its flow; return 0, whatever became of it, once Prefect knows."""
    configure_logs()
    (text,) = arguments
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(UUID(text))
    try:
        run_flow_sync(
            process_arrivals, flow_run=run, parameters=run.parameters, return_type="state"
        )
    except Abort:
        # It was ended before it began.
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
