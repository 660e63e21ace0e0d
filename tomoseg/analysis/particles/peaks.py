"""Peaks of a score map: maxima of a difference of Gaussians that answers to balls of one size."""

from __future__ import annotations

from dataclasses import dataclass
from math import erf, exp, pi, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomoseg.analysis.binning import BinnedBlock, binned_block, binning_factor
from tomoseg.analysis.particles.limits import Picks, Values, apply_limits, suppress
from tomoseg.analysis.particles.settings import PickingSettings, dimensions
from tomoseg.core.blocks import Box
from tomoseg.core.columns import Columns, column
from tomoseg.core.coordinates import Particles, Points
from tomoseg.core.errors import RequestError
from tomoseg.core.sampling import Sampling, Shape, as_shape

# Widths of the two Gaussians: the inner in label radii over the root of the number of dimensions,
# a little less than where the answer of a ball or a disc is largest; the outer in inner ones.
INNER_RADII = 0.9
OUTER_RATIO = 1.6
TRUNCATE_SIGMAS = 4.0
# A ball of four bins' radius still has its centre found to a fraction of a bin.
RADIUS_BINS = 4.0


@dataclass(frozen=True, eq=False)
class Peaks(Columns):
    """Maxima of the blob filter.

    Parameters
    ----------
    points_angstrom
        float64, shape (n, 3), zyx, Å.
    scores
        float64, shape (n,): the filter's answer, 1 for an ideal ball.
    """

    points_angstrom: Points = column(np.float64, 3)
    scores: Values = column(np.float64)


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
    widest = min(radius_voxels, RADIUS_BINS * min(sampling.shape[-dimensions(sampling) :]))
    return binning_factor(widest, at_least_bins=RADIUS_BINS)


def picking_halo(settings: PickingSettings, sampling: Sampling) -> Shape:
    """Return the voxels of the score map to read around a core; a multiple of the factor.

    The outer Gaussian reaches four sigma and the comparison with the neighbours one bin.
    """
    factor = picking_factor(settings, sampling)
    _, outer = _sigmas_angstrom(settings, dimensions(sampling))
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
    each axis. Beyond the volume's border there is no evidence: a particle that the border cuts
    scores the less, the less of it is seen.
    """
    factor = picking_factor(settings, sampling)
    halo = picking_halo(settings, sampling)
    block = binned_block(
        score, core, begin=begin, shape=sampling.shape, bins=sampling.bins(factor), halo=halo
    )
    grid = sampling.binned(factor)
    response = _difference(block, grid, settings, dimensions(sampling))
    response = block.cut(block.core.grow((1, 1, 1)), response)
    inner = response[1:-1, 1:-1, 1:-1]
    peaks = ndimage.maximum_filter(response, size=3, mode="nearest")[1:-1, 1:-1, 1:-1] == inner
    index = np.argwhere(peaks & (inner >= settings.threshold))
    at = index + np.array(block.core.begin) + _parabolas(response, index + 1)
    # Beyond the outermost bins there is nothing to refine by: what is cut there stays in them.
    at = at.clip(0, np.array(grid.shape) - 1)
    return Peaks(grid.to_angstrom(at), inner[tuple(index.T)].astype(np.float64))


def pick_peaks(
    candidates: Peaks, *, name: str, sampling: Sampling, settings: PickingSettings
) -> Picks:
    """Pick the particles of a volume from the peaks of all its blocks.

    Returns
    -------
    Particles, best first; the score is the filter's answer, at most 1.
    """
    points, scores = candidates.points_angstrom, candidates.scores
    kept = suppress(points, scores, settings.distance_angstrom)
    picked = Particles.at(name, points[kept], np.minimum(scores[kept], 1.0))
    unknown = np.full(len(kept), np.nan)
    return apply_limits(Picks(picked, unknown), sampling=sampling, settings=settings)


def _sigmas_angstrom(settings: PickingSettings, axes: int) -> tuple[float, float]:
    """Return the widths of the inner and the outer Gaussian, Å."""
    inner = INNER_RADII / sqrt(axes) * settings.label_angstrom
    return inner, OUTER_RATIO * inner


def _difference(
    block: BinnedBlock, grid: Sampling, settings: PickingSettings, axes: int
) -> NDArray[np.float32]:
    """Difference of Gaussians of the read box, scaled so that an ideal ball (disc) gives 1."""
    sizes = np.array(grid.voxel_size_angstrom)
    sigmas = _sigmas_angstrom(settings, axes)
    # The only slice of a micrograph has no border above and below.
    modes = ["nearest" if grid.is_flat else "constant", "constant", "constant"]
    inner, outer = (
        ndimage.gaussian_filter(block.values, sigma / sizes, mode=modes, truncate=TRUNCATE_SIGMAS)
        for sigma in sigmas
    )
    ideal = [_share_within(settings.label_angstrom / sigma, axes) for sigma in sigmas]
    return np.asarray((inner - outer) / np.float32(ideal[0] - ideal[1]))


def _share_within(radius_sigmas: float, axes: int) -> float:
    """Share of a Gaussian that lies within a radius given in sigmas (Rayleigh, Maxwell)."""
    outside = exp(-(radius_sigmas**2) / 2)
    if axes == 2:
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
