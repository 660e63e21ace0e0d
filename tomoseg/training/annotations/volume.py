"""Sparse labels on a tomogram's grid: what every way to annotate becomes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tomoseg.core.blocks import Box
from tomoseg.core.sampling import Shape
from tomoseg.io.volumes.sources import Source, open_source
from tomoseg.io.volumes.turns import Axes
from tomoseg.training.annotations.tomogram import SeenTomogram
from tomoseg.training.annotations.voxels import Voxels

# Labels lie on their tomogram's grid, whatever voxel size their own header states.
_ANY_VOXEL_ANGSTROM = 1.5


@dataclass(frozen=True, eq=False)
class LabelledTomogram:
    """A tomogram and one annotation of it.

    Parameters
    ----------
    name
        Unique in a training.
    scene
        The tomogram, which other annotations may share.
    judged
        Labels 1.. that the annotator looked for.
    annotated
        Boxes of the network's grid outside which every label is 255.
    weight
        How much more often than others its places are drawn.
    painted
        uint8 labels on the network's grid.
    """

    name: str
    scene: SeenTomogram
    judged: tuple[int, ...]
    annotated: tuple[Box, ...]
    weight: float
    painted: Voxels

    @property
    def tomogram(self) -> str:
        """Name of the tomogram that it is cut from."""
        return self.scene.name

    @property
    def shape(self) -> Shape:
        """Voxels zyx of the network's grid."""
        return self.scene.grid.shape

    def image(self, box: Box) -> NDArray[np.float32]:
        """Return a box of the tomogram, float32, normalised."""
        return self.scene.voxels.read(box)

    def labels(self, box: Box) -> NDArray[np.uint8]:
        """Return a box of labels, uint8: 0 background, 1.. the classes, 255 not annotated."""
        return self.painted.read(box)


@contextmanager
def open_labels(url: str, axes: Axes = "zyx") -> Iterator[Source]:
    """Open a volume of labels, of the axes of its tomogram; only its header is read."""
    with open_source(url, voxel_size_angstrom=_ANY_VOXEL_ANGSTROM, axes=axes) as source:
        yield source


def judged_labels(own: Sequence[str], classes: Sequence[str]) -> tuple[int, ...]:
    """Return the labels of the classes that an annotator looked for, ascending."""
    return tuple(sorted(classes.index(name) + 1 for name in own))


def file_name(url: str) -> str:
    """Return the last part of a path or URL."""
    return url.rstrip("/").rpartition("/")[2]
