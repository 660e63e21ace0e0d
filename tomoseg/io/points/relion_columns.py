"""The columns that the tables of all generations of RELION, and of Warp, share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from tomoseg.core.coordinates import Points
from tomoseg.core.errors import FormatError, RequestError
from tomoseg.io.points.angles import relion_orientations
from tomoseg.io.points.dialects import TomogramPoints
from tomoseg.io.points.rows import Integers, Rows, finite, half_sets, merits, whole

SUBTOMOGRAM_ANGLES = [f"rlnTomoSubtomogram{angle}" for angle in ("Rot", "Tilt", "Psi")]
PARTICLE_ANGLES = [f"rlnAngle{angle}" for angle in ("Rot", "Tilt", "Psi")]
SHIFTS = [f"rlnOrigin{axis}Angst" for axis in "XYZ"]
SCORE = "rlnAutopickFigureOfMerit"
# Where pickers and template matching state it.
_MERITS = (SCORE, "rlnLCCmax")
_NO_ANGLE = -999.0
TUBE, TRACK = "rlnHelicalTubeID", "rlnHelicalTrackLengthAngst"
FLIP_RATIO = "rlnAnglePsiFlipRatio"

Columns = dict[str, ArrayLike]


def is_helical(points: Sequence[TomogramPoints]) -> bool:
    """Return whether points are filaments.

    Raises
    ------
    RequestError
        If some are filaments and some particles, for then RELION would miss ids of tubes.
    """
    helical = any(each.filaments for each in points)
    if helical and any(len(particles) for each in points for particles in each.particles):
        raise RequestError(
            "filaments and particles cannot stand in one table of RELION",
            remedy="Write them as two classes",
        )
    return helical


def helical_columns(rows: Rows, tilt_prior: ArrayLike, psi_prior: ArrayLike) -> Columns:
    """Return what helical refinement reads, by column; priors are in degrees."""
    return {
        "rlnAngleTiltPrior": tilt_prior,
        "rlnAnglePsiPrior": psi_prior,
        TUBE: rows.filament,
        TRACK: rows.track_angstrom,
        FLIP_RATIO: np.where(rows.polarity_known, 0.0, 0.5),
        "rlnRandomSubset": half_sets(rows.tomogram, rows.filament),
    }


def score_columns(rows: Rows) -> Columns:
    """Return the score, by column, where it is known in every row."""
    return {SCORE: rows.scores} if rows.has_scores else {}


def with_optics(table: pd.DataFrame, optics: pd.DataFrame | None) -> pd.DataFrame:
    """Return the table with the columns of each row's optics group that it lacks itself.

    Raises
    ------
    FormatError
        If a number of a group is none.
    """
    key = "rlnOpticsGroup"
    if optics is None or key not in optics or key not in table:
        return table
    more = [key, *(column for column in optics if column not in table)]
    left, right = (
        one.assign(**{key: whole(columns_of(one, [key])[:, 0], key)})
        for one in (table, optics[more])
    )
    return left.merge(right.drop_duplicates(key), on=key, how="left")


def check_columns(table: pd.DataFrame, needed: Sequence[str]) -> None:
    """Raise a FormatError that names the columns which are missing."""
    missing = [column for column in needed if column not in table]
    if missing:
        raise FormatError(f"the table lacks the columns {', '.join(missing)}")


def columns_of(table: pd.DataFrame, columns: Sequence[str], default: float = 0.0) -> Points:
    """Return columns side by side, float64, shape (n, k); a missing one has the default.

    Raises
    ------
    FormatError
        If one holds what is no number.
    """
    values: Points = np.full((len(table), len(columns)), default)
    for number, column in enumerate(columns):
        try:
            values[:, number] = table.get(column, default)
        except ValueError as error:
            raise FormatError(
                f"{column} holds what is no number: {error}", remedy="Correct the table"
            ) from error
    return values


def shared_rows(table: pd.DataFrame, tomogram: Integers, points: Points, *, helical: bool) -> Rows:
    """Return rows from the columns that all generations of RELION share.

    Parameters
    ----------
    table
        The rows of the tomograms.
    tomogram
        int64, shape (n,): their places.
    points
        float64, shape (n, 3), zyx, Å.
    helical
        Whether tubes are read, too.

    Raises
    ------
    FormatError
        If a column holds no numbers, or a tube's id is below 1.

    Notes
    -----
    A flip ratio that is missing is 0.5, as RELION reads it: the polarity is unknown.
    """
    track, flip_ratio = columns_of(table, [TRACK]), columns_of(table, [FLIP_RATIO], 0.5)
    tubes = whole(columns_of(table, [TUBE])[:, 0], TUBE) if helical else np.zeros_like(tomogram)
    if helical and len(tubes) and tubes.min() < 1:
        raise FormatError(
            f"{TUBE} is {tubes.min()} in a row; RELION takes ids from 1",
            remedy="Number the tubes of each tomogram from 1",
        )
    return Rows(
        tomogram,
        finite(points, "a position"),
        _turned(table, _orientations(table, PARTICLE_ANGLES)),
        merits(columns_of(table, [_merit(table)], np.nan)[:, 0]),
        tubes,
        finite(track, TRACK)[:, 0],
        flip_ratio[:, 0] == 0.0,
    )


def turned_shifts(table: pd.DataFrame, shifts: Points) -> Points:
    """Return shifts, shape (n, 3), xyz, given in the subtomogram's axes, in the tomogram's."""
    return np.asarray(_turned(table, shifts[:, :, None])[:, :, 0])


def named(columns: Sequence[str], values: NDArray[np.float64]) -> Columns:
    """Return the columns of an array, shape (n, k), by name."""
    return dict(zip(columns, values.T, strict=True))


def _turned(table: pd.DataFrame, columns: Points) -> Points:
    """Return columns, shape (n, 3, k), turned from the subtomogram's axes to the tomogram's."""
    if not set(SUBTOMOGRAM_ANGLES) & set(table):
        return columns
    return np.asarray(_orientations(table, SUBTOMOGRAM_ANGLES) @ columns)


def _orientations(table: pd.DataFrame, columns: list[str]) -> Points:
    """Return rotations, identity where programs write -9999 since they know no angle."""
    angles = finite(columns_of(table, columns), " or ".join(columns))
    is_known = (angles > _NO_ANGLE).all(axis=1, keepdims=True)
    return relion_orientations(np.where(is_known, angles, 0.0))


def _merit(table: pd.DataFrame) -> str:
    return next((column for column in _MERITS if column in table), SCORE)
