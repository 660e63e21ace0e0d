"""Annotations of the CryoET Data Portal: points as JSON, a line a point.

    {"type": "orientedPoint", "location": {"x": …, "y": …, "z": …}, "xyz_rotation_matrix": […]}
    {"type": "instancePoint", "location": {…}, "instance_id": 1}
    {"type": "point", "location": {…}}

Locations are 0-based voxels of a tomogram whose voxel size the file does not hold; it stands in
the JSON file beside it. The matrix maps a particle into the tomogram: its columns are the axes.
Source: ``point_converter`` of chanzuckerberg/cryoet-data-portal-backend; copick reads it so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from tomoseg.core.coordinates import Filament, Particles, Points
from tomoseg.core.errors import FormatError, RequestError
from tomoseg.core.sampling import Sampling, xyz
from tomoseg.io.points.copick import Location, Number, refuse_no_rotations
from tomoseg.io.points.dialects import TomoContext, TomogramPoints, WriteOptions
from tomoseg.io.points.picks import LARGEST_BYTES

Row = tuple[Number, Number, Number]


class Portal:
    """One class of one tomogram a file; several tomograms become as many files.

    Filaments are instance points, their number the instance, in order along each line. Particles
    are oriented points, or points where no orientation is known. Scores have no place.
    """

    name = "portal"
    scope: Literal["class", "tomogram"] = "class"

    def write(
        self, points: Sequence[TomogramPoints], stem: str, options: WriteOptions
    ) -> dict[str, bytes]:
        """Return ``<stem>_<shape>.ndjson`` and, ``.json``, what it is.

        Of several tomograms they are ``<stem>/<tomogram>_<shape>``.

        Raises
        ------
        RequestError
            If a number of a filament is negative.
        """
        files: dict[str, bytes] = {}
        for tomogram in points:
            name = tomogram.context.tomo_name
            base = stem if len(points) == 1 else f"{stem}/{name}"
            for shape, object_name, rows in _shapes(tomogram):
                path = f"{base}_{shape.lower()}"
                text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
                files[f"{path}.ndjson"] = text.encode()
                about = _about(tomogram.context, shape, object_name, len(rows), path)
                files[f"{path}.json"] = (json.dumps(about, indent=1) + "\n").encode()
        return files

    def read(
        self, data: bytes, contexts: Sequence[TomoContext], *, name: str
    ) -> list[TomogramPoints]:
        """Return a file's points as the class ``name``, in voxels of the only tomogram given.

        Instances of two and more points are filaments; where each has one point, particles.

        Raises
        ------
        RequestError
            If more tomograms than one are given: the file names none.
        FormatError
            If a line is no point, lacks a field, has a matrix that is no rotation, or the lines
            are of different types.
        """
        if len(contexts) != 1:
            raise RequestError(
                f"a file of the portal is of one tomogram, and {len(contexts)} are given",
                remedy="Read the file of each tomogram by itself",
            )
        context = contexts[0]
        rows = list(_rows(data))
        kinds = sorted({row.type for row in rows})
        if len(kinds) > 1:
            raise FormatError(f"the lines are of types {', '.join(kinds)}; one is read")
        if kinds == ["instancePoint"]:
            return [_instances([row for row in rows if row.type == "instancePoint"], name, context)]
        return [TomogramPoints(context, particles=[_particles(rows, name, context.sampling)])]


class Point(BaseModel):
    """A position, voxels."""

    type: Literal["point"]
    location: Location


class OrientedPoint(BaseModel):
    """A position with an orientation, rows of a matrix 3×3."""

    type: Literal["orientedPoint"]
    location: Location
    xyz_rotation_matrix: tuple[Row, Row, Row]


class InstancePoint(BaseModel):
    """A position that belongs to an instance."""

    type: Literal["instancePoint"]
    location: Location
    instance_id: Annotated[int, Field(ge=0)]


AnyPoint = Point | OrientedPoint | InstancePoint
_POINT: TypeAdapter[AnyPoint] = TypeAdapter(Annotated[AnyPoint, Field(discriminator="type")])


def _shapes(tomogram: TomogramPoints) -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    """Give shape, class and lines of each file of a tomogram."""
    sampling = tomogram.context.sampling
    for name in dict.fromkeys(line.name for line in tomogram.filaments):
        lines = [line for line in tomogram.filaments if line.name == name]
        if min(line.number for line in lines) < 0:
            raise RequestError("a filament has a negative number, which is no instance")
        yield (
            "InstancePoint",
            name,
            [
                {"type": "instancePoint", "location": place, "instance_id": line.number}
                for line in lines
                for place in _locations(line.points_angstrom, sampling)
            ],
        )
    for table in tomogram.particles:
        places = _locations(table.points_angstrom, sampling)
        if not np.any(table.orientations != np.eye(3)):
            yield "Point", table.name, [{"type": "point", "location": place} for place in places]
            continue
        matrices = table.orientations.tolist()
        yield (
            "OrientedPoint",
            table.name,
            [
                {"type": "orientedPoint", "location": place, "xyz_rotation_matrix": matrix}
                for place, matrix in zip(places, matrices, strict=True)
            ],
        )


def _locations(points_angstrom: Points, sampling: Sampling) -> list[dict[str, float]]:
    voxels = xyz(sampling.to_voxels(points_angstrom)).tolist()
    return [dict(zip("xyz", place, strict=True)) for place in voxels]


def _about(context: TomoContext, shape: str, name: str, count: int, path: str) -> dict[str, Any]:
    """Return what the portal's metadata of an annotation says and is known here."""
    return {
        "annotation_object": {"name": name},
        "object_count": count,
        "voxel_spacing": context.sampling.voxel_angstrom,
        "tomogram": context.tomo_name,
        "files": [
            {"format": "ndjson", "shape": shape, "path": f"{path.rpartition('/')[2]}.ndjson"}
        ],
    }


