"""How good a result is: voxels, filaments, particles, each by a definition with a source.

Shares with nothing to divide by are NaN: a class that is neither found nor present has no score.
"""

from tomoseg.metrics.lines import FilamentScore, score_filaments
from tomoseg.metrics.picks import (
    CZII_RADII_ANGSTROM,
    CZII_WEIGHTS,
    CziiCounts,
    ParticleScore,
    czii_counts,
    czii_score,
    score_particles,
)
from tomoseg.metrics.shares import f_beta
from tomoseg.metrics.voxels import (
    ClassScore,
    cl_dice,
    class_scores,
    confusion,
    tolerant_counts,
    tolerant_f1,
)

__all__ = [
    "CZII_RADII_ANGSTROM",
    "CZII_WEIGHTS",
    "ClassScore",
    "CziiCounts",
    "FilamentScore",
    "ParticleScore",
    "cl_dice",
    "class_scores",
    "confusion",
    "czii_counts",
    "czii_score",
    "f_beta",
    "score_filaments",
    "score_particles",
    "tolerant_counts",
    "tolerant_f1",
]
