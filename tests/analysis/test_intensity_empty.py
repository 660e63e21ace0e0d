"""What is empty: frames of any value, side and width, and never specimen that was cut off."""

import numpy as np
import pytest
from scipy import ndimage

from tomoseg.analysis import intensity
from tomoseg.analysis.intensity.empty import HALO, RIM, SQUARE, Specimen, empty_voxels, may_be_empty
from tomoseg.core.blocks import BlockGrid, Box

SHAPE = (5, 70, 80)
Z, Y, X = np.indices(SHAPE)


def grey(dtype="float32"):
    voxels = 100 + 20 * np.random.default_rng(4).normal(size=SHAPE)
    return voxels.astype(dtype)


def squares(image):
    """Tell what is empty in one slice, by the definition."""
    found, (rows, columns) = np.zeros(image.shape, bool), image.shape
    for turned in (False, True):
        for y in range(1 - SQUARE, rows) if turned else range(rows - SQUARE + 1):
            for x in range(columns - SQUARE + 1) if turned else range(1 - SQUARE, columns):
                inside = slice(max(y, 0), y + SQUARE), slice(max(x, 0), x + SQUARE)
                found[inside] |= len(np.unique(image[inside])) == 1
    return found


FRAMES = {
    "right": X >= 60,
    "thin": X < 2,
    "last row": Y == 69,
    "all around": (X < 4) | (X > 70) | (Y < 1) | (Y > 66),
    "turned": Y + 0.2 * X > 66,
    "turned a little": X - 0.02 * Y < 1,
    "blank slices": Z < 2,
    "a slanted slab": Z + 0.05 * Y < 2,
    "within": (Y > 20) & (Y < 60) & (X > 30) & (X < 75),
}


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("value", [0, 100, 255, np.nan])
def test_frames_are_empty_and_nothing_else(frame, value):
    voxels = grey()
    voxels[FRAMES[frame]] = value
    found = empty_voxels(voxels)
    assert np.array_equal(found, [squares(image) for image in voxels])
    assert not (found & ~FRAMES[frame]).any()
    # Of a wedge, a tip that is shorter along x and along y is not found.
    long = [FRAMES[frame].sum(axis, keepdims=True) >= SQUARE for axis in (1, 2)]
    assert found[FRAMES[frame] & (long[0] | long[1])].all()
    assert may_be_empty(voxels)


def test_several_values_at_once():
    voxels = grey("uint8")
    voxels[:, :5], voxels[:, :, 75:] = 0, 255
    assert np.array_equal(empty_voxels(voxels), (Y < 5) | (X >= 75))


def test_specimen_that_was_cut_off_counts():
    smooth = ndimage.gaussian_filter(np.random.default_rng(2).normal(size=SHAPE), (1, 3, 3))
    voxels = np.clip(128 + 64 * smooth / smooth.std(), 0, 255).astype(np.uint8)
    voxels[:, 30:50, 30:50] = 255  # a bead
    assert np.mean((voxels == 255) | (voxels == 0)) > 0.04
    assert not empty_voxels(voxels).any()


@pytest.mark.parametrize("block", [(1, 16, 80), (2, 24, 80), (5, 70, 80), (3, 33, 80)])
@pytest.mark.parametrize("frame", FRAMES)
def test_what_counts_does_not_depend_on_the_blocks(block, frame):
    voxels = grey()
    voxels[FRAMES[frame]] = 7
    inside = X + Y > 20
    empty = empty_voxels(voxels)
    rim = ndimage.binary_dilation(empty, np.ones([2 * reach + 1 for reach in RIM]))
    specimen = Specimen(lambda box: voxels[box.slices], SHAPE, lambda box: inside[box.slices])
    found = [(part.write, specimen.counted(part.write)) for part in BlockGrid(SHAPE, block)]
    for box, counted in found:
        kept = (inside & ~rim)[box.slices]
        assert np.array_equal(counted.voxels.ravel(), voxels[box.slices][kept])
    assert sum(counted.empty for _, counted in found) == (inside & rim).sum()
    assert sum(counted.outside for _, counted in found) == (~inside).sum()
    assert any(may_be_empty(voxels[box.slices]) for box, _ in found)


def test_where_nothing_is_empty_a_look_tells():
    voxels = grey("uint8")
    assert not may_be_empty(voxels)
    whole = Specimen(lambda box: voxels[box.slices], SHAPE).counted(Box.whole(SHAPE))
    assert whole.voxels.shape == SHAPE
    assert (whole.empty, whole.outside) == (0, 0)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_networks_see_the_mean_where_nothing_is(dtype):
    voxels = grey(dtype)
    voxels[:, :, 60:] = 0
    box = Box((1, 10, 50), (4, 60, 70))
    found, is_empty = intensity.read_filled(lambda b: voxels[b.slices].copy(), box, SHAPE, 99.6)
    wanted = voxels.copy()
    wanted[:, :, 60:] = 100 if dtype == "uint16" else np.float32(99.6)
    assert np.array_equal(found, wanted[box.slices])
    assert np.array_equal(is_empty, (X >= 60)[box.slices])
    assert found.dtype == dtype


@pytest.mark.parametrize("shape", [(1, 1, 1), (4, 31, 31), (1, 0, 50)])
def test_what_is_smaller_than_a_square_is_not_empty(shape):
    assert not empty_voxels(np.zeros(shape)).any()
    assert HALO == (1, 33, 33)
