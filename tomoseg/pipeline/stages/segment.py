"""Segment: every block read once with the widest halo, normalised, predicted, written.

Several networks compete for the voxels of a block (:mod:`tomoseg.analysis.compete`), one after the
other: what a block needs of memory is its scores of all classes and those of one network.

Two parts of a tomogram are background, in labels and in scores, whatever a network would say of
them: what is outside its mask, and what is empty (:mod:`tomoseg.analysis.intensity.empty`) or has
one value around it as far as the widest halo reaches. Neither depends on the blocks, and a block
that lies in them wholly is not predicted. The networks see the tomogram's mean where it is empty,
which is what they take to be beyond its border: an edge of padding is no feature.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from tomoseg.analysis import intensity
from tomoseg.analysis.compete import compete
from tomoseg.analysis.view import NetworkView
from tomoseg.core.blocks import Block, BlockGrid, Box
from tomoseg.core.sampling import Shape, as_shape
from tomoseg.io.stores import Ledger, Volume
from tomoseg.nets.doubts import coverage_note
from tomoseg.nets.options import PredictionOptions
from tomoseg.pipeline.stages.context import RAW_LABELS, Context, Stage
from tomoseg.pipeline.stages.input_mask import is_inside, stored_mask
from tomoseg.pipeline.stages.networks import (
    AppliedNetwork,
    FittedNetwork,
    ReadBox,
    check_fit,
    contrast_sign,
    halo_of,
)
from tomoseg.pipeline.stages.terms import ONLY_SAID, Question
from tomoseg.recipe.recipe import Recipe
from tomoseg.simulation.calibration import calibration_volumes

if TYPE_CHECKING:
    from tomoseg.nets.options import Precision

SCORES = "scores/"
OUTSIDE_MASK, EMPTY = "outside the mask", "empty"
# A few equal voxels are no padding, however short the halo is.
SMALLEST_MARGIN = (1, 16, 16)


def _settings(context: Context) -> Any:
    segment = context.recipe.segment
    return {
        "segment": segment.model_dump(mode="json", exclude={"model", "networks", "precision"}),
        "contrast": context.recipe.source.contrast,
        "scored": context.scored,
        "competes": bool(segment.networks),
        "networks": [
            {
                "model": network.card.model_dump(mode="json", exclude=ONLY_SAID),
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
    fill
        The grey value that the networks see where the tomogram is empty; None if it is nowhere.
    """

    image: Volume
    networks: tuple[FittedNetwork, ...]
    classes: tuple[str, ...]
    abstain: float | None
    labels: Volume
    score_maps: tuple[tuple[int, Volume], ...]
    mask: Volume | None
    fill: float | None

    def __call__(self, block: Block) -> Mapping[str, Any]:
        """Write the labels and the score maps of a block, or say why it is skipped."""
        write = block.write
        is_kept = np.ones(write.shape, bool)
        if self.mask is not None:
            is_kept = is_inside(write, mask=self.mask)
        if not is_kept.any():
            return self._skipped(write, OUTSIDE_MASK)
        image, is_empty = self._read(write)
        is_kept &= ~(is_empty | self._uniform(write, image))
        if not is_kept.any():
            return self._skipped(write, EMPTY)
        labels, *maps = self.predicted(write, image) * is_kept
        self.labels.write(write, labels)
        for (_, volume), scores in zip(self.score_maps, maps, strict=True):
            volume.write(write, scores)
        counts = np.bincount(labels.ravel(), minlength=len(self.classes) + 1)
        predictors = [network.predictor() for network in self.networks]
        return {
            "voxels": counts.tolist(),
            "events": [event for predictor in predictors for event in predictor.events],
            "skipped": "",
            "computed": ", ".join(dict.fromkeys(predictor.said for predictor in predictors)),
        }

    def _skipped(self, write: Box, reason: str) -> Mapping[str, Any]:
        voxels = [write.size] + [0] * len(self.classes)
        return {"voxels": voxels, "events": [], "skipped": reason, "computed": ""}

    def _read(self, write: Box) -> tuple[ReadBox, NDArray[np.bool_]]:
        """Read all that the networks need for a box, and tell which of its voxels are empty."""
        needs = (network.needed(write) for network in self.networks)
        box = reduce(Box.joined, needs, self._around(write))
        if self.fill is None:
            return ReadBox(box, self.image.read(box)), np.zeros(write.shape, np.bool_)
        shape = self.networks[0].view.stored.shape
        voxels, is_empty = intensity.read_filled(self.image.read, box, shape, self.fill)
        return ReadBox(box, voxels), is_empty[write.within(box).slices]

    def _around(self, write: Box) -> Box:
        return write.grow(self.margin).clip(self.networks[0].view.stored.shape)

    def _uniform(self, write: Box, image: ReadBox) -> NDArray[np.bool_]:
        around = self._around(write)
        uniform = intensity.uniform_voxels(image.part(around), self.margin)
        return uniform[write.within(around).slices]

    @property
    def margin(self) -> Shape:
        """Voxels zyx around one that have its value if nothing is there: the widest halo."""
        halos = [network.halo_voxels for network in self.networks]
        return as_shape(np.max([SMALLEST_MARGIN, *halos], axis=0))

    def predicted(self, write: Box, image: ReadBox) -> NDArray[np.uint8]:
        """Return labels of a box and then each score map, uint8, (1 + maps, z, y, x)."""
        channels = [channel for channel, _ in self.score_maps]
        if self.abstain is None and not self.networks[0].view.is_rescaled:
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
    return f"{SCORES}{name}"


