import numpy as np
import pytest

from tomoseg.analysis.filaments import measure
from tomoseg.core.coordinates import Filament
from tomoseg.core.sampling import Sampling

BOX = Sampling((400, 1000, 1000), (10.0, 10.0, 10.0))
RADIUS = 125.0


def measured(*lines, radius=RADIUS, **how):
    filaments = [Filament("tube", i, np.asarray(p, float), 0.5) for i, p in enumerate(lines, 7)]
    return measure(filaments, BOX.contains, radius_angstrom=radius, **how)


def straight(begin, end, count=60):
    return np.linspace(begin, end, count)


def arc(bend_um, degrees, centre=(2000, 5000, 5000)):
    turn = np.deg2rad(np.linspace(0, degrees, 400))
    flat = np.stack([0 * turn, np.sin(turn), np.cos(turn)], axis=1)
    return np.array(centre) + 1e4 * bend_um * flat


def test_a_straight_filament():
    (found,) = measured(straight((2000, 1000, 1000), (2000, 1000, 8000)))
    assert found.length_angstrom == pytest.approx(7000)
    assert found.end_to_end_angstrom == pytest.approx(7000)
    assert found.tortuosity == pytest.approx(1)
    assert found.straightness == pytest.approx(1)
    assert found.curvature_max_per_um < 1e-6
    assert (found.name, found.number, found.score) == ("tube", 7, 0.5)
    assert np.isnan(found.nearest_angstrom)
    assert (found.nearest_number, found.neighbours, found.packed_share) == (0, 0, 0)
    assert np.isnan(found.spacing_angstrom)
    assert np.isnan(found.angle_degrees)


@pytest.mark.parametrize(("bend_um", "degrees"), [(0.3, 180), (0.4, 120), (0.25, 90)])
def test_an_arc_has_the_curvature_of_its_circle(bend_um, degrees):
    (found,) = measured(arc(bend_um, degrees))
    turn = np.deg2rad(degrees)
    assert found.length_angstrom == pytest.approx(1e4 * bend_um * turn, rel=1e-4)
    assert found.tortuosity == pytest.approx(turn / (2 * np.sin(turn / 2)), rel=1e-4)
    assert found.straightness == pytest.approx(1 / found.tortuosity)
    assert found.curvature_mean_per_um == pytest.approx(1 / bend_um, rel=0.03)
    assert found.curvature_max_per_um == pytest.approx(1 / bend_um, rel=0.1)


def test_the_sharpest_bend_is_told_from_the_mean():
    x = np.linspace(0, 1, 2000)
    wave = np.stack([0 * x + 2000, 5000 + 300 * np.sin(2 * np.pi * x), 1e4 * x], axis=1)
    (found,) = measured(wave)
    # y″ / (1 + y′²)^1.5 of 300 Å · sin(2π x / 1 µm), in 1/µm.
    slope = 0.03 * 2 * np.pi * np.cos(2 * np.pi * x)
    bend = 0.03 * (2 * np.pi) ** 2 * np.abs(np.sin(2 * np.pi * x)) / (1 + slope**2) ** 1.5
    assert found.curvature_max_per_um == pytest.approx(bend.max(), rel=0.1)
    assert found.curvature_mean_per_um == pytest.approx(bend.mean(), rel=0.05)


def test_noise_of_the_trace_is_no_curvature():
    rng = np.random.default_rng(0)
    line = straight((2000, 1000, 1000), (2000, 1000, 9000), 128)
    (found,) = measured(line + rng.normal(0, 10, line.shape))
    assert found.curvature_max_per_um < 0.5


def test_a_ring_has_no_ends_apart():
    (found,) = measured(arc(0.3, 360))
    assert found.straightness == pytest.approx(0, abs=1e-9)
    assert found.tortuosity > 1e9


def test_a_bundle_has_spacing_angle_and_neighbours():
    offsets = (0, 350, 700, 1200)
    lines = [straight((2000, 4000 + d, 1000), (2000, 4000 + d, 8000)) for d in offsets]
    found = measured(*lines)
    # Packed within five radii, 625 Å: the fourth is 500 Å from the third alone.
    assert [one.neighbours for one in found] == [1, 2, 2, 1]
    assert [round(one.nearest_angstrom) for one in found] == [350, 350, 350, 500]
    assert [one.nearest_number for one in found] == [8, 7, 8, 9]
    np.testing.assert_allclose([one.spacing_angstrom for one in found], [350, 350, 350, 500])
    np.testing.assert_allclose([one.angle_degrees for one in found], 0, atol=1e-3)
    assert [one.packed_share for one in found] == [1, 1, 1, 1]
    # Within 900 Å the first sees the third too, and the fourth sees the second.
    wide = measured(*lines, packing_angstrom=900)
    assert [one.neighbours for one in wide] == [2, 3, 3, 2]


def test_neighbours_count_where_they_lie_side_by_side():
    long = straight((2000, 4000, 1000), (2000, 4000, 9000))
    short = straight((2000, 4400, 1000), (2000, 4400, 3000))
    ahead = straight((2000, 4000, 9200), (2000, 4000, 9900))
    crossing = straight((2300, 2000, 5000), (2300, 6000, 5000))
    first, second, third, fourth = measured(long, short, ahead, crossing)
    assert first.neighbours == second.neighbours == 1
    assert first.packed_share == pytest.approx(0.25, abs=0.02)
    assert second.packed_share == 1
    assert (third.neighbours, third.nearest_number) == (0, 7)
    assert third.nearest_angstrom == pytest.approx(200)
    assert (fourth.neighbours, fourth.packed_share) == (0, 0)
    assert fourth.nearest_angstrom == pytest.approx(300)
    assert first.nearest_number == 9


def test_the_angle_of_neighbours_that_converge():
    tilt = np.tan(np.deg2rad(10))
    one = straight((2000, 4000, 1000), (2000, 4000, 3000))
    other = straight((2300, 4000, 1000), (2300, 4000 + 2000 * tilt, 3000))
    for found in measured(one, other):
        assert found.angle_degrees == pytest.approx(10, abs=1e-6)
        assert 300 < found.spacing_angstrom < 470


def test_ends_are_the_border_s_if_it_is_a_radius_ahead():
    inside = straight((2000, 1000, 1000), (2000, 1000, 5000))
    leaving = straight((2000, 3000, 5000), (2000, 3000, 9900))
    along = straight((2000, 9900, 1000), (2000, 9900, 5000))
    found = measured(inside, leaving, leaving[::-1], along)
    assert [(one.start, one.end) for one in found] == [
        ("inside", "inside"),
        ("inside", "border"),
        ("border", "inside"),
        ("inside", "inside"),
    ]


def test_thin_filaments_pack_closer():
    lines = [straight((2000, 4000 + d, 1000), (2000, 4000 + d, 4000)) for d in (0, 130, 330)]
    found = measured(*lines, radius=35.0)
    assert [one.neighbours for one in found] == [1, 1, 0]


def test_nothing_gives_nothing():
    assert measured() == []
