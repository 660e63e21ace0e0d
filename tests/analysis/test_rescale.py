"""Resampling between grids: exact on ramps, independent of the boxes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tomoseg.analysis.rescale import Rescaling
from tomoseg.core.blocks import BlockGrid, Box
from tomoseg.core.sampling import Sampling


@pytest.mark.parametrize("voxel", [7.0, 10.0, 12.0, 23.0])
def test_a_ramp_in_space_stays_that_ramp(voxel):
    source = Sampling((24, 30, 36), (10.0, 10.0, 10.0))
    target = source.resampled(voxel)
    points = source.to_angstrom(np.stack(np.indices(source.shape), -1).reshape(-1, 3))
    ramp = (points @ [1.0, 2.0, 3.0]).reshape(source.shape).astype(np.float32)
    seen = Rescaling(source, target).apply(ramp, Box.whole(source.shape), Box.whole(target.shape))
    inner = tuple(slice(4, -4) for _ in range(3))
    wanted = target.to_angstrom(np.stack(np.indices(target.shape), -1).reshape(-1, 3))
    wanted = (wanted @ [1.0, 2.0, 3.0]).reshape(target.shape)
    slopes = 1.0 + 2.0 + 3.0
    displaced_angstrom = np.abs(seen[inner] - wanted[inner]).max() / slopes
    assert displaced_angstrom < 1e-4 * voxel


def test_the_same_grid_changes_nothing():
    grid = Sampling((6, 7, 8), (12.0, 12.0, 12.0))
    values = np.random.default_rng(0).random(grid.shape, np.float32)
    whole = Box.whole(grid.shape)
    np.testing.assert_array_equal(Rescaling(grid, grid).apply(values, whole, whole), values)


@given(
    voxel=st.sampled_from([6.5, 9.0, 10.52, 14.0, 20.0]),
    block=st.tuples(*[st.integers(2, 9)] * 3),
)
@settings(max_examples=25)
def test_any_box_gives_the_whole_volume_bit_for_bit(voxel, block):
    source = Sampling((14, 17, 20), (10.0, 11.0, 12.0))
    target = source.resampled(voxel)
    rescaling = Rescaling(source, target)
    values = np.random.default_rng(1).normal(size=source.shape).astype(np.float32)
    whole = rescaling.apply(values, Box.whole(source.shape), Box.whole(target.shape))
    for part in BlockGrid(target.shape, block):
        box = rescaling.needed(part.write)
        assert Box.whole(source.shape).contains(box)
        seen = rescaling.apply(values[box.slices], box, part.write)
        np.testing.assert_array_equal(seen, whole[part.write.slices])


def test_a_coarser_grid_averages_noise():
    source = Sampling((40, 40, 40), (10.0, 10.0, 10.0))
    target = source.resampled(40.0)
    noise = np.random.default_rng(2).normal(size=source.shape).astype(np.float32)
    seen = Rescaling(source, target).apply(noise, Box.whole(source.shape), Box.whole(target.shape))
    assert seen.std() < 0.2
