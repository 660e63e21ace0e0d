"""Motive lists: STOPGAP's in STAR, those of AV3 and TOM in EM.

A position is a voxel, counted from 1, and a shift that is added to it. Angles are phi, psi and
the; the object is the filament. Sources: STOPGAP, ``sg_get_motl_fields.m``, ``sg_motl_read2.m``,
``sg_motl_stopgap_to_av3.m``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import pandas as pd

from tomoseg.core.coordinates import Points
from tomoseg.core.errors import FormatError
from tomoseg.core.sampling import xyz
from tomoseg.io.points.angles import motive_list_angles, motive_list_orientations
from tomoseg.io.points.dialects import TomoContext, TomogramPoints, WriteOptions
from tomoseg.io.points.numbered import places, write_doc
from tomoseg.io.points.rows import (
    Rows,
    finite,
    half_sets,
    known_scores,
    lines_alone,
    points_of,
    rows_of,
    whole,
)
from tomoseg.io.points.star import decoded, read_star
from tomoseg.io.volumes.em import read_em, write_em

BLOCK = "stopgap_motivelist"
_POSITION = ["orig_x", "orig_y", "orig_z"]
_SHIFT = ["x_shift", "y_shift", "z_shift"]
_ANGLES = ["phi", "psi", "the"]
COLUMNS = [
    *("motl_idx", "tomo_num", "object", "subtomo_num", "halfset"),
    *(*_POSITION, "score", *_SHIFT, *_ANGLES, "class"),
]
# Of the 20 rows of AV3's lists, counted from 0, those that STOPGAP's lists have too.
AV3_ROWS = 20
_AV3 = {
    "score": 0,
    "subtomo_num": 3,
    "tomo_num": 4,
    "object": 5,
    **{column: 7 + i for i, column in enumerate([*_POSITION, *_SHIFT])},
    **{column: 16 + i for i, column in enumerate([*_ANGLES, "class"])},
}


class Stopgap:
    """STOPGAP's motive lists, a class of any number of tomograms each.

    Filaments are sampled, and their number is the object; a particle's object is 0. Read back,
    an object is a filament if its rows lie along a line
    (:func:`tomoseg.io.points.rows.lines_alone`), and what else there is are particles.

    Parameters
    ----------
    tomo_names
        Number → tomogram of the file to read, see :func:`tomoseg.io.points.numbered.read_doc`.
    """

    name = "stopgap"
    scope: Literal["class", "tomogram"] = "class"

    def __init__(self, tomo_names: Mapping[int, str] | None = None) -> None:
        self.tomo_names = tomo_names or {}

    def write(
        self, points: Sequence[TomogramPoints], stem: str, options: WriteOptions
    ) -> dict[str, bytes]:
        """Return the list, and a text beside it that says which number is which tomogram."""
        contexts = [each.context for each in points]
        table = _table(rows_of(points, options), contexts)
        return {
            f"{stem}__motl.star": _star(table).encode(),
            f"{stem}__motl.doc": write_doc(contexts).encode(),
        }

    def read(
        self, data: bytes, contexts: Sequence[TomoContext], *, name: str
    ) -> list[TomogramPoints]:
        """Return the particles of a list; columns that STOPGAP does not know are ignored.

        Raises
        ------
        FormatError
            If there is no such list, a column is missing or holds no numbers, or a tomogram's
            number is unknown.
        """
        blocks = read_star(decoded(data))
        if BLOCK not in blocks:
            raise FormatError(f"no block is called {BLOCK}, but {', '.join(blocks)}")
        return _points(_numbers(blocks[BLOCK]), contexts, name, self.tomo_names)


class Av3:
    """Motive lists of AV3 and TOM, EM files of 20 numbers a particle; see :class:`Stopgap`."""

    name = "av3"
    scope: Literal["class", "tomogram"] = "class"

    def __init__(self, tomo_names: Mapping[int, str] | None = None) -> None:
        self.tomo_names = tomo_names or {}

    def write(
        self, points: Sequence[TomogramPoints], stem: str, options: WriteOptions
    ) -> dict[str, bytes]:
        """Return the list, and a text beside it that says which number is which tomogram."""
        contexts = [each.context for each in points]
        table = _table(rows_of(points, options), contexts)
        values = np.zeros((1, len(table), AV3_ROWS), np.float32)
        values[0, :, list(_AV3.values())] = table[list(_AV3)].to_numpy(np.float32).T
        return {
            f"{stem}__motl.em": write_em(values),
            f"{stem}__motl.doc": write_doc(contexts).encode(),
        }

    def read(
        self, data: bytes, contexts: Sequence[TomoContext], *, name: str
    ) -> list[TomogramPoints]:
        """Return the particles of a list.

        Raises
        ------
        FormatError
            If the file is no EM file of 20 numbers a particle, or a tomogram's number is unknown.
        """
        values = read_em(data)
        if values.shape[0] != 1 or values.shape[2] != AV3_ROWS:
            raise FormatError(
                f"the array has {values.shape[::-1]} numbers along x, y and z; a motive list has "
                f"{AV3_ROWS} × particles × 1"
            )
        with np.errstate(invalid="ignore"):  # signalling NaN
            table = pd.DataFrame(
                values[0].astype(np.float64)[:, list(_AV3.values())], columns=list(_AV3)
            )
        return _points(table, contexts, name, self.tomo_names)


def _table(rows: Rows, contexts: Sequence[TomoContext]) -> pd.DataFrame:
    voxels = np.empty((len(rows), 3))
    for place, context in enumerate(contexts):
        members = rows.tomogram == place
        voxels[members] = 1 + xyz(context.sampling.to_voxels(rows.points_angstrom[members]))
    # What lies half way, within rounding, always belongs to the voxel above.
    nearest = np.floor(np.round(voxels, 6) + 0.5)
    number = np.arange(1, len(rows) + 1)
    columns = {
        "motl_idx": number,
        "tomo_num": rows.tomogram + 1,
        "object": rows.filament,
        "subtomo_num": number,
        "halfset": np.where(half_sets(rows.tomogram, rows.filament) == 1, "A", "B"),
        **dict(zip(_POSITION, nearest.T, strict=True)),
        "score": np.nan_to_num(rows.scores),
        **dict(zip(_SHIFT, (voxels - nearest).T, strict=True)),
        **dict(zip(_ANGLES, motive_list_angles(rows.orientations).T, strict=True)),
        "class": np.ones(len(rows), np.int64),
    }
    return pd.DataFrame(columns)


def _star(table: pd.DataFrame) -> str:
    """Return STOPGAP's STAR, whose reader wants bare names, an empty line, and no comments."""
    header = "".join(f"_{column}\n" for column in table)
    body = table.to_csv(sep="\t", header=False, index=False, float_format="%.6f")
    return f"\ndata_{BLOCK}\n\nloop_\n{header}\n{body}"


