"""RELION-5 tables of filaments and particles, and the same read back.

Columns as RELION's own filament picker writes them (``relion_python_tomo_get_particle_poses``);
an orientation is split in the two angles triples that RELION multiplies:
A(rlnTomoSubtomogram*) · A(rlnAngle*).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from scipy.spatial.transform import Rotation

from tomoseg.core.coordinates import Filament, Particles
from tomoseg.core.sampling import Sampling, xyz
from tomoseg.io.points.angles import relion_angles
from tomoseg.io.points.dialects import (
    READ_AS_IS,
    ReadOptions,
    TomoContext,
    TomogramPoints,
    WriteOptions,
)
from tomoseg.io.points.relion_columns import (
    PARTICLE_ANGLES,
    SCORE,
    SUBTOMOGRAM_ANGLES,
    Columns,
    helical_columns,
    is_helical,
    named,
    score_columns,
)
from tomoseg.io.points.relion_reader import CENTRED, read_relion
from tomoseg.io.points.rows import Integers, Rows, rows_of
from tomoseg.io.points.star import decoded, read_star, write_star

# Filaments lie along x of the subtomogram, so that tilt 90 and psi 0 is along them.
_ALONG_X = np.asarray(Rotation.from_euler("Y", 90, degrees=True).as_matrix())


def filaments_table(
    filaments: Sequence[Filament], *, context: TomoContext, spacing_angstrom: float | None = None
) -> pd.DataFrame:
    """Sample filaments and return RELION's table of their segments, block ``particles``.

    Parameters
    ----------
    filaments
        Lines of one tomogram; ``number`` becomes the tube's id.
    context
        The tomogram.
    spacing_angstrom
        Distance between segments along the line; None takes that of the class
        (:data:`tomoseg.io.points.dialects.SPACING_ANGSTROM`), or 82 Å.

    Raises
    ------
    RequestError
        If ids are not unique or below 1, which RELION refuses.

    Notes
    -----
    Where polarity is unknown, the flip ratio is 0.5. Half sets go by whole filament, because
    segments that overlap would leak between halves.
    """
    spacings = {} if spacing_angstrom is None else {f.name: spacing_angstrom for f in filaments}
    rows = rows_of([TomogramPoints(context, filaments)], WriteOptions(spacings))
    return _rows_table(rows, [context], helical=True)


def particles_table(particles: Particles, *, context: TomoContext) -> pd.DataFrame:
    """Return RELION's table of particles, block ``particles``.

    Notes
    -----
    Angles stand in rlnAngle* alone, where also Warp and M look for them. The score stands in
    rlnAutopickFigureOfMerit where it is known for every particle.
    """
    rows = rows_of([TomogramPoints(context, particles=[particles])], WriteOptions())
    return _rows_table(rows, [context], helical=False)


def micrograph_table(particles: Particles, name: str, *, sampling: Sampling) -> pd.DataFrame:
    """Return RELION's table of the particles picked on a micrograph: its pixels, 0-based.

    Parameters
    ----------
    particles
        In a grid of one slice; the score stands in rlnAutopickFigureOfMerit.
    name
        The micrograph's file, which other programs join particles and micrographs by.
    sampling
        The micrograph's grid.
    """
    x, y, _ = xyz(sampling.to_voxels(particles.points_angstrom)).T
    columns = {"rlnMicrographName": name, "rlnCoordinateX": x, "rlnCoordinateY": y}
    if np.isfinite(particles.scores).all():
        columns[SCORE] = particles.scores
    return pd.DataFrame(columns, index=range(len(particles)))


def optics_groups(contexts: Sequence[TomoContext]) -> Integers:
    """Return the number of each tomogram's optics group, from 1: a group a pixel size."""
    pixels = list(dict.fromkeys(context.pixel_angstrom for context in contexts))
    return np.array([1 + pixels.index(c.pixel_angstrom) for c in contexts], np.int64)


def optics_table(*contexts: TomoContext) -> pd.DataFrame:
    """Return the optics groups of particles, block ``optics``: what tomograms alone tell."""
    pixels = list(dict.fromkeys(float(context.pixel_angstrom) for context in contexts))
    return pd.DataFrame(
        {
            "rlnOpticsGroup": np.arange(1, len(pixels) + 1),
            "rlnOpticsGroupName": [f"opticsGroup{i}" for i in range(1, len(pixels) + 1)],
            "rlnTomoTiltSeriesPixelSize": pixels,
        }
    )


