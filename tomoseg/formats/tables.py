"""CSV tables of filaments and particles, for people and for scripts.

Positions stand twice in a row: in voxels of the source's grid (0-based, centre of the first voxel
at 0) and in Å from the centre of its first voxel. What is read back are the Å.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from tomoseg.coordinates import Filament, Particles, Points
from tomoseg.errors import FormatError
from tomoseg.sampling import Sampling

_VOXELS = ["z_voxel", "y_voxel", "x_voxel"]
_ANGSTROM = ["z_angstrom", "y_angstrom", "x_angstrom"]
# Components, in the tomogram, of the particle's x axis, then of its y axis, then of its z axis.
_AXES = [f"{axis}axis_{component}" for axis in "xyz" for component in "xyz"]

FILAMENT_COLUMNS = ["class", "filament", "point", *_VOXELS, *_ANGSTROM, "track_angstrom", "score"]
PARTICLE_COLUMNS = ["class", "particle", *_VOXELS, *_ANGSTROM, "score", *_AXES]


def filaments_csv(filaments: Iterable[Filament], sampling: Sampling) -> str:
    """Return a row a point of every filament; classes may be mixed.

    Columns are :data:`FILAMENT_COLUMNS`; an unknown score is an empty field.
    """
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
            },
        )
        for f in filaments
    ]
    return _csv(tables, FILAMENT_COLUMNS)


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
    known = further or {}
    tables = [
        _rows(
            p.points_angstrom,
            sampling,
            {
                "class": p.name,
                "particle": np.arange(1, len(p) + 1),
                "score": p.scores,
                **dict(zip(_AXES, p.orientations.transpose(2, 1, 0).reshape(9, -1), strict=True)),
                **known,
            },
        )
        for p in particles
    ]
    return _csv(tables, [*PARTICLE_COLUMNS, *known])


def read_filaments_csv(text: str) -> list[Filament]:
    """Read what :func:`filaments_csv` wrote, in the order of the file.

    Raises
    ------
    FormatError
        If a column is missing or holds something that is not a number.
    """
    table = _read(text, FILAMENT_COLUMNS)
    return [
        Filament(
            str(name),
            int(number),
            rows.sort_values("point")[_ANGSTROM].to_numpy(np.float64),
            float(rows["score"].iloc[0]),
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
    table = _read(text, PARTICLE_COLUMNS)
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


def _csv(tables: list[pd.DataFrame], columns: list[str]) -> str:
    table = pd.concat(tables) if tables else pd.DataFrame()
    text: str = table.reindex(columns=columns).to_csv(
        index=False, float_format="%.6f", lineterminator="\n"
    )
    return text


def _read(text: str, columns: list[str]) -> pd.DataFrame:
    numbers = {column: np.float64 for column in columns if column != "class"}
    try:
        table = pd.read_csv(
            io.StringIO(text),
            dtype={"class": str, **numbers},
            keep_default_na=False,
            na_values={"score": [""]},
        )
    except ValueError as error:
        raise FormatError(f"the table cannot be read: {error}") from error
    missing = [column for column in columns if column not in table]
    if missing:
        raise FormatError(f"the table lacks the columns {', '.join(missing)}")
    return table
