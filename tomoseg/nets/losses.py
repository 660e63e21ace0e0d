"""Losses over annotated voxels."""

from __future__ import annotations

import torch
from torch import Tensor

from tomoseg.core.classes import NOT_ANNOTATED
from tomoseg.nets.architecture import TILE_STEEPNESS


def segmentation_loss(
    logits: Tensor,
    labels: Tensor,
    class_weights: Tensor,
    *,
    allowed: Tensor | None = None,
    boundary_weight: float = 0.0,
) -> Tensor:
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
    allowed
        bool (b, 1 + classes): the labels that a 0 may stand for, where only some classes were
        looked for; None is the background alone.
    boundary_weight
        How much more a voxel weighs in the cross-entropy beside another label.

    Notes
    -----
    Where a 0 allows several labels, its score is the sum of theirs (Shi et al., "Marginal loss and
    exclusion loss for partially supervised multi-organ segmentation", 2021).

    Dice of a class is 2 Σ p g / (Σ p + Σ g) over the annotated voxels of the whole batch where it
    was looked for (Milletari et al., V-Net, 2016, with plain sums in the denominator), smoothed by
    1; the loss is 1 - its mean over the foreground classes that occur in the batch.
    """
    classes = logits.shape[1]
    annotated = labels != NOT_ANNOTATED
    known = labels.where(annotated, 0)
    log_scores = logits.float().log_softmax(dim=1)
    log_truth = log_scores.gather(1, known[:, None])[:, 0]
    judged = annotated[:, None]
    if allowed is not None:
        free = ~allowed[:, :, None, None, None]
        log_none = log_scores.masked_fill(free, -torch.inf).logsumexp(dim=1)
        log_truth = torch.where(known == 0, log_none, log_truth)
        judged = judged & (
            free | (torch.arange(classes, device=logits.device) == 0)[:, None, None, None]
        )

    weights = class_weights[known] * annotated
    if boundary_weight:
        weights = weights * (1 + boundary_weight * beside_another(labels))
    entropy = -(weights * log_truth).sum() / weights.sum().clamp(min=1e-6)

    scores = (log_scores.exp() * judged).sum(dim=(0, 2, 3, 4))
    hits = log_truth.exp() * annotated
    # A sum a class, because adding up by index is in no fixed order on a GPU.
    common = torch.stack([(hits * (known == label)).sum() for label in range(classes)])
    counts = torch.bincount(known[annotated], minlength=classes)
    dice = (2 * common + 1) / (scores + counts + 1)
    present = (counts > 0)[1:]
    return entropy + ((1 - dice[1:]) * present).sum() / present.sum().clamp(min=1)


def beside_another(labels: Tensor) -> Tensor:
    """Mark voxels of (b, z, y, x) next to another label along z, y or x, as float 0 or 1.

    What is not annotated is no other label.
    """
    marked = torch.zeros(labels.shape, device=labels.device)
    for axis in (1, 2, 3):
        size = labels.shape[axis] - 1
        one, other = labels.narrow(axis, 0, size), labels.narrow(axis, 1, size)
        differ = (one != other) & (one != NOT_ANNOTATED) & (other != NOT_ANNOTATED)
        for begin in (0, 1):
            marked.narrow(axis, begin, size)[differ] = 1
    return marked


def log_squares_loss(logits: Tensor, labels: Tensor, *, allowed: Tensor | None = None) -> Tensor:
    """Return TomoSeg's loss of a tile network, a scalar: log mean (min(1, y) − label)².

    Parameters
    ----------
    logits, labels, allowed
        As in :func:`segmentation_loss`; the response y is logit / 8 + ½.

    Notes
    -----
    ``e2tomoseg_convnet.py`` of EMAN2 (Chen et al., Nature Methods 14, 2017). Its network judges
    one feature; with several the mean is over those that were looked for.
    """
    response = (logits[:, 1:].float() / TILE_STEEPNESS + 0.5).clamp(max=1)
    wanted = torch.arange(1, logits.shape[1], device=logits.device)[:, None, None, None]
    judged = (labels != NOT_ANNOTATED)[:, None].expand_as(response)
    if allowed is not None:
        judged = judged & ~allowed[:, 1:, None, None, None]
    squares = (response - (labels[:, None] == wanted).float()) ** 2 * judged
    # The smallest addend keeps a perfect batch finite.
    return torch.log(squares.sum() / judged.sum().clamp(min=1) + 1e-6)
