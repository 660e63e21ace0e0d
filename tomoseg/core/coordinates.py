"""Filaments and particles: the one coordinate model, from which every format is written.

Positions are in Å, zyx, relative to the centre of the source's first voxel. Orientations are
3×3 matrices in xyz order whose columns are the particle's x, y and z axes in the tomogram.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tomoseg.core.errors import RequestError
from tomoseg.core.sampling import Sampling

Points = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Filament:
    """One traced or simulated centre line.

    Parameters
    ----------
    name
        Class, such as ``"microtubule"``.
    number
        Id, unique in a tomogram and class, counted from 1.
    points_angstrom
        float64, shape (n ≥ 2, 3), zyx, Å, in order along the filament.
    score
        Mean evidence along the line, 0..1; NaN if unknown.
    polarity_known
        Whether the order of the points is that of the filament's own polarity.

    Raises
    ------
    RequestError
        If there are fewer than two points or one is not finite.
    """

    name: str
    number: int
    points_angstrom: Points
    score: float = float("nan")
    polarity_known: bool = False

    def __post_init__(self) -> None:
        """Check shape and finiteness."""
        points = np.asarray(self.points_angstrom, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != 3 or len(points) < 2:
            raise RequestError(f"a filament needs points of shape (n ≥ 2, 3), not {points.shape}")
        if not np.isfinite(points).all():
            raise RequestError(f"filament {self.number} of {self.name} has points not finite")
        object.__setattr__(self, "points_angstrom", points)

    @property
    def track_angstrom(self) -> Points:
        """Distance along the line at each point, float64, shape (n,), Å, 0 at the start."""
        steps = np.linalg.norm(np.diff(self.points_angstrom, axis=0), axis=1)
        return np.concatenate([[0.0], np.cumsum(steps)])

    @property
    def length_angstrom(self) -> float:
        """Length along the line, Å."""
        return float(self.track_angstrom[-1])

    def flip_z(self, sampling: Sampling) -> Filament:
        """Return the line in the mirrored volume, see :func:`flip_z`."""
        return replace(self, points_angstrom=flip_z(self.points_angstrom, sampling))


@dataclass(frozen=True, eq=False)
class Particles:
    """Particles of one class in one tomogram.

    Parameters
    ----------
    name
        Class, such as ``"ribosome"``.
    points_angstrom
        float64, shape (n, 3), zyx, Å.
    scores
        float64, shape (n,), 0..1; NaN where unknown.
    orientations
        float64, shape (n, 3, 3), xyz, columns are the particle's axes; identity where unknown.
    """

    name: str
    points_angstrom: Points
    scores: Points
    orientations: Points

    def __len__(self) -> int:
        """Return the number of particles."""
        return len(self.points_angstrom)

    def select(self, is_kept: NDArray[np.bool_]) -> Particles:
        """Return the particles for which a bool array, shape (n,), is true."""
        return Particles(
            self.name,
            self.points_angstrom[is_kept],
            self.scores[is_kept],
            self.orientations[is_kept],
        )

    def flip_z(self, sampling: Sampling) -> Particles:
        """Return the particles in the mirrored volume, see :func:`flip_z`.

        Notes
        -----
        The x and z axes are mirrored with the volume; the y axis then points the other way, so
        that the frame is right-handed again. What averages is the mirror image of the particle.
        """
        mirrored = self.orientations * np.array([[1.0], [1.0], [-1.0]]) * [1.0, -1.0, 1.0]
        points = flip_z(self.points_angstrom, sampling)
        return replace(self, points_angstrom=points, orientations=mirrored)

    @classmethod
    def at(cls, name: str, points_angstrom: Points, scores: Points | None = None) -> Particles:
        """Return particles of unknown orientation."""
        points = np.asarray(points_angstrom, dtype=np.float64).reshape(-1, 3)
        known = np.full(len(points), np.nan) if scores is None else np.asarray(scores, np.float64)
        return cls(name, points, known, np.tile(np.eye(3), (len(points), 1, 1)))


def flip_z(points_angstrom: Points, sampling: Sampling) -> Points:
    """Mirror positions in a volume whose slices come in the opposite order.

    Voxel z becomes n - 1 - z. A tomogram whose hand is wrong is mended by this alone, never by
    rotations; programs differ in the sign of the tilt angle.

    Parameters
    ----------
    points_angstrom
        float64, shape (n, 3), zyx, Å.
    sampling
        Grid of the source tomogram.

    Examples
    --------
    >>> grid = Sampling((100, 250, 240), (10.0, 10.0, 10.0))
    >>> flip_z(np.array([[400.0, 1005.0, 602.5]]), grid).tolist()
    [[590.0, 1005.0, 602.5]]
    """
    voxels = sampling.to_voxels(points_angstrom)
    voxels[:, 0] = sampling.shape[0] - 1 - voxels[:, 0]
    return sampling.to_angstrom(voxels)


def resample(points: Points, spacing: float) -> Points:
    """Place points along a polyline at equal distances along it, from its start.

    Parameters
    ----------
    points
        float64, shape (n ≥ 2, 3), any unit.
    spacing
        Distance between neighbours along the line, in the same unit.

    Returns
    -------
    float64, shape (m ≥ 1, 3): the points at 0, spacing, 2·spacing, … up to the length.

    Examples
    --------
    >>> resample(np.array([[0.0, 0, 0], [0, 0, 25]]), 10.0)[:, 2].tolist()
    [0.0, 10.0, 20.0]
    """
    if not spacing > 0:
        raise RequestError(f"spacing {spacing} must be positive")
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    track = np.concatenate([[0.0], np.cumsum(steps)])
    keep = np.concatenate([[True], steps > 0])
    wanted = np.arange(0.0, track[-1] * (1 + 1e-12) + 1e-12, spacing)
    return np.stack(
        [np.interp(wanted, track[keep], points[keep, axis]) for axis in range(3)], axis=1
    )


def tangents(points: Points) -> Points:
    """Return unit directions along a polyline, shape (n, 3), by central differences.

    Raises
    ------
    RequestError
        If the points before and after one coincide, so that it has no direction.
    """
    along = np.gradient(np.asarray(points, dtype=np.float64), axis=0)
    lengths = np.linalg.norm(along, axis=1, keepdims=True)
    if not lengths.all():
        raise RequestError(f"point {int(np.argmin(lengths))} of a line has no direction")
    return np.asarray(along / lengths)


def frames(points_zyx: Points) -> Points:
    """Carry a frame along a line without twist.

    Parameters
    ----------
    points_zyx
        float64, shape (n ≥ 2, 3), zyx, any unit.

    Returns
    -------
    float64, shape (n, 3, 3), xyz: proper rotations whose z column is the direction along the
    line and whose x column is transported with the least rotation.

    Raises
    ------
    RequestError
        If two successive points coincide, or the line turns back on itself.

    Notes
    -----
    Double reflection method of Wang, Jüttler, Zheng and Liu, "Computation of rotation minimizing
    frames", ACM Transactions on Graphics 27 (2008).
    """
    points = np.asarray(points_zyx, dtype=np.float64)[:, ::-1]
    along = tangents(points)
    if not np.diff(points, axis=0).any(axis=1).all():
        raise RequestError("two successive points of a line coincide: no direction between them")
    across = np.zeros_like(along)
    across[0] = _perpendicular(along[0])
    for i in range(len(points) - 1):
        step = points[i + 1] - points[i]
        half = across[i] - 2 / (step @ step) * (step @ across[i]) * step
        turned = along[i] - 2 / (step @ step) * (step @ along[i]) * step
        rest = along[i + 1] - turned
        scale = rest @ rest
        across[i + 1] = half if scale < 1e-24 else half - 2 / scale * (rest @ half) * rest
        across[i + 1] -= (across[i + 1] @ along[i + 1]) * along[i + 1]
        across[i + 1] /= np.linalg.norm(across[i + 1])
    return np.stack([across, np.cross(along, across), along], axis=2)


def frames_along(directions_zyx: Points, rolls_radians: Points) -> Points:
    """Return frames whose z column lies along a direction each.

    Parameters
    ----------
    directions_zyx
        float64, shape (n, 3), zyx, of any length but 0.
    rolls_radians
        float64, shape (n,): turn about the direction, from RELION's rot = 0.

    Returns
    -------
    float64, shape (n, 3, 3), xyz: proper rotations.

    Examples
    --------
    >>> frames_along(np.array([[2.0, 0, 0]]), np.zeros(1)).astype(int).tolist()
    [[[1, 0, 0], [0, 1, 0], [0, 0, 1]]]
    """
    along = np.asarray(directions_zyx, dtype=np.float64)[:, ::-1]
    along = along / np.linalg.norm(along, axis=1, keepdims=True)
    across = _perpendicular(along)
    beside = np.cross(along, across)
    cosine, sine = np.cos(rolls_radians)[:, None], np.sin(rolls_radians)[:, None]
    return np.stack(
        [cosine * across + sine * beside, cosine * beside - sine * across, along], axis=2
    )


def numbered(filaments: Iterable[Filament]) -> list[Filament]:
    """Return the same lines with ids 1, 2, … in the order given."""
    return [replace(filament, number=i) for i, filament in enumerate(filaments, start=1)]


def _perpendicular(direction: Points) -> Points:
    """Return unit vectors across directions u, shape (..., 3): of frames with RELION's rot = 0.

    Such a frame turns about its own axis by nothing beyond tilt and psi.
    """
    x, y = direction[..., 0], direction[..., 1]
    pole = np.hypot(x, y) < 1e-9
    side = np.stack([np.where(pole, 0.0, -y), np.where(pole, -1.0, x), np.zeros_like(x)], axis=-1)
    across = np.cross(direction, side)
    return np.asarray(across / np.linalg.norm(across, axis=-1, keepdims=True))
