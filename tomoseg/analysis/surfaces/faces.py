"""How far it is from the middle of a sheet to its two faces."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Index = NDArray[np.int64]

CORNERS = np.array(list(product((0, 1), repeat=3)))


def find_faces(
    values: NDArray[np.float32],
    index: Index,
    offset: Floats,
    *,
    level: NDArray[np.float32],
    step: Floats,
    reach: int,
) -> Floats:
    """Return after how many steps, ahead and back, values fall below a level.

    Parameters
    ----------
    values
        float32, shape (z, y, x).
    index, offset
        int64 and float64, shape (n, 3), zyx: bins to begin in, and where from their centres, bins.
    level
        float32, shape (n,).
    step
        float64, shape (n, 3), zyx, bins.
    reach
        Steps to go at most.

    Returns
    -------
    float64, shape (2, n): NaN where values do not fall within reach or before the volume's end.
    """
    return np.stack(
        [_fall(values, index, offset, level=level, step=way, reach=reach) for way in (step, -step)]
    )


def _fall(
    values: NDArray[np.float32],
    index: Index,
    offset: Floats,
    *,
    level: NDArray[np.float32],
    step: Floats,
    reach: int,
) -> Floats:
    """Return after how many steps values fall below a level, as in :func:`find_faces`."""
    found = np.full(len(index), np.nan)
    rows = np.arange(len(index))
    last = _interpolated(values, index, offset)
    for count in range(1, reach + 1):
        here = _interpolated(values, index[rows], offset[rows] + count * step[rows])
        below = here < level[rows]
        fall = np.maximum(last - here, np.finfo(np.float32).tiny)[below]
        share = (last[below] - level[rows[below]]) / fall
        found[rows[below]] = count - 1 + np.clip(share, 0, 1)
        rows, last = rows[~below], here[~below]
    return found


def _interpolated(values: NDArray[np.float32], index: Index, offset: Floats) -> Floats:
    """Trilinear values at offsets from bins; the same wherever the array was cut from.

    Beyond the array its outermost values go on.
    """
    floor = np.floor(offset)
    rest = offset - floor
    base = index + floor.astype(np.int64)
    total = np.zeros(len(index))
    for corner in CORNERS:
        weight = np.where(corner, rest, 1 - rest).prod(axis=1)
        at = np.clip(base + corner, 0, np.array(values.shape) - 1)
        total += weight * values[tuple(at.T)]
    return total
