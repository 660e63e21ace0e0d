from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix as independent_confusion
from sklearn.metrics import fbeta_score, jaccard_score, precision_recall_fscore_support

from tomoseg.analysis.metrics import (
    PickCounts,
    class_scores,
    confusion,
    czii_counts,
    czii_score,
    f_beta,
    generous_counts,
    score_filaments,
    score_particles,
    tolerant_counts,
    tolerant_f1,
)
from tomoseg.core.blocks import BlockGrid, Box
from tomoseg.core.coordinates import Filament, Particles
from tomoseg.core.errors import RequestError

NAN = float("nan")


def same(value, expected):
    return value == pytest.approx(expected, nan_ok=True)


def test_confusion_counts_truth_by_label_and_leaves_out_what_is_not_annotated():
    truth = np.array([0, 0, 1, 1, 2, 255], dtype=np.uint8)
    labels = np.array([0, 1, 1, 2, 2, 2], dtype=np.uint8)
    assert confusion(labels, truth, 2).tolist() == [[1, 1, 0], [0, 1, 1], [0, 0, 1]]


def test_confusion_adds_up_over_blocks():
    rng = np.random.default_rng(0)
    truth, labels = rng.integers(0, 4, (2, 9, 8, 7)).astype(np.uint8)
    parts = sum(confusion(labels[i : i + 3], truth[i : i + 3], 3) for i in (0, 3, 6))
    np.testing.assert_array_equal(parts, confusion(labels, truth, 3))


@pytest.mark.parametrize(
    ("labels", "truth"),
    [([0, 1], [0, 1, 1]), ([3, 0], [0, 0]), ([0, 0], [3, 0]), ([-1, 0], [0, 0])],
    ids=["shapes differ", "label too large", "truth too large", "negative"],
)
def test_confusion_refuses_what_it_cannot_count(labels, truth):
    with pytest.raises(RequestError):
        confusion(np.array(labels), np.array(truth), 2)


