"""Volumes that are compared: opened, and brought to the finest of their grids.

Labels of a tomogram that was binned lie on its binned grid, what another program says of it on the
source's. A voxel of the finest grid has the value of the voxel of the coarser that it lies in, as
in exported masks. What a last bin had too few voxels for is not compared.

    truth    |0|1|2|3|4|5|6|      shape 7, 10 Å
    found    | 0 | 1 | 2 |        shape 3, 20 Å: compared are voxels 0 to 5
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.analysis.binning import read_finer
from tomoseg.core.blocks import Box
from tomoseg.core.errors import RequestError, VoxelSizeError
from tomoseg.core.sampling import Shape, Triple, as_shape
from tomoseg.evaluation.options import Options
from tomoseg.io.volumes.sources import Source, open_source

SAME_SIZE_WITHIN = 0.01
# The size of voxels does not matter where none is known: there are no surfaces then.
ANY_VOXEL_ANGSTROM = 10.0


@dataclass(frozen=True)
class Compared:
    """Open volumes on one grid.

    Parameters
    ----------
    volumes
        In the order asked for, each seen on the finest grid.
    shape
        What all of them cover, voxels zyx from the first.
    voxel_size_angstrom
        zyx; None where no file says it.
    coarsest_angstrom
        Smallest edge of a voxel of the volume that had the coarsest grid; 0 where it is not known.
    """

    volumes: tuple[Finer, ...]
    shape: Shape
    voxel_size_angstrom: Triple | None
    coarsest_angstrom: float


def open_together(stack: ExitStack, places: Sequence[str], options: Options) -> Compared:
    """Open volumes of one grid, or of grids that are binned from one by whole factors.

    Raises
    ------
    RequestError, VoxelSizeError
        If shapes or voxel sizes do not fit each other.
    """
    volumes: dict[str, Source] = {}
    sizes: dict[str, Triple] = {}
    for place in places:
        given = options.voxel_size_angstrom
        try:
            volumes[place] = stack.enter_context(open_source(place, voxel_size_angstrom=given))
            sizes[place] = volumes[place].header.sampling.voxel_size_angstrom
        except VoxelSizeError:
            unknown = open_source(place, voxel_size_angstrom=ANY_VOXEL_ANGSTROM)
            volumes[place] = stack.enter_context(unknown)
    bins = _bins(volumes, sizes)
    shapes = [np.multiply(volumes[place].header.sampling.shape, bins[place]) for place in places]
    shape = as_shape(np.min(shapes, axis=0))
    return Compared(
        tuple(Finer(volumes[place], bins[place], shape) for place in places),
        shape,
        _finest_size(sizes, bins),
        max((min(size) for size in sizes.values()), default=0.0),
    )


@dataclass(frozen=True)
class Finer:
    """A volume on a grid of which so many voxels zyx make one of its own.

    ``shape`` is what of that grid it is seen on.
    """

    volume: Source
    bins: Shape
    shape: Shape

    def read(self, box: Box) -> NDArray[Any]:
        """Return the value of the voxel in which each voxel of a box of the finer grid lies."""
        own = self.volume.header.sampling.shape
        return read_finer(self.volume.read, box, self.bins, own)


def _bins(volumes: Mapping[str, Source], sizes: Mapping[str, Triple]) -> dict[str, Shape]:
    """Return how many voxels zyx of the finest volume make one of each."""
    grids = {place: volume.header.sampling for place, volume in volumes.items()}
    finest = max(grids, key=lambda place: prod(grids[place].shape))
    fine, found = grids[finest], {}
    for place, grid in grids.items():
        factor = 1
        if grid.shape != fine.shape and {place, finest} <= sizes.keys():
            factor = max(1, round(grid.voxel_size_angstrom[2] / fine.voxel_size_angstrom[2]))
        bins = fine.bins(factor)
        # A rest that is too small for a bin is dropped by some programs, kept by others.
        known = [as_shape(np.add(fine.shape, more) // bins) for more in (0, np.subtract(bins, 1))]
        if grid.shape not in known:
            raise RequestError(
                f"{finest} has shape {fine.shape}, {place} has {grid.shape}",
                remedy="Compare volumes of one grid, or of one binned by a whole factor.",
            )
        found[place] = bins
    return found


def _finest_size(sizes: Mapping[str, Triple], bins: Mapping[str, Shape]) -> Triple | None:
    """Return the voxel size, zyx, Å, of the finest volume; None where no file says one."""
    reference, size = "", None
    for place, own in sizes.items():
        factor = max(bins[place])
        z, y, x = (edge / factor for edge in own)
        if size is None:
            reference, size = place, (z, y, x)
        elif not np.allclose((z, y, x), size, rtol=SAME_SIZE_WITHIN, atol=0):
            raise VoxelSizeError(
                f"{reference} has voxels of {_listed(sizes[reference])} Å (zyx), {place} of "
                f"{_listed(own)} Å",
                remedy="Give --voxel-size if a header is wrong.",
            )
    return size


def _listed(size: Triple) -> str:
    return " × ".join(f"{edge:.6g}" for edge in size)
