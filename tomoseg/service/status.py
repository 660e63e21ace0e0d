"""What stands in the outputs of sessions, whether a run is at work there or not.

Of a session that is watched, looks and runs know where each tomogram stands, as ``--look`` and the
metrics tell it. Of another its journal says it, and its claim whether anybody is at work.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tomoseg.compute.monitoring.capacity import LEFT, Times, capacity, times_of
from tomoseg.core.errors import RequestError
from tomoseg.core.layout import ARRIVALS, ATTEMPTS, RECORDS, SESSION
from tomoseg.core.lookalikes import told_left_out
from tomoseg.io.stores import Folder, Owner, free_bytes, living_owner
from tomoseg.pipeline.progress import read_progress
from tomoseg.report.summary import DONE
from tomoseg.service.arrivals import (
    DIED,
    SEEN,
    Account,
    SessionWork,
    Sights,
    Stand,
    Standing,
    Standstill,
    account_of,
    looks_of,
    standstill,
)
from tomoseg.service.arrivals.presence import Presence, presences
from tomoseg.service.arrivals.times import account_times
from tomoseg.service.arrivals.words import (
    OF_SESSION,
    QUIET,
    line_of,
    sentence,
    tell_counts,
    tell_hindrance,
    tell_stand,
)

RECENT = timedelta(minutes=10)
DEPTH = 3
"""Folders in which outputs of sessions are looked for: microscope/project/session."""
FAILED = ("failed", *(str(each) for each in (Standing.SET_ASIDE, Standing.REFUSED)))
"""States of tomograms that failed."""
WELL = (*(str(each) for each in (*QUIET, Standing.INCOMPLETE, Standing.PAUSED)), "waiting", *DONE)
"""States that need nobody."""
QUIET_AMONG_MANY = (*(str(each) for each in (*QUIET, *OF_SESSION)), "waiting", *DONE)


@dataclass(frozen=True)
class _State:
    """What is known of one session.

    Parameters
    ----------
    folder
        Its output.
    journal
        What runs wrote down for people.
    account
        What looks and runs know, if it is watched.
    owner
        Who is at work.
    """

    folder: Folder
    journal: Mapping[str, Any]
    account: Account = field(default_factory=Account)
    owner: Owner | None = None

    @classmethod
    def read(cls, folder: Folder, now: datetime) -> _State:
        """Read it from its output; where only a watch has looked so far, nothing has begun."""
        journal = {"started": "", "finished": "", "tomograms": []}
        if folder.exists(SESSION):
            journal = dict(folder.read_json(SESSION))
        account = account_of(folder, Sights.read(folder), SessionWork.read(folder), now)
        return cls(folder, journal, account, account.owner or living_owner(folder))

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        """The journal's rows by name; nothing runs where nobody is at work."""
        rows = {row["name"]: dict(row) for row in self.journal["tomograms"]}
        for row in rows.values():
            if row["state"] == "running" and self.owner is None:
                row |= {"state": "stopped", "error": DIED, "remedy": "Run it again."}
        return rows

    @property
    def is_left(self) -> bool:
        """Whether a run ended before its time, and no watch begins another."""
        has_ended = bool(self.journal["finished"]) or not self.journal["started"]
        return not (has_ended or self.owner or self.account.sights.recipe)

    @property
    def is_stuck(self) -> bool:
        """Whether nothing of it goes on now."""
        return self.is_left or (bool(self.account.hindrances) and self.owner is None)

    def times(self, session: str = "") -> list[Times]:
        """Return when what happened to its tomograms."""
        rows = {name: row for name, row in self.rows.items() if name not in self.account.stands}
        for row in rows.values():
            state = "set aside" if row.get("is_set_aside") else row["state"]
            row["state"] = "waiting" if state == "stopped" else state
        return [*times_of(rows.values(), session), *account_times(self.account, session)]


def status_of(place: str, now: datetime | None = None) -> dict[str, Any]:
    """Return the state of a session, or of all sessions whose outputs lie in a folder.

    Returns
    -------
    As :func:`session_status` for one. For many: ``headline``, ``done``, ``failed``, ``is_well``,
    ``hindrances`` of the watches that look, ``standstill``, ``sessions`` by name, and ``capacity``
    of the cluster that they share.

    Raises
    ------
    RequestError
        If there is no session.
    """
    folder, now = Folder(place), now or datetime.now(UTC)
    if _is_session(folder):
        return session_status(place, now)
    names, warnings = list(_sessions(folder)), _warnings(folder, now)
    if not (names or warnings):
        return session_status(place, now)
    states = {name: _State.read(folder / name, now) for name in names}
    stills = _standstills(states, now)
    sessions = {name: _told(one, stills[name], now) for name, one in states.items()}
    done, failed = (sum(one[key] for one in sessions.values()) for key in ("done", "failed"))
    number = sum(len(one["tomograms"]) for one in sessions.values())
    still = next((one for one in stills.values() if one is not None), None)
    return {
        "headline": f"{len(sessions)} sessions: {done} of {number} tomograms done, {failed} failed",
        "done": done,
        "failed": failed,
        "is_well": not warnings and all(one["is_well"] for one in sessions.values()),
        "hindrances": warnings,
        "standstill": None if still is None else asdict(still),
        **_capacity(states, still, now),
        "sessions": sessions,
    }


