"""Simulated tomograms: the truth agrees with the picture, and the physics shows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tomoseg.phantom import Phantom, PhantomParameters, simulate

SMALL = PhantomParameters(shape=(48, 112, 96), voxel_size_angstrom=14.0, seed=4)


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return simulate(SMALL)


def test_the_same_seed_gives_the_same_bits_and_another_does_not(phantom: Phantom) -> None:
    again, other = simulate(SMALL), simulate(replace(SMALL, seed=5))
    np.testing.assert_array_equal(again.tomogram, phantom.tomogram)
    np.testing.assert_array_equal(again.instances, phantom.instances)
    assert not np.array_equal(other.labels, phantom.labels)


def test_arrays_have_the_promised_types_and_scale(phantom: Phantom) -> None:
    types = (phantom.tomogram.dtype, phantom.labels.dtype, phantom.instances.dtype)
    assert types == (np.float32, np.uint8, np.uint32)
    assert phantom.tomogram.shape == phantom.labels.shape == SMALL.shape
    assert phantom.tomogram.mean() == pytest.approx(0, abs=1e-4)
    assert phantom.tomogram.std() == pytest.approx(1, abs=1e-4)
