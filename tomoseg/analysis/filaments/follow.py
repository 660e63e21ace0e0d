"""Following ridges from bin to bin, in Å, on the bins alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from numpy.typing import NDArray

from tomoseg.analysis.filaments.ridge import RidgePoints
from tomoseg.analysis.filaments.settings import TracingSettings
from tomoseg.core.coordinates import Points, tangents
from tomoseg.core.sampling import Sampling

Vector = NDArray[np.float64]
# Directions of traces, by the zyx index of the cell of space that holds the place.
Claims = dict[tuple[int, int, int], list[Vector]]

# The corners of a bin's face across x, zyx.
SQUARE = np.array([(z, y, 0) for z, y in product((0, 1), repeat=2)])
# Bins around the grid in which nothing is, and the key of no bin at all.
PADDING = 2
ABSENT = np.iinfo(np.int64).max
# Volumes are calibrated by this percentile of the maxima, held within these bounds.
LEVEL_PERCENTILE = 75.0
LEVEL_BOUNDS = (0.25, 1.2)
# Along filaments the score's top is 0.1 to 0.5 radii aside, where they crowd; along rims of sheets
# 0.6 to 1.2, in theory σ where a rim is strongest.
RIM_RADII = 0.6
# A trace does not claim its own last and first steps, or it could neither go on nor turn back.
UNCLAIMED_STEPS = 4


@dataclass(frozen=True, eq=False)
class Ridge:
    """The ridge of a whole volume, to be asked for its strength anywhere.

    Parameters
    ----------
    sampling
        The working grid.
    keys
        int64, shape (n + 1,), ascending: linear index of each bin in the grid padded by
        :data:`PADDING` bins, so that a bin beyond the border is absent and never another one. The
        last stands for all bins that are absent.
    strength, direction, maximum, aside
        As in :class:`RidgePoints`, in the order of the keys; nothing in the last row.
    """

    sampling: Sampling
    keys: NDArray[np.int64]
    strength: NDArray[np.float32]
    direction: NDArray[np.float32]
    maximum: NDArray[np.bool_]
    aside: NDArray[np.float32]

    @classmethod
    def of(cls, points: RidgePoints, sampling: Sampling) -> Ridge:
        """Sort the points of a volume, whatever order the blocks came in."""
        keys = (points.index.astype(np.int64) + PADDING) @ _strides(sampling)
        order = np.argsort(keys)
        kept = points.select(order)
        return cls(
            sampling,
            np.append(keys[order], ABSENT),
            np.append(kept.strength, np.float32(0)),
            np.append(kept.direction, np.zeros((1, 3), np.float32), axis=0),
            np.append(kept.maximum, False),
            np.append(kept.aside, np.float32(0)),
        )

    @cached_property
    def frame(self) -> tuple[Vector, Vector, Vector, NDArray[np.int64]]:
        """Where the first bin is and how large bins are (Å), how many there are, and their keys."""
        grid = self.sampling
        return (
            np.array(grid.first_voxel_angstrom),
            np.array(grid.voxel_size_angstrom),
            np.array(grid.shape, np.float64),
            _strides(grid),
        )

    @property
    def level(self) -> float:
        """How strong the tubes of this volume are; weak maps then trace as strong ones do."""
        peaks = self.strength[self.maximum]
        raw = np.percentile(peaks, LEVEL_PERCENTILE) if len(peaks) else 1.0
        return float(np.clip(raw, *LEVEL_BOUNDS))

    def seeds(self, threshold: float) -> tuple[Points, NDArray[np.float64]]:
        """Return positions (Å) and directions of the maxima above a threshold, best first."""
        at = np.flatnonzero(self.maximum & (self.strength >= threshold))
        at = at[np.argsort(-self.strength[at], kind="stable")]
        padded = np.array(self.sampling.shape) + 2 * PADDING
        index = np.stack(np.unravel_index(self.keys[at], padded), axis=1) - PADDING
        return self.sampling.to_angstrom(index), self.direction[at].astype(np.float64)

    def strength_at(self, points: Points) -> NDArray[np.float64]:
        """Interpolate the strength at points of shape (n, 3), Å; an absent bin counts 0."""
        rows, weights = self._corners(points)
        return np.asarray((weights * self.strength[rows]).sum(axis=1))

    def direction_at(self, point: Vector, heading: Vector) -> Vector:
        """Return the unit direction of the ridge at a point, with the sign of a heading."""
        rows, weights = self._corners(point[None])
        vectors = self.direction[rows[0]].astype(np.float64)
        weights = weights[0] * self.strength[rows[0]]
        signs = np.where(vectors @ heading < 0, -1.0, 1.0)
        return _unit((weights * signs) @ vectors, otherwise=heading)

    def is_rim(self, line: Points, settings: TracingSettings) -> bool:
        """Tell whether a line, shape (n, 3), Å, runs along the rim of something broader.

        A hollow tube is itself brightest aside, and none is told to be a rim. Nearer to the
        volume's border than one radius a filament is cut, and looks like one.
        """
        if settings.hollow:
            return False
        rows, weights = self._corners(line)
        weights = weights * self.strength[rows]
        seen = weights.sum(axis=1)
        aside = (weights * self.aside[rows]).sum(axis=1)[seen > 0] / seen[seen > 0]
        aside[self.depth(line[seen > 0]) < settings.radius_angstrom] = 0
        return bool(len(aside) and np.median(aside) > RIM_RADII)

    def depth(self, points: Points) -> NDArray[np.float64]:
        """Distance of points of shape (n, 3), Å, from the volume's border; negative outside."""
        voxels = self.sampling.to_voxels(points) + 0.5
        inner = np.minimum(voxels, np.array(self.sampling.shape) - voxels)
        return np.asarray((inner * self.sampling.voxel_size_angstrom).min(axis=1))

    def holds(self, place: Vector) -> bool:
        """Tell whether a place, shape (3,), Å, is in the volume; of one :meth:`depth` is slow."""
        first, size, shape, _ = self.frame
        voxels = ((place - first) / size).tolist()
        return all(0 <= at + 0.5 <= n for at, n in zip(voxels, shape.tolist(), strict=True))

    def _corners(self, points: Points) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Rows of the 8 bins around each point, −1 where absent, and their trilinear weights."""
        first, size, shape, strides = self.frame
        voxels = (points - first) / size
        floor = np.floor(voxels)
        sides = np.empty((len(points), 2, 3))
        np.subtract(voxels, floor, out=sides[:, 1])
        np.subtract(1, sides[:, 1], out=sides[:, 0])
        weights = sides[:, :, None, 0] * sides[:, None, :, 1]
        weights = weights[..., None] * sides[:, None, None, :, 2]
        inner = np.minimum(np.maximum(floor, -PADDING), shape)
        keys = ((inner + PADDING) @ strides).astype(np.int64)[:, None] + SQUARE @ strides
        # Of two bins in line along x the second stands right after the first, or is absent.
        rows = np.empty((*keys.shape, 2), np.int64)
        low = self.keys.searchsorted(keys)
        is_low = self.keys[low] == keys
        high = low + is_low
        rows[..., 0] = np.where(is_low, low, -1)
        rows[..., 1] = np.where(self.keys[high] == keys + 1, high, -1)
        return rows.reshape(-1, 8), weights.reshape(-1, 8)


def follow_all(ridge: Ridge, settings: TracingSettings) -> list[Points]:
    """Trace every ridge from its strongest maxima.

    Returns
    -------
    Lines of float64, shape (n ≥ 2, 3), zyx, Å, spaced by half a radius.
    """
    level = ridge.level
    claims: Claims = {}
    lines = []
    walker = _Walker(ridge, settings, level * settings.follow_threshold, claims)
    for place, heading in zip(*ridge.seeds(level * settings.seed_threshold), strict=True):
        if walker.is_taken(place):
            continue
        line = walker.both_ways(place, heading)
        walker.claim(line)
        if len(line) > 1:
            lines.append(line)
    return lines


@dataclass(frozen=True, eq=False)
class _Walker:
    """One volume's traces in the making: the ridge, the rules, and who claims what."""

    ridge: Ridge
    settings: TracingSettings
    threshold: float
    claims: Claims

    def both_ways(self, seed: Vector, heading: Vector) -> Points:
        """Follow the ridge from a seed to both of its ends."""
        path = [seed]
        self.onward(path, heading)
        path.reverse()
        self.onward(path, -heading)
        return np.array(path)

    def onward(self, path: list[Vector], heading: Vector) -> None:
        """Lengthen a path from its last place until the ridge ends or is another trace's."""
        step, begin = self.settings.step_angstrom, len(path)
        end, place = begin, path[-1]
        while True:
            ahead = place + step * heading
            found = self.recentre(ahead, heading)
            place, heading = (ahead, heading) if found is None else found
            gap = (len(path) + 1 - end) * step
            lost = found is None and gap > self.settings.gap_angstrom
            if lost or self.claimed(place, heading):
                break
            if not self.ridge.holds(place):
                # A tube that leaves the volume is traced up to its border.
                place = self.at_border(path[-1], heading)
                if end == len(path) and np.linalg.norm(place - path[-1]) > 0.1 * step:
                    path.append(place)
                    end += 1
                break
            path.append(place)
            if found is not None:
                end = len(path)
            steps = len(path) - begin
            if steps > 2 * UNCLAIMED_STEPS and steps % UNCLAIMED_STEPS == 0:
                # A line that runs back into itself stops there, as at any other trace.
                self.claim(np.array(path[-2 * UNCLAIMED_STEPS - 1 : -UNCLAIMED_STEPS]))
        del path[end:]

    def recentre(self, ahead: Vector, heading: Vector) -> tuple[Vector, Vector] | None:
        """Move a place onto the ridge in the plane across, and turn half way into its direction.

        None if there is no ridge, or if it turns away too sharply to be the same filament.
        """
        disc = ahead + _DISC @ _across(heading) * self.settings.radius_angstrom
        strength = self.ridge.strength_at(disc)
        best = strength.max()
        if best < self.threshold:
            return None
        weights = np.maximum(strength - best / 2, 0)
        centre = weights @ disc / weights.sum()
        along = self.ridge.direction_at(centre, heading)
        if along @ heading < math.cos(math.radians(self.settings.turn_degrees)):
            return None
        return centre, _unit(heading + along, otherwise=heading)

    def at_border(self, place: Vector, heading: Vector) -> Vector:
        """Return where a straight line from a place in the volume leaves it."""
        sampling = self.ridge.sampling
        voxels, along = sampling.to_voxels(place), heading / sampling.voxel_size_angstrom
        faces = np.where(along > 0, np.array(sampling.shape) - 0.5, -0.5)
        moving = along != 0
        return np.asarray(place + heading * ((faces - voxels)[moving] / along[moving]).min())

    def cell(self, place: Vector) -> tuple[int, int, int]:
        """Return the cell of space, half a radius wide, that holds a place."""
        edge = self.settings.step_angstrom
        z, y, x = place.tolist()
        return math.floor(z / edge), math.floor(y / edge), math.floor(x / edge)

    def claim(self, line: Points) -> None:
        """Keep the places of a line as taken, each with the line's direction there."""
        if len(line) < 2:
            return
        for place, along in zip(line, tangents(line), strict=True):
            self.claims.setdefault(self.cell(place), []).append(along)

    def claims_at(self, place: Vector) -> Iterator[Vector]:
        """Yield the directions of traces in the cells within one radius of a place."""
        z, y, x = self.cell(place)
        for dz, dy, dx in _BALL:
            yield from self.claims.get((z + dz, y + dy, x + dx), ())

    def is_taken(self, place: Vector) -> bool:
        """Tell whether any trace has been here."""
        return next(self.claims_at(place), None) is not None

    def claimed(self, place: Vector, heading: Vector) -> bool:
        """Tell whether a trace of much the same direction has been here."""
        least = math.cos(math.radians(self.settings.claim_degrees))
        return any(abs(along @ heading) > least for along in self.claims_at(place))


