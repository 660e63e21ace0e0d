"""Volumes of other programs as evidence: masks and maps of scores, read by boxes as scores 0..1."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tomoseg.analysis.filaments.evidence import (
    CORRELATION,
    SCALES,
    Scale,
    ValueRange,
    correlation_scale,
    guessed_scale,
)
from tomoseg.core.blocks import BlockGrid, Box
from tomoseg.core.errors import FormatError, RequestError
from tomoseg.core.sampling import Header, Shape
from tomoseg.io.stores import Folder, checked_url, scratch_folder
from tomoseg.io.volumes.sources import Source, open_source, unpack
from tomoseg.io.volumes.turns import Axes

ReadScores = Callable[[Box], NDArray[np.float32]]


@dataclass(frozen=True)
class Evidence:
    """A volume that is open: its header, what its values mean, and how scores are read.

    Parameters
    ----------
    header
        Of the file.
    scale
        What its values mean.
    read
        Gives the scores of a box, float32, 0..1.
    """

    header: Header
    scale: Scale
    read: ReadScores


@contextmanager
def opened_evidence(
    url: str,
    *,
    scale: str | None,
    label: int | None,
    block_shape: Shape,
    voxel_size_angstrom: float | None,
    axes: Axes = "zyx",
) -> Iterator[Evidence]:
    """Open a volume, unpacked into a temporary folder if it is compressed.

    Parameters
    ----------
    scale
        What its values mean: a name of :data:`tomoseg.analysis.filaments.evidence.SCALES`,
        ``correlation``, or ``LOW,HIGH``; None guesses where that is beyond doubt.
    label
        Of a volume of labels, the one that is meant.
    block_shape
        Voxels that are looked at in one piece.
    voxel_size_angstrom
        Instead of the file's own.
    axes
        Which of the file's are which, as ``source.axes`` says.

    Raises
    ------
    RequestError
        If what the values mean must be said.
    FormatError, VoxelSizeError
        As the reader of the file says.
    """
    with open_unpacked(url, voxel_size_angstrom, axes) as source:
        meaning = _scale(source, scale, label, block_shape)

        def read(box: Box) -> NDArray[np.float32]:
            values = source.read(box)
            return meaning.scores(values if label is None else values == label)

        yield Evidence(source.header, meaning, read)


@contextmanager
def open_unpacked(url: str, voxel_size_angstrom: float | None, axes: Axes) -> Iterator[Source]:
    """Open a volume, unpacked into a temporary folder if it is compressed."""
    with scratch_folder() as scratch:
        plain = unpack(checked_url(url), Folder(scratch))
        try:
            override = voxel_size_angstrom
            with open_source(plain, voxel_size_angstrom=override, axes=axes) as source:
                yield source
        except FormatError as error:
            raise error.within(tomogram=url) from error


def _scale(source: Source, given: str | None, label: int | None, block_shape: Shape) -> Scale:
    """Return what the volume's values mean; look through it where that is not said."""
    if label is not None:
        if given is not None:
            raise RequestError("--label names the voxels that are meant: leave out --scale")
        return Scale(f"label {label}", 0, 0)
    if given in SCALES:
        return SCALES[given]
    if given not in (None, CORRELATION):
        return _range_scale(given)
    grid = BlockGrid(source.header.sampling.shape, block_shape)
    found = ValueRange.of(source.read(block.write) for block in grid)
    if given == CORRELATION:
        return correlation_scale((source.read(block.write) for block in grid), found)
    return guessed_scale(found, np.dtype(source.header.dtype))


def _range_scale(text: str) -> Scale:
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise RequestError(
            f"--scale {text} is none of {', '.join(SCALES)}, {CORRELATION}, nor LOW,HIGH"
        ) from error
    if not -np.inf < low <= high < np.inf:
        raise RequestError(f"--scale {text}: the first value must not be above the second")
    return Scale("range", low, high)
