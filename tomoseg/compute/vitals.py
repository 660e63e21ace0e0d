"""What a scheduler knows of its workers: their last signs of life, and why one was lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tomoseg.core.errors import BlockError, ResourceError, TomosegError

SIGN_SECONDS = 10.0
"""So often a worker must give a sign of life while nothing finishes; it does every half second."""


def last_signs(client: Any) -> dict[str, float] | None:
    """Return the last sign of life of each worker that has blocks, by the scheduler's clock.

    It is None if the scheduler of a ``distributed.Client`` gives none itself.
    """
    scheduler, limit = client.scheduler, SIGN_SECONDS
    try:
        told = client.sync(scheduler.identity, n_workers=-1, callback_timeout=limit)
        busy = client.sync(scheduler.processing, workers=None, callback_timeout=limit)
    except TimeoutError:
        return None
    workers = told["workers"].items()
    return {name: float(one["last_seen"]) for name, one in workers if busy.get(name)}


def find_silence(before: Mapping[str, float] | None, now: Mapping[str, float] | None) -> str:
    """Return what is wrong with workers by two of their last signs of life; empty if nothing is.

    The clocks are the scheduler's: only whether there was another sign counts. Before a first
    look nothing is known of workers that are there.

    >>> find_silence({"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 2.0})
    'the workers that have blocks give no sign of life: a, b'
    >>> find_silence({"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 7.0})
    ''
    """
    if now is None:
        return "the Dask scheduler does not answer"
    if not now:
        return "there is no worker that takes the blocks"
    if before is None or any(at != before.get(name) for name, at in now.items()):
        return ""
    return f"the workers that have blocks give no sign of life: {', '.join(sorted(now))}"


def why_lost(client: Any, worker: str, name: str) -> TomosegError:
    """Return why the block of a name lost the workers that tried it, the last at an address."""
    killed = client.get_events("worker-restart-memory")
    sizes = [event["rss"] / 2**30 for _, event in killed if event["worker"] == worker]
    if sizes:
        return ResourceError(
            "the block needs more memory than a worker may use: the last one was stopped at "
            f"{sizes[-1]:.2g} GiB",
            remedy="Use smaller blocks (blocks.shape) or give each worker more "
            "(compute.memory_gib).",
            block=name,
        )
    return BlockError(
        "each worker that tried the block died, the last with no other block beside it",
        remedy="Look at the workers' logs; if the system ended them for want of memory, use "
        "smaller blocks (blocks.shape) or fewer workers (compute.workers).",
        block=name,
    )
