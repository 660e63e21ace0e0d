"""Pickers on crowds of balls: F1 of peaks, basins and components, of score maps and of labels.

    python tests/benchmarks/particles.py [--particles N] [--seeds N]

Balls of radius 12 voxels lie anywhere in a volume; some touch the one before. Their score map is 1
inside, soft over a voxel, with grain added (white noise smoothed by one voxel) and cut to 0..1;
the labels are where it is above one half. A pick within half a radius of a centre is a hit, one
to one. Beside them stands what scikit-image gives: peaks of the distance transform as markers of
a watershed of the same labels.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.feature import peak_local_max
from skimage.segmentation import watershed

from tomoseg.analysis import particles
from tomoseg.analysis.metrics import score_particles
from tomoseg.analysis.particles import PickingSettings
from tomoseg.core.blocks import Box
from tomoseg.core.coordinates import Particles, Points
from tomoseg.core.sampling import Sampling

Score = NDArray[np.float32]
RADIUS = 12
VOXEL_ANGSTROM = 10.0
# Share of particles that touch the one before, and the grain's deviation.
CASES = {"25% touching": (0.25, 0.25), "60% touching, noise × 1.8": (0.60, 0.45)}
PER_PARTICLE = 35_000


def crowd(number: int, touching: float, seed: int) -> tuple[Points, tuple[int, int, int]]:
    """Return centres in voxels, shape (n, 3), that lie a diameter apart, and the volume's shape."""
    rng = np.random.default_rng(seed)
    edge = round((number * PER_PARTICLE / 0.5) ** (1 / 3))
    shape = np.array((edge // 2, edge, edge))
    centres: list[Points] = []
    while len(centres) < number:
        place = rng.uniform(RADIUS + 2, shape - RADIUS - 2)
        if centres and rng.random() < touching:
            away = rng.normal(size=3)
            place = centres[-1] + 2 * RADIUS * away / np.linalg.norm(away)
        inside = (place > RADIUS + 1).all() and (place < shape - RADIUS - 1).all()
        if inside and (not centres or cKDTree(centres).query(place)[0] > 2 * RADIUS - 0.01):
            centres.append(place)
    return np.array(centres), (edge // 2, edge, edge)


def score_map(centres: Points, shape: tuple[int, int, int], noise: float, seed: int) -> Score:
    """Return a score map of balls with grain, float32, 0..1."""
    score = np.zeros(shape, np.float32)
    for centre in centres:
        low = np.maximum(np.floor(centre - RADIUS - 2), 0).astype(int)
        box = tuple(slice(a, a + 2 * RADIUS + 5) for a in low)
        part = score[box]
        away = np.linalg.norm(np.moveaxis(np.indices(part.shape), 0, -1) + low - centre, axis=-1)
        np.maximum(part, np.clip(RADIUS - away + 0.5, 0, 1), out=part)
    grain = np.random.default_rng(seed).standard_normal(shape, np.float32)
    grain = ndimage.gaussian_filter(grain, 1.0)
    return np.clip(score + noise * grain / grain.std(), 0, 1).astype(np.float32)


def _settings(method: str) -> PickingSettings:
    return PickingSettings(method=method, radius_angstrom=RADIUS * VOXEL_ANGSTROM)


def peaks(score: Score, sampling: Sampling) -> Points:
    """Return the picks of the blob filter, Å."""
    how = {"sampling": sampling, "settings": _settings("peaks")}
    found = particles.candidate_peaks(score, Box.whole(score.shape), begin=(0, 0, 0), **how)
    return particles.pick_peaks(found, name="ball", **how).particles.points_angstrom


def basins(score: Score, sampling: Sampling) -> Points:
    """Return the picks of the watershed, Å."""
    how = {"sampling": sampling, "settings": _settings("watershed")}
    found = particles.candidate_basins(score, Box.whole(score.shape), begin=(0, 0, 0), **how)
    return particles.pick_basins(found, name="ball", **how).particles.points_angstrom


def components(score: Score, sampling: Sampling) -> Points:
    """Return the picks of connected parts, Å."""
    labels, number = ndimage.label(score > 0.5, np.ones((3, 3, 3)))
    rows = np.arange(1, number + 1)
    centres = np.array(ndimage.center_of_mass(labels > 0, labels, rows))
    picks = particles.pick_components(
        centres,
        np.bincount(labels.ravel(), minlength=number + 1)[1:],
        name="ball",
        sampling=sampling,
        settings=_settings("components"),
    )
    return picks.particles.points_angstrom


def skimage_watershed(score: Score, sampling: Sampling) -> Points:
    """Return the picks of scikit-image's watershed with the same smoothing and limits, Å."""
    mask = ndimage.gaussian_filter(score, 1) >= 0.5
    depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(mask), 1)
    tops = peak_local_max(
        depth, min_distance=round(0.8 * RADIUS), threshold_abs=0.3 * RADIUS, exclude_border=False
    )
    markers = np.zeros(score.shape, np.int32)
    markers[tuple(tops.T)] = np.arange(1, len(tops) + 1)
    parts = watershed(-depth, markers, mask=mask)
    centres = ndimage.center_of_mass(mask, parts, range(1, len(tops) + 1))
    sizes = np.bincount(parts.ravel(), minlength=len(tops) + 1)[1:]
    large = sizes >= 0.25 * 4 / 3 * np.pi * RADIUS**3
    return sampling.to_angstrom(np.array(centres).reshape(-1, 3)[large])


METHODS: dict[str, Callable[[Score, Sampling], Points]] = {
    "components": components,
    "watershed": basins,
    "watershed of scikit-image": skimage_watershed,
    "peaks": peaks,
}


def f1_of(method: str, evidence: Score, centres: Points) -> float:
    """Return the F1 of a method on a crowd."""
    sampling = Sampling(evidence.shape, (VOXEL_ANGSTROM,) * 3)
    found = Particles.at("ball", METHODS[method](evidence, sampling))
    truth = Particles.at("ball", centres * VOXEL_ANGSTROM)
    tolerance = RADIUS * VOXEL_ANGSTROM / 2
    return score_particles(found, truth, tolerance_angstrom=tolerance).f1


def main() -> None:
    """Print a table a case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--particles", type=int, default=170)
    parser.add_argument("--seeds", type=int, default=1)
    given = parser.parse_args()
    for case, (touching, noise) in CASES.items():
        for seed in range(given.seeds):
            centres, shape = crowd(given.particles, touching, seed)
            score = score_map(centres, shape, noise, seed)
            labels = (score > 0.5).astype(np.float32)
            print(f"{case}, seed {seed}: {len(centres)} in {shape}", flush=True)
            for method in METHODS:
                began = time.monotonic()
                of_scores = f1_of(method, score, centres)
                seconds = (time.monotonic() - began) / (score.size / 1e6)
                of_labels = f1_of(method, labels, centres)
                row = f"  {method:26} score map {of_scores:.3f}  labels {of_labels:.3f}"
                print(f"{row}  {seconds:.2f} s/Mvoxel", flush=True)


if __name__ == "__main__":
    main()
