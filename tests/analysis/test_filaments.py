import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage
from scipy.spatial import cKDTree

from tomoseg.analysis.filaments import (
    RidgePoints,
    TracingSettings,
    ridge_points,
    trace,
    tracing_defaults,
    tracing_halo,
    working_factor,
)
from tomoseg.analysis.filaments.finish import smooth
from tomoseg.analysis.filaments.link import link
from tomoseg.analysis.metrics import score_filaments
from tomoseg.core.blocks import BlockGrid, Box
from tomoseg.core.coordinates import Filament, resample
from tomoseg.core.errors import RequestError
from tomoseg.core.sampling import Sampling

DATA = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "cryoet"
MICROTUBULE = tracing_defaults("microtubule")
VOXEL = 12.0
RADIUS = MICROTUBULE.radius_angstrom / VOXEL


def draw(shape, lines, radius=RADIUS, inner=0.0):
    """Score map of tubes around lines in voxels: 1 inside, 0 outside, soft over a voxel."""
    distance = np.full(shape, 100.0, dtype=np.float32)
    reach = int(radius) + 4
    grid = np.mgrid[(slice(-reach, reach + 1),) * 3]
    for place in np.concatenate([resample(np.asarray(line, float), 1.0) for line in lines]):
        centre = np.round(place).astype(int)
        low, high = np.maximum(centre - reach, 0), np.minimum(centre + reach + 1, shape)
        if (low >= high).any():
            continue
        box = tuple(map(slice, low, high))
        part = tuple(map(slice, low - centre + reach, high - centre + reach))
        offset = (place - centre)[:, None, None, None]
        near = np.sqrt(((grid[(slice(None), *part)] - offset) ** 2).sum(axis=0))
        distance[box] = np.minimum(distance[box], near)
    return (np.clip(radius - distance + 0.5, 0, 1) - np.clip(inner - distance + 0.5, 0, 1)).astype(
        np.float32
    )


def seen(score, noise=0.1, seed=0):
    """Blur along z and add correlated noise, as a network's score map shows it."""
    rng = np.random.default_rng(seed)
    grain = ndimage.gaussian_filter(rng.standard_normal(score.shape), 1.0)
    blurred = ndimage.gaussian_filter1d(score, 1.5, axis=0)
    return np.clip(blurred * 0.85 + 0.05 + noise * grain / grain.std(), 0, 1).astype(np.float32)


def points_of(score, settings=MICROTUBULE, voxel=(VOXEL,) * 3, block=None):
    sampling = Sampling(score.shape, voxel)
    grid = BlockGrid(
        score.shape,
        block or score.shape,
        tracing_halo(settings, sampling),
        (working_factor(settings, sampling),) * 3,
    )
    return RidgePoints.concatenate(
        [
            ridge_points(
                score[b.read.slices],
                b.core,
                begin=b.read.begin,
                sampling=sampling,
                settings=settings,
            )
            for b in grid
        ]
    )


def traced(score, settings=MICROTUBULE, voxel=(VOXEL,) * 3):
    points = points_of(score, settings, voxel)
    return trace(points, name="tube", sampling=Sampling(score.shape, voxel), settings=settings)


def true_lines(lines, voxel=VOXEL):
    return [Filament("tube", i, np.asarray(line, float) * voxel) for i, line in enumerate(lines, 1)]


def compared(found, lines, settings=MICROTUBULE):
    return score_filaments(found, true_lines(lines), tolerance_angstrom=settings.radius_angstrom)


def straight(begin, end):
    return np.linspace(begin, end, 50)


def curved(rng, shape, length):
    """A smooth line of about a length in voxels, cut at the border."""
    along = rng.normal(size=3) * [0.15, 1, 1]
    along /= np.linalg.norm(along)
    bend = rng.normal(size=3) * [0.1, 1, 1] * 0.004
    line = [rng.uniform(0.1, 0.9, 3) * shape]
    while len(line) < length:
        along = along + bend
        along /= np.linalg.norm(along)
        place = line[-1] + along
        if (place < 3).any() or (place > np.array(shape) - 4).any():
            break
        line.append(place)
    return np.array(line)


