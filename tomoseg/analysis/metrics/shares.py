"""Shares and statistics that are NaN where there is nothing to divide by."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


def share(part: float, whole: float) -> float:
    """Return part / whole, NaN where there is nothing to divide by."""
    return float(part / whole) if whole > 0 else float("nan")


def f_beta(precision: float, recall: float, *, beta: float) -> float:
    """F_β = (1 + β²) P R / (β² P + R), 0 where both are 0; van Rijsbergen (1979)."""
    below = beta**2 * precision + recall
    return (1 + beta**2) * precision * recall / below if below > 0 else 0.0


def statistic(values: NDArray[np.float64], of: Callable[..., np.floating]) -> float:
    """Return a statistic of values, NaN where there are none."""
    return float(of(values)) if len(values) else float("nan")
