"""The volumes that a scene is painted on, and what is still free on them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomoseg.core.blocks import Box
from tomoseg.simulation.parameters import CLASSES, PhantomParameters

CELL = 4
"""Edge in voxels of a cell of the occupancy map."""

TRIES = 40
"""Places that are tried for an object before it is left out."""


@dataclass(frozen=True, eq=False)
class Canvas:
    """A sample being painted; the arrays are filled in place.

    Parameters
    ----------
    parameters
        Grid and thickness of the sample.
    matter, heavy
        float32, zyx: relative density of the specimen, and of gold and carbon.
    labels
        uint8, zyx: class, 0 is background.
    instances
        uint32, zyx: object, counted from 1 over all classes in the order of painting.
    lumen
        bool, zyx: where no crowding protein goes.
    occupied
        bool, zyx in cells of :data:`CELL` voxels: where an object is, its inside included.
    objects
        Class of each object in the order of their numbers in ``instances``.
    """

    parameters: PhantomParameters
    matter: NDArray[np.float32]
    heavy: NDArray[np.float32]
    labels: NDArray[np.uint8]
    instances: NDArray[np.uint32]
    lumen: NDArray[np.bool_]
    occupied: NDArray[np.bool_]
    objects: list[str] = field(default_factory=list)

    @classmethod
    def blank(cls, parameters: PhantomParameters) -> Canvas:
        """Return empty ice."""
        shape = parameters.shape
        return cls(
            parameters,
            matter=np.zeros(shape, dtype=np.float32),
            heavy=np.zeros(shape, dtype=np.float32),
            labels=np.zeros(shape, dtype=np.uint8),
            instances=np.zeros(shape, dtype=np.uint32),
            lumen=np.zeros(shape, dtype=bool),
            occupied=np.zeros([-(-n // CELL) for n in shape], dtype=bool),
        )

    @property
    def slab(self) -> Box:
        """The sample's part of the box."""
        begin, end = self.parameters.slab_planes
        return Box((begin, 0, 0), (end, *self.parameters.shape[1:]))

    @property
    def voxel(self) -> float:
        """Edge length of a voxel, Å."""
        return self.parameters.voxel_size_angstrom


def stamp(
    canvas: Canvas,
    where: Any,
    *,
    density: NDArray[np.float32],
    inside: NDArray[np.bool_],
    name: str,
) -> None:
    """Paint one object of a class at an index of the canvas.

    Where two densities meet the higher one stays.
    """
    canvas.matter[where] = np.maximum(canvas.matter[where], density)
    label(canvas, where, inside=inside, name=name)


def label(canvas: Canvas, where: Any, *, inside: NDArray[np.bool_], name: str) -> None:
    """Label the voxels of one object of a class; a voxel keeps its first label."""
    canvas.objects.append(name)
    free = inside & (canvas.labels[where] == 0)
    kind, number = np.uint8(CLASSES.index(name) + 1), np.uint32(len(canvas.objects))
    canvas.labels[where] = np.where(free, kind, canvas.labels[where])
    canvas.instances[where] = np.where(free, number, canvas.instances[where])


def occupy(canvas: Canvas, box: Box, inside: NDArray[np.bool_]) -> None:
    """Mark the cells that hold any of an object's voxels, given in a box of the canvas."""
    voxels = np.nonzero(inside)
    occupy_voxels(canvas, tuple(i + b for i, b in zip(voxels, box.begin, strict=True)))


def occupy_voxels(canvas: Canvas, voxels: tuple[NDArray[np.intp], ...]) -> None:
    """Mark the cells that hold any of these voxels."""
    canvas.occupied[tuple(i // CELL for i in voxels)] = True


def is_free(canvas: Canvas, box: Box, inside: NDArray[np.bool_]) -> bool:
    """Tell whether none of an object's voxels, given in a box, lies in an occupied cell."""
    voxels = np.nonzero(inside)
    cells = tuple((i + b) // CELL for i, b in zip(voxels, box.begin, strict=True))
    return not canvas.occupied[cells].any()


def clearance(canvas: Canvas) -> NDArray[np.float64]:
    """Distance of each cell of the occupancy map from what is occupied, Å.

    It is known to about a cell, and errs on the near side.
    """
    if not canvas.occupied.any():
        return np.full(canvas.occupied.shape, np.inf)
    cells = ndimage.distance_transform_edt(~canvas.occupied)
    return np.asarray((cells - 1) * CELL * canvas.voxel)


def clearance_at(
    canvas: Canvas, clearances: NDArray[np.float64], points: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Look clearances up at points, shape (n, 3), zyx, Å; −1 outside the sample."""
    voxels = np.round(points / canvas.voxel).astype(np.intp)
    inside = ((voxels >= canvas.slab.begin) & (voxels < canvas.slab.end)).all(axis=1)
    found = np.full(len(points), -1.0)
    found[inside] = clearances[tuple(voxels[inside].T // CELL)]
    return found


def draw_place(canvas: Canvas, draw: np.random.Generator) -> NDArray[np.float64]:
    """Draw a point of the sample, zyx, Å."""
    slab = canvas.slab
    return draw.uniform(np.array(slab.begin), np.array(slab.end) - 1.0) * canvas.voxel
