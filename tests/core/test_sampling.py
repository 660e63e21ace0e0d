"""Conversions between voxels and ångström, there and back and against plain arithmetic."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tomoseg.core.errors import RequestError
from tomoseg.core.sampling import Header, Sampling, Shape, Triple, as_shape, xyz

shapes = st.tuples(*[st.integers(1, 40)] * 3)
sizes = st.tuples(*[st.floats(0.5, 60)] * 3)
places = st.tuples(*[st.floats(-5000, 5000)] * 3)
grids = st.builds(Sampling, shapes, sizes, places)


@given(grids, st.lists(places, min_size=1, max_size=5))
def test_there_and_back(grid: Sampling, points: list[Triple]) -> None:
    np.testing.assert_allclose(grid.to_voxels(grid.to_angstrom(points)), points, atol=1e-7)
    np.testing.assert_allclose(grid.to_angstrom(grid.to_voxels(points)), points, atol=1e-7)


@given(grids, st.tuples(*[st.integers(-3, 45)] * 3))
def test_a_voxel_lies_in_the_grid_exactly_if_its_index_does(grid: Sampling, voxel: Shape) -> None:
    inside = all(0 <= i < n for i, n in zip(voxel, grid.shape, strict=True))
    assert grid.contains(grid.to_angstrom([voxel])).tolist() == [inside]


def test_a_voxel_covers_its_lower_half_edge_and_not_the_upper_one() -> None:
    grid = Sampling((4, 4, 4), (10.0, 10.0, 10.0))
    points = [(-5, 0, 0), (-5.1, 0, 0), (35, 0, 0), (34.9, 0, 0)]
    assert grid.contains(points).tolist() == [True, False, False, True]


@given(grids, st.integers(1, 6))
def test_a_binned_voxel_stands_at_the_mean_of_those_it_is_made_of(
    grid: Sampling, factor: int
) -> None:
    if factor > min(grid.shape[1:] if grid.is_flat else grid.shape):
        with pytest.raises(RequestError, match=f"by {factor}"):
            grid.binned(factor)
        return
    binned = grid.binned(factor)
    # The only slice of a micrograph is left alone.
    bins = (1 if grid.shape[0] == 1 else factor, factor, factor)
    assert binned.shape == tuple(n // b for n, b in zip(grid.shape, bins, strict=True))
    assert binned.voxel_size_angstrom == tuple(factor * s for s in grid.voxel_size_angstrom)
    last = np.array(binned.shape) - 1
    for voxel in ((0, 0, 0), tuple(last)):
        sources = [np.multiply(voxel, bins) + s for s in product(*map(range, bins))]
        wanted = grid.to_angstrom(sources).mean(axis=0)
        np.testing.assert_allclose(binned.to_angstrom([voxel])[0], wanted, atol=1e-8)


@given(grids)
def test_binning_twice_is_binning_by_the_product(grid: Sampling) -> None:
    if min(grid.shape) < 6:
        return
    once, twice = grid.binned(6), grid.binned(2).binned(3)
    assert once.shape == twice.shape
    np.testing.assert_allclose(once.first_voxel_angstrom, twice.first_voxel_angstrom, atol=1e-8)
    np.testing.assert_allclose(once.voxel_size_angstrom, twice.voxel_size_angstrom, rtol=1e-12)


@given(grids, st.floats(0.7, 50))
def test_a_resampled_grid_covers_the_source_and_little_more(
    grid: Sampling, voxel_angstrom: float
) -> None:
    new = grid.resampled(voxel_angstrom)
    size = np.array(grid.voxel_size_angstrom)
    low, high = np.array([[-0.5] * 3, np.array(grid.shape) - 0.5]) * size
    new_low = new.to_angstrom([[-0.5] * 3])[0] - grid.first_voxel_angstrom
    new_high = new.to_angstrom([np.array(new.shape) - 0.5])[0] - grid.first_voxel_angstrom
    if grid.is_flat:
        # One slice stays one slice, and its centre where it is.
        assert new.shape[0] == 1 and new.first_voxel_angstrom[0] == grid.first_voxel_angstrom[0]
        low, high, new_low, new_high = (edge[1:] for edge in (low, high, new_low, new_high))
    np.testing.assert_allclose(new_low, low, atol=1e-7)
    assert (new_high >= high - 1e-5 * voxel_angstrom).all()
    assert (new_high < high + voxel_angstrom * (1 + 1e-9)).all()


def test_resampling_to_the_same_size_changes_nothing() -> None:
    grid = Sampling((7, 8, 9), (13.68,) * 3, (1.0, 2.0, 3.0))
    same = grid.resampled(13.68)
    assert same.shape == grid.shape
    np.testing.assert_allclose(same.first_voxel_angstrom, grid.first_voxel_angstrom, atol=1e-12)


@given(grids)
def test_a_grid_survives_json(grid: Sampling) -> None:
    assert Sampling.from_dict(json.loads(json.dumps(grid.as_dict()))) == grid
    header = Header(grid, "int16", (1.5, 2.5, 3.5), (0, -4, 7), ("mz was 1",))
    assert Header.from_dict(json.loads(json.dumps(header.as_dict()))) == header
    earlier = {key: value for key, value in header.as_dict().items() if key != "has_imods_origin"}
    assert Header.from_dict(earlier) == header


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((0, 4, 4), (1.0, 1.0, 1.0)),
        ((4, 4, 4), (1.0, 0.0, 1.0)),
        ((4, 4, 4), (1.0, -2.0, 1.0)),
        ((4, 4, 4), (float("nan"), 1.0, 1.0)),
        ((4, 4, 4), (1.0, 1.0, float("inf"))),
    ],
    ids=["no voxel", "no length", "negative", "nan", "infinite"],
)
def test_impossible_grids_are_refused(shape: Shape, size: Triple) -> None:
    with pytest.raises(RequestError):
        Sampling(shape, size)


@pytest.mark.parametrize("place", [(0.0, float("nan"), 0.0), (float("inf"), 0.0, 0.0)])
def test_a_grid_must_be_somewhere(place: Triple) -> None:
    with pytest.raises(RequestError, match="first voxel"):
        Sampling((2, 2, 2), (1.0, 1.0, 1.0), place)


@pytest.mark.parametrize("voxel_angstrom", [0.0, -3.0, float("nan"), float("inf")])
def test_impossible_resampling_is_refused(voxel_angstrom: float) -> None:
    with pytest.raises(RequestError, match="positive and finite"):
        Sampling((4, 4, 4), (1.0, 1.0, 1.0)).resampled(voxel_angstrom)


def test_physical_measures() -> None:
    grid = Sampling((2, 2, 2), (20.0, 10.0, 30.0))
    assert grid.voxel_volume_nm3 == pytest.approx(6.0)
    assert grid.voxel_angstrom == pytest.approx(20.0)


def test_numpy_numbers_become_plain_ones() -> None:
    grid = Sampling(as_shape(np.array([2, 3, 4])), tuple(np.float32([1, 2, 3])))  # type: ignore[arg-type]
    assert all(type(n) is int for n in grid.shape)
    assert all(type(size) is float for size in grid.voxel_size_angstrom)


def test_xyz_reverses_the_last_axis_alone() -> None:
    points = np.arange(12.0).reshape(2, 2, 3)
    assert xyz(points)[0, 1].tolist() == [5, 4, 3]
    np.testing.assert_array_equal(xyz(xyz(points)), points)
