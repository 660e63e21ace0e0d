"""Tiles: squares of single slices, some with a mask and some with nothing of a class in them.

Source: the way of EMAN2's e2tomoseg_convnet (Chen et al., "Convolutional neural networks for
automated annotation of cellular cryo-electron tomograms", Nature Methods 14, 2017): about ten
tiles with the feature, painted, and a hundred without.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tomoseg.core.blocks import Box
from tomoseg.core.classes import NOT_ANNOTATED
from tomoseg.core.coordinates import Points
from tomoseg.core.errors import RequestError, TomosegError
from tomoseg.core.sampling import as_shape
from tomoseg.io.discovery import discover
from tomoseg.io.stores import checked_url
from tomoseg.io.volumes.legend import Legend
from tomoseg.training.annotations.settings import TilesAnnotation
from tomoseg.training.annotations.tables import read_points
from tomoseg.training.annotations.tomogram import SeenTomogram, SeenTomograms
from tomoseg.training.annotations.volume import (
    LabelledTomogram,
    file_name,
    judged_labels,
    open_labels,
)
from tomoseg.training.annotations.voxels import Voxels

Masks = NDArray[np.uint8]


def tile_volume(annotation: TilesAnnotation, tomograms: SeenTomograms) -> LabelledTomogram:
    """Return the tomogram with what its tiles say.

    Raises
    ------
    RequestError, FormatError
        If tables and masks do not fit each other or the tomogram, or a mask is empty; the
        tomogram is named.
    """
    found, *others = discover([annotation.tomogram])
    if others:
        raise RequestError(
            f"{annotation.tomogram} holds {1 + len(others)} tomograms, but tiles are cut from one",
            remedy="Give an annotation of kind tiles for each tomogram.",
        )
    tomogram = tomograms.open(found, annotation.source)
    try:
        tiles = _tiles(annotation, tomogram, tomograms.settings.classes)
    except TomosegError as error:
        raise error.within(tomogram=found.name) from error
    draw = _TileLabels(tuple(tiles))
    return LabelledTomogram(
        name=f"{tomogram.name} {file_name(annotation.positives)}",
        scene=tomogram,
        judged=judged_labels(annotation.classes, tomograms.settings.classes),
        annotated=tuple(tile.box for tile in tiles),
        weight=annotation.weight or 1.0,
        painted=Voxels(tomogram.grid.shape, np.uint8, draw, tomograms.memory),
    )


def _tiles(
    annotation: TilesAnnotation, tomogram: SeenTomogram, classes: Sequence[str]
) -> list[_Tile]:
    legend = Legend.of(
        annotation.values, annotation.classes, classes, threshold=annotation.threshold
    )
    positives = read_points(checked_url(annotation.positives), tomogram)
    masks = _masks(annotation, legend, len(positives))
    tiles = list(_cut(positives, masks, tomogram))
    if annotation.negatives:
        negatives = read_points(checked_url(annotation.negatives), tomogram)
        nothing = np.zeros((len(negatives), annotation.size, annotation.size), np.uint8)
        tiles += _cut(negatives, nothing, tomogram)
    return tiles


def _masks(annotation: TilesAnnotation, legend: Legend, positives: int) -> Masks:
    """Return the labels of the positive tiles, uint8, shape (positives, size, size)."""
    url, size = checked_url(annotation.masks), annotation.size
    with open_labels(url) as source:
        shape = source.header.sampling.shape
        if shape != (positives, size, size):
            raise RequestError(
                f"{url} is a stack of {shape[0]} masks of {shape[1]}×{shape[2]}, but "
                f"{annotation.positives} names {positives} tiles of {size}×{size}",
                remedy="Give one mask for each positive, in the same order, and the right size.",
            )
        masks = legend.read(source.read(Box.whole(shape)), url)
    is_painted = ((masks > 0) & (masks != NOT_ANNOTATED)).any(axis=(1, 2))
    if not is_painted.all():
        raise RequestError(
            f"mask {np.argmin(is_painted) + 1} of {positives} in {url} is empty",
            remedy="Paint it, or move its tile to the negatives. If 255 is the class, say values: "
            f"{{255: {annotation.classes[0]}}} in the annotation.",
        )
    return masks


@dataclass(frozen=True, eq=False)
class _Tile:
    """Labels of one tile, uint8, ``box.shape``, on the network's grid."""

    box: Box
    labels: NDArray[np.uint8]


def _cut(centres: Points, masks: Masks, tomogram: SeenTomogram) -> Iterator[_Tile]:
    """Bring tiles to the network's grid; what reaches beyond the border is cut away.

    A tile of ``size`` begins ``size // 2`` voxels before its centre. It lies in the one slice
    that is nearest to it, so that no resampling can lose it.
    """
    size = masks.shape[1]
    _, rows, columns = (tomogram.nearest(axis) for axis in range(3))
    grid = tomogram.grid
    slices = np.rint(grid.to_voxels(centres)[:, 0]).astype(int).clip(0, grid.shape[0] - 1)
    corners = np.rint(tomogram.sampling.to_voxels(centres)).astype(int)[:, 1:] - size // 2
    for z, (top, left), mask in zip(slices, corners, masks, strict=True):
        y, x = (
            np.flatnonzero((found >= first) & (found < first + size))
            for found, first in ((rows, top), (columns, left))
        )
        box = Box(as_shape((z, y[0], x[0])), as_shape((z + 1, y[-1] + 1, x[-1] + 1)))
        yield _Tile(box, mask[np.ix_(rows[y] - top, columns[x] - left)][None])


@dataclass(frozen=True, eq=False)
class _TileLabels:
    """Draws the labels of a box; where tiles overlap, a class wins over the background."""

    tiles: Sequence[_Tile]

    def __call__(self, box: Box) -> NDArray[np.uint8]:
        """Return uint8, ``box.shape``, 255 outside the tiles."""
        labels = np.full(box.shape, NOT_ANNOTATED, np.uint8)
        for tile in self._near(box):
            common = tile.box.intersect(box)
            said = tile.labels[common.within(tile.box).slices]
            there = labels[common.within(box).slices]
            is_class = (said > 0) & (said != NOT_ANNOTATED)
            np.copyto(there, said, where=is_class | (there == NOT_ANNOTATED))
        return labels

    def _near(self, box: Box) -> Iterable[_Tile]:
        return (tile for tile in self.tiles if tile.box.intersect(box).size)
