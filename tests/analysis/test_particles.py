from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial import cKDTree

from tomoseg.analysis.metrics import score_particles
from tomoseg.analysis.particles import (
    Peaks,
    PickingSettings,
    candidate_peaks,
    near_border,
    pick_components,
    pick_peaks,
    picking_factor,
    picking_halo,
    suppress,
)
from tomoseg.core.blocks import BlockGrid, Box
from tomoseg.core.coordinates import Particles
from tomoseg.core.errors import RequestError
from tomoseg.core.sampling import Sampling

VOXEL = 10.0
RIBOSOME = PickingSettings(radius_angstrom=120.0)


def balls(shape, centres, radius=12.0):
    """Score map of balls: 1 inside, soft over a voxel."""
    grid, score = np.indices(shape), np.zeros(shape, np.float32)
    for centre in centres:
        offset = grid - np.asarray(centre, float)[:, None, None, None]
        distance = np.sqrt((offset**2).sum(axis=0))
        score = np.maximum(score, np.clip(radius - distance + 0.5, 0, 1).astype(np.float32))
    return score


def candidates(score, settings=RIBOSOME, block=None, voxel=(VOXEL,) * 3):
    sampling = Sampling(score.shape, voxel)
    factor = picking_factor(settings, sampling)
    grid = BlockGrid(
        score.shape, block or score.shape, picking_halo(settings, sampling), (factor,) * 3
    )
    return [
        candidate_peaks(
            score[b.read.slices],
            b.core,
            begin=b.read.begin,
            sampling=sampling,
            settings=settings,
        )
        for b in grid
    ]


def picked(score, settings=RIBOSOME, block=None, voxel=(VOXEL,) * 3):
    return pick_peaks(
        Peaks.concatenate(candidates(score, settings, block, voxel)),
        name="ribosome",
        sampling=Sampling(score.shape, voxel),
        settings=settings,
    ).particles


@pytest.mark.parametrize("radius", [60.0, 120.0, 240.0])
def test_an_ideal_ball_gives_one_at_its_centre(radius):
    centre = np.array([40.3, 39.2, 41.9])
    score = balls((82, 82, 82), [centre], radius / VOXEL)
    found = candidates(score, PickingSettings(radius_angstrom=radius))[0]
    best = found.scores.argmax()
    assert found.scores[best] == pytest.approx(1.0, abs=0.06)
    assert np.linalg.norm(found.points_angstrom[best] - centre * VOXEL) < 0.25 * VOXEL


def test_particles_that_touch_are_two():
    centres = [(30, 30, 30), (30, 30, 54), (30, 54, 42)]
    found = picked(balls((60, 84, 84), centres))
    assert len(found) == 3
    distance, _ = cKDTree(found.points_angstrom).query(np.array(centres) * VOXEL)
    assert distance.max() < 0.2 * 120
    assert (np.diff(found.scores) <= 0).all() and found.scores.max() <= 1


def crowd(seed, count=40, shape=(96, 160, 160)):
    """Balls anywhere; one in four touches the one before it."""
    rng, centres = np.random.default_rng(seed), []
    while len(centres) < count:
        place = rng.uniform(14, np.array(shape) - 14)
        if centres and rng.random() < 0.25:
            away = rng.normal(size=3)
            place = centres[-1] + 24.5 * away / np.linalg.norm(away)
        inside = (place > 13).all() and (place < np.array(shape) - 13).all()
        if inside and (not centres or cKDTree(centres).query(place)[0] > 24):
            centres.append(place)
    return np.array(centres)


@pytest.mark.parametrize(("noise", "f1"), [(0.2, 0.98), (0.4, 0.95)])
def test_a_crowd_is_picked(noise, f1):
    shape, centres = (96, 160, 160), crowd(1)
    rng = np.random.default_rng(2)
    grain = ndimage.gaussian_filter(rng.standard_normal(shape), 1.0)
    score = np.clip(balls(shape, centres) + noise * grain / grain.std(), 0, 1)
    result = score_particles(
        picked(score.astype(np.float32)),
        Particles.at("ribosome", centres * VOXEL),
        tolerance_angstrom=60,
    )
    assert result.f1 >= f1
    assert result.position_rms_angstrom < 15


@pytest.mark.parametrize("block", [(32, 32, 32), (48, 64, 26), (24, 160, 40)])
def test_blocks_leave_no_trace(block):
    # A rest of one voxel at the end of z is a block of its own without a bin.
    shape = (65, 121, 90)
    rng = np.random.default_rng(0)
    grain = ndimage.gaussian_filter(rng.standard_normal(shape), 1.5)
    score = (balls(shape, crowd(3, 9, shape)) + grain).clip(0, 1).astype(np.float32)
    whole, parts = picked(score), picked(score, block=block)
    assert len(whole) >= 9
    np.testing.assert_array_equal(whole.points_angstrom, parts.points_angstrom)
    np.testing.assert_array_equal(whole.scores, parts.scores)


