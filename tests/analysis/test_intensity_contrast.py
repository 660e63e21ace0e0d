"""Whether protein is dark or bright: measured where it can be, else nothing is said."""

import numpy as np
import pytest
from scipy import ndimage

from tomoseg.analysis import intensity
from tomoseg.analysis.intensity.contrast import LARGEST_BIN, SAMPLE
from tomoseg.core.sampling import Sampling

SHAPE = (32, 160, 160)


def cell(sign, voxel_angstrom=12.0, shape=SHAPE, noise=1.0):
    """Return noise with blobs of some 100 Å, one in 1.7 million Å³."""
    rng = np.random.default_rng(8)
    blobs = (rng.uniform(size=shape) < 0.001 * (voxel_angstrom / 12) ** 3).astype(np.float32)
    blobs = ndimage.gaussian_filter(blobs, 50 / voxel_angstrom) * (50 / voxel_angstrom) ** 3 * 15
    return (sign * 3 * blobs + noise * rng.normal(size=shape)).astype(np.float32)


def measured(voxels, voxel_angstrom=12.0):
    seen = []

    def read(box):
        seen.append(box)
        return voxels[box.slices]

    skewness = intensity.detail_skewness(read, Sampling(voxels.shape, (voxel_angstrom,) * 3))
    assert all(box.size <= np.prod(np.multiply(SAMPLE, LARGEST_BIN)[1:]) * 4 for box in seen)
    return skewness


@pytest.mark.parametrize(("sign", "found"), [(-1, "dark"), (1, "bright")])
@pytest.mark.parametrize("voxel_angstrom", [6.0, 12.0, 20.0])
def test_the_side_of_compact_things_is_found(sign, found, voxel_angstrom):
    skewness = measured(cell(sign, voxel_angstrom), voxel_angstrom)
    assert intensity.measured_contrast(skewness) == found
    assert intensity.contrast_notes(skewness, found) == []
    other = {"dark": "bright", "bright": "dark"}[found]
    (note,) = intensity.contrast_notes(skewness, other)
    assert note.startswith(f"protein looks {found} (skewness of details ")
    assert note.endswith(f"set source.contrast: {found}")


def test_noise_tells_nothing():
    assert intensity.measured_contrast(measured(cell(0))) is None


@pytest.mark.parametrize("value", [-1000, 1000, np.nan])
def test_padding_one_bad_voxel_and_a_slope_change_nothing(value):
    voxels = cell(-1)
    voxels += np.linspace(0, 2, 160, dtype=np.float32)[:, None]
    voxels[:, 120:] = value
    voxels[16, 50, 50] = 1e6
    assert intensity.measured_contrast(measured(voxels)) == "dark"


@pytest.mark.parametrize(
    ("voxels", "voxel_angstrom"),
    [
        (cell(-1), 90.0),
        (np.full(SHAPE, np.nan, np.float32), 12.0),
        (np.full(SHAPE, 7, np.int16), 12.0),
        (np.zeros((1, 1, 1), np.int16), 12.0),
    ],
    ids=["voxels too large", "no numbers", "one value", "one voxel"],
)
def test_where_nothing_can_be_seen_nothing_is_measured(voxels, voxel_angstrom):
    assert measured(voxels, voxel_angstrom) is None
    assert intensity.contrast_notes(None, "dark") == []
