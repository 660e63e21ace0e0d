import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from tomoseg.analysis.binning import bin_mean, binned_block, binning_factor, smooth_gaussian
from tomoseg.core.blocks import BlockGrid, Box
from tomoseg.core.errors import RequestError


@pytest.mark.parametrize(
    ("length", "bins", "factor"),
    [(3.9, 4, 1), (8, 4, 2), (15.9, 4, 2), (16, 4, 4), (0.5, 4, 1)],
)
def test_factor_is_the_largest_power_of_two_that_leaves_enough(length, bins, factor):
    assert binning_factor(length, at_least_bins=bins) == factor


def test_bins_are_means_and_a_rest_is_dropped():
    values = np.arange(5 * 4 * 6, dtype=np.float32).reshape(5, 4, 6)
    means = bin_mean(values, (2, 2, 2))
    assert means.shape == (2, 2, 3)
    assert means[1, 0, 2] == values[2:4, 0:2, 4:6].mean()


@settings(max_examples=60)
@given(
    shape=st.tuples(*[st.integers(4, 21)] * 3),
    blocks=st.tuples(*[st.integers(1, 4)] * 3),
    halo=st.integers(0, 5),
    factor=st.sampled_from([1, 2, 4]),
)
def test_blocks_own_every_bin_once_and_see_what_the_volume_shows(shape, blocks, halo, factor):
    volume = np.random.default_rng(0).random(shape, dtype=np.float32)
    whole = bin_mean(volume, (factor,) * 3)
    extended = np.pad(whole, 1, mode="edge")
    seen = np.zeros(whole.shape, dtype=int)
    core = tuple(n * factor for n in blocks)
    halos = (max(halo, factor),) * 3
    for block in BlockGrid(shape, core, halos, (factor,) * 3):
        binned = binned_block(
            volume[block.read.slices],
            block.core,
            begin=block.read.begin,
            shape=shape,
            bins=(factor,) * 3,
            halo=halos,
        )
        seen[binned.core.slices] += 1
        if binned.core.size:
            around = binned.core.grow((1, 1, 1))
            cut = binned.cut(around, binned.values)
            np.testing.assert_array_equal(cut, extended[around.shift((1, 1, 1)).slices])
    assert (seen == 1).all()


@pytest.mark.parametrize(
    ("begin", "size", "fact"),
    [((1, 0, 0), 20, "not at a multiple of the factor"), ((0, 0, 0), 14, "halo missing")],
)
def test_a_read_box_that_cannot_give_the_result_is_refused(begin, size, fact):
    with pytest.raises(RequestError, match="halo"):
        binned_block(
            np.zeros((size,) * 3, np.float32),
            Box((4, 4, 4), (12, 12, 12)),
            begin=begin,
            shape=(40, 40, 40),
            bins=(2, 2, 2),
            halo=(4, 4, 4),
        )


@pytest.mark.parametrize("share", [0.0, 0.0005, 0.01, 1.0])
def test_smoothing_is_scipys_to_the_last_bit_whatever_is_left_out(share):
    rng, shape, sigmas = np.random.default_rng(1), (40, 33, 50), np.array([0.7, 2.2, 1.4])
    values = (rng.random(shape) * (rng.random(shape) < share)).astype(np.float32)
    values[:, :, 0] = share > 0  # what reaches the border goes on beyond it
    wanted = ndimage.gaussian_filter(values, sigmas, mode="nearest", truncate=4.0)
    found = smooth_gaussian(values, sigmas, truncate=4.0)
    np.testing.assert_array_equal(found, wanted)
    assert found.dtype == np.float32
