"""The session's file while it runs: what became of each tomogram, of this run and of earlier ones.

A run of some tomograms of a session keeps what is known of the others, as far as it is still true.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from tomoseg.core.attempts import explaining
from tomoseg.core.errors import RequestError, StoreError, TomosegError
from tomoseg.core.events import here
from tomoseg.core.layout import MANIFEST, PAGE, RECIPE, SESSION, THUMBNAIL
from tomoseg.core.overlap import overlapped
from tomoseg.core.version import code_version
from tomoseg.io.stores import READERS, Folder, checked_url, is_folder
from tomoseg.io.volumes.sources import Found
from tomoseg.pipeline.checkup import GONE, lost_of
from tomoseg.pipeline.exports import renew_exports, write_session
from tomoseg.pipeline.history import History
from tomoseg.pipeline.progress import read_progress
from tomoseg.pipeline.stages.networks import AppliedNetwork
from tomoseg.pipeline.stages.previous import differ, differing
from tomoseg.pipeline.stages.publishing import sweep
from tomoseg.recipe.plain_yaml import LARGEST_CHARACTERS
from tomoseg.recipe.recipe import Recipe, recipe_from
from tomoseg.report.page import session_page
from tomoseg.report.summary import DONE, SessionSummary

OTHER_RECIPE = "made with another recipe than recipe.yaml"
LOST = "not there any more, or cut"
KEPT_NOTES = (OTHER_RECIPE, GONE, LOST)
"""How what is noted of tomograms that a run leaves alone begins."""
NAMED = 3

log = logging.getLogger(__name__)


@dataclass
class Journal:
    """What ``session.json`` and the page say, written after every change so as to be watched.

    Parameters
    ----------
    output
        Of the session; the caller holds the claim on it.
    values
        What ``session.json`` holds.
    history
        The attempts, which are written with it.
    """

    output: Folder
    values: dict[str, Any]
    history: History = field(default_factory=History)
    thumbnails: dict[str, bytes] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)

    @classmethod
    def begin(
        cls,
        output: Folder,
        recipe: Recipe,
        networks: Sequence[AppliedNetwork],
        tomograms: Sequence[Found],
        left_out: Mapping[str, str] | None = None,
    ) -> Journal:
        """Write the recipe that is used and a journal in which these tomograms wait.

        The rows of others stay. What runs by their word does not any more, and what is done must
        have a manifest; where that is of another recipe or other networks, it is noted. Of what has
        neither results nor a file any more nothing stays.
        """
        begun = {found.name for found in tomograms}
        facts = [network.facts for network in networks]
        made_by = {"recipe": recipe.model_dump(mode="json"), "networks": facts}
        earlier = _earlier(output)
        others = [row for row in earlier["tomograms"] if row["name"] not in begun]
        with explaining():
            looked = overlapped(_Kept(output, made_by), others, threads=READERS)
            kept = [row for row in looked if row]
            _warn_of_another_recipe(output, kept)
            output.write(RECIPE, _written(recipe, kept))
        waiting = [
            {"name": found.name, "url": found.url, "state": "waiting"} for found in tomograms
        ]
        urls = {found.url for found in tomograms}
        # Who names tomograms himself looks for no others.
        known = left_out or earlier.get("left_out", {})
        values = {
            "version": code_version(),
            "started": _now(),
            "finished": "",
            "recipe": RECIPE,
            "networks": facts,
            "left_out": {url: why for url, why in known.items() if url not in urls},
            "tomograms": sorted((*kept, *waiting), key=lambda row: str(row["name"])),
        }
        journal = cls(output, values, History.read(output).closed(_last_sign(output)))
        for row in kept:
            journal._read_thumbnail(row)
        journal._write()
        return journal

    def tell_lost(self) -> None:
        """Note of tomograms that are kept as done what is lost of them; nothing is read of them."""
        done = {row["name"]: row for row in self.values["tomograms"] if row["state"] in DONE}
        found = overlapped(partial(lost_of, self.output), done, threads=READERS)
        for row, lost in zip(done.values(), found, strict=True):
            if lost:
                more = f" and {len(lost) - NAMED} more" if len(lost) > NAMED else ""
                said = f"{LOST}: {', '.join(lost[:NAMED])}{more}; run it again"
                row["notes"] = [*row.get("notes", ()), said]

    def note(self, row: dict[str, Any]) -> None:
        """Replace a tomogram's row, and read the thumbnail of what has one."""
        rows = self.values["tomograms"]
        place = next(i for i, old in enumerate(rows) if old["name"] == row["name"])
        old, state = rows[place], row["state"]
        url = {"url": old["url"]} if old.get("url") else {}
        begun = {} if state == "waiting" else {"started": old.get("started") or _now()}
        ended = {} if state in ("waiting", "running") else {"finished": _now()}
        rows[place] = {**url, **row, **begun, **ended}
        if row["state"] == "done":
            self.done.add(row["name"])
        self.history = self.history.noted(row, here().run, datetime.now(UTC))
        self._read_thumbnail(row)
        self._write()

    @contextmanager
    def stopping(self, check: Callable[[], None]) -> Iterator[None]:
        """Note what runs as waiting again where the block is stopped in order, as by Ctrl-C.

        ``check`` raises if the output is another run's by now.
        """
        try:
            yield
        except (KeyboardInterrupt, SystemExit):
            with suppress(TomosegError):
                check()
                for row in self.values["tomograms"]:
                    if row["state"] == "running":
                        self.note(_waiting(row))
            raise

    def finish(self) -> dict[str, Any]:
        """Write the points of all tomograms together, the last state and the page.

        What another program cannot read of them is told, not raised: every tomogram is done.
        """
        for name in sorted(self.done):
            with explaining():
                sweep(self.output / name)
        try:
            with explaining():
                self.values["together"] = write_session(self.output)
                renew_exports(self.output)
        except TomosegError as error:
            log.warning("session/: %s", error)
            self.values["together"] = {"error": error.message, "remedy": error.remedy}
        self.values["finished"] = _now()
        self._write()
        return self.values

    def _read_thumbnail(self, row: Mapping[str, Any]) -> None:
        if not row.get("picture"):
            return
        try:
            with explaining():
                thumbnail = self.output.read(f"{row['name']}/{THUMBNAIL}")
            self.thumbnails[row["name"]] = thumbnail
        except StoreError as error:
            log.warning("%s: the page has no picture of it: %s", row["name"], error)

    def _write(self) -> None:
        with explaining():
            self.values["written"] = _now()
            self.output.write_json(SESSION, self.values)
            self.history.write(self.output, datetime.now(UTC))
            page = session_page(SessionSummary.from_dict(self.values), self.thumbnails)
            self.output.write(PAGE, page.encode())


