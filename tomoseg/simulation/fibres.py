"""Microtubules and actin, single and in bundles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tomoseg.core.coordinates import Filament, resample
from tomoseg.simulation import shapes
from tomoseg.simulation.canvas import (
    CELL,
    TRIES,
    Canvas,
    clearance,
    clearance_at,
    draw_place,
    occupy_voxels,
    stamp,
)

Points = NDArray[np.float64]

BUNDLE_SHARE = 0.3
"""Share of the drawn lines that may have others beside them."""


@dataclass(frozen=True)
class Fibre:
    """What sets one class of filaments apart.

    Parameters
    ----------
    count_field
        Name of the count in the parameters.
    radius_angstrom
        Outer radius, that of the label too.
    bend_per_angstrom
        Standard deviation of the curvature.
    lengths_angstrom, spacings_angstrom
        Range of lengths, and of distances between neighbours in a bundle.
    bundle_members
        Most members of a bundle.
    density
        Relative density of a tube's voxels, given their size in Å.
    """

    count_field: str
    radius_angstrom: float
    bend_per_angstrom: float
    lengths_angstrom: tuple[float, float]
    spacings_angstrom: tuple[float, float]
    bundle_members: int
    density: Callable[[shapes.Tube, float], shapes.Floats]


FIBRES = {
    "microtubule": Fibre(
        "microtubules",
        shapes.MICROTUBULE_RADIUS_ANGSTROM,
        bend_per_angstrom=1 / 15000,
        lengths_angstrom=(4000, 16000),
        spacings_angstrom=(350, 500),
        bundle_members=4,
        density=shapes.microtubule_density,
    ),
    "actin": Fibre(
        "actin_filaments",
        shapes.ACTIN_RADIUS_ANGSTROM,
        bend_per_angstrom=1 / 8000,
        lengths_angstrom=(1000, 6000),
        spacings_angstrom=(110, 160),
        bundle_members=6,
        density=shapes.actin_density,
    ),
}


def paint_filaments(canvas: Canvas, draw: np.random.Generator, *, name: str) -> list[Filament]:
    """Paint all filaments of a class, some of them in bundles, cut where they meet something."""
    fibre = FIBRES[name]
    wanted = canvas.parameters.count(fibre.count_field)
    filaments: list[Filament] = []
    clearances = clearance(canvas)
    vain = 0
    while len(filaments) < wanted and vain < TRIES:
        lines = draw_bundle(canvas, draw, fibre)[: wanted - len(filaments)]
        runs = [free_run(canvas, clearances, line, fibre) for line in lines]
        found = [resample(run, canvas.voxel) for run in runs if is_long(canvas, run, fibre)]
        for points in found:
            filaments.append(Filament(name, len(filaments) + 1, points))
            paint_filament(canvas, points, name)
        clearances = clearance(canvas) if found else clearances
        vain = 0 if found else vain + 1
    return filaments


def draw_bundle(canvas: Canvas, draw: np.random.Generator, fibre: Fibre) -> list[Points]:
    """Draw a curved line and perhaps others beside it, in two layers as a thin sample has room."""
    line = shapes.path(
        draw,
        draw_place(canvas, draw),
        length=draw.uniform(*fibre.lengths_angstrom),
        bend=fibre.bend_per_angstrom,
    )
    most = fibre.bundle_members if draw.random() < BUNDLE_SHARE else 1
    spacing = draw.uniform(*fibre.spacings_angstrom)
    lattice = [
        ((i // 2 + 0.5 * (i % 2)) * spacing, (i % 2) * 0.87 * spacing)
        for i in range(draw.integers(1, most + 1))
    ]
    return [shapes.beside(line, offset) for offset in lattice]


def free_run(canvas: Canvas, clearances: Points, line: Points, fibre: Fibre) -> Points:
    """Return a line's longest run through free places of the sample."""
    needed = fibre.radius_angstrom + CELL * canvas.voxel / 2
    return line[longest_run(clearance_at(canvas, clearances, line) > needed)]


def is_long(canvas: Canvas, run: Points, fibre: Fibre) -> bool:
    """Tell whether a run is worth keeping: half the usual least length, or a third of the box."""
    size = min(canvas.parameters.shape[1:]) * canvas.voxel
    return len(run) * shapes.STEP_ANGSTROM > min(fibre.lengths_angstrom[0] / 2, size / 3)


def longest_run(flags: NDArray[np.bool_]) -> slice:
    """Return the longest run of true values.

    Examples
    --------
    >>> longest_run(np.array([True, False, True, True, False]))
    slice(2, 4, None)
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    if not len(edges):
        return slice(0, 0)
    begins, ends = edges[::2], edges[1::2]
    best = int(np.argmax(ends - begins))
    return slice(int(begins[best]), int(ends[best]))


def paint_filament(canvas: Canvas, points: Points, name: str) -> None:
    """Paint one filament along its points, shape (n, 3), zyx, Å."""
    fibre = FIBRES[name]
    around = shapes.tube(
        points, fibre.radius_angstrom + canvas.voxel, box=canvas.slab, voxel=canvas.voxel
    )
    inside = around.radius_angstrom <= fibre.radius_angstrom
    density = fibre.density(around, canvas.voxel)
    stamp(canvas, around.index, density=density, inside=inside, name=name)
    occupy_voxels(canvas, tuple(i[inside] for i in around.index))