def _arrays(context: Context) -> tuple[str, ...]:
    return (RAW_LABELS, *(_score_path(name) for name in context.scored))


def _begin(context: Context) -> None:
    shape, shard = context.sampling().shape, context.recipe.blocks.shape
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
        fill=statistics.fill,
    )


def _asked(recipe: Recipe) -> PredictionOptions:
    """Return how a recipe asks for networks to be computed."""
    compute, segment = recipe.compute, recipe.segment
    return PredictionOptions(
        device=compute.worker_device,
        precision=segment.precision,
        threads=compute.threads,
        tta=segment.tta,
        engine=segment.engine,
        calibration_volumes=calibration_volumes,
    )


def _options(context: Context) -> PredictionOptions:
    """Return what was settled for the stage; outside of one, what the recipe asks for."""
    asked = _asked(context.recipe)
    if context.terms is None:
        return asked
    return replace(asked, precision=cast("Precision", context.terms.precision))


def _question(context: Context) -> Question:
    return Question(
        options=_asked(context.recipe),
        models=tuple((one.folder, one.digest) for one in context.networks),
    )


def _fitted(
    context: Context, network: AppliedNetwork, statistics: intensity.Statistics
) -> FittedNetwork:
    recipe, card = context.recipe, network.card
    steps = intensity.parse_steps(card.intensity)
    return FittedNetwork(
        applied=network,
        view=NetworkView(
            context.sampling(),
            check_fit(recipe, card, context.header().sampling),
            intensity.prepare(steps, statistics, flip=contrast_sign(recipe, card) < 0),
        ),
        halo=halo_of(card, recipe.segment.halo),
        options=_options(context),
    )


def _run(context: Context, ledger: Ledger) -> dict[str, Any]:
    work = segment_block(context)
    grid = BlockGrid(context.sampling().shape, context.recipe.blocks.shape)
    voxels = np.zeros(len(context.classes) + 1, np.int64)
    events: set[str] = set()
    skipped: Counter[str] = Counter()
    computed: Counter[str] = Counter()

    def told(receipt: Mapping[str, Any]) -> None:
        voxels[:] += receipt["voxels"]
        events.update(receipt["events"])
        skipped.update([receipt["skipped"]] if receipt["skipped"] else [])
        computed.update([receipt["computed"]] if receipt["computed"] else [])

    context.run_pass(ledger, "predict", work, grid, on_device=True, told=told)
    blocks = {"all": len(grid), "skipped": dict(sorted(skipped.items()))}
    return {
        "voxels": voxels.tolist(),
        "blocks": blocks,
        "computed": dict(sorted(computed.items())),
        "notes": [
            *skipped_notes(blocks),
            *_contrast_notes(context),
            *_doubts(context, voxels),
            *(context.terms.notes if context.terms else ()),
            *_mixed_notes(computed),
            *sorted(events),
        ],
        "networks": [
            {
                "name": network.applied.card.name,
                "voxel_angstrom": network.view.grid.voxel_angstrom,
                "halo": list(network.halo),
            }
            for network in work.networks
        ],
    }


def _contrast_notes(context: Context) -> list[str]:
    """Say it if protein was measured to be otherwise than the recipe says."""
    skewness = context.summary("ingest")["detail_skewness"]
    return intensity.contrast_notes(skewness, context.recipe.source.contrast)


def _mixed_notes(computed: Mapping[str, int]) -> list[str]:
    """Say it if not all blocks were computed by one kind of processor.

    >>> _mixed_notes({"float32 on a": 3, "float32 on b": 1})
    ['last bits of scores may differ: blocks were computed in float32 on a (3), float32 on b (1)']
    """
    if len(computed) < 2:
        return []
    kinds = ", ".join(f"{kind} ({number})" for kind, number in sorted(computed.items()))
    return [f"last bits of scores may differ: blocks were computed in {kinds}"]


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


OWNS = (RAW_LABELS, SCORES)
SEGMENT = Stage(
    "segment",
    ("ingest",),
    _settings,
    _run,
    OWNS,
    _begin,
    arrays=_arrays,
    question=_question,
    share=0.41,
)