def outputs_at(place: str) -> dict[str, Folder]:
    """Return the outputs of the session at a place, or of all in a folder, by name.

    Raises
    ------
    RequestError
        If there is none.
    """
    folder = Folder(place)
    names = [] if _is_session(folder) else list(_sessions(folder))
    if names:
        return {name: folder / name for name in names}
    _check_session(folder)
    return {folder.url.rpartition("/")[2]: folder}


def session_status(output: str, now: datetime | None = None) -> dict[str, Any]:
    """Return the state of a session from what stands in its output, running or not.

    Returns
    -------
    ``headline``; ``done`` and ``failed``: tomograms; ``is_well``: whether nothing failed or needs a
    person; ``owner``: who is at work; ``hindrances`` of the whole session; ``standstill``;
    ``free_bytes`` of its disk; ``capacity``; ``tomograms``: each with ``name``, ``state``, ``say``.

    Raises
    ------
    RequestError
        If there is no session.
    """
    folder, now = Folder(output), now or datetime.now(UTC)
    _check_session(folder)
    state = _State.read(folder, now)
    name = folder.url.rpartition("/")[2]
    still = _standstills({name: state}, now)[name]
    if still is not None:
        # Another session of its watch may have its turn.
        beside = _beside(state, now)
        name = next((each for each, one in beside.items() if one.folder.url == folder.url), name)
        still = _standstills({**beside, name: state}, now)[name]
    return _told(state, still, now)


def _check_session(folder: Folder) -> None:
    if not _is_session(folder):
        raise RequestError(
            f"there is no session in {folder}", remedy="Name the output folder of a run."
        )


def _is_session(folder: Folder, name: str = "") -> bool:
    """Tell whether a run or a watch has been at work in an output."""
    output = folder / name if name else folder
    return any(output.exists(one) for one in (SESSION, f"{ARRIVALS}/{SEEN}", ATTEMPTS))


def _sessions(folder: Folder, below: str = "", depth: int = DEPTH) -> Iterator[str]:
    for entry in folder.names(below):
        name = f"{below}/{entry}".lstrip("/")
        if entry.startswith("."):
            continue
        if _is_session(folder, name):
            yield name
        elif depth > 1:
            yield from _sessions(folder, name, depth - 1)


def _warnings(folder: Folder, now: datetime) -> list[dict[str, Any]]:
    """Return what is wrong with the watches whose outputs lie in a folder."""
    return [
        {**asdict(each), "line": f"the watch: {tell_hindrance(each, now)}"}
        for one in presences(folder)
        # What a watch that has ended said is old; that nobody looks is told of what waits.
        for each in (one.warnings if one.is_alive or _is_recent(one, now) else ())
    ]


def _is_recent(watch: Presence, now: datetime) -> bool:
    """Tell whether a watch looked just now, as one does that a crontab starts."""
    looked = datetime.fromisoformat(watch.looked) if watch.looked else now
    return now - looked < max(RECENT, 3 * timedelta(seconds=watch.seconds_between_looks))


def _beside(state: _State, now: datetime) -> dict[str, _State]:
    """Return the sessions whose outputs lie beside the file of a session's watch, by name."""
    root, mark, _ = state.account.sights.watch.partition(f"/{RECORDS}/")
    names = list(_sessions(Folder(root))) if mark else []
    return {name: _State.read(Folder(root) / name, now) for name in names}


def _standstills(states: Mapping[str, _State], now: datetime) -> dict[str, Standstill | None]:
    """Return by session whether it takes part in a standstill of the watch that looks at it."""
    watches: dict[str, dict[str, Account]] = {}
    for name, one in states.items():
        watches.setdefault(one.account.sights.watch, {})[name] = one.account
    stills: dict[str, Standstill | None] = {}
    for watch, accounts in watches.items():
        looks = looks_of(watch)
        still = standstill(accounts, now, looks)
        for name, account in accounts.items():
            stills[name] = still if still and standstill({name: account}, now, looks) else None
    return stills


def _capacity(
    states: Mapping[str, _State], still: Standstill | None, now: datetime
) -> dict[str, Any]:
    times = {name: one.times(name) for name, one in states.items()}
    unfinished = [name for name in times if any(one.state in LEFT for one in times[name])]
    is_stuck = bool(unfinished) and all(states[name].is_stuck for name in unfinished)
    rows = [one for each in times.values() for one in each]
    found = capacity(rows, now.astimezone(), is_moving=still is None and not is_stuck)
    return {"capacity": {"say": str(found), **found.as_dict()}}


