"""Picks along filaments, such as those of template matching, as tubes that can be traced.

Hits lie on a filament, beside each other across it, or as a ribbon through it. Each looks along
its filament and is moved across it to the middle of those around, until a filament's hits lie on
one line, :func:`pick_axes`. Each place of it becomes a rod along the filament, one diameter long:
rods of one filament overlap or face each other, and the tracer joins, bridges and smooths them as
it does any score map. A stray pick is no place of a line.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.spatial import cKDTree

from tomoseg.analysis.filaments.settings import RADIUS_BINS, TracingSettings
from tomoseg.core.blocks import Box
from tomoseg.core.coordinates import Filament, Particles, Points, resample
from tomoseg.core.sampling import Sampling, as_shape

# All lengths are in radii. Hits in a cube of this edge are one.
CELL_RADII = 0.5
# So far a hit looks for the line that it lies on, and then along that for where the middle is.
LOOK_RADII = 8.0
REACH_RADII = 4.0
# So far across, step by step: what in the end comes nearer than a diameter is no second filament.
ACROSS_RADII = (0.8, 1.5, 2.2)
# The kernel is so many times as wide as what this share of the hits lie within, and no narrower
# than that: a stray beside a thin line draws nothing aside.
WIDER, WITHIN, NARROWEST_RADII = 2.0, 0.75, 0.5
# A line through hits has those so near to it; a place of a line at least so many others on it.
BESIDE_RADII = 1.0
FEWEST_OTHERS = 2
# Hits whose directions differ by more are of filaments that cross.
ALIKE_DEGREES = 30.0
# Moves of all hits across their filaments; they end earlier where none moves so far any more.
MOST_MOVES, LEAST_MOVE_RADII = 8, 0.02
# Orientations whose z axes lie further off the lines of picks do not lie along filaments.
TRUSTED_DEGREES = 30.0
# Room around picks whose tomogram is not known, in radii.
MARGIN_RADII = 4.0
# Directions that are tried, about 11° apart, and pairs of picks that are looked at in one piece.
_TRIED = 200
_MOST_PAIRS = 20_000

Index = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PickAxes:
    """Places on the axes of filaments that picks lie along.

    Parameters
    ----------
    points_angstrom
        float64, shape (n, 3), zyx, Å.
    directions
        float64, shape (n, 3), zyx, unit vectors of either sign.
    known_from
        ``"orientations"``, the z axes of the table, or ``"neighbours"``, where it has none or its
        axes do not lie along the lines of picks.
    """

    points_angstrom: Points
    directions: Points
    known_from: str


@dataclass(frozen=True, eq=False)
class PickTubes:
    """The tubes that picks lie in, as a score map that is drawn where it is read.

    Parameters
    ----------
    sampling
        Grid of the score map: four voxels a radius.
    rods
        float64, shape (n, 3), zyx, Å: places along the axes of the rods.
    radius_angstrom
        Of the tubes.
    """

    sampling: Sampling
    rods: Points
    radius_angstrom: float

    @classmethod
    def of(cls, axes: PickAxes, settings: TracingSettings, room: Sampling | None) -> PickTubes:
        """Lay a rod through each place of an axis.

        Parameters
        ----------
        room
            Grid of the tomogram; None takes the room that the places need.
        """
        radius = settings.radius_angstrom
        size = radius / RADIUS_BINS
        steps = np.linspace(-radius, radius, 2 * int(RADIUS_BINS) + 1)
        rods = axes.points_angstrom[:, None] + steps[:, None] * axes.directions[:, None]
        points = axes.points_angstrom
        grid = _room(points, radius, size) if room is None else room.resampled(size)
        return cls(grid, rods.reshape(-1, 3), radius)

    def read(self, box: Box) -> NDArray[np.float32]:
        """Draw a box: 1 in a tube, 0 outside, soft over a voxel."""
        score = np.zeros(box.shape, np.float32)
        begin, end = self.sampling.to_angstrom([box.begin, box.end])
        reach = self.radius_angstrom + max(self.sampling.voxel_size_angstrom)
        near = ((self.rods > begin - reach) & (self.rods < end + reach)).all(axis=1)
        if near.any():
            index = np.indices(box.shape).reshape(3, -1).T + np.array(box.begin)
            places = self.sampling.to_angstrom(index)
            away, _ = cKDTree(self.rods[near]).query(places, distance_upper_bound=reach)
            inside = (self.radius_angstrom - away) / self.sampling.voxel_angstrom + 0.5
            score[:] = inside.clip(0, 1).reshape(box.shape)
        return score


def pick_axes(picks: Particles, radius_angstrom: float) -> PickAxes:
    """Return the places on the axes of the filaments that picks lie along; without strays.

    Notes
    -----
    A mean shift of all hits at once, of which only the part across the filament is taken
    (Ozertem and Erdogmus, Journal of Machine Learning Research 12 (2011) 1249). Its kernel ends at
    2.2 radii, so that the hits of two filaments side by side do not see each other.
    """
    points, axes = _thinned(picks, CELL_RADII * radius_angstrom)
    along = towards_neighbours(points, radius_angstrom)
    known_from = "neighbours"
    if axes is not None and _lie_along(axes, along):
        along, known_from = axes, "orientations"
    in_line = np.isfinite(along).all(axis=1)
    points, along = points[in_line], along[in_line]
    hits = points
    for reach in (radii * radius_angstrom for radii in ACROSS_RADII):
        for _ in range(MOST_MOVES if len(points) else 0):
            before = points
            points, along, _ = _moved(points, along, points, reach, radius_angstrom)
            furthest = np.linalg.norm(points - before, axis=1).max()
            if furthest < LEAST_MOVE_RADII * radius_angstrom:
                break
    points, along, others = _moved(points, along, hits, radius_angstrom, radius_angstrom)
    kept = others >= FEWEST_OTHERS
    return PickAxes(points[kept], along[kept], known_from)


def towards_neighbours(points: Points, radius_angstrom: float) -> Points:
    """Return the direction in which each point has most others in line, NaN where fewer than two.

    Parameters
    ----------
    points
        float64, shape (n, 3), Å.

    Notes
    -----
    Of directions all around the one wins that has most others within eight radii on its line, the
    farther the more; their principal axis is taken. At a crossing the other filament's points are
    outvoted, where a mere principal axis would lie between the two.
    """
    along = np.full(points.shape, np.nan)
    tried, beside = _all_around(_TRIED), BESIDE_RADII * radius_angstrom
    for rows, owner, others in _neighbours(points, LOOK_RADII * radius_angstrom):
        offsets = points[others] - points[rows[owner]]
        ahead = np.abs(offsets @ tried.T)
        aside = (offsets**2).sum(axis=1)[:, None] - ahead**2
        votes = _sums(owner, ahead * (1 - aside / beside**2).clip(0), len(rows))
        best = votes.argmax(axis=1)[owner]
        on_line = (aside[np.arange(len(owner)), best] <= beside**2).astype(np.float64)
        is_line = _sums(owner, on_line[:, None], len(rows))[:, 0] > FEWEST_OTHERS
        along[rows[is_line]] = _principal(owner, offsets, on_line, len(rows))[is_line]
    return along


def between_picks(line: Filament, picks: Points, radius_angstrom: float) -> Filament:
    """Cut a line that was traced through picks back to the first and the last of them."""
    dense = resample(line.points_angstrom, radius_angstrom / RADIUS_BINS)
    away, row = cKDTree(dense).query(picks, distance_upper_bound=radius_angstrom)
    seen = row[np.isfinite(away)]
    if not len(seen) or seen.max() - seen.min() < 2:
        return line
    part = dense[seen.min() : seen.max() + 1]
    step = max(1, int(RADIUS_BINS / 2))
    keep = np.unique([*range(0, len(part), step), len(part) - 1])
    return Filament(line.name, line.number, part[keep], line.score)


def _thinned(picks: Particles, cell_angstrom: float) -> tuple[Points, Points | None]:
    """Return one place for all picks in a cell, and the z axes there, None where all are alike."""
    cells = np.floor(picks.points_angstrom / cell_angstrom).astype(np.int64)
    _, owner = np.unique(cells, axis=0, return_inverse=True)
    number = int(owner.max(initial=-1)) + 1
    points = _sums(owner, picks.points_angstrom, number) / np.bincount(owner)[:, None]
    axes = picks.orientations[:, ::-1, 2]
    if np.array_equal(axes, np.tile([1.0, 0, 0], (len(picks), 1))):
        return points, None
    return points, _main_axes(_sums(owner, _squares(axes), number))


def _lie_along(axes: Points, along: Points) -> bool:
    """Tell whether most axes are near the directions, as far as these are known."""
    in_line = np.isfinite(along).all(axis=1)
    cosine = np.abs((axes[in_line] * along[in_line]).sum(axis=1))
    return not in_line.any() or np.median(cosine) >= np.cos(np.deg2rad(TRUSTED_DEGREES))


def _moved(
    points: Points, along: Points, hits: Points, reach: float, radius: float
) -> tuple[Points, Points, Index]:
    """Move each point across its filament to the middle of the hits around.

    Parameters
    ----------
    points, along
        float64, shape (n, 3): where each hit was moved to by now, and its direction.
    hits
        Where each hit lies for the middle: there, or where it was found.
    reach
        How far across points see each other.

    Returns
    -------
    The points, their directions anew, and how many others each has on its line.
    """
    middles, turned = points.copy(), along.copy()
    number_on_line = np.zeros(len(points), np.int64)
    alike, length = np.cos(np.deg2rad(ALIKE_DEGREES)), REACH_RADII * radius
    for rows, owner, others in _neighbours(points, length):
        mine = along[rows[owner]]
        offsets = points[others] - points[rows[owner]]
        ahead = (offsets * mine).sum(axis=1)
        aside = np.linalg.norm(_across(offsets, mine), axis=1)
        seen = aside <= reach
        seen &= np.abs((mine * along[others]).sum(axis=1)) >= alike
        on_line = seen & (aside <= BESIDE_RADII * radius)
        number_on_line[rows] = np.bincount(owner[on_line], minlength=len(rows)) - 1
        of = owner[seen]
        across = _across(hits[others[seen]] - points[rows[of]], mine[seen])
        aside = np.linalg.norm(across, axis=1)
        widths = WIDER * _quantiles(of, aside, WITHIN, len(rows))
        widths = widths.clip(NARROWEST_RADII * radius, ACROSS_RADII[-1] * radius)[of]
        weights = (1 - (aside / widths) ** 2).clip(0)
        turned[rows] = _principal(of, offsets[seen], weights, len(rows))
        weights *= 1 - (ahead[seen] / length) ** 2
        total = _sums(of, weights[:, None], len(rows))
        middles[rows] += _sums(of, weights[:, None] * across, len(rows)) / total
    return middles, turned, number_on_line


def _across(vectors: Points, along: Points) -> Points:
    """Return the part of each vector that is perpendicular to a unit vector."""
    return np.asarray(vectors - (vectors * along).sum(axis=1)[:, None] * along)


def _neighbours(points: Points, reach: float) -> Iterator[tuple[Index, Index, Index]]:
    """Yield some rows, and the pairs of those with all points in reach, themselves too.

    Of each pair, which of the rows it is of, 0, 1, …, and the other point.
    """
    tree = cKDTree(points)
    counts = tree.query_ball_point(points, reach, return_length=True)
    pieces = np.cumsum(counts) // _MOST_PAIRS
    for rows in np.split(np.arange(len(points)), np.flatnonzero(np.diff(pieces)) + 1):
        others = np.concatenate([*tree.query_ball_point(points[rows], reach), np.zeros(0)])
        yield rows, np.repeat(np.arange(len(rows)), counts[rows]), others.astype(np.int64)


def _sums(owner: Index, values: Floats, number: int) -> Floats:
    """Add up rows, shape (n, k), by owner; shape (number, k)."""
    matrix = csr_array((np.ones(len(owner)), (owner, np.arange(len(owner)))), (number, len(owner)))
    return np.asarray(matrix @ values)


def _quantiles(owner: Index, values: Floats, share: float, number: int) -> Floats:
    """Return a quantile of the values of each owner, each of which has some; shape (number,)."""
    order = np.lexsort((values, owner))
    counts = np.bincount(owner, minlength=number)
    rank = np.cumsum(counts) - counts + (share * (counts - 1)).astype(np.int64)
    return np.asarray(values[order][rank])


def _squares(vectors: Floats) -> Floats:
    """Return the outer product of each vector with itself, shape (n, 9)."""
    return (vectors[:, :, None] * vectors[:, None]).reshape(-1, 9)


def _principal(owner: Index, offsets: Points, weights: Floats, number: int) -> Points:
    """Return the principal axis of the offsets of each owner."""
    total = _sums(owner, weights[:, None], number)
    mean = _sums(owner, weights[:, None] * offsets, number) / total
    return _main_axes(
        _sums(owner, weights[:, None] * _squares(offsets), number) / total - _squares(mean)
    )


def _main_axes(squares: Floats) -> Points:
    return np.asarray(np.linalg.eigh(squares.reshape(-1, 3, 3))[1][:, :, -1])


def _all_around(number: int) -> Points:
    """Return directions over half a sphere, equally dense: a Fibonacci spiral."""
    steps = np.arange(number)
    z = (steps + 0.5) / number
    angle = steps * np.pi * (3 - np.sqrt(5))
    across = np.sqrt(1 - z**2)
    return np.stack([z, across * np.cos(angle), across * np.sin(angle)], axis=1)


def _room(points: Points, radius: float, size: float) -> Sampling:
    low = points.min(axis=0) - MARGIN_RADII * radius
    extent = points.max(axis=0) + MARGIN_RADII * radius - low
    return Sampling(as_shape(np.ceil(extent / size) + 1), (size,) * 3, tuple(low.tolist()))
