"""Networks that compete for voxels: calibrated scores, weights, and when nobody wins.

The scores of two networks cannot be compared as they are: each is overconfident in its own way
(Guo et al., "On calibration of modern neural networks", ICML 2017). Once a score says how often
it is right, the highest one wins a voxel, and a network that knows the carbon edge takes it away
from the microtubule network simply because it scores higher there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tomoseg.core.bounds import check_bounds
from tomoseg.core.errors import RequestError

# Scores nearer to 0 and 1 count as this, half of one of the 256 bins in which a training counts
# them: how much surer they are was not measured, and the logits of 0 and 1 are infinite.
NEAREST = 1 / 512
# A score that says nothing or the contrary keeps its order, at all but one value.
SMALLEST_SLOPE = 0.01
_NEWTON_STEPS = 100
_CONVERGED = 1e-8

Weight = Annotated[float, Field(gt=0, le=1000)]


@dataclass(frozen=True)
class Calibration:
    """What a score means: sigmoid(slope · logit(score) + intercept) of such voxels have the class.

    >>> print(Calibration(slope=0.5).apply(np.array([0.2, 0.5, 0.8], np.float32)).round(2))
    [0.33 0.5  0.67]
    """

    slope: float = 1.0
    intercept: float = 0.0

    def apply(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return calibrated scores 0..1, float32, of scores 0..1; those given if nothing changes.

        The order of scores stays, but for those within 1/512 of 0 and 1, which become equal.
        """
        if self == Calibration():
            return scores
        values = scores.clip(NEAREST, 1 - NEAREST)
        logits = np.log(values / (1 - values))
        # The sigmoid as tanh, which does not overflow.
        shares = 0.5 + 0.5 * np.tanh((self.slope * logits + self.intercept) / 2)
        return np.asarray(shares, np.float32)


@dataclass(frozen=True)
class Competitor:
    """A network among others.

    Parameters
    ----------
    classes
        Those that it competes for, in the order of its score channels 1, 2, ….
    calibration
        One for each class.
    weight
        How much its scores count beside those of others.

    Raises
    ------
    RequestError
        If the weight is out of its bounds, or classes and calibrations are not as many.
    """

    classes: tuple[str, ...]
    calibration: tuple[Calibration, ...]
    weight: Weight = 1.0

    def __post_init__(self) -> None:
        """Check the weight and the numbers."""
        check_bounds(self)
        if len(self.classes) != len(self.calibration):
            raise RequestError(
                f"{len(self.classes)} classes need as many calibrations, "
                f"not {len(self.calibration)}"
            )


