"""What the readers of volumes share: an open file, a voxel size that overrules it, boxes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, BinaryIO

from numpy.typing import NDArray

from tomoseg.core.blocks import Box
from tomoseg.core.sampling import Header
from tomoseg.io.volumes.ranges import refuse_outside


class BoxReader(ABC):
    """A volume in a file that is read box by box.

    Parameters
    ----------
    file
        Open for reading in binary, seekable, decompressed. It stays the caller's, and one thread
        at a time may read.
    voxel_size_angstrom
        Taken instead of what the file says.
    """

    def __init__(self, file: BinaryIO, *, voxel_size_angstrom: float | None = None) -> None:
        self._file = file
        self._override_angstrom = voxel_size_angstrom

    @property
    @abstractmethod
    def header(self) -> Header:
        """What the file says about itself; the first use reads no more than that takes.

        Raises
        ------
        FormatError
            If the file is of another format, of a kind that is not read, or incomplete.
        VoxelSizeError
            If it states no voxel size that can be right, and no override was given.
        """

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box of voxels.

        Parameters
        ----------
        box
            Region in the frame of ``header.sampling``, zyx.

        Returns
        -------
        Type ``header.dtype`` in native byte order, shape of the box, zyx, values as in the file.

        Raises
        ------
        RequestError
            If the box leaves the volume.
        FormatError
            If the file is truncated or damaged.
        """
        refuse_outside(box, self.header.sampling.shape)
        return self._read(box)

    @abstractmethod
    def _read(self, box: Box) -> NDArray[Any]:
        """Return the voxels of a box that lies within the volume."""
