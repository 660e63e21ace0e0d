"""Points of a finished session in another program's dialect: a tomogram or all together."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from tomoseg.core.bounds import check_bounds
from tomoseg.core.coordinates import Points
from tomoseg.core.errors import RequestError, TomosegError
from tomoseg.core.layout import EXPORTS, TOGETHER, WRITTEN
from tomoseg.io.points.dialects import Origin, WriteOptions
from tomoseg.io.points.registry import DIALECTS, Known
from tomoseg.io.stores import Folder, digest, discard
from tomoseg.pipeline.results import choose, finished_results, finished_rows
from tomoseg.pipeline.stages.points import (
    COPICK,
    FoundPoints,
    found_points,
    point_digests,
    session_files,
    tomogram_files,
    write_options,
)
from tomoseg.recipe.export import Spacing
from tomoseg.recipe.recipe import Recipe

CSV = "csv"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportRequest:
    """What to convert, and how.

    Parameters
    ----------
    to
        Name of a dialect.
    classes, tomograms
        Some of them; all without any.
    into
        Folder or URL for the files; without one they stand in the session's output, in folders
        named after the dialect.
    together
        Whether a file holds a class of all tomograms.
    imported
        Whether what was imported is converted, not what was found.
    flip_z, origin
        Instead of the recipe's ``export.flip_z`` and ``export.dynamo_origin``.
    spacing_angstrom
        Class → distance of segments along its filaments, before the recipe's.
    minimum_score
        Filaments and particles with less are left out; those whose score is unknown are kept.

    Raises
    ------
    SettingError
        If a distance is out of its bounds.
    """

    to: str
    classes: tuple[str, ...] = ()
    tomograms: tuple[str, ...] = ()
    into: str | None = None
    together: bool = False
    imported: bool = False
    flip_z: bool | None = None
    origin: Origin | None = None
    spacing_angstrom: Mapping[str, Spacing] = field(default_factory=dict)
    minimum_score: float | None = None

    def __post_init__(self) -> None:
        """Check bounds."""
        check_bounds(self)

    @property
    def known(self) -> Known:
        """The dialect.

        Raises
        ------
        RequestError
            If there is none of that name, or it is tomoseg's own and slices are to be mirrored.
        """
        if self.to not in DIALECTS:
            raise RequestError(
                f"there is no dialect {self.to!r}", remedy=f"Choose one of {', '.join(DIALECTS)}"
            )
        if self.to == CSV and self.flip_z:
            raise RequestError(
                "csv is tomoseg's own table, of the tomogram as it is",
                remedy="Leave out --flip-z, or choose another program's dialect",
            )
        return DIALECTS[self.to]


@dataclass(frozen=True)
class Exported:
    """What was written.

    Parameters
    ----------
    folder
        Where the files are.
    files
        Paths in it.
    filaments, particles
        How many they hold.
    notes
        What was left out, for people.
    """

    folder: Folder
    files: tuple[str, ...]
    filaments: int
    particles: int
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Chosen:
    """The points to write, and what a recipe says of how."""

    home: Folder
    found: list[FoundPoints]
    recipe: Recipe
    colours: Mapping[str, str]
    left_out: tuple[str, ...]


def export_chosen(found: Chosen, request: ExportRequest) -> Exported:
    """Convert the points that were chosen; no stage runs.

    Raises
    ------
    RequestError
        If there is no class of that name, or the program could not read the points.
    """
    known = request.known
    names = list(dict.fromkeys(name for each in found.found for name in each.classes))
    classes = choose(names, request.classes, "class")
    choose(names, list(request.spacing_angstrom), "class")
    kept = [each.select(classes) for each in found.found]
    notes = [f"left out, as it is not done: {name}" for name in found.left_out]
    if request.minimum_score is not None:
        every, kept = kept, [each.scoring(request.minimum_score) for each in kept]
        notes += _below(every, kept, request.minimum_score)
    notes += _without_particles(known, kept)
    options = _options(found, request)
    flip = found.recipe.export.flip_z if request.flip_z is None else request.flip_z
    seen = [each.flip_z() for each in kept] if flip and request.to != CSV else kept
    folder = found.home if request.into is None else Folder(request.into)
    files = _files(seen, options, request)
    for path, content in files.items():
        folder.write(path, content)
    if request.into is None and not request.imported:
        _note_export(folder, request, list(files))
    return Exported(
        folder,
        tuple(files),
        sum(len(each.points.filaments) for each in kept),
        sum(len(t) for each in kept for t in each.points.particles) * known.has_particles,
        tuple(notes),
    )


def write_session(output: Folder) -> dict[str, Any]:
    """Write a session's points in its recipe's dialects, all tomograms of a class together.

    They stand in ``session/<dialect>/<class>.*``, made anew from what the tomograms hold; a file
    that did not change is not touched, and files that it wrote before and does not write now are
    removed; those of others stay. Dialects that have a file a tomogram are not among them, nor
    micrographs, which RELION takes one by one.

    Returns
    -------
    The paths, and the tomograms that have no results.

    Raises
    ------
    RequestError
        If a program could not read the points.
    """
    found = session_points(output)
    export, options = found.recipe.export, write_options(found.recipe, found.colours)
    files: dict[str, bytes] = {}
    for name in export.dialects:
        known = DIALECTS[name]
        if known.dialect.scope != "class":
            continue
        kept = [
            each for each in found.found if name == CSV or not each.points.context.sampling.is_flat
        ]
        seen = [each.flip_z() for each in kept] if export.flip_z and name != CSV else kept
        if seen:
            files |= session_files(known, seen, f"{TOGETHER}/{name}", options)
    _replace(output, files)
    return {"files": list(files), "left_out": list(found.left_out)}


def renew_exports(output: Folder) -> None:
    """Write anew what :func:`export_chosen` wrote into an output before its points changed.

    What can no longer be written, such as a class that is not looked for any more, is removed. Both
    are told.
    """
    for key, export in _read_exports(output).items():
        if export["points"] == _points_of(output, export["points"]):
            continue
        request = ExportRequest(**{**export["request"], **_tuples(export["request"])})
        _write_exports(output, key, None)
        for path in export["files"]:
            discard(output, path)
        try:
            export_chosen(session_points(output, request.tomograms), request)
        except TomosegError as error:
            log.warning(
                "what tomoseg export wrote as %s was of earlier points and is removed: %s",
                request.to,
                error.message,
            )
        else:
            log.warning(
                "what tomoseg export wrote as %s was of earlier points and is written anew",
                request.to,
            )


def _note_export(output: Folder, request: ExportRequest, files: list[str]) -> None:
    rows, _ = finished_rows(output)
    names = [
        row["name"] for row in rows if not request.tomograms or row["name"] in request.tomograms
    ]
    entry = {
        "request": asdict(request),
        "files": files,
        "points": _points_of(output, names),
    }
    _write_exports(output, digest(asdict(request))[:16], entry)


def _points_of(output: Folder, names: Iterable[str]) -> dict[str, list[str]]:
    """Return under which digests the points of some tomograms were found."""
    return {name: point_digests(output / name) for name in names}


def _read_exports(output: Folder) -> dict[str, Any]:
    return dict(output.read_json(EXPORTS)) if output.exists(EXPORTS) else {}


def _write_exports(output: Folder, key: str, entry: Mapping[str, Any] | None) -> None:
    kept = {name: one for name, one in _read_exports(output).items() if name != key}
    output.write_json(EXPORTS, kept if entry is None else {**kept, key: entry})


def _tuples(values: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    return {name: tuple(values[name]) for name in ("classes", "tomograms")}


def _replace(output: Folder, files: Mapping[str, bytes]) -> None:
    """Make ``session/`` hold these files; what was written last time and is gone goes."""
    before = output.read_json(WRITTEN) if output.exists(WRITTEN) else []
    for stale in sorted(set(before) - set(files)):
        discard(output, stale)
    if before != sorted(files):
        output.write_json(WRITTEN, sorted(files))
    for path, content in files.items():
        if not output.exists(path) or output.read(path) != content:
            output.write(path, content)


def session_points(output: Folder, wanted: Sequence[str] = ()) -> Chosen:
    """Return the points of a session's tomograms, of all unless some are wanted.

    Raises
    ------
    RequestError
        If there is no session, or no tomogram of that name.
    """
    rows, left_out = finished_rows(output)
    names = choose([row["name"] for row in rows], wanted, "tomogram")
    # A run of some tomograms may have another recipe than that of the others.
    rows.sort(key=lambda row: row.get("finished") or "", reverse=True)
    done = {row["name"]: finished_results(output, row["name"]) for row in rows}
    recipe = next((one.recipe for one in done.values()), Recipe())
    colours: dict[str, str] = {}
    for one in done.values():
        colours = {**one.colours, **colours}
    return Chosen(output, [found_points(done[name]) for name in names], recipe, colours, left_out)


def _options(found: Chosen, request: ExportRequest) -> WriteOptions:
    options = write_options(found.recipe, found.colours)
    return replace(
        options,
        spacing_angstrom={**options.spacing_angstrom, **request.spacing_angstrom},
        origin=request.origin or options.origin,
    )


def _files(
    seen: Sequence[FoundPoints], options: WriteOptions, request: ExportRequest
) -> dict[str, bytes]:
    # An overlay holds any number of tomograms, in a folder of its own.
    is_overlay = request.to == COPICK and request.into is not None
    if request.together or is_overlay:
        own = f"{TOGETHER}/{request.to}" if request.into is None else ""
        return session_files(request.known, seen, COPICK if is_overlay else own, options)
    files: dict[str, bytes] = {}
    for each in seen:
        folder = f"{each.name}/{request.to}" if request.into is None else ""
        files |= tomogram_files(request.known, each, folder, options)
    return files


def _below(
    every: Sequence[FoundPoints], kept: Sequence[FoundPoints], least: float
) -> Iterator[str]:
    """Say how many were left out for their score, and how many have none."""
    for what, counts in (("filaments", _filament_scores), ("particles", _particle_scores)):
        scores, left = counts(every), counts(kept)
        if len(scores):
            unknown = int(np.isnan(left).sum())
            also = f"; {unknown} without a score are kept" if unknown else ""
            yield f"{len(scores) - len(left)} of {len(scores)} {what} score below {least:g}{also}"


def _filament_scores(found: Sequence[FoundPoints]) -> Points:
    return np.array([line.score for each in found for line in each.points.filaments])


def _particle_scores(found: Sequence[FoundPoints]) -> Points:
    tables = [table.scores for each in found for table in each.points.particles]
    return np.concatenate([np.zeros(0), *tables])


def _without_particles(known: Known, found: Sequence[FoundPoints]) -> Iterator[str]:
    names = dict.fromkeys(name for each in found for name in each.picked)
    if names and not known.has_particles:
        yield f"{known.dialect.name} has no place for particles: {', '.join(names)} left out"
