"""From a traced path to a centre line: true ends and a smooth course."""

from __future__ import annotations

import numpy as np
from scipy.interpolate import BSpline, make_lsq_spline

from tomoseg.analysis.filaments.follow import Ridge
from tomoseg.analysis.filaments.settings import TracingSettings
from tomoseg.core.coordinates import Points, resample

# The tip of a line is looked at this many times a radius.
TIP_SAMPLES = 10
# Knots of the smoothing spline are this many radii apart.
KNOT_RADII = 4.0


def length_of(line: Points) -> float:
    """Return the length of a polyline, shape (n, 3), in its own unit."""
    return float(np.linalg.norm(np.diff(line, axis=0), axis=1).sum())


def trim(line: Points, ridge: Ridge, settings: TracingSettings) -> Points:
    """Cut both ends of a line back to where the tube ends.

    The smoothed tube falls to half at its true end, and a trace goes on to a quarter. At most one
    radius is cut, so that a tube that fades is not shortened, and nothing at the volume's border,
    where no tube ends.

    Returns
    -------
    float64, shape (n ≥ 2, 3), zyx, Å, spaced by a tenth of a radius.
    """
    radius = settings.radius_angstrom
    for _ in range(2):
        dense = evenly(line, radius / TIP_SAMPLES)
        tip = ridge.strength_at(dense[: 3 * TIP_SAMPLES])
        real = tip >= np.median(tip[min(TIP_SAMPLES, len(tip) - 1) :]) / 2
        real |= ridge.depth(dense[: len(tip)]) < radius
        line = dense[min(real.argmax(), TIP_SAMPLES, len(dense) // 2 - 1) :][::-1]
    return line


def smooth(line: Points, settings: TracingSettings) -> Points:
    """Fit a cubic spline with a knot every four radii and sample it at half a radius.

    Returns
    -------
    float64, shape (n ≥ 2, 3), zyx, Å, from end to end of the line.
    """
    spacing = settings.step_angstrom
    _, spline = spline_through(line, knots=KNOT_RADII * settings.radius_angstrom, spacing=spacing)
    steps = max(1, round(length_of(line) / spacing))
    return np.asarray(spline(np.linspace(0.0, 1.0, steps + 1)))


def spline_through(line: Points, *, knots: float, spacing: float) -> tuple[Points, BSpline]:
    """Fit a least-squares cubic spline to a line, shape (n ≥ 2, 3).

    Parameters
    ----------
    knots
        Distance of its knots along the line, about.
    spacing
        Distance at which the line is sampled for the fit, at most.

    Returns
    -------
    Where the samples are along the line, 0..1, shape (m,), and the spline over 0..1.
    """
    length = length_of(line)
    # A few more samples than coefficients, whatever the length of the line.
    dense = evenly(line, min(spacing, length / 16))
    track = np.linspace(0.0, 1.0, len(dense))
    pieces = max(1, round(length / knots))
    places = np.concatenate([[0.0] * 4, np.arange(1, pieces) / pieces, [1.0] * 4])
    return track, make_lsq_spline(track, dense, places, k=3)


def evenly(line: Points, spacing: float) -> Points:
    """Place points from end to end of a line, equally far apart and at most as stated."""
    length = length_of(line)
    return resample(line, length / np.ceil(length / spacing))
