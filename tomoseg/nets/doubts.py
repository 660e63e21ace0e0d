"""What speaks against a trained network, in sentences for people. No torch in here.

A network that has learnt nothing has a card, weights and a halo like any other. What was measured
while it was trained tells the two apart, and must be read by who did not watch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from tomoseg.nets.card import ModelCard, load_card
from tomoseg.nets.settings import TrainingSettings

# Below it most of what is found is wrong, or most is missed, on voxels much like those shown.
LOWEST_F1 = 0.3
# A class that covers so many times its share of the annotation is painted over everything, if
# that is also so much more of all voxels.
LARGEST_SHARE_RATIO = 3.0
LARGEST_SHARE_EXCESS = 0.1
# By so much of itself a loss must fall, from the first fifth of a training to the last.
_LEAST_FALL = 0.05


def doubts(card: ModelCard, losses: Sequence[float]) -> tuple[str, ...]:
    """Return what speaks against a network; nothing if nothing does.

    Parameters
    ----------
    card
        As a training writes it, with the confusion of what was kept apart in its scores.
    losses
        Of the training, in the order of time; none where it went on from a trained network.
    """
    counts = np.array(card.scores["confusion"], dtype=np.int64)
    return (*_of_classes(card, counts), *_of_loss(losses))


def forgotten_classes(settings: TrainingSettings) -> str:
    """Return a note on classes of the model that is gone on from and that this one drops, or ""."""
    if settings.init_from is None:
        return ""
    parent = load_card(settings.init_from)
    forgotten = [name for name in parent.classes if name not in settings.classes]
    if not forgotten:
        return ""
    return (
        f"init_from: {parent.name} also knows {', '.join(forgotten)}; {settings.name} will forget "
        f"them, its classes are {', '.join(settings.classes)}. To have them too, apply both models "
        "with segment.networks, or annotate them and list them in classes"
    )


def _of_classes(card: ModelCard, counts: NDArray[np.int64]) -> Iterator[str]:
    if not counts.sum():
        yield "nothing was kept apart to judge it on: how well it does, nobody knows"
        return
    annotated = counts.sum(axis=1)
    found = counts.sum(axis=0)
    for label, name in enumerate(card.classes, start=1):
        if not annotated[label]:
            yield (
                f"{name}: none was kept apart to judge it on; how well it is found, nobody knows: "
                "annotate more of it"
            )
            continue
        f1 = 2 * counts[label, label] / (annotated[label] + found[label])
        if f1 < LOWEST_F1:
            yield (
                f"{name}: F1 {f1:.3f} on what was kept apart, below {LOWEST_F1}: as good as not "
                "learnt. Train longer (network.steps), annotate more, or check the annotation"
            )
        share = found[label] / counts.sum()
        if _is_too_much(share, max(annotated[label] / counts.sum(), annotated_share(card, name))):
            yield (
                f"{name}: {share:.0%} of what was kept apart is labelled, "
                f"{annotated[label] / counts.sum():.1%} of it is annotated"
            )


def _of_loss(losses: Sequence[float]) -> Iterator[str]:
    if len(losses) < 2:
        return
    fifth = max(1, len(losses) // 5)
    first, last = float(np.mean(losses[:fifth])), float(np.mean(losses[-fifth:]))
    if last > first - _LEAST_FALL * abs(first):
        yield (
            f"the loss did not fall: {first:.3g} at first, {last:.3g} in the end; train longer, or "
            "with another network.learning_rate"
        )


def annotated_share(card: ModelCard, name: str) -> float:
    """Return the share of a class in what a network was trained on, 1 where it is not known."""
    voxels = card.training.get("voxels_per_label")
    if not isinstance(voxels, list) or len(voxels) != 1 + len(card.classes) or not sum(voxels):
        return 1.0
    return float(voxels[card.label(name)] / sum(voxels))


def coverage_note(card: ModelCard, name: str, share: float) -> str:
    """Return a note if a class covers far more of a tomogram than of the annotation, else ""."""
    annotated = annotated_share(card, name)
    if not _is_too_much(share, annotated):
        return ""
    return (
        f"{name} covers {share:.0%} of the tomogram, {annotated:.1%} of what {card.name} was "
        "trained on: look at the picture, and train on slices of this tomogram if it is wrong"
    )


def _is_too_much(share: float, annotated: float) -> bool:
    return share > LARGEST_SHARE_RATIO * annotated and share - annotated > LARGEST_SHARE_EXCESS
