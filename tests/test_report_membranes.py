"""Membranes in the picture of a tomogram and on the page of a session."""

import numpy as np
import pytest
from test_report import RED, Page, decoded, entry, picture, session

from tomoseg.coordinates import Particles, frames_along
from tomoseg.errors import RequestError
from tomoseg.report import panels
from tomoseg.report.page import session_page
from tomoseg.report.pictures import tomogram_figure
from tomoseg.surfaces import SurfaceSamples


@pytest.fixture(scope="module")
def sheet():
    return decoded(tomogram_figure(picture()))


def samples(name="ribosome", x=(200.0, 350.0, 500.0), thickness=(60.0, 60.0, 90.0)):
    """Points of two surfaces at y = 300 Å in the middle slice, 50 Å apart or so, facing up."""
    points = np.array([(60.0, 300.0, at) for at in x])
    upwards = np.zeros((len(x), 3))
    upwards[:, 1] = 1
    particles = Particles(name, points, np.ones(len(x)), frames_along(upwards, np.zeros(len(x))))
    surface, areas = np.array([1, 1, 2]), np.full(len(x), 2500.0)
    return SurfaceSamples(particles, surface[: len(x)], areas, np.array(thickness))


def test_membranes_have_a_row_with_points_normals_and_thickness(sheet):
    drawn = decoded(tomogram_figure(picture(surfaces=(samples(),))))
    assert drawn.shape[0] == sheet.shape[0] + 480 + 30 + 24
    np.testing.assert_array_equal(drawn[: 122 + 2 * 534 - 40], sheet[: 122 + 2 * 534 - 40])
    top = 122 + 2 * 534
    slices, map_of_thickness = drawn[top : top + 480, 32:672], drawn[top : top + 480, 696:1336]
    one, two = (np.rint(255 * np.array(c)) for c in panels.distinct_colours(2))
    # Voxels 20, 35 and 50 along x and 30 along y, 8 pixels each; normals are 20 pixels long.
    for voxel, colour in ((20.5, one), (35.5, one), (50.5, two)):
        above, below = (slices[round(480 - 30.5 * 8) + up, round(voxel * 8)] for up in (-12, 12))
        assert np.abs(above - colour).max() <= 3
        assert np.ptp(below.astype(int)) == 0
    # 60 Å is the class's median, and 90 Å is beyond the scale's end: its last colour.
    middle = [map_of_thickness[round(480 - 30.5 * 8), round(v * 8)] for v in (20.5, 35.5, 50.5)]
    assert (middle[0] == middle[1]).all()
    assert middle[2].tolist() == [240, 249, 33]


def test_membranes_without_a_point_have_no_row(sheet):
    empty = samples().select(np.zeros(3, bool))
    assert (decoded(tomogram_figure(picture(surfaces=(empty,)))) == sheet).all()
    with pytest.raises(RequestError, match="wall"):
        picture(surfaces=(samples("wall"),))


def test_page_tells_number_area_and_thickness_of_membranes():
    found = {"name": "wall", "colour": RED, "surfaces": 2, "surface_area_nm2": 35390.0}
    item = entry("P", classes=[found | {"surface_thickness_nm": 6.04}])
    text = Page(session_page(session(item))).text
    assert "2 surfaces, 0.035 µm², 6.0 nm thick" in text
    assert "µm² of membrane" in text
