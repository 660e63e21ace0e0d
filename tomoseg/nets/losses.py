"""The loss over annotated voxels."""

from __future__ import annotations

import torch
from torch import Tensor

from tomoseg.nets.card import NOT_ANNOTATED


def segmentation_loss(logits: Tensor, labels: Tensor, class_weights: Tensor) -> Tensor:
    """Return weighted cross-entropy plus Dice loss, a scalar.

    The cross-entropy judges every voxel, the Dice loss every class, however rare: together they
    neither drown the small classes nor lose calibration (Isensee et al., nnU-Net, 2021). Both
    come from one log-softmax and the score of the true class, the only dear steps.

    Parameters
    ----------
    logits
        (b, 1 + classes, z, y, x).
    labels
        int64 (b, z, y, x); 255 is not annotated and counts in neither part.
    class_weights
        (1 + classes,), background first.

    Notes
    -----
    Dice of a class is 2 Σ p g / (Σ p + Σ g) over the annotated voxels of the whole batch
    (Milletari et al., V-Net, 2016, with plain sums in the denominator), smoothed by 1; the loss
    is 1 - its mean over the foreground classes that occur in the batch.
    """
    classes = logits.shape[1]
    annotated = labels != NOT_ANNOTATED
    known = labels.where(annotated, 0)
    log_scores = logits.float().log_softmax(dim=1)
    log_truth = log_scores.gather(1, known[:, None])[:, 0]

    weights = class_weights[known] * annotated
    entropy = -(weights * log_truth).sum() / weights.sum().clamp(min=1e-6)

    scores = (log_scores.exp() * annotated[:, None]).sum(dim=(0, 2, 3, 4))
    hits = (log_truth.exp() * annotated).flatten()
    common = torch.zeros_like(scores).index_add(0, known.flatten(), hits)
    counts = torch.bincount(known[annotated], minlength=classes)
    dice = (2 * common + 1) / (scores + counts + 1)
    present = (counts > 0)[1:]
    return entropy + ((1 - dice[1:]) * present).sum() / present.sum().clamp(min=1)