def _strides(sampling: Sampling) -> NDArray[np.int64]:
    """How far apart, in linear index, neighbours along zyx are in the padded grid."""
    _, ny, nx = (n + 2 * PADDING for n in sampling.shape)
    return np.array([ny * nx, nx, 1])


def _across(heading: Vector) -> NDArray[np.float64]:
    """Two unit vectors across a direction, shape (2, 3).

    They are two rows of the reflection that takes the third axis to the direction (Householder).
    """
    axis = int(np.abs(heading).argmax())
    mirror = heading.copy()
    mirror[axis] += math.copysign(1.0, heading[axis])
    rows = [axis - 2, axis - 1]
    return np.asarray(_AXES[rows] - 2 / (mirror @ mirror) * mirror[rows, None] * mirror)


def _unit(vector: Vector, *, otherwise: Vector) -> Vector:
    length = math.sqrt(vector @ vector)
    return vector / length if length > 0 else otherwise


def _grid(count: int, axes: int) -> NDArray[np.float64]:
    """Return all points of a symmetric integer grid, shape (n, axes)."""
    return np.array(list(product(range(-count, count + 1), repeat=axes)), dtype=np.float64)


_AXES = np.eye(3)
# Where the plane across is looked at, in radii.
_DISC = _grid(3, 2)[(_grid(3, 2) ** 2).sum(axis=1) <= 10] * 0.2
# The cells, half a radius wide, within one radius of a place; a symmetric set.
_BALL = _grid(2, 3)[(_grid(2, 3) ** 2).sum(axis=1) <= 4].astype(int).tolist()
