"""Following ridges from bin to bin, in Å, on the bins alone."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from tomoseg.coordinates import Points, resample
from tomoseg.filaments.ridge import RidgePoints
from tomoseg.filaments.settings import TracingSettings
from tomoseg.sampling import Sampling

Vector = NDArray[np.float64]
# Directions of the traces that claim a cell of space, by the cell's zyx index.
Claims = dict[tuple[int, int, int], list[Vector]]

CORNERS = np.array(list(product((0, 1), repeat=3)))
# Volumes are calibrated by this percentile of the maxima, held within these bounds.
LEVEL_PERCENTILE = 75.0
LEVEL_BOUNDS = (0.25, 1.2)
# A trace does not claim its own last and first steps, or it could neither go on nor turn back.
UNCLAIMED_STEPS = 8
# The tip of a line is looked at this many times a radius.
TIP_SAMPLES = 10


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
    strength, direction, maximum
        As in :class:`RidgePoints`, in the order of the keys.
    """

    sampling: Sampling
    keys: NDArray[np.int64]
    strength: NDArray[np.float32]
    direction: NDArray[np.float32]
    maximum: NDArray[np.bool_]

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
        if walker.cell(place) in claims:
            continue
        line = walker.both_ways(place, heading)
        walker.claim(line)
        if len(line) > 1:
            lines.append(line)
    return lines


def trim(line: Points, ridge: Ridge, settings: TracingSettings) -> Points:
    """Cut both ends of a line back to where the tube ends.

    The smoothed tube falls to half at its true end, and a trace goes on to a quarter. At most one
    radius is cut, so that a tube that fades is not shortened.

    Returns
    -------
    float64, shape (n ≥ 2, 3), zyx, Å, spaced by a tenth of a radius.
    """
    for _ in range(2):
        dense = resample(line, settings.radius_angstrom / TIP_SAMPLES)
        tip = ridge.strength_at(dense[: 3 * TIP_SAMPLES])
        real = tip[: TIP_SAMPLES + 1] >= np.median(tip[TIP_SAMPLES:]) / 2
        line = dense[real.argmax() if real.any() else TIP_SAMPLES :][::-1]
    return line


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
            if lost or self.claimed(place, heading) or not self.inside(place):
                break
            path.append(place)
            if found is not None:
                end = len(path)
            if len(path) > begin + 2 * UNCLAIMED_STEPS:
                # A line that runs back into itself stops there, as at any other trace.
                self.claim(np.array(path[-UNCLAIMED_STEPS - 2 : -UNCLAIMED_STEPS]))
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

    def inside(self, place: Vector) -> bool:
        """Tell whether a place lies in the volume."""
        return bool(self.ridge.sampling.contains(place))

    def cell(self, place: Vector) -> tuple[int, int, int]:
        """Return the cell of space, half a radius wide, that holds a place."""
        z, y, x = np.floor(place / self.settings.step_angstrom).astype(int).tolist()
        return z, y, x

    def claim(self, line: Points) -> None:
        """Mark the cells within one radius of a line as taken, with its direction there."""
        if len(line) < 2:
            return
        steps = np.gradient(line, axis=0)
        for place, along in zip(line, steps / np.linalg.norm(steps, axis=1)[:, None], strict=True):
            z, y, x = self.cell(place)
            for dz, dy, dx in _BALL:
                self.claims.setdefault((z + dz, y + dy, x + dx), []).append(along)

    def claimed(self, place: Vector, heading: Vector) -> bool:
        """Tell whether a trace of much the same direction has been here."""
        least = np.cos(np.deg2rad(self.settings.claim_degrees))
        return any(abs(along @ heading) > least for along in self.claims.get(self.cell(place), ()))


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
# The cells, half a radius wide, that one place claims: those within one radius.
_BALL = _grid(2, 3)[(_grid(2, 3) ** 2).sum(axis=1) <= 4].astype(int).tolist()
