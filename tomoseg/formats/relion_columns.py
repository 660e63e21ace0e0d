"""The columns that the tables of all generations of RELION, and of Warp, share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from tomoseg.coordinates import Points
from tomoseg.errors import FormatError, RequestError
from tomoseg.formats.angles import relion_orientations
from tomoseg.formats.dialects import TomoContext, TomogramPoints
from tomoseg.formats.rows import Integers, Rows, finite, half_sets, shares, whole

SUBTOMOGRAM_ANGLES = [f"rlnTomoSubtomogram{angle}" for angle in ("Rot", "Tilt", "Psi")]
PARTICLE_ANGLES = [f"rlnAngle{angle}" for angle in ("Rot", "Tilt", "Psi")]
SHIFTS = [f"rlnOrigin{axis}Angst" for axis in "XYZ"]
SCORE = "rlnAutopickFigureOfMerit"
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


def table_with(blocks: Mapping[str, pd.DataFrame], column: str) -> pd.DataFrame:
    """Return the first table with a column, and with those of its optics groups.

    Raises
    ------
    FormatError
        If none has it.
    """
    for table in blocks.values():
        if column in table:
            return with_optics(table, blocks.get("optics"))
    raise FormatError(
        f"no block has a column {column}", remedy="Give the table of the particles, of this program"
    )


def with_optics(table: pd.DataFrame, optics: pd.DataFrame | None) -> pd.DataFrame:
    """Return the table with the columns of each row's optics group that it lacks itself.

    Raises
    ------
    FormatError
        If the groups are numbers in one table and text in the other.
    """
    key = "rlnOpticsGroup"
    if optics is None or key not in optics or key not in table:
        return table
    if (table[key].dtype == object) != (optics[key].dtype == object):
        raise FormatError(f"{key} is a number in one table and text in the other")
    more = [key, *(column for column in optics if column not in table)]
    return table.merge(optics[more].drop_duplicates(key), on=key, how="left")


def check_columns(table: pd.DataFrame, needed: Sequence[str]) -> None:
    """Raise a FormatError that names the columns which are missing."""
    missing = [column for column in needed if column not in table]
    if missing:
        raise FormatError(f"the table lacks the columns {', '.join(missing)}")


def checked_names(names: pd.Series, contexts: Sequence[TomoContext]) -> Integers:
    """Return the place of each row's tomogram among those given, -1 where it is none of them.

    Raises
    ------
    FormatError
        If there are rows, and none is of a tomogram given.
    """
    place_of = {context.tomo_name: place for place, context in enumerate(contexts)}
    places = np.array([place_of.get(str(name), -1) for name in names], np.int64)
    if len(places) and places.max() < 0:
        raise FormatError(
            f"the table's tomograms are {', '.join(sorted(set(map(str, names)))[:5])}, and none "
            f"of them is {' or '.join(list(place_of)[:5])}",
            remedy="Make the names equal",
        )
    return places


def columns_of(table: pd.DataFrame, columns: Sequence[str], default: float = 0.0) -> Points:
    """Return columns side by side, float64, shape (n, k); a missing one has the default.

    Raises
    ------
    FormatError
        If one holds what is no number.
    """
    missing = np.full(len(table), default)
    try:
        parts = [np.asarray(table.get(column, missing), np.float64) for column in columns]
    except ValueError as error:
        raise FormatError(
            f"{' or '.join(columns)} holds what is no number: {error}", remedy="Correct the table"
        ) from error
    return np.stack(parts, axis=1)


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
        _orientations(table, SUBTOMOGRAM_ANGLES) @ _orientations(table, PARTICLE_ANGLES),
        shares(columns_of(table, [SCORE], np.nan)[:, 0]),
        tubes,
        finite(track, TRACK)[:, 0],
        flip_ratio[:, 0] == 0.0,
    )


def turned_shifts(table: pd.DataFrame) -> Points:
    """Return refined shifts, shape (n, 3), xyz, Å, to be subtracted from the coordinates.

    They are given in the subtomogram's axes; ``rlnOrigin_to_rlnCoordinate_row`` of RELION 5's
    Python programs.
    """
    shifts = columns_of(table, SHIFTS)
    return np.asarray(np.einsum("nij,nj->ni", _orientations(table, SUBTOMOGRAM_ANGLES), shifts))


def named(columns: Sequence[str], values: NDArray[np.float64]) -> Columns:
    """Return the columns of an array, shape (n, k), by name."""
    return dict(zip(columns, values.T, strict=True))


def _orientations(table: pd.DataFrame, columns: list[str]) -> Points:
    return relion_orientations(finite(columns_of(table, columns), " or ".join(columns)))
