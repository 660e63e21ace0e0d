"""Scores of labels, voxel by voxel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from tomoseg.analysis.metrics.shares import f_beta, share
from tomoseg.core.blocks import Box
from tomoseg.core.errors import RequestError

Counts = NDArray[np.int64]
UNANNOTATED = 255


@dataclass(frozen=True)
class ClassScore:
    """Voxel scores of one class.

    Parameters
    ----------
    name
        The class.
    precision, recall, f1, iou
        Shares 0..1, NaN where undefined.
    support
        Voxels of the class in the truth.
    """

    name: str
    precision: float
    recall: float
    f1: float
    iou: float
    support: int

    @property
    def dice(self) -> float:
        """Dice coefficient, which for voxels is F1 under another name."""
        return self.f1


def confusion(
    labels: NDArray[np.integer],
    truth: NDArray[np.integer],
    classes: int,
    *,
    ignore: int = UNANNOTATED,
) -> Counts:
    """Count voxels by truth and label; counts of blocks add up to those of the volume.

    Parameters
    ----------
    labels, truth
        Integers of one shape, 0..classes, 0 being background; voxels whose truth is ``ignore``
        are left out.

    Returns
    -------
    int64, shape (classes + 1, classes + 1): rows are the truth, columns the labels.

    Raises
    ------
    RequestError
        If shapes differ or a value lies outside 0..classes.

    Examples
    --------
    >>> confusion(np.array([0, 1, 1]), np.array([0, 1, 255]), 1).tolist()
    [[1, 0], [0, 1]]
    """
    if labels.shape != truth.shape:
        raise RequestError(f"labels of shape {labels.shape} and truth of {truth.shape} differ")
    known = truth != ignore
    rows, columns = truth[known].astype(np.int64), labels[known].astype(np.int64)
    for kind, values in (("truth", rows), ("labels", columns)):
        if values.size and not (values.min() >= 0 and values.max() <= classes):
            raise RequestError(
                f"{kind} has values {values.min()}..{values.max()}; classes are 0..{classes}"
            )
    count = classes + 1
    return np.bincount(rows * count + columns, minlength=count**2).reshape(count, count)


def class_scores(counts: Counts, names: Sequence[str]) -> list[ClassScore]:
    """Score every class but the background.

    Parameters
    ----------
    counts
        int64, shape (n + 1, n + 1), of :func:`confusion`.
    names
        The n classes in the order of their labels 1..n.

    Raises
    ------
    RequestError
        If the number of names does not fit.
    """
    if counts.shape != (len(names) + 1,) * 2:
        raise RequestError(f"{len(names)} names do not fit counts of shape {counts.shape}")
    hits, found, present = np.diag(counts), counts.sum(axis=0), counts.sum(axis=1)
    return [
        ClassScore(
            name,
            precision=share(hits[i], found[i]),
            recall=share(hits[i], present[i]),
            f1=share(2 * hits[i], found[i] + present[i]),
            iou=share(hits[i], found[i] + present[i] - hits[i]),
            support=int(present[i]),
        )
        for i, name in enumerate(names, start=1)
    ]


def tolerant_counts(
    found: NDArray[np.bool_], truth: NDArray[np.bool_], core: Box, *, tolerance_voxels: float
) -> Counts:
    """Count how many voxels of two masks lie near the other; counts of blocks add up.

    Parameters
    ----------
    found, truth
        bool, one shape (z, y, x): a read box, grown by at least the tolerance.
    core
        What is counted, in the frame of the masks.

    Returns
    -------
    int64, shape (2, 2): rows are found and truth; columns are the mask's voxels within the
    tolerance of the other mask, and all of them.
    """
    counts = []
    for mask, other in ((found, truth), (truth, found)):
        away = distance_transform_edt(~other) if other.any() else np.full(other.shape, np.inf)
        here = mask[core.slices]
        counts.append([(here & (away[core.slices] <= tolerance_voxels)).sum(), here.sum()])
    return np.array(counts, dtype=np.int64)


def tolerant_f1(counts: Counts) -> float:
    """F1 of :func:`tolerant_counts`: thin things are not judged by the thickness of their paint.

    NaN if both masks are empty, 0 if one is.
    """
    precision, recall = (share(near, whole) for near, whole in counts)
    if not counts[:, 1].all():
        return 0.0 if counts[:, 1].any() else float("nan")
    return f_beta(precision, recall, beta=1)
