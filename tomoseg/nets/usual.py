"""What a training does where nothing was asked for: what suits the annotation, and why.

slices of one thickness with their plane  ─ thick annotation ─ several slices at once (fast)
                                          └ slices, tiles ──── one slice, seen with its neighbours
serial sections, micrographs ─────────────────────────────── one slice, alone or with the next ones

How far apart slices are is told by the voxels: headers of serial sections seldom say it, and a
recipe has one voxel size. Where a slice resembles the next one no more than voxels many steps
apart within it resemble each other, mixing slices teaches nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.core.blocks import Box
from tomoseg.core.sampling import as_shape
from tomoseg.nets.augmentation import AugmentationSettings
from tomoseg.nets.card import PRESETS, Architecture
from tomoseg.nets.settings import AnnotatedVolume, TrainingSettings, fitting_patch

# Annotation of so many slices in a row is for a network that predicts several at once.
_THICK = 4
# Slices that are further apart than so many voxels of their plane are sections.
_SECTION_STEPS = 4
_FARTHEST_STEP = 32
# A slice that is so like the next one (Pearson) still tells something of it.
_ALIKE = 0.5
_SLICES_COMPARED = 8
# A correlation over n voxels is uncertain by about 1/√n.
_LEAST_DIFFERENCE, _DEVIATIONS = 0.02, 3
# So many patches of 256² are minutes on one core.
_SLICE_STEPS = 500
_WIDTHS = (32, 64, 128, 256)
# Pixels across, from which on a particle is seen whole and fast where cells are of four by four.
_LARGE_PARTICLE = 64
_COARSE: Mapping[str, Any] = MappingProxyType(
    {
        "architecture": Architecture(slices_in=1, fold=4, widths=(32, 64, 96)),
        "patch": (1, 384, 384),
        "batch": 4,
        "steps": 600,
    }
)


TILE_PROTOCOL: Mapping[str, Any] = MappingProxyType(
    {
        "batch": 10,
        "steps": 900,
        "validation_steps": 900,
        "learning_rate": 2e-3,
        "foreground_fraction": 0.5,
        "maximum_class_weight": 1.0,
        "augmentation": AugmentationSettings(rotation_probability=0.9),
    }
)
"""For what was left out with ``architecture: tile``.

