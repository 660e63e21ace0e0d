"""Losses over annotated voxels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tomoseg.nets.card import NOT_ANNOTATED


def segmentation_loss(logits: Tensor, labels: Tensor, class_weights: Tensor) -> Tensor:
    """Return weighted cross-entropy plus Dice loss, a scalar.

    The cross-entropy judges every voxel, the Dice loss every class, however rare: together they
    neither drown the small classes nor lose calibration (Isensee et al., nnU-Net, 2021).

    Parameters
    ----------
    logits
        (b, 1 + classes, z, y, x).
    labels
        int64 (b, z, y, x); 255 is not annotated and counts in neither part.
    class_weights
        (1 + classes,), background first.
    """
    logits = logits.float()
    entropy = functional.cross_entropy(
        logits, labels, weight=class_weights, ignore_index=NOT_ANNOTATED, reduction="sum"
    )
    annotated = labels != NOT_ANNOTATED
    weights = class_weights[labels.where(annotated, 0)] * annotated
    return entropy / weights.sum().clamp(min=1e-6) + dice_loss(logits, labels)


def dice_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return 1 - the mean soft Dice of the foreground classes in the batch, a scalar.

    2 Σ p g / (Σ p + Σ g) over the annotated voxels of the whole batch, each foreground class that
    occurs in it once (Milletari et al., V-Net, 2016, with plain sums in the denominator).
    Shapes as in :func:`segmentation_loss`.
    """
    annotated = (labels != NOT_ANNOTATED).unsqueeze(1)
    scores = logits.softmax(dim=1)[:, 1:] * annotated
    classes = torch.arange(1, logits.shape[1], device=labels.device).view(1, -1, 1, 1, 1)
    truth = labels.unsqueeze(1) == classes
    axes = (0, 2, 3, 4)
    common = (scores * truth).sum(axes)
    total = scores.sum(axes) + truth.sum(axes)
    present = truth.any(dim=0).flatten(1).any(dim=1)
    dice = (2 * common + 1) / (total + 1)
    return ((1 - dice) * present).sum() / present.sum().clamp(min=1)
