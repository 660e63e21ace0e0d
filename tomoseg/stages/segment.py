"""Segment: every block read once with its halo, normalised, predicted, written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from tomoseg import intensity
from tomoseg.blocks import Block, BlockGrid, Box
from tomoseg.errors import ModelError
from tomoseg.nets.card import ModelCard
from tomoseg.recipe import Recipe
from tomoseg.rescale import Rescaling
from tomoseg.sampling import Sampling, Shape
from tomoseg.stages.context import RAW_LABELS, Context, Stage
from tomoseg.stores import Ledger, Volume

if TYPE_CHECKING:
    from tomoseg.nets.predict import Predictor

LARGEST_RESCALING = 2.5


def _settings(context: Context) -> Any:
    recipe = context.recipe
    return {
        "segment": recipe.segment.model_dump(mode="json", exclude={"model"}),
        "contrast": recipe.source.contrast,
        "scored": context.scored,
        "model": context.card.model_dump(mode="json", exclude={"training", "scores"}),
    }


def network_sampling(sampling: Sampling, card: ModelCard, *, rescale: str) -> Sampling:
    """Return the grid on which a network works: the tomogram's own, or one at its voxel size.

    Raises
    ------
    ModelError
        If the voxel sizes differ and rescaling is off, or they differ too much for it.
    """
    voxel = sampling.voxel_angstrom
    if card.accepts_voxel_size(voxel) and np.ptp(sampling.voxel_size_angstrom) <= 0.01 * voxel:
        return sampling
    wanted = card.voxel_size_angstrom
    fact = f"voxel size {voxel:.4g} Å, but model {card.name} was trained at {wanted:.4g} Å"
    if rescale == "never":
        raise ModelError(fact, remedy="Set segment.rescale: auto, or choose another model.")
    ratio = wanted / voxel
    if not 1 / LARGEST_RESCALING <= ratio <= LARGEST_RESCALING:
        remedy = (
            f"Set ingest.bin: {round(ratio)}."
            if ratio > 1
            else "Use a finer reconstruction or a model made for this voxel size."
        )
        raise ModelError(
            f"{fact}: more than {LARGEST_RESCALING} times apart is not rescaled", remedy=remedy
        )
    return sampling.resampled(wanted)


def check_fit(recipe: Recipe, card: ModelCard, source: Sampling) -> Sampling:
    """Return the network's grid for a tomogram, or say before any work why there is none.

    Raises
    ------
    ModelError
        If voxel size or contrast do not fit and the recipe does not allow to adapt them.
    """
    contrast_sign(recipe, card)
    stored = source.binned(recipe.ingest.bin)
    return network_sampling(stored, card, rescale=recipe.segment.rescale)


def contrast_sign(recipe: Recipe, card: ModelCard) -> float:
    """Return 1, or −1 where the tomogram must be inverted; raise ModelError if it may not be."""
    return intensity.contrast_sign(
        recipe.source.contrast, card.contrast, on_mismatch=recipe.segment.contrast_mismatch
    )


def halo_of(card: ModelCard, halo: Literal["default", "exact"] | int) -> Shape:
    """Return the voxels, zyx, that a network reads around a core."""
    if halo == "default":
        return card.halo
    if halo == "exact":
        return card.architecture.receptive_halo
    return card.architecture.halo(halo)


@dataclass(frozen=True)
class SegmentBlock:
    """Everything that a worker needs to segment one block; pickles small.

    ``network`` is the grid of the network, ``image_sampling`` that of the stored tomogram.
    """

    image: Volume
    image_sampling: Sampling
    network: Sampling
    normaliser: intensity.Normaliser
    model_folder: Path
    card: ModelCard
    halo: Shape
    labels: Volume
    score_maps: tuple[tuple[int, Volume], ...]
    device: str
    precision: Literal["auto", "float32", "bfloat16"]
    threads: int

    def __call__(self, block: Block) -> Mapping[str, Any]:
        """Write the labels and the score maps of a block."""
        labels, scores = self.predicted(block.write)
        self.labels.write(block.write, labels)
        for channel, volume in self.score_maps:
            assert scores is not None
            volume.write(block.write, np.rint(scores[channel] * 255).astype(np.uint8))
        counts = np.bincount(labels.ravel(), minlength=len(self.card.classes) + 1)
        return {"voxels": counts.tolist(), "events": self._predictor().events}

    def predicted(self, write: Box) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None]:
        """Return labels and, if kept or needed, scores (1 + classes, z, y, x) of a box."""
        predictor = self._predictor()
        back = Rescaling(self.network, self.image_sampling)
        is_rescaled = self.network != self.image_sampling
        core = back.needed(write) if is_rescaled else write
        # The halo counts from the cells that the core lies in, and a core may begin amid one.
        stride = self.card.stride
        read = core.aligned(stride).grow(self.halo).aligned(stride).clip(self.network.shape)
        volume = self._normalised(read)
        if not (is_rescaled or self.score_maps):
            return predictor.predict_labels(volume, core.within(read)), None
        scores = predictor.predict_scores(volume, core.within(read))
        if is_rescaled:
            scores = back.apply(scores, core, write)
        return _highest(scores), scores

    def _predictor(self) -> Predictor:
        """Return this process's network; torch is imported here, where a block is computed."""
        from tomoseg.nets.predict import cached_predictor

        return cached_predictor(
            self.model_folder, device=self.device, precision=self.precision, threads=self.threads
        )

    def _normalised(self, read: Box) -> NDArray[np.float32]:
        """Return a box of the network's grid, normalised."""
        there = Rescaling(self.image_sampling, self.network)
        is_rescaled = self.network != self.image_sampling
        wanted = there.needed(read) if is_rescaled else read
        box = wanted.grow(self.normaliser.halo(self.image_sampling)).clip(self.image_sampling.shape)
        voxels = self.normaliser.apply(self.image.read(box), self.image_sampling)
        voxels = voxels[wanted.within(box).slices]
        return there.apply(voxels, wanted, read) if is_rescaled else voxels


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
    recipe, card = context.recipe, context.card
    statistics = intensity.Statistics.from_dict(context.records.read_json("statistics.json"))
    steps = intensity.parse_steps(card.intensity)
    sampling = context.sampling
    return SegmentBlock(
        image=context.volume("0"),
        image_sampling=sampling,
        network=check_fit(recipe, card, context.header.sampling),
        normaliser=intensity.prepare(steps, statistics, flip=contrast_sign(recipe, card) < 0),
        model_folder=context.model_folder,
        card=card,
        halo=halo_of(card, recipe.segment.halo),
        labels=context.volume(RAW_LABELS),
        score_maps=tuple(
            (card.label(name), context.volume(_score_path(name))) for name in context.scored
        ),
        device=recipe.compute.device,
        precision=recipe.segment.precision,
        threads=recipe.compute.threads,
    )


