"""Whether a cluster keeps up: tomograms an hour in and out, the backlog, and when it is done.

The rates are those of a window that ends now::

                  now - window                             now
    arrivals   a  |     a       a        a        a         |   4 in the window
    at work       |   [----]  [----][------]    [-----------|   busy: the union of these
    done       d  |        d       d       d                |   3

    in  = 4 / window          can go out = 3 / busy
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

State = Literal["waiting", "running", "paused", "refused", "gone", "done", "failed", "set aside"]

WINDOW_HOURS = 6.0
LEFT: tuple[State, ...] = ("waiting", "running")
HELD: tuple[State, ...] = ("paused", "refused", "gone")
"""What a person has to free."""
ENDED: tuple[State, ...] = ("done", "failed", "set aside")
STATES: dict[str, State] = {
    **{state: state for state in (*LEFT, *HELD, *ENDED)},
    "already there": "done",
}
"""What sessions and watches call it → where a tomogram stands."""


@dataclass(frozen=True)
class Times:
    """When what happened to a tomogram; None for what has not, or is not known.

    Parameters
    ----------
    name
        Of the tomogram, unique among those that are looked at together.
    state
        Where it stands.
    complete
        When its file was first known to be whole.
    started, finished
        Of the work on it.
    seconds
        Stage → seconds, of what was worked out for it.
    """

    name: str
    state: State
    complete: datetime | None = None
    started: datetime | None = None
    finished: datetime | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)


def times_of(rows: Iterable[Mapping[str, Any]], session: str = "") -> list[Times]:
    """Return the times of tomograms from rows as a session's journal and a watch's state hold.

    Parameters
    ----------
    rows
        With ``name`` and ``state``, and where they are known ``complete``, ``started`` and
        ``finished`` (ISO 8601; empty for not yet) and ``seconds`` by stage.
    session
        Goes before the names: of several sessions, two may have tomograms of one name.

    Notes
    -----
    What was found done is not work: its times are left out.
    """
    return [_times(row, f"{session}/{row['name']}" if session else row["name"]) for row in rows]


def _times(row: Mapping[str, Any], name: str) -> Times:
    state = STATES[row["state"]]
    if row["state"] == "already there":
        return Times(name, state)
    return Times(
        name,
        state,
        complete=_time(row.get("complete")),
        started=_time(row.get("started")),
        finished=_time(row.get("finished")),
        seconds=row.get("seconds") or {},
    )


def _time(text: str | None) -> datetime | None:
    if not text:
        return None
    when = datetime.fromisoformat(text)
    return when if when.tzinfo else when.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Capacity:
    """What a cluster does and could do.

    Parameters
    ----------
    arriving_per_hour
        Tomograms that became complete; None where that is not known, or only one ever did.
    finished_per_hour
        Tomograms that ended, done or failed.
    possible_per_hour
        The same for each hour in which any was worked on; None before the first has ended.
    backlog
        Tomograms that wait or are in work; not those that a person has to free.
    oldest_hours
        How long the one that waits longest has been complete; 0 if none waits.
    predicted_finish
        When what is here now will be done; None if that cannot be said yet.
    is_moving
        Whether the work goes on; whatever went out before, nothing does where it stands still.
    held
        Tomograms that a person has to free.
    """

    arriving_per_hour: float | None
    finished_per_hour: float
    possible_per_hour: float | None
    backlog: int
    oldest_hours: float
    predicted_finish: datetime | None
    is_moving: bool = True
    held: int = 0

    @property
    def is_keeping_up(self) -> bool | None:
        """Whether as many can go out as come in; None if that cannot be said yet."""
        if self.backlog == 0:
            return True
        if not self.is_moving:
            return False
        if self.possible_per_hour is None or self.arriving_per_hour is None:
            return None
        return self.possible_per_hour >= self.arriving_per_hour

    def __str__(self) -> str:
        """Say it in one line, for people."""
        parts = []
        if self.arriving_per_hour is not None:
            parts.append(f"{self.arriving_per_hour:.3g} tomograms an hour come in")
        parts.append(f"{self.finished_per_hour:.3g} an hour went out")
        if self.possible_per_hour is not None:
            parts.append(f"{self.possible_per_hour:.3g} an hour are possible")
        parts.append(f"{self.backlog} to do" if self.backlog else "nothing to do")
        if self.held:
            parts.append(f"{self.held} paused, refused or gone")
        if self.predicted_finish is not None:
            parts.append(f"done at about {self.predicted_finish:%Y-%m-%d %H:%M %Z}".rstrip())
        heads = {True: "keeps up: ", False: "falls behind: ", None: ""}
        head = heads[self.is_keeping_up] if self.is_moving else "stands still: "
        is_held = self.held > 0 and self.backlog == 0
        return ("" if is_held else head) + ", ".join(parts)

    def as_dict(self) -> dict[str, float | int | str | bool | None]:
        """Return it for JSON."""
        finish = self.predicted_finish
        return {
            "arriving_per_hour": self.arriving_per_hour,
            "finished_per_hour": self.finished_per_hour,
            "possible_per_hour": self.possible_per_hour,
            "backlog": self.backlog,
            "oldest_hours": self.oldest_hours,
            "predicted_finish": None if finish is None else finish.isoformat(timespec="seconds"),
            "is_keeping_up": self.is_keeping_up,
            "is_moving": self.is_moving,
            "held": self.held,
        }


def capacity(
    tomograms: Sequence[Times],
    now: datetime,
    *,
    window_hours: float = WINDOW_HOURS,
    is_moving: bool = True,
) -> Capacity:
    """Work out the capacity from the times of tomograms.

    Parameters
    ----------
    tomograms
        All of the sessions that share a cluster; those that were there already have no times.
    now
        End of the window.
    window_hours
        How far back rates are counted.
    is_moving
        Whether the work goes on: where it stands still, nothing is predicted.

    Notes
    -----
    What is here now is done after ``backlog / possible``: later arrivals queue behind it. The
    hours at work include those of tomograms that are still running, so that one which hangs
    lowers what is possible.
    """
    begin = now - timedelta(hours=window_hours)
    arrivals = [one.complete for one in tomograms if one.complete is not None]
    ended = [one.finished for one in tomograms if one.state in ENDED and one.finished is not None]
    spans = [(one.started, one.finished or now) for one in tomograms if one.started is not None]
    left = [one for one in tomograms if one.state in LEFT]
    out = sum(begin < time <= now for time in ended)
    busy = busy_hours(spans, begin, now)
    possible = out / busy if out and busy > 0 else None
    finish = None
    if left and possible and is_moving:
        finish = now + timedelta(hours=len(left) / possible)
    waits = [now - one.complete for one in left if one.complete is not None]
    return Capacity(
        arriving_per_hour=_rate(arrivals, begin, now),
        finished_per_hour=out / _span_hours([start for start, _ in spans], begin, now),
        possible_per_hour=possible,
        backlog=len(left),
        oldest_hours=max(waits, default=timedelta()) / timedelta(hours=1),
        predicted_finish=finish,
        is_moving=is_moving or not left,
        held=sum(one.state in HELD for one in tomograms),
    )


def _rate(times: Sequence[datetime], begin: datetime, now: datetime) -> float | None:
    """Return how many an hour; if the first ever lies in the window, it only opens the count."""
    if not times or (len(times) == 1 and times[0] > begin):
        return None
    number = sum(begin < time <= now for time in times) - (min(times) > begin)
    return number / _span_hours(times, begin, now)


def _span_hours(times: Iterable[datetime], begin: datetime, now: datetime) -> float:
    """Return the hours from the first time, or the begin of the window, until now; above 0."""
    span = now - max(begin, min(times, default=begin))
    return max(span / timedelta(hours=1), 1 / 3600)


def busy_hours(spans: Iterable[tuple[datetime, datetime]], begin: datetime, end: datetime) -> float:
    """Return the hours between two times in which any of some spans lies.

    >>> from datetime import UTC
    >>> hour = [datetime(2026, 1, 1, hour, tzinfo=UTC) for hour in range(8)]
    >>> busy_hours([(hour[0], hour[2]), (hour[1], hour[3]), (hour[5], hour[6])], hour[1], hour[7])
    3.0
    """
    busy, reached = timedelta(), begin
    for start, stop in sorted(spans):
        last = min(stop, end)
        if last > (first := max(start, reached)):
            busy += last - first
            reached = last
    return busy / timedelta(hours=1)
