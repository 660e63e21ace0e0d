import numpy as np
import pytest
from scipy import ndimage

from tomoseg.analysis import hessian


def everywhere(smooth, sizes):
    """Second differences of all inner voxels by convolution, float64, shape (6, z, y, x)."""
    twice, once = np.array([1.0, -2, 1]), np.array([-0.5, 0, 0.5])
    found = []
    for i, j in hessian.PAIRS:
        values = smooth.astype(np.float64)
        for axis in (i, j) if i != j else (i,):
            values = ndimage.correlate1d(values, twice if i == j else once, axis)
        found.append((values / sizes[i] / sizes[j])[1:-1, 1:-1, 1:-1])
    return np.array(found)


@pytest.mark.parametrize("share", [0.0, 0.02, 1.0], ids=["nothing", "sparse", "dense"])
def test_all_voxels_of_a_low_laplacian_are_found_with_their_second_derivatives(share):
    rng, sizes = np.random.default_rng(3), np.array([1.1, 0.9, 1.3])
    shape = (20, 31, 27)
    smooth = (rng.random(shape) * (rng.random(shape) < share)).astype(np.float32)
    index, curvature = hessian.curvatures(smooth, sizes, below=-0.3)
    known = everywhere(smooth, sizes)
    wanted = np.argwhere(known[:3].sum(axis=0) < -0.3)
    np.testing.assert_array_equal(index, wanted)
    assert (len(index) > 0) == (share > 0)
    np.testing.assert_allclose(curvature.T, known[:, *wanted.T], atol=1e-5)


def test_a_voxel_alone_is_found_to_the_very_least_of_its_value():
    # Of a voxel of 1 among zeros the Laplacian is -2 (1 + 1 + 1).
    smooth = np.zeros((5, 5, 5), np.float32)
    smooth[2, 2, 2] = 1
    for below, count in ((-5.9999, 1), (-6.0001, 0)):
        index, _ = hessian.curvatures(smooth, np.ones(3), below=below)
        assert len(index) == count
