"""A network's view: what it reads for a box, and which tomograms fit it."""

import numpy as np
import pytest

from tomoseg.analysis import intensity
from tomoseg.analysis.rescale import Rescaling
from tomoseg.analysis.view import NetworkView, can_be_rescaled, fits_unscaled
from tomoseg.core.blocks import Box
from tomoseg.core.sampling import Sampling


def of(*voxel):
    return Sampling((20, 24, 28), voxel)


def normaliser(voxels, steps):
    moments = intensity.moments(voxels)
    bins = intensity.Bins.for_tomogram(moments, voxels.dtype)
    statistics = intensity.Statistics.of(moments, bins, intensity.histogram(voxels, bins))
    return intensity.prepare(intensity.parse_steps(steps), statistics)


STEPS = [
    ({"kind": "z_score"},),
    ({"kind": "z_score"}, {"kind": "gaussian", "sigma_angstrom": 15.0}),
]


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("target", [10.0, 14.0])
def test_a_box_is_seen_as_the_whole_is(steps, target):
    """Bit for bit, and only what is needed is read."""
    stored = of(10.0, 10.0, 10.0)
    voxels = np.random.default_rng(3).normal(100, 7, stored.shape).astype(np.float32)
    grid = stored if target == 10.0 else stored.resampled(target)
    view = NetworkView(stored, grid, normaliser(voxels, steps))
    assert view.is_rescaled == (target != 10.0)
    read = []

    def reading(box):
        read.append(box)
        return voxels[box.slices]

    whole = view.seen(Box.whole(grid.shape), reading)
    plain = view.normaliser.apply(voxels, stored)
    if view.is_rescaled:
        everything = Box.whole(stored.shape)
        plain = Rescaling(stored, grid).apply(plain, everything, Box.whole(grid.shape))
    assert np.array_equal(whole, plain)
    part = Box((3, 4, 5), (9, 12, 14))
    assert np.array_equal(view.seen(part, reading), whole[part.slices])
    assert read[-1] == view.needed(part)
    assert read[-1].shape < stored.shape


@pytest.mark.parametrize(
    ("voxel", "fits", "is_rescaled"),
    [
        ((10.0,) * 3, True, True),
        ((10.05,) * 3, True, True),
        ((10.2,) * 3, False, True),
        ((10.0, 10.0, 10.2), False, True),
        ((4.1,) * 3, False, True),
        ((24.9,) * 3, False, True),
        ((3.9,) * 3, False, False),
        ((25.1,) * 3, False, False),
        ((50.0, 10.0, 10.0), False, False),
    ],
)
def test_one_set_of_limits(voxel, fits, is_rescaled):
    assert fits_unscaled(of(*voxel), 10.0) == fits
    assert can_be_rescaled(of(*voxel), 10.0) == is_rescaled


def test_a_card_may_tolerate_more():
    assert fits_unscaled(of(10.9, 10.9, 10.9), 10.0, tolerance=0.1)
    assert not fits_unscaled(of(11.2, 11.2, 11.2), 10.0, tolerance=0.1)
    assert not fits_unscaled(of(8.9, 8.9, 8.9), 10.0, tolerance=0.1)