def _run(context: Context, ledger: Ledger) -> dict[str, Any]:
    work = segment_block(context)
    grid = BlockGrid(context.sampling.shape, context.recipe.blocks.shape)
    names = context.run_pass(ledger, "predict", work, grid)
    voxels = np.zeros(len(context.card.classes) + 1, np.int64)
    events: set[str] = set()
    for name in names:
        receipt = ledger.read(name)
        voxels += receipt["voxels"]
        events |= set(receipt["events"])
    return {
        "voxels": voxels.tolist(),
        "notes": sorted(events),
        "network_voxel_angstrom": work.network.voxel_angstrom,
        "halo": list(work.halo),
    }


def evidence(context: Context, name: str) -> tuple[Volume, int | None]:
    """Return where a class is read from: its score map, or the label image and its label."""
    if name in context.scored:
        return context.volume(_score_path(name)), None
    return context.volume(context.label_path("semantic")), context.card.label(name)


def read_evidence(volume: Volume, label: int | None, box: Box) -> NDArray[np.float32]:
    """Return 0..1, float32, of a box of what :func:`evidence` named."""
    values = volume.read(box)
    if label is None:
        return values.astype(np.float32) / np.float32(255)
    return np.asarray(values == label, np.float32)


SEGMENT = Stage("segment", ("ingest",), _settings, _run, begin=_begin, arrays=_arrays)
