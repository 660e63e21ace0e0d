"""The row of a picture that shows sampled membranes: slices with normals, thickness, areas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tomoseg.analysis.surfaces import SurfaceSamples
from tomoseg.core.sampling import Sampling
from tomoseg.report import panels
from tomoseg.report.panels import write
from tomoseg.report.sheet import (
    GAP,
    Box,
    Ground,
    Projection,
    Slice,
    draw_ground,
    draw_swatch,
    in_plane_nm,
    write_title,
)
from tomoseg.report.summary import ClassSummary

Floats = NDArray[np.float64]
# A normal is drawn as long as this part of its panel's width.
NORMAL_SHARE = 1 / 32
# Diameter of dots, pixels, at least and at most; between them they lie side by side.
DOT_PIXELS = (2.0, 7.0)
# The colours of thickness span these percentiles, and at least this much around 1.
THICKNESS_PERCENTILES = (2, 98)
LEAST_SPAN = 0.05
# Of so many surfaces, the largest, each has a row of its own.
LISTED = 8
HEADS = ("class; largest surfaces", "surfaces", "area, µm²", "thickness, nm")
COLUMN_ENDS = (0.52, 0.74, 1.0)
NM_UM2 = 1e6

Cuts = tuple[Sequence[Slice], Projection, Slice | None]


@dataclass(frozen=True, eq=False)
class Membranes:
    """The points on all membranes of a tomogram, as they are drawn.

    Parameters
    ----------
    points_angstrom, normals
        float64, shape (n, 3), zyx: places, Å, and outward unit vectors.
    surface
        int64, shape (n,): counted from 0 over all classes.
    thickness_share
        float64, shape (n,): thickness over the median of the class.
    spacing_angstrom
        About how far points are apart: the edge of a square of their median area.
    sampling
        The tomogram's grid.
    rows
        Colour, name, number of surfaces, area and thickness, as text: of each class, then of the
        largest surfaces, which have the colours of their points.
    """

    points_angstrom: Floats
    normals: Floats
    surface: NDArray[np.int64]
    thickness_share: Floats
    spacing_angstrom: float
    sampling: Sampling
    rows: list[tuple[str, ...]]

    @classmethod
    def of(
        cls,
        found: Sequence[SurfaceSamples],
        classes: Sequence[ClassSummary],
        sampling: Sampling,
    ) -> Membranes | None:
        """Join the samples of all classes; None if there is no point."""
        colours = {item.name: item.colour for item in classes}
        found = [one for one in found if len(one.surface)]
        if not found:
            return None
        firsts = np.cumsum([0, *(one.surface.max() for one in found)]).tolist()
        rows = [(colours[one.particles.name], *_numbers(one)) for one in found]
        palette = [to_hex(colour) for colour in panels.distinct_colours(firsts[-1])]
        areas = np.concatenate([one.area_angstrom2 for one in found])
        return cls(
            np.concatenate([one.particles.points_angstrom for one in found]),
            np.concatenate([one.particles.orientations[:, ::-1, 2] for one in found]),
            np.concatenate([one.surface - 1 + n for one, n in zip(found, firsts, strict=False)]),
            np.concatenate(
                [one.thickness_angstrom / np.median(one.thickness_angstrom) for one in found]
            ),
            float(np.sqrt(np.median(areas))),
            sampling,
            [*rows, *_largest(found, firsts, palette)],
        )

    def near(self, axis: int, index: int) -> NDArray[np.bool_]:
        """Tell which points are shown in a slice: those half a spacing from it."""
        voxels = self.sampling.to_voxels(self.points_angstrom)[:, axis]
        away = np.abs(voxels - index) * self.sampling.voxel_size_angstrom[axis]
        return np.asarray(away <= self.reach_angstrom(axis))

    def reach_angstrom(self, axis: int) -> float:
        """Return how far from a slice its points may be, Å."""
        return max(self.spacing_angstrom / 2, self.sampling.voxel_size_angstrom[axis] / 2)


def draw_membranes(
    figure: Figure,
    membranes: Membranes,
    cuts: Cuts,
    *,
    limits: tuple[float, float],
    boxes: Sequence[Box],
) -> None:
    """Draw the row.

    Parameters
    ----------
    cuts
        The picture's xy slices, of which the one with most points is drawn, its projection, and
        its xz slice if it has one.
    limits
        Grey values shown as black and white in slices.
    boxes
        Where its three panels stand.
    """
    slices, projection, side = cuts
    cut = max(slices, key=lambda one: int(membranes.near(0, one.index).sum()))
    _draw_slice(figure, membranes, cut, limits=limits, box=boxes[0])
    _draw_thickness(figure, membranes, projection, box=boxes[1])
    left, bottom, width, height = boxes[2]
    top = bottom + height
    if side is not None:
        upper = (left, bottom + height * 0.55, width, height * 0.45)
        top = _draw_slice(figure, membranes, side, limits=limits, box=upper, axis=1) - GAP / 2
    _write_numbers(figure, membranes, box=(left, bottom, width, top - bottom))


def _draw_slice(
    figure: Figure,
    membranes: Membranes,
    cut: Slice,
    *,
    limits: tuple[float, float],
    box: Box,
    axis: int = 0,
) -> float:
    """Draw a slice with the points near it and their normals; return its lower end."""
    ground = Ground.of(cut.image, None, membranes.sampling, axis=axis)
    axes = draw_ground(figure, ground, limits, box=box)
    reach = membranes.reach_angstrom(axis) / 10
    name = "zy"[axis]
    title = f"{name} = {cut.index}: points within {reach:.2g} nm with their outward normals"
    write_title(figure, axes, title)
    near = membranes.near(axis, cut.index)
    points = in_plane_nm(membranes.points_angstrom[near], membranes.sampling, axis=axis)
    arrows = np.delete(membranes.normals[near], axis, axis=1)[:, ::-1]
    colours = np.array(panels.distinct_colours(int(membranes.surface.max()) + 1))
    panels.draw_normals(
        axes,
        points,
        arrows * ground.extent_nm[1] * NORMAL_SHARE,
        colours=colours[membranes.surface[near]],
    )
    return float(axes.bbox.y0)


def _draw_thickness(
    figure: Figure, membranes: Membranes, projection: Projection, *, box: Box
) -> None:
    """Draw all points seen along z in colours of the thickness, with the scale of colours."""
    ground = Ground.of(projection.image, None, membranes.sampling)
    axes = draw_ground(figure, ground, panels.contrast_limits([ground.image]), box=box)
    write_title(figure, axes, "points of every z: thickness over the class's median")
    points = in_plane_nm(membranes.points_angstrom, membranes.sampling)
    low, high = np.percentile(membranes.thickness_share, THICKNESS_PERCENTILES).tolist()
    spacing = membranes.spacing_angstrom / 10 * axes.bbox.width / ground.extent_nm[1]
    panels.draw_values(
        axes,
        points,
        membranes.thickness_share,
        limits=(min(low, 1 - LEAST_SPAN), max(high, 1 + LEAST_SPAN)),
        size_px=float(np.clip(spacing, *DOT_PIXELS)),
    )


def _numbers(found: SurfaceSamples) -> tuple[str, str, str, str]:
    """Return name, number of surfaces, area and thickness of a class as text."""
    area = found.area_angstrom2
    mean = np.average(found.thickness_angstrom, weights=area)
    spread = np.sqrt(np.average((found.thickness_angstrom - mean) ** 2, weights=area))
    return (
        found.particles.name,
        f"{len(np.unique(found.surface)):,}",
        f"{area.sum() / 100 / NM_UM2:.3f}",
        f"{mean / 10:.1f} ± {spread / 10:.1f}",
    )


def _largest(
    found: Sequence[SurfaceSamples], firsts: Sequence[int], palette: Sequence[str]
) -> list[tuple[str, ...]]:
    """Return rows of the largest surfaces of all classes."""
    rows = []
    for one, first in zip(found, firsts, strict=False):
        for number in np.unique(one.surface)[:LISTED].tolist():
            part = one.select(one.surface == number)
            name, _, area, thickness = _numbers(part)
            colour, label = palette[first + number - 1], f"{name} {number}"
            rows.append((float(part.area_angstrom2.sum()), (colour, label, "", area, thickness)))
    return [row for _, row in sorted(rows, reverse=True)[:LISTED]]


def _write_numbers(figure: Figure, membranes: Membranes, *, box: Box) -> None:
    """Write a row a class with its colour, and how to read the panels below."""
    left, bottom, width, height = box
    key = (
        "Dots in slices: points on membranes; each surface has a colour of its own.",
        "±: how much the thickness differs from place to place.",
    )
    for number, text in enumerate(reversed(key)):
        write(figure, text, at=(left, bottom + 18 * number), size_px=13)
    step = min(34.0, (height - 18 * len(key)) / (len(membranes.rows) + 2))
    size = min(15.0, 0.6 * step)
    for number, (colour, *row) in enumerate([("", *HEADS), *membranes.rows]):
        line = bottom + height - (number + 1) * step
        write(figure, row[0], at=(left + 26, line), size_px=size, bold=not colour, longest=30)
        for text, end in zip(row[1:], COLUMN_ENDS, strict=True):
            place = (left + end * width, line)
            write(figure, text, at=place, size_px=size, align="right", bold=not colour)
        if colour:
            draw_swatch(figure, colour, at=(left, line), size_px=size)