def _numbers(table: pd.DataFrame) -> pd.DataFrame:
    needed = [column for column in COLUMNS if column in _AV3 and column not in _NOT_USED]
    missing = [column for column in needed if column not in table]
    if missing:
        raise FormatError(
            f"the list lacks the columns {', '.join(missing)}",
            remedy="Give a motive list of STOPGAP",
        )
    try:
        return table[needed].astype(np.float64)
    except ValueError as error:
        raise FormatError(
            f"the list holds what is no number: {error}", remedy="Correct the list"
        ) from error


_NOT_USED = ("subtomo_num", "class")


def _points(
    table: pd.DataFrame,
    contexts: Sequence[TomoContext],
    name: str,
    tomo_names: Mapping[int, str],
) -> list[TomogramPoints]:
    tomogram, says = places(whole(table["tomo_num"].to_numpy(), "tomo_num"), contexts, tomo_names)
    voxels = finite(table[_POSITION].to_numpy() + table[_SHIFT].to_numpy(), "a position")
    points: Points = np.zeros((len(table), 3))
    for place, context in enumerate(contexts):
        members = tomogram == place
        points[members] = context.sampling.to_angstrom(xyz(voxels[members] - 1))
    rows = Rows(
        tomogram,
        points,
        motive_list_orientations(finite(table[_ANGLES].to_numpy(), "an angle")),
        known_scores(table["score"].to_numpy()),
        whole(table["object"].to_numpy(), "object"),
        np.arange(len(table), dtype=np.float64),
        np.zeros(len(table), np.bool_),
    )
    found = points_of(lines_alone(rows), contexts, name)
    return [replace(each, says=says) for each in found]
