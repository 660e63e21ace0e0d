"""What stands in a session's output, whether a run is at work there or not."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tomoseg.errors import RequestError
from tomoseg.stages import STAGES
from tomoseg.stages.segment import skipped_notes
from tomoseg.stores import Folder, living_owner


def session_status(output: str) -> dict[str, Any]:
    """Return the state of a session from what stands in its output, running or not.

    Raises
    ------
    RequestError
        If there is no session.
    """
    folder = Folder(output)
    if not folder.exists("session.json"):
        raise RequestError(
            f"there is no session in {folder}", remedy="Name the output folder of a run."
        )
    values = folder.read_json("session.json")
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
        "tomograms": rows,
    }


def _said(folder: Folder, row: dict[str, Any]) -> str:
    if row["state"] == "failed":
        aside = f"set aside after {row['attempts']} attempts: " if row.get("is_set_aside") else ""
        return f"{aside}{row['error']}. {row['remedy']}".rstrip()
    if row["state"] != "running":
        return "; ".join(skipped_notes(row["blocks"])) if "blocks" in row else ""
    records = f"{row['name']}/.tomoseg"
    stages = {name.removesuffix(".json") for name in folder.names(records)}
    at = next((name for name in STAGES if name not in stages), "report")
    places = [name for name in folder.names(records) if name.startswith(f"{at}-")]
    blocks = sum(
        name.endswith(".json") for place in places for name in folder.files(f"{records}/{place}")
    )
    return f"stage {at}, {blocks} receipts"
