"""The process that serves: it looks by itself, and starts, minds and ends the runs' processes.

A run's process is told to Prefect as the run's ``infrastructure_pid``, so that whoever looks later
knows whether it is still there. Prefect's server may be away: looks go on, and so do runs.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import State
from prefect.client.schemas.responses import OrchestrationResult, SetStateStatus
from prefect.exceptions import ObjectNotFound, PrefectSignal
from prefect.flow_engine import run_flow_sync
from prefect.states import Cancelled, Crashed, Pending, Scheduled

from flows.deployments import deployed
from flows.look import look_for_arrivals, look_once
from flows.runs import is_of, session_of, stopped
from tomoseg.core.attempts import explaining
from tomoseg.core.errors import RequestError, TomosegError
from tomoseg.io.stores import Life
from tomoseg.service.watching.opening import note_death
from tomoseg.service.watching.sessions import find_session
from tomoseg.service.watching.settings import Watch

ENDING = (signal.SIGTERM, signal.SIGINT)
ROUND_SECONDS = 0.5
ASK_SECONDS = 2.0
"""Between two questions to Prefect's server, a hundredth of a second each."""
END_SECONDS = 10.0
"""So long a run's process may take to end; then it is killed."""
TELL_SECONDS = 3.0
"""So long Prefect's server may take to hear that a run has ended with its watch."""
TOLD_SECONDS = 600.0
"""So often a look is told that found nothing new."""

log = logging.getLogger("tomoseg.service.watching.serving")


def serve(watch: Watch, path: Path) -> int:
    """Look and process until this process is told to end; then end the runs in order.

    Returns
    -------
    0, or 1 if it cannot go on and is to be started again.

    Raises
    ------
    RequestError
        If the watch's crontab line is none.
    """
    next_look(watch, datetime.now(UTC))
    runs = Runs(watch, path)

    def end(*_signal: object) -> None:
        runs.is_ending = True

    for number in ENDING:
        signal.signal(number, end)
    # Neither keeps this process from ending its runs in time, whatever it waits for.
    beside = [
        threading.Thread(target=target, args=arguments, daemon=True)
        for target, arguments in ((keep_minding, (runs,)), (keep_looking, (watch, runs)))
    ]
    for thread in beside:
        thread.start()
    while not runs.is_ending and all(thread.is_alive() for thread in beside):
        time.sleep(ROUND_SECONDS)
    was_told = runs.is_ending
    log.info("ends, with %d runs at work", len(runs.ids))
    runs.end()
    return 0 if was_told else 1


class Told:
    """Tells what is new, and every ten minutes what is not."""

    def __init__(self) -> None:
        self._said, self._at = "", float("-inf")

    def __call__(self, level: int, text: str) -> None:
        """Log a line, if it is time."""
        if text != self._said or time.monotonic() > self._at + TOLD_SECONDS:
            log.log(level, "%s", text)
            self._said, self._at = text, time.monotonic()

    @contextmanager
    def warning(self, of: str) -> Iterator[None]:
        """Go on after what failed in the block: it is tried again soon."""
        try:
            with explaining():
                yield
        except (TomosegError, PrefectSignal) as error:
            self(logging.WARNING, f"{of}: {error}")


@dataclass
class Own:
    """A run whose process this one started."""

    id: UUID
    session: str
    process: subprocess.Popen[bytes]
    is_known: bool = False
    """Whether Prefect knows of the process."""
    ends_at: float = float("inf")
    """When the process is killed that was told to end, by :func:`time.monotonic`."""


class Runs:
    """The runs that this process looks after.

    Parameters
    ----------
    watch, path
        What the file says, and the file.
    """

    def __init__(self, watch: Watch, path: Path) -> None:
        self.path = path
        self.ids: frozenset[UUID] = frozenset()
        self.news = threading.Event()
        self.is_ending = False
        self.deployments: tuple[UUID, UUID] | None = None
        self._watch = watch
        self._own: list[Own] = []
        self._asked = float("-inf")
        self._lock = threading.Lock()

    def mind(self) -> None:
        """Take note of what ended, end what was cancelled, and begin what is due."""
        has_ended = any(own.process.poll() is not None for own in self._own)
        if not has_ended and time.monotonic() < self._asked + ASK_SECONDS:
            return
        self._asked = time.monotonic()
        if self.deployments is None:
            self.deployments = deployed(self.path)
            self.news.set()
        with get_client(sync_client=True) as client:
            for own in tuple(self._own):
                if self.is_ending:
                    return
                if own.process.poll() is None:
                    _heed(client, own)
                else:
                    self._settle(client, own)
            self._begin_due(client, self.deployments[1])

    def end(self) -> None:
        """End all runs and begin none: each gives its output free, and is told to go on later."""
        with self._lock:
            self.is_ending = True
        for own in self._own:
            own.process.terminate()
        end = time.monotonic() + END_SECONDS
        for own in self._own:
            try:
                own.process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                own.process.kill()
                own.process.wait()
        with (
            Told().warning("Prefect hears at the next start of the runs that ended"),
            get_client(sync_client=True, httpx_settings={"timeout": TELL_SECONDS}) as client,
        ):
            for own in self._own:
                state = _state(client, own.id)
                if state is not None and (state.is_crashed() or not state.is_final()):
                    _tell(client, own.id, state, stopped("its watch was stopped"))

    def _begin_due(self, client: SyncPrefectClient, deployment: UUID) -> None:
        now = datetime.now(UTC)
        due = client.get_scheduled_flow_runs_for_deployments([deployment], now)
        for run in sorted(due, key=lambda run: run.next_scheduled_start_time or now):
            is_free = len(self._own) < self._watch.limits.session_runs
            if is_free and is_of(run.parameters, self.path) and not self.is_ending:
                if not taken(client, run.id):
                    continue
                own = self._begun(run.id, session_of(run.parameters))
                if own is None:
                    client.set_flow_run_state(run.id, Scheduled(), force=True)
                    return
                _heed(client, own)

    def _begun(self, run: UUID, session: str) -> Own | None:
        """Start the process of a run; none once this process is to end."""
        with self._lock:
            if self.is_ending:
                return None
            command = [sys.executable, "-m", "flows.run", str(run)]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603
            own = Own(run, session, process)
            self._keep([*self._own, own])
            return own

    def _settle(self, client: SyncPrefectClient, own: Own) -> None:
        """Let go of a run whose process has ended, once Prefect knows how."""
        code = own.process.returncode
        why = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        state = _state(client, own.id)
        if state is not None and not state.is_final():
            log.warning("session %s: the process of its run ended: %s", own.session, why)
            if -code in ENDING:
                _tell(client, own.id, state, stopped(why))
            else:
                with Told().warning(f"{own.session}: that its run died is not recorded"):
                    note_death(find_session(self._watch, own.session), why, datetime.now(UTC))
                _tell(client, own.id, state, Crashed(message=f"its process ended: {why}"))
        self._keep([one for one in self._own if one is not own])
        self.news.set()

    def _keep(self, own: list[Own]) -> None:
        self._own, self.ids = own, frozenset(one.id for one in own)


