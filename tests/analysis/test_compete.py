"""Networks that compete: worked by hand, and calibrations that undo what was done to scores."""

import numpy as np
import pytest

from tomoseg.analysis.compete import (
    SMALLEST_SLOPE,
    Calibration,
    Competitor,
    compete,
    fit_calibration,
)
from tomoseg.core.errors import RequestError

AS_IT_IS = Calibration()


def network(*classes, weight=1.0, calibration=AS_IT_IS):
    return Competitor(classes, (calibration,) * len(classes), weight)


def column(*rows):
    """Return scores (1 + classes, n, 1, 1) from a row a class; nobody looks at the background."""
    nobody_knows = np.full(len(rows[0]), np.nan)
    return np.array([nobody_knows, *rows], np.float32)[:, :, None, None]


def decided(scores, competitors, classes, abstain=0.5):
    """Compete, and return the labels and the scores of each voxel as lists."""
    labels, shares = compete(iter(scores), competitors, classes, abstain=abstain)
    assert labels.dtype == np.uint8
    assert shares.dtype == np.float32
    return labels.ravel().tolist(), shares[:, :, 0, 0].T.tolist()


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits))


def logit(share):
    return np.log(share / (1 - share))


# Who wins


def test_the_carbon_edge_takes_voxels_from_microtubules_because_it_scores_higher_there():
    microtubule = column([0.9, 0.8, 0.6, 0.1])
    carbon = column([0.1, 0.9, 0.9, 0.9])
    alone, _ = decided([microtubule], [network("microtubule")], ("microtubule",))
    assert alone == [1, 1, 1, 0]
    labels, shares = decided(
        [microtubule, carbon],
        [network("microtubule"), network("carbon_edge")],
        ("microtubule", "carbon_edge"),
    )
    assert labels == [1, 2, 2, 2]
    # What is traced from the scores loses the edge too: 0.8 / 1.7 is no more than a half.
    assert shares[1] == pytest.approx([0.0, 0.8 / 1.7, 0.9 / 1.7], abs=1e-6)


def test_a_voxel_whose_scores_stay_under_the_threshold_is_nothing():
    scores = [column([0.2, 0.5, 0.51, 0.0])]
    for abstain, wanted in ((0.5, [0, 0, 1, 0]), (0.1, [1, 1, 1, 0]), (0.0, [1, 1, 1, 0])):
        assert decided(scores, [network("a")], ("a",), abstain)[0] == wanted


def test_scores_that_do_not_exceed_1_together_stay_and_the_background_has_the_rest():
    _, shares = decided([column([0.25, 0.0], [0.5, 0.0])], [network("a", "b")], ("a", "b"))
    assert shares == [[0.25, 0.25, 0.5], [1.0, 0.0, 0.0]]


def test_ties_go_to_the_first_class():
    scores, networks = [column([0.75]), column([0.75])], [network("b"), network("a")]
    assert decided(scores, networks, ("a", "b"))[0] == [1]
    assert decided(scores[::-1], networks[::-1], ("b", "a"))[0] == [1]


def test_a_class_of_several_networks_has_their_weighted_mean():
    networks = [network("a", weight=3.0), network("a", "b", weight=1.0)]
    labels, shares = decided([column([0.75]), column([0.25], [0.125])], networks, ("a", "b"))
    # a: (3·0.75 + 0.25) / 4 = 0.625, mean weight 2; b: 0.125, weight 1. Votes 1.25 and 0.125.
    assert labels == [1]
    total = 0.625 + 0.125
    assert shares[0] == pytest.approx(
        [1 - total, total * 1.25 / 1.375, total * 0.125 / 1.375], abs=1e-6
    )


def test_a_heavier_network_wins_with_a_lower_score_but_not_under_the_threshold():
    scores = [column([0.6, 0.4]), column([0.9, 0.9])]
    for weight, wanted in ((1.0, [2, 2]), (2.0, [1, 2])):
        networks = [network("a", weight=weight), network("b")]
        assert decided(scores, networks, ("a", "b"))[0] == wanted


def test_a_network_that_is_too_sure_of_itself_loses_once_it_is_calibrated():
    scores = [column([0.95]), column([0.8])]
    assert decided(scores, [network("a"), network("b")], ("a", "b"))[0] == [1]
    calm = network("a", calibration=Calibration(slope=0.25))
    assert decided(scores, [calm, network("b")], ("a", "b"))[0] == [2]


def test_the_order_of_equal_networks_does_not_matter():
    rng = np.random.default_rng(3)
    scores = rng.random((4, 3, 5, 6, 7), dtype=np.float32)
    networks = [network("a", "b"), network("b", "c"), network("c", "a"), network("a", "c")]
    labels, shares = compete(scores, networks, ("a", "b", "c"), abstain=0.5)
    assert set(np.unique(labels)) == {0, 1, 2, 3}
    order = [2, 0, 3, 1]
    again, other = compete(
        scores[order], [networks[n] for n in order], ("a", "b", "c"), abstain=0.5
    )
    assert np.array_equal(labels, again)
    assert np.allclose(shares, other, atol=1e-6)
    assert np.allclose(shares.sum(axis=0), 1, atol=1e-6)


