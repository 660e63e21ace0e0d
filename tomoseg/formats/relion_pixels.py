"""Tables of RELION 4 and of Warp and M: positions in pixels, one orientation a particle.

    RELION 4    0-based pixels of the unbinned tilt series; tomograms by rlnTomoName
    Warp, M     0-based pixels of the tomogram, whose size stands in rlnPixelSize and is given to
                Warp as --coords_angpix; tomograms as <name>.tomostar in rlnMicrographName

Columns that are not known are ignored. Sources: RELION 4, ``particle_set.cpp``; Warp,
``ExportParticlesTiltseries.cs``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tomoseg.coordinates import Points
from tomoseg.errors import FormatError
from tomoseg.formats.angles import relion_angles
from tomoseg.formats.dialects import TomoContext, TomogramPoints, WriteOptions
from tomoseg.formats.relion import optics_groups, optics_table
from tomoseg.formats.relion_columns import (
    PARTICLE_ANGLES,
    SHIFTS,
    TUBE,
    Columns,
    check_columns,
    checked_names,
    columns_of,
    helical_columns,
    is_helical,
    named,
    score_columns,
    shared_rows,
    table_with,
    turned_shifts,
)
from tomoseg.formats.rows import Integers, Rows, points_of, rows_of
from tomoseg.formats.star import RELION_4, decoded, read_star, write_star
from tomoseg.sampling import xyz

PIXELS = [f"rlnCoordinate{axis}" for axis in "XYZ"]
PIXEL_SHIFTS = [f"rlnOrigin{axis}" for axis in "XYZ"]
TOMOSTAR = ".tomostar"


class Relion4:
    """Particles of RELION 4, a class of any number of tomograms in a table.

    Filaments have one orientation, along the line, and priors equal to it.
    """

    name = "relion4"
    scope: Literal["class", "tomogram"] = "class"

    def write(
        self, points: Sequence[TomogramPoints], stem: str, options: WriteOptions
    ) -> dict[str, bytes]:
        """Return the table."""
        contexts = [each.context for each in points]
        rows = rows_of(points, options)
        pixels = np.array([context.pixel_angstrom for context in contexts])
        columns = {
            "rlnTomoName": _names(contexts)[rows.tomogram],
            **_columns(rows, pixels, helical=is_helical(points)),
            "rlnOpticsGroup": optics_groups(contexts)[rows.tomogram],
        }
        blocks = {
            "optics": optics_table(*contexts),
            "particles": pd.DataFrame(columns, index=range(len(rows))),
        }
        return {f"{stem}.star": write_star(blocks, version=RELION_4).encode()}

    def read(
        self, data: bytes, contexts: Sequence[TomoContext], *, name: str
    ) -> list[TomogramPoints]:
        """Return the filaments, where tubes have ids, or the particles of a table.

        What a pixel is, the table says in rlnTomoTiltSeriesPixelSize, else the tomogram.

        Raises
        ------
        FormatError
            If a column is missing or holds no numbers, no row is of a tomogram given, or a
            tube's id is below 1.
        """
        table = table_with(read_star(decoded(data)), PIXELS[0])
        check_columns(table, ["rlnTomoName", *PIXELS])
        tomogram = checked_names(_series(table["rlnTomoName"]), contexts)
        own = np.array([context.pixel_angstrom for context in contexts])
        stated = columns_of(table, ["rlnTomoTiltSeriesPixelSize"], np.nan)[:, 0]
        return _read(table, tomogram, _pixels(stated, own[tomogram]), contexts, name)


class Warp:
    """Particles of Warp and M, a class of any number of tomograms in a table; see Relion4."""

    name = "warp"
    scope: Literal["class", "tomogram"] = "class"

    def write(
        self, points: Sequence[TomogramPoints], stem: str, options: WriteOptions
    ) -> dict[str, bytes]:
        """Return the table."""
        contexts = [each.context for each in points]
        rows = rows_of(points, options)
        pixels = np.array([context.sampling.voxel_angstrom for context in contexts])
        columns = {
            "rlnMicrographName": _names(contexts, TOMOSTAR)[rows.tomogram],
            **_columns(rows, pixels, helical=is_helical(points)),
            "rlnPixelSize": pixels[rows.tomogram],
        }
        table = pd.DataFrame(columns, index=range(len(rows)))
        return {f"{stem}.star": write_star({"particles": table}, version=RELION_4).encode()}

    def read(
        self, data: bytes, contexts: Sequence[TomoContext], *, name: str
    ) -> list[TomogramPoints]:
        """Return the filaments, where tubes have ids, or the particles of a table.

        What a pixel is, the table says in rlnPixelSize or, as µm over magnification, in
        rlnDetectorPixelSize; else it is the tomogram's voxel.

        Raises
        ------
        FormatError
            As for :meth:`Relion4.read`.
        """
        table = table_with(read_star(decoded(data)), PIXELS[0])
        check_columns(table, ["rlnMicrographName", *PIXELS])
        tomogram = checked_names(_series(table["rlnMicrographName"]), contexts)
        own = np.array([context.sampling.voxel_angstrom for context in contexts])
        return _read(table, tomogram, _pixels(_stated(table), own[tomogram]), contexts, name)


def _names(contexts: Sequence[TomoContext], ending: str = "") -> NDArray[np.object_]:
    return np.array([context.tomo_name + ending for context in contexts], object)


def _series(names: pd.Series) -> pd.Series:
    """Return the tilt series' names, without the folder and Warp's ending."""
    return names.map(lambda name: PurePosixPath(str(name)).name.removesuffix(TOMOSTAR))


def _columns(rows: Rows, pixels: Points, *, helical: bool) -> Columns:
    angles = relion_angles(rows.orientations)
    return {
        **named(PIXELS, xyz(rows.points_angstrom) / pixels[rows.tomogram, None]),
        **named(PARTICLE_ANGLES, angles),
        **(helical_columns(rows, angles[:, 1], angles[:, 2]) if helical else {}),
        **score_columns(rows),
    }


def _stated(table: pd.DataFrame) -> Points:
    """Return the pixel of each row, Å, as Warp states it; NaN where it does not."""
    if "rlnPixelSize" in table:
        return columns_of(table, ["rlnPixelSize"])[:, 0]
    # µm on the detector; what states Å there states a nominal magnification of 10,000.
    magnification = columns_of(table, ["rlnMagnification"], 10_000.0)[:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        pixel: Points = columns_of(table, ["rlnDetectorPixelSize"], np.nan)[:, 0] / magnification
    return 1e4 * pixel


def _pixels(stated: Points, own: Points) -> Points:
    pixels = np.where(np.isnan(stated), own, stated)
    if not (np.isfinite(pixels) & (pixels > 0)).all():
        raise FormatError("the pixel size is not positive in every row", remedy="Correct the table")
    return pixels


def _read(
    table: pd.DataFrame,
    tomogram: Integers,
    pixels: Points,
    contexts: Sequence[TomoContext],
    name: str,
) -> list[TomogramPoints]:
    """Read the rows of the tomograms given, each with its place and its pixel in Å."""
    is_known = tomogram >= 0
    rows, pixel = table[is_known], pixels[is_known, None]
    # RELION states refined shifts in Å; what is older than 3.1, in pixels.
    shifts = turned_shifts(rows)
    if SHIFTS[0] not in rows:
        shifts = columns_of(rows, PIXEL_SHIFTS) * pixel
    points = xyz(columns_of(rows, PIXELS) * pixel - shifts)
    return points_of(
        shared_rows(rows, tomogram[is_known], points, helical=TUBE in rows), contexts, name
    )
