"""Statistics of the grey values of a tomogram that is read in blocks."""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.core.errors import FormatError

Reals = NDArray[np.floating[Any]]

CHUNK = 1 << 18  # voxels that stay in the cache while a few operations pass over them
HISTOGRAM_CHUNK = 1 << 20
SPREADS = 12.0  # the histogram of real numbers spans the mean ± this many standard deviations
BINS = 65536


@dataclass(frozen=True)
class Moments:
    """Sums over some voxels; those that are NaN or infinite are only counted.

    Parameters
    ----------
    count, not_finite
        Number of voxels that are numbers, and of those that are not.
    minimum, maximum, mean
        Grey values; 0 where the count is 0.
    squares
        Sum of squared differences from the mean.
    """

    count: int = 0
    not_finite: int = 0
    minimum: float = 0.0
    maximum: float = 0.0
    mean: float = 0.0
    squares: float = 0.0

    def merge(self, other: Moments) -> Moments:
        """Return the moments of both sets of voxels.

        Notes
        -----
        Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
        variances" (1979).
        """
        if not (self.count and other.count):
            known = self if self.count else other
            return replace(known, not_finite=self.not_finite + other.not_finite)
        count, step = self.count + other.count, other.mean - self.mean
        share = other.count / count
        return Moments(
            count=count,
            not_finite=self.not_finite + other.not_finite,
            minimum=min(self.minimum, other.minimum),
            maximum=max(self.maximum, other.maximum),
            mean=self.mean + step * share,
            squares=self.squares + other.squares + step * step * self.count * share,
        )


def moments(block: NDArray[Any]) -> Moments:
    """Return the moments of one block of real numbers or integers, any shape."""
    return merge_moments(_chunk_moments(chunk) for chunk in _chunks(block, CHUNK))


def merge_moments(parts: Iterable[Moments]) -> Moments:
    """Merge the moments of all blocks, in the order of the blocks."""
    return reduce(Moments.merge, parts, Moments())


def check_moments(whole: Moments, maximum_not_finite: float) -> None:
    """Refuse a tomogram that cannot be normalised.

    Parameters
    ----------
    whole
        Moments of its voxels that count.
    maximum_not_finite
        Share of these that need be no numbers.

    Raises
    ------
    FormatError
        If no voxel counts, or too many of them are not finite.
    """
    voxels = whole.count + whole.not_finite
    if not voxels:
        raise FormatError(
            "no voxel is left that shows anything: all have one grey value around them, or are "
            "outside the mask",
            remedy="Check that the tomogram was written completely, and source.mask if it has one.",
        )
    share = whole.not_finite / voxels
    if share > maximum_not_finite:
        raise FormatError(
            f"{100 * share:.3g}% of the voxels are NaN or infinite, more than "
            f"{100 * maximum_not_finite:.3g}%",
            remedy="Repair the tomogram, or raise source.maximum_not_finite.",
        )


@dataclass(frozen=True)
class Bins:
    """Equal bins of grey value from ``low`` to ``high``; the end bins also hold what is beyond."""

    low: float
    high: float
    number: int

    @classmethod
    def for_tomogram(cls, whole: Moments, dtype: np.dtype[Any] | type | str) -> Bins:
        """Choose the bins from the moments of the whole tomogram.

        Notes
        -----
        Integers of up to 16 bits get a bin each. Other numbers get 65536 bins over the mean ± 12
        standard deviations, cut at the extremes. Width and start are powers of two and their
        multiples, so that the last bits of the mean, which depend on the order in which blocks
        were merged, do not move the bins.
        """
        if is_counted(dtype) or np.dtype(dtype).kind == "b":
            number = round(whole.maximum - whole.minimum) + 1
            return cls(whole.minimum - 0.5, whole.maximum + 0.5, number)
        reach = SPREADS * math.sqrt(whole.squares / max(whole.count, 1))
        low = max(whole.minimum, whole.mean - reach)
        high = min(whole.maximum, whole.mean + reach)
        if not high > low:
            return cls(low - 0.5, low + 0.5, 1)
        step = 2.0 ** math.ceil(math.log2((high - low) / (BINS / 2**10 - 1)))  # 1024 bins
        begin = math.floor(low / step) * step
        return cls(begin, begin + BINS / 2**10 * step, BINS)

    def of_values(
        self, counts: NDArray[np.int64], dtype: np.dtype[Any] | type | str
    ) -> NDArray[np.int64]:
        """Return the counts of these bins, each of one value, out of :func:`value_counts`."""
        first = round(self.low + 0.5) - np.iinfo(dtype).min
        return counts[first : first + self.number]

    @property
    def centres(self) -> NDArray[np.float64]:
        """Grey values at the middle of each bin, float64, shape (number,)."""
        return self.low + (np.arange(self.number) + 0.5) * (self.high - self.low) / self.number


def histogram(block: NDArray[Any], bins: Bins) -> NDArray[np.int64]:
    """Count the voxels of one block in each bin, int64; the blocks' counts add up exactly."""
    counts = np.zeros(bins.number, np.int64)
    scale = bins.number / (bins.high - bins.low)
    for chunk in _chunks(block, HISTOGRAM_CHUNK):
        grey = _finite(chunk.astype(np.float32))
        np.clip(grey, bins.low, bins.high, out=grey)
        grey -= bins.low
        grey *= scale
        index = grey.astype(np.intp)
        counts += np.bincount(np.minimum(index, bins.number - 1, out=index), minlength=bins.number)
    return counts


