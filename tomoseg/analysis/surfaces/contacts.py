"""Where membranes come close: of each surface, the area that is near another one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from tomoseg.analysis.surfaces.link import Surfaces
from tomoseg.core.columns import Columns, column

Floats = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Contacts(Columns):
    """Surfaces of one class and what is near them, a row for each pair that comes close.

    Parameters
    ----------
    surface
        int64, shape (n,): number of the surface.
    other_class
        str, shape (n,): class of the other surface.
    other_surface
        int64, shape (n,): its number in that class.
    area_angstrom2
        float64, shape (n,): the part of the first surface that is near the other, Å².
    nearest_angstrom
        float64, shape (n,): least distance of the two, Å.
    """

    surface: Index = column(np.int64)
    other_class: NDArray[np.str_] = column(np.str_)
    other_surface: Index = column(np.int64)
    area_angstrom2: Floats = column(np.float64)
    nearest_angstrom: Floats = column(np.float64)


def contacts(name: str, surfaces: Mapping[str, Surfaces], *, within_angstrom: float) -> Contacts:
    """Measure the contact zones of one class with all other surfaces.

    Parameters
    ----------
    name
        The class.
    surfaces
        Class → its surfaces, its own among them.
    within_angstrom
        Places nearer than this are in contact.

    Returns
    -------
    Rows in the order of surfaces, then of the other classes as given and their surfaces.

    Notes
    -----
    Distances are between the middles of the membranes, as in Barad et al., "Quantifying organellar
    ultrastructure in cryo-electron tomography using a surface morphometrics pipeline", J. Cell
    Biol. 222 (2023) e202204093, to the nearest place of the other surface, which stand a bin apart:
    at distance d and bins b they are too long by b² / 4d at most. What a surface has near itself
    is no contact.
    """
    mine, parts = surfaces[name], []
    for other_class, others in surfaces.items():
        for number in range(1, int(others.number.max(initial=0)) + 1):
            other = others.places.points_angstrom[others.number == number]
            away = _distances(mine.places.points_angstrom, other, within_angstrom)
            if other_class == name:
                away[mine.number == number] = np.inf
            parts.append(_pairs(mine, away, other_class, number))
    table = Contacts.concatenate(parts)
    return table.select(np.argsort(table.surface, kind="stable"))


def _distances(at: Floats, other: Floats, within: float) -> Floats:
    """Return how far places are from the nearest of others, shape (n,), inf if not within."""
    near = (at > other.min(axis=0) - within) & (at < other.max(axis=0) + within)
    is_near, away = near.all(axis=1), np.full(len(at), np.inf)
    away[is_near], _ = cKDTree(other).query(at[is_near], distance_upper_bound=within)
    return away


def _pairs(mine: Surfaces, away: Floats, other_class: str, number: int) -> Contacts:
    """Add up the places near one other surface by the surface that they are on."""
    rows = np.flatnonzero(np.isfinite(away))
    surface, owner = np.unique(mine.number[rows], return_inverse=True)
    areas, nearest = mine.places.area_angstrom2[rows], np.full(len(surface), np.inf)
    np.minimum.at(nearest, owner, away[rows])
    return Contacts(
        surface,
        np.full(len(surface), other_class),
        np.full(len(surface), number),
        np.asarray(np.bincount(owner, areas, minlength=len(surface)), np.float64),
        nearest,
    )
