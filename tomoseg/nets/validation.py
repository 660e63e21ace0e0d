"""How well a network does on voxels that it never saw, and what a smaller halo would cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tomoseg.core.blocks import BlockGrid, Box
from tomoseg.core.classes import NOT_ANNOTATED
from tomoseg.core.sampling import as_shape
from tomoseg.nets.predict import Predictor
from tomoseg.nets.split import Region

HALOS = (16, 32, 48, 64)
_HALO_CORE = 64
_HALO_SLICES = 8
# In 3D the halo on all sides makes a block dear.
_HALO_BLOCKS = {2: 4, 3: 1}
SCORE_BINS = 256


def confusion(predictor: Predictor, boxes: Iterable[tuple[Region, Box, Box]]) -> NDArray[np.int64]:
    """Count annotated voxels by truth (rows) and prediction (columns), background first.

    ``boxes`` are (region, box to predict, box to read), predicted exactly as blocks of a
    tomogram are. Where an annotator looked for some classes only, a prediction of another one
    counts as background.
    """
    labels = 1 + len(predictor.card.classes)
    counts = np.zeros(labels * labels, dtype=np.int64)
    for region, write, read in boxes:
        truth = region.volume.labels(write)
        annotated = truth != NOT_ANNOTATED
        if annotated.any():
            found = predictor.predict_labels(region.volume.image(read), write.within(read))
            seen = np.zeros(labels, dtype=np.int64)
            seen[list(region.volume.judged)] = region.volume.judged
            pairs = truth[annotated].astype(np.int64) * labels + seen[found[annotated]]
            counts += np.bincount(pairs, minlength=labels * labels)
    return counts.reshape(labels, labels)


def score_histograms(
    predictor: Predictor, boxes: Iterable[tuple[Region, Box, Box]]
) -> NDArray[np.int64]:
    """Count annotated voxels by score, int64 (classes, 2, bins): without the class, and with it.

    Bins divide 0..1 evenly. A class counts where the annotator looked for it.
    """
    classes = len(predictor.card.classes)
    counts = np.zeros((classes, 2 * SCORE_BINS), dtype=np.int64)
    for region, write, read in boxes:
        truth = region.volume.labels(write)
        annotated = truth != NOT_ANNOTATED
        if annotated.any():
            scores = predictor.predict_scores(region.volume.image(read), write.within(read))
            for label in region.volume.judged:
                bins = (scores[label][annotated] * SCORE_BINS).astype(np.int64)
                bins = bins.clip(max=SCORE_BINS - 1) + SCORE_BINS * (truth[annotated] == label)
                counts[label - 1] += np.bincount(bins, minlength=2 * SCORE_BINS)
    return counts.reshape(classes, 2, SCORE_BINS)


def f1_scores(counts: NDArray[np.int64], classes: Sequence[str]) -> dict[str, float | None]:
    """Return 2 tp / (2 tp + fp + fn) of each class, None where it neither is nor was found."""
    hits = counts.diagonal()
    total = counts.sum(axis=0) + counts.sum(axis=1)
    return {
        name: float(2 * hits[label] / total[label]) if total[label] else None
        for label, name in enumerate(classes, start=1)
    }


def mean_score(counts: NDArray[np.int64], scores: Mapping[str, float | None]) -> float:
    """Return the mean over the classes that the annotation has, 0 if it has none.

    A class that is found though the annotation has none would count as 0 for a single voxel.
    """
    present = counts.sum(axis=1)[1:] > 0
    known = [score for score, is_there in zip(scores.values(), present, strict=True) if is_there]
    return sum(score or 0.0 for score in known) / len(known) if known else 0.0


def halo_costs(predictor: Predictor, region: Region) -> dict[str, float]:
    """Return the share of voxels that a smaller halo labels otherwise than the exact one.

    Measured in float32 or whatever the predictor computes in, on up to four blocks (in 3D one) of
    64 voxels along the axes of the network, spread over the volume. Keys are halos in voxels. One
    that reads as far as the exact one changes nothing.
    """
    card = predictor.card
    shape = as_shape(region.volume.shape)
    depth = _HALO_SLICES if card.architecture.dimensions == 2 else _HALO_CORE
    edges = zip((depth, _HALO_CORE, _HALO_CORE), card.stride, strict=True)
    core = as_shape(-(-edge // step) * step for edge, step in edges)
    grid = list(BlockGrid(shape, core, card.architecture.receptive_halo, card.stride))
    places = np.linspace(
        0, len(grid) - 1, min(len(grid), _HALO_BLOCKS[card.architecture.dimensions]) + 2
    )[1:-1].round()
    changed = dict.fromkeys(HALOS, 0)
    voxels = 0
    for place in places.astype(int):
        block = grid[place]
        image = region.volume.image(block.read)
        exact = predictor.predict_labels(image, block.core)
        voxels += exact.size
        for halo in (one for one in HALOS if card.disagreement(card.architecture.halo(one)) != 0):
            read = block.write.grow(card.architecture.halo(halo))
            read = read.aligned(card.stride).clip(shape).intersect(block.read)
            part = image[read.within(block.read).slices]
            found = predictor.predict_labels(part, block.write.within(read))
            changed[halo] += int((found != exact).sum())
    return {str(halo): count / voxels for halo, count in changed.items()}
