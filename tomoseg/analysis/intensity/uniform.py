"""Where a tomogram holds nothing: one grey value as far as a margin reaches, such as padding."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomoseg.core.sampling import Shape


def uniform_voxels(voxels: NDArray[Any], margin: Shape) -> NDArray[np.bool_]:
    """Tell around which voxels all grey values are one.

    Parameters
    ----------
    voxels
        Any real dtype, shape (z, y, x): a block grown by the margin, clipped at the volume.
    margin
        Voxels zyx on both sides of a voxel that must have its value; beyond the volume there is
        nothing to differ. NaN counts as a value.

    Returns
    -------
    bool, the same shape. Voxels nearer than the margin to a side of the block that is not a side
    of the volume are not valid. Of the others, each is the same whatever block it is computed in.

    Examples
    --------
    >>> line = np.array([0, 0, 0, 0, 5, 7])[None, None]
    >>> uniform_voxels(line, (0, 0, 1))[0, 0].tolist()
    [True, True, True, False, False, False]
    """
    found = np.zeros(voxels.shape, np.bool_)
    for value in _candidates(voxels, margin):
        same = equal(voxels, value).view(np.uint8)
        for axis, reach in enumerate(margin):
            same = ndimage.minimum_filter1d(same, 2 * reach + 1, axis, mode="constant", cval=1)
        found |= same.view(np.bool_)
    return found


def _candidates(voxels: NDArray[Any], margin: Shape) -> NDArray[Any]:
    """Return the values that may fill a box of margin + 1 voxels, seen on a lattice.

    A box that long holds three lattice points in a row along every axis. Three of noise are
    hardly ever equal, so that a block without padding costs no more than this look.
    """
    steps = [max(1, (reach + 1) // 3) for reach in margin]
    lattice = voxels[tuple(slice(None, None, step) for step in steps)]
    is_equal = np.ones(lattice.shape, np.bool_)
    for axis, (reach, step) in enumerate(zip(margin, steps, strict=True)):
        for away in range(1, min(2, (reach + 1) // step - 1, lattice.shape[axis] - 1) + 1):
            size = lattice.shape[axis] - away
            first, next_ = (_along(lattice, axis, begin, size) for begin in (0, away))
            _along(is_equal, axis, 0, size)[...] &= equal(first, next_)
            _along(is_equal, axis, size, away)[...] = False
    return np.unique(lattice[is_equal])


def _along(values: NDArray[Any], axis: int, begin: int, size: int) -> NDArray[Any]:
    return values[(slice(None),) * axis + (slice(begin, begin + size),)]


def equal(values: NDArray[Any], others: Any) -> NDArray[np.bool_]:
    """Compare values, NaN equal to NaN."""
    same = values == others
    if np.issubdtype(values.dtype, np.floating):
        same |= np.isnan(values) & np.isnan(others)
    return np.asarray(same)
