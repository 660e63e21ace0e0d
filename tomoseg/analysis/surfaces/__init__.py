"""Surfaces: from one class's score map to points and outward normals on its membranes.

The middle of the sheets is found a block at a time (:func:`sheet_points`); its places are then
joined into surfaces, given an outer side and thinned in one piece (:func:`sample_surfaces`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tomoseg.analysis.surfaces.contacts import Contacts, contacts
from tomoseg.analysis.surfaces.link import Surfaces, connect
from tomoseg.analysis.surfaces.settings import (
    SurfaceSettings,
    sigma_angstrom,
    surface_defaults,
    surface_factor,
    surface_halo,
)
from tomoseg.analysis.surfaces.sheets import SheetPoints, sheet_points
from tomoseg.analysis.surfaces.thin import owners, scattered, thinned
from tomoseg.core.coordinates import Particles, frames_along
from tomoseg.core.sampling import Sampling

__all__ = [
    "Contacts",
    "SheetPoints",
    "SurfaceSamples",
    "SurfaceSettings",
    "Surfaces",
    "connected_surfaces",
    "contacts",
    "sample_surfaces",
    "sheet_points",
    "surface_defaults",
    "surface_factor",
    "surface_halo",
]

Floats = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class SurfaceSamples:
    """Points on the membranes of one class in one tomogram.

    Parameters
    ----------
    particles
        The points, surface by surface; z is the outward normal, the score the strength of the
        sheet, at most 1.
    surface
        int64, shape (n,): number of the connected surface, from 1, largest first.
    area_angstrom2
        float64, shape (n,): the part of the surface nearest to the point, Å²; the points of a
        surface add up to its area.
    thickness_angstrom
        float64, shape (n,): mean distance of the label's faces over that part, Å.
    """

    particles: Particles
    surface: Index
    area_angstrom2: Floats
    thickness_angstrom: Floats

    def select(self, is_kept: NDArray[np.bool_]) -> SurfaceSamples:
        """Return the points for which a bool array, shape (n,), is true."""
        return SurfaceSamples(
            self.particles.select(is_kept),
            self.surface[is_kept],
            self.area_angstrom2[is_kept],
            self.thickness_angstrom[is_kept],
        )


def connected_surfaces(
    points: SheetPoints, *, sampling: Sampling, settings: SurfaceSettings
) -> Surfaces:
    """Join the places of a volume into surfaces with an outer side.

    Parameters
    ----------
    points
        The places of all blocks, in any order.
    sampling
        The grid of the whole score map, as given to :func:`sheet_points`.
    settings
        How the class is sampled, as given to :func:`sheet_points`.
    """
    grid = sampling.binned(surface_factor(settings, sampling))
    return connect(
        points,
        settings,
        bin_angstrom=max(grid.voxel_size_angstrom),
        sigma_angstrom=sigma_angstrom(settings, sampling),
    )


def sample_surfaces(
    found: Surfaces, *, name: str, sampling: Sampling, settings: SurfaceSettings
) -> SurfaceSamples:
    """Sample the membranes of a volume.

    Parameters
    ----------
    found
        Of :func:`connected_surfaces`.
    name
        Class of the membranes.
    sampling, settings
        As given to it.

    Returns
    -------
    Points of the largest surface first; those of a surface from its lowest slice up.

    Notes
    -----
    The threshold is multiplied by the 75th percentile of the strength, clipped to 0.25..1.2. Points
    are a Poisson-disc sample (Cook, ACM Transactions on Graphics 5 (1986) 51): places are taken in
    an order drawn from their position, unless one on the same side of the same surface is nearer
    than the spacing; the order and the roll are the same whatever the blocks.
    """
    grid = sampling.binned(surface_factor(settings, sampling))
    places = found.places
    keys = np.ravel_multi_index(tuple(places.index.T.astype(np.int64)), grid.shape)
    rows = thinned(found, scattered(keys), settings.spacing_angstrom)
    owner = owners(found, rows)
    chosen, shares = places.select(rows), places.area_angstrom2.astype(np.float64)
    area = np.asarray(np.bincount(owner, shares, minlength=len(rows)), np.float64)
    volume = np.bincount(owner, shares * places.thickness_angstrom, minlength=len(rows))
    turn = np.zeros(len(rows))
    if settings.roll == "random":
        turn = 2 * np.pi * scattered(scattered(keys[rows])).astype(np.float64) / 2.0**64
    particles = Particles(
        name,
        chosen.points_angstrom,
        np.minimum(chosen.strength.astype(np.float64), 1.0),
        frames_along(chosen.normal.astype(np.float64), turn),
    )
    return SurfaceSamples(particles, found.number[rows], area, volume / area)
