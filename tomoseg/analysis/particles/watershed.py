"""Basins: particles from labels alone, those that touch taken apart.

The depth of a voxel is its distance to the label's edge. From every voxel of the label the deepest
of its neighbours is stepped to, and so on up to a top: the voxels that come to one top are its
basin, as in a watershed of the depth turned over. No voxel steps farther than 1.5 radii, so that
a block with its halo knows where its own voxels go; sizes and centres of basins are sums of
integers, which the blocks add up to whatever the blocks.

    label     . # # # # # # # # # # .      depth   . 1 2 3 2 1 1 2 3 2 1 .
                                           steps     > > ^ < < > > ^ < <
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from tomoseg.analysis.binning import BinnedBlock, binned_block, binning_factor
from tomoseg.analysis.particles.limits import Picks, Values, score_sizes, suppress
from tomoseg.analysis.particles.settings import PickingSettings
from tomoseg.core.blocks import Box
from tomoseg.core.columns import Columns, column
from tomoseg.core.coordinates import Particles
from tomoseg.core.errors import RequestError
from tomoseg.core.sampling import Sampling, Shape, Triple, as_shape

Depth = NDArray[np.float32]
Ints = NDArray[np.int64]

ALL = slice(None)
SIGMA_BINS = 1.0
SMOOTHING_BINS = 4
IS_LABEL = 0.5
# In label radii: tops are this far apart and this high; depth and steps end at the reach.
APART_RADII, HIGH_RADII, REACH_RADII = 0.8, 0.3, 1.5
# The distance to an edge in voxels is good enough for a ball of so many bins, and not for fewer
# than the least: what is smaller does not outlast the smoothing.
RADIUS_BINS, LEAST_BINS = 8.0, 3.0


@dataclass(frozen=True, eq=False)
class Basins(Columns):
    """Parts of basins: what the voxels of some blocks belong to.

    Parameters
    ----------
    tops
        int64, shape (n, 3), zyx: bin of the top, in the binned volume.
    heights
        float64, shape (n,): depth of the top, Å.
    bins
        int64, shape (n,): size.
    centre_sum
        int64, shape (n, 3), zyx: sum of the indices of its bins, exact.
    is_particle
        bool, shape (n,): whether the top is one of a particle.
    """

    tops: Ints = column(np.int64, 3)
    heights: Values = column(np.float64)
    is_particle: NDArray[np.bool_] = column(np.bool_)
    bins: Ints = column(np.int64)
    centre_sum: Ints = column(np.int64, 3)

    def gathered(self, owner: Ints, heads: Ints, rows: NDArray[Any] | slice = ALL) -> Basins:
        """Add up the parts at some rows by owner 0..n-1, whose top is at row ``heads[owner]``."""
        bins = np.bincount(owner, self.bins[rows], len(heads))
        sums = [np.bincount(owner, axis, len(heads)) for axis in self.centre_sum[rows].T]
        # Sums of integers below 2^53 are exact in float64.
        return Basins(
            self.tops[heads],
            self.heights[heads],
            self.is_particle[heads],
            bins.astype(np.int64),
            np.stack(sums, axis=1).astype(np.int64),
        )


def basin_factor(settings: PickingSettings, sampling: Sampling) -> int:
    """Return how many voxels of the labels make one bin of the grid that is picked on.

    Raises
    ------
    RequestError
        If the label is too small for the grid.
    """
    sizes = sampling.voxel_size_angstrom[-2:] if sampling.is_flat else sampling.voxel_size_angstrom
    radius_voxels = settings.label_angstrom / max(sizes)
    if radius_voxels < LEAST_BINS:
        raise RequestError(
            f"a ball of radius {settings.label_angstrom} Å is {radius_voxels:.2f} voxels; at "
            f"least {LEAST_BINS:g} are needed for a watershed",
            remedy="Work from finer labels, or pick peaks or components.",
        )
    shortest = min(sampling.shape[1:] if sampling.is_flat else sampling.shape)
    return binning_factor(min(radius_voxels, RADIUS_BINS * shortest), at_least_bins=RADIUS_BINS)


def basin_halo(settings: PickingSettings, sampling: Sampling) -> Shape:
    """Return the voxels of the labels to read around a core; a multiple of the factor.

    The smoothing of the labels, the depth, its smoothing, the steps and the window of a top.
    """
    factor = basin_factor(settings, sampling)
    grid = sampling.binned(factor)
    bins = 2 * SMOOTHING_BINS + _steps(settings, sampling, grid)
    reach = REACH_RADII * settings.label_angstrom
    return as_shape(
        factor * (bins + window + ceil(reach / size))
        for window, size in zip(_window(settings, grid), grid.voxel_size_angstrom, strict=True)
    )


def candidate_basins(
    score: NDArray[np.float32],
    core: Box,
    *,
    begin: Shape,
    sampling: Sampling,
    settings: PickingSettings,
) -> Basins:
    """Find which basins the voxels of one block belong to; exact whatever the blocks.

    Parameters
    ----------
    score
        float32, shape (z, y, x), 0..1, labels or a score map: the read box, grown by
        :func:`basin_halo`.
    core
        What the block owns, in the frame of ``score``.
    begin
        Index of the read box's first voxel in the volume, a multiple of the factor.
    sampling
        The grid of the whole volume.

    Raises
    ------
    RequestError
        If the read box is not aligned or lacks a part of the halo.

    Notes
    -----
    Smoothed with σ = 1 bin, above ½, and the distance to what is not, smoothed again. Of equally
    deep neighbours the first in the order zyx is stepped to. A particle's top is the deepest place
    within 0.8 radii along each axis. Tops lower than 0.3 radii are left out, and so is what a
    ball of 1.5 radii fits into, whose middle has no top.
    """
    factor = basin_factor(settings, sampling)
    block = binned_block(
        score,
        core,
        begin=begin,
        shape=sampling.shape,
        bins=sampling.bins(factor),
        halo=basin_halo(settings, sampling),
    )
    grid = sampling.binned(factor)
    steps = _steps(settings, sampling, grid)
    window = _window(settings, grid)
    around = block.core.grow(as_shape(steps + n for n in window)).within(_read(block))
    around = around.clip(as_shape(block.values.shape))
    if not block.core.size or not (block.values[around.slices] > 0).any():
        return Basins.none()
    is_label, depth = _depths(block.values, sampling, grid, settings)
    is_label, depth = is_label[around.slices], depth[around.slices]
    places, top, is_settled = _climbed(is_label, depth, steps)
    here = tuple(places.T)
    highest = ndimage.maximum_filter(depth, size=[2 * n + 1 for n in window], mode="nearest")
    radius = settings.label_angstrom
    is_high = (depth >= HIGH_RADII * radius) & (depth < REACH_RADII * radius * (1 - 1e-4))
    is_particle = (is_high & (depth == highest))[here]
    places = places + np.add(around.begin, block.begin).astype(np.int64)
    inside = (places >= block.core.begin) & (places < block.core.end)
    mine = inside.all(axis=1) & is_settled & is_high[here][top]
    heads, owner = np.unique(top[mine], return_inverse=True)
    ones = np.ones(len(places), np.int64)
    every = Basins(places, depth[here].astype(np.float64), is_particle, ones, places)
    return every.gathered(owner, heads, mine)


def pick_basins(
    found: Basins, *, name: str, sampling: Sampling, settings: PickingSettings
) -> Picks:
    """Pick the particles of a volume from the basins of all its blocks.

    Returns
    -------
    Particles at their basins' centres of mass, deepest first; the score is the share of the
    label's ball that the basin fills, at most 1. Of particles' tops nearer than 0.8 radii the
    highest stands; the basins of all other tops go to the nearest one within 1.5 radii.
    """
    grid = sampling.binned(basin_factor(settings, sampling))
    _, heads, owner = np.unique(found.tops, axis=0, return_index=True, return_inverse=True)
    basins = found.gathered(owner.reshape(-1), heads)
    points = grid.to_angstrom(basins.tops)
    particles = np.flatnonzero(basins.is_particle)
    apart = APART_RADII * settings.label_angstrom
    kept = particles[suppress(points[particles], basins.heights[particles], apart)]
    if len(kept):
        reach = REACH_RADII * settings.label_angstrom
        distance, owner = cKDTree(points[kept]).query(points, distance_upper_bound=reach)
        rows = np.flatnonzero(np.isfinite(distance))
        basins = basins.gathered(owner[rows], kept, rows)
    else:
        basins = Basins.none()
    centres = basins.centre_sum / basins.bins[:, None]
    return score_sizes(
        Particles.at(name, grid.to_angstrom(centres)),
        basins.bins.astype(np.float64) * grid.voxel_volume_nm3,
        sampling=sampling,
        settings=settings,
    )


def _steps(settings: PickingSettings, sampling: Sampling, grid: Sampling) -> int:
    """Return how many steps a voxel may take: 1.5 radii along the shortest edge of a bin."""
    sizes = grid.voxel_size_angstrom[1 if sampling.is_flat else 0 :]
    return ceil(REACH_RADII * settings.label_angstrom / min(sizes))


def _window(settings: PickingSettings, grid: Sampling) -> Shape:
    """Return the bins on each side of a particle's top among which it is the highest."""
    apart = APART_RADII * settings.label_angstrom
    return as_shape(max(1, int(apart / size)) for size in grid.voxel_size_angstrom)


