"""What lies around picked particles, read from the objects a block at a time.

Two passes over the blocks, whose sidecars the driver puts together by the particles' rows:

    around    blocks with a particle, read as far around as is looked: distance and id of the
              nearest object of each class, and the object that the particle lies in
    walls     every block, for classes of membranes: which part of what they leave free each
              particle lies in, and which parts and membranes touch
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tomoseg.analysis.labels import Merged
from tomoseg.analysis.particles.surroundings import (
    Enclosures,
    Ints,
    Nearest,
    enclosures,
    nearest_objects,
    nearest_voxels,
)
from tomoseg.core.blocks import Block, BlockGrid, Box
from tomoseg.core.classes import is_membrane
from tomoseg.core.coordinates import Points
from tomoseg.core.sampling import Sampling, as_shape
from tomoseg.io.stores import Ledger, Volume
from tomoseg.pipeline.stages.clean import IMAGES, Components, connected, send_lookups
from tomoseg.pipeline.stages.context import Context, receipt_name

POINTS = "points"
# Points are looked around together in cells of so many voxels, to bound what is read at once.
CELL = 256


@dataclass(frozen=True, eq=False)
class Objects:
    """The objects of one class around some points, each array of shape (n,).

    ``nearest`` are the nearest ones within a limit; ``here``, int64, is the id of the object that
    the point's voxel belongs to, 0 for none.
    """

    nearest: Nearest
    here: Ints

    def select(self, rows: Ints) -> Objects:
        """Return those around the points at these rows."""
        near = Nearest(self.nearest.angstrom[rows], self.nearest.numbers[rows])
        return Objects(near, self.here[rows])


@dataclass(frozen=True, eq=False)
class Around:
    """What lies around some points.

    Parameters
    ----------
    objects
        By class.
    membranes
        The classes whose distance is told.
    walls
        By class of membranes: what its objects close in, and int64, shape (n,): the part of what
        they leave free that each point lies in, 0 in an object.
    """

    objects: Mapping[str, Objects]
    membranes: tuple[str, ...] = ()
    walls: Mapping[str, tuple[Enclosures, Ints]] = field(default_factory=dict)

    def select(self, rows: Ints) -> Around:
        """Return what lies around the points at these rows."""
        return Around(
            {name: one.select(rows) for name, one in self.objects.items()},
            self.membranes,
            {name: (found, part[rows]) for name, (found, part) in self.walls.items()},
        )

    def table(self, limit_angstrom: float) -> dict[str, NDArray[Any]]:
        """Return the columns of the points' table, membranes as far as the limit.

        ``<membrane>_angstrom`` is the distance to the nearest membrane, ``_object`` its id and
        ``_side`` -1, with a negative distance, where it closes the point in, 1 where it closes in
        something else, and 0 where its distance has no sign; ``inside_<membrane>`` is the
        innermost one that closes the point in, ``in_<class>`` the object of that class in whose
        voxel the point lies.
        """
        columns: dict[str, NDArray[Any]] = {}
        for name in self.membranes:
            near, (found, part) = self.objects[name].nearest, self.walls[name]
            is_near = near.angstrom < limit_angstrom
            numbers = np.where(is_near, near.numbers, 0)
            sides = found.sides(part, numbers)
            signed = np.where(sides < 0, -near.angstrom, near.angstrom)
            columns[f"{name}_angstrom"] = np.where(is_near, signed, np.nan)
            columns[f"{name}_object"] = numbers
            columns[f"{name}_side"] = sides
            columns[f"inside_{name}"] = found.innermost(part)
        return columns | {f"in_{name}": one.here for name, one in self.objects.items()}


def look_around(context: Context, ledger: Ledger, points_angstrom: Points) -> Around:
    """Find what the settings of the picked classes ask for around all their candidates.

    Parameters
    ----------
    points_angstrom
        float64, shape (n, 3), zyx, Å.
    """
    picked = (context.recipe.pick or {}).values()
    furthest = max((one.surroundings_angstrom for one in picked), default=0.0)
    limits = dict.fromkeys(context.classes if furthest else (), 0.0)
    membranes = tuple(name for name in limits if is_membrane(name))
    limits |= dict.fromkeys(membranes, furthest)
    for one in picked:
        for name, angstrom in one.exclude.items():
            limits[name] = max(angstrom, limits.get(name, 0.0))
    objects = objects_around(context, ledger, points_angstrom, limits) if limits else {}
    # What holds no particle that was looked for is a pit in a label, not a compartment.
    least = min((one.label_nm3(context.sampling()) for one in picked), default=0.0)
    return Around(objects, membranes, _walls(context, ledger, membranes, points_angstrom, least))


def _walls(
    context: Context,
    ledger: Ledger,
    membranes: tuple[str, ...],
    points_angstrom: Points,
    least_nm3: float,
) -> dict[str, tuple[Enclosures, Ints]]:
    """Find what the membranes close in, where there are any and points to ask for."""
    nothing = Enclosures(), np.zeros(len(points_angstrom), np.int64)
    there = context.summary("clean")["classes"] if membranes and len(points_angstrom) else {}
    some = tuple(name for name in membranes if there and there[name]["objects"])
    found = enclosing_walls(context, ledger, some, least_nm3=least_nm3) if some else {}
    return {name: found.get(name, nothing) for name in membranes}


def objects_around(
    context: Context, ledger: Ledger, points_angstrom: Points, limits_angstrom: Mapping[str, float]
) -> dict[str, Objects]:
    """Find the nearest object of each class within its limit, and the one that each point is in.

    Parameters
    ----------
    points_angstrom
        float64, shape (n, 3), zyx, Å.
    limits_angstrom
        Class → Å; with 0 no object is near.
    """
    ledger.write_arrays(POINTS, {"points_angstrom": points_angstrom})
    objects = ClassObjects.of(context, limits_angstrom)
    work = LookAround(ledger, context.sampling(), objects, dict(limits_angstrom))
    grid = BlockGrid(context.sampling().shape, context.recipe.blocks.shape)
    voxels = nearest_voxels(points_angstrom, context.sampling())
    wanted = np.zeros(grid.counts, np.bool_)
    wanted[tuple((voxels // grid.block_shape).T)] = True
    names = context.run_pass(ledger, "around", work, grid, wanted=wanted.ravel())
    number = len(points_angstrom)
    found = {
        name: Objects(
            Nearest(np.full(number, np.nan), np.zeros(number, np.int64)),
            np.zeros(number, np.int64),
        )
        for name in limits_angstrom
    }
    for arrays in ledger.read_all_arrays(names):
        for name, one in found.items():
            rows = arrays["rows"]
            one.nearest.angstrom[rows] = arrays[f"{name}.angstrom"]
            one.nearest.numbers[rows] = arrays[f"{name}.numbers"]
            one.here[rows] = arrays[f"{name}.here"]
    return found


@dataclass(frozen=True)
class ClassObjects:
    """The objects of some classes among those of all.

    Parameters
    ----------
    semantic, instances
        The label images.
    labels
        Class → label.
    """

    semantic: Volume
    instances: Volume
    labels: Mapping[str, int]

    @classmethod
    def of(cls, context: Context, names: Iterable[str]) -> Self:
        """Return those of a cleaned tomogram."""
        semantic, instances = (context.volume(context.label_path(image)) for image in IMAGES)
        return cls(semantic, instances, {name: context.label(name) for name in names})

    def read(self, box: Box) -> Iterator[tuple[str, NDArray[np.uint32]]]:
        """Yield each class and its ids, uint32, zyx, 0 where there is none of it."""
        labels, ids = self.semantic.read(box), self.instances.read(box)
        for name, label in self.labels.items():
            yield name, np.where(labels == label, ids, 0)


@dataclass(frozen=True)
class LookAround:
    """Look around the points in one block; pickles small."""

    ledger: Ledger
    sampling: Sampling
    objects: ClassObjects
    limits_angstrom: Mapping[str, float]

    def __call__(self, block: Block) -> Mapping[str, Any]:
        """Write a block's sidecar, with the rows of its points."""
        points, rows = points_in(self.ledger, block, self.sampling)
        columns: dict[str, list[NDArray[Any]]] = {"rows": []}
        for cell in _cells(nearest_voxels(points, self.sampling)):
            columns["rows"].append(rows[cell])
            for key, values in self._around(points[cell]):
                columns.setdefault(key, []).append(values)
        arrays = {key: np.concatenate(values) for key, values in columns.items()}
        self.ledger.write_arrays(receipt_name("around", block), arrays)
        return {"points": len(rows)}

    def _around(self, points: Points) -> Iterator[tuple[str, NDArray[Any]]]:
        """Yield column and values of each class, from one reading as far as any is looked for."""
        voxels, furthest = nearest_voxels(points, self.sampling), max(self.limits_angstrom.values())
        reach = as_shape(ceil(furthest / size) + 1 for size in self.sampling.voxel_size_angstrom)
        box = Box(as_shape(voxels.min(axis=0)), as_shape(voxels.max(axis=0) + 1))
        box = box.grow(reach).clip(self.sampling.shape)
        for name, objects in self.objects.read(box):
            near = nearest_objects(
                objects,
                box.begin,
                points,
                sampling=self.sampling,
                limit_angstrom=self.limits_angstrom[name],
            )
            here = objects[tuple((voxels - box.begin).T)].astype(np.int64)
            for key, values in {**vars(near), "here": here}.items():
                yield f"{name}.{key}", values