def _rows(data: bytes) -> Iterator[AnyPoint]:
    if len(data) > LARGEST_BYTES:
        raise FormatError(
            f"{len(data)} bytes are more than the {LARGEST_BYTES} of the largest file read"
        )
    for number, line in enumerate(data.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            yield _POINT.validate_json(line)
        except ValidationError as error:
            problem = error.errors()[0]
            place = ".".join(str(part) for part in problem["loc"])
            raise FormatError(
                f"line {number} is no point of the portal: {place or 'the text'}: {problem['msg']}",
                remedy="Give an ndjson file of points",
            ) from error


def _places(rows: Sequence[AnyPoint], sampling: Sampling) -> Points:
    """Return positions, shape (n, 3), zyx, Å."""
    voxels = [(row.location.z, row.location.y, row.location.x) for row in rows]
    return sampling.to_angstrom(np.array(voxels, np.float64).reshape(-1, 3))


def _particles(rows: Sequence[AnyPoint], name: str, sampling: Sampling) -> Particles:
    matrices = np.array(
        [row.xyz_rotation_matrix if isinstance(row, OrientedPoint) else np.eye(3) for row in rows]
    ).reshape(-1, 3, 3)
    refuse_no_rotations(matrices)
    return Particles(name, _places(rows, sampling), np.full(len(rows), np.nan), matrices)


def _instances(rows: Sequence[InstancePoint], name: str, context: TomoContext) -> TomogramPoints:
    places = _places(rows, context.sampling)
    instances = np.array([row.instance_id for row in rows])
    ids, counts = np.unique(instances, return_counts=True)
    if (counts == 1).all():
        return TomogramPoints(context, particles=[Particles.at(name, places)])
    if (counts == 1).any():
        raise FormatError(
            f"instance {ids[counts == 1][0]} has one point, and others have several",
            remedy="Give a file of lines, or one of points",
        )
    # The portal counts instances from 0 in some files; a filament's number begins at 1.
    first = 1 if ids[0] == 0 else 0
    lines = [
        Filament(name, int(number) + first, places[instances == number])
        for number in dict.fromkeys(instances.tolist())
    ]
    return TomogramPoints(context, lines)