Few tiles, of which a tenth is positive: half of what is drawn is, varied as for every network and
turned nearly always, since large kernels have to see each angle. The Dice loss balances the rest,
so that nothing needs a threshold of its own. Judged is the end alone: on two positive tiles that
are kept apart an earlier network looks better by chance. It takes less than five minutes of one
core.
"""


@dataclass(frozen=True)
class Usual:
    """Settings for what was left out, and in words how they were chosen."""

    settings: Mapping[str, Any]
    reason: str


@dataclass(frozen=True)
class Likeness:
    """How slices of a tomogram resemble their neighbours.

    Parameters
    ----------
    neighbours
        Correlation of a slice with the next one, the median.
    steps
        Voxels within a slice that are as unlike as that; at most 32.
    """

    neighbours: float
    steps: int

    @property
    def are_sections(self) -> bool:
        """Whether slices are much further apart than the voxels in them."""
        return self.steps >= _SECTION_STEPS


def suit_settings(
    settings: TrainingSettings,
    volumes: Sequence[AnnotatedVolume],
    *,
    particle_angstrom: float = 0.0,
) -> tuple[TrainingSettings, str]:
    """Return the settings with what was left out as suits the annotation, and why; "" if nothing.

    Where a time is given, it ends the training, and not a usual number of steps.

    Parameters
    ----------
    settings, volumes
        What is given, and what is annotated.
    particle_angstrom
        Diameter of the largest particles that are annotated by points, Å.
    """
    given = set(settings.model_fields_set)
    if settings.maximum_minutes is not None:
        given.add("steps")
    if "architecture" not in given:
        usual = usual_network(volumes, particle_angstrom / settings.voxel_size_angstrom)
    elif settings.architecture.kind == "tile":
        usual = Usual(TILE_PROTOCOL, "a tile network learns as EMAN2's TomoSeg does")
    else:
        return settings, ""
    missing = {key: value for key, value in usual.settings.items() if key not in given}
    completed = {**settings.model_dump(exclude_unset=True), **missing}
    return settings.model_validate(completed), usual.reason


def usual_network(volumes: Sequence[AnnotatedVolume], particle_voxels: float = 0.0) -> Usual:
    """Return architecture, patch, batch and steps that suit what is annotated.

    Slices far apart teach a network that predicts one slice at a time several times faster than
    one that predicts eight, of which seven are not annotated; on tiles a patch is a tile.
    """
    boxes = [box.shape for volume in volumes for box in volume.annotated]
    thickness = float(np.median([shape[0] for shape in boxes]))
    slices, reason = _slices_in(volumes, thickness)
    if all(volume.shape[0] == 1 for volume in volumes) and particle_voxels >= _LARGE_PARTICLE:
        return Usual(_COARSE, f"{reason}, with particles of {particle_voxels:.0f} pixels")
    if slices is None:
        return Usual({"architecture": PRESETS["fast"]}, reason)
    architecture = Architecture(slices_in=slices, widths=_WIDTHS)
    size = float(np.median([max(shape[1:]) for shape in boxes]))
    edge = next(edge for edge in (64, 128, 256) if size <= edge or edge == 256)
    return Usual(
        {
            "architecture": architecture,
            "patch": fitting_patch((1, edge, edge), architecture),
            "batch": {64: 24, 128: 12, 256: 6}[edge],
            "steps": _SLICE_STEPS,
        },
        reason,
    )


def _slices_in(volumes: Sequence[AnnotatedVolume], thickness: float) -> tuple[int | None, str]:
    """Return the slices that a network sees to predict one, None for several at once; and why."""
    if all(volume.shape[0] == 1 for volume in volumes):
        return 1, "1 slice: these are micrographs"
    found = measure_likeness(volumes)
    told = f"a slice is as like the next one as voxels {found.steps} apart within it"
    if found.are_sections:
        if found.neighbours < _ALIKE:
            return 1, f"1 slice at a time: {told}, so these are serial sections"
        return 3, f"1 slice seen with its 2 neighbours: {told}"
    if thickness < _THICK:
        return 5, f"1 slice seen with its 4 neighbours: {thickness:g} annotated in a row"
    return None, f"8 slices at once: {thickness:g} are annotated in a row"


def measure_likeness(volumes: Sequence[AnnotatedVolume]) -> Likeness:
    """Measure how slices resemble their neighbours, on a few that are annotated.

    Noise that differs from voxel to voxel makes voxels of one slice no more alike than slices:
    then the slices count as near.
    """
    pairs = [pair for volume in volumes for pair in _neighbours(volume)]
    chosen = np.linspace(0, len(pairs) - 1, min(len(pairs), _SLICES_COMPARED)).round().astype(int)
    across, within = [], []
    for number in chosen:
        volume, box = pairs[number]
        one, next_one = volume.image(box)
        across.append(_correlation(one, next_one))
        within.append([_shifted(one, step) for step in range(1, _FARTHEST_STEP + 1)])
    neighbours = float(np.median(across))
    voxels = min(np.prod(volume.shape[1:]) for volume, _ in pairs)
    uncertain = max(_LEAST_DIFFERENCE, _DEVIATIONS / np.sqrt(voxels))
    alike = np.median(within, axis=0) > neighbours + uncertain
    return Likeness(neighbours, 1 + int(np.argmin(np.append(alike, False))))


def _neighbours(volume: AnnotatedVolume) -> list[tuple[AnnotatedVolume, Box]]:
    """Return boxes of two whole slices of which one is annotated."""
    depth, *plane = volume.shape
    planes = {z for box in volume.annotated for z in range(box.begin[0], box.end[0])}
    firsts = sorted({min(z, depth - 2) for z in planes}) if depth > 1 else []
    return [(volume, Box(as_shape((z, 0, 0)), as_shape((z + 2, *plane)))) for z in firsts]


def _shifted(plane: NDArray[np.float32], step: int) -> float:
    """Return how alike voxels are that lie ``step`` apart along y or x."""
    if step >= min(plane.shape):
        return 0.0
    down = _correlation(plane[step:], plane[:-step])
    return (down + _correlation(plane[:, step:], plane[:, :-step])) / 2


def _correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    one, other = one - one.mean(), other - other.mean()
    norm = float(np.sqrt((one * one).sum(dtype=np.float64) * (other * other).sum(dtype=np.float64)))
    return float((one * other).sum(dtype=np.float64)) / norm if norm else 0.0
