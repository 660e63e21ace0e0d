"""Picks of other programs: STAR of RELION, Warp and crYOLO, CBOX, EMAN's boxes, CSV, XML.

Each reader gives the rows of one tomogram as positions zyx in Å; what a pixel is differs:

    RELION 5         Å from the centre of the tomogram
    RELION 3 and 4   0-based pixels of the micrograph, or of the unbinned tilt series
    Warp, M          0-based pixels of the size that the row states
    CBOX, EMAN       0-based pixels of the low corner of a box; its centre is half a box further
    CSV, .coords     as their columns say, see :mod:`tomoseg.formats.text_tables`
    Membranorama     Å, the tomogram's origin included, see :mod:`tomoseg.formats.membranorama`

Rows of an image are counted as they lie in its file. crYOLO counts them from the bottom of what
it shows, which for MRC is the first row of the file, for TIFF and PNG the last.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np
import pandas as pd

from tomoseg.coordinates import Particles, Points
from tomoseg.errors import FormatError
from tomoseg.formats.angles import relion_orientations
from tomoseg.formats.dialects import TomoContext, TomogramPoints
from tomoseg.formats.membranorama import read_membranorama
from tomoseg.formats.relion import COORDINATES, particles_of
from tomoseg.formats.relion_columns import PARTICLE_ANGLES, SCORE, SHIFTS, with_optics
from tomoseg.formats.rows import shares
from tomoseg.formats.star import decoded, read_star
from tomoseg.formats.text_tables import read_clicked_lines, read_text_table
from tomoseg.sampling import Sampling, xyz

LARGEST_BYTES = 64 * 2**20
UNNAMED = "particle"

_NAME_COLUMNS = ("rlnTomoName", "rlnMicrographName")
_PIXELS = ("rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ")
_PIXEL_SHIFTS = ("rlnOriginX", "rlnOriginY", "rlnOriginZ")
_CORNER = ("CoordinateX", "CoordinateY", "CoordinateZ")
_BOX_SIZE = ("Width", "Height")
# Empty fields, as CBOX and tables of text have them.
_EMPTY = ["<NA>", "", "nan", np.nan]
# An ending made of letters; that of "TS_01_10.00Apx" is part of the name.
_SUFFIX = re.compile(r"\.[A-Za-z]+$")


def read_picks(
    data: bytes, name: str, sampling: Sampling, *, tomogram: str | None = None
) -> list[Particles]:
    """Return the particles of :func:`read_points`, a table a class.

    ``tomogram`` is the tomogram's name; None takes all rows.
    """
    context = TomoContext(tomogram or "tomogram", sampling)
    return list(read_points(data, name, context, tomogram=tomogram).particles)


def read_points(
    data: bytes,
    name: str,
    context: TomoContext,
    *,
    tomogram: str | None,
) -> TomogramPoints:
    """Read the positions that a file holds of one tomogram.

    Parameters
    ----------
    data
        The file's content.
    name
        Its name, path or URL; the suffix tells .star, .cbox, .box, .xml and tables of text apart.
    context
        The tomogram.
    tomogram
        Its name. Where rows name tomograms or micrographs, those of this one are taken: of the
        same name, else of the only one that is longer or shorter by a part that begins with no
        letter or digit, as ``01006`` and ``01006_10.73Apx`` are. None takes all rows.

    Returns
    -------
    Particles a class where the file names classes, else of one called ``"particle"``; in the
    order of the file. Scores that are no shares 0..1 are unknown. ``says`` tells how a table of
    text was read.

    Raises
    ------
    FormatError
        If the file is too large, is not what it seems, lacks a column, holds a position that is
        not finite or has no z in a tomogram of several slices, or names other tomograms alone.
    """
    try:
        _check_size(data)
        suffix = PurePosixPath(name.lower()).suffix
        if suffix == ".xml":
            return read_membranorama(data, context)
        return _read(decoded(data), suffix, context, tomogram)
    except FormatError as error:
        raise FormatError(f"{name}: {error.message}", remedy=error.remedy) from error


def read_clicks(
    data: bytes, name: str, context: TomoContext, *, tomogram: str | None
) -> TomogramPoints:
    """Read a table of points that were clicked along filaments, in order, as these filaments.

    Parameters and errors are those of :func:`read_points`.
    """
    try:
        _check_size(data)
        return read_clicked_lines(decoded(data), context, UNNAMED, tomogram=tomogram)
    except FormatError as error:
        raise FormatError(f"{name}: {error.message}", remedy=error.remedy) from error


def named_tomograms(data: bytes, name: str) -> list[str]:
    """Return the tomograms that the rows of a STAR file name, sorted; none for other tables.

    Raises
    ------
    FormatError
        If the file is too large or no text.
    """
    _check_size(data)
    text = decoded(data)
    if not re.search(r"^data_", text, re.MULTILINE):
        return []
    try:
        blocks = read_star(text)
    except FormatError as error:
        raise FormatError(f"{name}: {error.message}", remedy=error.remedy) from error
    columns = [table[c] for table in blocks.values() for c in _NAME_COLUMNS if c in table]
    return sorted(set(_stems(columns[0]))) if columns else []


def _check_size(data: bytes) -> None:
    if len(data) > LARGEST_BYTES:
        raise FormatError(
            f"{len(data)} bytes are more than the {LARGEST_BYTES} that a table of picks may have",
            remedy="Split the table by tomogram",
        )


def _read(text: str, suffix: str, context: TomoContext, tomogram: str | None) -> TomogramPoints:
    if suffix == ".box":
        return TomogramPoints(context, particles=[_eman_boxes(text, context.sampling)])
    if suffix in (".star", ".cbox") or re.search(r"^data_", text, re.MULTILINE):
        found = _star_picks(read_star(text), context.sampling, tomogram)
        return TomogramPoints(context, particles=[found])
    return read_text_table(text, context, UNNAMED, tomogram=tomogram)


def _star_picks(
    blocks: Mapping[str, pd.DataFrame], sampling: Sampling, tomogram: str | None
) -> Particles:
    """Read the first block that has positions."""
    for table in blocks.values():
        if COORDINATES[0] in table:
            return _centred_picks(_rows_of(table, tomogram), sampling)
        if _PIXELS[0] in table:
            rows = _rows_of(with_optics(table, blocks.get("optics")), tomogram)
            return _pixel_picks(rows, sampling)
        if _CORNER[0] in table:
            return _cryolo_boxes(table, sampling)
    raise FormatError(
        f"no block has a column {COORDINATES[0]}, {_PIXELS[0]} or {_CORNER[0]}",
        remedy="Give the table of the particles",
    )


def _rows_of(table: pd.DataFrame, tomogram: str | None) -> pd.DataFrame:
    column = next((column for column in _NAME_COLUMNS if column in table), None)
    if column is None or tomogram is None or not len(table):
        return table
    names = _stems(table[column])
    known = sorted(set(names))
    meant = [tomogram] if tomogram in known else [n for n in known if _are_alike(n, tomogram)]
    if len(meant) != 1:
        raise FormatError(
            f"{column} names {', '.join(known[:5])}{' …' if len(known) > 5 else ''}, and none "
            f"alone is {tomogram}",
            remedy="Give this tomogram's table, or make the names equal",
        )
    return table[names == meant[0]]


def _stems(names: pd.Series[str]) -> pd.Series[str]:
    """Return names of tomograms without folder and suffix."""
    return names.astype(str).map(lambda name: _SUFFIX.sub("", PurePosixPath(name).name))


def _are_alike(one: str, other: str) -> bool:
    short, long = sorted((one, other), key=len)
    return long.startswith(short) and not long[len(short) : len(short) + 1].isalnum()


def _centred_picks(rows: pd.DataFrame, sampling: Sampling) -> Particles:
    """Read RELION 5's positions, refined shifts included."""
    _checked(_columns(rows, COORDINATES))
    context = TomoContext("tomogram", sampling)
    found = particles_of(rows.assign(rlnTomoName="tomogram"), UNNAMED, context=context)
    return replace(found, scores=shares(found.scores))


