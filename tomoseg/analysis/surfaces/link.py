"""From places on sheets to connected surfaces, each with an outer side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph
from scipy.spatial import cKDTree

from tomoseg.analysis.surfaces.settings import SurfaceSettings
from tomoseg.analysis.surfaces.sheets import SheetPoints

Floats = NDArray[np.float64]
Index = NDArray[np.int64]

# Neighbours on a surface are at most this many bins apart, and this many across it.
LINK_BINS = 2.0
STEP_BINS = 1.0
# Where a sheet is so many times as thick as usual, two have merged.
MERGED_THICKNESSES = 1.6
# Volumes are calibrated by this percentile of the strength, held within these bounds.
LEVEL_PERCENTILE = 75.0
LEVEL_BOUNDS = (0.25, 1.2)
# Below this share of the extent the normals of a surface point neither in nor out: it is flat.
FLAT_SHARE = 0.02
NM2 = 100.0


@dataclass(frozen=True, eq=False)
class Surfaces:
    """The connected surfaces of a volume.

    Parameters
    ----------
    places
        The places on them, by bin in C order; normals point outwards.
    number
        int64, shape (n,): the surface of each place, from 1, largest first.
    """

    places: SheetPoints
    number: Index

    def select(self, is_kept: NDArray[np.bool_]) -> Surfaces:
        """Return the places for which a bool array, shape (n,), is true."""
        return Surfaces(self.places.select(is_kept), self.number[is_kept])


def connect(
    points: SheetPoints, settings: SurfaceSettings, *, bin_angstrom: float, sigma_angstrom: float
) -> Surfaces:
    """Join places into surfaces and turn the normals of each to its outer side.

    Parameters
    ----------
    points
        The places of all blocks, in any order.
    bin_angstrom
        The longest edge of a bin of the working grid.
    sigma_angstrom
        Width of the Gaussian under the sheet filter.

    Notes
    -----
    Neighbours are joined if their normals agree and neither lies above the other. Places where the
    sheet is far thicker than the volume's usual are left out: where two membranes touch
    face to face, nothing tells which is whose, and one on which another ends is cut there.

    Signs follow the spanning tree of the least change of direction (Hoppe et al., SIGGRAPH 1992).
    A surface's outer side is where its normals lead away from its centroid on the whole: the
    outside of what is closed, the convex side of what is open; what is flat faces along +z, or the
    axis that it faces most. Smoothing with σ shrinks what is curved; areas grow by 1 + σ²K²/2 for
    that, K being the sum of the principal curvatures.
    """
    places = _strong(points, settings)
    links = _links(places, settings, bin_angstrom)
    places, number, links = _large(places, links, settings)
    if not len(places):
        return Surfaces(places, number)
    normal = places.normal.astype(np.float64)
    normal *= _signs(normal, number, links)[:, None]
    normal *= _outward(places, normal, number)[number - 1, None]
    normal = _averaged(normal, links)
    bend = _bend(places, normal, links)
    area = places.area_angstrom2 * (1 + (sigma_angstrom * bend) ** 2 / 2)
    return Surfaces(places.with_normals(normal, area), number)


def _strong(points: SheetPoints, settings: SurfaceSettings) -> SheetPoints:
    """Sort the places and drop what is weak or as thick as two sheets."""
    points = points.select(np.lexsort(points.index.T[::-1]))
    if not len(points):
        return points
    level = np.clip(np.percentile(points.strength, LEVEL_PERCENTILE), *LEVEL_BOUNDS)
    points = points.select(points.strength >= settings.threshold * level)
    thickness = points.thickness_angstrom
    measured = np.isfinite(thickness)
    usual = np.median(thickness[measured]) if measured.any() else 0.0
    return points.select(measured & (thickness <= MERGED_THICKNESSES * usual))


def _links(places: SheetPoints, settings: SurfaceSettings, bin_angstrom: float) -> Index:
    """Return the pairs of neighbours on a surface, int64, shape (m, 2)."""
    if not len(places):
        return np.zeros((0, 2), np.int64)
    at, normal = places.points_angstrom, places.normal.astype(np.float64)
    pairs: Index = cKDTree(at).query_pairs(LINK_BINS * bin_angstrom, output_type="ndarray")
    one, two = pairs.T
    apart = at[two] - at[one]
    across = [np.abs((apart * normal[each]).sum(axis=1)) for each in (one, two)]
    agree = np.abs((normal[one] * normal[two]).sum(axis=1))
    keep = (np.maximum(*across) <= STEP_BINS * bin_angstrom) & (
        agree >= np.cos(np.deg2rad(settings.link_degrees))
    )
    return np.asarray(pairs[keep])


def _large(
    places: SheetPoints, links: Index, settings: SurfaceSettings
) -> tuple[SheetPoints, Index, Index]:
    """Drop small surfaces and give the others numbers, by area."""
    count, part = csgraph.connected_components(_graph(links, np.ones(len(links)), len(places)))
    areas = np.bincount(part, places.area_angstrom2, minlength=count)
    order = np.argsort(-areas, kind="stable")
    kept = order[areas[order] >= settings.minimum_area_nm2 * NM2]
    number = np.zeros(count, np.int64)
    number[kept] = np.arange(1, len(kept) + 1)
    number = number[part]
    row = np.cumsum(number > 0) - 1
    return (
        places.select(number > 0),
        number[number > 0],
        row[links[number[links[:, 0]] > 0]],
    )


def _signs(normal: Floats, number: Index, links: Index) -> Floats:
    """Return 1 or −1 a place, so that neighbours' normals agree within each surface."""
    agree = (normal[links[:, 0]] * normal[links[:, 1]]).sum(axis=1)
    # A weight of 0 would be no link at all.
    tree = csgraph.minimum_spanning_tree(_graph(links, 1.001 - np.abs(agree), len(normal)))
    # A root that is the neighbour of the first place of every surface.
    _, first = np.unique(number, return_index=True)
    root = len(normal)
    one, two = tree.nonzero()
    rooted = np.concatenate(
        [np.stack([one, two], 1), np.stack([np.full_like(first, root), first], 1)]
    )
    _, parent = csgraph.breadth_first_order(
        _graph(rooted, np.ones(len(rooted)), root + 1), root, directed=False
    )
    parent[root] = root
    above = np.vstack([normal, np.zeros((1, 3))])
    signs = np.where((above * above[parent]).sum(axis=1) < 0, -1.0, 1.0)
    # Every place takes over its parent's sign, then that of the parent's parent's parent, ...
    while (parent != root).any():
        signs, parent = signs * signs[parent], parent[parent]
    return signs[:-1]


