"""Picks of other programs: STAR of RELION, Warp and crYOLO, CBOX, EMAN's boxes, CSV.

What a pixel is differs: :mod:`tomoseg.formats.relion_reader` and :mod:`tomoseg.formats.boxes` say
it. Positions in CSV are Å, or voxels of this tomogram, 0-based.

Rows of an image are counted as they lie in its file. crYOLO counts them from the bottom of what
it shows, which for MRC is the first row of the file, for TIFF and PNG the last.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np
import pandas as pd

from tomoseg.coordinates import Particles, Points
from tomoseg.errors import FormatError
from tomoseg.formats.boxes import CORNER, read_cbox, read_eman
from tomoseg.formats.dialects import (
    EVERY,
    READ_AS_IS,
    ReadOptions,
    TomoContext,
    TomogramPoints,
)
from tomoseg.formats.owners import NAME_COLUMNS, stems, unnamed_owner
from tomoseg.formats.relion_reader import read_relion
from tomoseg.formats.rows import merits
from tomoseg.formats.star import decoded, read_star
from tomoseg.formats.tables import PARTICLE_COLUMNS, read_particles_csv
from tomoseg.sampling import Sampling, xyz

LARGEST_BYTES = 64 * 2**20
UNNAMED = "particle"

# What tables of text call positions, xyz.
_ANGSTROM = (("x_angstrom", "y_angstrom", "z_angstrom"), ("x [a]", "y [a]", "z [a]"))
_VOXELS = (("x_voxel", "y_voxel", "z_voxel"), ("x_px", "y_px", "z_px"), ("x", "y", "z"))
_CLASS = ("class", "kind")
# Empty fields, as CBOX and tables of text have them.
_EMPTY = ["<NA>", "", "nan", np.nan]
_IS_STAR = re.compile(r"^data_", re.MULTILINE)


def read_points(
    data: bytes,
    name: str,
    contexts: Sequence[TomoContext],
    options: ReadOptions = READ_AS_IS,
) -> list[TomogramPoints]:
    """Read what a file holds of tomograms.

    Parameters
    ----------
    data
        The file's content.
    name
        Its name, path or URL; the suffix tells .star, .cbox, .box and tables of text apart.
    contexts
        The tomograms. Where rows name tomograms or micrographs, their own are taken
        (:func:`tomoseg.formats.owners.owned`); a file without names is of one.
    options
        What a person says of the table.

    Returns
    -------
    An item a tomogram: filaments where rows have their numbers, else particles, in the order of
    the file; of the class ``"particle"`` where it names none. ``says`` tells whose rows, which
    block and which unit.

    Raises
    ------
    FormatError
        If the file is too large, is not what it seems, lacks a column, holds a position that is
        not finite or has no z in a tomogram of several slices, or names other tomograms alone.
    """
    try:
        return _read(_text(data), contexts, replace(options, file=name))
    except FormatError as error:
        raise FormatError(f"{name}: {error.message}", remedy=error.remedy) from error


def read_picks(
    data: bytes, name: str, sampling: Sampling, *, tomogram: str | None = None
) -> list[Particles]:
    """Read positions as particles, those of filaments too, a table a class.

    As :func:`read_points` does. ``tomogram`` is the tomogram's name; None takes the rows of all.
    """
    context = TomoContext(tomogram or "tomogram", sampling)
    options = ReadOptions(rows_of=None if tomogram else EVERY, lines=False)
    [found] = read_points(data, name, [context], options)
    return list(found.particles)


def named_tomograms(data: bytes, name: str) -> list[str]:
    """Return the tomograms that the rows of a STAR file name, sorted; none for other tables.

    Raises
    ------
    FormatError
        If the file is too large or no text.
    """
    text = _text(data)
    if not _IS_STAR.search(text):
        return []
    try:
        blocks = read_star(text)
    except FormatError as error:
        raise FormatError(f"{name}: {error.message}", remedy=error.remedy) from error
    columns = [table[c] for table in blocks.values() for c in NAME_COLUMNS if c in table]
    return sorted(set(stems(columns[0].unique()))) if columns else []


def _text(data: bytes) -> str:
    if len(data) > LARGEST_BYTES:
        raise FormatError(
            f"{len(data)} bytes are more than the {LARGEST_BYTES} that a table of picks may have",
            remedy="Split the table by tomogram",
        )
    return decoded(data)


def _read(text: str, contexts: Sequence[TomoContext], options: ReadOptions) -> list[TomogramPoints]:
    suffix = PurePosixPath(options.file.lower()).suffix
    blocks = None
    if suffix in (".star", ".cbox") or _IS_STAR.search(text):
        blocks = read_star(text)
        if not any(CORNER[0] in table for table in blocks.values()):
            return read_relion(blocks, contexts, UNNAMED, options)
    owner, said = unnamed_owner(contexts, options.file)
    context = contexts[owner]
    if blocks is not None:
        found = read_cbox(blocks, context, UNNAMED, options)
    elif suffix == ".box":
        found = read_eman(text, context, UNNAMED, options)
    else:
        found = TomogramPoints(context, particles=_table_picks(text, context.sampling))
    found = replace(found, says=(said, *found.says))
    return [found if place == owner else TomogramPoints(c) for place, c in enumerate(contexts)]


def _table_picks(text: str, sampling: Sampling) -> list[Particles]:
    """Read a table with a line of names; its columns stand between commas, semicolons or tabs."""
    header = text.partition("\n")[0]
    try:
        table = pd.read_csv(io.StringIO(text), sep=max(",;\t", key=header.count), dtype=str)
    except ValueError as error:
        raise FormatError(f"the table cannot be read: {error}", remedy="Check the file") from error
    if set(PARTICLE_COLUMNS) <= set(table):
        found = read_particles_csv(text)
        _checked(np.concatenate([np.empty((0, 3)), *(each.points_angstrom for each in found)]))
        return found
    table.columns = table.columns.str.strip().str.lower()
    if not table.columns.is_unique:
        raise FormatError(f"two columns have one name: {', '.join(table)}", remedy="Rename one")
    classes = next((column for column in _CLASS if column in table), None)
    parts = table.groupby(classes, sort=False) if classes else [(UNNAMED, table)]
    return [replace(_rows_at(rows, sampling), name=str(name)) for name, rows in parts]


def _rows_at(rows: pd.DataFrame, sampling: Sampling) -> Particles:
    scores = _scores(rows, "score")
    for names in _ANGSTROM:
        if names[0] in rows:
            points = _checked(_positions(rows, names, sampling))
            return Particles.at(UNNAMED, xyz(points), scores)
    names = next((names for names in _VOXELS if names[0] in rows), _VOXELS[-1])
    return _at(_positions(rows, names, sampling), sampling, scores)


def _at(pixels_xyz: Points, sampling: Sampling, scores: Points) -> Particles:
    points = sampling.to_angstrom(xyz(_checked(pixels_xyz)))
    return Particles.at(UNNAMED, points, scores)


def _positions(rows: pd.DataFrame, names: Sequence[str], sampling: Sampling) -> Points:
    """Return columns of positions, shape (n, 3), xyz; z is 0 where an image has none."""
    if names[2] in rows and not (len(rows) and rows[names[2]].isin(_EMPTY).all()):
        return _columns(rows, names)
    if sampling.shape[0] > 1:
        raise FormatError(
            f"there is no {names[2]}, and the tomogram has {sampling.shape[0]} slices",
            remedy="Give positions in three dimensions",
        )
    return np.column_stack([_columns(rows, names[:2]), np.zeros(len(rows))])


def _scores(rows: pd.DataFrame, column: str) -> Points:
    return merits(_columns(rows, [column])[:, 0] if column in rows else np.full(len(rows), np.nan))


def _columns(rows: pd.DataFrame, names: Sequence[str]) -> Points:
    """Return columns side by side, float64, shape (n, k), NaN where a field is empty."""
    missing = [name for name in names if name not in rows]
    if missing:
        raise FormatError(
            f"the table lacks the columns {', '.join(missing)}; it has {', '.join(rows)}",
            remedy="Name the columns so, or give another table",
        )
    try:
        return np.asarray(rows[list(names)].replace(_EMPTY, np.nan), np.float64)
    except ValueError as error:
        raise FormatError(
            f"{' or '.join(names)} holds what is no number: {error}", remedy="Correct the table"
        ) from error


def _checked(points: Points) -> Points:
    """Return points, shape (n, 3), all of them finite."""
    bad = np.flatnonzero(~np.isfinite(points).all(axis=1))
    if len(bad):
        raise FormatError(
            f"{len(bad)} of {len(points)} positions are not finite, the first in row {bad[0] + 1}",
            remedy="Correct the table",
        )
    return points