def crowd(shape, count, closest, seed):
    """Curves that come no nearer to each other than a distance in voxels."""
    rng, lines = np.random.default_rng(seed), []
    while len(lines) < count:
        line = curved(rng, shape, 300)
        others = np.concatenate([np.full((1, 3), -1e3), *lines])
        if len(line) > 90 and cKDTree(others).query(line)[0].min() > closest:
            lines.append(line)
    return lines


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        ((24, 10, 64), (24, 118, 64)),
        ((24.4, 12.3, 20.7), (30.1, 110.2, 101.5)),
        ((4, 64, 64), (60, 66, 70)),
    ],
    ids=["along an axis, where all maxima tie", "askew", "along z"],
)
def test_a_tube_is_one_filament_on_its_axis(begin, end):
    line = straight(begin, end)
    found = traced(seen(draw((64, 128, 128), [line])))
    assert len(found) == 1
    score = compared(found, [line])
    assert score.f1 > 0.97
    assert score.position_rms_angstrom < 0.1 * MICROTUBULE.radius_angstrom
    assert score.direction_p95_degrees < 5
    assert 0.5 < found[0].score <= 1


def test_points_are_half_a_radius_apart():
    (found,) = traced(draw((40, 40, 128), [straight((20, 20, 8), (20, 20, 120))]))
    steps = np.linalg.norm(np.diff(found.points_angstrom, axis=0), axis=1)
    np.testing.assert_allclose(steps, 0.5 * MICROTUBULE.radius_angstrom, rtol=0.05)


def test_voxels_need_not_be_cubes():
    settings, voxel = MICROTUBULE, (24.0, 12.0, 12.0)
    fine = draw((64, 96, 128), [straight((20, 14, 12), (44, 80, 116))])
    found = traced(fine.reshape(32, 2, 96, 128).mean(axis=1), settings, voxel)
    assert len(found) == 1
    # A slab of two fine slices has its centre half a fine voxel further along z.
    shifted = straight((20, 14, 12), (44, 80, 116)) - [0.5, 0, 0]
    assert compared(found, [shifted]).position_rms_angstrom < 15


@pytest.mark.parametrize(
    ("settings", "closest", "noise", "f1", "splits"),
    [
        (MICROTUBULE, 2.2 * RADIUS, 0.1, 0.98, 1),
        (MICROTUBULE, 1.5 * RADIUS, 0.17, 0.97, 2),
        (tracing_defaults("actin"), 10.0, 0.1, 0.98, 2),
        (tracing_defaults("actin"), 10.0, 0.17, 0.95, 4),
    ],
    ids=["microtubules", "crossing, noisy", "actin", "actin, noisy"],
)
def test_a_crowd_is_told_apart(settings, closest, noise, f1, splits):
    shape = (64, 160, 160)
    lines = crowd(shape, 8, closest, seed=2)
    found = traced(seen(draw(shape, lines, settings.radius_angstrom / VOXEL), noise), settings)
    score = compared(found, lines, settings)
    assert score.f1 >= f1
    assert score.splits <= splits
    assert score.merges <= 1
    assert score.false == 0


@pytest.mark.parametrize("degrees", [35, 60, 90])
@pytest.mark.parametrize("diameters", [0.7, 1.0])
def test_crossings_pass_through_each_other(degrees, diameters):
    half = 55 * np.array([0, np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))])
    high = np.array([24 + diameters * 2 * RADIUS, 64, 64])
    lines = [straight((24, 64, 9), (24, 64, 119)), straight(high - half, high + half)]
    score = compared(traced(seen(draw((64, 128, 128), lines))), lines)
    assert (score.splits, score.merges, score.instance_f1) == (0, 0, 1.0)


@pytest.mark.parametrize("spacing_nm", [35, 50])
def test_a_bundle_is_as_many_filaments_as_it_has(spacing_nm):
    offsets = np.arange(3) * spacing_nm * 10 / VOXEL
    lines = [straight((30, 20 + d, 10), (30, 40 + d, 150)) for d in offsets]
    score = compared(traced(seen(draw((60, 150, 160), lines))), lines)
    assert (score.splits, score.merges, score.false, score.instance_f1) == (0, 0, 0, 1.0)