def test_a_plateau_is_one_particle():
    # A cube of even edge has its centre between bins: eight equal maxima.
    score = np.zeros((48, 48, 48), np.float32)
    score[14:34, 14:34, 14:34] = 1
    found = picked(score, PickingSettings(radius_angstrom=110.0))
    assert len(found) == 1


def test_voxels_need_not_be_cubes():
    score = balls((64, 80, 80), [(32, 40, 44)]).reshape(32, 2, 80, 80).mean(axis=1)
    found = picked(score, voxel=(20.0, 10.0, 10.0))
    # A slab of two slices has its centre half a slice further along.
    np.testing.assert_allclose(found.points_angstrom, [[315, 400, 440]], atol=3)


@pytest.mark.parametrize(("label_radius", "count"), [(None, 0), (60.0, 1)])
def test_small_labels_are_found_by_their_own_radius(label_radius, count):
    settings = PickingSettings(radius_angstrom=120.0, label_radius_angstrom=label_radius)
    assert len(picked(balls((60, 60, 60), [(30, 30, 30)], 6.0), settings)) == count


@pytest.mark.parametrize(("border", "count"), [("keep", 2), ("drop", 1)])
def test_particles_cut_by_the_border_go_if_asked(border, count):
    score = balls((60, 60, 90), [(30, 30, 30), (30, 30, 84)])
    assert len(picked(score, replace(RIBOSOME, border=border))) == count


@pytest.mark.parametrize(("x", "least", "most"), [(0, 0.65, 0.8), (-3, 0.5, 0.6), (102, 0.5, 0.6)])
def test_a_particle_cut_by_the_border_lies_inside_and_scores_less(x, least, most):
    score = balls((60, 60, 100), [(30, 30, 50), (30, 30, x)])
    found = picked(score)
    voxels = found.points_angstrom / VOXEL
    assert (voxels >= 0).all() and (voxels <= (59, 59, 99)).all()
    best, cut = found.scores
    assert best == pytest.approx(1.0, abs=0.06)
    assert least < cut < most
    # It is where the part of it is that is seen.
    assert abs(voxels[1, 2] - np.clip(x, 0, 99)) < 6


def test_evidence_along_the_border_is_picked_in_the_outermost_voxels():
    score = np.zeros((60, 60, 60), np.float32)
    score[:5] = 1
    found = picked(score, replace(RIBOSOME, threshold=0.05))
    assert len(found)
    assert (found.points_angstrom >= 0).all()


def test_near_border_is_measured_from_the_outer_face():
    grid = Sampling((10, 10, 10), (VOXEL,) * 3)
    points = [(45, 45, 45), (4.9, 45, 45), (5, 45, 45), (45, 45, 85.1), (45, 45, 85)]
    assert near_border(np.array(points), grid, 10.0).tolist() == [False, True, False, True, False]


def test_a_block_read_without_its_halo_is_refused():
    with pytest.raises(RequestError, match="halo"):
        candidate_peaks(
            np.zeros((48, 48, 48), np.float32),
            Box((8, 8, 8), (40, 40, 40)),
            begin=(32, 32, 32),
            sampling=Sampling((128, 128, 128), (VOXEL,) * 3),
            settings=RIBOSOME,
        )


@settings(max_examples=60)
@given(st.integers(0, 25), st.integers(0, 10**6))
def test_suppression_keeps_the_best_and_no_two_near(count, seed):
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 8, (count, 3)).astype(float)
    scores = rng.integers(0, 3, count).astype(float)
    kept = suppress(points, scores, 3.0)
    expected = []
    for row in sorted(range(count), key=lambda i: (-scores[i], *points[i])):
        if all(np.linalg.norm(points[row] - points[other]) >= 3.0 for other in expected):
            expected.append(row)
    np.testing.assert_array_equal(points[kept], points[expected].reshape(-1, 3))
    shuffle = rng.permutation(count)
    again = suppress(points[shuffle], scores[shuffle], 3.0)
    np.testing.assert_array_equal(points[shuffle][again], points[kept])


def test_no_candidates_give_no_particles():
    sampling = Sampling((40, 40, 40), (VOXEL,) * 3)
    assert len(pick_peaks(Peaks.none(), name="r", sampling=sampling, settings=RIBOSOME)) == 0


def test_components_large_enough_are_particles_in_angstrom():
    nominal = 4 / 3 * np.pi * 12**3
    found = pick_components(
        np.array([(10.0, 20, 30), (11, 12, 13), (1, 50, 50)]),
        np.array([round(nominal / 2), round(nominal / 5), 9999]),
        name="ribosome",
        sampling=Sampling((100, 100, 100), (VOXEL,) * 3, (5.0, 5.0, 5.0)),
        settings=RIBOSOME,
    ).particles
    np.testing.assert_array_equal(found.points_angstrom, [(105, 205, 305), (15, 505, 505)])
    np.testing.assert_allclose(found.scores, [0.5, 1.0], atol=1e-3)


# Micrographs: tomograms of one slice

