"""Particles: centres from peaks of a score map, or from the components of labels.

Peaks are found a block at a time (:func:`candidate_peaks`) as maxima of a difference of Gaussians
that answers to balls of the particle's size, so that particles that touch are still two; the
strongest of those nearer than a distance is kept for the whole volume at once (:func:`pick_peaks`).
In a micrograph, a tomogram of one slice, a particle is a disc: the same filters in two dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import erf, exp, pi, sqrt
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from tomoseg.binning import BinnedBlock, binned_block, binning_factor
from tomoseg.blocks import Box
from tomoseg.coordinates import Particles, Points
from tomoseg.errors import RequestError
from tomoseg.sampling import Sampling, Shape, as_shape

Values = NDArray[np.float64]
# Widths of the two Gaussians: the inner in label radii over the root of the number of dimensions,
# a little less than where the answer of a ball or a disc is largest; the outer in inner ones.
INNER_RADII = 0.9
OUTER_RATIO = 1.6
TRUNCATE_SIGMAS = 4.0
# A ball of four bins' radius still has its centre found to a fraction of a bin.
RADIUS_BINS = 4.0


@dataclass(frozen=True)
class PickingSettings:
    """How the particles of one class are picked.

    Parameters
    ----------
    method
        ``"peaks"`` of the score map; ``"components"`` of the labels only for small labels that
        never touch.
    radius_angstrom
        The particle's radius.
    label_radius_angstrom
        Radius of the ball that stands for a particle in the labels the network was trained on;
        the particle's own if None.
    minimum_distance_angstrom
        Of two peaks nearer than this the weaker goes; one particle radius if None, 1.5 radii is
        better for noisy particles that do not touch.
    threshold
        Least answer of the filter, 1 being that of an ideal ball.
    minimum_volume_fraction
        Least volume of a component, as a share of the label's ball.
    border
        Whether particles nearer than one radius to the volume's border are kept.

    Raises
    ------
    RequestError
        If a value is out of its range.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    method: Literal["peaks", "components"] = "peaks"
    radius_angstrom: float = 140.0
    label_radius_angstrom: float | None = None
    minimum_distance_angstrom: float | None = None
    threshold: float = 0.4
    minimum_volume_fraction: float = 0.25
    border: Literal["keep", "drop"] = "keep"

    def __post_init__(self) -> None:
        """Check ranges."""
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name.endswith("_angstrom") and value is not None and not value > 0:
                raise RequestError(f"{item.name} {value} must be positive")
        if not self.threshold > 0:
            raise RequestError(f"threshold {self.threshold} must be positive")
        if not 0 <= self.minimum_volume_fraction < 1:
            raise RequestError(
                f"minimum_volume_fraction {self.minimum_volume_fraction} must lie in 0..1"
            )

    @property
    def label_angstrom(self) -> float:
        """Radius of the label's ball, Å."""
        return self.label_radius_angstrom or self.radius_angstrom

    @property
    def distance_angstrom(self) -> float:
        """Least distance between two particles, Å."""
        return self.minimum_distance_angstrom or self.radius_angstrom


@dataclass(frozen=True, eq=False)
class Peaks:
    """Maxima of the blob filter.

    Parameters
    ----------
    points_angstrom
        float64, shape (n, 3), zyx, Å.
    scores
        float64, shape (n,): the filter's answer, 1 for an ideal ball.
    """

    points_angstrom: Points
    scores: Values


def picking_factor(settings: PickingSettings, sampling: Sampling) -> int:
    """Return how many voxels of the score map make one bin of the grid that is picked on.

    Raises
    ------
    RequestError
        If the label is too small for the grid.
    """
    radius_voxels = settings.label_angstrom / max(sampling.voxel_size_angstrom)
    if radius_voxels < 1:
        raise RequestError(
            f"a ball of radius {settings.label_angstrom} Å is {radius_voxels:.2f} voxels; at "
            "least 1 is needed to find its peak",
            remedy="Pick from a finer score map or state a larger radius.",
        )
    widest = min(radius_voxels, RADIUS_BINS * min(sampling.shape[-_dimensions(sampling) :]))
    return binning_factor(widest, at_least_bins=RADIUS_BINS)


