"""Orientations as Euler angles of the programs that average subtomograms.

An orientation is a 3×3 matrix R in xyz: its columns are the particle's axes in the tomogram.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Matrices = NDArray[np.float64]
Angles = NDArray[np.float64]


def relion_angles(orientations: Matrices) -> Angles:
    """Return RELION's rot, tilt and psi.

    Parameters
    ----------
    orientations
        float64, shape (n, 3, 3), xyz, proper rotations.

    Returns
    -------
    float64, shape (n, 3): rot, tilt, psi in degrees, in [-180, 180), tilt in [0, 180]. Where the
    z axis stands upright, rot and psi are one turn; rot is then 0.

    Notes
    -----
    R is the transpose of the product of intrinsic turns ZYZ, hence its z column is
    (-cos psi sin tilt, sin psi sin tilt, cos tilt) and its last row
    (sin tilt cos rot, sin tilt sin rot, cos tilt); RELION, ``src/euler.cpp``. Angles are rounded
    to 1e-9 degrees, so that -180 and 180, one direction, are written one way.

    Examples
    --------
    >>> relion_angles(np.eye(3)[None]).tolist()
    [[0.0, 0.0, 0.0]]
    """
    r = np.asarray(orientations, dtype=np.float64)
    slant = np.hypot(r[:, 0, 2], r[:, 1, 2])
    upright = slant < 1e-9
    rot = np.where(upright, 0.0, np.arctan2(r[:, 2, 1], r[:, 2, 0]))
    tilt = np.arctan2(slant, r[:, 2, 2])
    psi = np.where(upright, np.arctan2(r[:, 0, 1], r[:, 1, 1]), np.arctan2(r[:, 1, 2], -r[:, 0, 2]))
    degrees: Angles = np.round(np.degrees(np.stack([rot, tilt, psi], axis=1)), 9)
    degrees[:, [0, 2]] = (degrees[:, [0, 2]] + 180.0) % 360.0 - 180.0
    return degrees


def relion_orientations(angles_degrees: Angles) -> Matrices:
    """Return matrices, shape (n, 3, 3), of RELION's rot, tilt and psi, shape (n, 3), degrees."""
    turns = Rotation.from_euler("ZYZ", np.asarray(angles_degrees), degrees=True)
    matrices: Matrices = turns.inv().as_matrix()
    return matrices
