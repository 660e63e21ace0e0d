"""What is trained on and what is kept apart, and patches drawn evenly over the classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tomoseg.blocks import BlockGrid, Box
from tomoseg.errors import RequestError
from tomoseg.nets.augment import rescaled, turned
from tomoseg.nets.card import NOT_ANNOTATED
from tomoseg.nets.settings import AnnotatedVolume, TrainingSettings
from tomoseg.sampling import as_shape

ANCHORS_PER_BLOCK = 500
_SCAN_BLOCK = (32, 512, 512)
# Shallow slabs cost a slab network nothing and spread a choice of them; a volume network pays
# for its halo on every side.
_VALIDATION_BLOCKS = {"slab": (32, 1024, 1024), "volume": (128, 256, 256)}


@dataclass(frozen=True)
class Region:
    """A volume and the part of it whose labels may be used."""

    volume: AnnotatedVolume
    box: Box


@dataclass(frozen=True)
class Batch:
    """Patches: images float32 (b, z, y, x), labels uint8 (b, z or slices_out, y, x)."""

    images: NDArray[np.float32]
    labels: NDArray[np.uint8]


def split_regions(
    volumes: Sequence[AnnotatedVolume], settings: TrainingSettings
) -> tuple[list[Region], list[Region]]:
    """Return what to train on and what to keep apart for validation.

        named         all of the volumes named | all of the others
        not named     z  |0 . . . train . . . .| gap |. . validation . .|   in every volume

    Raises
    ------
    RequestError
        If names are not unique or unknown, or one side would be empty.
    """
    names = [volume.name for volume in volumes]
    unknown = sorted(set(settings.validation) - set(names))
    if unknown or len(set(names)) != len(names):
        raise RequestError(
            f"validation volumes {unknown} are not among {names}, or names occur twice"
        )
    if settings.validation:
        apart = [volume.name in settings.validation for volume in volumes]
        whole = [Region(volume, Box.whole(volume.shape)) for volume in volumes]
        training = [region for region, kept in zip(whole, apart, strict=True) if not kept]
        validation = [region for region, kept in zip(whole, apart, strict=True) if kept]
    else:
        pairs = [_split_slices(volume, settings) for volume in volumes]
        training, validation = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    if not training:
        raise RequestError("no volume is left to train on", remedy="Annotate one more.")
    return training, validation


def _split_slices(volume: AnnotatedVolume, settings: TrainingSettings) -> tuple[Region, Region]:
    slices, *plane = volume.shape
    first = slices - max(1, round(slices * settings.validation_fraction))
    end = first - settings.validation_gap
    if end < 1:
        raise RequestError(
            f"{slices} slices leave none to train on beside {slices - first} for validation and "
            f"a gap of {settings.validation_gap}",
            remedy="Lower validation_fraction or validation_gap, or name validation volumes.",
            tomogram=volume.name,
        )
    training = Box((0, 0, 0), as_shape((end, *plane)))
    return Region(volume, training), Region(volume, Box((first, 0, 0), as_shape(volume.shape)))


@dataclass(frozen=True)
class Census:
    """What is annotated in the training regions.

    Parameters
    ----------
    counts
        int64 (1 + classes,), voxels of each label.
    anchors
        For each label int64 (n, 4): region, z, y, x of voxels that hold it, a random choice.
    """

    counts: NDArray[np.int64]
    anchors: tuple[NDArray[np.int64], ...]

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
        If a label is neither a class nor 255, or nothing at all is annotated.
    """
    rng = np.random.default_rng(settings.seed)
    labels = 1 + len(settings.classes)
    counts = np.zeros(labels, dtype=np.int64)
    found: list[list[NDArray[np.int64]]] = [[] for _ in range(labels)]
    for number, region in enumerate(regions):
        for block in BlockGrid(region.box.shape, _SCAN_BLOCK):
            box = block.write.shift(region.box.begin)
            voxels = region.volume.labels(box)
            _check_labels(voxels, labels, region.volume.name)
            counts += np.bincount(voxels[voxels != NOT_ANNOTATED], minlength=labels)
            for label in range(labels):
                places = _choice(np.argwhere(voxels == label), rng) + box.begin
                found[label].append(np.insert(places, 0, number, axis=1))
    if not counts.any():
        raise RequestError("nothing is annotated in the training volumes")
    return Census(counts, tuple(np.concatenate(parts) for parts in found))


