"""Dynamo's tables of particles (.tbl), and the .doc that names their tomograms.

A line a particle, without names of columns (counted from 1): 1 tag, 2 aligned, 4-6 shift, 7-9
tdrot, tilt, narot, 10 cc, 13 ftype, 14-15 tilt range, 20 tomogram, 21 region, 22 class, 24-26 x,
y, z in voxels, 36 Å a voxel; Dynamo's wiki, "Table convention". Positions count from the corner of
the first voxel ("Volume center"), so that its centre is at 0.5; the shift is added to them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from tomoseg.core.coordinates import Points
from tomoseg.core.errors import FormatError
from tomoseg.core.sampling import xyz
from tomoseg.io.points.angles import dynamo_angles, dynamo_orientations
from tomoseg.io.points.dialects import Origin, TomoContext, TomogramPoints, WriteOptions
from tomoseg.io.points.numbered import places, write_doc
from tomoseg.io.points.rows import (
    Rows,
    finite,
    known_scores,
    lines_alone,
    points_of,
    rows_of,
    whole,
)
from tomoseg.io.points.star import decoded

COLUMNS = 36
FIRST_VOXEL: dict[Origin, float] = {"corner": 0.5, "centre": 0.0}

_SHIFT, _ANGLES, _POSITION = slice(3, 6), slice(6, 9), slice(23, 26)
_CC, _TOMOGRAM, _REGION, _PIXEL = 9, 19, 20, 35
_NEEDED = 26
# Voxel sizes that differ by less are one.
_TOLERANCE = 1e-3


class Dynamo:
    """Tables of Dynamo, a class of any number of tomograms each.

    Filaments are sampled, and their number is the region; a particle's region is 0. Read back,
    a region is a filament if its rows lie along a line
    (:func:`tomoseg.io.points.rows.lines_alone`), and what else there is are particles.

    Parameters
    ----------
    tomo_names
        Number → tomogram of the file to read, see :func:`tomoseg.io.points.numbered.read_doc`.
    origin
        From where the file to read counts; what is written is said by
        :class:`tomoseg.io.points.dialects.WriteOptions`.
    """

    name = "dynamo"
    scope: Literal["class", "tomogram"] = "class"

    def __init__(
        self, tomo_names: Mapping[int, str] | None = None, origin: Origin = "corner"
    ) -> None:
        self.tomo_names = tomo_names or {}
        self.origin: Origin = origin

    def write(
        self, points: Sequence[TomogramPoints], stem: str, options: WriteOptions
    ) -> dict[str, bytes]:
        """Return the table and the .doc beside it."""
        contexts = [each.context for each in points]
        table = _table(rows_of(points, options), contexts, options)
        lines = (" ".join(f"{value:.10g}" for value in row) + "\n" for row in table.tolist())
        return {
            f"{stem}.tbl": "".join(lines).encode(),
            f"{stem}.doc": write_doc(contexts).encode(),
        }

    def read(
        self, data: bytes, contexts: Sequence[TomoContext], *, name: str
    ) -> list[TomogramPoints]:
        """Return the particles of a table; columns past the 36th are ignored.

        Raises
        ------
        FormatError
            If a line is too short or has no numbers, or a tomogram's number is unknown.
        """
        table = _read_table(decoded(data))
        tomogram, says = places(whole(table[:, _TOMOGRAM], "column 20"), contexts, self.tomo_names)
        rows = Rows(
            tomogram,
            _positions(table, tomogram, contexts, self.origin),
            dynamo_orientations(finite(table[:, _ANGLES], "columns 7 to 9")),
            known_scores(table[:, _CC]),
            whole(table[:, _REGION], "column 21"),
            np.arange(len(table), dtype=np.float64),
            np.zeros(len(table), np.bool_),
        )
        found = points_of(lines_alone(rows), contexts, name)
        says += _said(table[:, _PIXEL], contexts, self.origin)
        return [replace(each, says=says) for each in found]


def _table(rows: Rows, contexts: Sequence[TomoContext], options: WriteOptions) -> Points:
    """Return the numbers of a table, shape (n, 36)."""
    table = np.zeros((len(rows), COLUMNS))
    table[:, 0] = np.arange(1, len(rows) + 1)
    table[:, 1] = 1
    table[:, _ANGLES] = dynamo_angles(rows.orientations)
    table[:, _CC] = np.nan_to_num(rows.scores)
    table[:, 12] = 1
    table[:, 13:15] = options.tilt_range_degrees
    table[:, _TOMOGRAM] = rows.tomogram + 1
    table[:, _REGION] = rows.filament
    table[:, 21] = 1
    for place, context in enumerate(contexts):
        members = rows.tomogram == place
        voxels = context.sampling.to_voxels(rows.points_angstrom[members])
        table[members, _POSITION] = xyz(voxels) + FIRST_VOXEL[options.origin]
        table[members, _PIXEL] = context.sampling.voxel_angstrom
    return np.round(table, 6)


def _read_table(text: str) -> Points:
    """Return the first 36 numbers of every line, shape (n, 36), 0 where a line is shorter."""
    lines = [line for line in text.splitlines() if line.strip()]
    width = len(lines[0].split()) if lines else 0
    rows = []
    for row, line in enumerate(lines):
        fields = line.split()
        if len(fields) < _NEEDED or len(fields) != width:
            raise FormatError(
                f"line {row + 1} has {len(fields)} columns; every line needs the same number, "
                f"at least {_NEEDED}",
                remedy="Give a table of Dynamo",
            )
        rows.append(np.array([_number(field, row) for field in fields[:COLUMNS]]))
    table = np.zeros((len(rows), COLUMNS))
    table[:, : min(width, COLUMNS)] = np.stack(rows) if rows else 0
    return table


def _number(field: str, row: int) -> float:
    """Return a number; the difference of axes, column 28, may be complex and is not used."""
    try:
        return complex(f"{field[:-1]}j").real if field.endswith("i") else float(field)
    except ValueError as error:
        raise FormatError(
            f"line {row + 1} holds {field!r}, which is no number", remedy="Give a table of Dynamo"
        ) from error


def _positions(
    table: Points,
    tomogram: np.ndarray[tuple[int], np.dtype[np.int64]],
    contexts: Sequence[TomoContext],
    origin: Origin,
) -> Points:
    """Return zyx, Å; rows of no tomogram given are at 0."""
    voxels = finite(table[:, _POSITION] + table[:, _SHIFT], "columns 4 to 6 or 24 to 26")
    points = np.zeros((len(table), 3))
    for place, context in enumerate(contexts):
        members = tomogram == place
        points[members] = _angstrom(voxels[members], table[members, _PIXEL], context, origin)
    return finite(points, "a position in Å, by column 36,")


def _angstrom(voxels: Points, pixel: Points, context: TomoContext, origin: Origin) -> Points:
    """Return zyx, Å. Tomograms binned otherwise share the corner, or by option the centre."""
    sampling, first = context.sampling, FIRST_VOXEL[origin]
    voxel = sampling.voxel_angstrom
    stated = np.where(pixel > 0, pixel, voxel)
    other = xyz(voxels) * stated[:, None] - first * voxel
    is_same = abs(stated / voxel - 1) < _TOLERANCE
    return np.where(is_same[:, None], sampling.to_angstrom(xyz(voxels) - first), other)


def _said(pixel: Points, contexts: Sequence[TomoContext], origin: Origin) -> tuple[str, ...]:
    """Say in what unit and from where positions were counted."""
    stated = sorted({f"{size:g}" for size in pixel if size > 0})
    own = {f"{context.sampling.voxel_angstrom:g}" for context in contexts}
    if len(pixel) and not stated:
        unit = "column 36 states no pixel size: positions taken as the tomogram's voxels"
    else:
        unit = f"pixels of {', '.join(stated)} Å by column 36" if set(stated) - own else ""
    other = "centre" if origin == "corner" else "corner"
    start = f"counted from the {origin} of the first voxel (--origin {other} changes it)"
    return tuple(filter(None, (unit, start)))
