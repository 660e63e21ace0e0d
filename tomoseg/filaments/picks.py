"""Picks along filaments, such as those of template matching, as tubes that can be traced.

Each pick becomes a rod along its filament, one diameter long: rods of one filament overlap or face
each other, and the tracer joins, bridges and smooths them as it does any score map. A stray pick
is a rod by itself, too short for a filament.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from tomoseg.blocks import Box
from tomoseg.coordinates import Filament, Particles, Points, resample
from tomoseg.filaments.settings import RADIUS_BINS, TracingSettings
from tomoseg.sampling import Sampling, as_shape

# A pick without an orientation looks for its filament among the picks within so many radii, and a
# line through them has these within half a radius of it.
REACH_RADII = 4.0
BESIDE_RADII = 0.5
# Orientations whose z axes lie further off the lines of picks do not lie along filaments.
TRUSTED_DEGREES = 30.0
# Room around picks whose tomogram is not known, in radii.
MARGIN_RADII = 4.0


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
    def of(
        cls, points: Points, directions: Points, settings: TracingSettings, room: Sampling | None
    ) -> PickTubes:
        """Lay a rod through each pick that has a direction.

        Parameters
        ----------
        points, directions
            float64, shape (n, 3), zyx, Å; NaN where no direction is known.
        room
            Grid of the tomogram; None takes the room that the picks need.
        """
        radius = settings.radius_angstrom
        size = radius / RADIUS_BINS
        known = np.isfinite(directions).all(axis=1)
        steps = np.linspace(-radius, radius, 2 * int(RADIUS_BINS) + 1)
        rods = points[known, None] + steps[:, None] * directions[known, None]
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


def pick_directions(picks: Particles, radius_angstrom: float) -> tuple[Points, str]:
    """Return how the filament of each pick runs, and where that is known from.

    Returns
    -------
    Unit vectors, float64, shape (n, 3), zyx, of either sign, NaN where a pick stands alone; and
    ``"orientations"``, the z axes of the table, or ``"neighbours"``, where it has none or its axes
    do not lie along the lines of picks.
    """
    along = towards_neighbours(picks.points_angstrom, radius_angstrom)
    axes = picks.orientations[:, ::-1, 2]
    in_line = np.isfinite(along).all(axis=1)
    if not len(picks) or np.array_equal(axes, np.tile([1.0, 0, 0], (len(picks), 1))):
        return along, "neighbours"
    cosine = np.abs((axes[in_line] * along[in_line]).sum(axis=1))
    if in_line.any() and np.median(cosine) < np.cos(np.deg2rad(TRUSTED_DEGREES)):
        return along, "neighbours"
    return axes, "orientations"


def towards_neighbours(points: Points, radius_angstrom: float) -> Points:
    """Return the direction in which each point has most others in line, NaN where fewer than two.

    Parameters
    ----------
    points
        float64, shape (n, 3), Å.

    Notes
    -----
    Each neighbour within four radii proposes the direction towards it; the one with most others
    within half a radius of its line wins, and their principal axis is taken. At a crossing the
    other filament's points are outvoted, where a mere principal axis would lie between the two.
    """
    along = np.full(points.shape, np.nan)
    tree = cKDTree(points)
    for i, rows in enumerate(tree.query_ball_point(points, REACH_RADII * radius_angstrom)):
        offsets = points[rows] - points[i]
        lengths = np.linalg.norm(offsets, axis=1)
        offsets, lengths = offsets[lengths > 0], lengths[lengths > 0]
        if len(offsets) < 2:
            continue
        ahead = offsets @ (offsets / lengths[:, None]).T
        aside = np.sqrt(np.maximum(lengths[:, None] ** 2 - ahead**2, 0))
        in_line = aside <= BESIDE_RADII * radius_angstrom
        chosen = offsets[in_line[:, in_line.sum(axis=0).argmax()]]
        if len(chosen) >= 2:
            along[i] = np.linalg.svd(np.vstack([chosen, np.zeros(3)]), full_matrices=False)[2][0]
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


def _room(points: Points, radius: float, size: float) -> Sampling:
    low = points.min(axis=0) - MARGIN_RADII * radius
    extent = points.max(axis=0) + MARGIN_RADII * radius - low
    return Sampling(as_shape(np.ceil(extent / size) + 1), (size,) * 3, tuple(low.tolist()))
