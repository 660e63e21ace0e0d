"""MRC volumes: boxes read by ranges of bytes, and boxes written in any order."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial, reduce
from math import prod, sqrt
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from mrcfile.constants import MAP_ID, VOLUME_SPACEGROUP
from mrcfile.utils import machine_stamp_from_byte_order, mode_from_dtype
from numpy.typing import DTypeLike, NDArray

from tomoseg.core.blocks import Box
from tomoseg.core.errors import RequestError
from tomoseg.core.sampling import Header, Shape, as_shape
from tomoseg.core.version import code_version
from tomoseg.io.volumes.box_reader import BoxReader
from tomoseg.io.volumes.mrc_header import (
    AXES,
    COUNTS,
    FIELDS,
    HEADER_BYTES,
    IMOD_SIGNED_BYTES,
    IMOD_STAMP,
    INTERVALS,
    MODES,
    STARTS,
    Integers,
    Layout,
    parse_header,
    stated_origin,
)
from tomoseg.io.volumes.ranges import byte_count, read_exactly, refuse_outside, run_starts

# Of bytes whose sign is not told, looked at: so many parts, of so many bytes.
SAMPLES, SAMPLE_BYTES = 64, 1 << 14


class MrcReader(BoxReader):
    """An MRC file that is read box by box.

    Parameters
    ----------
    file, voxel_size_angstrom
        As for every reader.
    integers
        Whether integers have a sign; ``auto``: as the header says or, where it does not, as their
        values do.
    """

    def __init__(
        self,
        file: BinaryIO,
        *,
        voxel_size_angstrom: float | None = None,
        integers: Integers = "auto",
    ) -> None:
        super().__init__(file, voxel_size_angstrom=voxel_size_angstrom)
        self._integers = integers

    @property
    def header(self) -> Header:
        """What the file says about itself; the first use reads 1024 bytes."""
        return self._layout.header

    def _read(self, box: Box) -> NDArray[Any]:
        layout = self._layout
        in_file = Box(
            as_shape(box.begin[axis] for axis in layout.axes),
            as_shape(box.end[axis] for axis in layout.axes),
        )
        voxels = layout.stored.read(self._file, in_file)
        return np.ascontiguousarray(voxels.transpose(np.argsort(layout.axes)))

    @cached_property
    def _layout(self) -> Layout:
        size = byte_count(self._file)
        raw = read_exactly(self._file, 0, min(size, HEADER_BYTES))
        return parse_header(
            raw,
            size,
            override_angstrom=self._override_angstrom,
            integers=self._integers,
            some_bytes=partial(self._some_bytes, size),
        )

    def _some_bytes(self, size: int, begin: int) -> NDArray[np.uint8]:
        """Return bytes from all over a file of some size, from some place on."""
        step = max(SAMPLE_BYTES, (size - begin) // SAMPLES)
        starts = range(begin, size, step)
        parts = (
            read_exactly(self._file, start, min(SAMPLE_BYTES, size - start)) for start in starts
        )
        return np.frombuffer(b"".join(parts), np.uint8)


@dataclass(frozen=True)
class _Moments:
    """Statistics of values seen so far; ``squares`` is the sum of squared deviations."""

    count: int
    mean: float
    squares: float
    minimum: float
    maximum: float

    @classmethod
    def of(cls, values: NDArray[Any]) -> _Moments:
        if values.dtype.kind == "b":
            held = int(np.count_nonzero(values)) / values.size
            spread = values.size * held * (1 - held)
            return cls(values.size, held, spread, float(held == 1), float(held > 0))
        low, high = values.min(), values.max()
        if values.dtype.kind in "iu" and int(high) - int(low) <= 1:
            # A mask, say: a count takes a tenth of the time.
            share = float(np.count_nonzero(values > low) / values.size)
            squares = values.size * share * (1 - share)
            return cls(values.size, int(low) + share, squares, float(low), float(high))
        mean = float(values.mean(dtype=np.float64))
        squares = float(np.square(np.subtract(values, mean, dtype=np.float64)).sum())
        return cls(values.size, mean, squares, float(low), float(high))

    def merge(self, other: _Moments) -> _Moments:
        """Pool two sets (Chan, Golub and LeVeque 1983): no cancellation as with plain sums."""
        count = self.count + other.count
        apart = other.mean - self.mean
        return _Moments(
            count,
            self.mean + apart * other.count / count,
            self.squares + other.squares + apart**2 * self.count * other.count / count,
            min(self.minimum, other.minimum),
            max(self.maximum, other.maximum),
        )


class MrcWriter:
    """An MRC file that is written box by box, in any order.

    Parameters
    ----------
    file
        Open for writing in binary, seekable, empty. It stays the caller's.
    header
        Grid, origin and start of the source; its dtype and notes are not used.
    dtype
        int8, int16, uint16, float16 or float32.
    label
        What the file holds; written after the program's name and version.

    Raises
    ------
    RequestError
        If the type is none of these.

    Notes
    -----
    Each voxel is written at most once; voxels never written read as 0. The header is written by
    :meth:`close`: a file whose writing failed does not pass for an MRC file. Nothing of the
    file depends on the time, so that the same voxels give the same bytes. The origin is stated
    as the source states it, with IMOD's stamp or the number of MRC2014: programs that know the
    difference and programs that do not then show both in one place.
    """

    def __init__(self, file: BinaryIO, header: Header, dtype: DTypeLike, *, label: str) -> None:
        self._file = file
        self._header = header
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._label = f"tomoseg {code_version()} {label}"
        self._seen: _Moments | None = None
        if self._dtype.name not in MODES.values():
            raise RequestError(
                f"MRC has no mode for {self._dtype.name}",
                remedy=f"Write one of {', '.join(MODES.values())}",
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()

    def write(self, box: Box, array: NDArray[Any]) -> None:
        """Write the voxels of a box.

        Parameters
        ----------
        box
            Region in the frame of the header's grid, zyx.
        array
            Shape of the box, zyx; bool, integers or, for the float types, floats.

        Raises
        ------
        RequestError
            If the box leaves the grid, or a value does not fit the type or is not finite.
        """
        refuse_outside(box, self._shape)
        if array.shape != box.shape:
            raise RequestError(f"array of shape {array.shape} for a box of shape {box.shape}")
        if box.size == 0:
            return
        voxels = _converted(array, self._dtype)
        # A slice at a time: as float64 a box would be many times its own size.
        seen = [] if self._seen is None else [self._seen]
        slices = array if array.dtype.kind == "b" else voxels
        self._seen = reduce(_Moments.merge, map(_Moments.of, slices), *seen)
        starts = list(run_starts(box, self._shape))
        for start, run in zip(starts, voxels.reshape(len(starts), -1), strict=True):
            # Most of a mask is 0, as is what nobody wrote.
            if run.view(np.uint8).any():
                self._file.seek(HEADER_BYTES + start * self._dtype.itemsize)
                self._file.write(run.data)

    def close(self) -> None:
        """Finish the statistics and write the header; the file itself stays open."""
        size = HEADER_BYTES + prod(self._shape) * self._dtype.itemsize
        if byte_count(self._file) < size:
            self._file.seek(size - 1)
            self._file.write(b"\0")
        self._file.seek(0)
        self._file.write(self._header_bytes())
        self._file.flush()

    @property
    def _shape(self) -> Shape:
        return self._header.sampling.shape

    def _statistics(self) -> _Moments:
        """Count voxels never written as the zeros that they read as."""
        seen = self._seen or _Moments(0, 0.0, 0.0, 0.0, 0.0)
        rest = prod(self._shape) - seen.count
        return seen.merge(_Moments(rest, 0.0, 0.0, 0.0, 0.0)) if rest > 0 else seen

    def _header_bytes(self) -> bytes:
        fields = np.zeros((), FIELDS)
        statistics = self._statistics()
        sampling = self._header.sampling
        fields["mode"] = mode_from_dtype(self._dtype)
        fields[COUNTS] = fields[INTERVALS] = sampling.shape[::-1]
        fields[STARTS] = self._header.start_voxels[::-1]
        cell = np.multiply(sampling.shape, sampling.voxel_size_angstrom)[::-1]
        fields["cella"], fields["cellb"] = tuple(cell), (90.0, 90.0, 90.0)
        fields[AXES] = 1, 2, 3
        fields["dmin"], fields["dmax"] = statistics.minimum, statistics.maximum
        fields["dmean"] = statistics.mean
        fields["rms"] = sqrt(statistics.squares / statistics.count)
        fields["ispg"] = VOLUME_SPACEGROUP
        fields["origin"] = stated_origin(self._header)[::-1]
        if self._header.has_imods_origin:
            fields["imod_stamp"], fields["imod_flags"] = IMOD_STAMP, IMOD_SIGNED_BYTES
        else:
            fields["nversion"] = 20141
        fields["map"], fields["machst"] = MAP_ID, machine_stamp_from_byte_order("<")
        fields["nlabl"] = 1
        fields["label"][0] = self._label.encode("ascii", "replace")[:80]
        return fields.tobytes()


def label_type(largest: int) -> np.dtype[Any]:
    """Return the type in which programs read labels up to ``largest``.

    Notes
    -----
    int8 up to 127, because mode 0 is signed to some programs and unsigned to others; then int16,
    then uint16.

    Raises
    ------
    RequestError
        If ``largest`` is negative or above 65535.
    """
    if largest >= 0:
        for name in ("int8", "int16", "uint16"):
            if largest <= np.iinfo(name).max:
                return np.dtype(name)
    raise RequestError(f"MRC has no mode for labels up to {largest}; the largest is 65535")


def _converted(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the values in the type of the file, or refuse."""
    if array.dtype.kind == "f" and dtype.kind != "f":
        raise RequestError(f"{array.dtype.name} values do not go into an MRC file of {dtype.name}")
    if dtype.kind != "f" and array.dtype.kind != "b":
        bounds = np.iinfo(dtype)
        if array.min() < bounds.min or array.max() > bounds.max:
            raise RequestError(
                f"values {array.min()}..{array.max()} leave the range of {dtype.name}, "
                f"{bounds.min}..{bounds.max}"
            )
    with np.errstate(over="ignore"):
        voxels = array.astype(dtype)
    if dtype.kind == "f" and not np.isfinite(voxels).all():
        raise RequestError(f"a value is not finite as {dtype.name}")
    return voxels
