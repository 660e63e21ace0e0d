"""Simulated tomograms on which a network's numbers are measured: always the same for one card."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tomoseg.analysis import intensity
from tomoseg.nets.card import ModelCard
from tomoseg.simulation import PhantomParameters, simulate, varied

SHAPE = (48, 160, 160)
SEEDS = (9001, 9002, 9003)
# The voxel sizes that can be simulated.
FINEST_ANGSTROM, COARSEST_ANGSTROM = 8.0, 16.0


def calibration_volumes(card: ModelCard) -> Iterator[NDArray[np.float32]]:
    """Yield the simulated tomograms, float32, zyx, normalised as a card says."""
    voxel = min(max(card.voxel_size_angstrom, FINEST_ANGSTROM), COARSEST_ANGSTROM)
    base = PhantomParameters(shape=SHAPE, voxel_size_angstrom=voxel)
    steps = intensity.parse_steps(card.intensity)
    is_flipped = intensity.contrast_sign("dark", card.contrast, on_mismatch="flip") < 0
    for seed in SEEDS:
        parameters = varied(seed, base)
        tomogram = simulate(parameters).tomogram
        moments = intensity.moments(tomogram)
        bins = intensity.Bins.for_tomogram(moments, tomogram.dtype)
        counts = intensity.histogram(tomogram, bins)
        statistics = intensity.Statistics.of(moments, bins, counts)
        normaliser = intensity.prepare(steps, statistics, flip=is_flipped)
        yield normaliser.apply(tomogram, parameters.sampling)
