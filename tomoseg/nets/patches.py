"""Patches drawn evenly over the classes, and what a validation looks at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tomoseg.core.blocks import BlockGrid, Box
from tomoseg.core.classes import NOT_ANNOTATED
from tomoseg.core.errors import RequestError
from tomoseg.core.sampling import Shape, as_shape
from tomoseg.nets.augment import reading_shape
from tomoseg.nets.settings import TrainingSettings
from tomoseg.nets.split import Region, count_labels

ANCHORS_PER_BLOCK = 500
_HALO_SHARE = 8
# Shallow slabs cost a 2D network nothing and spread a choice of them; a 3D network pays for its
# halo on every side.
_VALIDATION_BLOCKS = {2: (32, 1024, 1024), 3: (128, 256, 256)}


@dataclass(frozen=True)
class Batch:
    """What is read for the patches of a step.

    Parameters
    ----------
    images, labels
        float32 and uint8 (b, *reading shape), before any augmentation.
    allowed
        bool (b, 1 + classes): the labels that a 0 may stand for; None if it is always the
        background.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.uint8]
    allowed: NDArray[np.bool_] | None


@dataclass(frozen=True)
class Census:
    """What is annotated in the training regions.

    Parameters
    ----------
    counts
        int64 (1 + classes,), voxels of each label.
    parts
        (region, box) that hold all annotation.
    anchors
        For each label int64 (n, 4): part, z, y, x of voxels that hold it, a random choice.
    chances
        For each label float64 (n,), rising to 1: a volume by its weight, its anchors alike.
    """

    counts: NDArray[np.int64]
    parts: tuple[tuple[Region, Box], ...]
    anchors: tuple[NDArray[np.int64], ...]
    chances: tuple[NDArray[np.float64], ...]

    def class_weights(self, maximum: float) -> NDArray[np.float32]:
        """Return weights 1..maximum: the square root of how much rarer than the background."""
        share = self.counts.max() / np.maximum(self.counts, 1)
        weights: NDArray[np.float64] = np.clip(np.sqrt(share), 1.0, maximum)
        return weights.astype(np.float32)


def take_census(regions: Sequence[Region], settings: TrainingSettings) -> Census:
    """Count the labels of the regions, block by block, and remember places of each.

    Raises
    ------
    RequestError
        If a label is neither a class nor 255, or a class is annotated nowhere.
    """
    rng = np.random.default_rng(settings.seed)
    labels = 1 + len(settings.classes)
    counts = sum((count_labels(region, settings) for region in regions), np.zeros(labels, np.int64))
    missing = [name for name, n in zip(settings.classes, counts[1:], strict=True) if not n]
    if missing:
        raise RequestError(
            f"nothing is annotated as {', '.join(missing)} in what is trained on",
            remedy="Annotate some, or take the class out of the recipe.",
        )
    parts = [(region, part) for region in regions for part in region.parts]
    found: list[list[NDArray[np.int64]]] = [[] for _ in range(labels)]
    for number, (region, part) in enumerate(parts):
        for box, voxels in Region(region.volume, part).blocks():
            for label in range(labels):
                places = _choice(np.argwhere(voxels == label), rng) + box.begin
                found[label].append(np.insert(places, 0, number, axis=1))
    anchors = tuple(np.concatenate(places) for places in found)
    chances = tuple(_chances(places[:, 0], parts) for places in anchors)
    return Census(counts, tuple(parts), anchors, chances)


def _chances(part: NDArray[np.int64], parts: Sequence[tuple[Region, Box]]) -> NDArray[np.float64]:
    """Return the rising chances of anchors, given the part that each lies in."""
    names = [region.volume.name for region, _ in parts]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    volume = np.array([numbers[name] for name in names])[part]
    weight = np.array([region.volume.weight for region, _ in parts])[part]
    rising = np.cumsum(weight / np.bincount(volume)[volume])
    return rising / rising[-1] if len(rising) else rising


