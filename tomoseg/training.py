"""Training from a recipe: annotated tomograms on disk in, a model's folder out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, field_validator

from tomoseg import intensity
from tomoseg.blocks import BlockGrid, Box
from tomoseg.errors import RequestError
from tomoseg.nets.card import ModelCard
from tomoseg.nets.settings import TrainingProgress, TrainingSettings
from tomoseg.recipe import Section, SourceSection, absolute, explained, read_yaml
from tomoseg.sampling import Shape
from tomoseg.sources import Found, as_labels, companion_url, discover, open_source


class TrainingRecipe(Section):
    """A whole training.

    Parameters
    ----------
    input
        Files or folders of annotated tomograms.
    labels
        Where a tomogram's annotation is, ``{folder}`` and ``{name}`` standing for those of the
        tomogram: 0 background, 1.. the classes in order, 255 not annotated.
    output
        Folder of the model.
    source
        As in a run's recipe.
    network
        See :class:`tomoseg.nets.settings.TrainingSettings`; ``intensity`` left out stands for a
        percentile clip and a z-score.
    """

    input: tuple[str, ...]
    labels: str = "{folder}/truth/{name}__labels.mrc"
    output: str
    source: SourceSection = Field(default_factory=SourceSection)
    network: TrainingSettings

    @field_validator("input", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("output")
    @classmethod
    def _a_folder(cls, value: str) -> str:
        if "://" in value:
            raise ValueError("a model is written to a folder on this machine")
        return value

    @field_validator("network", mode="before")
    @classmethod
    def _with_intensity(cls, value: Any) -> Any:
        if isinstance(value, dict) and "intensity" not in value:
            return {**value, "intensity": intensity.as_dicts(intensity.DEFAULT_STEPS)}
        return value


def load_training_recipe(path: Path) -> TrainingRecipe:
    """Read a training's recipe; its paths are relative to the file.

    Raises
    ------
    RequestError
        For a missing file, bad YAML, unknown keys and values out of range, each named.
    """
    try:
        recipe = TrainingRecipe.model_validate(read_yaml(path))
    except ValidationError as error:
        raise explained(error) from error
    base = path.resolve().parent
    start_from = recipe.network.start_from
    return recipe.model_copy(
        update={
            "input": tuple(absolute(place, base) for place in recipe.input),
            "labels": absolute(recipe.labels, base),
            "output": absolute(recipe.output, base),
            "network": recipe.network.model_copy(
                update={"start_from": start_from and base / start_from.expanduser()}
            ),
        }
    )


def train_from(
    recipe: TrainingRecipe, *, report: Callable[[TrainingProgress], None] | None = None
) -> ModelCard:
    """Train, or go on with a training that was cut off.

    Raises
    ------
    RequestError, FormatError
        If a tomogram or its annotation is missing, or they do not fit each other.
    """
    from tomoseg.nets.train import train

    steps = intensity.parse_steps(recipe.network.intensity)
    volumes = [_annotated(found, recipe, steps) for found in discover(recipe.input)]
    return train(volumes, recipe.network, output=Path(recipe.output), report=report)


@dataclass(frozen=True)
class AnnotatedFile:
    """A tomogram and its annotation as files, read by boxes."""

    name: str
    url: str
    labels_url: str
    shape: Shape
    normaliser: intensity.Normaliser
    voxel_size_angstrom: float | None

    def image(self, box: Box) -> NDArray[np.float32]:
        """Return a normalised box, float32."""
        with open_source(self.url, voxel_size_angstrom=self.voxel_size_angstrom) as source:
            sampling = source.header.sampling
            read = box.grow(self.normaliser.halo(sampling)).clip(self.shape)
            voxels = self.normaliser.apply(source.read(read), sampling)
        return np.ascontiguousarray(voxels[box.within(read).slices])

    def labels(self, box: Box) -> NDArray[np.uint8]:
        """Return a box of labels, uint8."""
        with open_source(self.labels_url, voxel_size_angstrom=1.5) as source:
            return as_labels(source.read(box))


def _annotated(
    found: Found, recipe: TrainingRecipe, steps: Sequence[intensity.Step]
) -> AnnotatedFile:
    labels_url = companion_url(recipe.labels, found)
    override = recipe.source.voxel_size_angstrom
    with open_source(found.url, voxel_size_angstrom=override) as source:
        header = source.header
        moments = intensity.merge_moments(
            intensity.moments(source.read(block.write)) for block in _strips(header.sampling.shape)
        )
        bins = intensity.Bins.for_tomogram(moments, header.dtype)
        counts = sum(
            intensity.histogram(source.read(block.write), bins)
            for block in _strips(header.sampling.shape)
        )
    with open_source(labels_url, voxel_size_angstrom=1.5) as annotation:
        shape = annotation.header.sampling.shape
    if shape != header.sampling.shape:
        raise RequestError(
            f"the annotation {labels_url} of shape {shape} does not fit the tomogram of "
            f"{header.sampling.shape}",
            tomogram=found.name,
        )
    if not np.isclose(
        header.sampling.voxel_angstrom, recipe.network.voxel_size_angstrom, rtol=0.01
    ):
        raise RequestError(
            f"voxel size {header.sampling.voxel_angstrom:.4g} Å is not the network's "
            f"{recipe.network.voxel_size_angstrom:.4g} Å",
            remedy="Train on tomograms of one voxel size, and name it in network."
            "voxel_size_angstrom.",
            tomogram=found.name,
        )
    sign = intensity.contrast_sign(
        recipe.source.contrast, recipe.network.contrast, on_mismatch="flip"
    )
    statistics = intensity.Statistics.of(moments, bins, np.asarray(counts))
    normaliser = intensity.prepare(steps, statistics, flip=sign < 0)
    return AnnotatedFile(found.name, found.url, labels_url, shape, normaliser, override)


def _strips(shape: Shape) -> BlockGrid:
    """Return slabs of whole slices, a few at a time."""
    return BlockGrid(shape, (32, shape[1], shape[2]))
