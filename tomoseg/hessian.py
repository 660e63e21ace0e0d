"""Second derivatives of a smoothed volume, and their eigenvalues, where it is bright.

On a ridge two eigenvalues of the Hessian are negative, on a sheet one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# Second derivatives in the order zz, yy, xx, zy, zx, yx.
PAIRS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))


def curvatures(
    smooth: NDArray[np.float32], sizes: Floats, *, below: float
) -> tuple[NDArray[np.int64], Floats]:
    """Find the inner voxels whose Laplacian is below a value, and their second derivatives.

    Parameters
    ----------
    smooth
        float32, shape (z, y, x); its outermost voxels are neighbours alone.
    sizes
        float64, shape (3,): edges of a voxel, in the unit that the derivatives are per.

    Returns
    -------
    int64, shape (n, 3), zyx: voxels, in the frame of ``smooth`` less its outermost ones; and
    float64, shape (n, 6): zz, yy, xx, zy, zx, yx.
    """
    twice = [
        np.diff(
            smooth[tuple(slice(None) if a == axis else slice(1, -1) for a in range(3))], 2, axis
        )
        / np.float32(sizes[axis] ** 2)
        for axis in range(3)
    ]
    index = np.argwhere(twice[0] + twice[1] + twice[2] < below)
    found = [
        twice[i][tuple(index.T)] if i == j else _mixed(smooth, index, (i, j), sizes)
        for i, j in PAIRS
    ]
    return index, np.stack(found, axis=1).astype(np.float64)


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
    strides = np.array([smooth.shape[1] * smooth.shape[2], smooth.shape[2], 1])
    flat, at = smooth.ravel(), (index + 1) @ strides
    twice = np.stack([flat[at + step] - flat[at - step] for step in strides], axis=1)
    return np.asarray(twice.astype(np.float64) / (2 * sizes))


def _mixed(
    smooth: NDArray[np.float32],
    index: NDArray[np.int64],
    axes: tuple[int, int],
    sizes: Floats,
) -> NDArray[np.float32]:
    """∂²/∂i∂j by central differences at inner bins."""
    strides = np.array([smooth.shape[1] * smooth.shape[2], smooth.shape[2], 1])
    flat, at = smooth.ravel(), (index + 1) @ strides
    i, j = strides[axes[0]], strides[axes[1]]
    across = flat[at + i + j] - flat[at + i - j] - flat[at - i + j] + flat[at - i - j]
    return np.asarray(across / np.float32(4 * sizes[axes[0]] * sizes[axes[1]]))
