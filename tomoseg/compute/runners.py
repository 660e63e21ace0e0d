"""Where blocks run: serially here, or on Dask workers. Nobody else knows.

Law 5: a runner keeps a bounded number of blocks in flight, hands out each receipt as it comes and
holds nothing else. Law 8: a failure that can pass is tried again; a block that fails for good
stops its stage with an error that names it.
"""

from __future__ import annotations

import contextlib
import logging
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from tomoseg.compute.vitals import SIGN_SECONDS, find_silence, last_signs, why_lost
from tomoseg.compute.workers import Asked, Question, answered, attempted_here, quieten, unfit
from tomoseg.core.attempts import ATTEMPTS, Named, can_pass, run_patiently
from tomoseg.core.errors import BlockError, ResourceError, TomosegError, UnfitWorkerError
from tomoseg.core.events import here, untold
from tomoseg.core.overlap import overlapped
from tomoseg.core.version import code_version

CONNECT_SECONDS = 20.0
CONNECTS = 5
THREADS = 2
"""Blocks in work at once in one process: as much memory as two, and a device that does not wait."""
GPU_SHARE = 1 / 64
"""What a block asks of a worker's GPU: it must be there. How many blocks a worker has in work is
bounded by its threads, and its device computes one at a time (:mod:`tomoseg.nets.predict`): blocks
that asked for a whole GPU would leave it waiting while they read and write."""

KEYS_KEPT = 1000

STREAK = 3
"""Blocks that fail in a row on one worker alone before it is retired."""

log = logging.getLogger(__name__)


class Runner(Protocol):
    """Maps a task over items; receipts come in any order."""

    @property
    def dashboard(self) -> str:
        """URL of the cluster's dashboard; empty if there is none."""

    def map(
        self,
        task: Named,
        items: Iterable[Any],
        *,
        on_device: bool = False,
        waits: Callable[[str], None] = untold,
    ) -> Iterator[dict[str, Any]]:
        """Yield a receipt for each item; where workers have GPUs, ``on_device`` work goes there.

        While nothing can be done, ``waits`` is told why, again and again.

        Raises
        ------
        BlockError
            If an item fails for good or too often.
        ResourceError
            If the machine or the cluster cannot do the work.
        """

    def ask(self, question: Question, *, on_device: bool = False) -> list[dict[str, Any]]:
        """Return what each process answers that items would go to now, one at least.

        A question is asked once; who answers with an error gets no items.

        Raises
        ------
        TomosegError
            If all answer with an error, such as UnfitWorkerError where their code is another.
        """


class SerialRunner:
    """Items in this process, begun in order.

    Parameters
    ----------
    threads
        Items in work at once: while one computes, the next is read and the last is written. A
        device still computes one at a time (:mod:`tomoseg.nets.predict`).
    """

    dashboard = ""

    def __init__(self, threads: int = 1) -> None:
        self._threads = threads

    def map(
        self,
        task: Named,
        items: Iterable[Any],
        *,
        on_device: bool = False,
        waits: Callable[[str], None] = untold,
    ) -> Iterator[dict[str, Any]]:
        """Yield a receipt for each item, in order."""
        work = partial(run_patiently, task)
        if self._threads == 1:
            return map(work, items)
        return overlapped(work, items, threads=self._threads)

    def ask(self, question: Question, *, on_device: bool = False) -> list[dict[str, Any]]:
        """Return what this process answers."""
        return [question()]


@dataclass(frozen=True)
class Attempt:
    """One of the times that an item is sent to a worker.

    Parameters
    ----------
    item
        What the task is given.
    number
        Counts from 1; each worker that dies counts.
    failed_on
        Workers to avoid: it failed there.
    is_alone
        Whether nothing else may be in flight, so that if its worker dies it is to blame.
    """

    item: Any
    number: int = 1
    failed_on: frozenset[str] = frozenset()
    is_alone: bool = False


