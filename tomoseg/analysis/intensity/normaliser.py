"""The steps made numbers for one tomogram, and their application to a block.

A step knows the grey values as the steps before it left them: a z-score after a clip uses mean
and standard deviation of the clipped grey values. A filter ends that knowledge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomoseg.analysis.intensity.contrast import Contrast
from tomoseg.analysis.intensity.statistics import Reals, Statistics, percentile
from tomoseg.analysis.intensity.steps import (
    Calibrate,
    Equalise,
    Filter,
    Gaussian,
    Invert,
    PercentileClip,
    Step,
    ZScore,
)
from tomoseg.core.errors import FormatError, ModelError, RequestError
from tomoseg.core.sampling import Sampling, Shape, as_shape

CHUNK = 1 << 17  # voxels that stay in the cache while a few operations pass over them
REACH = 4.0  # standard deviations at which a Gaussian kernel ends


@dataclass(frozen=True)
class ClipScale:
    """Grey value operation ``(clip(v, low, high) - shift) · scale``."""

    low: float = -math.inf
    high: float = math.inf
    shift: float = 0.0
    scale: float = 1.0

    @property
    def clips(self) -> bool:
        """Tell whether there is a limit."""
        return self.low > -math.inf or self.high < math.inf

    def apply(self, grey: Reals) -> None:
        """Change the values in place."""
        if self.clips:
            np.clip(grey, self.low, self.high, out=grey)
        grey -= self.shift
        grey *= self.scale

    def then(self, other: ClipScale) -> ClipScale:
        """Return the one operation that equals this one and then the other."""
        limits = sorted(limit / self.scale + self.shift for limit in (other.low, other.high))
        return ClipScale(
            low=max(self.low, limits[0]),
            high=min(self.high, limits[1]),
            shift=self.shift + other.shift / self.scale,
            scale=self.scale * other.scale,
        )


@dataclass(frozen=True, eq=False)
class Curve:
    """Grey value operation that interpolates between knots, constant beyond the ends.

    Parameters
    ----------
    greys, values
        float64, shape (n,): knots in ascending order, and what becomes of them.
    """

    greys: NDArray[np.float64]
    values: NDArray[np.float64]

    def apply(self, grey: Reals) -> None:
        """Change the values in place."""
        grey[...] = np.interp(grey, self.greys, self.values)


@dataclass(frozen=True, eq=False)
class Normaliser:
    """All that a task needs to normalise its block.

    Parameters
    ----------
    points
        Grey value operations, in order.
    rest
        The first filter and what follows it.
    fill
        What replaces a voxel that is NaN or infinite: the tomogram's mean after ``points``.
        None if there is no such voxel.
    """

    points: tuple[ClipScale | Curve, ...]
    rest: tuple[ClipScale | Filter, ...]
    fill: float | None

    def halo(self, sampling: Sampling) -> Shape:
        """Return how many voxels beyond its own a block must read, zyx."""
        filters = [step for step in self.rest if not isinstance(step, ClipScale)]
        return as_shape(np.sum([(0, 0, 0), *(_radius(f, sampling) for f in filters)], axis=0))

    def apply(self, block: NDArray[Any], sampling: Sampling) -> NDArray[np.float32]:
        """Normalise one block; the array handed in is not changed.

        Parameters
        ----------
        block
            Any real dtype, shape (z, y, x), as read: grown by the halo, clipped at the volume.
        sampling
            Grid of the tomogram; only its voxel size is used.

        Returns
        -------
        float32, the same shape. Voxels that are nearer than the halo to a side of the block that
        is not a side of the volume are not valid.
        """
        grey = self.points_applied(block)
        for step in self.rest:
            if isinstance(step, ClipScale):
                step.apply(grey)
            else:
                grey = _filtered(grey, step, sampling)
        return grey

    @property
    def is_clip_scale(self) -> bool:
        """Whether one clip and scale is all, which a network's device can do itself."""
        return not self.rest and len(self.points) == 1 and isinstance(self.points[0], ClipScale)

    def points_applied(self, block: NDArray[Any]) -> NDArray[np.float32]:
        """Return a block as it is before the first filter; see :meth:`apply`."""
        grey = np.array(block, np.float32, order="C")
        flat = grey.reshape(-1)
        for begin in range(0, flat.size, CHUNK):
            self._apply_points(flat[begin : begin + CHUNK])
        return grey

    def _apply_points(self, grey: NDArray[np.float32]) -> None:
        missing = None if self.fill is None else ~np.isfinite(grey)
        for operation in self.points:
            operation.apply(grey)
        if missing is not None:
            grey[missing] = self.fill


