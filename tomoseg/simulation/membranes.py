"""Vesicles, flat cisterns, organelles and sheets, of one or two bilayers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tomoseg.core.blocks import Box
from tomoseg.simulation import shapes
from tomoseg.simulation.canvas import CELL, TRIES, Canvas, occupy, stamp
from tomoseg.simulation.shapes import MEMBRANE_HALF_ANGSTROM, Ellipsoid

SHEET_SHARE = 0.3
"""Share of the early tries that are sheets; one across the whole box seldom fits late."""


@dataclass(frozen=True)
class Membrane:
    """One membrane.

    Parameters
    ----------
    name
        Its class.
    surface
        Mid-plane of the bilayer, of the outer one if there are two.
    gap_angstrom
        Distance from the outer to the inner bilayer; 0 if there is one.
    is_closed
        Whether nothing else may be inside. A sheet is part of a surface far larger than the box,
        and has things on both sides.
    empty_depth_angstrom
        Down to which depth below the surface no crowding protein goes.
    """

    name: str
    surface: Ellipsoid
    gap_angstrom: float
    is_closed: bool
    empty_depth_angstrom: float

    @property
    def inner_face_angstrom(self) -> float:
        """Where the membrane ends inside, as a distance from its surface."""
        return -self.gap_angstrom - MEMBRANE_HALF_ANGSTROM

    @property
    def deepest_angstrom(self) -> float:
        """Down to where it takes up space, as a distance from its surface."""
        return -np.inf if self.is_closed else self.inner_face_angstrom


def paint_membranes(canvas: Canvas, draw: np.random.Generator, *, name: str) -> None:
    """Paint all membranes of a class where they touch nothing."""
    for _ in range(canvas.parameters.count(f"{name}s")):
        for attempt in range(TRIES):
            if paint_membrane(canvas, draw_membrane(canvas, draw, name=name, attempt=attempt)):
                break


def draw_membrane(
    canvas: Canvas, draw: np.random.Generator, *, name: str, attempt: int
) -> Membrane:
    """Draw a membrane, smaller with each vain attempt.

    Two bilayers are 15 to 25 nm apart, with nothing between them. Every second vesicle is empty.
    """
    is_double = name == "double_membrane"
    gap = draw.uniform(150, 250) if is_double else 0.0
    is_sheet = bool(draw.random() < SHEET_SHARE) and attempt < TRIES // 4
    if is_sheet:
        surface = draw_sheet(canvas, draw)
    else:
        surface = draw_vesicle(canvas, draw, gap=gap, scale=0.97**attempt)
    is_empty = not is_double and not is_sheet and draw.random() < 0.5
    return Membrane(name, surface, gap, not is_sheet, np.inf if is_empty else gap)


def draw_vesicle(
    canvas: Canvas, draw: np.random.Generator, *, gap: float, scale: float
) -> Ellipsoid:
    """Draw a closed surface; an organelle (two bilayers) is larger and may leave the box."""
    size = np.array(canvas.parameters.shape) * canvas.voxel
    low, high = (600, 1300) if gap else (300, 700)
    least = gap + 150
    axes = draw.uniform(low, high) * scale * draw.uniform(0.7, 1.4, 3)
    axes = np.clip(axes, least, max(least, 0.28 * size[1:].min()))
    outside = 0.4 * axes[1] if gap else 0.0
    centre = draw.uniform(-outside, size + outside)
    centre[0] = size[0] / 2 + draw.uniform(-0.3, 0.3) * canvas.parameters.slab_angstrom
    return Ellipsoid(
        shapes.triple(centre),
        shapes.triple(axes),
        turn_radians=draw.uniform(0, np.pi),
        ripple_angstrom=draw.uniform(0.02, 0.08) * float(axes.min()),
        ripple_length_angstrom=draw.uniform(2, 4) * float(axes.mean()),
        ripple_phase_radians=draw.uniform(0, 2 * np.pi),
    )


def draw_sheet(canvas: Canvas, draw: np.random.Generator) -> Ellipsoid:
    """Draw a surface that crosses the box, nearly upright, as part of a very large ellipsoid."""
    size = np.array(canvas.parameters.shape) * canvas.voxel
    radius = draw.uniform(4000, 12000)
    heading = draw.uniform(0, 2 * np.pi)
    outward = np.array([draw.normal(0, 0.2), np.sin(heading), np.cos(heading)])
    through = size * draw.uniform(0.1, 0.9, 3)
    return Ellipsoid(
        shapes.triple(through - radius * outward),
        (radius * draw.uniform(0.6, 1.2), radius, radius),
        turn_radians=0.0,
        ripple_angstrom=draw.uniform(0, 150),
        ripple_length_angstrom=draw.uniform(2500, 6000),
        ripple_phase_radians=draw.uniform(0, 2 * np.pi),
    )


def paint_membrane(canvas: Canvas, membrane: Membrane) -> bool:
    """Paint one membrane unless it touches something; tell whether it was painted.

    Of two bilayers, the space between is labelled too.
    """
    margin = 2 * MEMBRANE_HALF_ANGSTROM
    box = shapes.surface_box(membrane.surface, margin, canvas.voxel).intersect(canvas.slab)
    if box.size == 0 or touches(canvas, membrane, box):
        return False
    distance = shapes.surface_distance(membrane.surface, box, canvas.voxel)
    within = distance < MEMBRANE_HALF_ANGSTROM
    wall = within & (distance > membrane.inner_face_angstrom)
    if not wall.any():
        return False
    density = shapes.bilayer_density(distance, canvas.voxel)
    if membrane.gap_angstrom:
        inner = shapes.bilayer_density(distance + np.float32(membrane.gap_angstrom), canvas.voxel)
        np.maximum(density, inner, out=density)
    stamp(canvas, box.slices, density=density, inside=wall, name=membrane.name)
    canvas.lumen[box.slices] |= (distance < 0) & (distance > -membrane.empty_depth_angstrom)
    occupy(canvas, box, within & (distance > membrane.deepest_angstrom))
    return True


def touches(canvas: Canvas, membrane: Membrane, box: Box) -> bool:
    """Tell whether the space that a membrane takes up in a box meets an occupied cell.

    It looks at the middles of cells only, and errs on the side of touching.
    """
    cells = box.aligned((CELL,) * 3)
    distance = shapes.surface_distance(membrane.surface, cells, canvas.voxel, every=CELL)
    half_diagonal = np.sqrt(3) / 2 * CELL * canvas.voxel
    near = distance < MEMBRANE_HALF_ANGSTROM + half_diagonal
    near &= distance > membrane.deepest_angstrom - half_diagonal
    index = tuple(slice(b // CELL, e // CELL) for b, e in zip(cells.begin, cells.end, strict=True))
    return bool((near & canvas.occupied[index]).any())