@pytest.mark.parametrize(
    ("gap_nm", "count", "settings"),
    [(10, 1, MICROTUBULE), (40, 1, MICROTUBULE), (110, 2, MICROTUBULE)]
    + [(gap, count, tracing_defaults("actin")) for gap, count in ((7, 1), (40, 1), (70, 2))],
)
def test_gaps_are_bridged_up_to_the_link_length(gap_nm, count, settings):
    half = gap_nm * 10 / VOXEL / 2
    pieces = [
        straight((30, 30, 8), (30, 30, 110 - half)),
        straight((30, 30, 110 + half), (30, 30, 212)),
    ]
    score = seen(draw((60, 60, 220), pieces, settings.radius_angstrom / VOXEL))
    assert len(traced(score, settings)) == count


def test_a_tube_that_leaves_the_volume_is_traced_to_its_border():
    line = straight((30, 20, -20), (30, 60, 140))
    (found,) = traced(seen(draw((60, 90, 120), [line])))
    ends = np.sort(found.points_angstrom[[0, -1], 2]) / VOXEL
    np.testing.assert_allclose(ends, [-0.5, 119.5], atol=1.0)


def test_a_tube_that_ends_is_traced_to_its_end():
    score = draw((60, 60, 160), [straight((30, 30, -20), (30, 30, 180))])
    score[:, :, :30] = score[:, :, 121:] = 0
    (found,) = traced(seen(score))
    ends = np.sort(found.points_angstrom[[0, -1], 2]) / VOXEL
    np.testing.assert_allclose(ends, [29.5, 120.5], atol=0.25 * RADIUS)


def test_a_ring_is_followed_once_around():
    turn = np.linspace(0, 2 * np.pi, 300)
    ring = np.stack([np.full(300, 24.0), 80 + 55 * np.sin(turn), 80 + 55 * np.cos(turn)], axis=1)
    found = traced(draw((48, 160, 160), [ring]))
    assert len(found) == 1
    assert 0.85 < found[0].length_angstrom / (2 * np.pi * 55 * VOXEL) < 1.1


def sheet(shape, normal):
    normal = np.array(normal) / np.linalg.norm(normal)
    grid = np.indices(shape) - np.array(shape)[:, None, None, None] / 2
    return (np.abs(np.tensordot(normal, grid, 1)) < 3).astype(np.float32)


@pytest.mark.parametrize(
    "normal", [(1, 0, 0), (0.2, 1, 0.3), (0.7, 1, 0.6)], ids=["flat", "steep", "askew"]
)
@pytest.mark.parametrize("settings", [MICROTUBULE, tracing_defaults("actin")], ids=["mt", "actin"])
def test_a_membrane_is_no_filament_not_even_where_it_meets_the_border(normal, settings):
    assert traced(seen(sheet((60, 120, 120), normal), 0.05), settings) == []


def test_the_rim_of_a_torn_sheet_is_no_filament_and_one_along_it_is():
    score = sheet((48, 120, 120), (1, 0, 0))
    score[:, :, 60:] = 0
    settings = tracing_defaults("actin")
    assert traced(seen(score), settings) == []
    line = straight((24, 10, 72), (24, 110, 72))
    both = np.maximum(score, draw(score.shape, [line], settings.radius_angstrom / VOXEL))
    result = compared(traced(seen(both), settings), [line], settings)
    assert result.f1 > 0.97
    assert (result.splits, result.false) == (0, 0)


@pytest.mark.parametrize("settings", [MICROTUBULE, tracing_defaults("actin")], ids=["mt", "actin"])
def test_blobs_and_noise_are_no_filaments(settings):
    grid = np.indices((60, 120, 120))
    score = np.zeros((60, 120, 120), np.float32)
    assert traced(seen(score, 0.15), settings) == []
    for centre, radius in [((30, 30, 30), 11), ((30, 80, 40), 15), ((28, 60, 95), 20)]:
        offset = grid - np.array(centre)[:, None, None, None]
        score[(offset**2).sum(axis=0) < radius**2] = 1
    assert traced(seen(score), settings) == []


@pytest.mark.parametrize("contrast", [1.0, 0.3])
def test_a_weak_map_traces_as_a_strong_one(contrast):
    lines = crowd((48, 128, 128), 4, 2.2 * RADIUS, seed=5)
    found = traced(contrast * draw((48, 128, 128), lines))
    score = compared(found, lines)
    assert score.f1 > 0.97
    assert score.instance_f1 == 1.0


def test_hollow_tubes_are_traced_on_their_axis():
    lines = [straight((24, 14, 12), (30, 110, 90)), straight((26, 20, 70), (22, 60, 118))]
    settings = replace(MICROTUBULE, hollow=True)
    score = compared(
        traced(seen(draw((56, 128, 128), lines, inner=0.68 * RADIUS)), settings), lines
    )
    assert (score.splits, score.merges, score.false, score.missed) == (0, 0, 0, 0)
    assert score.f1 > 0.95


