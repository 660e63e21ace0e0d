"""A handed arrangement keeps its hand through every table, and changes it when it is mirrored.

Particles sit on a helix, each one screw step from the one before: seen from its own frame, the
next one is always at the same place and turned by the same angle. What other libraries and
formulas written out here make of each table is compared with that.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import dynamotable
import emfile
import numpy as np
import pytest
import starfile
from scipy.spatial.transform import Rotation

from tomoseg.core.coordinates import Filament, Particles
from tomoseg.core.sampling import Sampling
from tomoseg.io.points.dialects import TomoContext, TomogramPoints, WriteOptions
from tomoseg.io.points.dynamo import Dynamo
from tomoseg.io.points.motive_lists import Av3, Stopgap
from tomoseg.io.points.relion import Relion5
from tomoseg.io.points.relion_pixels import Relion4, Warp

GRID = Sampling((100, 250, 240), (10.0, 10.0, 10.0))
CONTEXT = TomoContext("TS_01", GRID, 2.5, (960, 1000, 400))
EACH = pytest.mark.parametrize(
    "dialect",
    [Relion5(), Relion4(), Warp(), Dynamo(), Stopgap(), Av3()],
    ids=lambda dialect: dialect.name,
)
Poses = tuple[np.ndarray, np.ndarray]

# The screw, in the frame of each particle, xyz, Å: 40° to the left about an axis aslant.
STEP = np.array([30.0, -12.0, 55.0])
TURN = Rotation.from_rotvec(np.radians(40) * np.array([0.48, 0.6, 0.64])).as_matrix()


def screw() -> Poses:
    """Positions, shape (n, 3), and orientations, shape (n, 3, 3), xyz, of 12 particles."""
    points, turns = [np.array([900.0, 1100, 300])], [Rotation.random(random_state=8).as_matrix()]
    for _ in range(11):
        points.append(points[-1] + turns[-1] @ STEP)
        turns.append(turns[-1] @ TURN)
    return np.array(points), np.array(turns)


def particles() -> TomogramPoints:
    points, turns = screw()
    found = Particles("ribosome", points[:, ::-1].copy(), np.full(12, np.nan), turns)
    return TomogramPoints(CONTEXT, particles=[found])


def helix() -> TomogramPoints:
    """A right-handed helix about an axis aslant: its torsion is above 0."""
    turn = np.linspace(0, 6 * np.pi, 400)
    upright = np.stack([200 * np.cos(turn), 200 * np.sin(turn), 40 * turn], axis=1)
    points = Rotation.from_euler("zyx", (20, 50, -30), degrees=True).apply(upright)
    return TomogramPoints(
        CONTEXT, [Filament("actin", 1, np.add(points, (1000, 1100, 100))[:, ::-1])]
    )


def files(dialect: Any, points: TomogramPoints, folder: str) -> Path:
    """Write a table and return where it is."""
    for name, data in dialect.write([points], "all", WriteOptions({"actin": 25.0})).items():
        (Path(folder) / name).write_bytes(data)
    suffix = {"dynamo": ".tbl", "stopgap": "__motl.star", "av3": "__motl.em"}
    return Path(folder) / f"all{suffix.get(dialect.name, '.star')}"


def poses(dialect: Any, points: TomogramPoints) -> Poses:
    """Positions and orientations, xyz, Å, as others read them."""
    with tempfile.TemporaryDirectory() as folder:
        path = files(dialect, points, folder)
        if dialect.name == "dynamo":
            table = dynamotable.read(str(path))
            turns = Rotation.from_euler("zxz", table[["tdrot", "tilt", "narot"]], degrees=True)
            return 10 * (table[["x", "y", "z"]].to_numpy() - 0.5), turns.inv().as_matrix()
        if dialect.name == "av3":
            rows = emfile.read(path)[1][0].astype(np.float64)
            turns = Rotation.from_euler("zxz", rows[:, [16, 18, 17]], degrees=True)
            return 10 * (rows[:, 7:10] + rows[:, 10:13] - 1), turns.as_matrix()
        table = list(starfile.read(path, always_dict=True).values())[-1]
    if dialect.name == "stopgap":
        turns = Rotation.from_euler("zxz", table[["phi", "the", "psi"]], degrees=True)
        shift = table[["x_shift", "y_shift", "z_shift"]].to_numpy()
        return 10 * (
            table[["orig_x", "orig_y", "orig_z"]].to_numpy() + shift - 1
        ), turns.as_matrix()
    if dialect.name == "relion5":
        centred = table[[f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ"]].to_numpy()
        positions = np.add(centred, (1200, 1250, 500))
    else:
        pixel = 2.5 if dialect.name == "relion4" else 10.0
        positions = pixel * table[[f"rlnCoordinate{axis}" for axis in "XYZ"]].to_numpy()
    turns = Rotation.from_euler("ZYZ", np.zeros((len(table), 3)))
    for triple in ("rlnTomoSubtomogram", "rlnAngle"):
        columns = [f"{triple}{angle}" for angle in ("Rot", "Tilt", "Psi")]
        if columns[0] in table:
            turns *= Rotation.from_euler("ZYZ", table[columns], degrees=True).inv()
    return positions, turns.as_matrix()


def steps(found: Poses) -> Poses:
    """Where the next particle is, and how it is turned, in the frame of each."""
    points, turns = found
    forth = np.einsum("nji,nj->ni", turns[:-1], np.diff(points, axis=0))
    return forth, np.einsum("nji,njk->nik", turns[:-1], turns[1:])


def torsion(points: np.ndarray) -> np.ndarray:
    """The triple product of successive steps; its sign is the hand, whatever the axes' order."""
    along = np.diff(points, axis=0)
    return np.einsum("ni,ni->n", along[:-2], np.cross(along[1:-1], along[2:]))


