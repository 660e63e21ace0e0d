"""Where membranes run, a block at a time: the middle of the sheet, its normal and its two faces."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tomoseg.analysis import hessian
from tomoseg.analysis.binning import binned_block, smooth_gaussian
from tomoseg.analysis.surfaces.faces import find_faces
from tomoseg.analysis.surfaces.settings import (
    REACH_THICKNESSES,
    TRUNCATE_SIGMAS,
    SurfaceSettings,
    ideal_sheet,
    sigma_angstrom,
    surface_factor,
    surface_halo,
)
from tomoseg.core.blocks import Box
from tomoseg.core.columns import Columns, column
from tomoseg.core.sampling import Sampling, Shape

Floats = NDArray[np.float64]
Index = NDArray[np.int64]

# Below this a bin is not worth a place in memory.
SHEET_FLOOR = 0.15
# At the rim of an ideal sheet the score falls by 0.8 of itself a sigma, at 0.7 sigma from it by
# this; on the ridges to the corners of a blunt end by more.
RIM_FALL = 0.4


@dataclass(frozen=True, eq=False)
class SheetPoints(Columns):
    """Places in the middle of a sheet, at most one a bin.

    Parameters
    ----------
    index
        int32, shape (n, 3), zyx: bins of the working grid.
    points_angstrom
        float64, shape (n, 3), zyx, Å.
    normal
        float32, shape (n, 3), zyx: unit vector across the sheet, of either sign.
    strength
        float32, shape (n,): sheet measure, 1 in the middle of an ideal sheet.
    area_angstrom2
        float32, shape (n,): the part of the surface that the place stands for, Å².
    thickness_angstrom
        float32, shape (n,): distance of the two faces along the normal, Å; NaN where one is far
        off or beyond the volume.
    """

    index: NDArray[np.int32] = column(np.int32, 3)
    points_angstrom: Floats = column(np.float64, 3)
    normal: NDArray[np.float32] = column(np.float32, 3)
    strength: NDArray[np.float32] = column(np.float32)
    area_angstrom2: NDArray[np.float32] = column(np.float32)
    thickness_angstrom: NDArray[np.float32] = column(np.float32)

    def with_normals(self, normal: Floats, area: Floats) -> SheetPoints:
        """Return the same places with other normals and areas."""
        return replace(
            self, normal=normal.astype(np.float32), area_angstrom2=area.astype(np.float32)
        )


def sheet_points(
    score: NDArray[np.float32],
    core: Box,
    *,
    begin: Shape,
    sampling: Sampling,
    settings: SurfaceSettings,
) -> SheetPoints:
    """Find the middle of the sheets of one block; bit-identical whatever the blocks.

    Parameters
    ----------
    score
        float32, shape (z, y, x), 0..1: the read box, grown by :func:`surface_halo`.
    core
        What the block owns, in the frame of ``score``.
    begin
        Index of the read box's first voxel in the score map, a multiple of the working factor.
    sampling
        The grid of the whole score map.

    Raises
    ------
    RequestError
        If the read box is not aligned or lacks a part of the halo.

    Notes
    -----
    With the eigenvalues λ1 ≤ λ2 ≤ λ3 of the Hessian of the smoothed score, the strength is
    −λ1 − ½|λ2| over the value of an ideal sheet, and the normal n is the eigenvector of λ1. The
    surface passes through a bin if the derivative along n changes its sign within the bin along
    the axis k that n leans to most. Seen along k each column of bins holds the surface once, so
    that a bin stands for the area of its face over |n·k|. Places move to midway between the faces
    along n, where the score falls to half. Beyond the volume's border the score map
    is taken to go on as its outermost voxels.
    """
    factor = surface_factor(settings, sampling)
    block = binned_block(
        score,
        core,
        begin=begin,
        shape=sampling.shape,
        bins=sampling.bins(factor),
        halo=surface_halo(settings, sampling),
    )
    if not block.values.any():
        return SheetPoints.none()
    grid = sampling.binned(factor)
    sizes = np.array(grid.voxel_size_angstrom)
    sigma = sigma_angstrom(settings, sampling)
    smooth = smooth_gaussian(block.values, sigma / sizes, truncate=TRUNCATE_SIGMAS)
    level, bend = ideal_sheet(settings, sampling)
    around = block.cut(block.core.grow((2, 2, 2)), smooth)
    index, normal, strength = _sheets(around[1:-1, 1:-1, 1:-1], sizes * np.sqrt(bend))
    rows, offset = _crossed(around, index, normal / sizes)
    inner = ~_at_rim(around, index[rows], normal[rows], sizes / sigma)
    rows, offset = rows[inner], offset[inner]
    index, normal = index[rows], normal[rows]
    place = index + np.array(block.core.begin)
    half = around[tuple((index + 2).T)] / np.float32(2 * level)
    step = normal / sizes * sizes.min()
    ahead, behind = sizes.min() * find_faces(
        block.values,
        place - block.begin,
        offset,
        level=half,
        step=step,
        reach=_reach(settings, sizes),
    )
    middle = np.where(np.isfinite(ahead + behind), (ahead - behind) / 2, 0.0)
    return SheetPoints(
        place.astype(np.int32),
        grid.to_angstrom(place + offset) + middle[:, None] * normal,
        normal.astype(np.float32),
        strength[rows].astype(np.float32),
        _areas(normal, sizes).astype(np.float32),
        (ahead + behind).astype(np.float32),
    )


def _reach(settings: SurfaceSettings, sizes: Floats) -> int:
    """Return how many steps of the least edge of a bin faces are looked for."""
    return int(REACH_THICKNESSES * settings.thickness_angstrom / sizes.min())


def _sheets(smooth: NDArray[np.float32], sizes: Floats) -> tuple[Index, Floats, Floats]:
    """Index, normal and strength of the inner bins above the floor.

    ``sizes`` are the bins' edges in units that make the ideal curvature 1.
    """
    index, curvature = hessian.curvatures(smooth, sizes, below=-SHEET_FLOOR)
    # The least eigenvalues of a matrix are the greatest of its negative.
    second, first = hessian.upper_eigenvalues(-curvature)
    strength = first - np.abs(second) / 2
    keep = strength > SHEET_FLOOR
    return index[keep], hessian.eigenvectors(-curvature[keep], first[keep]), strength[keep]


def _crossed(around: NDArray[np.float32], index: Index, across: Floats) -> tuple[Index, Floats]:
    """Return the rows of the bins that the surface passes through, and where, from their centres.

    Parameters
    ----------
    around
        float32, shape (z, y, x): the smoothed score, two bins larger all around than the frame of
        ``index``.
    across
        float64, shape (n, 3), zyx: the normal, per bin.

    Returns
    -------
    int64, shape (m,); and float64, shape (m, 3), zyx, bins.
    """
    lean = np.abs(across).argmax(axis=1)
    step = np.eye(3, dtype=np.int64)[lean]
    ahead = across * np.sign((across * step).sum(axis=1))[:, None]
    before, here, after = (
        (_gradient(around, index + 2 + k * step) * ahead).sum(axis=1) for k in (-1, 0, 1)
    )
    low, high = before + here, here + after
    rows = np.flatnonzero((low > 0) & (high <= 0))
    share = low[rows] / (low[rows] - high[rows]) - 0.5
    return rows, share[:, None] * step[rows]


def _at_rim(
    around: NDArray[np.float32], index: Index, normal: Floats, sizes: Floats
) -> NDArray[np.bool_]:
    """Tell where the score falls along the sheet, not across; ``sizes`` are in sigmas.

    A blunt end of a thick label has ridges of its own, from the sheet's to its corners.
    """
    slope = _gradient(around, index + 2) / sizes
    slope -= (slope * normal).sum(axis=1)[:, None] * normal
    value = around[tuple((index + 2).T)]
    return np.asarray(np.sqrt((slope**2).sum(axis=1)) > RIM_FALL * value)


def _gradient(values: NDArray[np.float32], at: Index) -> Floats:
    """Gradient per bin by central differences, float64, shape (n, 3), zyx."""
    return np.stack(
        [
            (values[tuple((at + step).T)] - values[tuple((at - step).T)]).astype(np.float64) / 2
            for step in np.eye(3, dtype=np.int64)
        ],
        axis=1,
    )


def _areas(normal: Floats, sizes: Floats) -> Floats:
    """Area, Å², of a plane in a column of bins along the axis that its normal leans to most."""
    lean = np.abs(normal / sizes).argmax(axis=1)
    return np.asarray(sizes.prod() / sizes[lean] / np.abs(normal[np.arange(len(normal)), lean]))
