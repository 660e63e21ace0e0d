"""Scores of label volumes and of volumes of objects, read a block at a time."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tomoseg.analysis.metrics import (
    Overlaps,
    class_scores,
    confusion,
    overlaps,
    score_instances,
    surface_areas,
    surface_counts,
    surface_dice,
    surface_halo,
)
from tomoseg.analysis.metrics.voxels import UNANNOTATED, Counts
from tomoseg.core.blocks import Block, BlockGrid
from tomoseg.core.errors import RequestError
from tomoseg.core.layout import IMAGE, MANIFEST
from tomoseg.core.sampling import Triple
from tomoseg.evaluation.grids import Compared, open_together
from tomoseg.evaluation.options import USUAL, Options, Scores, plain
from tomoseg.io.stores import Folder, checked_url, label_names
from tomoseg.io.volumes.legend import BACKGROUND, UNKNOWN, Legend
from tomoseg.io.volumes.sources import as_labels

SEMANTIC = "semantic"
INSTANCES = "instances"
BLOCK_SHAPE = (32, 512, 512)
SURFACE_TOLERANCE_VOXELS = 2.0


@dataclass(frozen=True, eq=False)
class LabelCounts:
    """What is counted of labels; counts of blocks and of tomograms add up.

    Parameters
    ----------
    voxels
        int64, shape (classes + 1, classes + 1): rows are the truth, columns what was found.
    surfaces
        float64, shape (classes, 2, 2), Å²: of each class as
        :func:`tomoseg.analysis.metrics.surface_counts` gives; zeros where voxel sizes are not
        known.
    unannotated
        Voxels of which the truth says nothing.
    """

    voxels: Counts
    surfaces: NDArray[np.float64]
    unannotated: int = 0

    @classmethod
    def none(cls, classes: int) -> LabelCounts:
        """Return the counts of nothing."""
        return cls(np.zeros((classes + 1,) * 2, np.int64), np.zeros((classes, 2, 2)))

    def __add__(self, other: LabelCounts) -> LabelCounts:
        """Pool two blocks or tomograms of the same classes."""
        return LabelCounts(
            self.voxels + other.voxels,
            self.surfaces + other.surfaces,
            self.unannotated + other.unannotated,
        )


@dataclass(frozen=True)
class LabelPair:
    """Two open label volumes on one grid.

    Parameters
    ----------
    opened
        What was found, and the truth.
    legends
        What the values of each stand for, where the file does not say it and a person did.
    lookup
        uint8, shape (256,): found label → label of the truth that has the same name; 0 where the
        truth does not know the class and so says nothing of it.
    tolerance_angstrom
        For surfaces; None is two voxels, of the coarser grid if there are two.
    """

    opened: Compared
    legends: tuple[Legend | None, Legend | None]
    lookup: NDArray[np.uint8]
    tolerance_angstrom: float | None

    @property
    def voxel_size_angstrom(self) -> Triple | None:
        """Edges zyx; None where no file says it."""
        return self.opened.voxel_size_angstrom

    @property
    def surface_tolerance_angstrom(self) -> float:
        """How far apart surfaces may be."""
        if self.tolerance_angstrom is not None:
            return self.tolerance_angstrom
        return SURFACE_TOLERANCE_VOXELS * self.opened.coarsest_angstrom

    def counts(self, classes: int) -> LabelCounts:
        """Count voxels and surfaces block by block."""
        halo = (0, 0, 0)
        if self.voxel_size_angstrom is not None:
            halo = surface_halo(self.voxel_size_angstrom, self.surface_tolerance_angstrom)
        grid = BlockGrid(self.opened.shape, BLOCK_SHAPE, halo=halo)
        return sum((self._block(block, classes) for block in grid), LabelCounts.none(classes))

    def _block(self, block: Block, classes: int) -> LabelCounts:
        found, truth = (
            legend.read(volume.read(block.read), place)
            if legend
            else as_labels(volume.read(block.read))
            for volume, legend, place in zip(
                self.opened.volumes, self.legends, ("what was found", "the truth"), strict=True
            )
        )
        found = self.lookup[found]
        core = block.core.slices
        unannotated = int(np.count_nonzero(truth[core] == UNANNOTATED))
        counts = replace(LabelCounts.none(classes), unannotated=unannotated)
        counts.voxels[:] = confusion(found[core], truth[core], classes)
        if self.voxel_size_angstrom is not None:
            for label in np.union1d(found, truth[truth != UNANNOTATED]):
                if label > 0:
                    counts.surfaces[label - 1] = self._surface(block, found, truth, label)
        return counts

    def _surface(
        self, block: Block, found: NDArray[np.uint8], truth: NDArray[np.uint8], label: int
    ) -> NDArray[np.float64]:
        assert self.voxel_size_angstrom is not None
        annotated = truth != UNANNOTATED
        found_areas, true_areas = (
            surface_areas(volume == label, self.voxel_size_angstrom, annotated=annotated)
            for volume in (found, truth)
        )
        return surface_counts(
            found_areas,
            true_areas,
            block.core,
            voxel_size_angstrom=self.voxel_size_angstrom,
            tolerance_angstrom=self.surface_tolerance_angstrom,
        )


def evaluate_labels(found: str, truth: str, options: Options = USUAL) -> Scores:
    """Score label volumes class by class, a block at a time; 255 in the truth is left out.

    The labels of a segmented tomogram are found in its ``tomogram.zarr`` by themselves. Classes
    are those of the truth: what was found of a class that the truth does not know is background.
    One of the two may be binned (:mod:`tomoseg.evaluation.grids`).

    Raises
    ------
    RequestError
        If shapes, voxel sizes or classes do not fit each other, or the voxels are no labels.
    """
    return evaluate_label_pairs([(found, truth)], options)


def evaluate_label_pairs(pairs: Sequence[tuple[str, str]], options: Options = USUAL) -> Scores:
    """Score the label volumes of several tomograms together: counts are pooled.

    Raises
    ------
    RequestError
        As :func:`evaluate_labels`, if the tomograms have different classes, or if nothing would be
        compared.
    """
    names = _classes_of(pairs, options)
    known = names or tuple(f"label_{label}" for label in range(1, UNANNOTATED))
    counts = LabelCounts.none(len(known))
    for found, truth in pairs:
        counts += _label_counts(found, truth, known, options)
    _check_compared(counts, pairs[0][1], known[0] if names else "membrane", options)
    scores: Scores = {}
    for row, surfaces in zip(class_scores(counts.voxels, known), counts.surfaces, strict=True):
        if names or counts.voxels[:, known.index(row.name) + 1].any() or row.support:
            values = {**asdict(row), "dice": row.dice, "surface_dice": surface_dice(surfaces)}
            order = ("precision", "recall", "f1", "dice", "iou", "surface_dice", "support")
            scores[row.name] = plain({key: values[key] for key in order})
    return scores


def _check_compared(counts: LabelCounts, truth: str, name: str, options: Options) -> None:
    """Refuse a truth that says nothing of any class; guess that 255 was meant as one, ``name``."""
    remedy = (
        f"If 255 is a class, say --value 255={name}, or above which value it is, --threshold 127; "
        "if it is not, say --value 255=not_annotated."
    )
    if not counts.voxels.sum():
        raise RequestError(
            f"nothing is compared: every voxel of {truth} is 255, 'not annotated'", remedy=remedy
        )
    is_said = options.threshold is not None or UNANNOTATED in (options.values or {})
    if counts.unannotated and not counts.voxels[1:].any() and not is_said:
        raise RequestError(
            f"{truth} holds 0 and 255 alone, and 255 is 'not annotated': no class is compared",
            remedy=remedy,
        )


def evaluate_instances(found: str, truth: str, options: Options = USUAL) -> Scores:
    """Score volumes of objects; of a ``tomogram.zarr`` the objects of every class.

    For the latter the truth is ``<name>__instances`` with ``<name>__labels`` beside it, which says
    the class of each object.

    Raises
    ------
    RequestError
        If shapes or voxel sizes do not fit each other, or the classes of objects are not known.
    """
    if INSTANCES not in label_names(Folder(found)):
        return {"objects": _instances(found, truth, options)}
    labels = truth.replace("__instances", "__labels")
    names, own = class_names(labels), class_names(found)
    inside = f"{checked_url(found)}/labels"
    if labels == truth or names is None or own is None:
        raise RequestError(
            f"{found} has objects of several classes; of {truth} no class is known",
            remedy=f"Compare objects whatever their class: {inside}/{INSTANCES}.",
        )
    return {
        name: _instances(
            f"{inside}/{INSTANCES}",
            truth,
            options,
            found_class=(f"{inside}/{SEMANTIC}", own.index(name) + 1),
            true_class=(labels, label),
        )
        for label, name in enumerate(names, start=1)
        if name in own
    }


def class_names(place: str) -> tuple[str, ...] | None:
    """Return the classes of a label volume in the order of their labels; None if nobody says.

    They stand in the manifest of a segmented tomogram, and in the JSON file beside a simulation.
    """
    url = checked_url(place)
    tomogram, inside, _ = url.partition(f"/{IMAGE}")
    if inside:
        folder = Folder(tomogram)
        # Earlier versions did not say the classes.
        manifest = folder.read_json(MANIFEST) if folder.exists(MANIFEST) else {}
        return tuple(manifest["classes"]) if "classes" in manifest else None
    parent, _, file = url.rpartition("/")
    name = f"{file.rpartition('__')[0]}.json"
    if "__labels" not in file or not Folder(parent).exists(name):
        return None
    classes = Folder(parent).read_json(name)["classes"]
    return tuple(classes[str(label)] for label in range(1, len(classes) + 1))


def _classes_of(pairs: Sequence[tuple[str, str]], options: Options) -> tuple[str, ...]:
    """Return the classes that the truth knows; none if no file says them."""
    if options.classes:
        return options.classes
    if options.values and not any(class_names(truth) for _, truth in pairs):
        meant = dict.fromkeys(options.values.values())
        return tuple(name for name in meant if name not in (BACKGROUND, UNKNOWN))
    known = {truth: class_names(truth) or class_names(found) or () for found, truth in pairs}
    (first, names), *others = known.items()
    for place, other in others:
        if other != names:
            raise RequestError(
                f"{first} has the classes {list(names)}, {place} has {list(other)}",
                remedy="Evaluate them one by one, or give --classes.",
            )
    return names


def _label_counts(found: str, truth: str, names: tuple[str, ...], options: Options) -> LabelCounts:
    own = class_names(found) or options.classes or names
    if names and not set(own) & set(names):
        raise RequestError(
            f"{found} has the classes {', '.join(own)}, {truth} has {', '.join(names)}: none in "
            "common",
            remedy="Name the labels of the truth as in the result, with --classes.",
        )
    lookup = np.full(256, UNANNOTATED, np.uint8)
    lookup[0] = 0
    for label, name in enumerate(own, start=1):
        lookup[label] = names.index(name) + 1 if name in names else 0
    with ExitStack() as stack:
        places = labels_in(found), labels_in(truth)
        opened = open_together(stack, places, options)
        legends = _legend(found, names, options), _legend(truth, names, options)
        pair = LabelPair(opened, legends, lookup, options.tolerance_angstrom)
        try:
            return pair.counts(len(names))
        except RequestError as error:
            remedy = error.remedy or (
                "Say with --threshold above which value the class is, or with --value 255=NAME "
                "what values stand for."
            )
            raise RequestError(f"{found} and {truth}: {error.message}", remedy=remedy) from error


def _legend(place: str, names: tuple[str, ...], options: Options) -> Legend | None:
    """Return what a person said of the values in a volume that does not say its classes."""
    if class_names(place) is not None or (not options.values and options.threshold is None):
        return None
    if options.threshold is None and options.values:
        unknown = sorted({*options.values.values()} - {*names, BACKGROUND, UNKNOWN})
        if unknown:
            raise RequestError(
                f"--value names {', '.join(unknown)}, but the classes are {', '.join(names)}",
                remedy=f"Choose among these, {BACKGROUND} and {UNKNOWN}.",
            )
        return Legend.of(options.values, (), names)
    if options.values or len(options.classes or names[:1]) != 1:
        raise RequestError(
            "--threshold tells one class from the background",
            remedy="Name that class with --classes, or say with --value what values stand for.",
        )
    return Legend.of(None, names[:1], names, threshold=options.threshold)


def _instances(
    found: str,
    truth: str,
    options: Options,
    *,
    found_class: tuple[str, int] | None = None,
    true_class: tuple[str, int] | None = None,
) -> dict[str, float | int | None]:
    """Score one volume of objects; with a label volume and a label for each, those of a class."""
    classes = [one for one in (found_class, true_class) if one is not None]
    pairs = Overlaps.none()
    with ExitStack() as stack:
        places = found, truth, *(place for place, _ in classes)
        opened = open_together(stack, places, options)
        for block in BlockGrid(opened.shape, BLOCK_SHAPE):
            ids, true_ids, *masks = (volume.read(block.write) for volume in opened.volumes)
            if classes:
                ids, true_ids = (
                    np.where(mask == label, part, 0)
                    for part, mask, (_, label) in zip((ids, true_ids), masks, classes, strict=True)
                )
            pairs += overlaps(ids, true_ids)
    return plain(asdict(score_instances(pairs)))


def labels_in(place: str) -> str:
    """Return the label image of a segmented tomogram, or the place itself."""
    if not Folder(place).exists(f"labels/{SEMANTIC}/zarr.json"):
        return place
    return f"{checked_url(place)}/labels/{SEMANTIC}"