def _read(block: BinnedBlock) -> Box:
    """Return the read box in the binned volume."""
    return Box(block.begin, as_shape(np.add(block.begin, block.values.shape)))


def _depths(
    values: Depth, sampling: Sampling, grid: Sampling, settings: PickingSettings
) -> tuple[NDArray[np.bool_], Depth]:
    """Return where the label is and how deep in it, Å; the volume's border is no edge."""
    sigmas = (0.0 if sampling.is_flat else SIGMA_BINS, SIGMA_BINS, SIGMA_BINS)
    truncate = SMOOTHING_BINS / SIGMA_BINS
    soft = ndimage.gaussian_filter(values, sigmas, mode="nearest", truncate=truncate)
    is_label = soft >= IS_LABEL
    reach = REACH_RADII * settings.label_angstrom
    depth = _edge_distance(is_label, grid.voxel_size_angstrom, reach, flat=sampling.is_flat)
    smooth = ndimage.gaussian_filter(depth, sigmas, mode="nearest", truncate=truncate)
    return is_label, smooth


def _edge_distance(
    is_label: NDArray[np.bool_], sizes: Triple, reach: float, *, flat: bool
) -> Depth:
    """Return the distance of the label's bins to its edge, at most the reach, float32.

    One axis after the other, squares of at most the reach are added up in a fixed order: the same
    in every block, and with less memory than a transform that goes on beyond the reach.
    """
    squared = np.where(is_label, np.float32(reach**2), np.float32(0))
    for axis, size in enumerate(sizes):
        before = np.moveaxis(squared, axis, 0)
        after = before.copy()
        bins = 0 if flat and axis == 0 else min(int(reach / size), len(before) - 1)
        for shift in range(1, bins + 1):
            square = np.float32((shift * size) ** 2)
            np.minimum(after[shift:], before[:-shift] + square, out=after[shift:])
            np.minimum(after[:-shift], before[shift:] + square, out=after[:-shift])
        squared = np.moveaxis(after, 0, axis)
    return np.sqrt(squared)