@dataclass(frozen=True)
class _Kept:
    """Returns the row of a tomogram that a run leaves alone, as far as it is still true.

    It is empty where neither results nor the tomogram's file are there.

    Parameters
    ----------
    made_by
        Recipe and networks of this run, as a manifest says them.
    """

    output: Folder
    made_by: Mapping[str, Any]

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        name, state = row["name"], row["state"]
        if state in DONE:
            return self._done(row)
        if _is_removed(row.get("url", "")):
            log.warning("%s is forgotten: it was %s, and its file is removed", name, state)
            return {}
        return _waiting(row) if state == "running" else dict(row)

    def _done(self, row: Mapping[str, Any]) -> dict[str, Any]:
        name = row["name"]
        try:
            manifest = (self.output / name).read_json(MANIFEST)
        except StoreError as error:
            log.warning("%s: %s: %s", name, GONE, error.message)
            if _is_removed(row.get("url", "")):
                return {}
            return {**_waiting(row), "notes": [f"{GONE}: run it again, or remove its file too"]}
        notes = [note for note in row.get("notes", ()) if not note.startswith(KEPT_NOTES)]
        if keys := self._differing(manifest):
            said = f"{OTHER_RECIPE}: {differ(keys)}; its own is in its {MANIFEST}"
            notes = [said, *notes]
        return {"url": manifest.get("source", {}).get("url", ""), **row, "notes": notes}

    def _differing(self, manifest: Mapping[str, Any]) -> list[str]:
        before, now = manifest.get("recipe", {}), self.made_by["recipe"]
        keys = differing(before, now)
        # Another version had other keys; those that it lacked have their defaults.
        with suppress(RequestError):
            keys = keys and differing(recipe_from(before).model_dump(mode="json"), now)
        is_other = manifest.get("networks") != self.made_by["networks"]
        return [*keys, "the network"] if is_other else keys


