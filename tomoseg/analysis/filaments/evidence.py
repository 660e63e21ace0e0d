"""Evidence of other programs: what the values of their maps mean, as scores 0..1."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.core.errors import RequestError

# Noise of a correlation map is taken to reach so many of its standard deviations.
NOISE_SIGMAS = 3.0
# The strongest peaks of a correlation map: this share of its voxels.
PEAK_SHARE = 1e-3
HISTOGRAM_BINS = 4096
# More values than this are grey values, not labels.
MOST_LABELS = 20


@dataclass(frozen=True)
class Scale:
    """How the values of a map become scores 0..1.

    Parameters
    ----------
    name
        What it is called, for messages.
    low, high
        Values of score 0 and 1, linear between; if they are equal, whatever is above scores 1.
    is_logistic
        The values are logits: score ½ at 0.
    """

    name: str
    low: float = 0.0
    high: float = 1.0
    is_logistic: bool = False

    def scores(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Return scores, float32, of any numbers; what is no number scores 0."""
        with np.errstate(over="ignore", invalid="ignore"):
            found = self._raw(values.astype(np.float32))
            return np.asarray(np.nan_to_num(found).clip(0, 1), np.float32)

    def _raw(self, values: NDArray[np.float32]) -> NDArray[Any]:
        if self.is_logistic:
            return np.asarray(1 / (1 + np.exp(-values)))
        if self.high > self.low:
            return np.asarray((values - self.low) / np.float32(self.high - self.low))
        return np.asarray(values > self.low, np.float32)


SCALES = {
    scale.name: scale
    for scale in (
        Scale("mask", 0, 0),  # any program's 0 and something
        Scale("probability"),
        Scale("ais", 0, 255),  # Ais, easymode
        Scale("int8", 0, 127),  # the same, and copick's, stored as int8
        Scale("logits", is_logistic=True),  # MemBrain-seg
    )
}
CORRELATION = "correlation"


@dataclass(frozen=True)
class ValueRange:
    """What values a map holds.

    Parameters
    ----------
    low, high
        Smallest and largest number.
    values
        The distinct values, ascending, as long as they are :data:`MOST_LABELS` whole numbers at
        most; else None.
    """

    low: float
    high: float
    values: tuple[float, ...] | None

    @classmethod
    def of(cls, blocks: Iterable[NDArray[Any]]) -> ValueRange:
        """Look through a map, a block at a time.

        Raises
        ------
        RequestError
            If there is no finite number in it.
        """
        low, high = np.inf, -np.inf
        distinct: set[float] | None = set()
        for block in blocks:
            numbers = block[np.isfinite(block)]
            if not len(numbers):
                continue
            low, high = min(low, float(numbers.min())), max(high, float(numbers.max()))
            if distinct is not None:
                distinct |= set(np.unique(numbers).astype(float).tolist())
                if len(distinct) > MOST_LABELS or not all(v.is_integer() for v in distinct):
                    distinct = None
        if low > high:
            raise RequestError("the map holds no number", remedy="Check the file")
        return cls(low, high, None if distinct is None else tuple(sorted(distinct)))


def guessed_scale(found: ValueRange, dtype: np.dtype[Any]) -> Scale:
    """Return what the values of a map must be, where that is beyond doubt.

    Two whole numbers are a mask; int8 up to 127 and uint8 up to 255 scores; fractions from 0 to 1
    probabilities.

    Raises
    ------
    RequestError
        If they may be several things: labels of several classes, logits or a correlation map.
    """
    if found.values is not None and len(found.values) <= 2 and found.low == 0:
        return SCALES["mask"]
    if found.values is None and found.low >= 0:
        if dtype == np.int8:
            return SCALES["int8"]
        if dtype == np.uint8:
            return SCALES["ais"]
        if dtype.kind == "f" and found.high <= 1:
            return SCALES["probability"]
    what = f"values {found.low:.4g} to {found.high:.4g} of type {dtype}"
    if found.values is not None:
        raise RequestError(
            f"{what} are {len(found.values)} whole numbers, such as labels of several classes",
            remedy="Name one with --label, or say with --scale what they are",
        )
    raise RequestError(
        f"{what} may be logits, correlations or something else",
        remedy=f"Say with --scale: {', '.join(SCALES)}, {CORRELATION}, or the values LOW,HIGH that "
        "mean no filament and certainly one",
    )


def correlation_scale(blocks: Iterable[NDArray[Any]], found: ValueRange) -> Scale:
    """Return the scale of a map of correlations, from its own noise and its own peaks.

    Notes
    -----
    Score 0 is three standard deviations above the median, 1 the value that a thousandth of the
    voxels exceed. The deviation is the distance of the 16th percentile from the median: peaks lie
    above it and do not widen it.
    """
    edges = np.linspace(found.low, found.high, HISTOGRAM_BINS + 1)
    counts = np.zeros(HISTOGRAM_BINS)
    for block in blocks:
        counts += np.histogram(block[np.isfinite(block)], edges)[0]
    shares = np.concatenate([[0.0], np.cumsum(counts) / counts.sum()])
    lower, middle, peak = np.interp([0.1587, 0.5, 1 - PEAK_SHARE], shares, edges)
    low = float(middle + NOISE_SIGMAS * (middle - lower))
    if not peak > low:
        raise RequestError(
            f"no peaks stand out of the correlations: one voxel in a thousand is above {peak:.4g}, "
            f"the noise reaches {low:.4g}",
            remedy="Say with --scale LOW,HIGH which values mean no filament and certainly one",
        )
    return Scale(CORRELATION, low, float(peak))
