"""How well a network does on annotated voxels that it never saw."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from tomoseg.blocks import Box
from tomoseg.nets.card import NOT_ANNOTATED
from tomoseg.nets.patches import Region
from tomoseg.nets.predict import Predictor


def confusion(predictor: Predictor, boxes: Iterable[tuple[Region, Box, Box]]) -> NDArray[np.int64]:
    """Count annotated voxels by truth (rows) and prediction (columns), background first.

    ``boxes`` are (region, box to predict, box to read), predicted exactly as blocks of a
    tomogram are.
    """
    labels = 1 + len(predictor.card.classes)
    counts = np.zeros(labels * labels, dtype=np.int64)
    for region, write, read in boxes:
        truth = region.volume.labels(write)
        annotated = truth != NOT_ANNOTATED
        if annotated.any():
            found = predictor.predict_labels(region.volume.image(read), write.within(read))
            pairs = truth[annotated].astype(np.int64) * labels + found[annotated]
            counts += np.bincount(pairs, minlength=labels * labels)
    return counts.reshape(labels, labels)


def f1_scores(counts: NDArray[np.int64], classes: Sequence[str]) -> dict[str, float | None]:
    """Return 2 tp / (2 tp + fp + fn) of each class, None where it neither is nor was found."""
    hits = counts.diagonal()
    total = counts.sum(axis=0) + counts.sum(axis=1)
    return {
        name: float(2 * hits[label] / total[label]) if total[label] else None
        for label, name in enumerate(classes, start=1)
    }


def mean_score(scores: dict[str, float | None]) -> float:
    """Return the mean over the classes that have a score, 0 if none has."""
    known = [score for score in scores.values() if score is not None]
    return sum(known) / len(known) if known else 0.0