def points_in(ledger: Ledger, block: Block, sampling: Sampling) -> tuple[Points, Ints]:
    """Return the points whose voxel a block owns, and their rows."""
    points = ledger.read_arrays(POINTS)["points_angstrom"]
    voxels = nearest_voxels(points, sampling)
    inside = (voxels >= block.write.begin) & (voxels < block.write.end)
    rows = np.flatnonzero(inside.all(axis=1))
    return points[rows], rows


def _cells(voxels: Ints) -> Iterator[Ints]:
    """Yield the rows of the points of each cell that has any."""
    _, cell = np.unique(voxels // CELL, axis=0, return_inverse=True)
    for number in range(int(cell.max(initial=-1)) + 1):
        yield np.flatnonzero(cell.reshape(-1) == number)


def enclosing_walls(
    context: Context, ledger: Ledger, classes: tuple[str, ...], *, least_nm3: float
) -> dict[str, tuple[Enclosures, Ints]]:
    """Find what the objects of some classes close in, and the parts that the points lie in.

    The points are those of :func:`objects_around`, which comes first.

    Parameters
    ----------
    least_nm3
        What an object must close in to count as closed.

    Returns
    -------
    By class, the enclosures, and int64, shape (n,): the part of each point, 0 in an object.
    """
    grid = BlockGrid(context.sampling().shape, context.recipe.blocks.shape)
    semantic = context.volume(context.label_path("semantic"))
    labels = {name: context.label(name) for name in classes}
    parts = Components(ledger, "free", semantic, 6, labels)
    merged = connected(context, ledger, parts, grid)
    send_lookups(ledger, "free", merged, grid)
    work = FindWalls(parts, context.sampling(), ClassObjects.of(context, classes))
    receipts = list(context.run_pass(ledger, "walls", work, grid))
    least = least_nm3 / context.sampling().voxel_volume_nm3
    return {
        name: _enclosing(ledger, receipts, name, merged[name], (context.sampling(), least))
        for name in classes
    }


def _enclosing(
    ledger: Ledger, receipts: list[str], name: str, merged: Merged, least: tuple[Sampling, float]
) -> tuple[Enclosures, Ints]:
    sampling, least_voxels = least
    part = np.zeros(len(ledger.read_arrays(POINTS)["points_angstrom"]), np.int64)
    walls = [np.zeros((0, 2), np.int64)]
    for arrays in ledger.read_all_arrays(receipts):
        part[arrays["rows"]] = arrays[f"{name}.part"]
        walls.append(arrays[f"{name}.walls"])
    table, axes = merged.table, slice(1 if sampling.is_flat else 0, None)
    is_open = (table.begin == 0) | (table.end == sampling.shape)
    found = enclosures(
        np.unique(np.concatenate(walls), axis=0),
        table.voxels,
        is_open[:, axes].any(axis=1),
        least_voxels=least_voxels,
    )
    return found, part


@dataclass(frozen=True)
class FindWalls:
    """Find in one block which free parts touch which objects, and the parts of its points."""

    parts: Components
    sampling: Sampling
    objects: ClassObjects

    def __call__(self, block: Block) -> Mapping[str, Any]:
        """Write a block's sidecar, with the rows of its points."""
        ledger, write = self.parts.ledger, block.write
        points, rows = points_in(ledger, block, self.sampling)
        places = tuple((nearest_voxels(points, self.sampling) - write.begin).T)
        semantic = self.parts.source.read(write)
        lookups = ledger.read_arrays(receipt_name("free-lookup", block))
        arrays: dict[str, NDArray[Any]] = {"rows": rows}
        around = write.grow((1, 1, 1)).clip(self.sampling.shape)
        for name, objects in self.objects.read(around):
            local = self.parts.local(semantic, self.parts.parts[name])
            free = lookups[name][local].astype(np.int64)
            arrays[f"{name}.part"] = free[places]
            arrays[f"{name}.walls"] = _touching(free, write, objects, around)
        ledger.write_arrays(receipt_name("walls", block), arrays)
        return {}


def _touching(free: Ints, write: Box, objects: NDArray[Any], around: Box) -> Ints:
    """Return the pairs, int64, shape (k, 2), of a part and an object that share a face."""
    pairs = [np.zeros((0, 2), np.int64)]
    for axis in range(3):
        for step in (-1, 1):
            shift = as_shape(step * (a == axis) for a in range(3))
            there = write.shift(shift).intersect(around)
            part = free[there.shift(as_shape(-s for s in shift)).within(write).slices]
            other = objects[there.within(around).slices]
            both = (part > 0) & (other > 0)
            found = np.stack([part[both], other[both].astype(np.int64)], axis=1)
            pairs.append(np.unique(found, axis=0))
    return np.unique(np.concatenate(pairs), axis=0)
