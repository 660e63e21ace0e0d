"""Scores of filaments: centre lines against centre lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from tomoseg.analysis.metrics.shares import f_beta, statistic
from tomoseg.core.coordinates import Filament, Points, resample, tangents


@dataclass(frozen=True)
class FilamentScore:
    """How traced filaments compare with true ones; definitions in :func:`score_filaments`.

    Parameters
    ----------
    precision, recall, f1
        Shares of centre-line length, 0..1.
    splits, merges
        True filaments found in more than one piece, and found ones that join several, counted
        beyond the first.
    missed, false
        True filaments that nothing covers, and found ones that cover nothing.
    coverage
        Mean over true filaments of the best IoU, 0..1.
    instance_precision, instance_recall, instance_f1
        With a found and a true filament counting as one at IoU above ½.
    position_rms_angstrom, position_rms_radii
        Distance to the nearest found point over the true points that are covered, root mean square.
    direction_rms_degrees, direction_median_degrees, direction_p95_degrees
        Angle between tangents over the same points.
    """

    precision: float
    recall: float
    f1: float
    splits: int
    merges: int
    missed: int
    false: int
    coverage: float
    instance_precision: float
    instance_recall: float
    instance_f1: float
    position_rms_angstrom: float
    position_rms_radii: float
    direction_rms_degrees: float
    direction_median_degrees: float
    direction_p95_degrees: float


# A piece of this many radii counts when pieces of a filament are counted.
PIECE_RADII = 4.0
# Tangents further apart than this do not belong to one filament.
MATCHED_DEGREES = 45.0
INSTANCE_IOU = 0.5


def score_filaments(
    found: Sequence[Filament],
    truth: Sequence[Filament],
    *,
    tolerance_angstrom: float,
    spacing_angstrom: float = 10.0,
) -> FilamentScore:
    """Compare traced filaments with true ones.

    Parameters
    ----------
    tolerance_angstrom
        Distance that still counts as found: one radius of the filament.
    spacing_angstrom
        Centre lines are resampled at this distance; one voxel.

    Notes
    -----
    Precision is the share of found points within the tolerance of any true line, recall the
    reverse. The coverage C[g, p] is the length of true line g whose nearest found point lies on
    line p, within the tolerance and with tangents under 45° apart. Splits are
    Σ_g max(0, #{p: C ≥ 4 R} − 1), merges the same over p, with the tolerance as the radius R;
    missed and false are empty rows and columns. IoU = C / (|g| + |p| − C), with C at most |p|, as
    the tolerance lets a short piece cover more than itself.

    Source: the comparison of tracing methods made for this project; the mean coverage is that of
    instance segmentation (Romera-Paredes and Torr, ECCV 2016).
    """
    if not len(found) or not len(truth):
        return _nothing_to_compare(len(found), len(truth))
    seen, true = (_Lines.of(side, spacing_angstrom) for side in (found, truth))
    forth = true.nearest(seen)
    precision = float((seen.nearest(true).distance <= tolerance_angstrom).mean())
    recall = float((forth.distance <= tolerance_angstrom).mean())
    hit = (forth.distance <= tolerance_angstrom) & (forth.degrees < MATCHED_DEGREES)
    covered = np.zeros((len(truth), len(found)))
    np.add.at(covered, (true.owner[hit], seen.owner[forth.row[hit]]), 1)
    common = np.minimum(covered, seen.sizes)
    iou = common / (true.sizes[:, None] + seen.sizes - common)
    matches = int(min((iou > INSTANCE_IOU).any(axis=axis).sum() for axis in (0, 1)))
    position_rms = _rms(forth.distance[hit])
    pieces = covered * spacing_angstrom >= PIECE_RADII * tolerance_angstrom
    return FilamentScore(
        precision=precision,
        recall=recall,
        f1=f_beta(precision, recall, beta=1),
        splits=int(np.maximum(pieces.sum(axis=1) - 1, 0).sum()),
        merges=int(np.maximum(pieces.sum(axis=0) - 1, 0).sum()),
        missed=int((covered.sum(axis=1) == 0).sum()),
        false=int((covered.sum(axis=0) == 0).sum()),
        coverage=float(iou.max(axis=1).mean()),
        instance_precision=matches / len(found),
        instance_recall=matches / len(truth),
        instance_f1=2 * matches / (len(found) + len(truth)),
        position_rms_angstrom=position_rms,
        position_rms_radii=position_rms / tolerance_angstrom,
        direction_rms_degrees=_rms(forth.degrees[hit]),
        direction_median_degrees=statistic(forth.degrees[hit], np.median),
        direction_p95_degrees=statistic(forth.degrees[hit], lambda x: np.percentile(x, 95)),
    )


@dataclass(frozen=True, eq=False)
class _Nearest:
    """For each point of one set of lines: distance (Å), row and tangent angle of the nearest."""

    distance: NDArray[np.float64]
    row: NDArray[np.int64]
    degrees: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Lines:
    """Resampled points of many lines, with direction and number of the line of each."""

    points: Points
    along: NDArray[np.float64]
    owner: NDArray[np.int64]

    @classmethod
    def of(cls, filaments: Sequence[Filament], spacing_angstrom: float) -> _Lines:
        parts = [_resampled(each, spacing_angstrom) for each in filaments]
        owner = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        empty = np.zeros((0, 3))
        return cls(
            np.concatenate([empty, *parts]),
            np.concatenate([empty, *(tangents(part) for part in parts)]),
            owner,
        )

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Points of each line, shape (lines,)."""
        return np.bincount(self.owner)

    def nearest(self, others: _Lines) -> _Nearest:
        """Find the nearest point of other lines for each of these."""
        distance, row = cKDTree(others.points).query(self.points)
        cosine = np.abs((self.along * others.along[row]).sum(axis=1))
        return _Nearest(distance, row, np.rad2deg(np.arccos(np.minimum(cosine, 1))))


def _resampled(filament: Filament, spacing_angstrom: float) -> Points:
    """Resample a line; one that is shorter than the spacing is given by its two ends."""
    points = resample(filament.points_angstrom, spacing_angstrom)
    return points if len(points) > 1 else filament.points_angstrom[[0, -1]]


def _rms(values: NDArray[np.float64]) -> float:
    return math.sqrt(statistic(values**2, np.mean))


def _nothing_to_compare(found: int, truth: int) -> FilamentScore:
    nan = float("nan")
    return FilamentScore(
        precision=0.0 if found else nan,
        recall=0.0 if truth else nan,
        f1=0.0 if found or truth else nan,
        splits=0,
        merges=0,
        missed=truth,
        false=found,
        coverage=0.0 if truth else nan,
        instance_precision=0.0 if found else nan,
        instance_recall=0.0 if truth else nan,
        instance_f1=0.0 if found or truth else nan,
        position_rms_angstrom=nan,
        position_rms_radii=nan,
        direction_rms_degrees=nan,
        direction_median_degrees=nan,
        direction_p95_degrees=nan,
    )
