"""Whether the work of one watch stands still although there is some, since when and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from tomoseg.service.arrivals.accounts import Account
from tomoseg.service.arrivals.facts import Hindrance
from tomoseg.service.arrivals.presence import read_presence
from tomoseg.service.arrivals.standings import Standing
from tomoseg.service.arrivals.words import names, since

PATIENCE_LOOKS, SILENT_LOOKS = 1.5, 3.0
"""So many looks' time may what is ready wait for a run, so that the second look after tells it; and
so long may no look come."""
LEAST_PATIENCE = timedelta(seconds=30)
"""So long may a run take to begin, however often there are looks."""
BLOCK_PATIENCE = timedelta(minutes=10)
"""So long may a block take."""
WAITING = (Standing.SETTLING, Standing.INCOMPLETE, Standing.READY, Standing.RESTING)
"""What only a look brings on."""


@dataclass(frozen=True)
class Looks:
    """The looks of one watch.

    Parameters
    ----------
    seconds_between
        From one to the next.
    last
        When the last was, ISO 8601; empty where that is not known.
    warnings
        What is wrong with the watch as a whole.
    """

    seconds_between: float = 60.0
    last: str = ""
    warnings: tuple[Hindrance, ...] = ()


@dataclass(frozen=True)
class Standstill:
    """A standstill: since when (ISO 8601), what it is and what to look at, for people."""

    since: str
    say: str
    remedy: str


def standstill(
    accounts: Mapping[str, Account], now: datetime, looks: Looks | None = None
) -> Standstill | None:
    """Tell whether the work of one watch stands still; None if it moves or there is none.

    Parameters
    ----------
    accounts
        Of the sessions of the watch, by name.
    looks
        Of the watch, where something is known of them.
    """
    looks = looks or Looks()
    return (
        _unseen(accounts, now, looks)
        or _idle(accounts, now, looks)
        or _without_workers(accounts, now)
        or _stalled(accounts, now)
    )


def _unseen(accounts: Mapping[str, Account], now: datetime, looks: Looks) -> Standstill | None:
    """Tell that nobody looks, although there is what only a look brings on."""
    silent = timedelta(seconds=SILENT_LOOKS * looks.seconds_between)
    if not looks.last or now - datetime.fromisoformat(looks.last) <= silent:
        return None
    if not any(one.counts[each] for one in accounts.values() for each in WAITING):
        return None
    return Standstill(
        looks.last,
        f"no watch has looked {since(looks.last, now)}",
        "Look whether it runs, and at its log; python -m flows.watch WATCH.yaml --once does its "
        "work in your shell.",
    )


def _idle(accounts: Mapping[str, Account], now: datetime, looks: Looks) -> Standstill | None:
    """Tell that something has been ready for too long, and nothing of the watch moves."""
    if any(one.is_moving for one in accounts.values()):
        return None
    ready = {
        f"{session}/{name}": one.stands[name].since
        for session, one in accounts.items()
        if not one.sights.hindrances
        for name in one.named(Standing.READY)
    }
    stops = {session: one.stop for session, one in accounts.items() if one.stop is not None}
    waits = [*ready.values(), *(stop.since for stop in stops.values())]
    if not waits:
        return None
    # When a run ends, the next look gives others their turn.
    begin = max(min(waits), *(one.moved for one in accounts.values()))
    patience = max(LEAST_PATIENCE, timedelta(seconds=PATIENCE_LOOKS * looks.seconds_between))
    if now - datetime.fromisoformat(begin) < patience:
        return None
    say = f"nothing is in work {since(begin, now)}"
    for session, stop in stops.items():
        return Standstill(begin, f"{say}: {session}: {stop.say}", stop.remedy)
    return Standstill(
        begin,
        f"{say}, and {names(list(ready))} wait",
        "Look at the watch's log: does Prefect answer? There, runs that are RUNNING or PENDING and "
        "whose process is gone hold the places of others; a restart of the watch ends them.",
    )


def _without_workers(accounts: Mapping[str, Account], now: datetime) -> Standstill | None:
    """Tell that a run itself says that nobody works on its blocks."""
    for session, account in accounts.items():
        for name, one in account.progress.items():
            if one.waits:
                return Standstill(
                    one.waits_since,
                    f"{session}/{name} is in work, but {one.waits} {since(one.waits_since, now)}",
                    "Look at the workers and their logs, or at the batch system's queue; workers "
                    "that are started anew take the blocks.",
                )
    return None


def _stalled(accounts: Mapping[str, Account], now: datetime) -> Standstill | None:
    """Tell that somebody is at work and has ended no block for long."""
    for session, one in accounts.items():
        is_slow = bool(one.moved) and now - datetime.fromisoformat(one.moved) > BLOCK_PATIENCE
        if one.owner is not None and one.is_moving and is_slow:
            return Standstill(
                one.moved,
                f"{session} is in work, but no block was done {since(one.moved, now)}",
                f"Are there workers? Look at Dask's page and the run's log; at work: {one.owner}.",
            )
    return None


def looks_of(watch: str) -> Looks:
    """Return what a watch's file says of its looks; the usual where there is none.

    Parameters
    ----------
    watch
        URL of the file; empty if nothing is known of a watch.
    """
    found = read_presence(watch)
    if found is None:
        return Looks()
    return Looks(found.seconds_between_looks, found.looked, found.warnings)