def note_trouble(output: Folder, error: TomosegError, now: datetime, *, is_refusal: bool) -> None:
    """Note among the attempts what stopped a whole session; the caller holds the output."""
    history = History.read(output)
    history.stopped(error, here().run, now, is_refusal=is_refusal).write(output, now)


def _waiting(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: row[key] for key in ("name", "url") if key in row} | {"state": "waiting"}


def _is_removed(url: str) -> bool:
    """Tell whether a file is gone from a folder that is there: a drive may be away for a while."""
    folder, _, name = url.rpartition("/")
    # Whose store does not answer, or may not be looked at, is not known to be gone.
    with suppress(TomosegError), explaining():
        return bool(folder) and is_folder(folder) and not Folder(folder).exists(name)
    return False


def summarise(result: Mapping[str, Any], begun: Collection[str]) -> tuple[str, list[str]]:
    """Return in words what became of the tomograms of a run, and the names of those that failed.

    Parameters
    ----------
    result
        What :meth:`Journal.finish` returned.
    begun
        Names of the tomograms of the run; those of earlier runs are counted by themselves.
    """
    rows = result["tomograms"]
    failed = [row["name"] for row in rows if row["name"] in begun and row["state"] == "failed"]
    said = f"{len(begun) - len(failed)} of {len(begun)} tomograms done"
    said += f", failed: {', '.join(failed)}" if failed else ""
    if len(rows) > len(begun):
        done = sum(row["state"] in DONE for row in rows)
        said += f" (with those of earlier runs {done} of {len(rows)})"
    return said, failed


def _earlier(output: Folder) -> dict[str, Any]:
    """Return the journal of earlier runs; if its file is damaged, say what that means."""
    nothing: dict[str, Any] = {"tomograms": []}
    if not output.exists(SESSION):
        return nothing
    try:
        values = dict(output.read_json(SESSION))
        return {**values, "tomograms": list(values["tomograms"])}
    except (StoreError, KeyError, TypeError) as error:
        log.warning(
            "%s/%s cannot be read (%s): tomograms that are not in this run are missing from the "
            "page; run them again, which computes nothing that is there",
            output,
            SESSION,
            error,
        )
        return nothing


def _warn_of_another_recipe(output: Folder, kept: Sequence[Mapping[str, Any]]) -> None:
    """Say before any work that it is not done as that on the session's other tomograms was."""
    notes = {
        row["name"]: note
        for row in kept
        for note in row.get("notes", ())
        if note.startswith(OTHER_RECIPE)
    }
    for name, note in list(notes.items())[:1]:
        more = f" and {len(notes) - 1} more" if len(notes) > 1 else ""
        place = f"{output}/{name}/{MANIFEST}"
        log.warning("%s%s: %s; to work by that one, give -r %s", name, more, note, place)


def _written(recipe: Recipe, kept: Sequence[Mapping[str, Any]]) -> bytes:
    """Return the recipe's file: of all tomograms that the session has, not of this run's alone."""
    given = [checked_url(place) for place in recipe.session.input]
    urls = [row["url"] for row in kept if row.get("url")]
    others = [url.removeprefix("file://") for url in urls if not _is_among(url, given)]
    inputs = [*recipe.session.input, *others]
    text = _with_inputs(recipe, inputs).as_yaml()
    if len(text) > LARGEST_CHARACTERS:
        folders = sorted({place.rpartition("/")[0] for place in inputs})
        log.warning(
            "%s names folders (%s) instead of %d files, so that it can be read: what else is in "
            "them would be processed too",
            RECIPE,
            ", ".join(folders),
            len(inputs),
        )
        text = _with_inputs(recipe, folders).as_yaml()
    return text.encode()


def _is_among(url: str, places: Sequence[str]) -> bool:
    """Tell whether a file is one of some places, lies in one of them or matches one."""
    folder = url.rpartition("/")[0]
    return any(place in (url, folder) or fnmatchcase(url, place) for place in places)


def _with_inputs(recipe: Recipe, inputs: Sequence[str]) -> Recipe:
    session = recipe.session.model_copy(update={"input": tuple(inputs)})
    return recipe.model_copy(update={"session": session})


def _last_sign(output: Folder) -> Callable[[str], str]:
    """Return what tells when a tomogram was last known to be worked on."""

    def last_sign(name: str) -> str:
        told = read_progress(output / name) if name else None
        return "" if told is None else told.at

    return last_sign


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
