"""Euler angles of every program: the worked example, 10,000 orientations, and the poles."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from eulerangles import convert_eulers
from scipy.spatial.transform import Rotation

from tomoseg.core.coordinates import frames
from tomoseg.io.points.angles import (
    dynamo_angles,
    dynamo_orientations,
    motive_list_angles,
    motive_list_orientations,
    relion_angles,
    relion_orientations,
)

Convert = Callable[[np.ndarray], np.ndarray]

# zyx, along u = (0.6, 0.64, 0.48) xyz
LINE = np.array([[400.0, 1005, 602.5], [448, 1069, 662.5]])


def turn(axis: str, degrees: np.ndarray) -> np.ndarray:
    """Matrices of turns about one axis, written out."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    o, i = np.zeros_like(c), np.ones_like(c)
    rows = {"x": [[i, o, o], [o, c, -s], [o, s, c]], "z": [[c, -s, o], [s, c, o], [o, o, i]]}
    rows["y"] = [[c, o, s], [o, i, o], [-s, o, c]]
    return np.moveaxis(np.array(rows[axis]), 2, 0)


def relion_matrix(angles: np.ndarray) -> np.ndarray:
    """The transpose of RELION's Euler_angles2matrix."""
    rot, tilt, psi = angles.T
    return (turn("z", rot) @ turn("y", tilt) @ turn("z", psi)).transpose(0, 2, 1)


def dynamo_matrix(angles: np.ndarray) -> np.ndarray:
    """The transpose of Dynamo's matrix from tomogram to reference."""
    tdrot, tilt, narot = angles.T
    return (turn("z", narot) @ turn("x", tilt) @ turn("z", tdrot)).transpose(0, 2, 1)


def motive_list_matrix(angles: np.ndarray) -> np.ndarray:
    """sg_euler2matrix of STOPGAP."""
    phi, psi, the = angles.T
    return turn("z", psi) @ turn("x", the) @ turn("z", phi)


DIALECTS = pytest.mark.parametrize(
    ("angles_of", "orientations_of", "matrix"),
    [
        (relion_angles, relion_orientations, relion_matrix),
        (dynamo_angles, dynamo_orientations, dynamo_matrix),
        (motive_list_angles, motive_list_orientations, motive_list_matrix),
    ],
    ids=["relion", "dynamo", "motive list"],
)


def orientations() -> np.ndarray:
    """10,000 at random, then every way to stand upright, at and next to the poles."""
    poles = [
        (first, tilt, last)
        for first in (-180.0, -90.0, 0.0, 33.0, 180.0)
        for tilt in (0.0, 1e-12, 1e-7, 1e-3, 180 - 1e-3, 180 - 1e-7, 180.0)
        for last in (-180.0, -45.0, 0.0, 90.0)
    ]
    upright = [
        Rotation.from_euler(axes, poles, degrees=True).as_matrix() for axes in ("ZYZ", "ZXZ")
    ]
    return np.concatenate([Rotation.random(10_000, random_state=5).as_matrix(), *upright])


def degrees_apart(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Angle of the turn from one orientation to another, by the chord, exact when small."""
    return np.degrees(2 * np.arcsin(np.linalg.norm(one - other, axis=(1, 2)) / np.sqrt(8)))


@DIALECTS
def test_orientations_come_back(
    angles_of: Convert, orientations_of: Convert, matrix: Convert
) -> None:
    truth = orientations()
    angles = angles_of(truth)
    assert degrees_apart(matrix(angles), truth).max() < 1e-6
    assert degrees_apart(orientations_of(angles), truth).max() < 1e-6


@DIALECTS
def test_angles_have_one_spelling(
    angles_of: Convert, orientations_of: Convert, matrix: Convert
) -> None:
    truth = orientations()
    angles = angles_of(truth)
    tilt = angles[:, 2 if matrix is motive_list_matrix else 1]
    assert tilt.min() >= 0 and tilt.max() <= 180
    assert angles.min() >= -180
    turns = np.delete(angles, 2 if matrix is motive_list_matrix else 1, axis=1)
    assert turns.max() < 180
    # At a pole one turn about z says all.
    upright = (tilt == 0) | (tilt == 180)
    assert upright.sum() > 100
    alone = angles[upright][:, 2 if matrix is dynamo_matrix else 0]
    assert (alone == 0).all()


@DIALECTS
def test_an_unknown_orientation_is_three_zeros(
    angles_of: Convert, orientations_of: Convert, matrix: Convert
) -> None:
    assert angles_of(np.eye(3)[None]).tolist() == [[0, 0, 0]]
    assert orientations_of(np.empty((0, 3))).shape == (0, 3, 3)
    assert angles_of(np.empty((0, 3, 3))).shape == (0, 3)


@pytest.mark.parametrize(
    ("angles_of", "wanted"),
    [
        (relion_angles, {1: 61.314598, 2: 133.152390}),
        (dynamo_angles, {0: 43.152390, 1: 61.314598}),
        (motive_list_angles, {1: 136.847610, 2: 61.314598}),
    ],
    ids=["relion", "dynamo", "motive list"],
)
def test_the_worked_example(angles_of: Convert, wanted: dict[int, float]) -> None:
    found = angles_of(frames(LINE))
    for column, degrees in wanted.items():
        assert found[:, column] == pytest.approx([degrees] * 2, abs=1e-6)


def test_relion_and_dynamo_agree_with_eulerangles() -> None:
    truth = Rotation.random(300, random_state=2).as_matrix()
    converted = convert_eulers(relion_angles(truth), "relion", "dynamo")
    assert degrees_apart(dynamo_matrix(converted), truth).max() < 1e-5
    converted = convert_eulers(dynamo_angles(truth), "dynamo", "relion")
    assert degrees_apart(relion_matrix(converted), truth).max() < 1e-5


def test_motive_lists_are_dynamo_backwards() -> None:
    """Both conversions of the table of conventions: Dynamo is (-psi, -the, -phi)."""
    truth = Rotation.random(300, random_state=4).as_matrix()
    phi, psi, the = motive_list_angles(truth).T
    np.testing.assert_allclose(
        dynamo_orientations(-np.stack([psi, the, phi], axis=1)), truth, atol=1e-9
    )
    rot, tilt, relion_psi = relion_angles(truth).T
    np.testing.assert_allclose((90 - rot - phi + 180) % 360, 180, atol=1e-6)
    np.testing.assert_allclose((-relion_psi - 90 - psi + 180) % 360, 180, atol=1e-6)
    np.testing.assert_allclose(the, tilt, atol=1e-6)
