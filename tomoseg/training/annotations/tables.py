"""Tables of positions that annotate a tomogram."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tomoseg.core.coordinates import Filament, Particles, Points, resample
from tomoseg.core.errors import RequestError
from tomoseg.core.sampling import Sampling
from tomoseg.io.stores import read_file
from tomoseg.training.annotations.tomogram import SeenTomogram

log = logging.getLogger(__name__)


def read_points(url: str, tomogram: SeenTomogram, *, class_name: str | None = None) -> Points:
    """Return the positions that a table holds of a tomogram.

    Parameters
    ----------
    url
        A table in any format that picks come in, or our own of filaments, whose lines become
        points at most a voxel of the network's grid apart.
    class_name
        Where the table names classes and this is one of them, only its rows are taken.

    Returns
    -------
    float64, shape (n ≥ 1, 3), zyx, Å, in the order of the table. In a tomogram of one slice they
    lie in that slice.

    Raises
    ------
    RequestError
        If there is no table, it is empty, it is of several classes and this is none of them, or
        a position lies outside the tomogram.
    FormatError
        As the format's reader says.
    """
    tables = _tables(url, tomogram)
    named = [table for table in tables if table.name == class_name]
    others = {table.name for table in tables if not named and class_name is not None}
    if len(others) > 1:
        raise RequestError(
            f"{url} holds {', '.join(sorted(others))}, and no {class_name}",
            remedy="Name one of them, or leave this tomogram out.",
        )
    points = np.concatenate([np.empty((0, 3)), *(t.points_angstrom for t in named or tables)])
    if not len(points):
        raise RequestError(
            f"{url} holds no position in this tomogram", remedy="Pick some, or leave it out."
        )
    if tomogram.sampling.shape[0] == 1:
        points[:, 0] = tomogram.sampling.first_voxel_angstrom[0]
    _check_inside(points, url, tomogram)
    return points


def _tables(url: str, tomogram: SeenTomogram) -> list[Particles]:
    from tomoseg.io.points.dialects import TomoContext
    from tomoseg.io.points.picks import read_points as read_table_points
    from tomoseg.io.points.tables import holds_filaments, read_filaments_csv

    content = read_file(url)
    text = content.decode("utf-8-sig", errors="replace")
    step = tomogram.grid.voxel_angstrom
    if holds_filaments(text):
        return _lines(read_filaments_csv(text), step)
    [found] = read_table_points(content, url, [TomoContext(tomogram.name, tomogram.sampling)])
    if found.says or found.doubts:
        log.warning("%s: %s", url, found.told())
    return [*found.particles, *_lines(found.filaments, step)]


def _lines(lines: Sequence[Filament], step_angstrom: float) -> list[Particles]:
    return [Particles.at(line.name, _along(line, step_angstrom)) for line in lines]


def _along(line: Filament, step_angstrom: float) -> Points:
    """Return points along a line, its last one too: balls on them make a tube."""
    points = line.points_angstrom
    return np.concatenate([resample(points, step_angstrom), points[-1:]])


def holds_lines(url: str) -> bool:
    """Tell whether a table is of filaments, whose lines are drawn."""
    from tomoseg.io.points.dialects import EVERY, ReadOptions, TomoContext
    from tomoseg.io.points.picks import read_points as read_table_points
    from tomoseg.io.points.tables import holds_filaments

    content = read_file(url)
    if holds_filaments(content.decode("utf-8-sig", errors="replace")):
        return True
    # Whether its rows are lines does not depend on where they lie.
    anywhere = TomoContext("tomogram", Sampling((1, 1, 1), (1.0, 1.0, 1.0)))
    [found] = read_table_points(content, url, [anywhere], ReadOptions(rows_of=EVERY))
    return bool(found.filaments)


def _check_inside(points: Points, url: str, tomogram: SeenTomogram) -> None:
    sampling = tomogram.sampling
    outside: NDArray[np.int64] = np.flatnonzero(~sampling.contains(points))
    if len(outside):
        z, y, x = sampling.to_voxels(points[outside[0]])
        raise RequestError(
            f"{len(outside)} of {len(points)} positions in {url} lie outside the tomogram of "
            f"{sampling.shape[::-1]} voxels (xyz); the first is number {outside[0] + 1} at "
            f"({x:.1f}, {y:.1f}, {z:.1f})",
            remedy="Check that the table belongs to this tomogram, and its voxel size and origin.",
        )
