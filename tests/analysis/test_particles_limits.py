"""Which particles are kept, and the count of the others by reason."""

import numpy as np
import pytest

from tomoseg.analysis.particles import PickingSettings, are_best, pick_components
from tomoseg.core.coordinates import Particles
from tomoseg.core.errors import RequestError
from tomoseg.core.sampling import Sampling

GRID = Sampling((100, 100, 100), (10.0, 10.0, 10.0))
NOMINAL = 4 / 3 * np.pi * 10**3
# Radius 10 voxels: a speck, a half, one as it should be, one near it, one of three, one cut.
CENTRES = np.array([(50, 50, x) for x in (10, 30, 50, 57, 80)] + [(4, 50, 50)], float)
VOXELS = np.rint(NOMINAL * np.array([0.1, 0.5, 1, 0.9, 3, 0.8])).astype(np.int64)


def kept(**settings):
    picks = pick_components(
        CENTRES,
        VOXELS,
        name="ribosome",
        sampling=GRID,
        settings=PickingSettings(method="components", radius_angstrom=100.0, **settings),
    )
    places = picks.particles.points_angstrom[:, None]
    rows = np.argmax((places == CENTRES * 10).all(axis=2), axis=1).tolist()
    np.testing.assert_allclose(picks.volumes_nm3, VOXELS[rows])
    return rows, picks.left_out


@pytest.mark.parametrize(
    ("settings", "rows", "left_out"),
    [
        ({}, [1, 2, 3, 4, 5], {"too small": 1}),
        ({"minimum_volume_fraction": 0.0}, [0, 1, 2, 3, 4, 5], {}),
        ({"minimum_volume_fraction": 0.85}, [2, 3, 4], {"too small": 3}),
        # A voxel is 1 nm³, the label's ball 4189.
        ({"minimum_volume_nm3": 2000.0}, [1, 2, 3, 4, 5], {"too small": 1}),
        ({"minimum_volume_nm3": 2200.0}, [2, 3, 4, 5], {"too small": 2}),
        ({"maximum_volume_fraction": 2.0}, [1, 2, 3, 5], {"too small": 1, "too large": 1}),
        ({"maximum_volume_nm3": 4000.0}, [1, 3, 5], {"too small": 1, "too large": 2}),
        ({"minimum_score": 0.85}, [2, 3, 4], {"too small": 1, "score too low": 2}),
        ({"border": "drop"}, [1, 2, 3, 4], {"too small": 1, "at the border": 1}),
        (
            {"minimum_distance_angstrom": 80.0},
            [1, 2, 4, 5],
            {"too small": 1, "too near to a better one": 1},
        ),
    ],
)
def test_each_limit_counts_what_it_leaves_out(settings, rows, left_out):
    assert kept(**settings) == (rows, left_out)


def test_the_best_are_kept_and_the_first_of_equals():
    points = np.array([(9, 0, 0), (1, 0, 0), (5, 0, 0), (3, 0, 0)], float)
    found = Particles.at("ribosome", points, np.array([0.5, 0.5, 0.9, 0.1]))
    for number, expected in ((0, []), (1, [2]), (2, [1, 2]), (3, [0, 1, 2]), (9, [0, 1, 2, 3])):
        assert np.flatnonzero(are_best(found, number)).tolist() == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"maximum_volume_nm3": 100.0}, "peaks have none"),
        ({"method": "watershed", "minimum_volume_nm3": 0.0}, "minimum_volume_nm3: .* not '0.0'"),
        (
            {"method": "watershed", "maximum_volume_nm3": 9.0, "maximum_volume_fraction": 2.0},
            "exclude each other",
        ),
        ({"top_n": 0}, "top_n: .* not '0'"),
        ({"minimum_score": 1.0}, "minimum_score"),
        ({"exclude": {"carbon_edge": -5.0}}, r"exclude\.carbon_edge: .* not '-5"),
        ({"exclude": {"carbon_edge": float("inf")}}, "finite number"),
        (
            {"method": "components", "minimum_volume_nm3": 9.0, "maximum_volume_nm3": 8.0},
            "minimum_volume_nm3 9 is above maximum_volume_nm3 8",
        ),
        (
            {
                "method": "components",
                "minimum_volume_fraction": 0.9,
                "maximum_volume_fraction": 0.8,
            },
            "is above maximum_volume_fraction",
        ),
        ({"surroundings_angstrom": -1.0}, "surroundings_angstrom"),
    ],
)
def test_limits_out_of_range_are_refused(settings, message):
    with pytest.raises(RequestError, match=message):
        PickingSettings(**settings)
