"""What runs on a Dask worker: items, and questions that are asked before.

A worker computes for a run only if its code is the run's. One whose code lacks what stands here
tells an error of Dask's, and gets no work either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tomoseg.core.attempts import Named, explaining, run_named
from tomoseg.core.errors import TomosegError, UnfitWorkerError
from tomoseg.core.events import Scope, at
from tomoseg.core.version import code_version

SAME_CODE = "Install the same tomoseg on every worker and start them again"

ERRORS_ALONE = {
    "version": 1,
    "incremental": True,
    "loggers": {name: {"level": "ERROR"} for name in ("distributed", "tornado", "bokeh")},
}
"""Levels alone: with a handler of its own Dask would write lines that are not this process's."""
KEPT_MESSAGES = "distributed.admin.low-level-log-length"

Question = Callable[[], dict[str, Any]]
"""Picklable, hashable; what it returns is small."""


@dataclass(frozen=True)
class Asked:
    """A question that is sent as work."""

    def name(self, question: Question) -> str:
        """Return what is said of it in errors."""
        return "question"

    def __call__(self, question: Question) -> dict[str, Any]:
        """Return the answer."""
        return question()


async def answered(question: Question, code: str) -> dict[str, Any] | TomosegError:
    """Return what a worker answers, found beside the loop in which it lives."""
    if code != code_version():
        return _other_code(code)
    return await asyncio.to_thread(_answer, question)


def _answer(question: Question) -> dict[str, Any] | TomosegError:
    try:
        with explaining():
            return question()
    except TomosegError as error:
        return error


def unfit(told: BaseException) -> TomosegError:
    """Return why a worker that answered with an error gets no work."""
    if isinstance(told, TomosegError):
        return told
    return UnfitWorkerError(
        f"it cannot be asked, as one of another version: {type(told).__name__}: {told}",
        remedy=SAME_CODE,
    )


def _other_code(code: str) -> UnfitWorkerError:
    return UnfitWorkerError(f"it has tomoseg {code_version()}, the run {code}", remedy=SAME_CODE)


def attempted_here(
    task: Named, item: Any, once: str = "", scope: Scope | None = None, code: str = ""
) -> tuple[str, dict[str, Any] | TomosegError | None]:
    """Run one item on a Dask worker; return the worker and the receipt or what went wrong.

    ``scope`` is what the client works on: the worker's log lines and counts name it too. A worker
    whose code is not the client's does nothing.

    What is to be begun ``once`` under that name, and was begun by a worker that is gone, is left
    alone: then that worker and None are returned.
    """
    from distributed import get_worker

    worker = get_worker()
    if code != code_version():
        return str(worker.address), _other_code(code)
    if once and (gone := _begun_on(worker, once)):
        return gone, None
    try:
        with at(scope):
            return str(worker.address), run_named(task, item)
    except TomosegError as error:
        return str(worker.address), error


def _begun_on(worker: Any, name: str) -> str | None:
    """Return the worker that began what has this name; if none did, say that this one does."""
    from distributed.utils import sync

    for _, address in sync(worker.loop, worker.scheduler.events, topic=name):
        return str(address)
    sync(worker.loop, worker.scheduler.log_event, topic=name, msg=worker.address)
    return None


def quieten() -> None:
    """Let Dask's own logs begin at errors, as lines of ours, unless a person has set them.

    It reads this when ``distributed`` is first imported, here and in its workers. Its messages are
    few, too: of the last to each worker it keeps a thousand, and each holds a block with all that
    its work is.
    """
    import dask

    if not dask.config.get("logging", None):
        dask.config.set({"logging": ERRORS_ALONE})
    if dask.config.get(KEPT_MESSAGES, None) is None:
        dask.config.set({KEPT_MESSAGES: 10})