def picking_halo(settings: PickingSettings, sampling: Sampling) -> Shape:
    """Return the voxels of the score map to read around a core; a multiple of the factor.

    The outer Gaussian reaches four sigma and the comparison with the neighbours one bin.
    """
    factor = picking_factor(settings, sampling)
    _, outer = _sigmas_angstrom(settings, _dimensions(sampling))
    return as_shape(
        factor * (int(TRUNCATE_SIGMAS * outer / (factor * size) + 0.5) + 1)
        for size in sampling.voxel_size_angstrom
    )


def candidate_peaks(
    score: NDArray[np.float32],
    core: Box,
    *,
    begin: Shape,
    sampling: Sampling,
    settings: PickingSettings,
) -> Peaks:
    """Find the peaks of one block; bit-identical whatever the blocks.

    Parameters
    ----------
    score
        float32, shape (z, y, x), 0..1: the read box, grown by :func:`picking_halo`.
    core
        What the block owns, in the frame of ``score``.
    begin
        Index of the read box's first voxel in the score map, a multiple of the factor.
    sampling
        The grid of the whole score map.

    Raises
    ------
    RequestError
        If the read box is not aligned or lacks a part of the halo.

    Notes
    -----
    G(σ1) − G(σ2) with σ1 = 0.9 r/√d in d dimensions, σ2 = 1.6 σ1, over its value in the middle of
    an ideal ball (disc) of radius r that has no neighbour. Maxima are refined by a parabola along
    each axis. Beyond the volume's border the score map is taken to go on as its outermost voxels.
    """
    factor = picking_factor(settings, sampling)
    halo = picking_halo(settings, sampling)
    block = binned_block(
        score, core, begin=begin, shape=sampling.shape, bins=sampling.bins(factor), halo=halo
    )
    grid = sampling.binned(factor)
    response = _difference(block, grid, settings, _dimensions(sampling))
    response = block.cut(block.core.grow((1, 1, 1)), response)
    inner = response[1:-1, 1:-1, 1:-1]
    peaks = ndimage.maximum_filter(response, size=3, mode="nearest")[1:-1, 1:-1, 1:-1] == inner
    index = np.argwhere(peaks & (inner >= settings.threshold))
    at = index + np.array(block.core.begin) + _parabolas(response, index + 1)
    return Peaks(grid.to_angstrom(at), inner[tuple(index.T)].astype(np.float64))


def suppress(
    points_angstrom: Points, scores: Values, distance_angstrom: float
) -> NDArray[np.int64]:
    """Keep the best of any points nearer to each other than a distance.

    Parameters
    ----------
    points_angstrom
        float64, shape (n, 3), zyx, Å.
    scores
        float64, shape (n,).

    Returns
    -------
    int64, shape (m,): rows kept, best first; equal scores go by position, so that the order of
    the rows given does not matter.
    """
    order = np.lexsort((*points_angstrom.T[::-1], -scores))
    if not len(order):
        return order
    near = cKDTree(points_angstrom).query_ball_point(
        points_angstrom[order], np.nextafter(distance_angstrom, 0)
    )
    free = np.ones(len(order), dtype=bool)
    kept = []
    for row, rows in zip(order.tolist(), near, strict=True):
        if free[row]:
            kept.append(row)
            free[rows] = False
    return np.array(kept, dtype=np.int64)


def pick_peaks(
    candidates: list[Peaks], *, name: str, sampling: Sampling, settings: PickingSettings
) -> Particles:
    """Pick the particles of a volume from the peaks of all its blocks.

    Returns
    -------
    Particles, best first; the score is the filter's answer, at most 1.
    """
    points = np.concatenate([np.zeros((0, 3)), *(each.points_angstrom for each in candidates)])
    scores = np.concatenate([np.zeros(0), *(each.scores for each in candidates)])
    kept = suppress(points, scores, settings.distance_angstrom)
    picked = Particles.at(name, points[kept], np.minimum(scores[kept], 1.0))
    return _bordered(picked, sampling, settings)