def test_one_network_is_alive_at_a_time():
    import gc
    import weakref

    alive = []

    def arriving():
        for _ in range(3):
            gc.collect()
            assert all(past() is None for past in alive)
            scores = np.zeros((2, 2, 2, 2), np.float32)
            alive.append(weakref.ref(scores))
            yield scores
            del scores

    compete(arriving(), [network("a")] * 3, ("a",), abstain=0.5)
    assert len(alive) == 3


def test_scores_given_are_not_changed():
    scores = np.full((2, 1, 1, 1), 0.7, np.float32)
    compete([scores], [network("a", weight=2.0)], ("a",), abstain=0.5)
    assert (scores == np.float32(0.7)).all()


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_weights_that_are_none(weight):
    with pytest.raises(RequestError, match="weight: Input should be"):
        network("a", weight=weight)


def test_classes_without_calibration():
    with pytest.raises(RequestError, match="2 classes need as many calibrations, not 1"):
        Competitor(("a", "b"), (AS_IT_IS,))
    with pytest.raises(RequestError, match="no network"):
        compete([], [], (), abstain=0.5)


# What a score means


def test_a_calibration_by_hand():
    scores = np.array([0.2, 0.5, 0.8], np.float32)
    # Logits ±log 4; doubled they are ±log 16, and log 16 is a share of 16 / 17.
    assert Calibration(slope=2).apply(scores) == pytest.approx([1 / 17, 0.5, 16 / 17], abs=1e-6)
    # An intercept of log 4 moves 0.2 to a half.
    assert Calibration(intercept=np.log(4)).apply(scores)[0] == pytest.approx(0.5, abs=1e-6)
    assert Calibration().apply(scores) is scores


def test_scores_of_0_and_1_stay_finite_and_in_order():
    found = Calibration(slope=200.0, intercept=-3.0).apply(np.linspace(0, 1, 11, dtype=np.float32))
    assert found.dtype == np.float32
    assert (np.diff(found) >= 0).all()
    assert (found[0], found[-1]) == (0, 1)


def test_scores_surer_than_was_measured_say_no_more():
    found = Calibration(slope=0.5).apply(np.array([0.9, 0.9985, 0.99999], np.float32))
    assert found[0] < found[1] == found[2] == pytest.approx(sigmoid(logit(1 - 1 / 512) / 2))


def histogram(bins, share_of, voxels=10_000):
    """Return counts of scores, as many in each bin, of which so many have the class."""
    middle = (np.arange(bins) + 0.5) / bins
    positives = np.rint(voxels * share_of(middle)).astype(np.int64)
    return np.stack([voxels - positives, positives])


@pytest.mark.parametrize(
    ("slope", "intercept"),
    [(1.0, 0.0), (0.4, 0.0), (2.5, -1.5), (0.7, -3.0)],
    ids=["right as it is", "too sure", "too timid and too often", "rare"],
)
def test_a_score_that_was_bent_is_mapped_back(slope, intercept):
    counts = histogram(100, lambda score: sigmoid(slope * logit(score) + intercept))
    found = fit_calibration(counts)
    assert found.slope == pytest.approx(slope, abs=0.02)
    assert found.intercept == pytest.approx(intercept, abs=0.02)


def test_empty_bins_tell_nothing():
    counts = histogram(100, lambda score: sigmoid(0.5 * logit(score) - 1))
    counts[:, ::3] = 0
    found = fit_calibration(counts)
    assert (found.slope, found.intercept) == pytest.approx((0.5, -1.0), abs=0.02)


@pytest.mark.parametrize("missing", [0, 1])
def test_without_one_of_the_two_there_is_nothing_to_learn(missing):
    counts = np.full((2, 20), 7)
    counts[missing] = 0
    assert fit_calibration(counts) == Calibration()


def test_perfect_scores_get_a_finite_calibration():
    counts = np.zeros((2, 100), np.int64)
    counts[0, :50] = counts[1, 50:] = 10**7
    found = fit_calibration(counts)
    assert 1 < found.slope < 1000
    low, high = found.apply(np.array([0.45, 0.55], np.float32))
    assert low < 0.01
    assert high > 0.99


def test_scores_that_are_all_the_same_mean_how_often_they_are_right():
    counts = np.zeros((2, 10), np.int64)
    counts[:, 7] = 80_000, 20_000
    found = fit_calibration(counts)
    assert found.apply(np.array([0.75], np.float32)) == pytest.approx([0.2], abs=1e-3)


@pytest.mark.parametrize("slope", [0.0, -2.0])
def test_scores_that_say_nothing_or_the_contrary_stay_under_the_threshold(slope):
    counts = histogram(50, lambda score: 0.1 * 2 * sigmoid(slope * logit(score)))
    found = fit_calibration(counts)
    assert found.slope == SMALLEST_SLOPE
    scores = np.array([0.01, 0.5, 0.99], np.float32)
    assert found.apply(scores) == pytest.approx([0.1] * 3, abs=0.01)


def test_a_few_voxels_change_little():
    counts = np.zeros((2, 10), np.int64)
    counts[:, 5] = 1, 1
    found = fit_calibration(counts)
    assert (found.slope, found.intercept) == pytest.approx((1.0, 0.0), abs=0.1)


@pytest.mark.parametrize("counts", [np.ones((3, 4)), np.ones(4), -np.ones((2, 4)), np.ones((2, 0))])
def test_counts_that_are_none(counts):
    with pytest.raises(RequestError, match=r"\(2, bins\)"):
        fit_calibration(counts)
