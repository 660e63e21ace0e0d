"""Points: particle centres drawn as balls, with a rim about which nothing is said.

distance    0        core·r    rim·r
            |— class —|— 255 —|— background, or 255 where not all were picked

Later layers cover earlier ones: rims, clicks on nothing, contamination, particles.
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
from tomoseg.core.sampling import Sampling, as_shape
from tomoseg.io.discovery import discover
from tomoseg.io.volumes.sources import companion_url
from tomoseg.training.annotations.settings import Annotation, PointsAnnotation
from tomoseg.training.annotations.tables import holds_lines, read_points
from tomoseg.training.annotations.tomogram import SeenTomogram, SeenTomograms
from tomoseg.training.annotations.volume import LabelledTomogram, file_name, judged_labels
from tomoseg.training.annotations.voxels import Voxels


def point_volumes(
    annotation: PointsAnnotation, tomograms: SeenTomograms
) -> Iterator[LabelledTomogram]:
    """Yield the tomograms with balls drawn on them.

    Raises
    ------
    RequestError, FormatError
        If a table is missing, is empty, or has a position outside; the tomogram is named.
    """
    for found in discover(annotation.tomograms):
        tomogram = tomograms.open(found, annotation.source)
        try:
            yield _drawn(annotation, tomogram, tomograms)
        except TomosegError as error:
            raise error.within(tomogram=found.name) from error


def particle_radii(annotations: Iterable[Annotation]) -> dict[str, tuple[float, float]]:
    """Return (radius, radius of the label) in Å of classes that are particles in annotations.

    Not of what is drawn along centre lines, nor of contamination; of a class that is drawn twice
    the first.
    """
    radii: dict[str, tuple[float, float]] = {}
    for one in annotations:
        if isinstance(one, PointsAnnotation) and not _are_lines(one):
            radii.setdefault(one.class_name, (one.radius_angstrom, one.label_radius_angstrom))
    return radii


def _are_lines(annotation: PointsAnnotation) -> bool:
    first = discover(annotation.tomograms)[0]
    return holds_lines(companion_url(annotation.table, first))


def _drawn(
    annotation: PointsAnnotation, tomogram: SeenTomogram, tomograms: SeenTomograms
) -> LabelledTomogram:
    grid = tomogram.grid
    classes = tomograms.settings.classes
    balls = _balls(annotation, tomogram, classes)
    is_complete = annotation.elsewhere == "background"
    draw = _BallLabels(grid, 0 if is_complete else NOT_ANNOTATED, tuple(balls))
    whole = Box.whole(grid.shape)
    known = (ball.near(whole, grid) for ball in balls if ball.label != NOT_ANNOTATED)
    return LabelledTomogram(
        name=f"{tomogram.name} {file_name(companion_url(annotation.table, tomogram.found))}",
        scene=tomogram,
        judged=judged_labels(annotation.classes, classes),
        annotated=(whole,) if is_complete else tuple(box for near in known for _, box in near),
        weight=annotation.weight or 1.0,
        painted=Voxels(grid.shape, np.uint8, draw, tomograms.memory),
    )


def _balls(
    annotation: PointsAnnotation, tomogram: SeenTomogram, classes: Sequence[str]
) -> list[_Balls]:
    """Return the layers in the order in which they are drawn."""
    radius = annotation.radius_angstrom
    core, rim = annotation.core * radius, annotation.rim * radius
    if core < tomogram.grid.voxel_angstrom:
        raise RequestError(
            f"balls of {annotation.class_name} of {core:.4g} Å are smaller than a voxel of "
            f"{tomogram.grid.voxel_angstrom:.4g} Å",
            remedy="Correct radius_angstrom, which is in Å, or core, the share of it.",
        )

    def clicks(pattern: str, name: str | None = None) -> Points:
        return read_points(companion_url(pattern, tomogram.found), tomogram, class_name=name)

    found = {annotation.class_name: clicks(annotation.table, annotation.class_name)}
    if annotation.contamination_table:
        name = annotation.contamination_class
        found = {name: clicks(annotation.contamination_table, name), **found}
    drawn = [_Balls(points, rim, NOT_ANNOTATED) for points in found.values()]
    if annotation.background_table:
        drawn.append(_Balls(clicks(annotation.background_table), radius, 0))
    drawn += [_Balls(points, core, classes.index(name) + 1) for name, points in found.items()]
    return drawn


@dataclass(frozen=True, eq=False)
class _Balls:
    """Balls of one label.

    ``points_angstrom`` is float64, shape (n, 3), zyx, in the tomogram's frame.
    """

    points_angstrom: Points
    radius_angstrom: float
    label: int

    def near(self, box: Box, grid: Sampling) -> Iterator[tuple[Points, Box]]:
        """Yield the centre of each ball that reaches into a box, and the part around it."""
        centres = grid.to_voxels(self.points_angstrom)
        reach = self.radius_angstrom / np.array(grid.voxel_size_angstrom)
        begin = np.maximum(np.ceil(centres - reach), box.begin)
        end = np.minimum(np.floor(centres + reach) + 1, box.end)
        for number in np.flatnonzero((begin < end).all(axis=1)):
            yield self.points_angstrom[number], Box(as_shape(begin[number]), as_shape(end[number]))


@dataclass(frozen=True, eq=False)
class _BallLabels:
    """Draws the labels of a box: later balls over earlier ones, over ``elsewhere``."""

    grid: Sampling
    elsewhere: int
    balls: tuple[_Balls, ...]

    def __call__(self, box: Box) -> NDArray[np.uint8]:
        """Return uint8, ``box.shape``."""
        labels = np.full(box.shape, self.elsewhere, np.uint8)
        for balls in self.balls:
            for centre, part in balls.near(box, self.grid):
                inside = self._distances(part, centre) <= balls.radius_angstrom
                labels[part.within(box).slices][inside] = balls.label
        return labels

    def _distances(self, box: Box, point: Points) -> NDArray[np.float64]:
        """Return the distance of each voxel of a box from a point, Å."""
        corners = self.grid.to_angstrom([box.begin, box.end])
        squares = [
            (np.linspace(b, e, n, endpoint=False) - centre) ** 2
            for b, e, n, centre in zip(*corners, box.shape, point, strict=True)
        ]
        z, y, x = np.ix_(*squares)
        return np.asarray(np.sqrt(z + y + x))
