"""Pixel and size of a tilt series: what fits a tomogram is taken, what does not says what would."""

import numpy as np
import pytest

from tomoseg.core.errors import RequestError
from tomoseg.core.sampling import Sampling
from tomoseg.io.points.dialects import TomoContext

TOMOGRAM = Sampling((48, 192, 192), (12.0, 12.0, 12.0))


def context(size, pixel, tomogram=TOMOGRAM):
    return TomoContext("TS_01", tomogram, pixel, size)


@pytest.mark.parametrize(
    ("tomogram", "pixel", "size"),
    [
        pytest.param(TOMOGRAM, 3.0, (768, 768, 192), id="binned by 4"),
        pytest.param(TOMOGRAM, 12.0, (192, 192, 48), id="not binned"),
        pytest.param(TOMOGRAM, 3.0, (775, 769, 198), id="a rest dropped, even sizes"),
        pytest.param(TOMOGRAM, 3.01, (768, 768, 192), id="a pixel that was calibrated anew"),
        pytest.param(Sampling((134, 594, 440), (10.0,) * 3), 1.35, (3260, 4400, 1000), id="Warp"),
        pytest.param(Sampling((250, 720, 511), (10.8,) * 3), 1.35, (4092, 5760, 2000), id="by 8"),
        pytest.param(Sampling((1, 512, 512), (4.0,) * 3), 1.0, (2048, 2048, 900), id="micrograph"),
    ],
)
def test_what_binning_and_rounding_explain_is_taken(tomogram, pixel, size):
    assert context(size, pixel, tomogram).size_xyz == size


@pytest.mark.parametrize(
    ("pixel", "size", "axes", "remedy"),
    [
        (3.0, (192, 768, 768), "x, z", "another order .* [768, 768, 192]"),
        (3.0, (768, 192, 768), "y, z", "another order .* [768, 768, 192]"),
        (3.0, (4096, 4096, 2048), "x, y, z", "[768, 768, 192], which fits this pixel"),
        (3.0, (768, 768, 2048), "z", "[768, 768, 192], which fits this pixel, or [x, y] alone"),
        (0.3, (768, 768, 192), "x, y, z", "pixel_size_angstrom: 3, which fits this size"),
        (6.0, (768, 768, 192), "x, y, z", "[384, 384, 96], which fits this pixel"),
        (12.0, (768, 768, 192), "x, y, z", "pixel_size_angstrom: 3, which fits this size"),
        (3.0, (4096, 4096), "x, y", "[768, 768, 192]"),
    ],
)
def test_what_does_not_fit_names_the_axes_and_what_would(pixel, size, axes, remedy):
    with pytest.raises(RequestError) as caught:
        context(size, pixel)
    assert caught.value.message.endswith(f"they disagree in {axes}")
    first, _, last = remedy.partition(" .* ")
    assert first in caught.value.remedy
    assert last in caught.value.remedy


def test_axes_of_two_numbers_that_are_swapped_are_named():
    with pytest.raises(RequestError, match=r"another order.*\[1000, 500, 400\]"):
        context((500, 1000), 2.5, Sampling((100, 125, 250), (10.0, 10.0, 10.0)))


def test_a_pixel_larger_than_a_voxel_is_of_no_unbinned_tilt_series():
    with pytest.raises(RequestError, match=r"of 24 Å .* larger than the tomogram's voxel of 12"):
        context((96, 96, 24), 24.0)


def test_without_z_the_tomograms_own_is_taken_and_said():
    place = context((768, 768), 3.0)
    assert place.size_xyz == (768, 768, 192)
    points = np.array([[0.0, 120.0, 240.0]])
    assert np.array_equal(place.centred(points), context((768, 768, 192), 3.0).centred(points))
    (note,) = place.notes
    assert "no z: 192 pixels of 3 Å are taken" in note


def test_a_difference_of_more_than_a_voxel_is_said():
    assert context((768, 768, 192), 3.0).notes == ()
    (note,) = context((774, 768, 192), 3.0).notes
    assert "18, 0, 0 Å (xyz) larger than the tomogram" in note