APOFERRITIN = PickingSettings(radius_angstrom=60.0)
PIXEL = (4.0, 4.0, 4.0)


def discs(centres, shape=(1, 300, 320), radius=15.0):
    """Score map of discs, centres (y, x): 1 inside, soft over a pixel."""
    y, x = np.indices(shape[1:])
    away = np.min([np.hypot(y - centre[0], x - centre[1]) for centre in centres], axis=0)
    return np.clip(radius - away + 0.5, 0, 1).astype(np.float32)[np.newaxis]


def test_an_ideal_disc_gives_one_at_its_centre():
    found = picked(discs([(150.3, 139.6)]), APOFERRITIN, voxel=PIXEL)
    assert found.scores[0] == pytest.approx(1.0, abs=0.02)
    np.testing.assert_allclose(found.points_angstrom, [[0, 601.2, 558.4]], atol=0.1)


@pytest.mark.parametrize(("noise", "rms"), [(0.2, 0.4), (0.4, 0.5)])
def test_a_micrograph_full_of_particles_is_picked(noise, rms):
    rng = np.random.default_rng(4)
    rows, columns = np.meshgrid(np.arange(8), np.arange(9), indexing="ij")
    # Particles 30 pixels across, some of which touch, labelled by the inner 0.7 of them.
    centres = np.stack([rows.ravel(), columns.ravel()], axis=1) * 34.0 + 22
    centres += rng.uniform(-2, 2, centres.shape)
    score = discs(centres, radius=10.5) + noise * rng.standard_normal((1, 300, 320))
    result = score_particles(
        picked(
            score.clip(0, 1).astype(np.float32),
            replace(APOFERRITIN, label_radius_angstrom=42.0),
            voxel=PIXEL,
        ),
        Particles.at("apoferritin", np.column_stack([np.zeros(len(centres)), centres * 4])),
        tolerance_angstrom=30,
    )
    assert result.f1 == 1
    assert result.position_rms_angstrom < rms * PIXEL[0]


def test_large_discs_are_found_on_a_coarser_grid():
    settings = PickingSettings(radius_angstrom=200.0)
    assert picking_factor(settings, Sampling((1, 300, 320), PIXEL)) == 8
    found = picked(discs([(150.3, 139.6)], radius=50.0), settings, voxel=PIXEL)
    np.testing.assert_allclose(found.points_angstrom, [[0, 601.2, 558.4]], atol=0.2 * PIXEL[0])


@pytest.mark.parametrize("block", [(1, 64, 64), (16, 100, 300)])
def test_blocks_of_a_micrograph_leave_no_trace(block):
    rng = np.random.default_rng(5)
    centres = rng.uniform(0, 300, (30, 2))
    score = discs(centres) * rng.random((1, 300, 320), np.float32)
    whole = picked(score, APOFERRITIN, voxel=PIXEL)
    parts = picked(score, APOFERRITIN, block=block, voxel=PIXEL)
    assert len(whole) > 10
    np.testing.assert_array_equal(whole.points_angstrom, parts.points_angstrom)


def test_the_border_of_a_micrograph_is_around_it():
    score = discs([(150, 150), (8, 150), (150, 306)])
    assert len(picked(score, APOFERRITIN, voxel=PIXEL)) == 3
    kept = picked(score, replace(APOFERRITIN, border="drop"), voxel=PIXEL)
    np.testing.assert_allclose(kept.points_angstrom, [[0, 600, 600]], atol=0.5)


def test_components_of_a_micrograph_are_measured_by_their_area():
    nominal = np.pi * 15**2
    found = pick_components(
        np.array([(0.0, 20, 30), (0, 100, 100)]),
        np.array([round(nominal / 2), round(nominal / 5)]),
        name="apoferritin",
        sampling=Sampling((1, 300, 320), PIXEL),
        settings=replace(APOFERRITIN, border="drop"),
    ).particles
    np.testing.assert_array_equal(found.points_angstrom, [(0, 80, 120)])
    np.testing.assert_allclose(found.scores, [0.5], atol=1e-3)


def test_components_may_be_none():
    found = pick_components(
        np.zeros((0, 3)),
        np.zeros(0, np.int64),
        name="ribosome",
        sampling=Sampling((9, 9, 9), (VOXEL,) * 3),
        settings=replace(RIBOSOME, border="drop"),
    )
    assert len(found) == 0


@pytest.mark.parametrize(
    "values",
    [
        {"radius_angstrom": 0.0},
        {"label_radius_angstrom": -1.0},
        {"minimum_distance_angstrom": float("nan")},
        {"threshold": 0.0},
        {"minimum_volume_fraction": 1.0},
    ],
)
def test_settings_out_of_range_are_refused(values):
    with pytest.raises(RequestError):
        PickingSettings(**values)


def test_a_particle_smaller_than_a_voxel_is_refused():
    with pytest.raises(RequestError, match="finer"):
        picking_factor(PickingSettings(radius_angstrom=9.0), Sampling((9, 9, 9), (VOXEL,) * 3))
