"""Histograms and maps of what was measured."""

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from tomoseg.core.coordinates import Filament, Particles
from tomoseg.report.distributions import (
    draw_filaments,
    draw_ground,
    draw_histograms,
    draw_particles,
)

COLOURS = {"actin": "#ff0000", "microtubule": "#0040ff"}
LINES = [
    Filament("microtubule", 1, np.array([[0.0, 100, 200], [50, 300, 400]])),
    Filament("microtubule", 2, np.array([[0.0, 500, 200], [50, 500, 400]])),
]


@pytest.fixture
def axes():
    return Figure().add_subplot()


def test_members_are_counted_those_of_no_number_left_out(axes):
    values = {"actin": [1.0, 2.0, 9.0, np.nan], "microtubule": [4.0]}
    draw_histograms(axes, values, colours=COLOURS, title="length, nm")
    heights = [[bar.get_height() for bar in bars] for bars in axes.containers]
    assert [sum(bars) for bars in heights] == [3, 1]
    assert [line.get_xdata()[0] for line in axes.lines] == [2.0, 4.0]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["actin (n = 3)", "microtubule (n = 1)"]
    assert axes.get_xlabel() == "length, nm"


def test_a_class_without_numbers_is_said_to_have_none(axes):
    draw_histograms(axes, {"actin": [np.nan]}, colours=COLOURS, title="angle, °")
    assert axes.get_legend().get_texts()[0].get_text() == "actin (n = 0)"
    assert not axes.lines


def test_filaments_lie_at_x_and_y_in_nm_and_grey_without_a_number(axes):
    draw_filaments(axes, LINES, [np.nan, 2.0], title="curvature, 1/µm", limits=(0.0, 4.0))
    grey, coloured = axes.collections
    assert grey.get_segments()[0].tolist() == [[20, 10], [40, 30]]
    assert coloured.get_segments()[0].tolist() == [[20, 50], [40, 50]]
    assert coloured.norm(coloured.get_array()).tolist() == [0.5]
    assert to_hex(grey.get_colors()[0]) == "#bfbfbf"
    assert axes.figure.axes[1].get_ylabel() == "curvature, 1/µm"


def test_particles_lie_at_x_and_y_in_nm_and_are_empty_without_a_number(axes):
    particles = Particles.at("ribosome", np.array([[0.0, 100, 200], [0, 300, 500]]))
    draw_particles(axes, particles, [np.nan, -3.0], title="distance, nm", limits=(-5.0, 5.0))
    empty, coloured = axes.collections
    assert empty.get_offsets().tolist() == [[20, 10]]
    assert len(empty.get_facecolors()) == 0
    assert coloured.get_offsets().tolist() == [[50, 30]]
    assert coloured.get_array().tolist() == [-3.0]


def test_the_ground_is_tinted_where_any_slice_has_the_class(axes):
    mask = np.zeros((3, 4, 5), bool)
    mask[2, 1, 3] = True
    draw_ground(axes, mask, pixel_nm=1.2, colour="#ff0000")
    (mesh,) = axes.collections
    assert np.argwhere(~mesh.get_array().mask).tolist() == [[1, 3]]
    # Corners of the pixel, x then y, around its centre at 3.6 and 1.2 nm.
    np.testing.assert_allclose(mesh.get_coordinates()[1, 3], [3.0, 0.6])
    np.testing.assert_allclose(mesh.get_coordinates()[2, 4], [4.2, 1.8])
