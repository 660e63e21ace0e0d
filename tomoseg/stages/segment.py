"""Segment: every block read with its halo, normalised, predicted, written.

Several networks compete for the voxels of a block (:mod:`tomoseg.compete`), one after the other:
what a block needs of memory is its scores of all classes and those of one network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg import intensity
from tomoseg.blocks import Block, BlockGrid, Box
from tomoseg.compete import compete
from tomoseg.stages.context import RAW_LABELS, Context, Stage
from tomoseg.stages.networks import (
    AppliedNetwork,
    FittedNetwork,
    check_fit,
    contrast_sign,
    halo_of,
)
from tomoseg.stores import Ledger, Volume


def _settings(context: Context) -> Any:
    segment = context.recipe.segment
    return {
        "segment": segment.model_dump(mode="json", exclude={"model", "networks"}),
        "contrast": context.recipe.source.contrast,
        "scored": context.scored,
        "competes": bool(segment.networks),
        "networks": [
            {
                "model": network.card.model_dump(mode="json", exclude={"training", "scores"}),
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
    networks
        One alone, or those that compete.
    classes
        Of all of them, in the order of the labels 1, 2, ….
    abstain
        The threshold of the competition; None where a network is alone, and its highest score
        labels a voxel.
    labels, score_maps
        Where results go; score maps by label.
    """

    networks: tuple[FittedNetwork, ...]
    classes: tuple[str, ...]
    abstain: float | None
    labels: Volume
    score_maps: tuple[tuple[int, Volume], ...]

    def __call__(self, block: Block) -> Mapping[str, Any]:
        """Write the labels and the score maps of a block."""
        labels, scores = self.predicted(block.write)
        self.labels.write(block.write, labels)
        for channel, volume in self.score_maps:
            assert scores is not None
            volume.write(block.write, np.rint(scores[channel] * 255).astype(np.uint8))
        counts = np.bincount(labels.ravel(), minlength=len(self.classes) + 1)
        events = [event for network in self.networks for event in network.predictor().events]
        return {"voxels": counts.tolist(), "events": events}

    def predicted(self, write: Box) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None]:
        """Return labels and, if kept or needed, scores (1 + classes, z, y, x) of a box."""
        if self.abstain is None:
            return self._predicted_alone(write)
        return compete(
            (network.scores(write) for network in self.networks),
            [network.applied.competitor for network in self.networks],
            self.classes,
            abstain=self.abstain,
        )

    def _predicted_alone(self, write: Box) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None]:
        (network,) = self.networks
        if not (network.is_rescaled or self.score_maps):
            return network.labels(write), None
        scores = network.scores(write)
        return _highest(scores), scores


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
    return (RAW_LABELS, *(_score_path(name) for name in context.scored))


def _begin(context: Context) -> None:
    shape, shard = context.sampling.shape, context.recipe.blocks.shape
    for path in _arrays(context):
        context.volume(path).create(shape, "uint8", shard=shard, is_labels=True)


def segment_block(context: Context) -> SegmentBlock:
    """Return the work of the stage for one tomogram; raise ModelError as :func:`check_fit`."""
    segment = context.recipe.segment
    statistics = intensity.Statistics.from_dict(context.records.read_json("statistics.json"))
    return SegmentBlock(
        networks=tuple(_fitted(context, network, statistics) for network in context.networks),
        classes=context.classes,
        abstain=segment.abstain if segment.networks else None,
        labels=context.volume(RAW_LABELS),
        score_maps=tuple(
            (context.label(name), context.volume(_score_path(name))) for name in context.scored
        ),
    )


def _fitted(
    context: Context, network: AppliedNetwork, statistics: intensity.Statistics
) -> FittedNetwork:
    recipe, card = context.recipe, network.card
    steps = intensity.parse_steps(card.intensity)
    return FittedNetwork(
        applied=network,
        image=context.volume("0"),
        image_sampling=context.sampling,
        grid=check_fit(recipe, card, context.header.sampling),
        normaliser=intensity.prepare(steps, statistics, flip=contrast_sign(recipe, card) < 0),
        halo=halo_of(card, recipe.segment.halo),
        device=recipe.compute.worker_device,
        precision=recipe.segment.precision,
        threads=recipe.compute.threads,
    )


def _run(context: Context, ledger: Ledger) -> dict[str, Any]:
    work = segment_block(context)
    grid = BlockGrid(context.sampling.shape, context.recipe.blocks.shape)
    names = context.run_pass(ledger, "predict", work, grid, on_device=True)
    voxels = np.zeros(len(context.classes) + 1, np.int64)
    events: set[str] = set()
    for name in names:
        receipt = ledger.read(name)
        voxels += receipt["voxels"]
        events |= set(receipt["events"])
    return {
        "voxels": voxels.tolist(),
        "notes": sorted(events),
        "networks": [
            {
                "name": network.applied.card.name,
                "voxel_angstrom": network.grid.voxel_angstrom,
                "halo": list(network.halo),
            }
            for network in work.networks
        ],
    }


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