def _choice(places: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    if len(places) <= ANCHORS_PER_BLOCK:
        return places
    return places[rng.choice(len(places), ANCHORS_PER_BLOCK, replace=False)]


@dataclass(frozen=True)
class PatchSource:
    """Draws batches; the same number gives the same batch, in any thread and after any restart."""

    census: Census
    settings: TrainingSettings

    def batch(self, number: int) -> Batch:
        """Return a batch."""
        rng = np.random.default_rng((self.settings.seed, number))
        patches = [self._patch(rng) for _ in range(self.settings.batch)]
        images, labels, allowed = (np.stack(part) for part in zip(*patches, strict=True))
        return Batch(images, labels, allowed if allowed[:, 1:].any() else None)

    def _patch(
        self, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.bool_]]:
        """Read around a chosen voxel, which is anywhere in the patch."""
        settings = self.settings
        number, *anchor = self._anchor(rng)
        region, part = self.census.parts[number]
        patch = place_patch(as_shape(anchor), part, settings.patch_shape, rng)
        reading = reading_shape(
            settings.patch_shape, settings.architecture.margin, settings.augmentation
        )
        # Reading and patch have one centre.
        before = np.subtract(reading, settings.patch_shape) // 2
        begin = np.subtract(patch.begin, before)
        image, labels = read_padded(region, Box(as_shape(begin), as_shape(begin + reading)))
        allowed = np.ones(1 + len(settings.classes), dtype=np.bool_)
        allowed[list(region.volume.judged)] = False
        return image, labels, allowed

    def _anchor(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return part, z, y, x of a voxel: a class's, each as often, or the background's."""
        background, *classes = range(len(self.census.anchors))
        wants_class = rng.random() < self.settings.foreground_fraction
        if wants_class or not len(self.census.anchors[background]):
            label = int(rng.choice(classes))
        else:
            label = background
        row = np.searchsorted(self.census.chances[label], rng.random(), side="right")
        place: NDArray[np.int64] = self.census.anchors[label][row]
        return place


def place_patch(anchor: Shape, part: Box, patch: Shape, rng: np.random.Generator) -> Box:
    """Return a patch that holds the anchor and, along each axis, as much annotation as it can.

    part     . . |0 1 2 3 4 5 6 7| . .        larger than the patch: the patch lies within
    patch        . . |* * * *| . .
    part     . . . . |0 1| . . . .            smaller: it lies within the patch
    patch        |. * * .|
    """
    begin = np.subtract(anchor, rng.integers(0, patch))
    ends = np.array((part.begin, np.subtract(part.end, patch)))
    begin = np.clip(begin, ends.min(axis=0), ends.max(axis=0))
    return Box(as_shape(begin), as_shape(np.add(begin, patch)))


def read_padded(region: Region, box: Box) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Read a box that may reach out of the region.

    Images continue beyond the region to the volume's border and are 0 outside, as in a
    prediction; labels outside the region are 255.
    """
    image = np.zeros(box.shape, dtype=np.float32)
    labels = np.full(box.shape, NOT_ANNOTATED, dtype=np.uint8)
    inside = box.clip(region.volume.shape)
    image[inside.within(box).slices] = region.volume.image(inside)
    if not np.isfinite(image.sum(dtype=np.float64)):
        raise RequestError(
            f"the normalised image holds values that are not finite in {inside.begin}.."
            f"{inside.end}",
            remedy="Check the tomogram for NaN and the recipe's intensity steps.",
            tomogram=region.volume.name,
        )
    inside = box.intersect(region.box)
    labels[inside.within(box).slices] = region.volume.labels(inside)
    return image, labels


def validation_boxes(
    regions: Sequence[Region], settings: TrainingSettings
) -> list[tuple[Region, Box, Box]]:
    """Return (region, box to predict, box to read) that cover the annotation, or an even choice.

    Boxes are read on the network's grid, with its halo, as in a real prediction.
    """
    stride = settings.architecture.stride
    chosen = []
    for region in regions:
        for part in region.parts:
            for block in BlockGrid(
                part.shape, _VALIDATION_BLOCKS[settings.architecture.dimensions]
            ):
                write = block.write.shift(part.begin)
                read = write.aligned(stride).grow(settings.network_halo).aligned(stride)
                chosen.append((region, write, read.clip(as_shape(region.volume.shape))))
    # What is read decides what a validation costs: a tile has little to write and a large halo.
    voxels = sum(max(write.size, read.size // _HALO_SHARE) for _, write, read in chosen)
    keep = max(1, min(len(chosen), len(chosen) * settings.validation_voxels // max(voxels, 1)))
    return [chosen[i] for i in np.linspace(0, len(chosen) - 1, keep).round().astype(int)]
