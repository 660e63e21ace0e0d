"""Membranes in the picture of a tomogram and on the page of a session."""

import io

import numpy as np
import pytest
from matplotlib.image import imread

from tomoseg.analysis.surfaces import SurfaceSamples
from tomoseg.core.coordinates import Particles, frames_along
from tomoseg.core.errors import RequestError
from tomoseg.core.sampling import Sampling
from tomoseg.report import panels
from tomoseg.report.page import session_page
from tomoseg.report.pictures import TomogramPicture, tomogram_figure
from tomoseg.report.sheet import Projection, Slice
from tomoseg.report.summary import ClassSummary, SessionSummary

# Two rows of panels 640 wide and 480 high (80 by 60 voxels), with margins and titles.
HEADING, PANEL, ROW, WITHOUT = 122, 480, 480 + 30 + 24, 2 * 480 + 40 + 15 + 2 * 30 + 24 + 92


def drawn(*surfaces):
    """The picture of 12×60×80 voxels of noise with surfaces, uint8 RGB, row 0 at the top."""
    grid = Sampling((12, 60, 80), (10.0, 10.0, 10.0))
    volume = np.random.default_rng(0).normal(size=grid.shape).astype(np.float32)
    nothing = np.zeros(grid.shape, np.uint8)
    picture = TomogramPicture(
        name="Position_1",
        sampling=grid,
        classes=(ClassSummary("wall", "#ff0000"),),
        slices=tuple(Slice(z, volume[z], nothing[z]) for z in (3, 6, 9)),
        projection=Projection(4, 8, volume[4:8].mean(axis=0)),
        side=Slice(30, volume[:, 30], nothing[:, 30]),
        surfaces=surfaces,
    )
    return np.rint(255 * imread(io.BytesIO(tomogram_figure(picture)))[..., :3]).astype(np.uint8)


@pytest.fixture(scope="module")
def sheet():
    return drawn()


def samples(name="wall"):
    """Points of two surfaces at y = 300 Å in the middle slice, 50 Å apart or so, facing up."""
    points = np.array([(60.0, 300.0, x) for x in (200.0, 350.0, 500.0)])
    frames = frames_along(np.tile([0.0, 1, 0], (3, 1)), np.zeros(3))
    particles = Particles(name, points, np.ones(3), frames)
    return SurfaceSamples(
        particles, np.array([1, 1, 2]), np.full(3, 2500.0), np.array([60.0, 60, 90])
    )


def test_membranes_have_a_row_with_points_normals_and_thickness(sheet):
    found, top = drawn(samples()), HEADING + 2 * ROW
    assert (len(sheet), len(found)) == (WITHOUT, WITHOUT + ROW)
    above = HEADING + ROW + PANEL
    np.testing.assert_array_equal(found[:above, :1336], sheet[:above, :1336])
    row = found[top : top + PANEL]
    slices, map_of_thickness = row[:, 32:672], row[:, 696:1336]
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
    np.testing.assert_array_equal(drawn(empty), sheet)
    with pytest.raises(RequestError, match="door"):
        drawn(samples("door"))


def test_page_tells_number_area_and_thickness_of_membranes():
    found = {"name": "wall", "colour": "#ff0000", "surfaces": 2, "surface_area_nm2": 35390.0}
    tomogram = {
        "name": "P",
        "state": "done",
        "sampling": Sampling((10, 20, 40), (10.0, 10.0, 10.0)).as_dict(),
        "classes": [found | {"surface_thickness_nm": 6.04}],
    }
    said = {"version": "0", "started": "2026-01-31T22:10:04+00:00", "tomograms": [tomogram]}
    page = session_page(SessionSummary.from_dict(said))
    assert "2 surfaces, 0.035 µm², 6.0 nm thick" in page
    assert "<td>0.035</td>" in page and "µm² of membrane" in page
