"""What lies around particles: other particles, objects near by, and walls that close them in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from tomoseg.core.coordinates import Points
from tomoseg.core.sampling import Sampling, Shape

Values = NDArray[np.float64]
Ints = NDArray[np.int64]
# Voxels whose distances differ by less than this share are equally near.
TOLERANCE = 1e-9


@dataclass(frozen=True, eq=False)
class Nearest:
    """The objects of a class nearest to some points.

    Parameters
    ----------
    angstrom
        float64, shape (n,): from the point to the centre of the nearest voxel; 0 for a point in a
        voxel of an object, NaN if there is none within the limit.
    numbers
        int64, shape (n,): id of that object, the smallest of several as near; 0 if none.
    """

    angstrom: Values
    numbers: Ints


def neighbours(points_angstrom: Points, radius_angstrom: float) -> tuple[Ints, Values]:
    """Count the other points within a radius of each, and measure how far the nearest is.

    Parameters
    ----------
    points_angstrom
        float64, shape (n, 3), zyx, Å.

    Returns
    -------
    int64, shape (n,), and float64, shape (n,), Å; NaN for a point that is alone.
    """
    if len(points_angstrom) < 2:
        none = np.zeros(len(points_angstrom), np.int64)
        return none, np.full(len(points_angstrom), np.nan)
    tree = cKDTree(points_angstrom)
    counts = tree.query_ball_point(points_angstrom, radius_angstrom, return_length=True) - 1
    distances, _ = tree.query(points_angstrom, k=2)
    return np.asarray(counts, np.int64), np.asarray(distances[:, 1])


def nearest_voxels(points_angstrom: Points, sampling: Sampling) -> Ints:
    """Return the voxel nearest to each point, int64, shape (n, 3), zyx; never beyond the border."""
    nearest = np.floor(sampling.to_voxels(points_angstrom) + 0.5).astype(np.int64)
    return np.asarray(nearest.clip(0, np.array(sampling.shape) - 1))


def nearest_objects(
    objects: NDArray[Any],
    begin: Shape,
    points_angstrom: Points,
    *,
    sampling: Sampling,
    limit_angstrom: float,
) -> Nearest:
    """Find the object nearest to each point; the same whatever box was read.

    Parameters
    ----------
    objects
        Integer, shape (z, y, x): ids of a class's objects, 0 where there is none, in a box that
        reaches the limit beyond every point or ends at the volume's border.
    begin
        Index of ``objects[0, 0, 0]`` in the volume.
    sampling
        The grid of the volume.
    limit_angstrom
        An object as far as this or farther is not seen.
    """
    here = objects[tuple((nearest_voxels(points_angstrom, sampling) - begin).T)].astype(np.int64)
    found = Nearest(np.where(here > 0, 0.0, np.nan), here)
    is_object, outside = objects > 0, np.flatnonzero(here == 0)
    if not (limit_angstrom and len(outside) and is_object.any()):
        return found
    # The nearest voxel of an object that a point does not lie in is at its surface.
    surface = np.argwhere(is_object & ~ndimage.binary_erosion(is_object))
    tree, numbers = cKDTree(sampling.to_angstrom(surface + begin)), objects[tuple(surface.T)]
    distances, _ = tree.query(points_angstrom[outside], distance_upper_bound=limit_angstrom)
    is_seen = np.isfinite(distances)
    seen, distances = outside[is_seen], distances[is_seen]
    near = tree.query_ball_point(points_angstrom[seen], distances * (1 + TOLERANCE))
    found.angstrom[seen] = distances
    found.numbers[seen] = [numbers[rows].min() for rows in near]
    return found


@dataclass(frozen=True, eq=False)
class Enclosures:
    """What the objects of a class close off from the rest of the volume.

    Parameters
    ----------
    around
        Part of the volume → objects that close it in, the innermost first.
    """

    around: Mapping[int, tuple[int, ...]] = field(default_factory=dict)

    def innermost(self, parts: Ints) -> Ints:
        """Return the innermost object around each part, shape (n,); 0 for none."""
        found = [self.around.get(part, (0,))[0] for part in parts.tolist()]
        return np.array(found, np.int64)

    def sides(self, parts: Ints, objects: Ints) -> Ints:
        """Tell on which side of an object each part lies.

        Returns
        -------
        int64, shape (n,): -1 inside the object, 1 outside of one that closes something in, 0 if
        there is no object, or one that is open, or no part.
        """
        closed = {number for numbers in self.around.values() for number in numbers}
        sides = np.zeros(len(parts), np.int64)
        for row, (part, number) in enumerate(zip(parts.tolist(), objects.tolist(), strict=True)):
            if part and number in closed:
                sides[row] = -1 if number in self.around.get(part, ()) else 1
        return sides


def enclosures(
    walls: Ints, voxels: Ints, is_open: NDArray[np.bool_], *, least_voxels: float = 0
) -> Enclosures:
    """Find which parts of a volume each object closes in.

    Parameters
    ----------
    walls
        int64, shape (k, 2): part and object, counted from 1, that share a face of a voxel. The
        parts are the 6-connected components of what no object fills.
    voxels, is_open
        int64 and bool, shape (parts,): size, and whether the part reaches the volume's border.
    least_voxels
        What an object closes in counts if there is so much of it: not pits in a thick label.

    Notes
    -----
    An object closes in a part if from there no way over faces of voxels leads to the border but
    through that object; other objects are no walls to it. A hole of one voxel opens a wall, and
    so does the volume's border.
    """
    if is_open.all() or not len(walls):
        return Enclosures()
    number, border = len(voxels), 0
    # One graph: node 0 is the border, then the parts, then the objects.
    exits = np.flatnonzero(is_open) + 1
    shifted = walls + np.array([0, number])
    edges = np.concatenate([shifted, np.stack([np.full_like(exits, border), exits], axis=1)])
    inside: dict[int, Ints] = {}
    for one in np.unique(walls[~is_open[walls[:, 0] - 1], 1]).tolist():
        group = _groups(edges[edges[:, 1] != number + one], int(edges.max()) + 1)
        parts = np.flatnonzero(group[1 : number + 1] != group[border]) + 1
        if len(parts) and voxels[parts - 1].sum() >= least_voxels:
            inside[one] = parts
    # Of nested objects the inner one closes in less.
    inner_first = sorted(inside, key=lambda one: (voxels[inside[one] - 1].sum(), one))
    around: dict[int, tuple[int, ...]] = {}
    for one in inner_first:
        for part in inside[one].tolist():
            around[part] = (*around.get(part, ()), one)
    return Enclosures(around)


def _groups(edges: Ints, nodes: int) -> Ints:
    """Return the number of the connected group of each of some nodes."""
    weights = np.ones(len(edges), bool)
    graph = coo_array((weights, (edges[:, 0], edges[:, 1])), shape=(nodes, nodes))
    return np.asarray(connected_components(graph, directed=False)[1])
