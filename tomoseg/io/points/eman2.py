"""EMAN2's ``info/<name>_info.json``: boxes of particles and curves along filaments.

Positions are in pixels of the unbinned tilt series, from the middle of the tomogram, which is
voxel n // 2 (0-based) along each axis: ``e2spt_boxer.py`` finds a box at
``position · apix_unbin / apix + n // 2``, and ``e2spt_extract.py`` reads curves alike.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from tomoseg.core.coordinates import Filament, Particles, Points
from tomoseg.core.errors import FormatError
from tomoseg.core.sampling import Shape, xyz
from tomoseg.io.points.dialects import (
    TomoContext,
    TomogramPoints,
    WriteOptions,
    by_class,
    the_tomogram,
)

LARGEST_BYTES = 256 * 2**20
# What EMAN2 takes itself where no box size is known, in unbinned pixels.
UNKNOWN_BOX_PIXELS = 64
# EMAN2 numbers classes of curves without naming them; it leaves other programs' keys alone.
_CURVE_NAMES = "tomoseg_curves"
_BOX_FIELDS = 3, 6
_CURVE_FIELDS = 4, 5
_MOST_DIGITS = 18


class Eman2:
    """The boxes, curves and their classes of a tomogram's info file.

    A box is ``[x, y, z, "tomoseg", score, class]``, a point of a curve ``[x, y, z, curve,
    class]``. EMAN2 has no orientations there, and no unknown scores: 0 is written for them, and a
    class that has nothing else is read as unknown.

    Notes
    -----
    A fresh file is written. An info file that EMAN2 made of the tilt series holds its alignment
    and CTF as well: copy ``boxes_3d``, ``class_list`` and ``curves`` into it rather than put the
    new file in its place.
    """

    name = "eman2"
    scope: Literal["class", "tomogram"] = "tomogram"

    def write(
        self, points: Sequence[TomogramPoints], stem: str, options: WriteOptions
    ) -> dict[str, bytes]:
        """Return ``stem_info.json``; the box of a class is as wide as its particles.

        Raises
        ------
        RequestError
            If there is not one tomogram.
        """
        context = the_tomogram([each.context for each in points], "EMAN2")
        particles, lines = points[0].particles, by_class(points[0].filaments)
        info = {
            "apix_unbin": float(context.pixel_angstrom),
            "boxes_3d": [
                [*position, "tomoseg", score, number]
                for number, each in enumerate(particles)
                for position, score in zip(
                    _to_eman2(each.points_angstrom, context).tolist(),
                    np.nan_to_num(each.scores).tolist(),
                    strict=True,
                )
            ],
            "class_list": {
                str(number): {"name": each.name, "boxsize": _box_pixels(each, context, options)}
                for number, each in enumerate(particles)
            },
            "curves": [
                [*position, filament.number, number]
                for number, filaments in enumerate(lines.values())
                for filament in filaments
                for position in _to_eman2(filament.points_angstrom, context).tolist()
            ],
            _CURVE_NAMES: {str(number): name for number, name in enumerate(lines)},
        }
        return {f"{stem}_info.json": json.dumps(info, indent=1).encode()}

    def read(
        self, data: bytes, contexts: Sequence[TomoContext], *, name: str
    ) -> list[TomogramPoints]:
        """Return the boxes and curves of an info file.

        Boxes of class 0 are called ``name`` where the class has no name, those of class 1
        ``name_01`` …; so are curves, whose classes EMAN2 does not name.

        Raises
        ------
        FormatError
            If this is no such file, it has no ``apix_unbin`` (before 2018 positions were in
            voxels of a tomogram that the file does not name), or a box or curve is not what it
            should be.
        """
        context = the_tomogram(contexts, "EMAN2")
        info = _parsed(data)
        pixel = _pixel_of(info)
        names = {key: _class_name(key, each) for key, each in _table(info, "class_list").items()}
        particles = _particles(_rows(info, "boxes_3d", _BOX_FIELDS), names, name)
        curve_names = {key: str(each) for key, each in _table(info, _CURVE_NAMES).items()}
        curves = _curves(_rows(info, "curves", _CURVE_FIELDS), curve_names, name)
        return [
            TomogramPoints(
                context,
                [
                    Filament(each, number, _from_eman2(points, pixel, context))
                    for (each, number), points in curves.items()
                ],
                [
                    Particles.at(each, _from_eman2(points, pixel, context), scores)
                    for each, (points, scores) in particles.items()
                ],
            )
        ]


def _to_eman2(points_angstrom: Points, context: TomoContext) -> Points:
    from_middle = context.sampling.to_voxels(points_angstrom) - _middle(context.sampling.shape)
    return xyz(from_middle) * (context.sampling.voxel_angstrom / context.pixel_angstrom)


def _from_eman2(positions_xyz: Points, pixel_angstrom: float, context: TomoContext) -> Points:
    from_middle = xyz(positions_xyz) * (pixel_angstrom / context.sampling.voxel_angstrom)
    return context.sampling.to_angstrom(from_middle + _middle(context.sampling.shape))


def _middle(shape: Shape) -> Points:
    return np.array(shape, np.float64) // 2


def _box_pixels(particles: Particles, context: TomoContext, options: WriteOptions) -> int:
    """Return the diameter in unbinned pixels, rounded up to an even number."""
    radius = options.radius_angstrom.get(particles.name)
    if radius is None:
        return UNKNOWN_BOX_PIXELS
    return 2 * int(np.ceil(radius / context.pixel_angstrom))


def _parsed(data: bytes) -> dict[str, Any]:
    if len(data) > LARGEST_BYTES:
        raise FormatError(f"{len(data)} bytes are more than the {LARGEST_BYTES} that are read")
    try:
        info = json.loads(data)
    # Nesting deeper than the parser goes; numbers longer than int takes.
    except (ValueError, RecursionError) as error:
        raise FormatError(
            f"this is no JSON: {error}", remedy="Give the info file of the tomogram"
        ) from error
    if not isinstance(info, dict):
        raise FormatError("an info file of EMAN2 is a JSON object; this is something else")
    return info


def _pixel_of(info: Mapping[str, Any]) -> float:
    if "apix_unbin" not in info:
        raise FormatError(
            "the info file has no apix_unbin, so that its positions are in voxels of an unknown "
            "tomogram",
            remedy="Open and save it in e2spt_boxer.py, or add apix_unbin",
        )
    # Other programs write it as text.
    (pixel,) = _numbers([info["apix_unbin"]], "apix_unbin")
    if not pixel > 0:
        raise FormatError(f"apix_unbin {pixel} must be positive", remedy="Correct the info file")
    return pixel


def _table(info: Mapping[str, Any], key: str) -> dict[int, Any]:
    """Return a JSON object whose keys are numbers of classes."""
    table = info.get(key, {})
    if not isinstance(table, dict) or not all(
        each.isdecimal() and len(each) <= _MOST_DIGITS for each in table
    ):
        raise FormatError(f"{key} of the info file does not map numbers of classes")
    return {int(each): value for each, value in table.items()}


def _class_name(number: int, described: Any) -> str:
    if not isinstance(described, dict) or not described.get("name"):
        raise FormatError(f"class {number} of the info file has no name")
    return str(described["name"])


def _rows(info: Mapping[str, Any], key: str, fields: tuple[int, int]) -> list[list[Any]]:
    """Return a list of lists of at least and at most so many fields."""
    rows = info.get(key, [])
    least, most = fields
    if not isinstance(rows, list):
        raise FormatError(f"{key} of the info file is no list")
    for i, row in enumerate(rows):
        # Later versions of EMAN2 may add fields behind those that are known.
        if not isinstance(row, list) or len(row) < least:
            raise FormatError(f"item {i} of {key} has no {least} fields: {str(row)[:80]}")
    return [row[:most] for row in rows]


def _particles(
    rows: list[list[Any]], names: Mapping[int, str], unnamed: str
) -> dict[str, tuple[Points, Points]]:
    """Return class → positions, shape (n, 3), xyz, as in the file, and scores, (n,)."""
    # Method, score and class may be missing: e2spt_boxer.py takes these.
    full = [[*row, *("manual", 0.0, 0)[len(row) - 3 :]] for row in rows]
    parts: dict[str, list[list[float]]] = {}
    for x, y, z, _, score, number in full:
        values = _numbers([x, y, z, score], "boxes_3d")
        parts.setdefault(_name_of(number, names, unnamed), []).append(values)
    found = {each: np.array(values) for each, values in parts.items()}
    return {each: (table[:, :3], _scores(table[:, 3])) for each, table in found.items()}


def _scores(scores: Points) -> Points:
    """Return scores, NaN where they are no shares 0..1 or nobody gave any."""
    known = (scores >= 0) & (scores <= 1) & scores.any()
    return np.where(known, scores, np.nan)


def _curves(
    rows: list[list[Any]], names: Mapping[int, str], unnamed: str
) -> dict[tuple[str, int], Points]:
    """Return class and number → points, shape (n ≥ 2, 3), xyz, as in the file.

    EMAN2 counts curves from 0; those of a class that has this one are counted from 1.
    """
    classes: dict[str, dict[int, list[list[float]]]] = {}
    for row in rows:
        x, y, z, curve, number = [*row, 0][:5]
        curves = classes.setdefault(_name_of(number, names, unnamed), {})
        curves.setdefault(_whole(curve), []).append(_numbers([x, y, z], "curves"))
    return {
        (name, curve + max(0, 1 - min(curves))): _line(points, curve)
        for name, curves in classes.items()
        for curve, points in curves.items()
    }


def _line(points: list[list[float]], curve: int) -> Points:
    if len(points) < 2:
        raise FormatError(
            f"curve {curve} of the info file has one point",
            remedy="Delete it in e2tomo_drawcurve.py",
        )
    return np.array(points)


def _name_of(number: Any, names: Mapping[int, str], unnamed: str) -> str:
    whole = _whole(number)
    return names.get(whole, f"{unnamed}_{whole:02d}" if whole else unnamed)


def _whole(value: Any) -> int:
    (number,) = _numbers([value], "a class or curve")
    if number != int(number) or abs(number) >= 2**31:
        raise FormatError(f"{number} is no number of a class or curve")
    return int(number)


def _numbers(values: Sequence[Any], where: str) -> list[float]:
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError, OverflowError) as error:
        raise FormatError(f"{where} of the info file: {error}") from error
    if not np.isfinite(numbers).all():
        raise FormatError(f"{where} of the info file holds {numbers}, which is not finite")
    return numbers
