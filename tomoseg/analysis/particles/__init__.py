"""Particles: centres from peaks of a score map, or from the basins or components of labels.

Peaks are found a block at a time (:mod:`.peaks`) as maxima of a difference of Gaussians that
answers to balls of the particle's size; basins (:mod:`.watershed`) as what belongs to each top of
the distance to the label's edge: with both, particles that touch are still two. Each top and peak
belongs to the block that holds its voxel, and the strongest of those nearer than a distance is
kept for the whole volume at once, as are all other limits (:mod:`.limits`). What lies around the
particles is told by :mod:`.surroundings`.
In a micrograph, a tomogram of one slice, a particle is a disc: the same filters in two dimensions.
"""

from tomoseg.analysis.particles.limits import (
    Picks,
    are_best,
    near_border,
    pick_components,
    suppress,
)
from tomoseg.analysis.particles.peaks import (
    Peaks,
    candidate_peaks,
    pick_peaks,
    picking_factor,
    picking_halo,
)
from tomoseg.analysis.particles.settings import PickingSettings
from tomoseg.analysis.particles.watershed import (
    Basins,
    basin_factor,
    basin_halo,
    candidate_basins,
    pick_basins,
)

__all__ = [
    "Basins",
    "Peaks",
    "PickingSettings",
    "Picks",
    "are_best",
    "basin_factor",
    "basin_halo",
    "candidate_basins",
    "candidate_peaks",
    "near_border",
    "pick_basins",
    "pick_components",
    "pick_peaks",
    "picking_factor",
    "picking_halo",
    "suppress",
]
