from dataclasses import replace

import numpy as np
import pytest

from tomoseg.analysis.filaments import tracing_defaults
from tomoseg.analysis.filaments.pick_axes import (
    PickAxes,
    PickTubes,
    between_picks,
    pick_axes,
    towards_neighbours,
)
from tomoseg.core.blocks import Box
from tomoseg.core.coordinates import Filament, Particles, frames, resample

RADIUS = 125.0
MICROTUBULE = tracing_defaults("microtubule")


def along(begin, end, spacing=42.0):
    return resample(np.array([begin, end], float), spacing)


def degrees(one, other):
    return np.rad2deg(np.arccos(np.abs((one * other).sum(axis=-1)).clip(0, 1)))


def test_a_pick_looks_along_the_line_of_its_neighbours():
    rng = np.random.default_rng(0)
    line = along((0, 0, 0), (600, 800, 3000))
    heading = (line[-1] - line[0]) / np.linalg.norm(line[-1] - line[0])
    found = towards_neighbours(line + rng.normal(0, 8, line.shape), RADIUS)
    assert degrees(found, heading).max() < 8


def test_at_a_crossing_a_pick_keeps_to_its_own_line():
    one = along((0, 0, -2000), (0, 0, 2000))
    other = along((30, -2000, 20), (30, 2000, 20))
    found = towards_neighbours(np.concatenate([one, other]), RADIUS)
    # At the crossing itself both are as good.
    far = np.abs(one[:, 2]) > 150
    assert degrees(found[: len(one)][far], np.array([0, 0, 1])).max() < 15


def test_a_lonely_pick_has_no_direction():
    points = np.array([[0, 0, 0], [0, 0, 50], [0, 0, 100], [0, 0, 5000], [0, 0, 9000]], float)
    found = towards_neighbours(points, RADIUS)
    assert np.isfinite(found).all(axis=1).tolist() == [True, True, True, False, False]


def picks_on(line, orientations=None):
    found = Particles.at("pick", line)
    return found if orientations is None else replace(found, orientations=orientations)


def test_orientations_are_taken_if_they_lie_along_the_lines():
    line = along((0, 0, 0), (600, 800, 3000))
    turned = frames(line)
    assert pick_axes(picks_on(line, turned), RADIUS).known_from == "orientations"
    # The x axis along the filament, as some templates have it.
    across = pick_axes(picks_on(line, turned[:, :, [2, 0, 1]]), RADIUS)
    assert across.known_from == "neighbours"
    assert degrees(across.directions, turned[0, ::-1, 2]).max() < 1
    assert pick_axes(picks_on(line), RADIUS).known_from == "neighbours"


def from_axis(points, begin, end):
    """Distance of points from a straight line."""
    u = (np.array(end, float) - begin) / np.linalg.norm(np.subtract(end, begin))
    return np.linalg.norm(np.cross(points - np.array(begin, float), u), axis=1)


@pytest.mark.parametrize("width", [60, 125, 250, 400, 500])
def test_hits_across_a_filament_come_to_lie_on_its_axis(width):
    rng = np.random.default_rng(0)
    line = along((0, 0, 0), (0, 0, 4000), 10.0)
    beside = rng.uniform(-0.5, 0.5, (len(line), 3)) * (20, width, 0)
    axes = pick_axes(picks_on(line + beside), RADIUS)
    off = from_axis(axes.points_angstrom, (0, 0, 0), (0, 0, 1))
    assert np.median(off) < 0.25 * RADIUS
    # Where a ribbon ends there are few hits to tell where its middle is.
    assert off.max() < RADIUS
    assert degrees(axes.directions, np.array([0, 0, 1])).max() < 15


def test_doubled_hits_change_nothing():
    line = along((0, 0, 0), (0, 0, 4000))
    once, twice = (pick_axes(picks_on(np.concatenate([line] * n)), RADIUS) for n in (1, 2))
    np.testing.assert_allclose(once.points_angstrom, twice.points_angstrom)


def test_a_stray_beside_a_thin_line_draws_it_not_aside():
    line = along((0, 0, 0), (0, 0, 4000))
    axes = pick_axes(picks_on(np.concatenate([line, [[0, 160, 150], [0, 2000, 2000]]])), RADIUS)
    away = from_axis(axes.points_angstrom, (0, 0, 0), (0, 0, 1))
    assert np.median(away) < 1
    assert away.max() < 0.1 * RADIUS


def test_a_bent_line_is_not_straightened():
    angle = np.arange(0, 0.6, 0.004)
    arc = 10_000 * np.stack([0 * angle, np.cos(angle), np.sin(angle)], axis=1)
    axes = pick_axes(picks_on(arc), RADIUS)
    away = np.linalg.norm(axes.points_angstrom, axis=1) - 10_000
    assert np.abs(away).max() < 0.1 * RADIUS


def test_picks_of_nothing_have_no_axes():
    for points in (np.zeros((0, 3)), np.zeros((1, 3)), np.zeros((50, 3))):
        assert len(pick_axes(picks_on(points), RADIUS).points_angstrom) == 0


def test_tubes_are_drawn_where_they_are_read():
    axes = PickAxes(np.zeros((1, 3)), np.array([[0, 0, 1.0]]), "neighbours")
    tubes = PickTubes.of(axes, MICROTUBULE, None)
    whole = tubes.read(Box.whole(tubes.sampling.shape))
    z, y, x = tubes.sampling.to_angstrom(np.argwhere(whole > 0.5)).T
    # A rod from -125 to 125 Å with round ends of 125 Å.
    assert np.hypot(z, y).max() < 130
    assert 215 < x.max() <= 250
    ball_and_tube = np.pi * RADIUS**3 * (2 + 4 / 3)
    assert whole.sum() * tubes.sampling.voxel_angstrom**3 == pytest.approx(ball_and_tube, rel=0.05)
    part = Box((5, 5, 4), (20, 22, 20))
    np.testing.assert_array_equal(tubes.read(part), whole[part.slices])


def test_a_line_is_cut_back_to_its_outermost_picks():
    line = Filament("tube", 3, along((0, 0, 0), (0, 0, 3000), 62.5), 0.7)
    cut = between_picks(line, along((20, 0, 500), (20, 0, 2500)), RADIUS)
    assert cut.points_angstrom[[0, -1], 2] == pytest.approx([500, 2500], abs=45)
    assert (cut.number, cut.score) == (3, 0.7)
    assert between_picks(line, np.array([[9e4, 0, 0]]), RADIUS) is line
