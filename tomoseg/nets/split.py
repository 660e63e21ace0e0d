"""What is trained on and what is kept apart, so that no voxel's neighbourhood is on both sides.

several tomograms   some of them whole, all of the others
one tomogram        z  |0 . . . train . . . .| gap |. . validation . .|   and y where it is flat
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tomoseg.blocks import BlockGrid, Box
from tomoseg.errors import RequestError
from tomoseg.nets.card import NOT_ANNOTATED
from tomoseg.nets.settings import AnnotatedVolume, TrainingSettings
from tomoseg.sampling import as_shape

_SCAN_BLOCK = (32, 512, 512)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Region:
    """A volume and the part of it whose labels may be used."""

    volume: AnnotatedVolume
    box: Box

    @property
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
    apart = set(settings.validation) or _chosen(volumes, settings)
    if apart:
        whole = [Region(volume, Box.whole(volume.shape)) for volume in volumes]
        training = [region for region in whole if region.volume.tomogram not in apart]
        validation = [region for region in whole if region.volume.tomogram in apart]
    else:
        pairs = [pair for name in tomograms for pair in _cut(_of(volumes, name), settings)]
        training = [before for before, _ in pairs if before.parts]
        validation = [after for _, after in pairs if after.parts]
    if not training:
        raise RequestError("no volume is left to train on", remedy="Annotate one more.")
    return training, validation


def disjoint(boxes: Sequence[Box]) -> list[Box]:
    """Return boxes that cover the same voxels, each once.

    >>> [box.size for box in disjoint([Box((0, 0, 0), (1, 4, 4)), Box((0, 2, 2), (1, 6, 6))])]
    [16, 4, 8]
    """
    kept: list[Box] = []
    for box in boxes:
        pieces = [box]
        for other in tuple(kept):
            pieces = [rest for piece in pieces for rest in _without(piece, other)]
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


def _chosen(volumes: Sequence[AnnotatedVolume], settings: TrainingSettings) -> set[str]:
    """Choose tomograms to keep apart; none if there is but one or training would lose a class."""
    counts: dict[str, NDArray[np.int64]] = {}
    for volume in volumes:
        found = count_labels(Region(volume, Box.whole(volume.shape)), settings)
        counts[volume.tomogram] = counts.get(volume.tomogram, np.zeros_like(found)) + found
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
    """Cut all volumes of one tomogram at the same plane.

    Raises
    ------
    RequestError
        If there is no plane with annotation on both sides of the gap.
    """
    name, shape = volumes[0].tomogram, volumes[0].shape
    axis, profile = 0, _profile(volumes, 0, settings)
    if np.count_nonzero(profile.any(axis=1)) < 2:
        axis, profile = 1, _profile(volumes, 1, settings)
    halo = settings.network_halo[axis]
    gap = halo if settings.validation_gap is None else settings.validation_gap
    plane = _plane(profile, gap, settings.validation_fraction)
    while plane is None and settings.validation_gap is None and gap:
        gap //= 2
        plane = _plane(profile, gap, settings.validation_fraction)
    if plane is None:
        raise RequestError(
            f"no plane parts the annotation with a gap of {gap}: nothing would be left to train "
            "on, or nothing for validation",
            remedy="Annotate more slices or another tomogram, or lower validation_gap.",
            tomogram=name,
        )
    if gap < halo:
        log.warning("%s: a gap of %d planes for validation, a halo has %d", name, gap, halo)
    end, begin = list(shape), [0, 0, 0]
    end[axis], begin[axis] = plane - gap, plane
    before, after = Box((0, 0, 0), as_shape(end)), Box(as_shape(begin), as_shape(shape))
    return [(Region(volume, before), Region(volume, after)) for volume in volumes]


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


def _plane(counts: NDArray[np.int64], gap: int, fraction: float) -> int | None:
    """Return the first plane of validation, None if nothing would be left on a side.

    Training should lose no class, validation few; then its share should be right, and the gap
    should waste little.
    """
    above = np.cumsum(counts[::-1], axis=0)[::-1]
    below = np.cumsum(counts, axis=0)
    places = np.arange(gap + 1, len(counts))
    training, validation = below[places - gap - 1], above[places]
    usable = (training.sum(axis=1) > 0) & (validation.sum(axis=1) > 0)
    if not usable.any():
        return None
    present = below[-1] > 0
    lost = ((training == 0) & present).sum(axis=1)
    unseen = ((validation == 0) & present).sum(axis=1)
    kept, total = training.sum(axis=1), int(counts.sum())
    share = validation.sum(axis=1) / total
    wasted = 1 - (kept + validation.sum(axis=1)) / total
    cost = 100 * lost + unseen + 2 * abs(share - fraction) + wasted
    return int(places[np.where(usable, cost, np.inf).argmin()])