def _pixel_picks(rows: pd.DataFrame, sampling: Sampling) -> Particles:
    """Read the positions of RELION 3 and 4, Warp and crYOLO, refined shifts included."""
    pixels = _positions(rows, _PIXELS, sampling)
    pixel_angstrom = _pixel_angstrom(rows, sampling)
    if SHIFTS[0] in rows:
        shifts = _columns(rows, [column for column in SHIFTS if column in rows])
    else:
        shifts = _columns(rows, [column for column in _PIXEL_SHIFTS if column in rows])
        shifts = shifts * pixel_angstrom[:, : shifts.shape[1]]
    points = pixels * pixel_angstrom
    points[:, : shifts.shape[1]] -= shifts
    found = Particles.at(UNNAMED, xyz(_checked(points)), _scores(rows, SCORE))
    return replace(found, orientations=_orientations(rows))


def _orientations(rows: pd.DataFrame) -> Points:
    """Return the orientations of picks in 3D, shape (n, 3, 3); identity where they are unknown."""
    if not len(rows) or not {_PIXELS[2], *PARTICLE_ANGLES} <= set(rows):
        return np.tile(np.eye(3), (len(rows), 1, 1))
    angles = _columns(rows, PARTICLE_ANGLES)
    # Programs write -9999 where they know no angle.
    is_known = (np.abs(angles) <= 360).all(axis=1, keepdims=True)
    return relion_orientations(np.where(is_known, angles, 0.0))