def is_counted(dtype: np.dtype[Any] | type | str) -> bool:
    """Tell whether voxels are integers so short that each value is counted by itself."""
    return np.dtype(dtype).kind in "iu" and np.dtype(dtype).itemsize <= 2


def value_counts(block: NDArray[Any]) -> NDArray[np.int64]:
    """Count each value that a short integer can have, int64, the smallest first."""
    limits, bits = np.iinfo(block.dtype), np.dtype(f"u{block.dtype.itemsize}")
    counts = np.zeros(limits.max - limits.min + 1, np.int64)
    for chunk in _chunks(np.ascontiguousarray(block).view(bits), HISTOGRAM_CHUNK):
        counts += np.bincount(chunk, minlength=counts.size)
    # As bits, negative numbers come after the others.
    return np.roll(counts, -limits.min)


@dataclass(frozen=True, eq=False)
class Statistics:
    """Grey values of a whole tomogram: of its voxels that count.

    Parameters
    ----------
    count, not_finite
        Number of voxels that are numbers, and of those that are not.
    minimum, maximum, mean, std
        Of the voxels that are numbers. Mean and standard deviation are rounded to float32: the
        order in which blocks are merged moves only bits far below, and must not show.
    bins, counts
        Histogram; counts is int64, shape (bins.number,).
    empty
        Number of voxels that do not count because nothing is there.
    """

    count: int
    not_finite: int
    minimum: float
    maximum: float
    mean: float
    std: float
    bins: Bins
    counts: NDArray[np.int64]
    empty: int = 0

    @classmethod
    def of(
        cls, whole: Moments, bins: Bins, counts: NDArray[np.int64], *, empty: int = 0
    ) -> Statistics:
        """Join the results of both passes.

        Raises
        ------
        FormatError
            If no voxel is a finite number.
        """
        if not whole.count:
            raise FormatError(f"none of the {whole.not_finite} voxels is a finite number")
        flat = whole.minimum == whole.maximum
        return cls(
            count=whole.count,
            not_finite=whole.not_finite,
            minimum=whole.minimum,
            maximum=whole.maximum,
            mean=float(np.float32(whole.mean)),
            std=0.0 if flat else float(np.float32(math.sqrt(whole.squares / whole.count))),
            bins=bins,
            counts=counts,
            empty=empty,
        )

    @property
    def fill(self) -> float | None:
        """What networks see where the tomogram is empty; None if it is nowhere."""
        return self.mean if self.empty else None

    @property
    def greys(self) -> NDArray[np.float64]:
        """Grey value that stands for each bin, float64, shape (bins.number,), ascending."""
        return np.clip(self.bins.centres, self.minimum, self.maximum)

    def percentile(self, q: float) -> float:
        """Return the smallest grey value that at least ``q`` percent of the voxels do not exceed.

        It is exact for integers of up to 16 bits and at 0 and 100, else the centre of a bin.
        """
        if 0 < q < 100:
            return percentile(self.greys, self.counts, q)
        return self.minimum if q <= 0 else self.maximum

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; the counts are int64, little end first, zlib, base64."""
        packed = zlib.compress(self.counts.astype("<i8").tobytes())
        return {
            **{f.name: getattr(self, f.name) for f in fields(self)},
            "bins": asdict(self.bins),
            "counts": base64.b64encode(packed).decode("ascii"),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Statistics:
        """Return the statistics that :meth:`as_dict` described."""
        packed = zlib.decompress(base64.b64decode(values["counts"]))
        counts = np.frombuffer(packed, "<i8").astype(np.int64)
        return cls(**{**values, "bins": Bins(**values["bins"]), "counts": counts})


def percentile(greys: NDArray[np.float64], counts: NDArray[np.int64], q: float) -> float:
    """Return the smallest grey value that at least ``q`` percent of the voxels do not exceed.

    Parameters
    ----------
    greys, counts
        float64 and int64, shape (n,): ascending grey values and how many voxels have each.
    q
        0..100.
    """
    reached = np.cumsum(counts)
    # 0.1 / 100 · 1000 is not quite 1: a rank that is whole but for rounding is that whole rank.
    rank = max(math.ceil(q / 100 * reached[-1] - 1e-6), 1)
    return float(greys[np.searchsorted(reached, rank)])


def _chunks(block: NDArray[Any], size: int) -> Iterator[NDArray[Any]]:
    """Yield the voxels of a block, flat, a part at a time."""
    flat = block.reshape(-1)
    return (flat[begin : begin + size] for begin in range(0, flat.size, size))


def _finite(grey: Reals) -> Reals:
    """Return what is neither NaN nor infinite, without a copy where that is everything."""
    finite = np.isfinite(grey)
    return grey if finite.all() else grey[finite]


def _chunk_moments(chunk: NDArray[Any]) -> Moments:
    grey = _finite(chunk.astype(np.float64))
    if not grey.size:
        return Moments(not_finite=chunk.size)
    low, high, mean = float(grey.min()), float(grey.max()), float(grey.mean())
    grey -= mean
    return Moments(
        count=grey.size,
        not_finite=chunk.size - grey.size,
        minimum=low,
        maximum=high,
        mean=mean,
        squares=float(grey @ grey),
    )
