"""The page of a training, from the folder that it left and the volumes that it was given.

Torch comes with this module: import it where a training ends, not where a program starts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.core.blocks import BlockGrid, Box
from tomoseg.core.classes import NOT_ANNOTATED
from tomoseg.core.sampling import as_shape
from tomoseg.nets.card import ModelCard, load_card
from tomoseg.nets.doubts import forgotten_classes
from tomoseg.nets.options import PredictionOptions
from tomoseg.nets.predict import Predictor
from tomoseg.nets.settings import AnnotatedVolume, TrainingSettings
from tomoseg.nets.split import Region, split_regions
from tomoseg.nets.train import LOG_NAME, thread_count
from tomoseg.report.examples import EDGE, Example
from tomoseg.report.progress import read_progress
from tomoseg.report.summary import ClassSummary
from tomoseg.report.training import TrainingSummary, training_page

PAGE_NAME = "training.html"

# A 3D network must see a halo on every side of a single slice, so that its crops are smaller.
_EDGES = {2: EDGE, 3: 256}
_APART, _TRAINED_ON = 24, 8
_FEWEST_CROPS = 4
_VOXELS_READ = 100_000_000
"""Voxels that the network may see for the page: seconds to a minute or two on one core."""
_ANNOTATIONS_READ = 200
_PAINTED_SHARE = 0.75
_SHOWN_ELSEWHERE = ("volumes", "voxels_per_label", "steps", "minutes")


@dataclass(frozen=True, eq=False)
class _Crop:
    """A part of one slice with its annotation, uint8, ``box.shape``."""

    volume: AnnotatedVolume
    box: Box
    truth: NDArray[np.uint8]

    @property
    def is_painted(self) -> bool:
        """Whether a class is annotated here."""
        return bool(((self.truth > 0) & (self.truth != NOT_ANNOTATED)).any())


def write_training_report(
    output: Path, volumes: Sequence[AnnotatedVolume], settings: TrainingSettings
) -> Path:
    """Write ``training.html`` beside a trained model; return its path.

    Parameters
    ----------
    output
        Folder that :func:`tomoseg.nets.train.train` left.
    volumes, settings
        What it was given.

    Raises
    ------
    ModelError
        If the folder holds no sound model.
    RequestError
        If the volumes do not make a training.
    """
    card = load_card(output)
    training, validation = split_regions(volumes, settings)
    predictor = Predictor.open(
        output, PredictionOptions(settings.device, threads=thread_count(settings))
    )
    rng = np.random.default_rng(settings.seed)
    apart = _chosen(_annotated_crops(validation, card, rng), _within_reach(card, _APART))
    seen = _chosen(_annotated_crops(training, card, rng), _within_reach(card, _TRAINED_ON))
    summary = TrainingSummary(
        name=card.name,
        version=card.version,
        mean_f1=card.scores["mean_f1"],
        classes=_classes(card),
        background_voxels=card.training["voxels_per_label"][0],
        confusion=np.array(card.scores["confusion"], dtype=np.int64),
        training_volumes=tuple(region.volume.name for region in training),
        validation_volumes=tuple(region.volume.name for region in validation),
        kept_step=card.training["steps"],
        progress=read_progress((output / LOG_NAME).read_text()),
        calibration=card.calibration,
        provenance=_provenance(card),
        notes=tuple(note for note in (*card.doubts, forgotten_classes(settings)) if note),
        validation_examples=tuple(_predicted(crop, predictor) for crop in apart),
        training_examples=tuple(_predicted(crop, predictor) for crop in seen),
    )
    page = output / PAGE_NAME
    page.write_text(training_page(summary), encoding="utf-8")
    return page


def _classes(card: ModelCard) -> tuple[ClassSummary, ...]:
    voxels = card.training["voxels_per_label"][1:]
    return tuple(
        ClassSummary(name, colour, voxels=count)
        for name, colour, count in zip(card.classes, card.colours, voxels, strict=True)
    )


def _provenance(card: ModelCard) -> tuple[tuple[str, Any], ...]:
    facts = {
        "architecture": card.architecture.model_dump(mode="json"),
        "voxel size, Å": card.voxel_size_angstrom,
        **{name: value for name, value in card.training.items() if name not in _SHOWN_ELSEWHERE},
    }
    if "halo_costs" in card.scores:
        facts["share of voxels that a smaller halo changes"] = card.scores["halo_costs"]
    return tuple(facts.items())


def _within_reach(card: ModelCard, most: int) -> int:
    """Return how many crops the network can be shown without a long wait."""
    edge = _EDGES[card.architecture.dimensions]
    read = _read_box(Box((0, 0, 0), (1, edge, edge)), card)
    return min(most, max(_FEWEST_CROPS, _VOXELS_READ // read.size))


def _read_box(box: Box, card: ModelCard) -> Box:
    """Return what the network reads for a box, before it is clipped at the volume's border.

    A halo counts from whole cells of the network: a single slice lies in a slab of several.
    """
    return box.aligned(card.stride).grow(card.halo).aligned(card.stride)


def _chosen(crops: Iterable[_Crop], number: int) -> list[_Crop]:
    """Choose the first crops: three of four with a class, if there are so many."""
    few = number - round(_PAINTED_SHARE * number)
    painted: list[_Crop] = []
    empty: list[_Crop] = []
    for crop in crops:
        (painted if crop.is_painted else empty).append(crop)
        if len(painted) >= number and len(empty) >= few:
            break
    chosen = painted[: number - min(len(empty), few)]
    return chosen + empty[: number - len(chosen)]


def _annotated_crops(
    regions: Sequence[Region], card: ModelCard, rng: np.random.Generator
) -> Iterator[_Crop]:
    """Read annotations in random order and yield those where somebody looked."""
    edge = _EDGES[card.architecture.dimensions]
    boxes = [(region.volume, box) for region in regions for box in _windows(region, edge)]
    for number in rng.permutation(len(boxes))[:_ANNOTATIONS_READ]:
        volume, box = boxes[number]
        crop = _Crop(volume, box, volume.labels(box))
        if (crop.truth != NOT_ANNOTATED).any():
            yield crop


def _windows(region: Region, edge: int) -> Iterator[Box]:
    """Cut the annotated boxes of a region into about equal parts of slices, ``edge`` at most."""
    for part in region.parts:
        rows, columns = (-(-size // -(-size // edge)) for size in part.shape[1:])
        for block in BlockGrid(part.shape, (1, rows, columns)):
            yield block.write.shift(part.begin)


def _predicted(crop: _Crop, predictor: Predictor) -> Example:
    """Predict a crop as a block of a tomogram is predicted."""
    volume, box = crop.volume, crop.box
    read = _read_box(box, predictor.card).clip(as_shape(volume.shape))
    image = volume.image(read)
    inside = box.within(read)
    return Example(
        volume=volume.name,
        tomogram=volume.tomogram,
        begin=box.begin,
        image=image[inside.slices][0],
        truth=crop.truth[0],
        found=predictor.predict_labels(image, inside)[0],
        judged=volume.judged,
    )