def compete(
    scores: Iterable[NDArray[np.float32]],
    competitors: Sequence[Competitor],
    classes: Sequence[str],
    *,
    abstain: float,
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Let networks compete for every voxel.

    Parameters
    ----------
    scores
        For each competitor, float32 0..1, shape (1 + its classes, z, y, x), background first.
        They are taken one at a time: from a generator, one network's scores are alive at once.
    competitors
        The networks, in the order of their scores.
    classes
        All their classes, in the order of the labels 1, 2, ….
    abstain
        A class whose calibrated score is not above this does not compete.

    Returns
    -------
    labels
        uint8, zyx; 0 where no class competes.
    scores
        float32 0..1, shape (1 + classes, z, y, x), background first, of sum 1.

    Notes
    -----
    The score of a class, s, is the mean of the calibrated scores of the networks that know it,
    weighted with the networks' weights, and its vote, v, is s times their mean weight. The
    highest vote among the classes with s > abstain wins, the first class on a tie. The
    background of the networks does not vote: each knows only what none of its own classes is.

    Two networks may both be sure of a voxel, which holds one thing only. The returned scores are
    therefore shares, v / Σv · min(1, Σs), so that tracing and picking, which work from them, see
    the competition too; with equal weights and Σs ≤ 1 they are s.

    The peak is 4 bytes a voxel for each class of the union, each channel of the largest network,
    and five more, however many networks there are: 18 for one or several of the same six classes,
    600 MB for a block of 32 × 512 × 512.
    """
    known = {name: [one.weight for one in competitors if name in one.classes] for name in classes}
    arriving = iter(scores)
    means: NDArray[np.float32] | None = None
    for competitor in competitors:
        found = next(arriving)
        if means is None:
            means = np.zeros((1 + len(classes), *found.shape[1:]), np.float32)
        for channel, (name, one) in enumerate(
            zip(competitor.classes, competitor.calibration, strict=True), start=1
        ):
            share = np.float32(competitor.weight / sum(known[name]))
            means[1 + classes.index(name)] += share * one.apply(found[channel])
        # Before the next network computes.
        del found
    if means is None:
        raise RequestError("no network competes", remedy="Name one at least.")
    weights = [sum(given) / len(given) for given in known.values()]
    return _decided(means, weights, abstain)


def _decided(
    means: NDArray[np.float32], weights: Sequence[float], abstain: float
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return labels and shares, in place of the mean scores (1 + classes, z, y, x)."""
    shape = means.shape[1:]
    labels = np.zeros(shape, np.uint8)
    best, sure, votes = (np.zeros(shape, np.float32) for _ in range(3))
    for label, weight in enumerate(weights, start=1):
        is_open = means[label] > abstain
        sure += means[label]
        means[label] *= np.float32(weight)
        votes += means[label]
        wins = is_open & (means[label] > best)
        labels[wins] = label
        best[wins] = means[label][wins]
    np.minimum(sure, 1, out=sure)
    # Where nothing votes, best is 0 as well.
    means[1:] *= np.divide(sure, votes, out=best, where=votes > 0)
    means[0] = 1 - sure
    return labels, means


def fit_calibration(counts: NDArray[np.int64]) -> Calibration:
    """Fit what scores mean to how often they were right (Platt scaling).

    Parameters
    ----------
    counts
        int64, shape (2, bins): voxels without and with the class, by score. Bin i holds the
        scores i / bins .. (i + 1) / bins and counts as their middle.

    Returns
    -------
    The calibration; its slope is at least 0.01. If one of the two never occurred there is nothing
    to learn from, and scores stay as they are.

    Raises
    ------
    RequestError
        If the counts have another shape or are negative.

    Notes
    -----
    Logistic regression on the logit of the score by Newton's method (Platt, "Probabilistic outputs
    for support vector machines", 1999; Lin, Lin and Weng, Machine Learning 68, 2007, for the
    damped steps). A normal prior of width 1 around "as it is" counts like a few voxels: it keeps
    classes that scores separate perfectly, and scores that are all the same, finite.
    """
    voxels = np.asarray(counts, np.float64)
    if voxels.ndim != 2 or len(voxels) != 2 or voxels.min(initial=0) < 0 or not voxels.size:
        raise RequestError(f"counts of shape {voxels.shape} are not (2, bins), each 0 or more")
    if (voxels.sum(axis=1) == 0).any():
        return Calibration()
    bins = voxels.shape[1]
    middle = (np.arange(bins) + 0.5) / bins
    logits = np.log(middle / (1 - middle))
    ones = np.ones(bins)
    slope, intercept = _regression(
        voxels, np.stack([logits, ones], axis=1), np.zeros(bins), np.array([1.0, 0.0])
    )
    if slope < SMALLEST_SLOPE:
        slope = SMALLEST_SLOPE
        (intercept,) = _regression(voxels, ones[:, None], slope * logits, np.zeros(1))
    return Calibration(float(slope), float(intercept))


def _regression(
    counts: NDArray[np.float64],
    columns: NDArray[np.float64],
    offset: NDArray[np.float64],
    prior: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the weights of columns (bins, n), near a prior, that make sigmoids fit counts."""

    def cost(weights: NDArray[np.float64]) -> float:
        logits = columns @ weights + offset
        misses = counts[0] @ np.logaddexp(0, logits) + counts[1] @ np.logaddexp(0, -logits)
        return float(misses + ((weights - prior) ** 2).sum() / 2)

    weights = prior
    for _ in range(_NEWTON_STEPS):
        shares = 0.5 + 0.5 * np.tanh((columns @ weights + offset) / 2)
        slope = columns.T @ (counts.sum(axis=0) * shares - counts[1]) + weights - prior
        curvature = counts.sum(axis=0) * shares * (1 - shares)
        step = np.linalg.solve(
            columns.T @ (curvature[:, None] * columns) + np.eye(len(prior)), slope
        )
        # The cost is convex: a step that raises it went too far.
        while np.abs(step).max() > _CONVERGED and cost(weights - step) > cost(weights):
            step /= 2
        weights = weights - step
        if np.abs(step).max() <= _CONVERGED:
            break
    return weights
