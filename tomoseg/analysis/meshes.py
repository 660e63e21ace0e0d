"""Surfaces of masks as triangles, for figures: marching cubes a block at a time.

    voxels, centres at +     +   +   +   +   +   +
    cells between them         0   1   2   3   4
    blocks of 3 voxels       |-- first --|-- second --
    cells of the first         0   1   2                  the cell across the face is its own

Each cell belongs to one block, so that the triangles are the same for any blocks; a corner on an
edge between two voxels is told by that edge, so that blocks share their corners exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import marching_cubes

from tomoseg.core.blocks import Block, Box
from tomoseg.core.sampling import Sampling, Shape, as_shape

# Smooths the steps of a mask, and keeps what is one voxel thick: 0.52 is left in its middle.
SIGMA_VOXELS = 0.7
# The Gaussian ends here, where it is below a thousandth; blocks are read with as many voxels more.
MARGIN_VOXELS = 3
# Half of 255; no voxel has this value, so that no corner falls on a voxel.
LEVEL = 127.5

# Gives a box of a mask: which share of each voxel is in an object.
Read = Callable[[Box], NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles of a surface.

    Parameters
    ----------
    corners_angstrom
        float32, shape (n, 3), zyx, Å.
    triangles
        int64, shape (m, 3): rows of the corners, anticlockwise in xyz for who looks from outside.
    """

    corners_angstrom: NDArray[np.float32]
    triangles: NDArray[np.int64]


def surface(read: Read, sampling: Sampling, blocks: Iterable[Block]) -> Mesh:
    """Return the surface of a mask, a block at a time.

    Parameters
    ----------
    read
        Gives a box of the mask, float32, zyx, 0..1.
    sampling
        The mask's grid.
    blocks
        Tiles of it.

    Returns
    -------
    The surface at one half of the smoothed mask: closed around what does not touch the border of
    the volume, open where an object is cut by it. In memory are one block and the mesh.

    Notes
    -----
    The mask is smoothed by a Gaussian of 0.7 voxels and rounded to 0..255, so that blocks see the
    same values to the bit. Triangles by Lewiner et al., "Efficient implementation of marching
    cubes' cases with topological guarantees", Journal of Graphics Tools 8 (2003), as in
    scikit-image.
    """
    corners, triangles = [np.empty((0, 3))], [np.empty((0, 3), np.int64)]
    count = 0
    for block in blocks:
        found = _of_block(read, sampling.shape, block.write)
        if found is None:
            continue
        places, faces = found
        corners.append(places)
        triangles.append(faces + count)
        count += len(places)
    places = np.concatenate(corners)
    # Blocks share the corners on their faces: one corner an edge.
    _, first, which = np.unique(
        _edges(places, sampling.shape), return_index=True, return_inverse=True
    )
    return Mesh(
        sampling.to_angstrom(places[first]).astype(np.float32),
        which[np.concatenate(triangles)],
    )


def bins_for(shape: Shape, largest_voxels: int) -> int:
    """Return the least binning after which a volume has no more voxels than ``largest_voxels``.

    Examples
    --------
    >>> bins_for((512, 2048, 2048), 2**27)
    3
    """
    return next(
        b for b in range(1, 1 + max(shape)) if prod(n // b for n in shape) <= largest_voxels
    )


def _of_block(
    read: Read, shape: Shape, write: Box
) -> tuple[NDArray[np.float64], NDArray[np.int64]] | None:
    """Return corners, voxels of the volume, and triangles of the cells that a block owns."""
    # The voxels of its cells: its own and the next ones.
    cells = Box(write.begin, as_shape(end + 1 for end in write.end)).clip(shape)
    if min(cells.shape) < 2:
        return None
    box = cells.grow((MARGIN_VOXELS,) * 3).clip(shape)
    shares = ndimage.gaussian_filter(
        read(box).astype(np.float32),
        SIGMA_VOXELS,
        mode="nearest",
        radius=MARGIN_VOXELS,
    )
    inner = cells.within(box)
    values = np.rint(shares[inner.slices] * 255)
    if not values.min() < LEVEL < values.max():
        return None
    corners, faces, _, _ = marching_cubes(values, LEVEL, allow_degenerate=True)
    return _exact(corners.astype(np.float64), values) + cells.begin, faces.astype(np.int64)


def _exact(corners: NDArray[np.float64], values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Place corners anew in double: float32 rounds otherwise in every block.

    Those on an edge between two voxels by their values, those that ambiguous cells have inside in
    the middle of the cell.
    """
    below = np.floor(corners).astype(np.int64)
    beyond = corners > below
    on_edge = beyond.sum(axis=1) == 1
    low = values[tuple(below[on_edge].T)].astype(np.float64)
    high = values[tuple((below + beyond)[on_edge].T)]
    share = np.full(len(corners), 0.5)
    share[on_edge] = (LEVEL - low) / (high - low)
    return np.asarray(below + beyond * share[:, None])


def _edges(places: NDArray[np.float64], shape: Shape) -> NDArray[np.int64]:
    """Return what tells a corner: the voxel below it, and along which axes it lies beyond that."""
    below = np.floor(places).astype(np.int64)
    beyond = (places > below) @ np.array([1, 2, 4])
    return np.asarray(8 * np.ravel_multi_index(tuple(below.T), shape) + beyond)
