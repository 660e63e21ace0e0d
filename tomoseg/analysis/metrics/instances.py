"""Scores of objects: volumes in which every object has a number of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from tomoseg.analysis.metrics.shares import share
from tomoseg.core.errors import RequestError

IOU_THRESHOLDS = tuple(percent / 100 for percent in range(50, 100, 5))
LARGEST_ID = (1 << 32) - 1


@dataclass(frozen=True, eq=False)
class Overlaps:
    """How many voxels each true and each found object share; those of blocks add up.

    Parameters
    ----------
    truth, found
        int64, shape (n,): ids of a pair, 0 being background; no pair occurs twice.
    voxels
        int64, shape (n,): voxels that the pair has in common.
    """

    truth: NDArray[np.int64]
    found: NDArray[np.int64]
    voxels: NDArray[np.int64]

    @classmethod
    def none(cls) -> Overlaps:
        """Return what an empty volume has."""
        nothing = np.zeros(0, np.int64)
        return cls(nothing, nothing, nothing)

    def __add__(self, other: Overlaps) -> Overlaps:
        """Pool two blocks of a volume."""
        truth, found, voxels = (
            np.concatenate([getattr(self, name), getattr(other, name)])
            for name in ("truth", "found", "voxels")
        )
        return _pooled(truth, found, voxels)


def overlaps(found: NDArray[Any], truth: NDArray[Any]) -> Overlaps:
    """Count the voxels of every pair of a true and a found object.

    Parameters
    ----------
    found, truth
        Integers of one shape, ids 1.. of objects, 0 being background.

    Raises
    ------
    RequestError
        If shapes differ or a value is no id.

    Examples
    --------
    >>> pairs = overlaps(np.array([0, 7, 7]), np.array([0, 3, 0]))
    >>> pairs.truth.tolist(), pairs.found.tolist(), pairs.voxels.tolist()
    ([0, 3], [7, 7], [1, 1])
    """
    if found.shape != truth.shape:
        raise RequestError(f"objects of shape {found.shape} and truth of {truth.shape} differ")
    some = (found != 0) | (truth != 0)
    true_ids, found_ids = _ids(truth[some], "truth"), _ids(found[some], "objects")
    return _pooled(true_ids, found_ids, np.ones(len(true_ids), np.int64))


@dataclass(frozen=True)
class InstanceScore:
    """How found objects compare with true ones; definitions in :func:`score_instances`.

    Parameters
    ----------
    found, truth
        Number of objects.
    precision, recall, f1
        Shares of objects that are matched at an IoU of ½.
    ap50, ap75, mean_ap
        Average precision at an IoU of 0.5 and 0.75, and its mean over 0.5, 0.55, … 0.95.
    panoptic_quality
        0..1.
    """

    found: int
    truth: int
    precision: float
    recall: float
    f1: float
    ap50: float
    ap75: float
    mean_ap: float
    panoptic_quality: float


def score_instances(pairs: Overlaps) -> InstanceScore:
    """Score the objects of a volume.

    Notes
    -----
    A found and a true object may be matched if their IoU is at least the threshold; of all
    one-to-one matchings the largest counts. Objects carry no confidence, so that average precision
    is TP / (TP + FP + FN), as in the 2018 Data Science Bowl (Caicedo et al., Nature Methods 16
    (2019) 1247) and in StarDist and Cellpose (Stringer et al., Nature Methods 18 (2021) 100). It
    is not the area under a curve of precision and recall, which COCO calls by the same name.

    Panoptic quality is Σ IoU / (TP + ½ FP + ½ FN) over matches of IoU > ½ (Kirillov et al., CVPR
    2019). All are NaN where there is no object at all.
    """
    true_ids, rows = np.unique(pairs.truth, return_inverse=True)
    found_ids, columns = np.unique(pairs.found, return_inverse=True)
    true_sizes, found_sizes = _sums(rows, pairs.voxels), _sums(columns, pairs.voxels)
    both = (pairs.truth > 0) & (pairs.found > 0)
    rows, columns, shared = rows[both], columns[both], pairs.voxels[both]
    iou = shared / (true_sizes[rows] + found_sizes[columns] - shared)
    truth, found = int((true_ids > 0).sum()), int((found_ids > 0).sum())
    hits = [_largest_matching(rows[ok], columns[ok]) for ok in (iou >= t for t in IOU_THRESHOLDS)]
    precisions = [share(n, truth + found - n) for n in hits]
    return InstanceScore(
        found=found,
        truth=truth,
        precision=share(hits[0], found),
        recall=share(hits[0], truth),
        f1=share(2 * hits[0], truth + found),
        ap50=precisions[0],
        ap75=precisions[IOU_THRESHOLDS.index(0.75)],
        mean_ap=float(np.mean(precisions)),
        panoptic_quality=share(2 * iou[iou > 0.5].sum(), truth + found),
    )


def _ids(values: NDArray[Any], name: str) -> NDArray[np.int64]:
    ids = values.astype(np.int64)
    if not np.array_equal(ids, values) or ids.min(initial=0) < 0 or ids.max(initial=0) > LARGEST_ID:
        raise RequestError(
            f"{name} have values {values.min()}..{values.max()} of {values.dtype}, which are no "
            f"ids 0..{LARGEST_ID}"
        )
    return ids


def _pooled(
    truth: NDArray[np.int64], found: NDArray[np.int64], voxels: NDArray[np.int64]
) -> Overlaps:
    """Return every pair once, with the sum of its voxels."""
    keys = truth.astype(np.uint64) << np.uint64(32) | found.astype(np.uint64)
    pairs, rows = np.unique(keys, return_inverse=True)
    return Overlaps(
        (pairs >> np.uint64(32)).astype(np.int64),
        (pairs & np.uint64(LARGEST_ID)).astype(np.int64),
        _sums(rows, voxels),
    )


def _sums(rows: NDArray[np.int64], voxels: NDArray[np.int64]) -> NDArray[np.int64]:
    sums = np.zeros(rows.max(initial=-1) + 1, np.int64)
    np.add.at(sums, rows, voxels)
    return sums


def _largest_matching(rows: NDArray[np.int64], columns: NDArray[np.int64]) -> int:
    """Return how many pairs the largest one-to-one matching holds."""
    if not len(rows):
        return 0
    edges = csr_array((np.ones(len(rows), np.int8), (rows, columns)))
    return int((maximum_bipartite_matching(edges, perm_type="column") >= 0).sum())
