"""Second derivatives of a smoothed volume, and their eigenvalues, where it is bright.

On a ridge two eigenvalues of the Hessian are negative, on a sheet one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# Of more bright voxels than this share, all are quicker than the bright ones alone.
DENSE_SHARE = 0.25
# Second derivatives in the order zz, yy, xx, zy, zx, yx.
PAIRS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))


def curvatures(
    smooth: NDArray[np.float32], sizes: Floats, *, below: float
) -> tuple[NDArray[np.int64], Floats]:
    """Find the inner voxels whose Laplacian is below a value, and their second derivatives.

    Parameters
    ----------
    smooth
        float32, shape (z, y, x), nowhere negative; its outermost voxels are neighbours alone.
    sizes
        float64, shape (3,): edges of a voxel, in the unit that the derivatives are per.
    below
        A negative value.

    Returns
    -------
    int64, shape (n, 3), zyx: voxels, in the frame of ``smooth`` less its outermost ones; and
    float64, shape (n, 6): zz, yy, xx, zy, zx, yx.
    """
    flat, strides = smooth.ravel(), _strides(smooth)
    at = _bright(smooth, sizes, below=below)
    twice = [_second(flat, at, step, size) for step, size in zip(strides, sizes, strict=True)]
    kept = twice[0] + twice[1] + twice[2] < below
    at = at[kept]
    found = [
        twice[i][kept] if i == j else _mixed(flat, at, (i, j), sizes=sizes, strides=strides)
        for i, j in PAIRS
    ]
    index = np.stack(np.unravel_index(at, smooth.shape), axis=1) - 1
    return index, np.stack(found, axis=1).astype(np.float64)


def _bright(smooth: NDArray[np.float32], sizes: Floats, *, below: float) -> NDArray[np.int64]:
    """Return the inner voxels, in the flat array, whose Laplacian may be below a negative value.

    It is least where all neighbours are 0. Where much is bright it is taken everywhere at once.
    """
    inner = (slice(1, -1),) * 3
    # The share is for rounding.
    bright = smooth[inner] > below / -2 / (1 / sizes**2).sum() * (1 - 1e-6)
    if np.count_nonzero(bright) > DENSE_SHARE * bright.size:
        twice = [
            np.diff(smooth[(*inner[:axis], slice(None), *inner[axis + 1 :])], 2, axis)
            / np.float32(size**2)
            for axis, size in enumerate(sizes)
        ]
        bright = twice[0] + twice[1] + twice[2] < below
    return np.flatnonzero(np.pad(bright, 1))


def _second(
    flat: NDArray[np.float32], at: NDArray[np.int64], step: int, size: float
) -> NDArray[np.float32]:
    """∂²/∂i² by central differences at places of the flat array."""
    here = flat[at]
    twice = (flat[at + step] - here) - (here - flat[at - step])
    return np.asarray(twice / np.float32(size**2))


def upper_eigenvalues(curvature: Floats) -> tuple[Floats, Floats]:
    """Return λ2 and λ3 of symmetric matrices given as zz, yy, xx, zy, zx, yx.

    Trigonometric solution of the cubic; Smith, Communications of the ACM 4 (1961) 168.
    """
    zz, yy, xx, zy, zx, yx = curvature.T.copy()
    mean = (zz + yy + xx) / 3
    zz, yy, xx = zz - mean, yy - mean, xx - mean
    spread = np.sqrt((zz**2 + yy**2 + xx**2 + 2 * (zy**2 + zx**2 + yx**2)) / 6)
    determinant = zz * (yy * xx - yx**2) - zy * (zy * xx - yx * zx) + zx * (zy * yx - yy * zx)
    safe = np.where(spread > 0, spread, 1.0)
    angle = np.arccos(np.clip(determinant / (2 * safe**3), -1, 1)) / 3
    high = 2 * spread * np.cos(angle)
    low = 2 * spread * np.cos(angle + 2 * np.pi / 3)
    return mean - high - low, mean + high


def eigenvectors(curvature: Floats, values: Floats) -> Floats:
    """Return unit eigenvectors, shape (n, 3), zyx: the longest cross product of two rows of A − λ.

    Where the eigenvalue is double any direction serves, and z is taken.
    """
    zz, yy, xx, zy, zx, yx = curvature.T
    rows = [
        np.stack([zz - values, zy, zx], 1),
        np.stack([zy, yy - values, yx], 1),
        np.stack([zx, yx, xx - values], 1),
    ]
    crosses = np.stack(
        [np.cross(rows[0], rows[1]), np.cross(rows[0], rows[2]), np.cross(rows[1], rows[2])]
    )
    lengths = np.sqrt((crosses**2).sum(axis=2))
    best = lengths.argmax(axis=0)
    each = np.arange(len(values))
    length = lengths[best, each]
    found = length > 0
    vectors = np.tile([1.0, 0.0, 0.0], (len(values), 1))
    vectors[found] = (crosses[best, each] / np.where(found, length, 1.0)[:, None])[found]
    return vectors


def gradients(smooth: NDArray[np.float32], index: NDArray[np.int64], sizes: Floats) -> Floats:
    """Return first derivatives, shape (n, 3), zyx, by central differences at inner voxels.

    ``smooth``, ``index`` and ``sizes`` are as in :func:`curvatures`.
    """
    strides = _strides(smooth)
    flat, at = smooth.ravel(), (index + 1) @ strides
    twice = np.stack([flat[at + step] - flat[at - step] for step in strides], axis=1)
    return np.asarray(twice.astype(np.float64) / (2 * sizes))


def _strides(smooth: NDArray[np.float32]) -> NDArray[np.int64]:
    """How far apart neighbours along zyx are in the flat array."""
    return np.array([smooth.shape[1] * smooth.shape[2], smooth.shape[2], 1])


def _mixed(
    flat: NDArray[np.float32],
    at: NDArray[np.int64],
    axes: tuple[int, int],
    *,
    sizes: Floats,
    strides: NDArray[np.int64],
) -> NDArray[np.float32]:
    """∂²/∂i∂j by central differences at places of the flat array."""
    i, j = strides[list(axes)]
    across = flat[at + i + j] - flat[at + i - j] - flat[at - i + j] + flat[at - i - j]
    return np.asarray(across / np.float32(4 * sizes[axes[0]] * sizes[axes[1]]))