def _state(client: SyncPrefectClient, run: UUID) -> State[Any] | None:
    """Return the state of a run; None if a person deleted it."""
    with suppress(ObjectNotFound):
        return client.read_flow_run(run).state
    return None


def _heed(client: SyncPrefectClient, own: Own) -> None:
    """Let Prefect know of a run's process, and end that if Prefect says so."""
    state = _state(client, own.id)
    if state is not None and not own.is_known:
        client.update_flow_run(own.id, infrastructure_pid=str(Life.here(own.process.pid)))
        own.is_known = True
    if state is not None and not (state.is_cancelling() or state.is_final()):
        return
    if own.ends_at == float("inf"):
        own.ends_at = time.monotonic() + END_SECONDS
        if state is None or state.is_cancelling() or state.is_cancelled():
            own.process.terminate()
    elif time.monotonic() > own.ends_at:
        own.process.kill()


def _tell(client: SyncPrefectClient, run: UUID, old: State[Any], state: State[Any]) -> None:
    """Tell how a run ended that could not do so itself; a person's wish goes before."""
    client.set_flow_run_state(run, Cancelled() if old.is_cancelling() else state, force=True)


def taken(client: SyncPrefectClient, run: UUID) -> bool:
    """Take a run that is due; only one of several watches gets it."""
    here = Life.here()
    pending: State[Any] = Pending(message=f"{here.host}, process {here.pid} starts it")
    answer: OrchestrationResult[Any] = client.set_flow_run_state(run, pending)
    return answer.status == SetStateStatus.ACCEPT


def keep_minding(runs: Runs) -> None:
    """Mind the runs."""
    told = Told()
    while not runs.is_ending:
        with told.warning("runs are not minded"):
            runs.mind()
        time.sleep(ROUND_SECONDS)


def keep_looking(watch: Watch, runs: Runs) -> None:
    """Look at once, when it is time, when there is news of runs and when somebody asks."""
    told, told_asked, due = Told(), Told(), datetime.now(UTC)
    while not runs.is_ending:
        if runs.news.is_set() or datetime.now(UTC) >= due:
            runs.news.clear()
            due = next_look(watch, datetime.now(UTC))
            with told.warning("no look"):
                told(logging.INFO, _looked(runs))
        with told_asked.warning("no look that somebody asked for"):
            if runs.deployments is not None:
                run_asked(runs.deployments[0])
        runs.news.wait(ASK_SECONDS)


def _looked(runs: Runs) -> str:
    try:
        return look_once(runs.path, runs.ids)
    except ObjectNotFound:
        # A server with another database knows of no deployment.
        runs.deployments = None
        raise


def run_asked(deployment: UUID) -> bool:
    """Run the last look that somebody asked for; tell whether one was.

    Those before it are cancelled: they would find nothing else.
    """
    with get_client(sync_client=True) as client:
        now = datetime.now(UTC)
        due = client.get_scheduled_flow_runs_for_deployments([deployment], now)
        due.sort(key=lambda run: run.next_scheduled_start_time or now)
        for run in due[:-1]:
            client.set_flow_run_state(run.id, Cancelled(message="a later look was due too"))
        if not due or not taken(client, due[-1].id):
            return False
        last = client.read_flow_run(due[-1].id)
    run_flow_sync(look_for_arrivals, flow_run=last, parameters=last.parameters, return_type="state")
    return True


def next_look(watch: Watch, now: datetime) -> datetime:
    """Return when to look again.

    Raises
    ------
    RequestError
        If the watch's crontab line is none.
    """
    if watch.cron is None:
        return now + timedelta(seconds=watch.seconds_between_looks)
    from prefect.server.schemas.schedules import CronSchedule

    try:
        schedule = CronSchedule(cron=watch.cron)
    except ValueError as error:
        raise RequestError(
            f"cron: {watch.cron!r} is not a crontab's line",
            remedy='Write five fields, such as "*/5 * * * *", or leave it out.',
        ) from error
    (date,) = asyncio.run(schedule.get_dates(1, now + timedelta(seconds=1)))
    return date
