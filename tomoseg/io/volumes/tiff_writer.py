"""TIFF stacks as ImageJ reads them, written box by box."""

from __future__ import annotations

import warnings
from typing import Any, BinaryIO

import numpy as np
import tifffile
from numpy.typing import DTypeLike, NDArray

from tomoseg.core.blocks import Box
from tomoseg.core.errors import RequestError
from tomoseg.core.sampling import Sampling
from tomoseg.io.volumes.ranges import refuse_outside, run_starts

DTYPES = ("uint8", "uint16", "float32")


class TiffWriter:
    """An uncompressed TIFF stack that is written box by box, in any order.

    Parameters
    ----------
    file
        Open for writing in binary, seekable, empty. It stays the caller's.
    sampling
        Grid; its voxel size becomes ImageJ's calibration, in nm.
    dtype
        uint8, uint16 or float32, those of ImageJ.
    shown
        Values that ImageJ shows as black and white.

    Raises
    ------
    RequestError
        If the type is none of these.

    Notes
    -----
    The directories are written at once, the voxels lie in one piece between them; voxels never
    written read as 0. Above 4 GB ImageJ's own way is taken: one directory that tells the number
    of slices. The same voxels give the same bytes.
    """

    def __init__(
        self, file: BinaryIO, sampling: Sampling, dtype: DTypeLike, *, shown: tuple[float, float]
    ) -> None:
        self._file = file
        self._shape = sampling.shape
        self._dtype = np.dtype(dtype).newbyteorder("<")
        if self._dtype.name not in DTYPES:
            raise RequestError(
                f"ImageJ has no type for {self._dtype.name}",
                remedy=f"Write one of {', '.join(DTYPES)}",
            )
        z, y, x = (size / 10 for size in sampling.voxel_size_angstrom)
        about = {"axes": "ZYX", "unit": "nm", "spacing": z, "min": shown[0], "max": shown[1]}
        # The name of a temporary file is a number, over which tifffile stumbles.
        out = tifffile.FileHandle(file, name="volume.tif")
        with (
            warnings.catch_warnings(),
            tifffile.TiffWriter(out, imagej=True, byteorder="<") as to,
        ):
            warnings.filterwarnings("ignore", message=".*truncating ImageJ file")
            self._offset, _ = to.write(
                None,
                shape=self._shape,
                dtype=self._dtype,
                resolution=(1 / x, 1 / y),
                metadata=about,
                software=False,
                returnoffset=True,
            )

    def write(self, box: Box, array: NDArray[Any]) -> None:
        """Write the voxels of a box.

        Parameters
        ----------
        box
            Region of the grid, zyx.
        array
            Shape of the box, zyx; converted where no value changes by more than rounding.

        Raises
        ------
        RequestError
            If the box leaves the grid, or the array does not fit the box or the type.
        """
        refuse_outside(box, self._shape)
        if array.shape != box.shape or not np.can_cast(array.dtype, self._dtype, "same_kind"):
            raise RequestError(
                f"{array.dtype} array of shape {array.shape} for a box of shape {box.shape} of "
                f"{self._dtype.name}"
            )
        if box.size == 0:
            return
        voxels = np.ascontiguousarray(array, self._dtype)
        starts = list(run_starts(box, self._shape))
        for start, run in zip(starts, voxels.reshape(len(starts), -1), strict=True):
            self._file.seek(self._offset + start * self._dtype.itemsize)
            self._file.write(run.data)