def arranged(points):
    order = np.lexsort(points.index.T)
    return [values[order] for values in points.as_dict().values()]


@pytest.mark.parametrize(
    ("settings", "block"),
    [
        (MICROTUBULE, (32, 32, 32)),
        (MICROTUBULE, (64, 48, 128)),
        (replace(MICROTUBULE, hollow=True), (34, 64, 46)),
        (tracing_defaults("actin"), (17, 64, 45)),
    ],
)
def test_blocks_leave_no_trace(settings, block):
    # A rest of one voxel at the end of z is a block of its own without a bin.
    shape = (65, 128, 115)
    lines = crowd(shape, 4, 2 * RADIUS, seed=3)
    score = seen(draw(shape, lines, settings.radius_angstrom / VOXEL))
    sampling = Sampling(shape, (VOXEL,) * 3)
    whole, parts = points_of(score, settings), points_of(score, settings, block=block)
    for one, other in zip(arranged(whole), arranged(parts), strict=True):
        np.testing.assert_array_equal(one, other)
    first, second = (
        trace(points, name="tube", sampling=sampling, settings=settings)
        for points in (whole, parts)
    )
    assert len(first) == len(second) > 0
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.points_angstrom, other.points_angstrom)
        assert (one.number, one.score) == (other.number, other.score)


def test_a_block_read_without_its_halo_is_refused():
    sampling = Sampling((128, 128, 128), (VOXEL,) * 3)
    with pytest.raises(RequestError, match="halo"):
        ridge_points(
            np.zeros((64, 64, 64), np.float32),
            Box((8, 8, 8), (56, 56, 56)),
            begin=(32, 32, 32),
            sampling=sampling,
            settings=MICROTUBULE,
        )


def test_the_ideal_tube_has_strength_one_and_the_tube_s_direction():
    score = draw((41, 41, 41), [straight((20, 20, -30), (20, 20, 70))], radius=10)
    settings = TracingSettings(radius_angstrom=100.0)
    points = points_of(score, settings, (10.0,) * 3)
    middle = (np.abs(points.index - 10) <= 1).all(axis=1)
    assert points.strength[middle].max() == pytest.approx(1.0, abs=0.1)
    np.testing.assert_allclose(np.abs(points.direction[middle][:, 2]), 1, atol=1e-3)
    axis = (points.index[:, :2] == 10).all(axis=1)
    assert points.aside[axis].max() < 0.15


def test_a_rim_s_top_lies_aside_by_sigma_squared_over_its_depth():
    # d inside a smoothed edge the slope is φ(d/σ)/σ and the curvature d·φ(d/σ)/σ³.
    score = np.zeros((41, 40, 60), np.float32)
    score[15:27, :, :40] = 1
    settings = TracingSettings(radius_angstrom=100.0)
    points = points_of(score, settings, (10.0,) * 3)
    for x in (14, 15, 16):
        (row,) = np.flatnonzero((points.index == (10, 10, x)).all(axis=1))
        depth = 395 - (20 * x + 5)
        assert points.aside[row] == pytest.approx(75**2 / depth / 100, rel=0.05)


def test_points_go_through_a_file(tmp_path):
    points = points_of(draw((40, 40, 64), [straight((20, 20, 4), (20, 20, 60))]))
    np.savez(tmp_path / "points.npz", **points.as_dict())
    with np.load(tmp_path / "points.npz") as arrays:
        again = RidgePoints.from_dict(arrays)
    for name, values in points.as_dict().items():
        np.testing.assert_array_equal(again.as_dict()[name], values)
    assert len(points) == len(again) > 0


def test_nothing_gives_nothing():
    sampling = Sampling((40, 40, 40), (VOXEL,) * 3)
    points = RidgePoints.concatenate([])
    assert trace(points, name="tube", sampling=sampling, settings=MICROTUBULE) == []


