"""What a training needs to be told. No torch in here, so that a recipe is checked at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tomoseg.blocks import Box
from tomoseg.nets.augmentation import AugmentationSettings, Fraction
from tomoseg.nets.card import (
    DEFAULT_COLOURS,
    Architecture,
    ClassName,
    Colour,
    ModelCard,
    Step,
    check_classes,
)
from tomoseg.sampling import Shape

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class AnnotatedVolume(Protocol):
    """A tomogram with painted labels; both methods may be called from several threads."""

    @property
    def name(self) -> str:
        """Name, unique in a training."""

    @property
    def shape(self) -> Shape:
        """Voxels zyx."""

    def image(self, box: Box) -> NDArray[np.float32]:
        """Return float32, ``box.shape``, normalised, of a box inside the volume."""

    def labels(self, box: Box) -> NDArray[np.uint8]:
        """Return uint8, ``box.shape``: 0 background, i + 1 class i, 255 not annotated."""


class TrainingSettings(BaseModel):
    """All that decides a training, besides the annotated volumes.

    Parameters
    ----------
    name, version
        Of the model that comes out.
    architecture, classes, colours, voxel_size_angstrom, voxel_size_tolerance, contrast, intensity
        As in :class:`~tomoseg.nets.card.ModelCard`. Colours may be left out for the classes of
        ``DEFAULT_COLOURS``.
    patch
        Voxels zyx that one sample predicts. A slab network predicts ``slices_out`` slices; along
        the other axes a multiple of the stride.
    batch
        Patches in a step.
    steps, maximum_minutes
        The training ends with whichever comes first; at least one is needed.
    learning_rate, weight_decay
        Peak of the one-cycle schedule, and decay, of AdamW.
    ema_decay
        Decay of the running mean of the weights, which is what is validated and kept.
    foreground_fraction
        Share of patches placed on a voxel of a class, each class as often as the others.
    maximum_class_weight
        Bound of a class's weight in the cross-entropy.
    augmentation
        See :class:`AugmentationSettings`.
    halo
        Halo of the card along the convolved axes, voxels; None is the exact one. What smaller
        ones cost is measured at the end and stands in the card.
    validation
        Names of volumes kept apart. Without one, the last ``validation_fraction`` of every
        volume's slices is kept apart, ``validation_gap`` slices from what is trained on.
    validation_minutes, validation_voxels
        Time between validations, and voxels that one looks at, at most.
    checkpoint_minutes
        Time between states from which a killed training goes on.
    start_from
        Folder of a model whose weights are the start; its architecture must be the same. With
        other classes the last layer starts anew.
    seed, device, precision, threads, readers
        ``precision`` "auto" takes bfloat16 where the hardware computes in it; ``readers`` is the
        number of threads that prepare patches.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(min_length=1)]
    version: str = "1"
    architecture: Architecture = Architecture(slices_in=16, slices_out=8, widths=(48, 96, 192, 384))
    classes: tuple[ClassName, ...] = tuple(DEFAULT_COLOURS)
    colours: tuple[Colour, ...] = ()
    voxel_size_angstrom: Positive
    voxel_size_tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.1
    contrast: Literal["dark", "bright"] = "dark"
    intensity: tuple[Step, ...] = ()
    patch: Shape = (8, 128, 128)
    batch: Count = 4
    steps: Count | None = None
    maximum_minutes: Positive | None = None
    learning_rate: Positive = 3e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-3
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.998
    foreground_fraction: Fraction = 0.75
    maximum_class_weight: Annotated[float, Field(ge=1)] = 4.0
    augmentation: AugmentationSettings = AugmentationSettings()
    halo: Annotated[int, Field(ge=0)] | None = None
    validation: tuple[str, ...] = ()
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    validation_gap: Annotated[int, Field(ge=0)] = 8
    validation_minutes: Positive = 3.0
    validation_voxels: Count = 32_000_000
    checkpoint_minutes: Positive = 2.0
    start_from: Path | None = None
    seed: Annotated[int, Field(ge=0, lt=1 << 31)] = 0
    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    threads: Count = 1
    readers: Count = 1

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.steps is None and self.maximum_minutes is None:
            raise ValueError("give steps or maximum_minutes: a training must end")
        check_classes(self.classes, self.class_colours)
        if self.fitting_patch != self.patch:
            raise ValueError(
                f"patch {self.patch} does not fit the network's stride "
                f"{self.architecture.stride}; {self.fitting_patch} would"
            )
        return self

    @property
    def fitting_patch(self) -> Shape:
        """The nearest patch, not smaller, that the architecture can predict at once."""
        z, y, x = (
            max(1, -(-size // step)) * step
            for size, step in zip(self.patch, self.architecture.stride, strict=True)
        )
        return (self.architecture.stride[0] if self.architecture.kind == "slab" else z, y, x)

    @property
    def class_colours(self) -> tuple[str, ...]:
        """Colours given, or the default ones of the classes that have one."""
        defaults = (DEFAULT_COLOURS[name] for name in self.classes if name in DEFAULT_COLOURS)
        return self.colours or tuple(defaults)

    def card(self, training: Mapping[str, Any], scores: Mapping[str, Any]) -> ModelCard:
        """Return the card of the network that this training makes."""
        exact = self.architecture.receptive_halo
        return ModelCard(
            name=self.name,
            version=self.version,
            architecture=self.architecture,
            classes=self.classes,
            colours=self.class_colours,
            voxel_size_angstrom=self.voxel_size_angstrom,
            voxel_size_tolerance=self.voxel_size_tolerance,
            contrast=self.contrast,
            intensity=self.intensity,
            halo=exact if self.halo is None else self.architecture.halo(self.halo),
            stride=self.architecture.stride,
            training=dict(training),
            scores=dict(scores),
        )


@dataclass(frozen=True)
class TrainingProgress:
    """Where a training stands.

    Parameters
    ----------
    step
        Steps done.
    fraction
        Share of the budget that is used, 0..1.
    minutes
        Time spent, earlier runs of the same training included.
    loss
        Mean since the last report, None if there was no step.
    learning_rate
        At the last step.
    f1
        Per class, of this validation; empty if there was none, None where neither annotation
        nor prediction has the class.
    mean_f1
        Over the classes that occur.
    is_best
        Whether this validation's network was kept.
    """

    step: int
    fraction: float
    minutes: float
    loss: float | None
    learning_rate: float
    f1: Mapping[str, float | None]
    mean_f1: float | None = None
    is_best: bool = False
