"""copick projects: picks, traced filaments and the configuration of an overlay.

    <root>/config.json                                          objects, labels, colours, radii
    <root>/ExperimentRuns/<tomogram>/Picks/<user>_<session>_<object>.json
    <root>/ExperimentRuns/<tomogram>/Filaments/<user>_<session>_<object>.json
    <root>/ExperimentRuns/<tomogram>/Segmentations/<voxel>_<user>_<session>_<name>.zarr

Source: ``copick.models``, ``copick.impl.filesystem`` and ``copick.util.segmentation`` of copick
1.31, and its "Geometry Conventions": Å, xyz, voxel i at i × voxel size, a particle's centre is its
location plus its matrix's translation. Files of session 0 are a tool's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from tomoseg.core.coordinates import Filament, Particles, Points
from tomoseg.core.errors import FormatError, RequestError
from tomoseg.core.sampling import xyz
from tomoseg.io.points.dialects import TomoContext, TomogramPoints, WriteOptions, segments
from tomoseg.io.points.picks import LARGEST_BYTES

USER = "tomoseg"
SESSION = "0"

# As copick.util.escape; an underscore parts the fields of a file's name.
_INVALID = re.compile(r'[<>:"/\\|?*\x00-\x1F\x7F\s_]')

Number = Annotated[float, Field(allow_inf_nan=False)]
Triple = tuple[Number, Number, Number]
Quadruple = tuple[Number, Number, Number, Number]


class Copick:
    """Everything of one tomogram as a copick overlay.

    Filaments stand twice: as lines in ``Filaments``, and as segments with orientations in
    ``Picks``, with the filament's number as instance. A class's name loses its underscores.
    ``config.json`` is the same for all tomograms where ``WriteOptions.colours`` names all classes;
    its ``overlay_root`` is relative: start copick in the folder of the file, or set the path.
    """

    name = "copick"
    scope: Literal["class", "tomogram"] = "tomogram"

    def write(
        self, points: Sequence[TomogramPoints], stem: str, options: WriteOptions
    ) -> dict[str, bytes]:
        """Return the files of the overlay ``stem``.

        Raises
        ------
        RequestError
            If a name could not be one of copick's.
        """
        files = {f"{stem}/config.json": _json(config(points, options))}
        for tomogram in points:
            run = f"{stem}/ExperimentRuns/{_run_name(tomogram.context)}"
            for kind, content in _contents(tomogram, options):
                place = f"{run}/{kind}/{USER}_{SESSION}_{content['pickable_object_name']}.json"
                if place in files:
                    raise RequestError(
                        f"two tables would both be {place}",
                        remedy="Name the classes so that they differ in more than _ and -",
                    )
                files[place] = _json(content)
        return files

    def read(
        self, data: bytes, contexts: Sequence[TomoContext], *, name: str
    ) -> list[TomogramPoints]:
        """Return the picks or the filaments of a file of ``Picks`` or ``Filaments``.

        The class is the file's own name of the object, unless ``name`` is written so there.

        Raises
        ------
        FormatError
            If it is neither, lacks a field, has one of a wrong kind, a unit that is not Å, a
            matrix that is no rotation, or names a tomogram that is not among ``contexts``.
        """
        content = _parsed(data)
        known = content.pickable_object_name
        name = name if object_name(name) == known else known
        context = _context_of(content.run_name, contexts)
        if isinstance(content, FilamentsFile):
            return [TomogramPoints(context, [_filament(each, name) for each in content.filaments])]
        return [TomogramPoints(context, particles=[_particles(content, name)])]


class Location(BaseModel):
    """A position, Å."""

    x: Number
    y: Number
    z: Number


class Pick(BaseModel):
    """A point with its orientation, rows of a matrix 4×4."""

    location: Location
    transformation_: tuple[Quadruple, Quadruple, Quadruple, Quadruple] | None = None
    instance_id: int | None = 0
    score: Number | None = None


class _File(BaseModel):
    pickable_object_name: str
    user_id: str
    session_id: str
    run_name: str | None = None
    unit: str = "angstrom"


class PicksFile(_File):
    """A file of ``Picks``."""

    points: list[Pick]
    trust_orientation: bool | None = True


class Line(BaseModel):
    """A traced filament."""

    instance_id: Annotated[int, Field(ge=1)]
    points: Annotated[list[Triple], Field(min_length=2)]
    score: Number | None = None
    polarity_known: bool | None = False


class FilamentsFile(_File):
    """A file of ``Filaments``."""

    filaments: list[Line]


def object_name(name: str) -> str:
    """Return a class's name as copick takes it.

    Raises
    ------
    RequestError
        If nothing is left of it.

    Examples
    --------
    >>> object_name("single_membrane")
    'single-membrane'
    """
    valid = _INVALID.sub("-", name).strip("-")
    if not valid:
        raise RequestError(f"{name!r} cannot be the name of a copick object")
    return valid


def config(points: Iterable[TomogramPoints], options: WriteOptions) -> dict[str, Any]:
    """Return the configuration of a project: an object a class.

    Labels are 1, 2, … in the order of ``options.colours``, as in the project's label volumes;
    classes that have points and are not named there follow. What has points or a radius is a
    particle to copick, the rest is segmented alone.
    """
    points = list(points)
    traced = {line.name for tomogram in points for line in tomogram.filaments}
    picked = [table.name for tomogram in points for table in tomogram.particles]
    names = dict.fromkeys([*options.colours, *sorted(traced), *picked])
    pointed = {*traced, *picked, *options.radius_angstrom}
    return {
        "config_type": "filesystem",
        "name": USER,
        "version": "1.0.0",
        "user_id": USER,
        "overlay_root": "local://.",
        "pickable_objects": [
            _object(name, label, options)
            | {"is_particle": name in pointed}
            | ({"metadata": {"copick": {"filament": {}}}} if name in traced else {})
            for label, name in enumerate(names, start=1)
        ],
    }


def segmentation_path(run: str, voxel_angstrom: float, name: str, *, multilabel: bool) -> str:
    """Return where an overlay has a mask of one class, or the labels of all of them.

    Examples
    --------
    >>> segmentation_path("TS_01", 10.0, "actin", multilabel=False)
    'ExperimentRuns/TS_01/Segmentations/10.000_tomoseg_0_actin.zarr'
    """
    suffix = "-multilabel" if multilabel else ""
    file = f"{voxel_angstrom:.3f}_{USER}_{SESSION}_{object_name(name)}{suffix}.zarr"
    return f"ExperimentRuns/{run}/Segmentations/{file}"


def _object(name: str, label: int, options: WriteOptions) -> dict[str, Any]:
    found: dict[str, Any] = {"name": object_name(name), "label": label}
    if name in options.colours:
        found["color"] = [*bytes.fromhex(options.colours[name].lstrip("#")), 255]
    if name in options.radius_angstrom:
        found["radius"] = options.radius_angstrom[name]
    return found


def _run_name(context: TomoContext) -> str:
    if "/" in context.tomo_name:
        raise RequestError(f"tomogram {context.tomo_name!r} cannot be the name of a copick run")
    return context.tomo_name


def _contents(
    tomogram: TomogramPoints, options: WriteOptions
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give folder and content of every file of a tomogram."""
    for table in tomogram.particles:
        rows = _rows(table.points_angstrom, table.orientations, table.scores)
        is_known = bool(np.any(table.orientations != np.eye(3)))
        yield (
            "Picks",
            {
                **_head(tomogram.context, table.name),
                "points": rows,
                "trust_orientation": is_known,
            },
        )
    for name in dict.fromkeys(line.name for line in tomogram.filaments):
        lines = [line for line in tomogram.filaments if line.name == name]
        head = _head(tomogram.context, name)
        yield "Filaments", {**head, "version": 1, "filaments": [_line(line) for line in lines]}
        spacing = options.spacing_angstrom.get(name)
        rows = [row for line in lines for row in _segment_rows(line, spacing)]
        yield "Picks", {**head, "points": rows, "trust_orientation": True}