def tomograms_table(contexts: Sequence[TomoContext]) -> pd.DataFrame:
    """Return a row a tomogram, block ``global``: what is known without the tilt series.

    RELION's own table, which also knows the tilt series, takes its place for extraction.
    """
    rows = [
        {
            "rlnTomoName": context.tomo_name,
            "rlnTomoTiltSeriesPixelSize": float(context.pixel_angstrom),
            "rlnTomoTomogramBinning": context.sampling.voxel_angstrom / context.pixel_angstrom,
            **{f"rlnTomoSize{axis}": n for axis, n in zip("XYZ", context.size_xyz, strict=True)},
            "rlnOpticsGroupName": f"opticsGroup{group}",
        }
        for context, group in zip(contexts, optics_groups(contexts), strict=True)
    ]
    return pd.DataFrame(rows)


def optimisation_set_table(particles_file: str, tomograms_file: str) -> pd.DataFrame:
    """Return the table that ties particles to tomograms, block ``optimisation_set``."""
    return pd.DataFrame(
        {"rlnTomoParticlesFile": [particles_file], "rlnTomoTomogramsFile": [tomograms_file]}
    )


class Relion5:
    """Particles of RELION 5, a class of any number of tomograms in a table.

    Beside it stand a table of the tomograms and the optimisation set that names both.

    Parameters
    ----------
    options
        How a table is read, where it does not say it.
    """

    name = "relion5"
    scope: Literal["class", "tomogram"] = "class"

    def __init__(self, options: ReadOptions = READ_AS_IS) -> None:
        self.options = options

    def write(
        self, points: Sequence[TomogramPoints], stem: str, options: WriteOptions
    ) -> dict[str, bytes]:
        """Return the table of particles, the table of tomograms and the optimisation set."""
        contexts = [each.context for each in points]
        particles = _rows_table(rows_of(points, options), contexts, helical=is_helical(points))
        paths = [f"{stem}.star", f"{stem}__tomograms.star"]
        written = {
            paths[0]: {"optics": optics_table(*contexts), "particles": particles},
            f"{stem}__optimisation_set.star": {"optimisation_set": optimisation_set_table(*paths)},
            paths[1]: {"global": tomograms_table(contexts)},
        }
        return {path: write_star(blocks).encode() for path, blocks in written.items()}

    def read(
        self, data: bytes, contexts: Sequence[TomoContext], *, name: str
    ) -> list[TomogramPoints]:
        """Return the filaments, where tubes have ids, or the particles of a table.

        RELION takes a tube of one segment like any other; here, without a line, it is a particle.

        Raises
        ------
        FormatError
            As for :func:`tomoseg.io.points.relion_reader.read_relion`.
        """
        return read_relion(read_star(decoded(data)), contexts, name, self.options, CENTRED[:1])


def _rows_table(rows: Rows, contexts: Sequence[TomoContext], *, helical: bool) -> pd.DataFrame:
    centred = np.empty((len(rows), 3))
    for place, context in enumerate(contexts):
        members = rows.tomogram == place
        centred[members] = context.centred(rows.points_angstrom[members])
    columns: Columns = {
        "rlnTomoName": np.array([c.tomo_name for c in contexts], object)[rows.tomogram],
        **named(CENTRED, centred),
        **(_along_x(rows) if helical else named(PARTICLE_ANGLES, relion_angles(rows.orientations))),
        "rlnOpticsGroup": optics_groups(contexts)[rows.tomogram],
        **score_columns(rows),
    }
    return pd.DataFrame(columns, index=range(len(rows)))


def _along_x(rows: Rows) -> Columns:
    return {
        **named(SUBTOMOGRAM_ANGLES, relion_angles(rows.orientations @ _ALONG_X)),
        **named(PARTICLE_ANGLES, np.tile([0.0, 90.0, 0.0], (len(rows), 1))),
        **helical_columns(rows, 90.0, 0.0),
    }
