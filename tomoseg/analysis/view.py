"""What a network sees of a tomogram, learning and applied alike: normalised, on its own grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.analysis.intensity import Normaliser
from tomoseg.analysis.rescale import Rescaling
from tomoseg.core.blocks import Box
from tomoseg.core.sampling import Sampling

LARGEST_RESCALING = 2.5
"""So many times finer or coarser than a network's may voxels be along any axis."""
EQUAL_WITHIN = 0.01


@dataclass(frozen=True)
class NetworkView:
    """A network's way to see boxes of one tomogram; pickles small.

    Parameters
    ----------
    stored
        The grid of the tomogram.
    grid
        That of the network: the same, or one of its voxel size.
    normaliser
        Of grey values, on the tomogram's grid.
    """

    stored: Sampling
    grid: Sampling
    normaliser: Normaliser

    @property
    def is_rescaled(self) -> bool:
        """Whether the network's grid is another than the tomogram's."""
        return self.grid != self.stored

    def sources(self, box: Box) -> Box:
        """Return the box of the tomogram's grid that a box of the network's is made from."""
        return Rescaling(self.stored, self.grid).needed(box) if self.is_rescaled else box

    def needed(self, box: Box) -> Box:
        """Return the voxels of the tomogram to read for a box of the network's grid."""
        margin = self.normaliser.halo(self.stored)
        return self.sources(box).grow(margin).clip(self.stored.shape)

    def seen(self, box: Box, read: Callable[[Box], NDArray[Any]]) -> NDArray[np.float32]:
        """Return float32, ``box.shape``, of a box of the network's grid.

        Parameters
        ----------
        read
            Gives the voxels of a box of the tomogram, zyx, in its own dtype.
        """
        wanted, needed = self.sources(box), self.needed(box)
        voxels = self.normaliser.apply(read(needed), self.stored)
        voxels = voxels[wanted.within(needed).slices]
        there = Rescaling(self.stored, self.grid)
        return there.apply(voxels, wanted, box) if self.is_rescaled else voxels


def fits_unscaled(
    sampling: Sampling, wanted_angstrom: float, *, tolerance: float = EQUAL_WITHIN
) -> bool:
    """Tell whether a network of a voxel size, Å, takes a tomogram as it is."""
    voxel = sampling.voxel_angstrom
    is_even = np.ptp(sampling.voxel_size_angstrom) <= EQUAL_WITHIN * voxel
    return bool(is_even) and abs(voxel / wanted_angstrom - 1) <= tolerance


def can_be_rescaled(sampling: Sampling, wanted_angstrom: float) -> bool:
    """Tell whether a tomogram is resampled for a network of a voxel size, Å."""
    ratios = np.array(sampling.voxel_size_angstrom) / wanted_angstrom
    return bool(max(ratios.max(), 1 / ratios.min()) <= LARGEST_RESCALING)
