"""Tables of RELION 4 and of Warp and M: positions in pixels, one orientation a particle.

    RELION 4    0-based pixels of the unbinned tilt series; tomograms by rlnTomoName
    Warp, M     0-based pixels of the tomogram, whose size stands in rlnPixelSize and is given to
                Warp as --coords_angpix; tomograms as <name>.tomostar in rlnMicrographName

Columns that are not known are ignored. Sources: RELION 4, ``particle_set.cpp``; Warp,
``ExportParticlesTiltseries.cs``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tomoseg.core.coordinates import Points
from tomoseg.core.sampling import xyz
from tomoseg.io.points.angles import relion_angles
from tomoseg.io.points.dialects import (
    READ_AS_IS,
    ReadOptions,
    TomoContext,
    TomogramPoints,
    WriteOptions,
)
from tomoseg.io.points.relion import optics_groups, optics_table
from tomoseg.io.points.relion_columns import (
    PARTICLE_ANGLES,
    Columns,
    helical_columns,
    is_helical,
    named,
    score_columns,
)
from tomoseg.io.points.relion_reader import PIXELS, TOMOSTAR, read_relion
from tomoseg.io.points.rows import Rows, rows_of
from tomoseg.io.points.star import RELION_4, decoded, read_star, write_star


class Relion4:
    """Particles of RELION 4, a class of any number of tomograms in a table.

    Filaments have one orientation, along the line, and priors equal to it.

    Parameters
    ----------
    options
        How a table is read, where it does not say it.
    """

    name = "relion4"
    scope: Literal["class", "tomogram"] = "class"

    def __init__(self, options: ReadOptions = READ_AS_IS) -> None:
        self.options = options

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

        Raises
        ------
        FormatError
            As for :func:`tomoseg.io.points.relion_reader.read_relion`.
        """
        return read_relion(read_star(decoded(data)), contexts, name, self.options, PIXELS[:1])


class Warp:
    """Particles of Warp and M, a class of any number of tomograms in a table; see Relion4."""

    name = "warp"
    scope: Literal["class", "tomogram"] = "class"

    def __init__(self, options: ReadOptions = READ_AS_IS) -> None:
        self.options = options

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
        """Return the filaments or particles of a table, see :meth:`Relion4.read`."""
        return read_relion(read_star(decoded(data)), contexts, name, self.options, PIXELS[:1])


def _names(contexts: Sequence[TomoContext], ending: str = "") -> NDArray[np.object_]:
    return np.array([context.tomo_name + ending for context in contexts], object)


def _columns(rows: Rows, pixels: Points, *, helical: bool) -> Columns:
    angles = relion_angles(rows.orientations)
    return {
        **named(PIXELS, xyz(rows.points_angstrom) / pixels[rows.tomogram, None]),
        **named(PARTICLE_ANGLES, angles),
        **(helical_columns(rows, angles[:, 1], angles[:, 2]) if helical else {}),
        **score_columns(rows),
    }
