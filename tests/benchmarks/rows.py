"""Lines of the table of bench.py, and how they are measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    ours: str
    other: str
    ratio: float

    def __str__(self) -> str:
        """Return it as Markdown."""
        return f"| {self.what} | {self.ours} | {self.other} | {self.ratio:.3g} |"


def timed(work: Callable[[], Any], repeats: int) -> tuple[float, str]:
    """Return the median of CPU seconds of calls, and it with its spread as text."""
    spent = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        spent.append(time.process_time() - began)
    middle = statistics.median(spent)
    return middle, f"{middle:.3g} s ({min(spent):.3g}–{max(spent):.3g})"


def normalised(path: Path) -> NDArray[np.float32]:
    """Return a tomogram with mean 0 and variance 1."""
    import mrcfile

    voxels = np.asarray(mrcfile.read(path), np.float32)
    return (voxels - voxels.mean()) / voxels.std()


def share(flags: NDArray[np.bool_]) -> float:
    """Return the share that is true."""
    return float(flags.mean())
