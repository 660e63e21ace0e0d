"""Lines, their frames, and what is refused."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tomoseg.core.coordinates import (
    Filament,
    Particles,
    flip_z,
    frames,
    numbered,
    resample,
    tangents,
)
from tomoseg.core.errors import RequestError
from tomoseg.core.sampling import Sampling

Points = NDArray[np.float64]


def wiggle(n: int, seed: int, reach: float = 0.5) -> Points:
    """Return a line that bends at random but does not turn back, spacing about 1."""
    steps = np.random.default_rng(seed).normal(size=(n, 3)) * reach / 3 + [0.3, 0.6, 0.7]
    return np.cumsum(steps, axis=0)


@given(st.integers(2, 30), st.integers(0, 999), st.floats(0.05, 40))
def test_resampled_points_lie_at_equal_distances_along_the_line(
    n: int, seed: int, spacing: float
) -> None:
    line = wiggle(n, seed)
    found = resample(line, spacing)
    lengths = np.linalg.norm(np.diff(line, axis=0), axis=1)
    assert len(found) == int(lengths.sum() / spacing + 1e-9) + 1
    for i, point in enumerate(found):
        rest, segment = i * spacing, 0
        while segment < len(lengths) - 1 and rest > lengths[segment]:
            rest -= lengths[segment]
            segment += 1
        wanted = line[segment] + (line[segment + 1] - line[segment]) * rest / lengths[segment]
        np.testing.assert_allclose(point, wanted, atol=1e-8)


def test_resampling_passes_over_points_that_coincide() -> None:
    line = np.array([[0.0, 0, 0], [0, 0, 5], [0, 0, 5], [0, 0, 10]])
    assert resample(line, 2.5)[:, 2].tolist() == [0, 2.5, 5, 7.5, 10]


def test_resampling_to_whole_parts_keeps_the_end() -> None:
    line = np.array([[0.0, 0, 0], [0, 0, 0.3]])
    assert len(resample(line, 0.1)) == 4


@pytest.mark.parametrize("spacing", [0.0, -1.0, float("nan")])
def test_impossible_spacing_is_refused(spacing: float) -> None:
    with pytest.raises(RequestError, match="spacing"):
        resample(np.zeros((2, 3)), spacing)


@given(st.integers(2, 40), st.integers(0, 999))
def test_frames_are_proper_rotations_along_the_line(n: int, seed: int) -> None:
    line = wiggle(n, seed)
    found = frames(line)
    np.testing.assert_allclose(
        found.transpose(0, 2, 1) @ found, np.tile(np.eye(3), (n, 1, 1)), atol=1e-9
    )
    np.testing.assert_allclose(np.linalg.det(found), 1.0, atol=1e-9)
    np.testing.assert_allclose(found[:, :, 2], tangents(line)[:, ::-1], atol=1e-12)


@given(st.integers(0, 999), st.floats(0.02, 0.2))
def test_frames_do_not_twist_on_a_plane_curve(seed: int, step: float) -> None:
    """The plane's normal keeps its place in a frame that is carried without twist."""
    angle = np.arange(30) * step
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    flat = np.stack([np.cos(angle), np.sin(angle) * 0.8, np.zeros(30)], axis=1)
    found = frames(flat @ turn.T)
    normal_xyz = turn[:, 2][::-1]
    seen = np.einsum("nji,j->ni", found, normal_xyz)
    np.testing.assert_allclose(seen, np.tile(seen[0], (30, 1)), atol=1e-6)


@given(st.tuples(*[st.floats(-1, 1)] * 3))
def test_the_first_frame_has_relion_angle_rot_0(direction_zyx: tuple[float, float, float]) -> None:
    direction = np.array(direction_zyx)
    assume(np.linalg.norm(direction) > 0.1)
    found = frames(np.stack([direction * 0, direction]))[0]
    unit = direction[::-1] / np.linalg.norm(direction)
    tilt, psi = np.arccos(np.clip(unit[2], -1, 1)), np.arctan2(unit[1], -unit[0])
    if np.hypot(unit[0], unit[1]) < 1e-6:
        return
    cb, sb, cg, sg = np.cos(tilt), np.sin(tilt), np.cos(psi), np.sin(psi)
    # Rz(psi) Ry(tilt) of RELION's Euler_angles2matrix with rot = 0.
    wanted = np.array([[cg * cb, sg, -cg * sb], [-sg * cb, cg, sg * sb], [sb, 0, cb]])
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("z", [1.0, -1.0])
def test_frames_at_the_poles(z: float) -> None:
    found = frames(np.array([[0.0, 0, 0], [z, 0, 0]]))[0]
    np.testing.assert_allclose(found, np.diag([z, 1.0, z]), atol=1e-12)


