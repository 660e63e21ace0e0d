"""Segment: every block read once with the widest halo, normalised, predicted, written.

Several networks compete for the voxels of a block (:mod:`tomoseg.compete`), one after the other:
what a block needs of memory is its scores of all classes and those of one network.

Two parts of a tomogram are background, in labels and in scores, whatever a network would say of
them: what is outside its mask, and what is empty. A voxel is empty if the tomogram has one value
around it as far as the widest halo reaches, as in padding. Neither depends on the blocks, and a
block that lies in them wholly is not predicted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg import intensity
from tomoseg.blocks import Block, BlockGrid, Box
from tomoseg.compete import compete
from tomoseg.nets.doubts import coverage_note
from tomoseg.sampling import Shape, as_shape
from tomoseg.stages.context import RAW_LABELS, Context, Stage
from tomoseg.stages.masks import MASK, OUTSIDE, mask_settings, store_mask, stored_mask
from tomoseg.stages.networks import (
    AppliedNetwork,
    FittedNetwork,
    ReadBox,
    check_fit,
    contrast_sign,
    halo_of,
)
from tomoseg.stores import Ledger, Volume

OUTSIDE_MASK, EMPTY = "outside the mask", "empty"
# A few equal voxels are no padding, however short the halo is.
SMALLEST_MARGIN = (1, 16, 16)
# What a card says that changes no result.
_ONLY_SAID = {"training", "scores", "halo_disagreement", "particles", "doubts"}


def _settings(context: Context) -> Any:
    segment = context.recipe.segment
    return {
        "segment": segment.model_dump(mode="json", exclude={"model", "networks"}),
        "contrast": context.recipe.source.contrast,
        "scored": context.scored,
        "competes": bool(segment.networks),
        "mask": mask_settings(context),
        "networks": [
            {
                "model": network.card.model_dump(mode="json", exclude=_ONLY_SAID),
                "classes": network.classes,
                "weight": network.weight,
            }
            for network in context.networks
        ],
    }


@dataclass(frozen=True)
class SegmentBlock:
    """Everything that a worker needs to segment one block; pickles small.

    Parameters
    ----------
    image
        The stored tomogram.
    networks
        One alone, or those that compete.
    classes
        Of all of them, in the order of the labels 1, 2, ….
    abstain
        The threshold of the competition; None where a network is alone, and its highest score
        labels a voxel.
    labels, score_maps
        Where results go; score maps by label. They are 0 where nothing is written.
    mask
        Where results may lie; None for everywhere.
    """

    image: Volume
    networks: tuple[FittedNetwork, ...]
    classes: tuple[str, ...]
    abstain: float | None
    labels: Volume
    score_maps: tuple[tuple[int, Volume], ...]
    mask: Volume | None

    def __call__(self, block: Block) -> Mapping[str, Any]:
        """Write the labels and the score maps of a block, or say why it is skipped."""
        write = block.write
        is_kept = np.ones(write.shape, bool) if self.mask is None else self._inside(write)
        if not is_kept.any():
            return self._skipped(write, OUTSIDE_MASK)
        image = self._read(write)
        is_kept &= ~self._empty(write, image)
        if not is_kept.any():
            return self._skipped(write, EMPTY)
        labels, *maps = self.predicted(write, image) * is_kept
        self.labels.write(write, labels)
        for (_, volume), scores in zip(self.score_maps, maps, strict=True):
            volume.write(write, scores)
        counts = np.bincount(labels.ravel(), minlength=len(self.classes) + 1)
        events = [event for network in self.networks for event in network.predictor().events]
        return {"voxels": counts.tolist(), "events": events, "skipped": ""}

    def _skipped(self, write: Box, reason: str) -> Mapping[str, Any]:
        voxels = [write.size] + [0] * len(self.classes)
        return {"voxels": voxels, "events": [], "skipped": reason}

    def _inside(self, write: Box) -> NDArray[np.bool_]:
        assert self.mask is not None
        return np.asarray(self.mask.read(write) != OUTSIDE)

    def _read(self, write: Box) -> ReadBox:
        """Read all that the networks need for a box, and what tells where it is empty."""
        needs = (network.needed(write) for network in self.networks)
        box = reduce(Box.joined, needs, self._around(write))
        return ReadBox(box, self.image.read(box))

    def _around(self, write: Box) -> Box:
        return write.grow(self.margin).clip(self.networks[0].image_sampling.shape)

    def _empty(self, write: Box, image: ReadBox) -> NDArray[np.bool_]:
        around = self._around(write)
        empty = intensity.uniform_voxels(image.part(around), self.margin)
        return empty[write.within(around).slices]

    @property
    def margin(self) -> Shape:
        """Voxels zyx around an empty one that have its value: the widest halo."""
        halos = [network.halo_voxels for network in self.networks]
        return as_shape(np.max([SMALLEST_MARGIN, *halos], axis=0))

    def predicted(self, write: Box, image: ReadBox) -> NDArray[np.uint8]:
        """Return labels of a box and then each score map, uint8, (1 + maps, z, y, x)."""
        channels = [channel for channel, _ in self.score_maps]
        if self.abstain is None and not self.networks[0].is_rescaled:
            return self.networks[0].maps(write, image, channels)
        labels, scores = self._competed(write, image)
        return np.stack([labels, *(np.rint(scores[c] * 255).astype(np.uint8) for c in channels)])

    def _competed(
        self, write: Box, image: ReadBox
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        found = (network.scores(write, image) for network in self.networks)
        if self.abstain is None:
            (scores,) = found
            return _highest(scores), scores
        competitors = [network.applied.competitor for network in self.networks]
        return compete(found, competitors, self.classes, abstain=self.abstain)


def _highest(scores: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the channel with the highest score, the first on a tie, a channel at a time."""
    best = scores[0].copy()
    labels = np.zeros(best.shape, np.uint8)
    for label, candidate in enumerate(scores[1:], start=1):
        labels[candidate > best] = label
        np.maximum(best, candidate, out=best)
    return labels