@EACH
def test_particles_keep_their_hand(dialect: Any) -> None:
    forth, turned = steps(poses(dialect, particles()))
    np.testing.assert_allclose(forth, np.tile(STEP, (11, 1)), atol=1e-3)
    np.testing.assert_allclose(turned, np.tile(TURN, (11, 1, 1)), atol=1e-5)


@EACH
def test_mirrored_particles_change_their_hand(dialect: Any) -> None:
    """Where z counts the other way, the screw is the mirror image, seen across the y axis."""
    found = poses(dialect, particles().flip_z())
    np.testing.assert_allclose(found[0][:, :2], screw()[0][:, :2], atol=1e-3)
    np.testing.assert_allclose(found[0][:, 2], 990 - screw()[0][:, 2], atol=1e-3)
    mirror = np.diag([1.0, -1.0, 1.0])
    forth, turned = steps(found)
    np.testing.assert_allclose(forth, np.tile(mirror @ STEP, (11, 1)), atol=1e-3)
    np.testing.assert_allclose(turned, np.tile(mirror @ TURN @ mirror, (11, 1, 1)), atol=1e-5)
    np.testing.assert_allclose(np.linalg.det(found[1]), 1.0, atol=1e-9)
    np.testing.assert_allclose(found[1][:, :, 2], screw()[1][:, :, 2] * [1, 1, -1], atol=1e-5)


@EACH
@pytest.mark.parametrize("is_mirrored", [False, True], ids=["as it is", "mirrored"])
def test_filaments_keep_or_change_their_hand(dialect: Any, is_mirrored: bool) -> None:
    line = helix().flip_z() if is_mirrored else helix()
    points, turns = poses(dialect, line)
    assert len(points) > 30
    assert (torsion(points) * (-1 if is_mirrored else 1) > 0).all()
    np.testing.assert_allclose(np.linalg.det(turns), 1.0, atol=1e-9)
    # The frames are along the line that was written, in its direction.
    along = np.diff(points, axis=0) / np.linalg.norm(np.diff(points, axis=0), axis=1)[:, None]
    assert np.einsum("ni,ni->n", along, turns[:-1, :, 2]).min() > 0.99


@EACH
def test_what_is_mirrored_twice_is_what_it_was(dialect: Any) -> None:
    for points in (particles(), helix()):
        once, twice = poses(dialect, points), poses(dialect, points.flip_z().flip_z())
        np.testing.assert_allclose(twice[0], once[0], atol=1e-3)
        np.testing.assert_allclose(twice[1], once[1], atol=1e-5)


@EACH
def test_we_read_the_hand_that_we_wrote(dialect: Any) -> None:
    for points in (particles(), particles().flip_z()):
        with tempfile.TemporaryDirectory() as folder:
            data = files(dialect, points, folder).read_bytes()
        [back] = dialect.read(data, [CONTEXT], name="ribosome")
        [found], [truth] = back.particles, points.particles
        np.testing.assert_allclose(found.points_angstrom, truth.points_angstrom, atol=1e-3)
        np.testing.assert_allclose(found.orientations, truth.orientations, atol=1e-5)