def _pixel_angstrom(rows: pd.DataFrame, sampling: Sampling) -> Points:
    """Return what positions are counted in, shape (n, 3), xyz, Å; else the tomogram's voxel.

    A particle's image may be binned, its position on a micrograph is not. In 3D Warp and
    template matching state the pixel of the positions where RELION states that of the images.
    """
    if _PIXELS[2] not in rows:
        stated: tuple[str, ...] = ("rlnMicrographPixelSize",)
    else:
        stated = ("rlnTomoTiltSeriesPixelSize", "rlnPixelSize", "rlnDetectorPixelSize")
    column = next((column for column in stated if column in rows), None)
    if column is None:
        return np.tile(xyz(sampling.voxel_size_angstrom), (len(rows), 1))
    size = _columns(rows, [column])
    if column == "rlnDetectorPixelSize" and "rlnMagnification" in rows:
        # µm on the detector; what states Å there states no or a nominal magnification of 10,000.
        size = 1e4 * size / _columns(rows, ["rlnMagnification"])
    if not (np.isfinite(size) & (size > 0)).all():
        raise FormatError(f"{column} is not positive in every row", remedy="Correct the table")
    return np.tile(size, (1, 3))


def _cryolo_boxes(table: pd.DataFrame, sampling: Sampling) -> Particles:
    """Read crYOLO's boxes; z is that of the centre (``cbox2coords`` of its box manager)."""
    pixels = _positions(table, _CORNER, sampling)
    pixels[:, :2] += _columns(table, _BOX_SIZE) / 2
    return _at(pixels, sampling, _scores(table, "Confidence"))


def _eman_boxes(text: str, sampling: Sampling) -> Particles:
    """Read EMAN's boxes: x, y of the low corner, width and height, a line each."""
    lines = [line.split() for line in text.splitlines() if line.strip()]
    for number, fields in enumerate(lines, start=1):
        if len(fields) < 4 or fields[0].startswith("#"):
            raise FormatError(
                f"box {number} is {' '.join(fields)!r}: x, y, width and height are needed",
                remedy="Give boxes of particles, not of filaments",
            )
    rows = pd.DataFrame([fields[:4] for fields in lines], columns=[*_CORNER[:2], *_BOX_SIZE])
    return _cryolo_boxes(rows, sampling)


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
    return shares(_columns(rows, [column])[:, 0] if column in rows else np.full(len(rows), np.nan))


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