def _score_path(name: str) -> str:
    return f"scores/{name}"


def _arrays(context: Context) -> tuple[str, ...]:
    mask = (MASK,) if context.recipe.source.mask else ()
    return (RAW_LABELS, *(_score_path(name) for name in context.scored), *mask)


def _begin(context: Context) -> None:
    shape, shard = context.sampling.shape, context.recipe.blocks.shape
    context.folder.remove(f"tomogram.zarr/{MASK}")
    for path in _arrays(context):
        context.volume(path).create(shape, "uint8", shard=shard, is_labels=True)


def segment_block(context: Context) -> SegmentBlock:
    """Return the work of the stage for one tomogram; raise ModelError as :func:`check_fit`."""
    segment = context.recipe.segment
    statistics = intensity.Statistics.from_dict(context.records.read_json("statistics.json"))
    return SegmentBlock(
        image=context.volume("0"),
        networks=tuple(_fitted(context, network, statistics) for network in context.networks),
        classes=context.classes,
        abstain=segment.abstain if segment.networks else None,
        labels=context.volume(RAW_LABELS),
        score_maps=tuple(
            (context.label(name), context.volume(_score_path(name))) for name in context.scored
        ),
        mask=stored_mask(context),
    )


def _fitted(
    context: Context, network: AppliedNetwork, statistics: intensity.Statistics
) -> FittedNetwork:
    recipe, card = context.recipe, network.card
    steps = intensity.parse_steps(card.intensity)
    return FittedNetwork(
        applied=network,
        image_sampling=context.sampling,
        grid=check_fit(recipe, card, context.header.sampling),
        normaliser=intensity.prepare(steps, statistics, flip=contrast_sign(recipe, card) < 0),
        halo=halo_of(card, recipe.segment.halo),
        device=recipe.compute.worker_device,
        precision=recipe.segment.precision,
        threads=recipe.compute.threads,
        tta=recipe.segment.tta,
        engine=recipe.segment.engine,
    )


def _run(context: Context, ledger: Ledger) -> dict[str, Any]:
    work = segment_block(context)
    store_mask(context, ledger)
    grid = BlockGrid(context.sampling.shape, context.recipe.blocks.shape)
    voxels = np.zeros(len(context.classes) + 1, np.int64)
    events: set[str] = set()
    skipped: Counter[str] = Counter()

    def told(receipt: Mapping[str, Any]) -> None:
        voxels[:] += receipt["voxels"]
        events.update(receipt["events"])
        skipped.update([receipt["skipped"]] if receipt["skipped"] else [])

    context.run_pass(ledger, "predict", work, grid, on_device=True, told=told)
    blocks = {"all": len(grid), "skipped": dict(sorted(skipped.items()))}
    return {
        "voxels": voxels.tolist(),
        "blocks": blocks,
        "notes": [*skipped_notes(blocks), *_doubts(context, voxels), *sorted(events)],
        "networks": [
            {
                "name": network.applied.card.name,
                "voxel_angstrom": network.grid.voxel_angstrom,
                "halo": list(network.halo),
            }
            for network in work.networks
        ],
    }


def _doubts(context: Context, voxels: NDArray[np.int64]) -> Iterator[str]:
    """Yield what speaks against the networks, and against what they made of this tomogram."""
    for network in context.networks:
        yield from (f"network {network.card.name}: {doubt}" for doubt in network.card.doubts)
        for name in network.classes:
            share = voxels[context.label(name)] / voxels.sum()
            if note := coverage_note(network.card, name, share):
                yield note


def skipped_notes(blocks: Mapping[str, Any]) -> list[str]:
    """Return a note of what was not predicted, if there is any.

    >>> skipped_notes({"all": 40, "skipped": {"outside the mask": 9}})
    ['9 of 40 blocks not predicted: 9 outside the mask']
    """
    skipped = blocks["skipped"]
    if not skipped:
        return []
    reasons = ", ".join(f"{number} {reason}" for reason, number in skipped.items())
    return [f"{sum(skipped.values())} of {blocks['all']} blocks not predicted: {reasons}"]


def evidence(context: Context, name: str) -> tuple[Volume, int | None]:
    """Return where a class is read from: its score map, or the label image and its label."""
    if name in context.scored:
        return context.volume(_score_path(name)), None
    return context.volume(context.label_path("semantic")), context.label(name)


def read_evidence(volume: Volume, label: int | None, box: Box) -> NDArray[np.float32]:
    """Return 0..1, float32, of a box of what :func:`evidence` named."""
    values = volume.read(box)
    if label is None:
        return values.astype(np.float32) / np.float32(255)
    return np.asarray(values == label, np.float32)


SEGMENT = Stage("segment", ("ingest",), _settings, _run, begin=_begin, arrays=_arrays)
