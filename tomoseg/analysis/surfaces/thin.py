"""Thin the places of surfaces to points at a spacing, each with its share of the surface."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from tomoseg.analysis.surfaces.link import Surfaces

Index = NDArray[np.int64]

# Of so many nearest points, a place belongs to the first on its own side of the surface.
NEAREST = 4


def scattered(keys: NDArray[np.integer]) -> NDArray[np.uint64]:
    """Return a number below 2⁶⁴ for each integer, without any order; one to one.

    Notes
    -----
    The mixing function of SplitMix64: Steele, Lea and Flood, OOPSLA 2014.

    Examples
    --------
    >>> [hex(n) for n in scattered(np.array([0, 1])).tolist()]
    ['0xe220a8397b1dcdaf', '0x910a2dec89025cc1']
    """
    mixed = keys.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def thinned(surfaces: Surfaces, priority: NDArray[np.uint64], spacing_angstrom: float) -> Index:
    """Choose places of which no two on one side of a surface are nearer than the spacing.

    Parameters
    ----------
    priority
        uint64, shape (n,): places are taken in ascending order.

    Returns
    -------
    int64, shape (m,), rows, surface by surface and ascending within each.
    """
    at, normal = surfaces.places.points_angstrom, surfaces.places.normal
    number = surfaces.number
    free = np.ones(len(at), dtype=bool)
    chosen = []
    tree = cKDTree(at) if len(at) else None
    for row in np.argsort(priority, kind="stable").tolist():
        if tree is None or not free[row]:
            continue
        chosen.append(row)
        near = np.array(tree.query_ball_point(at[row], np.nextafter(spacing_angstrom, 0)))
        same = (number[near] == number[row]) & (normal[near] @ normal[row] > 0)
        free[near[same]] = False
        free[row] = False
    rows = np.sort(np.array(chosen, dtype=np.int64))
    return rows[np.argsort(number[rows], kind="stable")]


def owners(surfaces: Surfaces, rows: Index) -> Index:
    """Return for each place the nearest chosen one on its side of its surface, int64, shape (n,).

    The result counts the chosen ones in the order of ``rows``.
    """
    places, number = surfaces.places, surfaces.number
    owner = np.zeros(len(places), np.int64)
    begins = np.searchsorted(number[rows], np.arange(1, number.max(initial=0) + 2))
    for surface, (begin, end) in enumerate(pairwise(begins), start=1):
        mine, chosen = np.flatnonzero(number == surface), rows[begin:end]
        count = min(NEAREST, len(chosen))
        tree = cKDTree(places.points_angstrom[chosen])
        near = tree.query(places.points_angstrom[mine], count)[1].reshape(len(mine), count)
        facing = np.einsum("nj,nkj->nk", places.normal[mine], places.normal[chosen[near]]) > 0
        first = facing.argmax(axis=1)
        owner[mine] = begin + near[np.arange(len(mine)), first]
    return owner
