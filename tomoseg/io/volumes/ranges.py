"""Reading boxes of an array that lies uncompressed in a file, by ranges of bytes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tomoseg.core.blocks import Box
from tomoseg.core.errors import FormatError, RequestError
from tomoseg.core.sampling import Shape

# Large enough to hide the latency of an object store, small enough to be little beside a block.
RANGE_BYTES = 16 * 2**20


@dataclass(frozen=True)
class StoredArray:
    """Where and how an array lies in a file, in C order.

    Parameters
    ----------
    offset
        First byte of the array in the file.
    shape
        Sections, rows and columns, in the order of the file.
    dtype
        Type of a voxel with the file's byte order.
    """

    offset: int
    shape: Shape
    dtype: np.dtype[Any]

    @property
    def byte_count(self) -> int:
        """Bytes that the array takes in the file."""
        return prod(self.shape) * self.dtype.itemsize

    def read(self, file: BinaryIO, box: Box) -> NDArray[Any]:
        """Read a box in the order of the file's axes.

        Returns
        -------
        Native byte order, shape of the box.

        Raises
        ------
        RequestError
            If the box leaves the array.
        FormatError
            If the file ends early.

        Notes
        -----
        Rows are read over their whole length, so that the rows of a section are one range, and
        whole sections are merged up to 16 MiB. A narrow box reads up to columns / width too much,
        which costs less than a request for every row.
        """
        refuse_outside(box, self.shape)
        out: NDArray[Any] = np.empty(box.shape, self.dtype.newbyteorder("="))
        (_, top, left), (_, bottom, right) = box.begin, box.end
        for begin, end in self._section_runs(box):
            rows = self._read_rows(file, begin, end, (top, bottom))
            out[begin - box.begin[0] : end - box.begin[0]] = rows[:, :, left:right]
        return out

    def _section_runs(self, box: Box) -> Iterator[tuple[int, int]]:
        if box.size == 0:
            return
        _, rows, columns = self.shape
        merged = max(1, RANGE_BYTES // (rows * columns * self.dtype.itemsize))
        step = merged if box.shape[1] == rows else 1
        for begin in range(box.begin[0], box.end[0], step):
            yield begin, min(begin + step, box.end[0])

    def _read_rows(
        self, file: BinaryIO, begin: int, end: int, rows: tuple[int, int]
    ) -> NDArray[Any]:
        shape = (end - begin, rows[1] - rows[0], self.shape[2])
        first_voxel = (begin * self.shape[1] + rows[0]) * self.shape[2]
        offset = self.offset + first_voxel * self.dtype.itemsize
        raw = read_exactly(file, offset, prod(shape) * self.dtype.itemsize)
        return np.frombuffer(raw, self.dtype).reshape(shape)


def refuse_outside(box: Box, shape: Shape) -> None:
    """Raise RequestError if a box has voxels outside a volume of this shape."""
    if not Box.whole(shape).contains(box):
        raise RequestError(f"box {box.begin}..{box.end} leaves the volume of shape {shape}")


def byte_count(file: BinaryIO) -> int:
    """Return the size of a file in bytes."""
    return file.seek(0, io.SEEK_END)


def read_exactly(file: BinaryIO, offset: int, count: int) -> bytes:
    """Read ``count`` bytes from ``offset``; unbuffered files may answer in parts.

    Raises
    ------
    FormatError
        If the file ends before.
    """
    file.seek(offset)
    parts: list[bytes] = []
    missing = count
    while missing > 0:
        part = file.read(missing)
        if not part:
            raise FormatError(
                f"the file ended {missing} bytes before the end of the {count} bytes at {offset}",
                remedy="Copy the file again; it is incomplete or was changed while it was read",
            )
        parts.append(part)
        missing -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def run_starts(box: Box, shape: Shape) -> Iterator[int]:
    """Give the first voxel (in C order of the volume) of each contiguous run of a box.

    All runs of a box have the same length: its voxels over the number of runs.
    """
    _, rows, columns = shape
    whole_rows = box.shape[2] == columns
    whole_sections = whole_rows and box.shape[1] == rows
    (top, first_row, left), (bottom, last_row, _) = box.begin, box.end
    for z in range(top, top + 1 if whole_sections else bottom):
        for y in range(first_row, first_row + 1 if whole_rows else last_row):
            yield (z * rows + y) * columns + left
