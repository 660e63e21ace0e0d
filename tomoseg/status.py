"""What stands in the outputs of sessions, whether a run is at work there or not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from tomoseg.arrivals import Sights
from tomoseg.capacity import Times, capacity, times_of
from tomoseg.errors import RequestError
from tomoseg.stages import STAGES
from tomoseg.stores import Folder, living_owner

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
    if folder.exists(JOURNAL):
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


def _sessions(folder: Folder, below: str = "", depth: int = DEPTH) -> Iterator[str]:
    for entry in folder.names(below):
        name = f"{below}/{entry}".lstrip("/")
        if folder.exists(f"{name}/{JOURNAL}"):
            yield name
        elif depth > 1:
            yield from _sessions(folder, name, depth - 1)


def tomogram_times(output: Folder, session: str = "") -> list[Times]:
    """Return when what happened to the tomograms of a session; a watch knows when they came."""
    rows = {row["name"]: dict(row) for row in output.read_json(JOURNAL)["tomograms"]}
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
    if not folder.exists(JOURNAL):
        raise RequestError(
            f"there is no session in {folder}", remedy="Name the output folder of a run."
        )
    values = folder.read_json(JOURNAL)
    rows = [
        {"name": row["name"], "state": row["state"], "say": _said(folder, row)}
        for row in values["tomograms"]
    ]
    states = [row["state"] for row in rows]
    done = sum(state in ("done", "already there") for state in states)
    owner = living_owner(folder)
    when = f"finished {values['finished']}" if values["finished"] else "not finished"
    if owner is not None:
        when += f"; at work: {owner}"
    elif not values["finished"]:
        when += ", and nobody is at work: run it again"
    return {
        "headline": f"{done} of {len(rows)} tomograms done, {states.count('failed')} failed; "
        f"started {values['started']}, {when}",
        "done": done,
        "failed": states.count("failed"),
        "owner": None if owner is None else asdict(owner),
        **_capacity(tomogram_times(folder)),
        "tomograms": rows,
    }


def _said(folder: Folder, row: dict[str, Any]) -> str:
    if row["state"] == "failed":
        aside = f"set aside after {row['attempts']} attempts: " if row.get("is_set_aside") else ""
        return f"{aside}{row['error']}. {row['remedy']}".rstrip()
    if row["state"] != "running":
        return "; ".join(row.get("notes", ()))
    records = f"{row['name']}/.tomoseg"
    stages = {name.removesuffix(".json") for name in folder.names(records)}
    at = next((name for name in STAGES if name not in stages), "report")
    places = [name for name in folder.names(records) if name.startswith(f"{at}-")]
    blocks = sum(
        name.endswith(".json") for place in places for name in folder.files(f"{records}/{place}")
    )
    return f"stage {at}, {blocks} receipts"