@pytest.mark.parametrize(
    ("begin", "end", "count"),
    [
        ((0, 0, 1400), (0, 0, 2400), 1),
        ((0, 170, 1400), (0, 170, 2400), 2),
        ((0, 0, 1700), (0, 0, 2700), 2),
        ((0, 0, 1400), (0, 700, 2100), 2),
    ],
    ids=["in line", "too far aside", "too far ahead", "too much of a turn"],
)
def test_ends_are_linked_only_if_they_face_each_other(begin, end, count):
    lines = [straight((0, 0, 0), (0, 0, 1000)), straight(begin, end)]
    for order in (lines, lines[::-1], [lines[0], lines[1][::-1]]):
        joined = link(order, MICROTUBULE)
        assert len(joined) == count
        assert sum(map(len, joined)) == 100
    if count == 1:
        assert (np.abs(np.diff(joined[0][:, 2])) < 500).all()


def test_the_nearest_of_two_partners_is_taken():
    near, far = straight((0, 0, 1200), (0, 0, 1700)), straight((0, 60, 1350), (0, 60, 1700))
    joined = link([straight((0, 0, 0), (0, 0, 1000)), far, near], MICROTUBULE)
    assert sorted(map(len, joined)) == [50, 100]
    np.testing.assert_array_equal(joined[0][-1], near[-1])


def test_three_pieces_in_any_order_make_one_line():
    pieces = [straight((0, 0, a), (0, 0, a + 600)) for a in (0, 900, 1800)]
    (joined,) = link([pieces[1], pieces[2][::-1], pieces[0]], MICROTUBULE)
    assert (np.diff(joined[:, 2]) > 0).all() or (np.diff(joined[:, 2]) < 0).all()


def test_smoothing_takes_noise_off_and_keeps_the_ends():
    rng = np.random.default_rng(0)
    line = straight((0, 0, 0), (300, 400, 2000))
    smoothed = smooth(line + rng.normal(0, 20, line.shape), MICROTUBULE)
    across = np.cross(smoothed, line[-1] / np.linalg.norm(line[-1]))
    assert np.sqrt((across**2).sum(axis=1).mean()) < 15
    assert np.linalg.norm(smoothed[[0, -1]] - line[[0, -1]], axis=1).max() < 40


@pytest.mark.parametrize(
    "values",
    [
        {"radius_angstrom": 0.0},
        {"gap_angstrom": -1.0},
        {"turn_degrees": 90.0},
        {"follow_threshold": 0.6},
        {"link_angstrom": float("nan")},
    ],
)
def test_settings_out_of_range_are_refused(values):
    with pytest.raises(RequestError):
        TracingSettings(**values)


def test_a_filament_thinner_than_a_voxel_is_refused():
    with pytest.raises(RequestError, match="finer"):
        working_factor(tracing_defaults("actin"), Sampling((9, 9, 9), (40.0,) * 3))


real = pytest.mark.skipif(not DATA.exists(), reason="the real data are not beside the repository")


@real
def test_the_real_microtubule_is_one_filament_through_the_clicked_points():
    density = tifffile.imread(DATA / "microtubule_14pf" / "14pf_MT.tif").astype(np.float32)
    facts = json.loads((DATA / "microtubule_14pf" / "axis_points.json").read_text())
    clicks = 10 * np.array(facts["14pf_MT.tif"]["clicked_axis_points"])
    # Evidence without a network: density smoothed over half the wall's thickness, from above the
    # background's noise to the wall's level.
    smoothed = ndimage.gaussian_filter(density, 2.0)
    low, high = np.percentile(smoothed, [75, 97])
    evidence = np.clip((smoothed - low) / (high - low), 0, 1)
    found = traced(evidence, replace(MICROTUBULE, hollow=True), (10.52,) * 3)
    assert len(found) == 1
    line = resample(found[0].points_angstrom, 5.0)
    assert cKDTree(line).query(clicks)[0].max() < 60
    assert np.ptp(line[:, 1]) > 0.9 * density.shape[1] * 10.52


@real
@pytest.mark.parametrize("patch", ["3_0_25_54_25", "0_0_30_47_25"])
def test_real_masks_give_lines_inside_them(patch):
    mask = tifffile.imread(DATA / "microtubule_masks" / "masks" / f"{patch}_mask.tif")
    found = traced(mask.astype(np.float32), MICROTUBULE, (25.0,) * 3)
    away = ndimage.distance_transform_edt(mask == 0) * 25
    assert found
    for filament in found:
        index = np.round(filament.points_angstrom / 25).astype(int).clip(0, 95)
        assert (away[tuple(index.T)] < 50).all()