def test_class_scores_by_hand():
    # Class "a": 6 hits, 2 found on background, 4 lost to class "b", which has no hit of its own.
    counts = np.array([[80, 2, 0, 0], [0, 6, 4, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    a, b, c = class_scores(counts, ["a", "b", "c"])
    assert (a.precision, a.recall, a.support) == (6 / 8, 6 / 10, 10)
    assert same(a.f1, 12 / 18) and same(a.iou, 6 / 12)
    assert a.dice == a.f1
    assert (b.precision, b.f1, b.iou, b.support) == (0, 0, 0, 0)
    assert np.isnan(b.recall)
    assert np.isnan([c.precision, c.recall, c.f1, c.iou]).all()


@pytest.mark.parametrize("seed", range(3))
def test_class_scores_equal_those_of_another_implementation(seed):
    truth, labels = np.random.default_rng(seed).integers(0, 4, (2, 500))
    counts = confusion(labels, truth, 3)
    np.testing.assert_array_equal(counts, independent_confusion(truth, labels))
    scores = class_scores(counts, ["a", "b", "c"])
    ours = [(s.precision, s.recall, s.f1, s.support) for s in scores]
    theirs = precision_recall_fscore_support(truth, labels, labels=[1, 2, 3])
    np.testing.assert_allclose(ours, np.transpose(theirs))
    np.testing.assert_allclose(
        [s.iou for s in scores], jaccard_score(truth, labels, labels=[1, 2, 3], average=None)
    )


def test_class_scores_refuse_names_that_do_not_fit():
    with pytest.raises(RequestError):
        class_scores(np.zeros((3, 3), np.int64), ["a"])


def test_tolerant_f1_by_hand_and_over_blocks():
    truth = np.zeros((5, 5, 40), bool)
    truth[2, 2, 5:35] = True
    found = np.zeros_like(truth)
    found[4, 2, 5:25] = found[2, 2, 38] = True
    # 20 of 21 found voxels are 2 away and the last is 4; so are 20 of the 30 true ones.
    counts = tolerant_counts(found, truth, Box.whole(truth.shape), tolerance_voxels=2)
    assert counts.tolist() == [[20, 21], [20, 30]]
    assert same(tolerant_f1(counts), 2 * 20 / 21 * 2 / 3 / (20 / 21 + 2 / 3))
    parts = sum(
        tolerant_counts(found[b.read.slices], truth[b.read.slices], b.core, tolerance_voxels=2)
        for b in BlockGrid(truth.shape, (5, 3, 9), halo=(2, 2, 2))
    )
    np.testing.assert_array_equal(parts, counts)


@pytest.mark.parametrize(
    ("found", "truth", "f1"), [(False, False, NAN), (True, False, 0), (False, True, 0)]
)
def test_tolerant_f1_of_empty_masks(found, truth, f1):
    masks = np.full((3, 3, 3), found), np.full((3, 3, 3), truth)
    counts = tolerant_counts(*masks, Box.whole((3, 3, 3)), tolerance_voxels=2)
    assert same(tolerant_f1(counts), f1)


def line(*points, number=1):
    return Filament("tube", number, np.array(points, float))


def compared(found, truth, tolerance=100.0):
    return score_filaments(found, truth, tolerance_angstrom=tolerance)


TUBE = line((0, 0, 0), (0, 0, 990))  # 100 points at 10 Å


def test_a_line_is_itself():
    score = compared([TUBE], [TUBE])
    assert (score.precision, score.recall, score.f1, score.coverage) == (1, 1, 1, 1)
    assert (score.instance_precision, score.instance_recall, score.instance_f1) == (1, 1, 1)
    assert (score.splits, score.merges, score.missed, score.false) == (0, 0, 0, 0)
    assert (score.position_rms_angstrom, score.direction_median_degrees) == (0, 0)


def test_direction_of_travel_does_not_matter():
    assert compared([line((0, 0, 990), (0, 0, 0))], [TUBE]) == compared([TUBE], [TUBE])


def test_a_line_beside_it_is_off_by_the_distance():
    score = compared([line((30, 40, 0), (30, 40, 990))], [TUBE])
    assert same(score.position_rms_angstrom, 50) and score.f1 == 1
    assert same(score.position_rms_radii, 0.5)
    assert compared([line((0, 101, 0), (0, 101, 990))], [TUBE]).f1 == 0


def test_precision_and_recall_are_shares_of_length():
    # 150 points found, of which those at 0..1090 Å are within 100 Å of the true line's 100 points.
    score = compared([line((0, 0, 0), (0, 0, 1490))], [TUBE])
    assert (score.precision, score.recall) == (110 / 150, 1)
    assert same(score.f1, 2 * (11 / 15) / (1 + 11 / 15))
    assert same(score.coverage, 100 / 150)
    reverse = compared([TUBE], [line((0, 0, 0), (0, 0, 1490))])
    assert (reverse.precision, reverse.recall) == (1, 110 / 150)
    assert same(reverse.coverage, 100 / 150)


def test_a_split_is_counted_on_the_truth_and_a_merge_on_the_found():
    pieces = [line((0, 0, 0), (0, 0, 440)), line((0, 0, 550), (0, 0, 990))]
    split, merge = compared(pieces, [TUBE]), compared([TUBE], pieces)
    assert (split.splits, split.merges) == (1, 0)
    assert (merge.splits, merge.merges) == (0, 1)
    # Each piece has 45 points and, with its half of the gap, covers 50 of the 100 true ones.
    assert same(split.coverage, 45 / 100)
    assert (split.instance_f1, merge.instance_f1) == (0, 0)


def test_a_piece_shorter_than_four_radii_is_no_split():
    pieces = [line((0, 0, 0), (0, 0, 690)), line((0, 0, 800), (0, 0, 990))]
    assert compared(pieces, [TUBE]).splits == 0
    assert compared(pieces, [TUBE], tolerance=40.0).splits == 1


def test_missed_and_false_are_lines_that_cover_nothing():
    far = line((0, 5000, 0), (0, 5000, 990))
    score = compared([TUBE, far], [TUBE, line((9000, 0, 0), (9000, 0, 500))])
    assert (score.missed, score.false) == (1, 1)
    assert same(score.instance_f1, 1 / 2)
    assert same(score.coverage, 1 / 2)


def test_a_crossing_line_covers_nothing():
    score = compared([line((0, -500, 495), (0, 500, 495))], [TUBE])
    assert 0 < score.precision < 0.25
    assert (score.missed, score.false) == (1, 1)


def test_the_error_of_direction_is_the_angle_between_tangents():
    degrees = 5.0
    end = 990 * np.array([0, np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))])
    score = compared([line((0, 0, 0), end)], [TUBE])
    assert same(score.direction_rms_degrees, degrees)
    assert same(score.direction_median_degrees, degrees)
    assert same(score.direction_p95_degrees, degrees)


def test_rms_of_a_line_that_is_shifted_and_turned_about_its_middle():
    # x Å from its middle the true line is √(60² + (x sin 8°)²) from the other.
    across = 2000 * np.array([0, np.sin(np.deg2rad(8)), np.cos(np.deg2rad(8))])
    middle = np.array([60, 0, 495])
    turned = line(middle - across, middle + across)
    score = score_filaments([turned], [TUBE], tolerance_angstrom=125, spacing_angstrom=1)
    squares = 60**2 + (np.sin(np.deg2rad(8)) * (np.arange(991) - 495)) ** 2
    assert score.position_rms_angstrom == pytest.approx(np.sqrt(squares.mean()), abs=0.01)
    assert score.position_rms_radii == score.position_rms_angstrom / 125
    assert same(score.direction_rms_degrees, 8)


def test_the_rms_angle_weighs_the_larger_angles():
    # One of two equal lines is found at 3°, the other at 4°: √((3² + 4²) / 2), the median between.
    ends = [990 * np.array([0, np.sin(a), np.cos(a)]) for a in np.deg2rad([3.0, 4.0])]
    found = [line((0, 0, 0), ends[0]), line((5000, 0, 0), ends[1] + [5000, 0, 0])]
    score = compared(found, [TUBE, line((5000, 0, 0), (5000, 0, 990))])
    assert same(score.direction_rms_degrees, np.sqrt(12.5))
    assert same(score.direction_median_degrees, 3.5)


@pytest.mark.parametrize(
    ("found", "truth", "expected"),
    [
        ([], [], (NAN, NAN, NAN, 0, 0)),
        ([TUBE], [], (0, NAN, 0, 0, 1)),
        ([], [TUBE], (NAN, 0, 0, 1, 0)),
    ],
)
def test_nothing_is_scored_as_far_as_it_can_be(found, truth, expected):
    score = compared(found, truth)
    assert same((score.precision, score.recall, score.f1, score.missed, score.false), expected)


def picks(*points):
    return Particles.at("ribosome", np.array(points, float).reshape(-1, 3))


def test_two_picks_of_one_particle_are_one_hit_and_one_error():
    score = score_particles(
        picks((0, 0, 3), (0, 4, 0), (0, 0, 500)),
        picks((0, 0, 0), (0, 900, 0)),
        tolerance_angstrom=10,
    )
    assert (score.matches, score.precision, score.recall) == (1, 1 / 3, 1 / 2)
    assert score.position_rms_angstrom == 3


def test_the_largest_matching_wins_over_the_closest_pair():
    # Greedy would pair the middle two and leave the outer ones alone.
    score = score_particles(
        picks((0, 0, 0), (0, 0, 19)), picks((0, 0, 10), (0, 0, 28)), tolerance_angstrom=10
    )
    assert (score.matches, score.f1) == (2, 1)
    assert same(score.position_rms_angstrom, np.sqrt((10**2 + 9**2) / 2))


@settings(max_examples=80)
@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 10**6))
def test_matching_equals_trying_everything(found, truth, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.uniform(0, 20, (found, 3)), rng.uniform(0, 20, (truth, 3))
    score = score_particles(picks(*a), picks(*b), tolerance_angstrom=9)
    distance = np.linalg.norm(a[:, None] - b[None], axis=2)
    distance = distance if found <= truth else distance.T
    tries = []
    for order in permutations(range(max(found, truth)), min(found, truth)):
        pairs = distance[range(len(order)), list(order)]
        pairs = pairs[pairs <= 9]
        tries.append((-len(pairs), pairs.sum(), (pairs**2).sum()))
    missed, _, squares = min(tries)
    assert score.matches == -missed
    if score.matches:
        assert same(score.position_rms_angstrom, np.sqrt(squares / score.matches))


@pytest.mark.parametrize(
    ("found", "truth", "f1"), [([], [], NAN), ([(0, 0, 0)], [], 0), ([], [(0, 0, 0)], 0)]
)
def test_no_particles_are_scored_as_far_as_can_be(found, truth, f1):
    score = score_particles(picks(*found), picks(*truth), tolerance_angstrom=10)
    assert same(score.f1, f1) and np.isnan(score.position_rms_angstrom)


@pytest.mark.parametrize(
    ("found", "truth", "counts"),
    [
        ([(0, 0, 75)], [(0, 0, 0)], (1, 0, 0)),
        ([(0, 0, 75.1)], [(0, 0, 0)], (0, 1, 1)),
        ([(0, 0, 9), (0, 9, 0)], [(0, 0, 0)], (1, 1, 0)),
        ([(0, 0, 50)], [(0, 0, 0), (0, 0, 100)], (2, -1, 0)),
        ([], [(0, 0, 0)], (0, 0, 1)),
        ([(0, 0, 0)], [], (0, 1, 0)),
    ],
    ids=["at half the radius", "beyond", "two on one", "one on two", "none found", "none there"],
)
def test_czii_counts_distinct_true_points(found, truth, counts):
    assert czii_counts(picks(*found), picks(*truth), radius_angstrom=150) == PickCounts(*counts)


@pytest.mark.parametrize(
    ("found", "truth", "counts"),
    [
        ([(0, 0, 119.9)], [(0, 0, 0)], (1, 0, 0)),
        ([(0, 0, 120)], [(0, 0, 0)], (0, 1, 1)),
        ([(0, 0, 9), (0, 9, 0)], [(0, 0, 0)], (2, 0, 0)),
        ([(0, 0, 50)], [(0, 0, 0), (0, 0, 100)], (1, 0, 0)),
        ([], [(0, 0, 0)], (0, 0, 1)),
        ([(0, 0, 0)], [], (0, 1, 0)),
    ],
    ids=["nearer than 0.8", "at 0.8", "two on one", "one on two", "none found", "none there"],
)
def test_generous_counts_count_every_candidate(found, truth, counts):
    assert generous_counts(picks(*found), picks(*truth), radius_angstrom=150) == PickCounts(*counts)


def test_czii_score_pools_and_weighs_by_hand():
    ribosome = PickCounts(3, 1, 0) + PickCounts(1, 0, 0)
    assert ribosome == PickCounts(4, 1, 0)
    counts = {
        "ribosome": ribosome,
        "thyroglobulin": PickCounts(1, 0, 1),
        "beta-amylase": PickCounts(0, 9, 9),
    }
    ribosome_f4 = 17 * 0.8 / (16 * 0.8 + 1)
    thyroglobulin_f4 = 17 * 0.5 / (16 + 0.5)
    assert same(czii_score(counts), (ribosome_f4 + 2 * thyroglobulin_f4) / 3)
    assert czii_score({"ribosome": PickCounts(0, 0, 5)}) == 0
    assert same(czii_score({"virus": ribosome}, weights={"virus": 3.0}), ribosome_f4)


@pytest.mark.parametrize("name", ["beta-amylase", "virus"])
def test_czii_score_refuses_classes_without_weight(name):
    with pytest.raises(RequestError, match=name):
        czii_score({name: PickCounts(1, 0, 0)})


def test_f_beta_by_hand():
    assert f_beta(0.5, 1.0, beta=1) == pytest.approx(2 / 3)
    assert f_beta(0.5, 0.25, beta=2) == pytest.approx(5 * 0.125 / (4 * 0.5 + 0.25))
    assert f_beta(0, 0, beta=4) == 0


@pytest.mark.parametrize("beta", [0.5, 1, 4])
def test_f_beta_equals_that_of_another_implementation(beta):
    truth, labels = np.random.default_rng(5).random((2, 200)) < 0.3
    counts = PickCounts(
        int((truth & labels).sum()), int((labels & ~truth).sum()), int((truth & ~labels).sum())
    )
    ours = f_beta(counts.precision, counts.recall, beta=beta)
    assert ours == pytest.approx(fbeta_score(truth, labels, beta=beta))
    if beta == 4:
        assert counts.f4 == ours
