"""Which of the particles found are kept, and how many were left out for which reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from tomoseg.analysis.particles.settings import PickingSettings, dimensions
from tomoseg.core.coordinates import Particles, Points
from tomoseg.core.sampling import Sampling

Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Picks:
    """Particles that were kept, and how many were not.

    Parameters
    ----------
    particles
        Those kept.
    volumes_nm3
        float64, shape (n,); NaN for peaks, which have no volume.
    left_out
        Reason → number of particles, in the order in which they were left out.
    """

    particles: Particles
    volumes_nm3: Values
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of particles kept."""
        return len(self.particles)

    def select(self, is_kept: NDArray[np.bool_], reason: str) -> Picks:
        """Leave out the particles for which a bool array, shape (n,), is false."""
        gone = int(np.count_nonzero(~is_kept))
        left_out = {**self.left_out, reason: gone} if gone else self.left_out
        return Picks(self.particles.select(is_kept), self.volumes_nm3[is_kept], left_out)


def apply_limits(picks: Picks, *, sampling: Sampling, settings: PickingSettings) -> Picks:
    """Apply the limits that a particle's own numbers and its place in the volume decide."""
    least, most = settings.volumes_nm3(sampling)
    # Peaks have no volume: what is not known is not compared.
    picks = picks.select(~(picks.volumes_nm3 < least), "too small")
    picks = picks.select(~(picks.volumes_nm3 > most), "too large")
    picks = picks.select(picks.particles.scores >= settings.minimum_score, "score too low")
    if settings.border == "keep":
        return picks
    near = near_border(picks.particles.points_angstrom, sampling, settings.radius_angstrom)
    return picks.select(~near, "at the border")


def keep_apart(picks: Picks, settings: PickingSettings) -> Picks:
    """Leave out the worse of particles nearer than the minimum distance, if one is stated."""
    if settings.minimum_distance_angstrom is None:
        return picks
    found, is_kept = picks.particles, np.zeros(len(picks), bool)
    rows = suppress(found.points_angstrom, found.scores, settings.minimum_distance_angstrom)
    is_kept[rows] = True
    return picks.select(is_kept, "too near to a better one")


def are_best(particles: Particles, number: int) -> NDArray[np.bool_]:
    """Tell which are the best so many; of equal scores the first by position are."""
    is_best = np.zeros(len(particles), bool)
    order = np.lexsort((*particles.points_angstrom.T[::-1], -particles.scores))
    is_best[order[:number]] = True
    return is_best


def suppress(
    points_angstrom: Points, scores: Values, distance_angstrom: float
) -> NDArray[np.int64]:
    """Keep the best of any points nearer to each other than a distance.

    Parameters
    ----------
    points_angstrom
        float64, shape (n, 3), zyx, Å.
    scores
        float64, shape (n,).

    Returns
    -------
    int64, shape (m,): rows kept, best first; equal scores go by position, so that the order of
    the rows given does not matter.
    """
    order = np.lexsort((*points_angstrom.T[::-1], -scores))
    if not len(order):
        return order
    near = cKDTree(points_angstrom).query_ball_point(
        points_angstrom[order], np.nextafter(distance_angstrom, 0)
    )
    free = np.ones(len(order), dtype=bool)
    kept = []
    for row, rows in zip(order.tolist(), near, strict=True):
        if free[row]:
            kept.append(row)
            free[rows] = False
    return np.array(kept, dtype=np.int64)


def pick_components(
    centres_voxel: Points,
    voxels: NDArray[np.int64],
    *,
    name: str,
    sampling: Sampling,
    settings: PickingSettings,
) -> Picks:
    """Take every component of labels that is large enough as a particle.

    Parameters
    ----------
    centres_voxel
        float64, shape (n, 3), zyx, voxels: centres of mass.
    voxels
        int64, shape (n,): sizes.

    Returns
    -------
    Particles in the order given; the score is the share of the label's ball that the component
    fills, at most 1.
    """
    points = sampling.to_angstrom(np.asarray(centres_voxel).reshape(-1, 3))
    volumes = np.asarray(voxels, np.float64) * sampling.voxel_volume_nm3
    return score_sizes(Particles.at(name, points), volumes, sampling=sampling, settings=settings)


def score_sizes(
    particles: Particles, volumes_nm3: Values, *, sampling: Sampling, settings: PickingSettings
) -> Picks:
    """Score particles by the share of the label's ball that they fill, and apply the limits."""
    filled = np.minimum(volumes_nm3 / settings.label_nm3(sampling), 1.0)
    scored = Particles.at(particles.name, particles.points_angstrom, filled)
    picks = apply_limits(Picks(scored, volumes_nm3), sampling=sampling, settings=settings)
    return keep_apart(picks, settings)


def near_border(
    points_angstrom: Points, sampling: Sampling, distance_angstrom: float
) -> NDArray[np.bool_]:
    """Tell, for points of shape (n, 3), zyx, Å, which are nearer than a distance to the border.

    The border is the outer face of the outermost voxels; a micrograph has none above and below.
    """
    sizes = np.array(sampling.voxel_size_angstrom)
    low = (sampling.to_voxels(points_angstrom) + 0.5) * sizes
    high = np.array(sampling.shape) * sizes - low
    near = np.minimum(low, high) < distance_angstrom
    return np.asarray(near[:, -dimensions(sampling) :].any(axis=1))
