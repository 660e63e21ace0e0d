"""Following ridges from bin to bin, in Å, on the bins alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from tomoseg.coordinates import Points, tangents
from tomoseg.filaments.ridge import RidgePoints
from tomoseg.filaments.settings import TracingSettings
from tomoseg.sampling import Sampling

Vector = NDArray[np.float64]
# Directions of traces, by the zyx index of the cell of space that holds the place.
Claims = dict[tuple[int, int, int], list[Vector]]

CORNERS = np.array(list(product((0, 1), repeat=3)))
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
        int64, shape (n,), ascending: linear index of each bin in the grid padded by one bin, so
        that a bin beyond the border is absent and never another one.
    strength, direction, maximum, aside
        As in :class:`RidgePoints`, in the order of the keys.
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
        keys = _keys(points.index.astype(np.int64), sampling)
        order = np.argsort(keys)
        return cls(
            sampling,
            keys[order],
            points.strength[order],
            points.direction[order],
            points.maximum[order],
            points.aside[order],
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
        padded = np.array(self.sampling.shape) + 2
        index = np.stack(np.unravel_index(self.keys[at], padded), axis=1) - 1
        return self.sampling.to_angstrom(index), self.direction[at].astype(np.float64)

    def strength_at(self, points: Points) -> NDArray[np.float64]:
        """Interpolate the strength at points of shape (n, 3), Å; an absent bin counts 0."""
        rows, weights = self._corners(points)
        return np.asarray((weights * np.where(rows < 0, 0, self.strength[rows])).sum(axis=1))

    def direction_at(self, point: Vector, heading: Vector) -> Vector:
        """Return the unit direction of the ridge at a point, with the sign of a heading."""
        rows, weights = self._corners(point[None])
        vectors = self.direction[rows[0]].astype(np.float64)
        weights = weights[0] * np.where(rows[0] < 0, 0, self.strength[rows[0]])
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
        weights = weights * np.where(rows < 0, 0, self.strength[rows])
        seen = weights.sum(axis=1)
        aside = (weights * self.aside[rows]).sum(axis=1)[seen > 0] / seen[seen > 0]
        aside[self.depth(line[seen > 0]) < settings.radius_angstrom] = 0
        return bool(len(aside) and np.median(aside) > RIM_RADII)

    def depth(self, points: Points) -> NDArray[np.float64]:
        """Distance of points of shape (n, 3), Å, from the volume's border; negative outside."""
        voxels = self.sampling.to_voxels(points) + 0.5
        inner = np.minimum(voxels, np.array(self.sampling.shape) - voxels)
        return np.asarray((inner * self.sampling.voxel_size_angstrom).min(axis=1))

    def _corners(self, points: Points) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Rows of the 8 bins around each point, −1 where absent, and their trilinear weights."""
        voxels = self.sampling.to_voxels(points)
        floor = np.floor(voxels)
        rest = (voxels - floor)[:, None, :]
        weights = np.where(CORNERS, rest, 1 - rest).prod(axis=2)
        corners = floor.astype(np.int64)[:, None, :] + CORNERS
        keys = _keys(np.clip(corners, -1, self.sampling.shape), self.sampling)
        rows = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[rows] == keys, rows, -1), weights


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
            if self.ridge.depth(place[None])[0] < 0:
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
        if along @ heading < np.cos(np.deg2rad(self.settings.turn_degrees)):
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
        z, y, x = np.floor(place / self.settings.step_angstrom).astype(int).tolist()
        return z, y, x

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
        least = np.cos(np.deg2rad(self.settings.claim_degrees))
        return any(abs(along @ heading) > least for along in self.claims_at(place))


def _keys(index: NDArray[np.int64], sampling: Sampling) -> NDArray[np.int64]:
    """Linear index, shape (...), of bins −1..n, shape (..., 3), in the grid padded by one."""
    _, ny, nx = (n + 2 for n in sampling.shape)
    return np.asarray(((index[..., 0] + 1) * ny + index[..., 1] + 1) * nx + index[..., 2] + 1)


def _across(heading: Vector) -> NDArray[np.float64]:
    """Two unit vectors across a direction, shape (2, 3).

    They are two rows of the reflection that takes the third axis to the direction (Householder).
    """
    axis = int(np.abs(heading).argmax())
    mirror = heading.copy()
    mirror[axis] += np.copysign(1.0, heading[axis])
    reflection = np.eye(3) - 2 / (mirror @ mirror) * mirror[:, None] * mirror
    return np.asarray(reflection[[axis - 2, axis - 1]])


def _unit(vector: Vector, *, otherwise: Vector) -> Vector:
    length = np.sqrt(vector @ vector)
    return vector / length if length > 0 else otherwise


def _grid(count: int, axes: int) -> NDArray[np.float64]:
    """Return all points of a symmetric integer grid, shape (n, axes)."""
    return np.array(list(product(range(-count, count + 1), repeat=axes)), dtype=np.float64)


# Where the plane across is looked at, in radii.
_DISC = _grid(3, 2)[(_grid(3, 2) ** 2).sum(axis=1) <= 10] * 0.2
# The cells, half a radius wide, within one radius of a place; a symmetric set.
_BALL = _grid(2, 3)[(_grid(2, 3) ** 2).sum(axis=1) <= 4].astype(int).tolist()