def _check_labels(voxels: NDArray[np.uint8], labels: int, name: str) -> None:
    odd = np.unique(voxels[(voxels >= labels) & (voxels != NOT_ANNOTATED)])
    if len(odd):
        raise RequestError(
            f"label {odd[0]} is neither 0..{labels - 1} nor {NOT_ANNOTATED} (not annotated)",
            remedy="Name all classes in the recipe or repaint.",
            tomogram=name,
        )


def _choice(places: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    if len(places) <= ANCHORS_PER_BLOCK:
        return places
    return places[rng.choice(len(places), ANCHORS_PER_BLOCK, replace=False)]


@dataclass(frozen=True)
class PatchSource:
    """Draws batches; the same step gives the same batch, in any thread and after any restart."""

    regions: Sequence[Region]
    census: Census
    settings: TrainingSettings

    def batch(self, step: int) -> Batch:
        """Return the batch of a step."""
        rng = np.random.default_rng((self.settings.seed, step))
        patches = [self._patch(rng) for _ in range(self.settings.batch)]
        return Batch(
            images=np.stack([image for image, _ in patches]),
            labels=np.stack([labels for _, labels in patches]),
        )

    def _patch(self, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Place a patch so that a chosen voxel is anywhere in it, with margins for the network."""
        settings = self.settings
        margin = settings.architecture.margin
        seen = as_shape(np.add(settings.patch, (2 * margin, 0, 0)))
        number, *anchor = self._anchor(rng)
        region = self.regions[number]
        scale = _scale(settings, rng)
        reading = as_shape(np.maximum(np.rint(np.multiply(seen, scale)), 1))
        inner = np.subtract(reading, (round(2 * margin * scale), 0, 0))
        begin = anchor - rng.integers(0, np.maximum(inner, 1))
        latest = np.maximum(np.subtract(region.box.end, inner), region.box.begin)
        begin = np.clip(begin, region.box.begin, latest) - (round(margin * scale), 0, 0)
        image, labels = read_padded(region, Box(as_shape(begin), as_shape(begin + reading)))
        image, labels = turned(*rescaled(image, labels, seen), rng)
        return image, labels[margin : margin + settings.patch[0]]

    def _anchor(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return region, z, y, x of a voxel: a class's, each as often, or the background's."""
        background, *classes = self.census.anchors
        present = [places for places in classes if len(places)]
        wants_class = rng.random() < self.settings.foreground_fraction
        if present and (wants_class or not len(background)):
            places = present[rng.integers(len(present))]
        else:
            places = background
        place: NDArray[np.int64] = places[rng.integers(len(places))]
        return place


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


def _scale(settings: TrainingSettings, rng: np.random.Generator) -> float:
    limit = settings.augmentation.scale
    change = float(rng.uniform(-limit, limit))
    return 1.0 + change * float(rng.random() < settings.augmentation.scale_probability)


def validation_boxes(
    regions: Sequence[Region], settings: TrainingSettings
) -> list[tuple[Region, Box, Box]]:
    """Return (region, box to predict, box to read) that cover the regions, or an even choice.

    Boxes lie on the network's grid, as in a real prediction.
    """
    architecture = settings.architecture
    block = _VALIDATION_BLOCKS[architecture.kind]
    block = as_shape(max(1, n // s) * s for n, s in zip(block, architecture.stride, strict=True))
    chosen = []
    for region in regions:
        shape = as_shape(region.volume.shape)
        grid = BlockGrid(shape, block, architecture.receptive_halo, architecture.stride)
        writes = ((part.write.intersect(region.box), part.read) for part in grid)
        chosen += [(region, write, read) for write, read in writes if write.size]
    voxels = sum(write.size for _, write, _ in chosen)
    keep = max(1, min(len(chosen), len(chosen) * settings.validation_voxels // voxels))
    return [chosen[i] for i in np.linspace(0, len(chosen) - 1, keep).round().astype(int)]