def _climbed(
    is_label: NDArray[np.bool_], depth: Depth, steps: int
) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    """Follow each voxel of a label upwards for so many steps.

    Returns
    -------
    Places of the label's voxels, int64, shape (n, 3); the row that each arrives at, int64; and
    whether that is a top, bool.
    """
    padded = np.pad(np.where(is_label, depth, np.float32(-1)), 1, constant_values=-1)
    flat = padded.ravel()
    here = np.flatnonzero(np.pad(is_label, 1).ravel())
    _, height, width = padded.shape
    highest = np.full(len(here), -np.inf, np.float32)
    there = here.copy()
    for z, y, x in product((-1, 0, 1), repeat=3):
        neighbour = here + (z * height + y) * width + x
        is_higher = flat[neighbour] > highest
        highest[is_higher] = flat[neighbour[is_higher]]
        there[is_higher] = neighbour[is_higher]
    up = np.searchsorted(here, there)
    end = _repeated(up, steps)
    places = np.stack(np.unravel_index(here, padded.shape), axis=1) - 1
    return places, end, up[end] == end


def _repeated(step: Ints, times: int) -> Ints:
    """Return the mapping that applies another so many times, by squaring."""
    result = np.arange(len(step))
    while times:
        result = step[result] if times % 2 else result
        step, times = step[step], times // 2
    return result
