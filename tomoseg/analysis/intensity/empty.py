"""Which voxels count in the statistics of a tomogram: none that are empty, none outside a mask.

A voxel is empty if it lies in a square of one grey value within its slice, as in padding. At the
border of a slice the square may lie outside for the most part: a frame is empty however thin it is,
and so is a wedge. Where a tomogram was turned or binned, the voxels beside its padding are mixed
with it, and do not count either.

      ┌───────┐          the slice; a frame 2 voxels wide on its left side
    ┌─┼─┐     │
    │ │ │     │          a square over the frame and over nothing: what it holds is one value
    └─┼─┘     │
      └───────┘
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.analysis.intensity.uniform import equal
from tomoseg.core.blocks import Box
from tomoseg.core.sampling import Shape, as_shape

Flags = NDArray[np.bool_]

# Specimen that a detector, bytes or a program cut off is seldom of one value so far.
SQUARE = 32
RIM = (1, 2, 2)
HALO: Shape = as_shape(np.add(RIM, (0, SQUARE - 1, SQUARE - 1)))
"""Voxels zyx that must be known around one to tell whether it is empty."""


@dataclass(frozen=True, eq=False)
class Counted:
    """The voxels of a box that count, and how many do not."""

    voxels: NDArray[Any]
    empty: int
    outside: int


@dataclass(frozen=True)
class Specimen:
    """Reads the voxels that count.

    Parameters
    ----------
    read
        Returns the voxels of a box.
    shape
        The volume's, zyx.
    inside
        Tells, bool, which voxels of a box are inside the mask; None without one.
    """

    read: Callable[[Box], NDArray[Any]]
    shape: Shape
    inside: Callable[[Box], Flags] | None = None

    def read_counted(self, box: Box) -> NDArray[Any]:
        """Return the voxels of a box that count, flat if there are others."""
        return self.counted(box).voxels

    def counted(self, box: Box) -> Counted:
        """Return the voxels of a box that count, and how many do not."""
        around = box.grow(HALO).clip(self.shape)
        read = self.read(around)
        core = box.within(around).slices
        is_empty, voxels = with_rim(empty_voxels(read))[core], read[core]
        is_inside = np.ones(box.shape, np.bool_) if self.inside is None else self.inside(box)
        counts = is_inside & ~is_empty
        return Counted(
            voxels if counts.all() else voxels[counts],
            empty=int(np.count_nonzero(is_empty & is_inside)),
            outside=box.size - int(np.count_nonzero(is_inside)),
        )


def read_filled(
    read: Callable[[Box], NDArray[Any]], box: Box, shape: Shape, fill: float
) -> tuple[NDArray[Any], Flags]:
    """Read a box of a volume as a network is to see it, some value where it is empty.

    Parameters
    ----------
    read
        Returns the voxels of a box, an array of its own.
    box, shape
        What is wanted, and the volume's shape.
    fill
        Rounded where the voxels are integers.

    Returns
    -------
    The voxels in their own dtype, and bool, which are empty; both of the box's shape.
    """
    around = box.grow(HALO).clip(shape)
    voxels = read(around)
    is_empty = empty_voxels(voxels)
    voxels[is_empty] = round(fill) if voxels.dtype.kind in "iu" else fill
    core = box.within(around).slices
    return voxels[core], is_empty[core]


def may_be_empty(voxels: NDArray[Any]) -> bool:
    """Look quickly, at few lines of a box that spans x, whether a voxel may be empty.

    Of boxes of 16 rows or more that tile a volume, all but the last, one tells if there is any: a
    square has half of its rows in one of them.
    """
    lines = np.concatenate([voxels[:, :: SQUARE // 2], voxels[:, -1:]], axis=1)
    sides = voxels[:, :, [0, -1]]
    return bool(_is_alike(lines, 2, SQUARE).any() or _is_alike(sides, 1, SQUARE // 2).any())


def empty_voxels(voxels: NDArray[Any]) -> Flags:
    """Tell which voxels are empty.

    Parameters
    ----------
    voxels
        Any real dtype, shape (z, y, x): a box grown by the halo, clipped at the volume. NaN counts
        as a value.

    Returns
    -------
    bool, the same shape. Voxels nearer than the halo to a side of the box that is not a side of
    the volume are not valid. Of the others, each is the same whatever box it is computed in.

    Examples
    --------
    >>> image = np.arange(40 * 90).reshape(1, 40, 90)
    >>> image[:, :, 80:] = 7
    >>> np.flatnonzero(empty_voxels(image)[0, 0])[[0, -1]].tolist()
    [80, 89]
    """
    found = np.zeros(voxels.shape, np.bool_)
    if min(voxels.shape[1:]) < 2:
        return found
    for index in range(len(voxels)):
        if may_be_empty(voxels[index : index + 1]):
            image = voxels[index]
            found[index] = _squares(image) | _squares(image.T).T
    return found


def with_rim(found: Flags) -> Flags:
    """Return empty voxels and those beside them, which may be mixed with padding."""
    if found.any():
        for axis, reach in enumerate(RIM):
            found = _spread(found, axis, reach, 2 * reach + 1)
    return found


def _squares(image: NDArray[Any]) -> Flags:
    """Tell what squares of one value cover, which may lie outside the image along x."""
    if image.shape[0] < SQUARE:
        return np.zeros(image.shape, np.bool_)
    beyond = ((0, 0), (SQUARE - 1, SQUARE - 1))
    found = np.ones((image.shape[0] - SQUARE + 1, image.shape[1] + SQUARE - 1), np.bool_)
    for axis in (0, 1):
        alike = np.pad(_is_alike(image, axis, 2), beyond, constant_values=True)
        alike = _windows(alike, axis, SQUARE - 1, np.logical_and)
        found &= _windows(alike, 1 - axis, SQUARE, np.logical_and)
    return _spread(_windows(found, 1, SQUARE, np.logical_or), 0, SQUARE - 1, SQUARE)


def _is_alike(values: NDArray[Any], axis: int, length: int) -> Flags:
    """Tell for each run of so many values along an axis whether all are one."""
    size = values.shape[axis] - 1
    alike = equal(_part(values, axis, 0, max(size, 0)), _part(values, axis, 1, size))
    return _windows(alike, axis, length - 1, np.logical_and)


def _spread(flags: Flags, axis: int, reach: int, length: int) -> Flags:
    """Return where a flag lies in a window of some length, begun up to ``reach`` before."""
    beyond = [(0, 0)] * flags.ndim
    beyond[axis] = (reach, reach)
    return _windows(np.pad(flags, beyond), axis, length, np.logical_or)


def _windows(flags: Flags, axis: int, length: int, join: np.ufunc) -> Flags:
    """Join the flags of each window of some length that lies within the array."""
    done = 1
    while done < length:
        step = min(done, length - done)
        size = max(flags.shape[axis] - step, 0)
        flags = join(_part(flags, axis, 0, size), _part(flags, axis, step, size))
        done += step
    return flags


def _part(values: NDArray[Any], axis: int, begin: int, size: int) -> NDArray[Any]:
    return values[(slice(None),) * axis + (slice(begin, begin + size),)]
