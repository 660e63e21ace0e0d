"""Annotations: every way to annotate becomes sparse labels on a tomogram's grid.

painted   a label volume beside each tomogram, or parts of one
tiles     squares of single slices: some with masks, some with nothing in them
points    particle centres, drawn as balls with a rim about which nothing is said

Annotations of one tomogram share it; each is a volume of its own in the training.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from tomoseg.core.errors import RequestError
from tomoseg.core.sampling import Sampling
from tomoseg.io.discovery import discover
from tomoseg.io.volumes.sources import Found, open_source
from tomoseg.nets.settings import TrainingSettings
from tomoseg.training.annotations.painted import may_be_masks, painted_tomograms, painted_volumes
from tomoseg.training.annotations.points import particle_radii, point_volumes
from tomoseg.training.annotations.settings import (
    Annotation,
    PaintedAnnotation,
    PointsAnnotation,
    TilesAnnotation,
)
from tomoseg.training.annotations.tiles import tile_volume
from tomoseg.training.annotations.tomogram import SeenTomograms
from tomoseg.training.annotations.volume import LabelledTomogram
from tomoseg.training.annotations.voxels import Memory

__all__ = [
    "Annotation",
    "LabelledTomogram",
    "PaintedAnnotation",
    "PointsAnnotation",
    "TilesAnnotation",
    "annotated_volumes",
    "first_sampling",
    "list_tomograms",
    "particle_radii",
]


def annotated_volumes(
    annotations: Sequence[Annotation], settings: TrainingSettings, *, memory_gib: float
) -> list[LabelledTomogram]:
    """Open what was annotated; a tomogram that several annotations share is opened once.

    Parameters
    ----------
    annotations
        Complete, as a :class:`tomoseg.training.recipe.TrainingRecipe` holds them.
    settings
        Of the training: classes, voxel size, contrast and intensity steps of the network.
    memory_gib
        Normalised tomograms and labels are kept in memory up to this; others are read by boxes.

    Raises
    ------
    RequestError, FormatError, VoxelSizeError
        If a tomogram or an annotation is missing, they do not fit each other, or all that could
        have a class are masks of 0 and 255.
    """
    tomograms = SeenTomograms(settings, Memory(memory_gib))
    opened = [(one, list(_volumes(one, tomograms))) for one in annotations]
    _check_masks(opened)
    return _told_apart(volume for _, volumes in opened for volume in volumes)


def _check_masks(opened: Sequence[tuple[Annotation, Sequence[LabelledTomogram]]]) -> None:
    """Refuse masks in which 255, not annotated, must be meant as a class: no other has it."""
    masks = [
        one
        for one, volumes in opened
        if isinstance(one, PaintedAnnotation) and may_be_masks(one, volumes)
    ]
    known = {name for one, _ in opened if one not in masks for name in one.classes}
    for one in masks:
        if missing := [name for name in one.classes if name not in known]:
            raise RequestError(
                f"{one.labels} holds 0 and 255 alone, and 255 is 'not annotated': nothing is "
                f"{' or '.join(missing)}",
                remedy=f"If 255 is the class, say values: {{255: {missing[0]}}} in the annotation; "
                "if only background was painted, say values: {255: not_annotated}.",
            )


def first_sampling(annotation: Annotation) -> Sampling:
    """Return the grid of an annotation's first tomogram; only its header is read."""
    about = annotation.source
    url, override = _found(annotation)[0].url, about.voxel_size_angstrom
    with open_source(url, voxel_size_angstrom=override, axes=about.axes) as source:
        return source.header.sampling


def list_tomograms(annotation: Annotation) -> Annotation:
    """Return an annotation with the tomograms in its folders named one by one.

    What is put into a folder later then belongs to later trainings alone.
    """
    if isinstance(annotation, TilesAnnotation):
        return annotation
    places = tuple(found.url.removeprefix("file://") for found in _found(annotation))
    return annotation.model_copy(update={"tomograms": places})


def _found(annotation: Annotation) -> list[Found]:
    if isinstance(annotation, PaintedAnnotation):
        return painted_tomograms(annotation)
    return discover(annotation.tomograms)


def _volumes(annotation: Annotation, tomograms: SeenTomograms) -> Iterator[LabelledTomogram]:
    if isinstance(annotation, PaintedAnnotation):
        yield from painted_volumes(annotation, tomograms)
    elif isinstance(annotation, TilesAnnotation):
        yield tile_volume(annotation, tomograms)
    else:
        yield from point_volumes(annotation, tomograms)


def _told_apart(volumes: Iterable[LabelledTomogram]) -> list[LabelledTomogram]:
    """Append a number to a name that occurred before: of a second painting, say."""
    seen: Counter[str] = Counter()
    named = []
    for volume in volumes:
        seen[volume.name] += 1
        number = seen[volume.name]
        named.append(volume if number == 1 else replace(volume, name=f"{volume.name} ({number})"))
    return named
