"""Resample between two grids over the same space, a box at a time.

A network works at its own voxel size inside a block, and its scores come back on the source's
grid. Each output voxel is a fixed weighted sum of input voxels along each axis, added in a fixed
order, so that its value is the same bit for bit whatever box it is computed in (law 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tomoseg.core.blocks import Box
from tomoseg.core.sampling import Sampling, as_shape


@dataclass(frozen=True)
class Rescaling:
    """Values on ``source`` seen on ``target``: linear interpolation between voxel centres.

    Where the target is coarser, the interpolated line is averaged over the target's voxel, which
    keeps noise above its Nyquist frequency from folding back. Both are exact for values that
    change linearly in space. Beyond the source's border the border voxel goes on.
    """

    source: Sampling
    target: Sampling

    def needed(self, box: Box) -> Box:
        """Return the source voxels that a box of the target depends on."""
        begin, end = [], []
        for axis in range(3):
            indices, _ = self._taps(axis, box.begin[axis], box.end[axis])
            begin.append(int(indices.min()))
            end.append(int(indices.max()) + 1)
        return Box(as_shape(begin), as_shape(end))

    def apply(self, values: NDArray[np.float32], box: Box, target_box: Box) -> NDArray[np.float32]:
        """Resample.

        Parameters
        ----------
        values
            float32, shape (..., z, y, x): the source's voxels of ``box``.
        box
            A source box that contains ``needed(target_box)``.
        target_box
            The wanted box of the target.

        Returns
        -------
        float32, shape (..., *target_box.shape).
        """
        for axis in range(3):
            indices, weights = self._taps(axis, target_box.begin[axis], target_box.end[axis])
            values = _weighted(values, axis - 3, indices - box.begin[axis], weights)
        return values

    def _taps(
        self, axis: int, begin: int, end: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return source indices and weights, shape (end - begin, taps), of target voxels."""
        size = self.source.voxel_size_angstrom[axis]
        step = self.target.voxel_size_angstrom[axis]
        place = np.arange(begin, end) * step + self.target.first_voxel_angstrom[axis]
        centre = (place - self.source.first_voxel_angstrom[axis]) / size
        width = step / size
        reach = 1 if width <= 1 else int(np.ceil(1 + width / 2))
        indices = np.floor(centre).astype(np.int64)[:, None] + np.arange(1 - reach, reach + 1)
        away = indices - centre[:, None]
        if width <= 1:
            weights = np.maximum(0.0, 1.0 - np.abs(away))
        else:
            weights = _triangle_below(width / 2 - away) - _triangle_below(-width / 2 - away)
            weights /= weights.sum(axis=1, keepdims=True)
        return indices.clip(0, self.source.shape[axis] - 1), weights.astype(np.float32)


def _triangle_below(place: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the integral up to ``place`` of the triangle of height 1 over -1..1."""
    x = np.clip(place, -1.0, 1.0)
    return np.asarray(np.where(x < 0, (1 + x) ** 2 / 2, 1 - (1 - x) ** 2 / 2))


def _weighted(
    values: NDArray[np.float32],
    axis: int,
    indices: NDArray[np.int64],
    weights: NDArray[np.float32],
) -> NDArray[np.float32]:
    total: NDArray[np.float32] | None = None
    spread = (-1,) + (1,) * (-axis - 1)
    for tap in range(indices.shape[1]):
        part = np.take(values, indices[:, tap], axis=axis)
        part *= weights[:, tap].reshape(spread)
        total = part if total is None else np.add(total, part, out=total)
    assert total is not None
    return total