class DaskRunner:
    """Items as explicit futures on a Dask cluster, a bounded number in flight.

    Parameters
    ----------
    client
        A ``distributed.Client``; :func:`open_runner` opens and closes it.
    stall_minutes
        If no item finishes for so long, the stage fails instead of waiting for ever.
    ahead
        Items in flight at least, for workers that have still to come.
    """

    def __init__(self, client: Any, *, stall_minutes: float, ahead: int = 0) -> None:
        self._client = client
        self._stall_minutes = stall_minutes
        self._ahead = ahead
        self._streaks: dict[str, int] = {}
        self._unfit: set[str] = set()
        self._answers: dict[Question, list[dict[str, Any]]] = {}
        self._sent = 0

    @property
    def dashboard(self) -> str:
        """URL of the cluster's dashboard, as the scheduler tells it."""
        return str(self._client.dashboard_link or "")

    def map(
        self,
        task: Named,
        items: Iterable[Any],
        *,
        on_device: bool = False,
        waits: Callable[[str], None] = untold,
    ) -> Iterator[dict[str, Any]]:
        """Yield a receipt for each item, as they finish."""
        resources = self._resources() if on_device else None
        waiting = (Attempt(item) for item in items)
        flight: dict[Any, Attempt] = {}
        again: list[Attempt] = []
        try:
            while True:
                room = self._window() - len(flight)
                while room > 0 and (attempt := self._next(flight, again, waiting)) is not None:
                    room -= 1
                    flight[self._submit(task, attempt, resources)] = attempt
                if not flight:
                    return
                for future in self._finished(flight, waits):
                    attempt = flight.pop(future)
                    outcome = self._outcome(future, attempt, task.name(attempt.item), resources)
                    if isinstance(outcome, Attempt):
                        again.append(outcome)
                    else:
                        yield outcome
                    future.release()
        except OSError as error:
            raise _without_scheduler() from error
        finally:
            # Of nothing too the scheduler would tell, and complain if the client is gone by then.
            if flight:
                with contextlib.suppress(OSError):
                    self._client.cancel(list(flight))

    def ask(self, question: Question, *, on_device: bool = False) -> list[dict[str, Any]]:
        """Return what the workers answer; without any yet, what the first does that comes."""
        if question not in self._answers:
            answers = self._asked(question, self._resources() if on_device else None)
            # A cluster that grows with its work grows for a question only if it is sent as work.
            sent = () if answers else self.map(Asked(), [question], on_device=on_device)
            self._answers[question] = [*answers, *sent]
        return self._answers[question]

    def _asked(
        self, question: Question, resources: dict[str, float] | None
    ) -> list[dict[str, Any]]:
        answers = []
        try:
            told = self._client.run(
                answered, question, code_version(), workers=self._fit(resources), on_error="return"
            )
        except OSError as error:
            raise _without_scheduler() from error
        for worker, answer in told.items():
            if not isinstance(answer, BaseException):
                answers.append(answer)
            # A worker that was lost meanwhile says nothing of its code.
            elif not isinstance(answer, OSError):
                self._avoid(worker, unfit(answer), resources)
        return answers

    def _avoid(self, worker: str, error: TomosegError, resources: dict[str, float] | None) -> None:
        """Send nothing more to a worker that does not fit; raise if no other is there."""
        if worker not in self._unfit:
            log.warning("worker %s gets no work: %s", worker, error)
        self._unfit.add(worker)
        if not self._fit(resources):
            raise error

    def _fit(self, resources: dict[str, float] | None) -> list[str]:
        """Return the workers that fit, of those that have what an item asks for."""
        workers = self._gpu_workers() if resources else list(self._client.nthreads())
        return [one for one in workers if one not in self._unfit]

    def _next(
        self, flight: dict[Any, Attempt], again: list[Attempt], waiting: Iterator[Attempt]
    ) -> Attempt | None:
        """Return what to send out now; None while it must wait or nothing is left."""
        if any(one.is_alone for one in flight.values()):
            return None
        if again and again[-1].is_alone and flight:
            return None
        return again.pop() if again else next(waiting, None)

    def _submit(self, task: Named, attempt: Attempt, resources: dict[str, float] | None) -> Any:
        self._sent += 1
        if self._sent % KEYS_KEPT == 0:
            _forget_keys()
        name = task.name(attempt.item)
        key = f"{type(task).__name__}-{name}-{uuid.uuid4().hex[:8]}"
        fit = self._fit(resources) if attempt.failed_on or self._unfit else []
        others = [one for one in fit if one not in attempt.failed_on] or fit
        return self._client.submit(
            attempted_here,
            task,
            attempt.item,
            key if attempt.is_alone else "",
            here(),
            code_version(),
            key=key,
            pure=False,
            resources=resources,
            workers=others or None,
            # Loosely bound, blocks would be stolen by who is idle because nothing fits it.
            allow_other_workers=bool(others) and not self._unfit,
        )

    def _outcome(
        self,
        future: Any,
        attempt: Attempt,
        name: str,
        resources: dict[str, float] | None = None,
    ) -> dict[str, Any] | Attempt:
        """Return the receipt, or the next attempt; raise what no attempt can mend."""
        from distributed import CancelledError, KilledWorker

        if future.status == "error":
            return self._after_a_loss(future.exception(), attempt, name)
        try:
            worker, result = future.result()
        except CancelledError as error:
            raise _without_scheduler() from error
        except KilledWorker as error:
            # It had ended, but its worker died before it told, and so did the next.
            return self._after_a_loss(error, attempt, name)
        if result is None:
            raise why_lost(self._client, worker, name)
        if isinstance(result, UnfitWorkerError):
            self._avoid(worker, result, resources)
            return attempt
        if not isinstance(result, TomosegError):
            self._streaks[worker] = 0
            return dict(result)
        if can_pass(result):
            self._streaks[worker] = self._streaks.get(worker, 0) + 1
            self._retire_if_broken(worker, result)
        if not can_pass(result) or attempt.number >= ATTEMPTS:
            raise result
        return replace(attempt, number=attempt.number + 1, failed_on=attempt.failed_on | {worker})

    def _after_a_loss(self, error: BaseException, attempt: Attempt, name: str) -> Attempt:
        """Return the next attempt of a block whose worker died.

        Dask blames all blocks that the worker had, also those that waited there; the last attempt
        is therefore made with no other block in flight. A scheduler that is not ours may send a
        block to more workers (``allowed-failures``, 3 unless set) before it tells of the first that
        died; the last attempt kills one, whatever is set there.
        """
        from distributed import KilledWorker

        if not isinstance(error, KilledWorker):
            if attempt.number >= ATTEMPTS:
                raise BlockError(
                    f"{type(error).__name__}: {error}",
                    remedy="If workers have another tomoseg or other libraries than this process, "
                    "install the same there.",
                    block=name,
                ) from error
            return replace(attempt, number=attempt.number + 1)
        if attempt.is_alone:
            raise why_lost(self._client, error.last_worker.address, name) from error
        number = attempt.number + error.allowed_failures + 1
        return replace(attempt, number=number, is_alone=number >= ATTEMPTS)

    def _retire_if_broken(self, worker: str, error: TomosegError) -> None:
        """Close a worker on which block after block fails while they succeed elsewhere."""
        workers = self._client.nthreads()
        is_well_elsewhere = any(
            self._streaks.get(other) == 0 for other in workers if other != worker
        )
        if self._streaks[worker] < STREAK or worker not in workers or not is_well_elsewhere:
            return
        log.warning(
            "worker %s is retired: %d blocks in a row failed there and succeed elsewhere; the "
            "last said: %s", worker, self._streaks[worker], error,
        )  # fmt: skip
        self._client.retire_workers([worker])

    def _resources(self) -> dict[str, float] | None:
        """Return what an item that computes on a device asks for, if any worker has a GPU."""
        return {"GPU": GPU_SHARE} if self._gpu_workers() else None

    def _gpu_workers(self) -> list[str]:
        workers = self._client.scheduler_info(n_workers=-1)["workers"]
        return [name for name, one in workers.items() if one["resources"].get("GPU", 0) > 0]

    def _window(self) -> int:
        threads: dict[str, int] = self._client.nthreads()
        return max(2, self._ahead, sum(threads.values()) + len(threads))

    def _finished(self, flight: dict[Any, Any], waits: Callable[[str], None]) -> list[Any]:
        """Wait for a block to finish; tell while no worker is there or gives a sign of life."""
        from distributed import wait

        end, signs, why = time.monotonic() + self._stall_minutes * 60, None, ""
        while (left := end - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError), self._client.as_current():
                state = wait(
                    list(flight), timeout=min(left, SIGN_SECONDS), return_when="FIRST_COMPLETED"
                )
                return list(state.done)
            before, signs, told = signs, last_signs(self._client), why
            if why := find_silence(before, signs):
                waits(why)
            if why and not told:
                log.warning("%s; %d blocks wait", why, len(flight))
        raise ResourceError(
            f"no block finished in {self._stall_minutes:g} minutes on "
            f"{len(self._client.nthreads())} workers",
            remedy="Look at the workers' logs, or at the queue if there are none; if blocks or "
            "the queue are that slow, raise compute.stall_minutes.",
        )


