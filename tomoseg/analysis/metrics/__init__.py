"""How good a result is: voxels, surfaces, objects, filaments, particles; each with its source.

Shares with nothing to divide by are NaN: a class that is neither found nor present has no score.
"""

from tomoseg.analysis.metrics.instances import InstanceScore, Overlaps, overlaps, score_instances
from tomoseg.analysis.metrics.lines import FilamentScore, score_filaments
from tomoseg.analysis.metrics.picks import (
    CZII_RADII_ANGSTROM,
    CZII_WEIGHTS,
    ParticleScore,
    PickCounts,
    czii_counts,
    czii_score,
    generous_counts,
    score_particles,
)
from tomoseg.analysis.metrics.shares import f_beta
from tomoseg.analysis.metrics.surfaces import (
    surface_areas,
    surface_counts,
    surface_dice,
    surface_halo,
)
from tomoseg.analysis.metrics.voxels import (
    ClassScore,
    class_scores,
    confusion,
    tolerant_counts,
    tolerant_f1,
)

__all__ = [
    "CZII_RADII_ANGSTROM",
    "CZII_WEIGHTS",
    "ClassScore",
    "FilamentScore",
    "InstanceScore",
    "Overlaps",
    "ParticleScore",
    "PickCounts",
    "class_scores",
    "confusion",
    "czii_counts",
    "czii_score",
    "f_beta",
    "generous_counts",
    "overlaps",
    "score_filaments",
    "score_instances",
    "score_particles",
    "surface_areas",
    "surface_counts",
    "surface_dice",
    "surface_halo",
    "tolerant_counts",
    "tolerant_f1",
]
