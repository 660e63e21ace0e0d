"""The binned grid on which blob and ridge filters work, a block at a time.

A filter whose scale is many voxels loses nothing on a coarser grid and costs ``factor``³ less.
Bin ``i`` is the mean of voxels ``factor·i`` to ``factor·i + factor − 1``; a rest at the end of the
volume is dropped, and a micrograph is not binned along z. A bin belongs to the block whose core
holds its first voxel.

    voxels    |0 1|2 3|4 5|6 7|8 9|10     shape 11, factor 2, read 2..11, core 4..8
    bins      | 0 | 1 | 2 | 3 | 4 |       read 1..5, core 2..4; voxel 10 is dropped
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomoseg.core.blocks import Box
from tomoseg.core.errors import RequestError
from tomoseg.core.sampling import Shape, as_shape

Array = NDArray[np.float32]
# Of more lines than this share, all are convolved quicker than picked out.
DENSE_SHARE = 0.6


@dataclass(frozen=True, eq=False)
class BinnedBlock:
    """A block of a volume on the binned grid.

    Parameters
    ----------
    values
        float32, shape (z, y, x): the read box, binned.
    begin
        Index of ``values[0, 0, 0]`` in the binned volume.
    core
        What the block owns, in bins of the binned volume.
    """

    values: Array
    begin: Shape
    core: Box

    def cut(self, box: Box, values: Array) -> Array:
        """Take a box of the binned volume out of an array in the frame of ``values``.

        What lies beyond the array, which with a sufficient halo is beyond the volume, repeats the
        outermost voxel.
        """
        local = box.shift(as_shape(-b for b in self.begin))
        inside = local.clip(as_shape(values.shape))
        margins = [
            (inner - outer, last - end)
            for outer, inner, end, last in zip(
                local.begin, inside.begin, inside.end, local.end, strict=True
            )
        ]
        return np.pad(values[inside.slices], margins, mode="edge")


def binning_factor(length_voxels: float, *, at_least_bins: float) -> int:
    """Return the largest power of two that leaves a length ``at_least_bins`` long, or 1.

    Examples
    --------
    >>> binning_factor(10.4, at_least_bins=4)
    2
    """
    factor = 1
    while length_voxels / (2 * factor) >= at_least_bins:
        factor *= 2
    return factor


def bin_mean(values: Array, bins: Shape) -> Array:
    """Mean over bins of so many voxels zyx, float32, shape (z, y, x) // bins.

    Sums run in one fixed order, so that a bin is the same whatever array it was cut from.
    """
    for axis, factor in enumerate(bins):
        lines = np.moveaxis(values, axis, 0)
        lines = lines[: len(lines) // factor * factor]
        total = reduce(np.add, (lines[i::factor] for i in range(factor)))
        values = np.moveaxis(total, 0, axis)
    return np.ascontiguousarray(values / np.float32(prod(bins)), dtype=np.float32)


def read_finer(
    read: Callable[[Box], NDArray[Any]], box: Box, bins: Shape, shape: Shape
) -> NDArray[Any]:
    """Read a box of a finer grid: each of its voxels has the value of the bin that it lies in.

    Parameters
    ----------
    read
        Returns the values of a box of bins.
    box
        Voxels of the finer grid.
    bins
        So many of them, zyx, make a bin.
    shape
        Bins zyx; beyond the last, that one goes on.

    Examples
    --------
    >>> line = np.arange(3).reshape(1, 1, 3)
    >>> wanted = Box((0, 0, 1), (1, 1, 7))
    >>> read_finer(lambda box: line[box.slices], wanted, (1, 1, 2), line.shape).tolist()
    [[[0, 1, 1, 2, 2, 2]]]
    """
    places = [
        np.minimum(np.arange(begin, end) // factor, size - 1)
        for begin, end, factor, size in zip(box.begin, box.end, bins, shape, strict=True)
    ]
    begin = as_shape(place[0] for place in places)
    values = read(Box(begin, as_shape(place[-1] + 1 for place in places)))
    z, y, x = (place - first for place, first in zip(places, begin, strict=True))
    return np.asarray(values[np.ix_(z, y, x)])


def binned_block(
    values: Array, core: Box, *, begin: Shape, shape: Shape, bins: Shape, halo: Shape
) -> BinnedBlock:
    """Bin a block that was read with its halo.

    Parameters
    ----------
    values
        float32, shape (z, y, x): the read box.
    core
        What the block owns, in the frame of ``values``.
    begin
        Index of ``values[0, 0, 0]`` in the volume, multiples of ``bins``.
    shape
        The volume, voxels.
    bins
        Voxels zyx that make a bin.
    halo
        What the filter needs around the core, voxels.

    Raises
    ------
    RequestError
        If the read box is not aligned to the bins or lacks a part of the halo.
    """
    read = Box(begin, as_shape(np.add(begin, values.shape)))
    write = core.shift(begin)
    if np.mod(begin, bins).any() or not read.contains(write.grow(halo).clip(shape)):
        raise RequestError(
            f"a core of {write} was read as {read}: a halo of {halo} voxels and a beginning at "
            f"multiples of {bins} are needed",
            remedy="Build the block grid with that halo and stride.",
        )
    owned = Box(
        as_shape(-(-b // n) for b, n in zip(write.begin, bins, strict=True)),
        as_shape(-(-e // n) for e, n in zip(write.end, bins, strict=True)),
    )
    return BinnedBlock(
        bin_mean(values, bins) if max(bins) > 1 else np.asarray(values, dtype=np.float32),
        as_shape(np.floor_divide(begin, bins)),
        owned.clip(as_shape(np.floor_divide(shape, bins))),
    )


def smooth_gaussian(values: Array, sigmas: NDArray[np.float64], *, truncate: float) -> Array:
    """Convolve with a Gaussian; lines of zeros, which stay zeros, are left out.

    Parameters
    ----------
    values
        float32, shape (z, y, x); beyond it the outermost voxels go on.
    sigmas
        float64, shape (3,), zyx, voxels.
    truncate
        Where the Gaussian is cut, in sigmas.

    Returns
    -------
    float32, shape (z, y, x): to the last bit what :func:`scipy.ndimage.gaussian_filter` gives.
    """
    how: Any = {"mode": "nearest", "truncate": truncate}
    for axis, sigma in enumerate(sigmas.tolist()):
        busy = values.any(axis=axis)
        if np.count_nonzero(busy) > DENSE_SHARE * busy.size:
            values = ndimage.gaussian_filter1d(values, sigma, axis, **how)
            continue
        lines = np.moveaxis(values, axis, -1)[busy]
        values = np.zeros_like(values)
        np.moveaxis(values, axis, -1)[busy] = ndimage.gaussian_filter1d(lines, sigma, **how)
    return values
