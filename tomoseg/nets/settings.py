"""What a training needs to be told. No torch in here, so that a recipe is checked at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tomoseg.core.blocks import Box
from tomoseg.core.bounds import CLOSED, Cores, Count, Edge, Halo, Minutes, VoxelSize
from tomoseg.core.classes import COLOURS, FEATURES
from tomoseg.core.sampling import Shape, as_shape
from tomoseg.nets.augmentation import AugmentationSettings, Fraction
from tomoseg.nets.card import (
    PRESETS,
    Architecture,
    ArchitectureChoice,
    ClassName,
    Colour,
    ModelCard,
    Step,
    check_classes,
)

Weight = Annotated[float, Field(ge=0, le=1000)]
Steps = Annotated[int, Field(ge=1, le=1_000_000_000)]

_HALO_3D = 32


class AnnotatedVolume(Protocol):
    """A tomogram with labels here and there; methods may be called from several threads.

    All volumes of one tomogram have the same image.
    """

    @property
    def name(self) -> str:
        """Name, unique in a training."""

    @property
    def tomogram(self) -> str:
        """Name of the tomogram that it annotates: validation never splits what is one."""

    @property
    def shape(self) -> Shape:
        """Voxels zyx of the tomogram, as the network sees it."""

    @property
    def judged(self) -> tuple[int, ...]:
        """Labels that were looked for; a 0 says that none of these is there."""

    @property
    def annotated(self) -> tuple[Box, ...]:
        """Boxes outside which every label is 255; at least one; they may overlap."""

    @property
    def weight(self) -> float:
        """How often its places are drawn, relative to others."""

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
        As in :class:`~tomoseg.nets.card.ModelCard`; the architecture by its numbers or by the
        name of a preset. Classes without a colour get one.
    patch
        Voxels zyx that one sample predicts. A 2D network predicts ``slices_out`` slices; along
        the other axes a multiple of the stride. None takes a size that suits the architecture.
    batch
        Patches in a step (of each process, where there are several).
    steps, maximum_minutes
        The training ends with whichever comes first; at least one is needed. With steps alone a
        seed gives the same network again.
    patience
        Validations without a better mean F1 after which the training ends early; None goes on.
    loss
        ``"dice_entropy"``, or ``"log_squares"``, with which TomoSeg trains its tile networks.
    boundary_weight
        How much more than others voxels beside another label weigh in the cross-entropy.
    schedule
        Of the learning rate: ``"one_cycle"`` rises first, ``"cosine"`` only falls.
    learning_rate, weight_decay
        Peak of the schedule, and decay, of AdamW.
    ema_decay
        Decay of the running mean of the weights, which is what is validated and kept.
    foreground_fraction
        Share of patches placed on a voxel of a class, each class as often as the others.
    maximum_class_weight
        Bound of a class's weight in the cross-entropy.
    augmentation
        See :class:`AugmentationSettings`.
    halo
        Halo of the card along the convolved axes, voxels; None is the exact one, in 3D at most
        32. What smaller ones cost is measured at the end and stands in the card.
    validation
        Names of tomograms kept apart. Without one, some are chosen; a single tomogram is cut.
    validation_fraction
        Share of the annotation that is kept apart, about.
    validation_gap
        Planes of a cut tomogram between what is trained on and what is kept apart; None is one
        halo of the network, or as much of it as the annotation has room for.
    validation_steps, validation_voxels
        Steps between validations, and voxels that one looks at, at most. None makes ten of them.
    checkpoint_minutes
        Time between states from which a killed training goes on.
    init_from
        Folder of a model whose weights are the start; its architecture must be the same, but that
        a slab network may give fewer slices: the middle ones of the first. With other classes the
        last layer starts anew.
    seed, device, precision, threads, readers
        ``precision`` "auto" takes bfloat16 where the hardware computes in it; ``threads`` "auto"
        takes all cores; ``readers`` is the number of threads that prepare patches.
    """

    model_config = ConfigDict(**CLOSED, frozen=True)

    name: Annotated[str, Field(min_length=1)]
    version: str = "1"
    architecture: ArchitectureChoice = PRESETS["fast"]
    classes: tuple[ClassName, ...] = tuple(FEATURES)
    colours: tuple[Colour, ...] = ()
    voxel_size_angstrom: VoxelSize
    voxel_size_tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.1
    contrast: Literal["dark", "bright"] = "dark"
    intensity: tuple[Step, ...] = ()
    patch: tuple[Edge, Edge, Edge] | None = None
    batch: Edge = 4
    steps: Steps | None = 3000
    maximum_minutes: Minutes | None = None
    patience: Count | None = None
    loss: Literal["dice_entropy", "log_squares"] = "dice_entropy"
    boundary_weight: Weight = 0.0
    schedule: Literal["one_cycle", "cosine"] = "one_cycle"
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 3e-3
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 1e-3
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.998
    foreground_fraction: Fraction = 0.75
    maximum_class_weight: Annotated[float, Field(ge=1, le=1000)] = 4.0
    augmentation: AugmentationSettings = AugmentationSettings()
    halo: Halo | None = None
    validation: tuple[str, ...] = ()
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    validation_gap: Annotated[int, Field(ge=0, le=100_000)] | None = None
    validation_steps: Steps | None = None
    validation_voxels: Annotated[int, Field(ge=1, le=10**12)] = 32_000_000
    checkpoint_minutes: Minutes = 2.0
    init_from: Path | None = None
    seed: Annotated[int, Field(ge=0, lt=1 << 31)] = 0
    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    threads: Cores | Literal["auto"] = "auto"
    readers: Cores = 1

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.steps is None and self.maximum_minutes is None:
            raise ValueError("give steps or maximum_minutes: a training must end")
        if self.loss == "log_squares" and self.architecture.kind != "tile":
            raise ValueError("loss log_squares is for networks of kind tile")
        check_classes(self.classes, self.class_colours)
        if self.patch is not None and fitting_patch(self.patch, self.architecture) != self.patch:
            raise ValueError(
                f"patch {self.patch} does not fit the network's stride "
                f"{self.architecture.stride}; {fitting_patch(self.patch, self.architecture)} would"
            )
        return self

    @property
    def patch_shape(self) -> Shape:
        """The patch that is given, or one that suits the architecture."""
        if self.patch is not None:
            return self.patch
        usual = {"slab": (1, 128, 128), "volume": (48, 96, 96), "tile": (1, 64, 64)}
        patch = usual[self.architecture.kind]
        if self.architecture.kind == "slab" and self.architecture.slices_out == 1:
            patch = (1, 256, 256)
        return fitting_patch(patch, self.architecture)

    @property
    def network_halo(self) -> Shape:
        """Voxels zyx that are read around a core in validation and, by the card, later."""
        exact = self.architecture.receptive_halo
        if self.halo is not None:
            return self.architecture.halo(self.halo)
        if self.architecture.dimensions == 3:
            return as_shape(min(reach, _HALO_3D) for reach in exact)
        return exact

    @property
    def class_colours(self) -> tuple[str, ...]:
        """Colours given, or the default ones, and others for classes without one."""
        if self.colours:
            return self.colours
        taken = {COLOURS[name] for name in self.classes if name in COLOURS}
        free = cycle(c for c in COLOURS.values() if c not in taken or len(taken) == len(COLOURS))
        return tuple(COLOURS.get(name) or next(free) for name in self.classes)

    def card(self, training: Mapping[str, Any], scores: Mapping[str, Any]) -> ModelCard:
        """Return the card of the network that this training makes."""
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
            halo=self.network_halo,
            stride=self.architecture.stride,
            training=dict(training),
            scores=dict(scores),
        )


def fitting_patch(patch: Shape, architecture: Architecture) -> Shape:
    """Return the nearest patch, not smaller, that the architecture can predict at once."""
    z, y, x = (
        max(1, -(-size // step)) * step
        for size, step in zip(patch, architecture.stride, strict=True)
    )
    return (architecture.stride[0] if architecture.dimensions == 2 else z, y, x)


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
    seconds_left
        Of the budget, at the pace so far; None before the first step.
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
    seconds_left: float | None
    f1: Mapping[str, float | None]
    mean_f1: float | None = None
    is_best: bool = False