def _told(state: _State, still: Standstill | None, now: datetime) -> dict[str, Any]:
    """Return what is told of one session."""
    journal, stands = state.rows, state.account.stands
    rows = [
        _watched_row(state.folder, name, stands[name], journal.get(name, {}), now)
        if name in stands
        else _plain_row(state.folder, journal[name])
        for name in sorted({*journal, *stands})
    ]
    states = [row["state"] for row in rows]
    done, failed = (sum(each in kind for each in states) for kind in (DONE, FAILED))
    hindrances = [
        {**asdict(each), "line": tell_hindrance(each, now, state.folder)}
        for each in state.account.hindrances
    ]
    is_hindered = any(each["kind"] != "paused" for each in hindrances)
    is_well = set(states) <= set(WELL) and not (is_hindered or still or state.is_left)
    return {
        "headline": f"{done} of {len(rows)} tomograms done, {failed} failed; {_when(state)}",
        "done": done,
        "failed": failed,
        "is_well": is_well,
        "owner": None if state.owner is None else asdict(state.owner),
        "hindrances": hindrances,
        "standstill": None if still is None else asdict(still),
        "free_bytes": free_bytes(state.folder),
        **_capacity({"": state}, still, now),
        "left_out": _left_out(state),
        "tomograms": rows,
    }


def _left_out(state: _State) -> str:
    """Say which files are no tomograms: as the last look of a watch saw them, or the last run."""
    if watched := state.account.sights.left_out:
        return told_left_out(watched, is_watched=True)
    return told_left_out(state.journal.get("left_out", {}))


def _when(state: _State) -> str:
    """Say what is still to do, since when and until when runs were at work, and who is now."""
    values, owner = state.journal, state.owner
    parts = [tell_counts(state.account.counts)]
    if values["finished"]:
        parts.append(f"started {values['started']}, finished {values['finished']}")
    elif values["started"]:
        left = ", and nobody is at work: run it again" if state.is_left else ""
        parts.append(f"started {values['started']}, not finished{left}")
    else:
        parts.append("nothing has begun")
    parts.append(f"at work: {owner}" if owner else "")
    return "; ".join(part for part in parts if part)


def _watched_row(
    folder: Folder, name: str, stand: Stand, journal: Mapping[str, Any], now: datetime
) -> dict[str, Any]:
    """Return the row of a tomogram that is watched; its notes and progress are runs' to say."""
    say = tell_stand(stand, now)
    if stand.standing == Standing.RUNNING:
        say = "; ".join(str(part) for part in (read_progress(folder / name), say) if part)
    if stand.standing == Standing.DONE:
        say = "; ".join(journal.get("notes", ()))
    facts = asdict(stand)
    facts["error"] = facts.pop("say")
    return {"name": name, "state": str(facts.pop("standing")), "say": say, **facts}


def _plain_row(folder: Folder, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of a tomogram of which only the journal says something."""
    is_begun = row["state"] in ("running", "stopped")
    progress = str(read_progress(folder / row["name"]) or "") if is_begun else ""
    if row["state"] == "stopped":
        error = ": ".join(part for part in (row["error"], progress) if part)
        say = sentence(error, row["remedy"])
    elif row["state"] in FAILED:
        aside = f"set aside after {row['attempts']} attempts: " if row.get("is_set_aside") else ""
        say = f"{aside}{sentence(row['error'], row['remedy'])}"
    else:
        say = progress or "; ".join(row.get("notes", ()))
    return {"name": row["name"], "state": row["state"], "say": say}


def lines_of(state: Mapping[str, Any], session: str = "") -> Iterator[str]:
    """Say a state in lines, for people: of many sessions, only what is not well of each."""
    before = f"{session}: " if session else ""
    yield f"{before}{state['headline']}"
    if state["standstill"] and not session:
        still = state["standstill"]
        yield f"STANDSTILL: {sentence(still['say'], still['remedy'])}"
    for each in state.get("hindrances", ()):
        yield f"{before}{each['line']}"
    if state.get("left_out"):
        yield f"{before}{state['left_out']}"
    if not session:
        yield state["capacity"]["say"]
    reasons = {each["say"] for each in state.get("hindrances", ())}
    for row in state.get("tomograms", ()):
        is_known = row.get("error") in reasons
        line = line_of(row["name"], row["state"], "" if is_known else row["say"])
        if not session:
            yield line
        elif not (is_known or row["state"] in QUIET_AMONG_MANY):
            yield f"{session}/{line}"
    for name, each in state.get("sessions", {}).items():
        yield from lines_of(each, name)
