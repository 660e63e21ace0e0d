"""Painted slices and sub-volumes: a label volume beside each tomogram."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tomoseg.core.blocks import Box
from tomoseg.core.classes import NOT_ANNOTATED
from tomoseg.core.errors import RequestError, TomosegError
from tomoseg.core.sampling import Shape, as_shape
from tomoseg.io.discovery import discover
from tomoseg.io.volumes.legend import Legend
from tomoseg.io.volumes.sources import Found, companion_url
from tomoseg.io.volumes.turns import Axes
from tomoseg.training.annotations.settings import PaintedAnnotation
from tomoseg.training.annotations.tomogram import SeenTomogram, SeenTomograms
from tomoseg.training.annotations.volume import LabelledTomogram, judged_labels, open_labels
from tomoseg.training.annotations.voxels import Voxels, strips


def painted_volumes(
    annotation: PaintedAnnotation, tomograms: SeenTomograms
) -> Iterator[LabelledTomogram]:
    """Yield the annotated tomograms, their labels checked.

    Raises
    ------
    RequestError, FormatError
        If a label volume is missing, has another shape, holds a value that stands for nothing, or
        annotates nothing; the tomogram is named.
    """
    for found in painted_tomograms(annotation):
        tomogram = tomograms.open(found, annotation.source)
        try:
            yield _painted(annotation, tomogram, tomograms)
        except TomosegError as error:
            raise error.within(tomogram=found.name) from error


def may_be_masks(annotation: PaintedAnnotation, volumes: Sequence[LabelledTomogram]) -> bool:
    """Tell whether label volumes hold 0 and 255 alone, and nobody said what 255 is."""
    if NOT_ANNOTATED in (annotation.values or {}) or annotation.threshold is not None:
        return False
    seen: set[int] = set()
    for block, volume in ((b, v) for v in volumes for b in strips(v.shape)):
        labels = volume.labels(block.write)
        # Other slices are not annotated whatever the file says.
        used = labels[(labels != NOT_ANNOTATED).any(axis=(1, 2))]
        seen |= set(np.unique(used).tolist())
        if seen - {0, NOT_ANNOTATED}:
            return False
    return NOT_ANNOTATED in seen


def painted_tomograms(annotation: PaintedAnnotation) -> list[Found]:
    """Return the tomograms of an annotation, without labels that lie in the same folder."""
    masks = [annotation.source.mask] if annotation.source.mask else []
    return discover(annotation.tomograms, companions=[annotation.labels, *masks])


def _painted(
    annotation: PaintedAnnotation, tomogram: SeenTomogram, tomograms: SeenTomograms
) -> LabelledTomogram:
    url = companion_url(annotation.labels, tomogram.found)
    axes = annotation.source.axes
    with open_labels(url, axes) as source:
        shape = source.header.sampling.shape
    if shape != tomogram.sampling.shape:
        raise RequestError(
            f"the annotation {url} of shape {shape} does not fit the tomogram of "
            f"{tomogram.sampling.shape}",
            remedy="Paint on the tomogram itself, not on a cropped or binned copy.",
        )
    classes = tomograms.settings.classes
    legend = Legend.of(
        annotation.values, annotation.classes, classes, threshold=annotation.threshold
    )
    read = _PaintedLabels(url, axes, tomogram, legend, annotation.slices or (0, shape[0]))
    painted = Voxels(tomogram.grid.shape, np.uint8, read, tomograms.memory)
    annotated = annotated_boxes(painted, tomogram.grid.shape)
    if not annotated:
        where = f" in slices {list(annotation.slices)}" if annotation.slices else ""
        raise RequestError(
            f"{url} annotates nothing{where}: every voxel is {NOT_ANNOTATED}",
            remedy="Paint the background too, or leave this tomogram out.",
        )
    return LabelledTomogram(
        name=tomogram.name,
        scene=tomogram,
        judged=judged_labels(annotation.classes, classes),
        annotated=annotated,
        weight=annotation.weight or 1.0,
        painted=painted,
    )


@dataclass(frozen=True, eq=False)
class _PaintedLabels:
    """Reads labels of boxes of the network's grid from a file on the tomogram's."""

    url: str
    axes: Axes
    tomogram: SeenTomogram
    legend: Legend
    slices: tuple[int, int]

    def __call__(self, box: Box) -> NDArray[np.uint8]:
        """Return uint8, ``box.shape``: the label of the nearest voxel, 255 in other slices."""
        z, y, x = (self.tomogram.nearest(axis, box.begin[axis], box.end[axis]) for axis in range(3))
        labels = np.full(box.shape, NOT_ANNOTATED, np.uint8)
        is_used = (z >= self.slices[0]) & (z < self.slices[1])
        if is_used.any():
            labels[is_used] = self._nearest(z[is_used], y, x)
        return labels

    def _nearest(self, *indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the labels at ascending indices zyx of the file."""
        begin = as_shape(axis[0] for axis in indices)
        box = Box(begin, as_shape(axis[-1] + 1 for axis in indices))
        with open_labels(self.url, self.axes) as source:
            labels = self.legend.read(source.read(box), self.url)
        z, y, x = (axis - first for axis, first in zip(indices, begin, strict=True))
        return labels[np.ix_(z, y, x)]


def annotated_boxes(painted: Voxels, shape: Shape) -> tuple[Box, ...]:
    """Return a box around what is annotated of each run of annotated slices."""
    boxes: list[Box] = []
    for block in strips(shape):
        known = painted.read(block.write) != NOT_ANNOTATED
        for z, plane in enumerate(known, start=block.write.begin[0]):
            if not plane.any():
                continue
            rows, columns = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
            begin, end = (z, rows[0], columns[0]), (z + 1, rows[-1] + 1, columns[-1] + 1)
            box = Box(as_shape(begin), as_shape(end))
            if boxes and boxes[-1].end[0] == z:
                box = _around(boxes.pop(), box)
            boxes.append(box)
    return tuple(boxes)


def _around(one: Box, other: Box) -> Box:
    """Return the smallest box that holds both."""
    begin, end = np.minimum(one.begin, other.begin), np.maximum(one.end, other.end)
    return Box(as_shape(begin), as_shape(end))
