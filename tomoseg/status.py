"""What stands in the outputs of sessions, whether a run is at work there or not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from tomoseg.arrivals import PLACE, SEEN, Sights
from tomoseg.capacity import Times, capacity, times_of
from tomoseg.errors import RequestError
from tomoseg.lookalikes import told_left_out
from tomoseg.report.markup import duration
from tomoseg.report.summary import DONE
from tomoseg.stages.progress import read_progress
from tomoseg.stores import Folder, Owner, living_owner

JOURNAL = "session.json"
DEPTH = 3
"""Folders in which outputs of sessions are looked for: microscope/project/session."""


def status_of(place: str) -> dict[str, Any]:
    """Return the state of a session, or of all sessions whose outputs lie in a folder.

    Returns
    -------
    As :func:`session_status` for one. For many: ``headline``, ``done``, ``failed``, ``sessions``
    by name, and ``capacity`` of the cluster that they share.

    Raises
    ------
    RequestError
        If there is no session.
    """
    folder = Folder(place)
    if _is_session(folder):
        return session_status(place)
    names = list(_sessions(folder))
    if not names:
        return session_status(place)
    sessions = {name: session_status(f"{folder}/{name}") for name in names}
    done, failed = (sum(one[key] for one in sessions.values()) for key in ("done", "failed"))
    number = sum(len(one["tomograms"]) for one in sessions.values())
    tomograms = [one for name in names for one in tomogram_times(folder / name, name)]
    return {
        "headline": f"{len(sessions)} sessions: {done} of {number} tomograms done, {failed} failed",
        "done": done,
        "failed": failed,
        **_capacity(tomograms),
        "sessions": sessions,
    }


def _is_session(folder: Folder, name: str = "") -> bool:
    """Tell whether a run or a watch has been at work in an output."""
    output = folder / name if name else folder
    return output.exists(JOURNAL) or output.exists(f"{PLACE}/{SEEN}")


def _journal(output: Folder) -> dict[str, Any]:
    """Return what runs wrote down; where only a watch has looked so far, nothing has begun."""
    if output.exists(JOURNAL):
        return dict(output.read_json(JOURNAL))
    return {"started": "", "finished": "", "tomograms": []}


def _sessions(folder: Folder, below: str = "", depth: int = DEPTH) -> Iterator[str]:
    for entry in folder.names(below):
        name = f"{below}/{entry}".lstrip("/")
        if _is_session(folder, name):
            yield name
        elif depth > 1:
            yield from _sessions(folder, name, depth - 1)


def tomogram_times(output: Folder, session: str = "") -> list[Times]:
    """Return when what happened to the tomograms of a session; a watch knows when they came."""
    rows = {row["name"]: dict(row) for row in _journal(output)["tomograms"]}
    for name, seen in Sights.read(output).tomograms.items():
        if seen.complete:
            row = rows.setdefault(name, {"name": name, "state": "waiting"})
            row["complete"] = seen.complete
    for row in rows.values():
        row["state"] = "set aside" if row.get("is_set_aside") else row["state"]
    return times_of(rows.values(), session)


def _capacity(tomograms: list[Times]) -> dict[str, Any]:
    now = capacity(tomograms, datetime.now(UTC).astimezone())
    return {"capacity": {"say": str(now), **now.as_dict()}}


def session_status(output: str) -> dict[str, Any]:
    """Return the state of a session from what stands in its output, running or not.

    Raises
    ------
    RequestError
        If there is no session.
    """
    folder = Folder(output)
    if not _is_session(folder):
        raise RequestError(
            f"there is no session in {folder}", remedy="Name the output folder of a run."
        )
    values = _journal(folder)
    rows = [
        {"name": row["name"], "state": row["state"], "say": _said(folder, row)}
        for row in values["tomograms"]
    ]
    rows += _incomplete(folder)
    states = [row["state"] for row in rows]
    done = sum(state in DONE for state in states)
    owner = living_owner(folder)
    return {
        "headline": f"{done} of {len(rows)} tomograms done, {states.count('failed')} failed; "
        f"{_when(values, owner)}",
        "done": done,
        "failed": states.count("failed"),
        "owner": None if owner is None else asdict(owner),
        **_capacity(tomogram_times(folder)),
        "left_out": _left_out(folder, values),
        "tomograms": rows,
    }


def _left_out(output: Folder, journal: dict[str, Any]) -> str:
    """Say which files are no tomograms: as the last look of a watch saw them, or the last run."""
    if watched := Sights.read(output).left_out:
        return told_left_out(watched, is_watched=True)
    return told_left_out(journal.get("left_out", {}))


def _when(values: dict[str, Any], owner: Owner | None) -> str:
    """Say since when and until when a session was worked on, and who is at work now."""
    if values["finished"]:
        when = f"started {values['started']}, finished {values['finished']}"
    elif values["started"]:
        when = f"started {values['started']}, not finished"
        when += "" if owner else ", and nobody is at work: run it again"
    else:
        when = "nothing has begun"
    return f"{when}; at work: {owner}" if owner else when


def _incomplete(output: Folder) -> list[dict[str, Any]]:
    """Return a row for each file that a watch waits for although it grows no more."""
    now = datetime.now(UTC)
    rows = []
    for name, seen in Sights.read(output).tomograms.items():
        if seen.waits and not seen.complete:
            age = duration((now - datetime.fromisoformat(seen.changed)).total_seconds())
            say = f"unchanged for {age}: {seen.waits}"
            rows.append({"name": name, "state": "incomplete", "say": say})
    return rows


def _said(folder: Folder, row: dict[str, Any]) -> str:
    if row["state"] == "failed":
        aside = f"set aside after {row['attempts']} attempts: " if row.get("is_set_aside") else ""
        return f"{aside}{row['error']}. {row['remedy']}".rstrip()
    if row["state"] != "running":
        return "; ".join(row.get("notes", ()))
    told = read_progress(folder / row["name"])
    return "" if told is None else str(told)
