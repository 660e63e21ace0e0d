"""Filaments: from one class's score map to centre lines in Å.

Ridges are found a block at a time (:func:`ridge_points`); their bins, about a tenth of the
volume's, are then followed, linked and smoothed in one piece (:func:`trace`).
"""

from __future__ import annotations

import numpy as np

from tomoseg.analysis.filaments.finish import length_of, smooth, trim
from tomoseg.analysis.filaments.follow import Ridge, follow_all
from tomoseg.analysis.filaments.link import link
from tomoseg.analysis.filaments.measure import FilamentMeasures, measure
from tomoseg.analysis.filaments.ridge import RidgePoints, ridge_points
from tomoseg.analysis.filaments.settings import (
    RIDGE_FLOOR,
    TracingSettings,
    tracing_defaults,
    tracing_halo,
    working_factor,
)
from tomoseg.core.coordinates import Filament, numbered
from tomoseg.core.sampling import Sampling

__all__ = [
    "FilamentMeasures",
    "RidgePoints",
    "TracingSettings",
    "measure",
    "ridge_points",
    "trace",
    "tracing_defaults",
    "tracing_halo",
    "working_factor",
]

# Shorter pieces, in radii, have no direction worth linking by.
LINKED_RADII = 2.0
# A line with a ridge under less of its length than this is a chain of specks of noise.
SEEN_SHARE = 0.6


def trace(
    points: RidgePoints, *, name: str, sampling: Sampling, settings: TracingSettings
) -> list[Filament]:
    """Trace the filaments of a volume.

    Parameters
    ----------
    points
        The ridge bins of all blocks, in any order.
    name
        Class of the filaments.
    sampling
        The grid of the whole score map, as given to :func:`ridge_points`.
    settings
        How the class is traced, as given to :func:`ridge_points`.

    Returns
    -------
    Filaments numbered from 1, longest first, with points half a radius apart and as score the mean
    ridge strength along the line, at most 1 at a point and 0 in gaps.

    Notes
    -----
    The thresholds are multiplied by the 75th percentile of the strength over the maxima, clipped
    to 0.25..1.2. Seeds are maxima, best first; each is followed both ways in steps of half a
    radius, recentred on the ridge in the plane across, straight over gaps, until the ridge ends
    or the place is claimed by a trace of like direction. Ends that face each other are linked, true
    ends cut to where the smoothed tube falls to half, and lines smoothed by a spline.
    """
    if len(points) == 0:
        return []
    ridge = Ridge.of(points, sampling.binned(working_factor(settings, sampling)))
    pieces = [
        line
        for line in follow_all(ridge, settings)
        if length_of(line) >= LINKED_RADII * settings.radius_angstrom
        and not ridge.is_rim(line, settings)
    ]
    lines = [trim(line, ridge, settings) for line in link(pieces, settings)]
    lines = [
        smooth(line, settings)
        for line in lines
        if length_of(line) >= settings.minimum_length_angstrom
        and (ridge.strength_at(line) >= RIDGE_FLOOR).mean() >= SEEN_SHARE
    ]
    lines.sort(key=length_of, reverse=True)
    return numbered(
        Filament(name, 1, line, float(np.minimum(ridge.strength_at(line), 1).mean()))
        for line in lines
    )
