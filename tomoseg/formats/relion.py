"""RELION-5 tables of filaments and particles, and the same read back.

Columns as RELION's own filament picker writes them (``relion_python_tomo_get_particle_poses``);
an orientation is split in the two angles triples that RELION multiplies:
A(rlnTomoSubtomogram*) · A(rlnAngle*).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from tomoseg.coordinates import Filament, Particles, Points
from tomoseg.errors import FormatError, RequestError
from tomoseg.formats.angles import relion_angles, relion_orientations
from tomoseg.formats.dialects import TomoContext, segments
from tomoseg.sampling import Sampling, xyz

COORDINATES = [f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ"]
SUBTOMOGRAM_ANGLES = [f"rlnTomoSubtomogram{angle}" for angle in ("Rot", "Tilt", "Psi")]
PARTICLE_ANGLES = [f"rlnAngle{angle}" for angle in ("Rot", "Tilt", "Psi")]
SHIFTS = [f"rlnOrigin{axis}Angst" for axis in "XYZ"]
SCORE = "rlnAutopickFigureOfMerit"

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
        (:data:`tomoseg.formats.dialects.SPACING_ANGSTROM`), or 82 Å.

    Raises
    ------
    RequestError
        If ids are not unique or below 1, which RELION refuses.

    Notes
    -----
    Polarity is unknown: the flip ratio is 0.5. Half sets go by whole filament, because segments
    that overlap would leak between halves.
    """
    ids = [filament.number for filament in filaments]
    if len(set(ids)) < len(ids) or min(ids, default=1) < 1:
        raise RequestError(
            f"filament ids must be unique and at least 1; they are {sorted(ids)[:5]} …",
            remedy="Number the filaments of a tomogram together, from 1",
        )
    sampled = [segments(filament, spacing_angstrom) for filament in filaments]
    counts = [len(orientations) for _, _, orientations in sampled]
    nothing = np.empty((0, 3)), np.empty(0), np.empty((0, 3, 3))
    points, track, orientations = (
        np.concatenate(parts) for parts in zip(nothing, *sampled, strict=True)
    )
    columns: dict[str, ArrayLike] = {
        **_named(COORDINATES, context.centred(points)),
        **_named(SUBTOMOGRAM_ANGLES, relion_angles(orientations @ _ALONG_X)),
        **_named(PARTICLE_ANGLES, np.tile([0.0, 90.0, 0.0], (len(points), 1))),
        "rlnAngleTiltPrior": 90.0,
        "rlnAnglePsiPrior": 0.0,
        "rlnHelicalTubeID": np.repeat(np.array(ids, np.int64), counts),
        "rlnHelicalTrackLengthAngst": track,
        "rlnAnglePsiFlipRatio": 0.5,
        "rlnRandomSubset": np.repeat(1 + np.arange(len(ids)) % 2, counts),
        "rlnOpticsGroup": 1,
    }
    return _table(context, len(points), columns)


def particles_table(particles: Particles, *, context: TomoContext) -> pd.DataFrame:
    """Return RELION's table of particles, block ``particles``.

    Notes
    -----
    Angles stand in rlnAngle* alone, where also Warp and M look for them. The score stands in
    rlnAutopickFigureOfMerit where it is known for every particle.
    """
    columns: dict[str, ArrayLike] = {
        **_named(COORDINATES, context.centred(particles.points_angstrom)),
        **_named(PARTICLE_ANGLES, relion_angles(particles.orientations)),
        "rlnOpticsGroup": 1,
    }
    if np.isfinite(particles.scores).all():
        columns[SCORE] = particles.scores
    return _table(context, len(particles), columns)


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


def optics_table(context: TomoContext) -> pd.DataFrame:
    """Return the optics group of the particles, block ``optics``: what a tomogram alone tells."""
    return pd.DataFrame(
        {
            "rlnOpticsGroup": [1],
            "rlnOpticsGroupName": ["opticsGroup1"],
            "rlnTomoTiltSeriesPixelSize": [float(context.pixel_angstrom)],
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
            "rlnOpticsGroupName": "opticsGroup1",
        }
        for context in contexts
    ]
    return pd.DataFrame(rows)


def optimisation_set_table(particles_file: str, tomograms_file: str) -> pd.DataFrame:
    """Return the table that ties particles to tomograms, block ``optimisation_set``."""
    return pd.DataFrame(
        {"rlnTomoParticlesFile": [particles_file], "rlnTomoTomogramsFile": [tomograms_file]}
    )


def filaments_of(table: pd.DataFrame, name: str, *, context: TomoContext) -> list[Filament]:
    """Read the filaments of one tomogram back from a table of segments.

    Raises
    ------
    FormatError
        If a column is missing, or a tube has fewer than two segments.
    """
    rows = _rows_of(
        table, [*COORDINATES, "rlnHelicalTubeID", "rlnHelicalTrackLengthAngst"], context
    )
    filaments = []
    for number, tube in rows.groupby("rlnHelicalTubeID"):
        if len(tube) < 2:
            raise FormatError(f"helical tube {number} of {context.tomo_name} has one segment")
        points = _positions(tube.sort_values("rlnHelicalTrackLengthAngst"), context)
        filaments.append(Filament(name, int(number), points))
    return filaments


def particles_of(table: pd.DataFrame, name: str, *, context: TomoContext) -> Particles:
    """Read the particles of one tomogram back from a table, refined shifts included.

    Raises
    ------
    FormatError
        If a coordinate's column is missing.
    """
    rows = _rows_of(table, COORDINATES, context)
    orientations = _orientations(rows, SUBTOMOGRAM_ANGLES) @ _orientations(rows, PARTICLE_ANGLES)
    scores = rows.get(SCORE, pd.Series(np.nan, index=rows.index)).to_numpy(np.float64)
    return Particles(name, _positions(rows, context), scores, orientations)


def _rows_of(table: pd.DataFrame, needed: list[str], context: TomoContext) -> pd.DataFrame:
    missing = [column for column in ["rlnTomoName", *needed] if column not in table]
    if missing:
        raise FormatError(f"the table lacks the columns {', '.join(missing)}")
    return table[table["rlnTomoName"].astype(str) == context.tomo_name]


def _positions(rows: pd.DataFrame, context: TomoContext) -> Points:
    """Return zyx, Å. A refined shift is given in the subtomogram's axes and subtracted.

    Source: ``rlnOrigin_to_rlnCoordinate_row`` of RELION 5's Python programs.
    """
    turned = np.einsum(
        "nij,nj->ni", _orientations(rows, SUBTOMOGRAM_ANGLES), _columns(rows, SHIFTS)
    )
    return context.from_centred(_columns(rows, COORDINATES) - turned)


def _orientations(rows: pd.DataFrame, columns: list[str]) -> Points:
    angles = _columns(rows, columns)
    return relion_orientations(angles) if len(angles) else np.empty((0, 3, 3))


def _columns(rows: pd.DataFrame, columns: list[str]) -> Points:
    """Return columns side by side, shape (n, k); those that are missing are zeros."""
    zeros = np.zeros(len(rows))
    return np.stack([np.asarray(rows.get(c, zeros), np.float64) for c in columns], axis=1)


def _named(columns: list[str], values: NDArray[np.float64]) -> dict[str, ArrayLike]:
    return dict(zip(columns, values.T, strict=True))


def _table(context: TomoContext, count: int, columns: dict[str, ArrayLike]) -> pd.DataFrame:
    return pd.DataFrame({"rlnTomoName": context.tomo_name, **columns}, index=range(count))
