"""Whether integers were read with the sign that they have, judged by their values.

    bits             0 ......... 127 128 ......... 255
    unsigned         0 ......... 127 128 ......... 255
    signed           0 ......... 127 -128 ........ -1

Grey values crowd around one value. Read the wrong way round, those above a limit are found at the
other end of the range, as far away as it is wide.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Read the wrong way, most tomograms spread several times as far; few voxels beyond a limit do less.
SUSPICIOUS = 2.0


def spreads(counts: NDArray[np.int64]) -> tuple[float, float]:
    """Return the standard deviation of integers read as unsigned, and as signed.

    Parameters
    ----------
    counts
        int64, shape (256,) or (65536,): how many voxels have the bits of 0, 1, ….
    """
    bits = np.arange(counts.size, dtype=np.float64)
    return _spread(bits, counts), _spread(bits - counts.size * (2 * bits >= counts.size), counts)


def looks_wrapped(
    greys: NDArray[np.float64], counts: NDArray[np.int64], dtype: np.dtype[Any] | str
) -> bool:
    """Tell whether integers would lie closer together with the other sign.

    Parameters
    ----------
    greys, counts
        float64 and int64, shape (n,): values and how many voxels have each.
    dtype
        As which they were read.
    """
    span = 2.0 ** (8 * np.dtype(dtype).itemsize)
    if np.dtype(dtype).kind == "u":
        others = greys - span * (greys >= span / 2)
    else:
        others = greys + span * (greys < 0)
    return _spread(greys, counts) > SUSPICIOUS * _spread(others, counts)


def _spread(values: NDArray[np.float64], counts: NDArray[np.int64]) -> float:
    mean = np.average(values, weights=counts)
    return float(np.sqrt(np.average((values - mean) ** 2, weights=counts)))
