"""Sparse labels on a tomogram's grid: what every way to annotate becomes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.core.blocks import Box
from tomoseg.core.errors import RequestError
from tomoseg.core.sampling import Shape
from tomoseg.io.volumes.sources import Source, are_above, as_labels, open_source
from tomoseg.io.volumes.turns import Axes
from tomoseg.nets.card import NOT_ANNOTATED
from tomoseg.training.annotations.settings import BACKGROUND, UNKNOWN
from tomoseg.training.annotations.tomogram import Tomogram
from tomoseg.training.annotations.voxels import Voxels

_NO_MEANING = -1
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
    scene: Tomogram
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


@dataclass(frozen=True, eq=False)
class Legend:
    """What the values of an annotation's voxels stand for.

    Parameters
    ----------
    labels
        int16, shape (256,): the label of each value, -1 where it has no meaning.
    above
        Instead: a threshold, and the label of what is above it; the rest is background.
    """

    labels: NDArray[np.int16]
    above: tuple[float, int] | None = None

    @classmethod
    def of(
        cls,
        values: Mapping[int, str] | None,
        own: Sequence[str],
        classes: Sequence[str],
        *,
        threshold: float | None = None,
    ) -> Legend:
        """Return the legend of an annotation that looked for ``own`` of all ``classes``.

        Where there is a threshold, they are one.
        """
        if threshold is not None:
            (name,) = own
            return cls(np.zeros(256, np.int16), (threshold, classes.index(name) + 1))
        meaning = {0: BACKGROUND, NOT_ANNOTATED: UNKNOWN}
        meaning |= dict(enumerate(own, start=1)) if values is None else values
        labels = np.full(256, _NO_MEANING, np.int16)
        known = {BACKGROUND: 0, UNKNOWN: NOT_ANNOTATED}
        for value, name in meaning.items():
            labels[value] = known[name] if name in known else classes.index(name) + 1
        return cls(labels)

    def read(self, voxels: NDArray[Any], place: str) -> NDArray[np.uint8]:
        """Return the labels that voxels of a file stand for.

        Raises
        ------
        RequestError
            If a value stands for nothing; ``place`` is the file that it names.
        """
        if self.above is not None:
            threshold, label = self.above
            return np.where(are_above(voxels, threshold), label, 0).astype(np.uint8)
        try:
            values = as_labels(voxels)
        except RequestError as error:
            raise RequestError(
                f"{place}: {error.message}",
                remedy="Say with threshold above which value the class is, such as threshold: 127 "
                "for a mask of 0 to 255 with soft edges, 0.5 for one of 0 to 1.",
            ) from error
        labels = self.labels[values]
        if labels.size and labels.min() == _NO_MEANING:
            value = int(values[labels == _NO_MEANING].min())
            known = ", ".join(str(known) for known in np.flatnonzero(self.labels != _NO_MEANING))
            raise RequestError(
                f"{place} holds the value {value}, which stands for no class; known are {known}",
                remedy="Name it in values or classes, or repaint; of a mask with soft edges, say "
                "with threshold above which value the class is.",
            )
        return labels.astype(np.uint8)


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