def _head(context: TomoContext, name: str) -> dict[str, Any]:
    return {
        "pickable_object_name": object_name(name),
        "user_id": USER,
        "session_id": SESSION,
        "run_name": context.tomo_name,
        "voxel_spacing": context.sampling.voxel_angstrom,
        "unit": "angstrom",
    }


def _line(line: Filament) -> dict[str, Any]:
    return {
        "instance_id": line.number,
        "points": xyz(line.points_angstrom).tolist(),
        "polarity_known": line.polarity_known,
        **_score(line.score),
    }


def _segment_rows(line: Filament, spacing_angstrom: float | None) -> list[dict[str, Any]]:
    points, _, orientations = segments(line, spacing_angstrom)
    return _rows(points, orientations, np.full(len(points), line.score), line.number)


def _rows(
    points: Points, orientations: Points, scores: Points, instance: int = 0
) -> list[dict[str, Any]]:
    matrices = np.tile(np.eye(4), (len(points), 1, 1))
    matrices[:, :3, :3] = orientations
    return [
        {
            "location": dict(zip("xyz", place, strict=True)),
            "transformation_": matrix,
            "instance_id": instance,
            **_score(score),
        }
        for place, matrix, score in zip(
            xyz(points).tolist(), matrices.tolist(), scores.tolist(), strict=True
        )
    ]


