"""Voxels that a training asks for again and again, kept in memory as far as it goes."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.core.blocks import BlockGrid, Box
from tomoseg.core.sampling import Shape

_SLICES = 32


class Memory:
    """What is left of the memory that may be used, in bytes."""

    def __init__(self, gib: float) -> None:
        self._left = int(gib * (1 << 30))

    def take(self, wanted: int) -> bool:
        """Take some if there is so much; tell whether."""
        if wanted > self._left:
            return False
        self._left -= wanted
        return True


class Voxels:
    """A volume read by boxes; where memory allows, read whole at the first use and kept.

    Parameters
    ----------
    shape
        Voxels zyx.
    dtype
        Of what is read.
    read
        Returns the voxels of a box; may be called from several threads.
    memory
        What is taken if the volume fits in.
    """

    def __init__(
        self, shape: Shape, dtype: Any, read: Callable[[Box], NDArray[Any]], memory: Memory
    ) -> None:
        self._shape, self._dtype, self._read = shape, np.dtype(dtype), read
        self._is_kept = memory.take(Box.whole(shape).size * self._dtype.itemsize)
        self._whole: NDArray[Any] | None = None
        self._lock = Lock()

    def read(self, box: Box) -> NDArray[Any]:
        """Return the voxels of a box inside the volume, as an array of its own."""
        if not self._is_kept:
            return self._read(box)
        return np.array(self._kept()[box.slices], order="C")

    def _kept(self) -> NDArray[Any]:
        with self._lock:
            if self._whole is None:
                whole = np.empty(self._shape, self._dtype)
                for block in strips(self._shape):
                    whole[block.write.slices] = self._read(block.write)
                self._whole = whole
            return self._whole


def strips(shape: Shape) -> BlockGrid:
    """Return slabs of whole slices, a few at a time."""
    return BlockGrid(shape, (_SLICES, shape[1], shape[2]))