def _forget_keys() -> None:
    """Empty what Dask keeps of the last 100,000 keys that it looked at: ours never come again."""
    from dask.utils import key_split

    key_split.cache_clear()


def _without_scheduler() -> ResourceError:
    return ResourceError("the Dask scheduler went away", remedy="Start it and run again.")


@contextlib.contextmanager
def open_runner(
    address: str | None,
    *,
    stall_minutes: float = 60.0,
    ahead: int = 0,
    security: Any = None,
) -> Iterator[Runner]:
    """Yield a runner on the scheduler at an address, or one in this process for None.

    Parameters
    ----------
    address, stall_minutes, ahead
        As in :class:`DaskRunner`.
    security
        A ``distributed.Security``, for an address of ``tls://``.

    Raises
    ------
    ResourceError
        If no scheduler answers at the address.
    """
    if address is None:
        yield SerialRunner(THREADS)
        return
    quieten()
    with _client(address, security) as client:
        yield DaskRunner(client, stall_minutes=stall_minutes, ahead=ahead)


def _client(address: str, security: Any) -> Any:
    """Return a client; Dask's stumbles, rarely, over a greeting that brings another message."""
    from distributed import Client

    connects = iter(range(CONNECTS - 1))
    while True:
        try:
            return Client(address, set_as_default=False, timeout=CONNECT_SECONDS, security=security)
        except AssertionError:
            if next(connects, None) is None:
                raise
        except OSError as error:
            raise ResourceError(
                f"no Dask scheduler answers at {address}",
                remedy="Start it, or run on this machine: without the address (--set compute={}).",
            ) from error
