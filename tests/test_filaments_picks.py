from dataclasses import replace

import numpy as np
import pytest

from tomoseg.blocks import Box
from tomoseg.coordinates import Filament, Particles, frames, resample
from tomoseg.filaments import tracing_defaults
from tomoseg.filaments.picks import (
    PickTubes,
    between_picks,
    pick_directions,
    towards_neighbours,
)

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
    directions, known_from = pick_directions(picks_on(line, turned), RADIUS)
    assert known_from == "orientations"
    np.testing.assert_array_equal(directions, turned[:, ::-1, 2])
    # The x axis along the filament, as some templates have it.
    across = turned[:, :, [2, 0, 1]]
    directions, known_from = pick_directions(picks_on(line, across), RADIUS)
    assert known_from == "neighbours"
    assert degrees(directions, turned[:, ::-1, 2]).max() < 1
    assert pick_directions(picks_on(line), RADIUS)[1] == "neighbours"


def test_tubes_are_drawn_where_they_are_read():
    directions = np.array([[0, 0, 1.0], [np.nan] * 3])
    points = np.array([[0, 0, 0], [2000, 0, 0]], float)
    tubes = PickTubes.of(points, directions, MICROTUBULE, None)
    whole = tubes.read(Box.whole(tubes.sampling.shape))
    z, y, x = tubes.sampling.to_angstrom(np.argwhere(whole > 0.5)).T
    # A rod from -125 to 125 Å with round ends of 125 Å; nothing at the pick without direction.
    assert np.hypot(z, y).max() < 130
    assert 215 < x.max() <= 250
    ball_and_tube = np.pi * RADIUS**3 * (2 + 4 / 3)
    assert whole.sum() * tubes.sampling.voxel_angstrom**3 == pytest.approx(ball_and_tube, rel=0.05)
    part = Box((60, 5, 4), (80, 22, 20))
    np.testing.assert_array_equal(tubes.read(part), whole[part.slices])


def test_a_line_is_cut_back_to_its_outermost_picks():
    line = Filament("tube", 3, along((0, 0, 0), (0, 0, 3000), 62.5), 0.7)
    cut = between_picks(line, along((20, 0, 500), (20, 0, 2500)), RADIUS)
    assert cut.points_angstrom[[0, -1], 2] == pytest.approx([500, 2500], abs=45)
    assert (cut.number, cut.score) == (3, 0.7)
    assert between_picks(line, np.array([[9e4, 0, 0]]), RADIUS) is line
