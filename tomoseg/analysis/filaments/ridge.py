"""The ridge filter: where a score map looks like the middle of a tube, a block at a time."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from tomoseg.analysis import hessian
from tomoseg.analysis.binning import BinnedBlock, binned_block, smooth_gaussian
from tomoseg.analysis.filaments.settings import (
    RIDGE_FLOOR,
    TRUNCATE_SIGMAS,
    TracingSettings,
    tracing_halo,
    working_factor,
)
from tomoseg.core.blocks import Box
from tomoseg.core.columns import Columns, column
from tomoseg.core.sampling import Sampling, Shape

Floats = NDArray[np.float64]

# So near to a face of the volume, in radii, and so little inclined to it, a ridge is the face's.
BORDER_RADII = 0.5
BORDER_SINE = 0.35
# Inner radius of a hollow tube; a microtubule's is 8.5 of 12.5 nm.
HOLLOW_RADII = 0.68
AROUND = np.array([step for step in product((-1, 0, 1), repeat=3) if any(step)])


@dataclass(frozen=True, eq=False)
class RidgePoints(Columns):
    """The bins of a volume that lie near the middle of a tube.

    Parameters
    ----------
    index
        int32, shape (n, 3), zyx: bins of the working grid.
    strength
        float32, shape (n,): ridge measure, 1 in the middle of an ideal tube, 0 in a sheet.
    direction
        float32, shape (n, 3), zyx: unit vector along the tube, of either sign.
    maximum
        bool, shape (n,): whether none of the 26 neighbours is stronger.
    aside
        float32, shape (n,), radii: about how far across the tube its brightest place lies; little
        near its middle, a sigma or more on the rim of a sheet, which is brighter further in.
    """

    index: NDArray[np.int32] = column(np.int32, 3)
    strength: NDArray[np.float32] = column(np.float32)
    direction: NDArray[np.float32] = column(np.float32, 3)
    maximum: NDArray[np.bool_] = column(np.bool_)
    aside: NDArray[np.float32] = column(np.float32)


def ridge_points(
    score: NDArray[np.float32],
    core: Box,
    *,
    begin: Shape,
    sampling: Sampling,
    settings: TracingSettings,
) -> RidgePoints:
    """Find the ridge bins of one block; bit-identical whatever the blocks.

    Parameters
    ----------
    score
        float32, shape (z, y, x), 0..1: the read box, grown by :func:`tracing_halo`.
    core
        What the block owns, in the frame of ``score``.
    begin
        Index of the read box's first voxel in the score map, a multiple of the working factor.
    sampling
        The grid of the whole score map.
    settings
        How the class is traced.

    Raises
    ------
    RequestError
        If the read box is not aligned or lacks a part of the halo.

    Notes
    -----
    With the eigenvalues λ1 ≤ λ2 ≤ λ3 of the Hessian of the smoothed score, the ridge measure is
    −λ2 − ½|λ3| over the value of an ideal solid disc, and the direction is that of λ3. The
    brightest place is |gradient across that direction| / −λ2 away, if the ridge is a parabola.
    Beyond the volume's border the score map is taken to go on as its outermost voxels.
    """
    factor = working_factor(settings, sampling)
    block = binned_block(
        score,
        core,
        begin=begin,
        shape=sampling.shape,
        bins=sampling.bins(factor),
        halo=tracing_halo(settings, sampling),
    )
    sizes = np.array(sampling.voxel_size_angstrom) * factor
    smooth = smooth_gaussian(
        block.values, settings.sigma_angstrom / sizes, truncate=TRUNCATE_SIGMAS
    )
    around = block.core.grow((1, 1, 1)).clip(sampling.binned(factor).shape)
    unit = 1 / np.sqrt(_ideal(settings))
    strength, index, direction, aside = _ridges(
        block.cut(around.grow((1, 1, 1)), smooth), sizes / unit
    )
    radii = aside * (unit / settings.radius_angstrom)
    points = _owned(block, around, strength, (index, direction, radii))
    return points.select(~_along_border(points, sampling.binned(factor), settings))


def _along_border(
    points: RidgePoints, sampling: Sampling, settings: TracingSettings
) -> NDArray[np.bool_]:
    """Tell which bins are near a face of the volume and run along it.

    A sheet that leaves the volume askew seems to bend where it meets the face, and the bend looks
    like a tube that lies in the face. A real one there is half cut away.
    """
    depth = np.minimum(points.index, np.array(sampling.shape) - 1 - points.index)
    near = depth * np.array(sampling.voxel_size_angstrom) < BORDER_RADII * settings.radius_angstrom
    return np.asarray((near & (np.abs(points.direction) < BORDER_SINE)).any(axis=1))


def _ideal(settings: TracingSettings) -> float:
    """Curvature −λ2 on the axis of a smoothed ideal tube, solid or hollow, 1/Å².

    On the axis of a disc of radius r the Laplacian is the flux of the Gaussian's gradient through
    the rim, and each of the two curvatures is half of it: r² / 2σ⁴ · exp(−r² / 2σ²).
    """
    sigma = settings.sigma_angstrom
    rims = np.array([1.0, HOLLOW_RADII if settings.hollow else 0.0]) * settings.radius_angstrom
    discs = rims**2 / (2 * sigma**4) * np.exp(-(rims**2) / (2 * sigma**2))
    return float(discs[0] - discs[1])


def _ridges(
    smooth: NDArray[np.float32], sizes: Floats
) -> tuple[NDArray[np.float32], NDArray[np.int64], Floats, Floats]:
    """Ridge strength of all inner bins; index, direction and top aside of those above the floor.

    ``sizes`` are the bins' edges in units that make the ideal curvature 1; so is what is aside.
    """
    # −λ2 − ½|λ3| ≤ −½(λ1 + λ2 + λ3), so that the Laplacian alone rules most bins out.
    index, curvature = hessian.curvatures(smooth, sizes, below=-2 * RIDGE_FLOOR)
    low, high = hessian.upper_eigenvalues(curvature)
    measure = (-low - np.abs(high) / 2).astype(np.float32)
    keep = measure > RIDGE_FLOOR
    strength = np.zeros([n - 2 for n in smooth.shape], np.float32)
    strength[tuple(index[keep].T)] = measure[keep]
    index, direction = index[keep], hessian.eigenvectors(curvature[keep], high[keep])
    slope = hessian.gradients(smooth, index, sizes)
    slope -= (slope * direction).sum(axis=1, keepdims=True) * direction
    return strength, index, direction, np.linalg.norm(slope, axis=1) / -low[keep]


def _owned(
    block: BinnedBlock,
    around: Box,
    strength: NDArray[np.float32],
    found: tuple[NDArray[np.int64], Floats, Floats],
) -> RidgePoints:
    """Keep the bins of the core; ``around`` is the box that ``strength`` covers."""
    index, direction, aside = found
    place = index + np.array(around.begin)
    own = ((place >= block.core.begin) & (place < block.core.end)).all(axis=1)
    at = tuple(index[own].T)
    return RidgePoints(
        place[own].astype(np.int32),
        strength[at],
        direction[own].astype(np.float32),
        _are_maxima(np.pad(strength, 1), index[own] + 1),
        aside[own].astype(np.float32),
    )


def _are_maxima(values: NDArray[np.float32], index: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell of inner bins whether none of their 26 neighbours is stronger."""
    strides = np.array(values.strides) // values.itemsize
    flat, at = values.ravel(), index @ strides
    maximal = np.ones(len(at), np.bool_)
    for step in AROUND @ strides:
        maximal &= flat[at + step] <= flat[at]
    return maximal