def _score(score: float) -> dict[str, float]:
    """Return nothing where the score is unknown, which copick reads as 1."""
    return {"score": score} if np.isfinite(score) else {}


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, allow_nan=False) + "\n").encode()


def _parsed(data: bytes) -> PicksFile | FilamentsFile:
    if len(data) > LARGEST_BYTES:
        raise FormatError(
            f"{len(data)} bytes are more than the {LARGEST_BYTES} of the largest file read"
        )
    # Which of the two it is stands in the key alone; the file may be damaged elsewhere.
    kind = FilamentsFile if b'"filaments"' in data else PicksFile
    try:
        content = kind.model_validate_json(data)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        raise FormatError(
            f"not a file of copick's {kind.__name__.removesuffix('File')}: "
            f"{place or 'the text'}: {problem['msg']} ({error.error_count()} problems)",
            remedy="Give a file of Picks or Filaments",
        ) from error
    if content.unit != "angstrom":
        raise FormatError(f"the unit {content.unit!r} is not read; angstrom is")
    return content


def _context_of(run: str | None, contexts: Sequence[TomoContext]) -> TomoContext:
    """Return the tomogram of a run; the only one where the file names none."""
    found = [context for context in contexts if run in (None, context.tomo_name)]
    if len(found) != 1:
        known = ", ".join(context.tomo_name for context in contexts)
        raise FormatError(
            f"the file is of the run {run}, which is none or several of {known}",
            remedy="Give this tomogram's file",
        )
    return found[0]


def _filament(line: Line, name: str) -> Filament:
    score = float("nan") if line.score is None else line.score
    points = xyz(np.array(line.points))
    return Filament(name, line.instance_id, points, score, bool(line.polarity_known))


def _particles(file: PicksFile, name: str) -> Particles:
    rows = file.points
    places = np.array([(row.location.x, row.location.y, row.location.z) for row in rows])
    matrices = np.array(
        [np.eye(4) if row.transformation_ is None else row.transformation_ for row in rows]
    ).reshape(-1, 4, 4)
    rotations = matrices[:, :3, :3]
    refuse_no_rotations(rotations)
    if not file.trust_orientation:
        rotations = np.tile(np.eye(3), (len(rows), 1, 1))
    scores = np.array([np.nan if row.score is None else row.score for row in rows], np.float64)
    return Particles(name, xyz(places.reshape(-1, 3) + matrices[:, :3, 3]), scores, rotations)


def refuse_no_rotations(matrices: Points) -> None:
    """Check that matrices, shape (n, 3, 3), are rotations within 0.001.

    Raises
    ------
    FormatError
        With the row of the first that is none: sheared, scaled or mirrored.
    """
    identity = matrices @ matrices.transpose(0, 2, 1)
    is_wrong = (np.abs(identity - np.eye(3)) > 1e-3).any(axis=(1, 2)) | (
        np.linalg.det(matrices) < 0
    )
    if is_wrong.any():
        raise FormatError(
            f"the matrix of point {int(np.argmax(is_wrong)) + 1} is no rotation",
            remedy="Correct the file",
        )
