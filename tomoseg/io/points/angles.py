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
    (sin tilt cos rot, sin tilt sin rot, cos tilt); RELION, ``src/euler.cpp``.

    Examples
    --------
    >>> relion_angles(np.eye(3)[None]).tolist()
    [[0.0, 0.0, 0.0]]
    """
    r = np.asarray(orientations, dtype=np.float64)
    slant, upright = _slant(r)
    rot = np.where(upright, 0.0, np.arctan2(r[:, 2, 1], r[:, 2, 0]))
    tilt = np.arctan2(slant, r[:, 2, 2])
    psi = np.where(upright, np.arctan2(r[:, 0, 1], r[:, 1, 1]), np.arctan2(r[:, 1, 2], -r[:, 0, 2]))
    return _degrees(rot, tilt, psi)


def relion_orientations(angles_degrees: Angles) -> Matrices:
    """Return matrices, shape (n, 3, 3), of RELION's rot, tilt and psi, shape (n, 3), degrees."""
    return _matrices("ZYZ", angles_degrees).transpose(0, 2, 1)


def motive_list_angles(orientations: Matrices) -> Angles:
    """Return the phi, psi and the of the motive lists of STOPGAP, AV3 and TOM.

    Parameters
    ----------
    orientations
        float64, shape (n, 3, 3), xyz, proper rotations.

    Returns
    -------
    float64, shape (n, 3): phi, psi, the in degrees and in the order of the lists; phi and psi in
    [-180, 180), the in [0, 180]. Where the z axis stands upright, phi is 0.

    Notes
    -----
    R = Rz(psi) Rx(the) Rz(phi), hence its z column is (sin psi sin the, -cos psi sin the, cos the)
    and its last row (sin the sin phi, sin the cos phi, cos the); STOPGAP, ``sg_euler2matrix.m``.
    """
    phi, the, psi = _turns_zxz(np.asarray(orientations, dtype=np.float64))
    return _degrees(phi, the, psi)[:, [0, 2, 1]]


def motive_list_orientations(angles_degrees: Angles) -> Matrices:
    """Return matrices, shape (n, 3, 3), of the phi, psi and the of motive lists, degrees."""
    return _matrices("zxz", np.asarray(angles_degrees)[:, [0, 2, 1]])


def dynamo_angles(orientations: Matrices) -> Angles:
    """Return Dynamo's tdrot, tilt and narot.

    Parameters
    ----------
    orientations
        float64, shape (n, 3, 3), xyz, proper rotations.

    Returns
    -------
    float64, shape (n, 3): tdrot, tilt, narot in degrees, in [-180, 180), tilt in [0, 180]. Where
    the z axis stands upright, narot is 0.

    Notes
    -----
    Dynamo's matrix, Rz(narot) Rx(tilt) Rz(tdrot), turns the tomogram to the reference: it is the
    transpose of R, whose z column is (sin tdrot sin tilt, cos tdrot sin tilt, cos tilt).
    """
    r = np.asarray(orientations, dtype=np.float64)
    phi, the, psi = _turns_zxz(r)
    # R is Rz(-tdrot) Rx(-tilt) Rz(-narot); half a turn about z on both sides makes tilt positive,
    # and where it is 0 or 180 that is not needed.
    half = np.where(_slant(r)[1], 0.0, np.pi)
    return _degrees(half - psi, the, half - phi)


def dynamo_orientations(angles_degrees: Angles) -> Matrices:
    """Return matrices, shape (n, 3, 3), of Dynamo's tdrot, tilt and narot, (n, 3), degrees."""
    return _matrices("zxz", angles_degrees).transpose(0, 2, 1)


def _turns_zxz(r: Matrices) -> tuple[Angles, Angles, Angles]:
    """Return a, b, c, radians, of R = Rz(c) Rx(b) Rz(a)."""
    slant, upright = _slant(r)
    first = np.where(upright, 0.0, np.arctan2(r[:, 2, 0], r[:, 2, 1]))
    last = np.where(
        upright, np.arctan2(r[:, 1, 0], r[:, 0, 0]), np.arctan2(r[:, 0, 2], -r[:, 1, 2])
    )
    return first, np.arctan2(slant, r[:, 2, 2]), last


def _slant(r: Matrices) -> tuple[Angles, NDArray[np.bool_]]:
    """Return the sine of the z axis's tilt, and where it stands upright."""
    slant: Angles = np.hypot(r[:, 0, 2], r[:, 1, 2])
    return slant, slant < 1e-9


def _degrees(first: Angles, tilt: Angles, last: Angles) -> Angles:
    """Return angles in degrees, shape (n, 3), the turns about z in [-180, 180).

    They are rounded to 1e-9, so that -180 and 180, one direction, are written one way.
    """
    radians: Angles = np.stack([first, tilt, last], axis=1)
    degrees: Angles = np.round(radians * (180.0 / np.pi), 9)
    degrees[:, [0, 2]] = (degrees[:, [0, 2]] + 180.0) % 360.0 - 180.0
    return degrees


def _matrices(axes: str, angles_degrees: Angles) -> Matrices:
    angles = np.asarray(angles_degrees, dtype=np.float64)
    if not len(angles):
        return np.empty((0, 3, 3))
    matrices: Matrices = Rotation.from_euler(axes, angles, degrees=True).as_matrix()
    return matrices
