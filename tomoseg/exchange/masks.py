"""Volumes of other programs as masks on a tomogram's grid: which voxels are meant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.core.blocks import Box
from tomoseg.core.errors import RequestError, VoxelSizeError
from tomoseg.core.sampling import Sampling, as_shape
from tomoseg.io.stores import Folder, checked_url, scratch_folder
from tomoseg.io.volumes.sources import Source, open_source, unpack
from tomoseg.io.volumes.turns import AXES_KEY, Axes
from tomoseg.io.voxel_size import EQUAL_WITHIN
from tomoseg.training.annotations.voxels import strips

Marked = NDArray[np.bool_]


@dataclass(frozen=True)
class Rule:
    """Which values of a volume are meant; ``says`` tells it a person."""

    says: str
    is_meant: Callable[[NDArray[Any]], Marked]


def rule_of(source: Source, *, value: int | None, threshold: float | None) -> Rule:
    """Return which voxels are meant; without a word, those of a volume of 0 and one other value.

    Raises
    ------
    RequestError
        If the volume has more values than that.
    """
    if value is not None:
        return Rule(f"equal to {value}", lambda voxels: np.asarray(voxels == value))
    if threshold is not None:
        return Rule(f"above {threshold:g}", lambda voxels: np.asarray(voxels > threshold))
    seen: set[float] = set()
    for block in strips(source.header.sampling.shape):
        seen |= set(np.unique(source.read(block.write)).tolist())
        if len(seen | {0}) > 2:
            raise RequestError(
                f"the volume holds values such as {', '.join(f'{v:g}' for v in sorted(seen)[:5])}",
                remedy="Say which are meant with --value, or above what with --threshold.",
            )
    return Rule("not 0", lambda voxels: np.asarray(voxels != 0))


def count(source: Source, rule: Rule) -> int:
    """Return the number of voxels that are meant."""
    grid = strips(source.header.sampling.shape)
    return sum(int(rule.is_meant(source.read(block.write)).sum()) for block in grid)


def mask_reader(source: Source, rule: Rule, *, flip_z: bool) -> Callable[[Box], Marked]:
    """Return what tells, of a box, which voxels are meant; with the slices mirrored or not."""
    depth = source.header.sampling.shape[0]

    def read(box: Box) -> Marked:
        if not flip_z:
            return rule.is_meant(source.read(box))
        (_, *begin), (_, *end) = box.begin, box.end
        first, last = depth - box.end[0], depth - box.begin[0]
        mirrored = Box(as_shape((first, *begin)), as_shape((last, *end)))
        return rule.is_meant(source.read(mirrored))[::-1]

    return read


@contextmanager
def opened_on(
    url: str, sampling: Sampling, axes: Axes = "zyx"
) -> Iterator[tuple[Source, tuple[str, ...]]]:
    """Open a volume that must lie on a grid; yield it and what a person should know.

    ``axes`` are those of the tomogram's file, on whose grid the volume lies.

    A compressed file is unpacked first.

    Raises
    ------
    RequestError
        If its shape is another.
    VoxelSizeError
        If its voxel size is another; where it states none, it is taken to be the tomogram's.
    """
    with scratch_folder() as scratch:
        plain = unpack(checked_url(url), Folder(scratch))
        override = None if _states_size(plain) else sampling.voxel_angstrom
        with open_source(plain, voxel_size_angstrom=override, axes=axes) as source:
            _check_grid(url, source.header.sampling, sampling)
            notes = []
            if override is not None:
                notes.append("it states no voxel size: it was taken to be the tomogram's")
            if axes != "zyx":
                notes.append(f"read with {AXES_KEY}: {axes}, as its tomogram")
            yield source, tuple(notes)


def _states_size(url: str) -> bool:
    try:
        with open_source(url) as source:
            return min(source.header.sampling.voxel_size_angstrom) > 0
    except VoxelSizeError:
        return False


def _check_grid(url: str, found: Sampling, wanted: Sampling) -> None:
    if found.shape != wanted.shape:
        raise RequestError(
            f"{url} has shape {found.shape} (zyx), the tomogram {wanted.shape}",
            remedy="Give a mask on the tomogram itself, not on a cropped or binned copy.",
        )
    sizes = found.voxel_size_angstrom, wanted.voxel_size_angstrom
    if not np.allclose(*sizes, rtol=EQUAL_WITHIN, atol=0):
        own, other = (" × ".join(f"{edge:.6g}" for edge in size) for size in sizes)
        raise VoxelSizeError(
            f"{url} has voxels of {own} Å (zyx), the tomogram of {other} Å",
            remedy="Give this tomogram's mask, or correct its header.",
        )
