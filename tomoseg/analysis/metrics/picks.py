"""Scores of particles: one to one, by the CZII rule, and by one that is taken for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from tomoseg.analysis.metrics.shares import f_beta, share, statistic
from tomoseg.core.coordinates import Particles, Points
from tomoseg.core.errors import RequestError


@dataclass(frozen=True)
class ParticleScore:
    """How particles compare with true ones, one to one.

    Parameters
    ----------
    precision, recall, f1
        Shares 0..1, NaN where undefined.
    matches
        Number of pairs.
    position_rms_angstrom
        Over the pairs.
    """

    precision: float
    recall: float
    f1: float
    matches: int
    position_rms_angstrom: float


def score_particles(
    found: Particles, truth: Particles, *, tolerance_angstrom: float
) -> ParticleScore:
    """Compare particles strictly one to one.

    Notes
    -----
    Of all matchings within the tolerance the largest, and of those the closest, is taken
    (Hungarian method: Kuhn, Naval Research Logistics Quarterly 2 (1955) 83), so that two picks of
    one particle are one hit and one error. This is not the CZII rule: see :func:`czii_counts`.
    """
    distance = _matched_distances(found.points_angstrom, truth.points_angstrom, tolerance_angstrom)
    hits = len(distance)
    return ParticleScore(
        precision=share(hits, len(found)),
        recall=share(hits, len(truth)),
        f1=share(2 * hits, len(found) + len(truth)),
        matches=hits,
        position_rms_angstrom=statistic(distance**2, np.mean) ** 0.5,
    )


# The challenge's particles: radius in Å and weight.
CZII_RADII_ANGSTROM = {
    "apo-ferritin": 60.0,
    "beta-amylase": 65.0,
    "beta-galactosidase": 90.0,
    "ribosome": 150.0,
    "thyroglobulin": 130.0,
    "virus-like-particle": 135.0,
}
CZII_WEIGHTS = {
    "apo-ferritin": 1.0,
    "beta-amylase": 0.0,
    "beta-galactosidase": 2.0,
    "ribosome": 1.0,
    "thyroglobulin": 2.0,
    "virus-like-particle": 1.0,
}
CZII_RADIUS_SHARE = 0.5
CZII_BETA = 4.0
GENEROUS_RADIUS_SHARE = 0.8


@dataclass(frozen=True)
class PickCounts:
    """Hits and errors of one class under a rule; counts of tomograms add up."""

    true_positives: int
    false_positives: int
    false_negatives: int

    def __add__(self, other: PickCounts) -> PickCounts:
        """Pool two tomograms."""
        return PickCounts(
            self.true_positives + other.true_positives,
            self.false_positives + other.false_positives,
            self.false_negatives + other.false_negatives,
        )

    @property
    def precision(self) -> float:
        """Share of the candidates that are hits; 0 without candidates, as the challenge has it."""
        found = self.true_positives + self.false_positives
        return self.true_positives / found if found > 0 else 0.0

    @property
    def recall(self) -> float:
        """Share of the true points that are hit; 0 where there is none."""
        present = self.true_positives + self.false_negatives
        return self.true_positives / present if present > 0 else 0.0

    @property
    def f4(self) -> float:
        """F_β with β = 4: a missed particle costs more than a false one."""
        return f_beta(self.precision, self.recall, beta=CZII_BETA)


def czii_counts(found: Particles, truth: Particles, *, radius_angstrom: float) -> PickCounts:
    """Count hits of one class in one tomogram by the rule of the CZII challenge.

    Parameters
    ----------
    radius_angstrom
        The particle's radius; a match is at most half of it away.

    Notes
    -----
    True positives are distinct true points that any candidate hits, false positives are the
    candidates less those. Several candidates on one true point count one hit; a candidate may hit
    several. Source: the metric of the 2024 Kaggle challenge "CZII CryoET Object Identification".
    """
    nearest = _nearest(truth.points_angstrom, found.points_angstrom)
    hits = int((nearest <= CZII_RADIUS_SHARE * radius_angstrom).sum())
    return PickCounts(hits, len(found) - hits, len(truth) - hits)


def generous_counts(found: Particles, truth: Particles, *, radius_angstrom: float) -> PickCounts:
    """Count hits of one class in one tomogram by a rule that is often taken for the challenge's.

    Parameters
    ----------
    radius_angstrom
        The particle's radius; a match is nearer than 0.8 of it.

    Notes
    -----
    Every candidate near a true point is a hit, however many there are on one particle, so that
    scores come out higher than :func:`czii_counts` gives. Source: the evaluation of octopi
    (``processing/evaluate.py``), for comparison with figures that it printed.
    """
    reach = GENEROUS_RADIUS_SHARE * radius_angstrom
    hits = int((_nearest(found.points_angstrom, truth.points_angstrom) < reach).sum())
    missed = int((_nearest(truth.points_angstrom, found.points_angstrom) >= reach).sum())
    return PickCounts(hits, len(found) - hits, missed)


def czii_score(
    counts: Mapping[str, PickCounts], *, weights: Mapping[str, float] | None = None
) -> float:
    """Weighted mean over classes of F4, as the CZII challenge ranks.

    Parameters
    ----------
    counts
        Pooled counts of each class.
    weights
        Weight of each class; the challenge's own by default.

    Raises
    ------
    RequestError
        If a class has no weight, or all weights are 0.
    """
    weights = CZII_WEIGHTS if weights is None else weights
    unknown = sorted(set(counts) - set(weights))
    total = sum(weights[name] for name in counts if name in weights)
    if unknown or not total > 0:
        raise RequestError(f"classes {unknown or sorted(counts)} have no weight in the CZII score")
    return sum(weights[name] * each.f4 for name, each in counts.items()) / total


def _nearest(points: Points, others: Points) -> Points:
    """Return the distance from each point to the nearest other, infinite without others."""
    if not len(points) or not len(others):
        return np.full(len(points), np.inf)
    return np.asarray(cKDTree(others).query(points)[0])


def _matched_distances(
    found: Points, truth: Points, tolerance_angstrom: float
) -> NDArray[np.float64]:
    """Distances of the largest, then closest, one-to-one matching within a tolerance.

    Pairs are matched a connected group at a time: groups are small where volumes are not.
    """
    if not len(found) or not len(truth):
        return np.zeros(0)
    near = cKDTree(found).query_ball_point(truth, tolerance_angstrom)
    columns = np.repeat(np.arange(len(truth)), [len(rows) for rows in near])
    rows = np.concatenate([np.asarray(each, dtype=np.int64) for each in near])
    count = len(found) + len(truth)
    edges = coo_matrix((np.ones(len(rows)), (rows, len(found) + columns)), shape=(count, count))
    _, group = connected_components(edges, directed=False)
    matched = [np.zeros(0)]
    for each in np.unique(group[rows]):
        a, b = (
            np.flatnonzero(group[: len(found)] == each),
            np.flatnonzero(group[len(found) :] == each),
        )
        distance = np.linalg.norm(found[a][:, None] - truth[b][None], axis=2)
        # An allowed pair outweighs any sum of distances, so that the largest matching wins.
        reward = (min(distance.shape) + 1) * tolerance_angstrom
        cost = np.where(distance <= tolerance_angstrom, distance - reward, 0.0)
        pick = linear_sum_assignment(cost)
        matched.append(distance[pick][distance[pick] <= tolerance_angstrom])
    return np.concatenate(matched)