def pick_components(
    centres_voxel: Points,
    volumes_voxel: NDArray[np.int64],
    *,
    name: str,
    sampling: Sampling,
    settings: PickingSettings,
) -> Particles:
    """Take every component of labels that is large enough as a particle.

    Parameters
    ----------
    centres_voxel
        float64, shape (n, 3), zyx, voxels: centres of mass.
    volumes_voxel
        int64, shape (n,), voxels.

    Returns
    -------
    Particles in the order given; the score is the share of the label's ball that the component
    fills, at most 1.
    """
    filled = np.asarray(volumes_voxel) / _label_voxels(settings, sampling)
    kept = filled >= settings.minimum_volume_fraction
    points = sampling.to_angstrom(np.asarray(centres_voxel).reshape(-1, 3))[kept]
    picked = Particles.at(name, points, np.minimum(filled[kept], 1.0))
    return _bordered(picked, sampling, settings)


def near_border(
    points_angstrom: Points, sampling: Sampling, distance_angstrom: float
) -> NDArray[np.bool_]:
    """Tell, for points of shape (n, 3), zyx, Å, which are nearer than a distance to the border.

    The border is the outer face of the outermost voxels; a micrograph has none above and below.
    """
    sizes = np.array(sampling.voxel_size_angstrom)
    low = (sampling.to_voxels(points_angstrom) + 0.5) * sizes
    high = np.array(sampling.shape) * sizes - low
    near = np.minimum(low, high) < distance_angstrom
    return np.asarray(near[:, -_dimensions(sampling) :].any(axis=1))


def _bordered(picked: Particles, sampling: Sampling, settings: PickingSettings) -> Particles:
    """Drop what is cut by the border, if that is asked for."""
    if settings.border == "keep":
        return picked
    kept = ~near_border(picked.points_angstrom, sampling, settings.radius_angstrom)
    return Particles.at(picked.name, picked.points_angstrom[kept], picked.scores[kept])


def _dimensions(sampling: Sampling) -> int:
    """Return 2 for a micrograph, 3 for a tomogram."""
    return 2 if sampling.is_flat else 3


def _label_voxels(settings: PickingSettings, sampling: Sampling) -> float:
    """Return how many voxels the label's ball (disc) has."""
    z, y, x = (settings.label_angstrom / size for size in sampling.voxel_size_angstrom)
    return pi * y * x if _dimensions(sampling) == 2 else 4 / 3 * pi * z * y * x


def _sigmas_angstrom(settings: PickingSettings, dimensions: int) -> tuple[float, float]:
    """Return the widths of the inner and the outer Gaussian, Å."""
    inner = INNER_RADII / sqrt(dimensions) * settings.label_angstrom
    return inner, OUTER_RATIO * inner


def _difference(
    block: BinnedBlock, grid: Sampling, settings: PickingSettings, dimensions: int
) -> NDArray[np.float32]:
    """Difference of Gaussians of the read box, scaled so that an ideal ball (disc) gives 1."""
    sizes = np.array(grid.voxel_size_angstrom)
    sigmas = _sigmas_angstrom(settings, dimensions)
    inner, outer = (
        ndimage.gaussian_filter(
            block.values, sigma / sizes, mode="nearest", truncate=TRUNCATE_SIGMAS
        )
        for sigma in sigmas
    )
    ideal = [_share_within(settings.label_angstrom / sigma, dimensions) for sigma in sigmas]
    return np.asarray((inner - outer) / np.float32(ideal[0] - ideal[1]))


def _share_within(radius_sigmas: float, dimensions: int) -> float:
    """Share of a Gaussian that lies within a radius given in sigmas (Rayleigh, Maxwell)."""
    outside = exp(-(radius_sigmas**2) / 2)
    if dimensions == 2:
        return 1 - outside
    return erf(radius_sigmas / sqrt(2)) - sqrt(2 / pi) * radius_sigmas * outside


def _parabolas(response: NDArray[np.float32], index: NDArray[np.int64]) -> Values:
    """Offset of a parabola's top from each maximum along each axis, within half a bin."""
    offsets = np.zeros((len(index), 3))
    for axis, step in enumerate(np.eye(3, dtype=np.int64)):
        low, middle, high = (
            response[tuple((index + k * step).T)].astype(np.float64) for k in (-1, 0, 1)
        )
        bend = low - 2 * middle + high
        offsets[:, axis] = np.where(bend < 0, (low - high) / (2 * np.where(bend < 0, bend, 1)), 0)
    return np.clip(offsets, -0.5, 0.5)
