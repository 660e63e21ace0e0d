"""Vesicles, flat cisterns, organelles and sheets, of one or two bilayers."""

from __future__ import annotations

import numpy as np

from tomoseg.blocks import Box
from tomoseg.phantom import shapes
from tomoseg.phantom.canvas import CELL, TRIES, Canvas, occupy, stamp
from tomoseg.phantom.shapes import MEMBRANE_HALF_ANGSTROM, Ellipsoid

SHEET_SHARE = 0.3


def paint_membranes(canvas: Canvas, draw: np.random.Generator, *, name: str) -> None:
    """Paint all membranes of a class where they touch nothing.

    Two bilayers are 15 to 25 nm apart. Each vain try is a little smaller than the one before.
    """
    for _ in range(canvas.parameters.count(f"{name}s")):
        gap = draw.uniform(150, 250) if name == "double_membrane" else 0.0
        for attempt in range(TRIES):
            # A sheet across the whole box seldom fits late, so that late tries are vesicles.
            is_sheet = draw.random() < SHEET_SHARE and attempt < TRIES // 4
            draw_surface = draw_sheet if is_sheet else draw_vesicle
            surface = draw_surface(canvas, draw, gap=gap, scale=0.97**attempt)
            if paint_membrane(canvas, draw, surface, gap=gap, name=name):
                break


def draw_vesicle(
    canvas: Canvas, draw: np.random.Generator, *, gap: float, scale: float
) -> Ellipsoid:
    """Draw a closed surface; an organelle (two bilayers) is larger and may leave the box."""
    size = np.array(canvas.parameters.shape) * canvas.voxel
    low, high = (600, 1300) if gap else (300, 700)
    axes = draw.uniform(low, high) * scale * draw.uniform(0.7, 1.4, 3)
    axes = np.clip(axes, gap + 150, max(gap + 150, 0.28 * size[1:].min()))
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


def draw_sheet(canvas: Canvas, draw: np.random.Generator, *, gap: float, scale: float) -> Ellipsoid:
    """Draw a surface that crosses the whole box, as part of a very large ellipsoid."""
    size = np.array(canvas.parameters.shape) * canvas.voxel
    radius = draw.uniform(4000, 12000)
    heading = draw.uniform(0, 2 * np.pi)
    lean = draw.normal(0, 0.2)
    outward = np.array([np.sin(lean), np.sin(heading), np.cos(heading)])
    through = size * draw.uniform(0.1, 0.9, 3)
    return Ellipsoid(
        shapes.triple(through - radius * outward),
        (radius * draw.uniform(0.6, 1.2), radius, radius),
        turn_radians=0.0,
        ripple_angstrom=draw.uniform(0, 150) * scale,
        ripple_length_angstrom=draw.uniform(2500, 6000),
        ripple_phase_radians=draw.uniform(0, 2 * np.pi),
    )


def paint_membrane(
    canvas: Canvas, draw: np.random.Generator, surface: Ellipsoid, *, gap: float, name: str
) -> bool:
    """Paint one membrane unless it touches something; tell whether it was painted.

    The surface is the mid-plane of the outer bilayer, the inner one is ``gap`` Å inside. Both and
    the space between are labelled. The inside of a closed membrane counts as occupied; that of
    every second vesicle and the space between two bilayers stay free of crowding.
    """
    margin = 2 * MEMBRANE_HALF_ANGSTROM
    box = shapes.surface_box(surface, margin, canvas.voxel).intersect(canvas.slab)
    if box.size == 0:
        return False
    is_sheet = max(surface.semi_axes) > np.max(canvas.parameters.shape) * canvas.voxel
    inner_face = -gap - MEMBRANE_HALF_ANGSTROM
    deepest = inner_face if is_sheet else -np.inf
    if touches(canvas, surface, box, deepest):
        return False
    distance = shapes.surface_distance(surface, box, canvas.voxel)
    within = distance < MEMBRANE_HALF_ANGSTROM
    taken, wall = within & (distance > deepest), within & (distance > inner_face)
    if not wall.any():
        return False
    density = shapes.bilayer_density(distance, canvas.voxel)
    if gap:
        density = np.maximum(
            density, shapes.bilayer_density(distance + np.float32(gap), canvas.voxel)
        )
    stamp(canvas, box.slices, density=density, inside=wall, name=name)
    if gap or draw.random() < 0.5:
        canvas.lumen[box.slices] |= taken & (distance < 0) & (distance > -(gap or np.inf))
    occupy(canvas, box, taken)
    return True


def touches(canvas: Canvas, surface: Ellipsoid, box: Box, deepest: float) -> bool:
    """Tell whether what is between a membrane's outer face and a depth meets an occupied cell.

    It looks at the middles of cells only, and errs on the side of touching.
    """
    cells = box.aligned((CELL,) * 3)
    distance = shapes.surface_distance(surface, cells, canvas.voxel, every=CELL)
    half_diagonal = np.sqrt(3) / 2 * CELL * canvas.voxel
    near = distance < MEMBRANE_HALF_ANGSTROM + half_diagonal
    near &= distance > deepest - half_diagonal
    index = tuple(slice(b // CELL, e // CELL) for b, e in zip(cells.begin, cells.end, strict=True))
    return bool((near & canvas.occupied[index]).any())