def _outward(places: SheetPoints, normal: Floats, number: Index) -> Floats:
    """Return 1 or −1 a surface: whether its normals point to its outer side."""
    count = number.max()
    area = places.area_angstrom2.astype(np.float64)

    def total(values: Floats) -> Floats:
        return np.asarray(np.bincount(number - 1, values * area, minlength=count), np.float64)

    whole = total(np.ones(len(number)))
    centre = np.stack([total(axis) / whole for axis in places.points_angstrom.T], axis=1)
    away = places.points_angstrom - centre[number - 1]
    bulge = total((away * normal).sum(axis=1)) / total(np.linalg.norm(away, axis=1))
    facing = np.stack([total(axis) for axis in normal.T], axis=1)
    most = np.abs(facing).argmax(axis=1)
    side = np.where(np.abs(bulge) < FLAT_SHARE, facing[np.arange(count), most], bulge)
    return np.where(side < 0, -1.0, 1.0)


def _averaged(normal: Floats, links: Index) -> Floats:
    """Return unit means of the normals over each place and its neighbours."""
    near = _graph(links, np.ones(len(links)), len(normal))
    mean = normal + (near + near.T) @ normal
    length = np.linalg.norm(mean, axis=1, keepdims=True)
    return np.where(length > 0, mean / np.where(length > 0, length, 1), normal)


def _bend(places: SheetPoints, normal: Floats, links: Index) -> Floats:
    """Return the sum of the principal curvatures at each place, 1/Å, 0 where it has no neighbour.

    Over all directions in the surface, the curvature of a normal section is half of it on average.
    """
    one, two = links.T
    apart = places.points_angstrom[two] - places.points_angstrom[one]
    turn = (apart * (normal[two] - normal[one])).sum(axis=1) / (apart**2).sum(axis=1)
    near = _graph(links, np.ones(len(links)), len(normal))
    turns = _graph(links, turn, len(normal))
    count = near.sum(axis=0) + near.sum(axis=1)
    return np.asarray(2 * (turns.sum(axis=0) + turns.sum(axis=1)) / np.maximum(count, 1))


def _graph(links: Index, weights: Floats, count: int) -> sparse.csr_array:
    return sparse.csr_array((weights, links.T), shape=(count, count))
