"""What lies around particles, against brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from tomoseg.analysis.particles.surroundings import (
    Enclosures,
    enclosures,
    nearest_objects,
    nearest_voxels,
    neighbours,
)
from tomoseg.core.blocks import Box
from tomoseg.core.sampling import Sampling

GRID = Sampling((12, 14, 16), (20.0, 10.0, 10.0), (5.0, 0.0, -5.0))


def test_neighbours_are_counted_without_the_particle_itself():
    points = np.array([(0, 0, 0), (0, 0, 30), (0, 40, 0), (0, 0, 500)], float)
    counts, nearest = neighbours(points, 45.0)
    assert counts.tolist() == [2, 1, 1, 0]
    np.testing.assert_allclose(nearest, [30, 30, 40, 470])


@pytest.mark.parametrize("number", [0, 1])
def test_one_alone_has_no_neighbour(number):
    counts, nearest = neighbours(np.zeros((number, 3)), 45.0)
    assert counts.tolist() == [0] * number
    assert np.isnan(nearest).all() and nearest.shape == (number,)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([15.0, 45.0, 400.0]))
def test_the_nearest_object_is_that_of_all_voxels(seed, limit):
    rng = np.random.default_rng(seed)
    objects = rng.integers(1, 5, GRID.shape) * (rng.random(GRID.shape) < rng.choice([0.002, 0.3]))
    points = GRID.to_angstrom(rng.integers(0, GRID.shape, (6, 3)) + rng.choice([0, 0.25], (6, 3)))
    found = nearest_objects(objects, (0, 0, 0), points, sampling=GRID, limit_angstrom=limit)
    voxels = np.argwhere(objects > 0)
    places = GRID.to_angstrom(voxels)
    for row, point in enumerate(points):
        away = np.linalg.norm(places - point, axis=1)
        here = objects[tuple(nearest_voxels(point[None], GRID)[0])]
        if here:
            assert (found.angstrom[row], found.numbers[row]) == (0, here)
        elif len(away) and away.min() < limit:
            nearest = objects[tuple(voxels[np.isclose(away, away.min(), rtol=1e-12)].T)]
            assert found.angstrom[row] == pytest.approx(away.min())
            assert found.numbers[row] == nearest.min()
        else:
            assert np.isnan(found.angstrom[row]) and found.numbers[row] == 0


def test_the_box_that_was_read_does_not_matter():
    rng = np.random.default_rng(1)
    objects = rng.integers(1, 9, GRID.shape) * (rng.random(GRID.shape) < 0.01)
    points = GRID.to_angstrom([(6.1, 7, 8)])
    whole = nearest_objects(objects, (0, 0, 0), points, sampling=GRID, limit_angstrom=40.0)
    box = Box((3, 2, 3), (10, 13, 14))
    part = nearest_objects(
        objects[box.slices], box.begin, points, sampling=GRID, limit_angstrom=40.0
    )
    assert np.isfinite(whole.angstrom).all()
    assert whole.angstrom == part.angstrom and whole.numbers == part.numbers


def test_nested_walls():
    # Border part 1, shell 1 around part 2, in it shell 2 around part 3; part 4 lies in a third
    # shell beside them; object 4 is a speck in part 3 and closes in nothing.
    walls = np.array([(1, 1), (2, 1), (2, 2), (3, 2), (1, 3), (4, 3), (3, 4)])
    voxels, is_open = np.array([900, 60, 20, 8]), np.array([True, False, False, False])
    found = enclosures(walls, voxels, is_open)
    assert dict(found.around) == {2: (1,), 3: (2, 1), 4: (3,)}
    parts = np.array([1, 2, 3, 4, 3, 2, 0, 3])
    nearest = np.array([1, 1, 2, 3, 1, 2, 1, 4])
    # Between the shells one is inside the outer and outside the inner one.
    assert found.sides(parts, nearest).tolist() == [1, -1, -1, -1, -1, 1, 0, 0]
    assert found.innermost(parts).tolist() == [0, 1, 2, 3, 2, 1, 0, 2]
    assert dict(enclosures(walls, voxels, is_open, least_voxels=10).around) == {2: (1,), 3: (2, 1)}


def test_without_a_closed_wall_there_is_no_side():
    found = enclosures(np.array([(1, 1), (2, 1)]), np.array([50, 50]), np.array([True, True]))
    assert found.sides(np.array([1, 2]), np.array([1, 1])).tolist() == [0, 0]
    assert Enclosures().innermost(np.array([1, 2])).tolist() == [0, 0]


def wall_pairs(parts, objects):
    """Pairs of a part and an object whose voxels share a face, one voxel at a time."""
    pairs = set()
    for z, y, x in np.argwhere(parts):
        for step in np.concatenate([np.eye(3, dtype=int), -np.eye(3, dtype=int)]):
            other = np.array((z, y, x)) + step
            if (other >= 0).all() and (other < parts.shape).all() and objects[tuple(other)]:
                pairs.add((int(parts[z, y, x]), int(objects[tuple(other)])))
    return np.array(sorted(pairs), np.int64).reshape(-1, 2)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.4, 0.8))
def test_what_an_object_closes_in_is_what_floods_from_the_border_do_not_reach(seed, share):
    rng = np.random.default_rng(seed)
    mask = np.pad(rng.random((5, 6, 7)) < share, 1)
    objects, number = ndimage.label(mask, np.ones((3, 3, 3)))
    parts, free = ndimage.label(~mask)
    index = range(1, free + 1)
    border = np.unique(parts[~np.pad(np.ones(np.subtract(parts.shape, 2), bool), 1)])
    is_open = np.isin(index, border)
    sizes = np.bincount(parts.ravel(), minlength=free + 1)[1:]
    found = enclosures(wall_pairs(parts, objects), sizes, is_open)
    for one in range(1, number + 1):
        rest, _ = ndimage.label(objects != one)
        inside = np.unique(parts[(rest != rest[0, 0, 0]) & (rest > 0) & (parts > 0)])
        assert {part for part in index if one in found.around.get(part, ())} == set(inside.tolist())
