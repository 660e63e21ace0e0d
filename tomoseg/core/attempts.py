"""One item's work: named where it fails, tried again where that may help."""

from __future__ import annotations

import contextlib
import errno
import logging
import time
from collections.abc import Iterator
from typing import Any, Protocol

from tomoseg.core.errors import (
    REFUSALS,
    AwayError,
    BlockError,
    FullDiskError,
    ResourceError,
    StoreError,
    TomosegError,
    is_away,
)
from tomoseg.core.events import at

ATTEMPTS = 3
PAUSE_SECONDS = 1.0

FORBIDDEN = (
    "Look who owns the folder; under systemd, name it in ReadWritePaths of the watch and of the "
    "workers (systemctl edit), and restart both."
)

log = logging.getLogger(__name__)


class Named(Protocol):
    """What runs: a picklable function of one item that says what it is called there."""

    def __call__(self, item: Any, /) -> dict[str, Any]:
        """Do the work of one item and return its receipt."""

    def name(self, item: Any, /) -> str:
        """Return the item's name for errors and logs."""


def run_patiently(task: Named, item: Any) -> dict[str, Any]:
    """Run one item, again if that may help."""
    for attempt in range(1, ATTEMPTS):
        try:
            return run_named(task, item)
        except TomosegError as error:
            if not can_pass(error):
                raise
            time.sleep(PAUSE_SECONDS * attempt)
    return run_named(task, item)


def run_named(task: Named, item: Any) -> dict[str, Any]:
    """Run one item; whatever goes wrong comes out as an error that names it."""
    try:
        with explaining():
            return task(item)
    except TomosegError as error:
        trace = None if isinstance(error, REFUSALS) else error.__cause__ or error
        with at(block=task.name(item)):
            log.info("the block failed: %s", error.message, exc_info=trace)
        raise error.within(block=task.name(item)) from error


@contextlib.contextmanager
def explaining() -> Iterator[None]:
    """Turn every exception into one of ours: the only place that catches them all."""
    try:
        yield
    except TomosegError:
        raise
    except Exception as error:
        raise _explained(error) from error


def can_pass(error: TomosegError) -> bool:
    """Tell whether trying again may help: storage and lost workers yes, wrong input no."""
    return type(error) in (BlockError, StoreError, AwayError)


def _explained(error: Exception) -> TomosegError:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FullDiskError(
            f"the disk is full ({error})",
            remedy="Free space and run again: finished blocks are kept.",
        )
    if isinstance(error, OSError) and error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return StoreError(f"{type(error).__name__}: {error}", remedy=FORBIDDEN)
    if isinstance(error, MemoryError):
        return ResourceError(
            f"out of memory ({error})",
            remedy="Use smaller blocks (blocks.shape) or fewer workers (compute.workers).",
        )
    # What botocore raises where no store answers is no OSError.
    is_storage = type(error).__module__.partition(".")[0] in ("botocore", "obstore")
    kinds = {kind.__name__ for kind in type(error).__mro__} if is_storage else set()
    if is_away(error) or kinds & {"ConnectionError", "HTTPClientError"}:
        return AwayError(
            f"{type(error).__name__}: {error}", remedy="Look at the network drive or the store"
        )
    if isinstance(error, OSError) or is_storage:
        return StoreError(f"{type(error).__name__}: {error}")
    return BlockError(f"{type(error).__name__}: {error}").noting(error)
