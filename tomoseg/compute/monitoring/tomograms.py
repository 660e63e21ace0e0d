"""Counts of the tomograms that are watched, as Prometheus reads them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from tomoseg.compute.monitoring.capacity import ENDED, HELD, LEFT, Times

STAGE_SECONDS = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200)
RESULT_SECONDS = (60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800, 86400)

REMEMBERED = timedelta(days=7)
SILENT_LOOKS = 3.0
"""So long, in looks, may no look come before the work counts as standing still."""

SessionState = Literal["seen", "unreadable", "gone", "elsewhere", "refused", "stopped", "paused"]


@dataclass(frozen=True)
class SessionSeen:
    """A session as a look found it.

    Parameters
    ----------
    name
        Of the session.
    state
        ``unreadable`` if it could not be looked at, ``gone`` if its folder is, ``elsewhere`` if
        another watch serves its output, ``refused`` if its recipe is wrong, ``stopped`` if a
        cluster, disk or store failed its last run, ``paused`` if a person lets it wait, or else
        ``seen``.
    tomograms
        That are complete; of a session that is unreadable or gone, as they were known before.
    incomplete
        The last changes of files that are not whole and grow no more.
    """

    name: str
    state: SessionState = "seen"
    tomograms: Sequence[Times] = ()
    incomplete: Sequence[datetime] = ()

    @property
    def is_away(self) -> bool:
        """Whether it could not be looked at."""
        return self.state in ("unreadable", "gone")

    @property
    def is_missed(self) -> bool:
        """Whether that matters: what is done may be moved away."""
        is_done = not self.incomplete and all(one.state == "done" for one in self.tomograms)
        return self.is_away and not (self.state == "gone" and is_done)


@dataclass(frozen=True)
class LookSeen:
    """One look over all sessions.

    Parameters
    ----------
    sessions
        That it found.
    missing_places
        Patterns of sessions that matched nothing, and folders that are not there.
    still_since
        Since when the work stands still; None while it moves.
    seconds_between
        Until the next look; None if that is not known.
    """

    sessions: Sequence[SessionSeen] = ()
    missing_places: int = 0
    still_since: datetime | None = None
    seconds_between: float | None = None


class TomogramMetrics:
    """How tomograms stand, and how many came and went since this process started.

    Nothing is shown before the first look. What a look could not see keeps its last values for a
    week, and their age is shown: an alert is not ended by a drive that is away.

    Parameters
    ----------
    registry
        What the process shows.
    began
        What came or went before is not counted; None for now.
    """

    def __init__(self, registry: CollectorRegistry, began: datetime | None = None) -> None:
        self._registry = registry
        self._began = began or datetime.now(UTC)
        self._known: set[tuple[str, str, datetime]] = set()
        self._last: dict[str, tuple[SessionSeen, datetime]] = {}
        self._shown: _Shown | None = None

    def looked(self, look: LookSeen, when: float) -> None:
        """Show how all stood at a time (seconds since 1970), and count what is new."""
        if self._shown is None:
            self._shown = _Shown(self._registry)
        now = datetime.fromtimestamp(when, UTC)
        self._remember({one.name: one for one in look.sessions}, now)
        self._count([one for session in look.sessions for one in session.tomograms], now)
        self._shown.show(list(self._last.values()), look, now)

    def _remember(self, found: Mapping[str, SessionSeen], now: datetime) -> None:
        """Take over what was seen; of what was not, the last that is known and when that was."""
        last = {name: old for name, old in self._last.items() if old[1] >= now - REMEMBERED}
        gone = {name: SessionSeen(name, "gone") for name in last}
        for name, one in {**gone, **found}.items():
            old, seen = last.get(name, (one, now))
            if not one.is_away:
                last[name] = one, now
            else:
                known = one if one.tomograms or one.incomplete else old
                last[name] = replace(known, state=one.state), seen
        self._last = last

    def _count(self, tomograms: Iterable[Times], now: datetime) -> None:
        assert self._shown is not None
        known, since = set(), max(self._began, now - REMEMBERED)
        for one in tomograms:
            for event, moment in (("arrived", one.complete), ("ended", one.finished)):
                if moment is not None and moment >= since:
                    known.add((one.name, event, moment))
                    if (one.name, event, moment) not in self._known:
                        self._shown.count(one, event)
        # A session that could not be looked at is not forgotten.
        self._known = known | {each for each in self._known if each[2] >= since}


class _Shown:
    """The metrics themselves."""

    def __init__(self, registry: CollectorRegistry) -> None:
        gauge = partial(Gauge, registry=registry)
        self._arrived = Counter(
            "tomoseg_tomograms_arrived", "Tomograms whose file became complete.", registry=registry
        )
        self._ended = Counter(
            "tomoseg_tomograms_ended", "Tomograms that ended.", ("state",), registry=registry
        )
        for state in ENDED:
            self._ended.labels(state)
        self._now = gauge("tomoseg_tomograms", "Tomograms by where they stand.", ("state",))
        self._age = gauge(
            "tomoseg_queue_age_seconds",
            "Seconds since the file of the tomogram that waits longest was complete.",
        )
        self._stuck = gauge(
            "tomoseg_incomplete_age_seconds",
            "Seconds since the file that is incomplete for longest has last grown.",
        )
        self._result = Histogram(
            "tomoseg_result_seconds",
            "Seconds from a complete file to its result.",
            buckets=RESULT_SECONDS,
            registry=registry,
        )
        self._stage = Histogram(
            "tomoseg_tomogram_stage_seconds",
            "Seconds of a stage of the tomograms that ended.",
            ("stage",),
            buckets=STAGE_SECONDS,
            registry=registry,
        )
        self._look = gauge(
            "tomoseg_last_look_timestamp_seconds",
            "When the sessions were last looked at.",
        )
        self._sessions = gauge(
            "tomoseg_sessions",
            "Sessions by what hinders their work; seen: nothing.",
            ("state",),
        )
        self._unseen = gauge(
            "tomoseg_session_seen_age_seconds",
            "Seconds since the session was seen that is missed for longest; 0 if none is.",
        )
        self._missing = gauge(
            "tomoseg_missing_places",
            "Patterns of sessions that match nothing, and folders that are not there.",
        )
        self._still = gauge(
            "tomoseg_standstill_seconds",
            "Seconds for which there has been work and none was done; 0 while it moves.",
        )

    def count(self, tomogram: Times, event: str) -> None:
        """Count a tomogram that arrived or ended."""
        if event == "arrived":
            self._arrived.inc()
            return
        self._ended.labels(tomogram.state).inc()
        for stage, seconds in tomogram.seconds.items():
            self._stage.labels(stage).observe(seconds)
        if tomogram.state == "done" and tomogram.complete and tomogram.finished:
            self._result.observe((tomogram.finished - tomogram.complete).total_seconds())

    def show(
        self, seen: Sequence[tuple[SessionSeen, datetime]], look: LookSeen, now: datetime
    ) -> None:
        """Show how all sessions stood, as they were last seen; what waits grows older."""
        sessions = [session for session, _ in seen]
        tomograms = [one for session in sessions for one in session.tomograms]
        for state in (*LEFT, *HELD, *ENDED):
            self._now.labels(state).set(sum(one.state == state for one in tomograms))
        for kind in get_args(SessionState):
            of_kind = [one for one in sessions if one.state == kind]
            self._sessions.labels(kind).set(
                sum(one.is_missed or not one.is_away for one in of_kind)
            )
        waiting = [one.complete for one in tomograms if one.state == "waiting" and one.complete]
        incomplete = [since for session in sessions for since in session.incomplete]
        missed = [when for session, when in seen if session.is_missed]
        for gauge, since in (
            (self._age, waiting),
            (self._stuck, incomplete),
            (self._unseen, missed),
        ):
            gauge.set_function(_age(min(since, default=None)))
        self._missing.set(look.missing_places)
        self._still.set_function(_still(look, now, is_left=bool(waiting or incomplete)))
        self._look.set(now.timestamp())


def _still(look: LookSeen, now: datetime, *, is_left: bool) -> Callable[[], float]:
    """Return what says how long the work stands still; it does where no look comes any more."""
    if look.still_since is not None or not (is_left and look.seconds_between):
        return _age(look.still_since)
    patience = SILENT_LOOKS * look.seconds_between
    silence = _age(now)
    return lambda: silent if (silent := silence()) > patience else 0.0


def _age(since: datetime | None) -> Callable[[], float]:
    return lambda: 0.0 if since is None else time.time() - since.timestamp()