@pytest.mark.parametrize(
    "line",
    [
        [(0, 0, 0), (0, 0, 0)],
        [(0, 0, 0), (0, 0, 1), (0, 0, 1), (0, 1, 1)],
        [(0, 0, 0), (0, 0, 1), (0, 0, 0)],
    ],
    ids=["one place", "two points coincide", "turns back on itself"],
)
def test_a_line_without_direction_is_refused(line: list[tuple[int, int, int]]) -> None:
    with pytest.raises(RequestError, match="direction"):
        frames(np.array(line, np.float64))


@given(st.integers(2, 20), st.integers(0, 99))
def test_length_is_the_sum_of_the_steps(n: int, seed: int) -> None:
    line = wiggle(n, seed)
    filament = Filament("actin", 1, line)
    steps = [np.linalg.norm(b - a) for a, b in pairwise(line)]
    assert filament.length_angstrom == pytest.approx(sum(steps))
    assert filament.track_angstrom[0] == 0
    assert filament.track_angstrom.shape == (n,)


@pytest.mark.parametrize(
    "points",
    [[(0, 0, 0)], [(0, 0), (1, 1)], [(0, 0, 0), (0, float("nan"), 0)]],
    ids=["one point", "two axes", "nan"],
)
def test_impossible_filaments_are_refused(points: list[tuple[float, ...]]) -> None:
    with pytest.raises(RequestError):
        Filament("actin", 1, np.array(points, np.float64))


def test_particles_of_unknown_orientation_do_not_turn() -> None:
    found = Particles.at("ribosome", np.array([[1.0, 2, 3], [4, 5, 6]]))
    assert len(found) == 2
    assert np.isnan(found.scores).all()
    np.testing.assert_array_equal(found.orientations[1], np.eye(3))
    assert len(Particles.at("ribosome", np.zeros(0))) == 0


def test_numbering_starts_at_1_and_keeps_the_rest() -> None:
    line = np.array([[0.0, 0, 0], [0, 0, 9]])
    found = numbered([Filament("actin", 7, line, 0.5), Filament("microtubule", 7, line)])
    assert [(f.number, f.name) for f in found] == [(1, "actin"), (2, "microtubule")]
    assert found[0].score == 0.5


GRID = Sampling((5, 4, 3), (2.0, 1.0, 1.0))


def test_slices_in_the_opposite_order_mirror_z_alone() -> None:
    """Voxels 0 and 4 of five slices of 2 Å change places; the middle stays."""
    points = np.array([[0.0, 1, 2], [8, 3, 0], [4, 0, 0], [-1, 0, 0]])
    wanted = [[8.0, 1, 2], [0, 3, 0], [4, 0, 0], [9, 0, 0]]
    assert flip_z(points, GRID).tolist() == wanted
    line = Filament("actin", 7, points, 0.5, polarity_known=True).flip_z(GRID)
    assert line.points_angstrom.tolist() == wanted
    assert (line.name, line.number, line.score, line.polarity_known) == ("actin", 7, 0.5, True)


def test_a_mirrored_frame_is_right_handed_and_looks_the_mirrored_way() -> None:
    """x and z are mirrored with the volume; y = z × x. From x = -z, y = y, z = x."""
    turn = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    particles = Particles("ribosome", np.zeros((1, 3)), np.ones(1), turn[None])
    [mirrored] = particles.flip_z(GRID).orientations
    assert mirrored[:, 0].tolist() == [0, 0, 1]
    assert mirrored[:, 1].tolist() == [0, -1, 0]
    assert mirrored[:, 2].tolist() == [1, 0, 0]
    assert np.linalg.det(mirrored) == pytest.approx(1)
    again = particles.flip_z(GRID).flip_z(GRID)
    np.testing.assert_array_equal(again.orientations, particles.orientations)
    assert len(Particles.at("x", np.zeros(0)).flip_z(GRID)) == 0


def test_numbering_keeps_the_polarity() -> None:
    line = np.array([[0.0, 0, 0], [0, 0, 9]])
    [found] = numbered([Filament("actin", 7, line, polarity_known=True)])
    assert found.polarity_known
