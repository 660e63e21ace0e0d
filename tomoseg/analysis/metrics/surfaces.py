"""Scores of labels by their surfaces: how much of a boundary lies where it should."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from skimage.measure import marching_cubes, mesh_surface_area

from tomoseg.analysis.metrics.shares import share
from tomoseg.core.blocks import Box
from tomoseg.core.sampling import Shape, Triple, as_shape

Areas = NDArray[np.float32]

# Distances are square roots: one that is meant to equal the tolerance may come out a bit longer.
_ROUNDING_ANGSTROM = 1e-6


def surface_areas(
    mask: NDArray[np.bool_],
    voxel_size_angstrom: Triple,
    *,
    annotated: NDArray[np.bool_] | None = None,
) -> Areas:
    """Measure the surface of a mask between every eight neighbouring voxels.

    Parameters
    ----------
    mask
        bool, shape (z, y, x); nothing lies outside it, so that a cut at the border is surface.
    annotated
        bool, the same shape: surface that touches other voxels is left out. None is everything.

    Returns
    -------
    float32, shape (z + 1, y + 1, x + 1), Å²: cell ``i`` lies between voxels ``i - 1`` and ``i``.

    Notes
    -----
    The area of a cell is that of the triangles of marching cubes (Lorensen and Cline, SIGGRAPH
    1987) for its eight corners, as in Nikolov et al.: see :func:`surface_counts`.
    """
    areas = _areas_by_corners(voxel_size_angstrom)[_corners(mask)]
    if annotated is not None and not annotated.all():
        areas[_corners(~annotated) > 0] = 0
    return areas


def surface_halo(voxel_size_angstrom: Triple, tolerance_angstrom: float) -> Shape:
    """Return the voxels zyx that a block must be grown by for :func:`surface_counts`."""
    reach = (tolerance_angstrom + _ROUNDING_ANGSTROM) / np.array(voxel_size_angstrom)
    # One more, so that what looks like surface at the end of what was read is out of reach.
    return as_shape(np.floor(reach) + 1)


def surface_counts(
    found: Areas,
    truth: Areas,
    core: Box,
    *,
    voxel_size_angstrom: Triple,
    tolerance_angstrom: float,
) -> NDArray[np.float64]:
    """Measure how much of two surfaces lies near the other; blocks add up to the volume.

    Parameters
    ----------
    found, truth
        Of :func:`surface_areas`, for a read box grown by :func:`surface_halo` and clipped.
    core
        The voxels that are counted, in the frame of the masks.

    Returns
    -------
    float64, shape (2, 2), Å²: rows are found and truth; columns are the area within the tolerance
    of the other surface, and all of it.

    Notes
    -----
    Nikolov et al., "Clinically applicable segmentation of head and neck anatomy for radiotherapy",
    J. Med. Internet Res. 23 (2021) e26151. Distances are between the centres of cells.
    """
    ends = zip(core.end, found.shape, strict=True)
    # The last cell of the volume lies behind its last voxel and belongs to the last block.
    cells = Box(core.begin, as_shape(end + (end + 1 == length) for end, length in ends)).slices
    counts = np.zeros((2, 2))
    for row, (areas, other) in enumerate(((found, truth), (truth, found))):
        here = areas[cells]
        counts[row, 1] = here.sum(dtype=np.float64)
        targets = np.argwhere(other) * voxel_size_angstrom
        if not here.any() or not len(targets):
            continue
        points = (np.argwhere(here) + core.begin) * voxel_size_angstrom
        reach = tolerance_angstrom + _ROUNDING_ANGSTROM
        distance, _ = cKDTree(targets).query(points, distance_upper_bound=reach)
        counts[row, 0] = here[here > 0][np.isfinite(distance)].sum(dtype=np.float64)
    return counts


def surface_dice(counts: NDArray[np.float64]) -> float:
    """Return the surface Dice coefficient of :func:`surface_counts`, NaN without any surface.

    Notes
    -----
    The area of both surfaces that lies within the tolerance of the other, as a share of all of
    it: Nikolov et al. (2021).
    """
    within, whole = counts.sum(axis=0)
    return share(within, whole)


def _corners(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return a bit for each voxel around a cell, shape (z + 1, y + 1, x + 1)."""
    shape = as_shape(n + 1 for n in mask.shape)
    codes = np.zeros(shape, np.uint8)
    for bit, offset in enumerate(np.ndindex(2, 2, 2)):
        cells = tuple(slice(1 - o, 1 - o + n) for o, n in zip(offset, mask.shape, strict=True))
        codes[cells] |= mask.astype(np.uint8) << bit
    return codes


@cache
def _areas_by_corners(voxel_size_angstrom: Triple) -> Areas:
    """Return the area of a cell for each of the 256 ways to fill its corners, Å².

    Where the corners are ambiguous, inside and outside may both be joined; the smaller area,
    which is the same for a mask and its complement, is that of Nikolov et al.
    """
    areas = np.zeros(256)
    for code in range(1, 255):
        corners = np.array([code >> bit & 1 for bit in range(8)], np.float32).reshape(2, 2, 2)
        triangles = marching_cubes(corners, 0.5, spacing=voxel_size_angstrom, method="lorensen")
        areas[code] = mesh_surface_area(*triangles[:2])
    return np.minimum(areas, areas[::-1]).astype(np.float32)
