import cellseg_metrics
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tomoseg.analysis.metrics import Overlaps, overlaps, score_instances
from tomoseg.core.errors import RequestError

NAN = float("nan")


def objects(*runs):
    """Return a row of voxels: so many of each id, in order."""
    return np.concatenate([np.full(count, number) for number, count in runs]).reshape(1, 1, -1)


def scored(found, truth):
    return score_instances(overlaps(found, truth))


def test_objects_are_themselves_whatever_their_numbers():
    truth = objects((0, 3), (1, 4), (2, 5), (0, 2))
    score = scored(objects((0, 3), (90_000, 4), (7, 5), (0, 2)), truth)
    assert (score.found, score.truth) == (2, 2)
    assert (score.precision, score.recall, score.f1) == (1, 1, 1)
    assert (score.ap50, score.ap75, score.mean_ap, score.panoptic_quality) == (1, 1, 1, 1)


def test_scores_by_hand():
    # Truth: A of 10, B of 10, C of 4. Found: 8 of A and nothing else (IoU 0.8); 6 of B and 2 of
    # background (IoU 6 / 12 = 0.5); one object on background alone; C is missed.
    truth = objects((1, 10), (2, 10), (0, 2), (3, 4), (0, 5))
    found = objects((1, 8), (0, 2), (0, 4), (2, 6), (2, 2), (0, 4), (3, 5))
    score = scored(found, truth)
    # At 0.5: TP 2, FP 1, FN 1. From 0.55 to 0.8 (six thresholds): TP 1, FP 2, FN 2. Then none.
    assert (score.precision, score.recall, score.f1) == (2 / 3, 2 / 3, 2 / 3)
    assert (score.ap50, score.ap75) == (2 / 4, 1 / 5)
    assert score.mean_ap == pytest.approx((2 / 4 + 6 / 5) / 10)
    # An IoU of exactly ½ is no match here: 0.8 / (1 + ½ 2 + ½ 2).
    assert score.panoptic_quality == pytest.approx(0.8 / 3)


def test_two_halves_are_one_hit_and_one_error():
    score = scored(objects((1, 5), (2, 5)), objects((1, 10)))
    assert (score.precision, score.recall, score.ap50, score.panoptic_quality) == (
        1 / 2,
        1,
        1 / 2,
        0,
    )
    # A half of one and the whole of the other way round: no object is used twice.
    both = objects((1, 5), (2, 5), (3, 10)), objects((1, 10), (2, 5), (3, 5))
    assert scored(*both).ap50 == 2 / 4


@pytest.mark.parametrize(
    ("found", "truth", "expected"),
    [(0, 0, (NAN, NAN, NAN, NAN)), (1, 0, (0, NAN, 0, 0)), (0, 1, (NAN, 0, 0, 0))],
)
def test_no_objects_are_scored_as_far_as_can_be(found, truth, expected):
    score = scored(objects((found, 4)), objects((truth, 4)))
    np.testing.assert_equal((score.precision, score.recall, score.ap50, score.mean_ap), expected)


def cells(seed, shape=(9, 10, 11)):
    """Return boxes with ids, and the same with each moved a little and renamed."""
    rng = np.random.default_rng(seed)
    truth, found = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    for number in range(1, 7):
        begin, size = rng.integers(0, shape), rng.integers(2, 6, 3)
        for volume, move in ((truth, 0), (found, rng.integers(-1, 2, 3))):
            low = np.maximum(begin + move, 0)
            volume[tuple(slice(a, b) for a, b in zip(low, low + size, strict=True))] = number
    return found * 13, truth


@settings(max_examples=40)
@given(st.integers(0, 10**6))
def test_scores_equal_those_of_another_implementation(seed):
    found, truth = cells(seed)
    score = scored(found, truth)
    flat = [volume.reshape(1, -1) for volume in (truth, found)]
    theirs = cellseg_metrics.panoptic_quality(*flat)
    assert score.panoptic_quality == pytest.approx(theirs["pq"], abs=1e-6)
    # Theirs needs an IoU above the threshold, ours one that reaches it.
    f1 = cellseg_metrics.panoptic_quality(*flat, thresh=0.75 - 1e-6)["dq"]
    assert score.ap75 == pytest.approx(f1 / (2 - f1), abs=1e-6)
    precision = cellseg_metrics.average_precision(*flat, thresh=0.5 - 1e-6)
    assert score.precision == pytest.approx(precision, abs=1e-6)


def test_blocks_add_up_to_the_volume():
    found, truth = cells(3)
    parts = sum((overlaps(found[z], truth[z]) for z in range(len(truth))), Overlaps.none())
    whole = overlaps(found, truth)
    for name in ("truth", "found", "voxels"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))
    assert score_instances(parts) == score_instances(whole)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (np.zeros((1, 1, 3), int), r"objects of shape \(1, 1, 3\) and truth of \(1, 1, 4\) differ"),
        (np.full((1, 1, 4), -1), "objects have values -1..-1 of int64, which are no ids"),
        (np.full((1, 1, 4), 0.5), r"objects have values 0\.5..0\.5 of float64"),
        (np.full((1, 1, 4), 1 << 32), "which are no ids 0..4294967295"),
    ],
)
def test_what_is_no_id_is_refused(found, message):
    with pytest.raises(RequestError, match=message):
        overlaps(found, objects((1, 4)))
