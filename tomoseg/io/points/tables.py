"""CSV tables of filaments and particles, for people and for scripts.

Positions stand twice in a row: in voxels of the source's grid (0-based, centre of the first voxel
at 0) and in Å from the centre of its first voxel. What is read back are the Å.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from tomoseg.core.coordinates import Filament, Particles, Points
from tomoseg.core.errors import FormatError
from tomoseg.core.sampling import Sampling
from tomoseg.io.points.rows import whole

_VOXELS = ["z_voxel", "y_voxel", "x_voxel"]
_ANGSTROM = ["z_angstrom", "y_angstrom", "x_angstrom"]
# Components, in the tomogram, of the particle's x axis, then of its y axis, then of its z axis.
_AXES = [f"{axis}axis_{component}" for axis in "xyz" for component in "xyz"]

FILAMENT_COLUMNS = ["class", "filament", "point", *_VOXELS, *_ANGSTROM, "track_angstrom", "score"]
# 1 where the points follow the filament's own polarity, else 0; earlier versions did not write it.
POLARITY = "polarity_known"
PARTICLE_COLUMNS = ["class", "particle", *_VOXELS, *_ANGSTROM, "score", *_AXES]


def filaments_csv(filaments: Iterable[Filament], sampling: Sampling) -> str:
    """Return a row a point of every filament; classes may be mixed.

    Columns are :data:`FILAMENT_COLUMNS` and :data:`POLARITY`; an unknown score is an empty field.
    """
    return csv_text(filament_rows(filaments, sampling))


def filament_rows(filaments: Iterable[Filament], sampling: Sampling) -> pd.DataFrame:
    """Return :func:`filaments_csv` as a table."""
    tables = [
        _rows(
            f.points_angstrom,
            sampling,
            {
                "class": f.name,
                "filament": f.number,
                "point": np.arange(1, len(f.points_angstrom) + 1),
                "track_angstrom": f.track_angstrom,
                "score": f.score,
                POLARITY: int(f.polarity_known),
            },
        )
        for f in filaments
    ]
    return _joined(tables, [*FILAMENT_COLUMNS, POLARITY])


def particles_csv(
    particles: Iterable[Particles],
    sampling: Sampling,
    further: Mapping[str, ArrayLike] | None = None,
) -> str:
    """Return a row a particle; classes may be mixed.

    Columns are :data:`PARTICLE_COLUMNS`. The nine ``xaxis_x`` … ``zaxis_z`` are the particle's
    axes in the tomogram, xyz: no dialect of angles has to be known to read them. ``further``
    columns, of what else is known of the particles of one class, come last.
    """
    rows = particle_rows(particles, sampling)
    return csv_text(rows.assign(**further) if further else rows)


def particle_rows(particles: Iterable[Particles], sampling: Sampling) -> pd.DataFrame:
    """Return :func:`particles_csv` as a table."""
    tables = [
        _rows(
            p.points_angstrom,
            sampling,
            {
                "class": p.name,
                "particle": np.arange(1, len(p) + 1),
                "score": p.scores,
                **dict(zip(_AXES, p.orientations.transpose(2, 1, 0).reshape(9, -1), strict=True)),
            },
        )
        for p in particles
    ]
    return _joined(tables, PARTICLE_COLUMNS)


def surroundings_csv(name: str, columns: Mapping[str, NDArray[Any]]) -> str:
    """Return a row a particle of one class, numbered as in :func:`particles_csv`.

    Parameters
    ----------
    columns
        Heading → numbers, shape (n,); one that is not known (NaN) is an empty field.
    """
    number = len(next(iter(columns.values())))
    leading = {"class": [name] * number, "particle": np.arange(1, number + 1)}
    text: str = pd.DataFrame({**leading, **columns}).to_csv(
        index=False, float_format="%.3f", lineterminator="\n"
    )
    return text


def holds_filaments(text: str) -> bool:
    """Tell whether the first line of a table is that of :func:`filaments_csv`."""
    return "filament" in text.partition("\n")[0].strip().split(",")


def contacts_csv(name: str, columns: Mapping[str, NDArray[Any]]) -> str:
    """Return a row for each surface of one class and each other surface that is near it.

    Parameters
    ----------
    columns
        Heading → values, shape (n,): those of :class:`tomoseg.analysis.surfaces.Contacts`.
    """
    table = pd.DataFrame({"class": name, **columns})
    text: str = table.to_csv(index=False, float_format="%.3f", lineterminator="\n")
    return text


def read_filaments_csv(text: str) -> list[Filament]:
    """Read what :func:`filaments_csv` wrote, in the order of the file.

    Raises
    ------
    FormatError
        If a column is missing or holds something that is not a number.
    """
    return filaments_of(read_rows(text, FILAMENT_COLUMNS))


def filaments_of(table: pd.DataFrame) -> list[Filament]:
    """Return the filaments in rows of :data:`FILAMENT_COLUMNS`.

    The polarity is known where every row has a 1 in :data:`POLARITY`.

    Raises
    ------
    FormatError
        If a number of a filament is not whole.
    """
    numbers = whole(table["filament"].to_numpy(), "filament")
    table = table.assign(**{"filament": numbers, POLARITY: table.get(POLARITY, 0)})
    return [
        Filament(
            str(name),
            int(number),
            rows.sort_values("point")[_ANGSTROM].to_numpy(np.float64),
            float(rows["score"].iloc[0]),
            bool((rows[POLARITY] == 1).all()),
        )
        for (name, number), rows in table.groupby(["class", "filament"], sort=False)
    ]


def read_particles_csv(text: str) -> list[Particles]:
    """Read what :func:`particles_csv` wrote, one table a class, in the order of the file.

    Raises
    ------
    FormatError
        If a column is missing or holds something that is not a number.
    """
    return particles_of(read_rows(text, PARTICLE_COLUMNS))


def particles_of(table: pd.DataFrame) -> list[Particles]:
    """Return the particles in rows of :data:`PARTICLE_COLUMNS`."""
    return [
        Particles(
            str(name),
            rows[_ANGSTROM].to_numpy(np.float64),
            rows["score"].to_numpy(np.float64),
            rows[_AXES].to_numpy(np.float64).reshape(-1, 3, 3).transpose(0, 2, 1),
        )
        for name, rows in table.groupby("class", sort=False)
    ]


def _rows(points_angstrom: Points, sampling: Sampling, columns: dict[str, Any]) -> pd.DataFrame:
    voxels = sampling.to_voxels(points_angstrom)
    positions = {
        **dict(zip(_VOXELS, voxels.T, strict=True)),
        **dict(zip(_ANGSTROM, points_angstrom.T, strict=True)),
    }
    return pd.DataFrame({**columns, **positions}, index=range(len(points_angstrom)))


def _joined(tables: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    table = pd.concat(tables) if tables else pd.DataFrame()
    return table.reindex(columns=columns)


def csv_text(table: pd.DataFrame) -> str:
    """Return a table as CSV, lengths to a millionth; an empty field is not known."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(table.columns)
    rows.writerows(zip(*(_fields(table[column]) for column in table), strict=True))
    return text.getvalue()


def _fields(column: pd.Series) -> list[Any]:
    values: list[Any] = column.tolist()
    if column.dtype.kind != "f":
        return values
    return ["" if math.isnan(value) else f"{value:.6f}" for value in values]


def read_rows(text: str, columns: list[str]) -> pd.DataFrame:
    """Return a table whose ``columns`` are numbers, but the class; others are left as they are.

    Raises
    ------
    FormatError
        If one is missing or holds something that is not a number.
    """
    numbers = {column: np.float64 for column in [*columns, POLARITY] if column != "class"}
    try:
        table = pd.read_csv(
            io.StringIO(text),
            dtype={"class": str, "tomogram": str, **numbers},
            keep_default_na=False,
            na_values={"score": [""]},
        )
    except ValueError as error:
        raise FormatError(f"the table cannot be read: {error}") from error
    missing = [column for column in columns if column not in table]
    if missing:
        raise FormatError(f"the table lacks the columns {', '.join(missing)}")
    return table