def prepare(steps: Sequence[Step], statistics: Statistics, *, flip: bool = False) -> Normaliser:
    """Turn the steps into numbers for one tomogram.

    Parameters
    ----------
    steps
        In the order in which they act. What a step needs to know of the grey values (percentiles,
        mean, standard deviation, histogram) is derived for the grey values as the steps before it
        left them.
    statistics
        Of the whole tomogram.
    flip
        Change the sign before the first step (see :func:`contrast_sign`).

    Raises
    ------
    RequestError
        If a step that needs statistics stands after a filter: the histogram does not tell them.
    FormatError
        If a z-score meets grey values without spread.
    """
    points: list[ClipScale | Curve] = []
    rest: list[ClipScale | Filter] = []
    greys = _Greys(statistics.greys, statistics.counts, (statistics.mean, statistics.std))
    for step in (*((Invert(),) if flip else ()), *steps):
        if isinstance(step, Filter):
            rest.append(step)
        elif not rest:
            operation = _operation(step, greys)
            greys = greys.after(operation)
            _append(points, operation)
        elif isinstance(step, Invert | Calibrate):
            _append(rest, _linear(step))
        else:
            raise RequestError(
                f"step {step.kind} after {rest[0].__class__.__name__.lower()}: the statistics "
                "after a filter are not known",
                remedy="Put percentile_clip, z_score and equalise before the filters.",
            )
    return Normaliser(tuple(points), tuple(rest), greys.mean if statistics.not_finite else None)


def contrast_sign(
    declared: Contrast, expected: Contrast, *, on_mismatch: Literal["error", "flip"] = "error"
) -> float:
    """Compare the contrast of a tomogram with that of a model card.

    Parameters
    ----------
    declared
        Whether protein is dark or bright in the tomogram.
    expected
        The same for the tomograms that the network was trained on.
    on_mismatch
        What the recipe wants if they differ.

    Returns
    -------
    1.0 if they agree, -1.0 if the tomogram is to be flipped (``prepare(..., flip=True)``).

    Raises
    ------
    ModelError
        If they differ and the recipe does not ask for a flip.
    """
    if declared == expected:
        return 1.0
    if on_mismatch == "flip":
        return -1.0
    raise ModelError(
        f"protein is {declared} in the tomogram, and {expected} where the network was trained",
        remedy="Correct source.contrast, or set segment.contrast_mismatch: flip.",
    )


@dataclass(frozen=True, eq=False)
class _Greys:
    """How often each grey value occurs at one point of the list of steps.

    ``greys`` ascends; ``moments`` are mean and standard deviation where they are known better
    than from the histogram, whose end bins stand for all that lies beyond.
    """

    greys: NDArray[np.float64]
    counts: NDArray[np.int64]
    moments: tuple[float, float] | None = None

    @property
    def mean(self) -> float:
        return (
            self.moments[0] if self.moments else float(np.average(self.greys, weights=self.counts))
        )

    @property
    def std(self) -> float:
        if self.moments:
            return self.moments[1]
        low, high = self.greys[self.counts > 0][[0, -1]]
        square = np.average((self.greys - self.mean) ** 2, weights=self.counts)
        return math.sqrt(square) if high > low else 0.0

    def after(self, operation: ClipScale | Curve) -> _Greys:
        """Return the grey values that an operation makes of these."""
        greys = self.greys.copy()
        operation.apply(greys)
        turned = slice(None, None, -1 if greys[0] > greys[-1] else 1)
        moments = None
        if self.moments and isinstance(operation, ClipScale) and not operation.clips:
            mean, std = self.moments
            moments = (mean - operation.shift) * operation.scale, std * abs(operation.scale)
        return _Greys(greys[turned], self.counts[turned], moments)


def _operation(step: Step, greys: _Greys) -> ClipScale | Curve:
    """Return what a step does to grey values like these."""
    if isinstance(step, PercentileClip):
        return ClipScale(
            low=percentile(greys.greys, greys.counts, step.low) if step.low > 0 else -math.inf,
            high=percentile(greys.greys, greys.counts, step.high) if step.high < 100 else math.inf,
        )
    if isinstance(step, ZScore):
        if not greys.std > 0:
            raise FormatError(
                f"a z-score is not possible: all grey values are {greys.mean:g}, their spread is 0",
                remedy="Check that the tomogram was written completely, or widen percentile_clip.",
            )
        return ClipScale(shift=greys.mean, scale=1 / greys.std)
    if isinstance(step, Equalise):
        voxels, edges = np.histogram(greys.greys, step.bins, weights=greys.counts)
        return Curve((edges[1:] + edges[:-1]) / 2, np.cumsum(voxels) / voxels.sum())
    return _linear(step)


def _linear(step: Step) -> ClipScale:
    """Return the operation of a step that needs no statistics."""
    if isinstance(step, Calibrate):
        return ClipScale(shift=step.black, scale=1 / (step.white - step.black))
    return ClipScale(scale=-1.0)


def _append(operations: list[Any], operation: ClipScale | Curve) -> None:
    """Append an operation, in one with the last where both are linear."""
    last = operations[-1] if operations else None
    if isinstance(last, ClipScale) and isinstance(operation, ClipScale):
        operations[-1] = last.then(operation)
    else:
        operations.append(operation)


def _radius(step: Filter, sampling: Sampling) -> Shape:
    sizes = sampling.voxel_size_angstrom
    return as_shape(int(REACH * step.sigma_angstrom / size + 0.5) for size in sizes)


def _filtered(grey: NDArray[np.float32], step: Filter, sampling: Sampling) -> NDArray[np.float32]:
    """Return the filtered block; a volume goes on beyond its border as the border voxels are."""
    blurred: NDArray[np.float32] = ndimage.gaussian_filter(
        grey,
        [step.sigma_angstrom / size for size in sampling.voxel_size_angstrom],
        mode="nearest",
        radius=_radius(step, sampling),
    )
    if isinstance(step, Gaussian):
        return blurred
    return grey + np.float32(step.amount) * (grey - blurred)
