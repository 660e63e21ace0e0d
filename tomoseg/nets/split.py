"""What is trained on and what is kept apart, so that no voxel's neighbourhood is on both sides.

several tomograms   some of them whole, all of the others
one tomogram        z  |0 . . . train . . . .| gap |. . validation . .|   and y where it is flat
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tomoseg.core.blocks import BlockGrid, Box
from tomoseg.core.classes import NOT_ANNOTATED
from tomoseg.core.errors import RequestError
from tomoseg.core.sampling import Shape, as_shape
from tomoseg.nets.settings import AnnotatedVolume, TrainingSettings

_SCAN_BLOCK = (32, 512, 512)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Region:
    """A volume and the part of it whose labels may be used."""

    volume: AnnotatedVolume
    box: Box

    @cached_property
    def parts(self) -> list[Box]:
        """Disjoint boxes that hold all annotation of the region."""
        inside = (box.intersect(self.box) for box in self.volume.annotated)
        return disjoint([box for box in inside if box.size])

    def blocks(self) -> Iterator[tuple[Box, NDArray[np.uint8]]]:
        """Yield the annotated parts, a bounded block at a time, with their labels."""
        for part in self.parts:
            for block in BlockGrid(part.shape, _SCAN_BLOCK):
                box = block.write.shift(part.begin)
                yield box, self.volume.labels(box)


def split_regions(
    volumes: Sequence[AnnotatedVolume], settings: TrainingSettings
) -> tuple[list[Region], list[Region]]:
    """Return what to train on and what to keep apart for validation.

    Volumes of one tomogram stay together: named tomograms are kept apart; otherwise as few as make
    about ``validation_fraction`` of the annotation, with as many classes as possible, none of
    which training would lose; and where that cannot be, every tomogram is cut at a plane.

    Raises
    ------
    RequestError
        If names are not unique or unknown, labels are no classes, or one side would be empty.
    """
    names = [volume.name for volume in volumes]
    tomograms = sorted({volume.tomogram for volume in volumes})
    unknown = sorted(set(settings.validation) - set(tomograms))
    if unknown or len(set(names)) != len(names):
        raise RequestError(
            f"validation tomograms {unknown} are not among {tomograms}, or names of {names} occur "
            "twice"
        )
    counts = _counted(volumes, settings)
    apart = set(settings.validation) or _chosen(counts, settings)
    if apart:
        whole = [Region(volume, Box.whole(volume.shape)) for volume in volumes]
        training = [region for region in whole if region.volume.tomogram not in apart]
        validation = [region for region in whole if region.volume.tomogram in apart]
    else:
        pairs = [pair for name in tomograms for pair in _cut(_of(volumes, name), settings)]
        training = [one for one, _ in pairs if count_labels(one, settings).any()]
        validation = [other for _, other in pairs if count_labels(other, settings).any()]
    if not training:
        raise RequestError("no volume is left to train on", remedy="Annotate one more.")
    return training, validation


def _counted(
    volumes: Sequence[AnnotatedVolume], settings: TrainingSettings
) -> dict[str, NDArray[np.int64]]:
    """Count the labels of each tomogram; raise RequestError if a volume annotates nothing."""
    counts: dict[str, NDArray[np.int64]] = {}
    for volume in volumes:
        found = count_labels(Region(volume, Box.whole(volume.shape)), settings)
        if not found.any():
            raise RequestError(
                f"the annotation {volume.name} annotates nothing: every voxel is {NOT_ANNOTATED}",
                remedy="Paint some, the background too, or leave it out.",
                tomogram=volume.tomogram,
            )
        counts[volume.tomogram] = counts.get(volume.tomogram, np.zeros_like(found)) + found
    return counts


def disjoint(boxes: Sequence[Box]) -> list[Box]:
    """Return boxes that cover the same voxels, each once.

    >>> [box.size for box in disjoint([Box((0, 0, 0), (1, 4, 4)), Box((0, 2, 2), (1, 6, 6))])]
    [16, 8, 4]
    """
    begins, ends = (np.array([getattr(box, end) for box in boxes]) for end in ("begin", "end"))
    kept: list[Box] = []
    for number, box in enumerate(boxes):
        before = slice(0, number)
        meet = (begins[before] < box.end).all(axis=1) & (ends[before] > box.begin).all(axis=1)
        pieces = [box]
        for other in np.flatnonzero(meet):
            pieces = [rest for piece in pieces for rest in _without(piece, boxes[int(other)])]
        kept += pieces
    return kept


def _without(box: Box, other: Box) -> Iterator[Box]:
    """Yield what is left of a box without another: a slab on either side along each axis."""
    common = box.intersect(other)
    if not common.size:
        yield box
        return
    begin, end = list(box.begin), list(box.end)
    for axis in range(3):
        if begin[axis] < common.begin[axis]:
            upper = [*end[:axis], common.begin[axis], *end[axis + 1 :]]
            yield Box(as_shape(begin), as_shape(upper))
        if common.end[axis] < end[axis]:
            lower = [*begin[:axis], common.end[axis], *begin[axis + 1 :]]
            yield Box(as_shape(lower), as_shape(end))
        begin[axis], end[axis] = common.begin[axis], common.end[axis]


def count_labels(region: Region, settings: TrainingSettings) -> NDArray[np.int64]:
    """Count the voxels of each label in a region, int64 (1 + classes,).

    Raises
    ------
    RequestError
        If a label is neither a class nor 255.
    """
    counts = np.zeros(1 + len(settings.classes), dtype=np.int64)
    for _, voxels in region.blocks():
        counts += _bincount(voxels, len(counts), region.volume.name)
    return counts


def _bincount(voxels: NDArray[np.uint8], labels: int, name: str) -> NDArray[np.int64]:
    counts = np.bincount(voxels.ravel(), minlength=NOT_ANNOTATED + 1)
    odd = np.flatnonzero(counts[labels:NOT_ANNOTATED])
    if len(odd):
        raise RequestError(
            f"label {labels + odd[0]} is neither 0..{labels - 1} nor {NOT_ANNOTATED} (not "
            "annotated)",
            remedy="Name all classes in the recipe or repaint.",
            tomogram=name,
        )
    return counts[:labels]


def _of(volumes: Sequence[AnnotatedVolume], tomogram: str) -> list[AnnotatedVolume]:
    return [volume for volume in volumes if volume.tomogram == tomogram]


def _chosen(counts: Mapping[str, NDArray[np.int64]], settings: TrainingSettings) -> set[str]:
    """Choose tomograms to keep apart; none if there is but one or training would lose a class."""
    wanted = settings.validation_fraction * sum(int(each.sum()) for each in counts.values())
    apart: set[str] = set()
    size = 0
    while size < wanted and (free := _candidates(counts, apart)):
        covered = _classes(counts, apart)
        best = min(
            sorted(free),
            key=lambda name: (
                -len(_classes(counts, {name}) - covered),
                abs(size + int(counts[name].sum()) - wanted),
            ),
        )
        apart.add(best)
        size += int(counts[best].sum())
    return apart


def _candidates(counts: Mapping[str, NDArray[np.int64]], apart: set[str]) -> set[str]:
    """Return the tomograms without which training still has every class."""
    left = set(counts) - apart
    every = _classes(counts, set(counts))
    return {name for name in left if len(left) > 1 and _classes(counts, left - {name}) == every}


def _classes(counts: Mapping[str, NDArray[np.int64]], names: set[str]) -> set[int]:
    return {int(label) for name in names for label in np.flatnonzero(counts[name])}


def _cut(
    volumes: Sequence[AnnotatedVolume], settings: TrainingSettings
) -> list[tuple[Region, Region]]:
    """Cut all volumes of one tomogram at the same plane: (to train on, to keep apart) of each.

    The gap is one halo of the network; only where no axis has room for it, it is less.

    Raises
    ------
    RequestError
        If there is no plane with annotation on both sides of the gap.
    """
    profiles = [_profile(volumes, axis, settings) for axis in range(3)]
    given, halo = settings.validation_gap, settings.network_halo
    for divisor in (1, 2, 4, 8, 16) if given is None else (1,):
        for axis, profile in enumerate(profiles):
            gap = halo[axis] // divisor if given is None else given
            if sides := _best_cut(profile, gap, settings.validation_fraction):
                if divisor > 1:
                    log.warning(
                        "%s: validation is %d planes away from what is trained on, a halo has %d",
                        volumes[0].tomogram, gap, halo[axis],
                    )  # fmt: skip
                one, other = (_slab(as_shape(volumes[0].shape), axis, side) for side in sides)
                return [(Region(volume, one), Region(volume, other)) for volume in volumes]
    raise RequestError(
        "no plane parts the annotation so that both sides have some and training has every class",
        remedy="Annotate more slices or another tomogram, or lower validation_gap.",
        tomogram=volumes[0].tomogram,
    )


def _slab(shape: Shape, axis: int, planes: tuple[int, int]) -> Box:
    begin, end = [0, 0, 0], list(shape)
    begin[axis], end[axis] = planes
    return Box(as_shape(begin), as_shape(end))


def _profile(
    volumes: Sequence[AnnotatedVolume], axis: int, settings: TrainingSettings
) -> NDArray[np.int64]:
    """Count the labels of each plane across an axis, int64 (planes, 1 + classes)."""
    labels = 1 + len(settings.classes)
    counts = np.zeros((volumes[0].shape[axis], labels), dtype=np.int64)
    for volume in volumes:
        for box, voxels in Region(volume, Box.whole(volume.shape)).blocks():
            for plane, found in enumerate(np.moveaxis(voxels, axis, 0), start=box.begin[axis]):
                counts[plane] += _bincount(found, labels, volume.name)
    return counts


def _best_cut(
    counts: NDArray[np.int64], gap: int, fraction: float
) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Return the planes to train on and those to keep apart; None if there is no such cut.

    Training loses no class, validation as few as can be; then its share should be right, and the
    gap should waste little. Either end of the tomogram may be kept apart.
    """
    size = len(counts)
    sums = np.concatenate([np.zeros((1, counts.shape[1]), np.int64), np.cumsum(counts, axis=0)])
    first = np.arange(size - gap + 1)
    lower, upper = sums[first], sums[-1] - sums[first + gap]
    best = None
    for training, validation, is_low in ((lower, upper, True), (upper, lower, False)):
        share, kept = (part.sum(axis=1) / sums[-1].sum() for part in (validation, training))
        has_all = ((training > 0) == (sums[-1] > 0)).all(axis=1)
        unseen = ((validation == 0) & (sums[-1] > 0)).sum(axis=1)
        # A share that is far off is as bad as a class that validation never sees.
        cost = unseen + 2 * abs(share - fraction) + (1 - kept - share)
        cost = np.where(has_all & (share > 0), cost, np.inf)
        if not len(cost):
            continue
        place = int(cost.argmin())
        if np.isfinite(cost[place]) and (best is None or cost[place] < best[0]):
            best = cost[place], place, is_low
    if best is None:
        return None
    _, place, is_low = best
    sides = (0, place), (place + gap, size)
    return sides if is_low else sides[::-1]
