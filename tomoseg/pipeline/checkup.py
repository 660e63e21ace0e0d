"""Whether what a session recorded as done still stands: what is lost, cut or changed of it.

Nothing is changed here, and no model is needed. :func:`lost_of` makes listings alone;
:func:`compare_session` also reads shards whose size is not that which was written.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tomoseg.core.errors import RequestError, StoreError
from tomoseg.core.layout import EXPORTS, MANIFEST, PAGE, RECIPE, RECORDS, SESSION, WRITTEN
from tomoseg.core.overlap import overlapped
from tomoseg.io.stores import READERS, Folder, Ledger, checked_url
from tomoseg.pipeline.stages import STAGES
from tomoseg.pipeline.stages.previous import differing
from tomoseg.pipeline.stages.standing import Condition, condition
from tomoseg.recipe.plain_yaml import yaml_mapping
from tomoseg.recipe.recipe import recipe_from
from tomoseg.report.summary import DONE

OWN = (SESSION, RECIPE, PAGE)
"""Files of a session itself."""
GONE = "its results are not there any more"
UNLISTED = f"it is done, and {SESSION} does not name it"


@dataclass(frozen=True)
class Checked:
    """How the results of a tomogram stand, or what belongs to the session as a whole.

    Parameters
    ----------
    name
        Of the tomogram; empty for the session.
    found
        What does not stand.
    note
        What else is wrong.
    command
        Makes it again; empty where nothing is lost.
    """

    name: str
    found: Condition = field(default_factory=Condition)
    note: str = ""
    command: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether nothing is to be done."""
        return not self.command

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        found = {key: list(getattr(self.found, key)) for key in ("lost", "cut", "changed")}
        return {"name": self.name, **found, "note": self.note, "command": self.command}

    def __str__(self) -> str:
        """Say it in one line, for people."""
        parts = [f"{key} {', '.join(paths)}" for key, paths in vars(self.found).items() if paths]
        if self.note:
            parts.insert(0, self.note)
        said = "; ".join(parts) or "all stands"
        again = f" - to make it again: {self.command}" if self.command else ""
        return f"{self.name or 'the session'}: {said}{again}"


def lost_of(output: Folder, name: str) -> list[str]:
    """Return what is not there any more, or cut, of a tomogram that is recorded as done.

    Listings alone: no voxel is read. To run the tomogram again makes what is lost, and no more.

    Parameters
    ----------
    output
        Of the session.
    name
        The tomogram.

    Returns
    -------
    Paths in the tomogram's folder; none if all stands.
    """
    found = _compared(output / name, reads=False)
    return [*found.lost, *found.cut]


def compare_session(output: Folder) -> Iterator[Checked]:
    """Compare all that a session recorded as done with what is there; yield it by tomogram.

    What belongs to the session as a whole comes last.
    """
    rows = {row["name"]: row for row in _rows(output)}
    done = [
        name
        for name, row in rows.items()
        if row["state"] in DONE or any(note.startswith(GONE) for note in row.get("notes", ()))
    ]
    unlisted = [
        entry.name
        for entry in output.entries()
        if entry.is_folder and entry.name not in rows and output.exists(f"{entry.name}/{MANIFEST}")
    ]
    look = partial(_checked, output, rows, _recipe(output))
    yield from overlapped(look, sorted((*done, *unlisted)), threads=READERS)
    # Where a watch has only looked so far, nothing is recorded.
    has_begun = rows or unlisted or output.exists(RECIPE)
    yield _of_session(output) if has_begun else Checked("")


def _compared(folder: Folder, *, reads: bool) -> Condition:
    records, lost, found = folder / RECORDS, [], Condition()
    manifest = _json(folder, MANIFEST)
    if manifest is None:
        lost.append(MANIFEST)
    for stage in (manifest or {}).get("stages", STAGES):
        record = _json(records, f"{stage}.json")
        if not isinstance(record, dict) or not {"digest", "summary"} <= record.keys():
            lost.append(f"{RECORDS}/{stage}.json")
            continue
        receipts = partial(Ledger.of, records, stage, record["digest"])
        found += condition(folder, record, receipts, reads=reads)
    return Condition(lost=tuple(lost)) + found


def _checked(
    output: Folder, rows: Mapping[str, Any], recipe: Mapping[str, Any] | None, name: str
) -> Checked:
    found = _compared(output / name, reads=True)
    note = "" if name in rows else UNLISTED
    if found.is_whole and not note:
        return Checked(name, found)
    if not (output / name).entries():
        found, note = Condition(), GONE
    return Checked(name, found, note, _run_again(output, rows.get(name, {}), recipe, name))


def _run_again(
    output: Folder, row: Mapping[str, Any], recipe: Mapping[str, Any] | None, name: str
) -> str:
    """Return the command that makes a tomogram again as it was; what stands is not made again."""
    manifest = _json(output / name, MANIFEST) or {}
    made_by = manifest.get("recipe", recipe)
    is_own = recipe is None or bool(made_by and differing(made_by, recipe))
    source = manifest.get("source", {}).get("url") or row.get("url", "")
    words = ["tomoseg", "run", *([_plain(source)] if source else [])]
    if is_own and manifest:
        words += ["-r", f"{output}/{name}/{MANIFEST}"]
    elif recipe is not None:
        words += ["-r", f"{output}/{RECIPE}"]
    return shlex.join([*words, "-o", str(output)])


def _of_session(output: Folder) -> Checked:
    """Look for the files of the session itself, its tables, and what was exported from it."""
    own = [name for name in OWN if not output.size(name)]
    written = _json(output, WRITTEN) or []
    tables = [name for name in written if not output.exists(name)]
    exports: Mapping[str, Any] = _json(output, EXPORTS) or {}
    gone = {
        export["request"]["to"]: [name for name in export["files"] if not output.exists(name)]
        for export in exports.values()
    }
    commands = []
    if own or tables:
        recipe = [] if RECIPE in own else ["-r", f"{output}/{RECIPE}"]
        commands.append(shlex.join(["tomoseg", "run", *recipe, "-o", str(output)]))
    commands += [
        shlex.join(["tomoseg", "export", str(output), "--to", to])
        for to, files in gone.items()
        if files
    ]
    lost = [*own, *tables, *(name for files in gone.values() for name in files)]
    return Checked("", Condition(lost=tuple(lost)), command="; ".join(commands))


def _rows(output: Folder) -> list[dict[str, Any]]:
    return list((_json(output, SESSION) or {}).get("tomograms", ()))


def _recipe(output: Folder) -> dict[str, Any] | None:
    """Return the recipe beside a session's results; None if there is none that can be read."""
    try:
        values = yaml_mapping(output.read(RECIPE), RECIPE)
        return recipe_from(values).model_dump(mode="json")
    except (StoreError, RequestError):
        return None


def _json(folder: Folder, name: str) -> Any:
    """Return the values of a JSON file; None if it is not there, or cut."""
    try:
        return folder.read_json(name)
    except StoreError:
        return None


def _plain(url: str) -> str:
    return checked_url(url).removeprefix("file://")
