"""Boxes of pickers: crYOLO's CBOX and EMAN's .box, one micrograph or tomogram a file.

A box is known by its low corner in x and y, 0-based pixels; its centre is half a box further. z is
that of the centre (``cbox2coords`` of crYOLO's box manager, ``cbox.py`` of its napari plugin).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from tomoseg.core.coordinates import Points
from tomoseg.core.errors import FormatError
from tomoseg.core.sampling import xyz
from tomoseg.io.points.dialects import ReadOptions, TomoContext, TomogramPoints
from tomoseg.io.points.relion_columns import check_columns, columns_of
from tomoseg.io.points.relion_reader import CHANGES, chosen_block
from tomoseg.io.points.rows import Rows, finite, merits, points_of, whole

CORNER = ("CoordinateX", "CoordinateY", "CoordinateZ")
_SIZE = ("Width", "Height")
_FILAMENT = "filamentid"
# What crYOLO writes where it knows no number.
_EMPTY = ("<NA>", "None", "nan", "")


def read_cbox(
    blocks: Mapping[str, pd.DataFrame], context: TomoContext, name: str, options: ReadOptions
) -> TomogramPoints:
    """Read the boxes, or where they have filaments' numbers the filaments, of block ``cryolo``.

    Raises
    ------
    FormatError
        If a column is missing or holds no numbers, there is no z in a tomogram of several slices,
        or of several blocks none is certain.
    """
    block, said = chosen_block(blocks, CORNER[:1], [context], options)
    found = _boxes(blocks[block], context, name, options)
    return _saying(found, context, options, said)


def read_eman(text: str, context: TomoContext, name: str, options: ReadOptions) -> TomogramPoints:
    """Read EMAN's boxes: x, y of the low corner, width and height, a line each.

    Raises
    ------
    FormatError
        If a line is no box.
    """
    lines = [line.split() for line in text.splitlines() if line.strip()]
    for number, fields in enumerate(lines, start=1):
        if len(fields) < 4 or fields[0].startswith("#"):
            raise FormatError(
                f"box {number} is {' '.join(fields)!r}: x, y, width and height are needed",
                remedy="Give boxes of particles, not of filaments",
            )
    rows = pd.DataFrame([fields[:4] for fields in lines], columns=[*CORNER[:2], *_SIZE])
    return _saying(_boxes(rows, context, name, options), context, options, "")


def _saying(
    found: TomogramPoints, context: TomoContext, options: ReadOptions, block: str
) -> TomogramPoints:
    given = options.pixel_size_angstrom
    unit = (
        f"pixels taken as its own of {context.sampling.voxel_angstrom:g} Å ({CHANGES})"
        if given is None
        else f"pixels of {given:g} Å, as --pixel-size says"
    )
    return TomogramPoints(
        context, found.filaments, found.particles, tuple(filter(None, (block, unit)))
    )


def _boxes(
    table: pd.DataFrame, context: TomoContext, name: str, options: ReadOptions
) -> TomogramPoints:
    check_columns(table, [*CORNER[:2], *_SIZE])
    pixels = _numbers(table, CORNER)
    pixels[:, :2] += _numbers(table, _SIZE) / 2
    if np.isnan(pixels[:, 2]).all():
        if context.sampling.shape[0] > 1 and len(table):
            raise FormatError(
                f"there is no {CORNER[2]}, and the tomogram has {context.sampling.shape[0]} slices",
                remedy="Give positions in three dimensions",
            )
        pixels[:, 2] = 0
    given = options.pixel_size_angstrom
    pixel = xyz(np.array(context.sampling.voxel_size_angstrom)) if given is None else given
    points = finite(xyz(pixels * pixel), "a position")
    ids = _numbers(table, (_FILAMENT,))[:, 0] if options.lines else np.full(len(table), np.nan)
    numbers = whole(np.where(np.isnan(ids), -1.0, ids), _FILAMENT)
    rows = Rows(
        np.zeros(len(table), np.int64),
        points,
        np.tile(np.eye(3), (len(table), 1, 1)),
        merits(_numbers(table, ("Confidence",))[:, 0]),
        # They count from 0.
        numbers + 1,
        np.arange(len(table), dtype=np.float64),
        np.zeros(len(table), np.bool_),
    )
    return points_of(rows, [context], name)[0]


def _numbers(table: pd.DataFrame, columns: tuple[str, ...]) -> Points:
    """Return columns side by side, NaN where a field is empty or the column is missing."""
    return columns_of(table.replace(list(_EMPTY), np.nan), columns, np.nan).copy()
