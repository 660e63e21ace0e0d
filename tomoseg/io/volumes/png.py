"""PNG images as tomograms of one slice: grey, 8 or 16 bits, without a voxel size."""

from __future__ import annotations

import struct
import zlib
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.PngImagePlugin import PngImageFile

from tomoseg.core.blocks import Box
from tomoseg.core.errors import FormatError, is_away
from tomoseg.core.sampling import Header, Sampling
from tomoseg.io.volumes.box_reader import BoxReader
from tomoseg.io.volumes.ranges import byte_count, read_exactly
from tomoseg.io.voxel_size import decide_voxel_size

# An image is unpacked as a whole; a larger one is a damaged or hostile header.
LARGEST_PIXELS = 2**28
# Deflate makes at most 1,032 bytes of one.
LARGEST_RATIO = 2**11

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_DTYPES = {8: "uint8", 16: "uint16"}
_COLOURS = {2: "colours", 3: "a palette", 4: "transparency", 6: "colours and transparency"}
# What Pillow and the unpacker raised on files damaged at random.
_DAMAGE = (OSError, SyntaxError, ValueError, LookupError, struct.error, zlib.error)


class PngReader(BoxReader):
    """A grey PNG image that is read box by box.

    Notes
    -----
    The image is unpacked whole for each box. Its voxel size must be given: a PNG file states the
    size of a print at most.
    """

    @cached_property
    def header(self) -> Header:
        """What the file says about itself; the first use reads 33 bytes.

        Raises
        ------
        FormatError
            If this is not a PNG file, not grey of 8 or 16 bits, or too large.
        VoxelSizeError
            If no voxel size was given.
        """
        columns, rows, bits, colour = _image_header(read_exactly(self._file, 0, 33))
        _refuse_unread_kinds(bits, colour)
        if not 0 < columns * rows <= LARGEST_PIXELS:
            raise FormatError(
                f"an image of {columns} × {rows} pixels; 1 to {LARGEST_PIXELS} are read",
                remedy="Convert it to TIFF or MRC",
            )
        present = byte_count(self._file)
        if columns * rows * bits // 8 > LARGEST_RATIO * present:
            raise FormatError(
                f"an image of {columns} × {rows} pixels cannot be in a file of {present} bytes",
                remedy="Copy the file again; it is incomplete",
            )
        notes: list[str] = []
        size = decide_voxel_size(None, self._override_angstrom, notes=notes)
        return Header(Sampling((1, rows, columns), size), _DTYPES[bits], notes=tuple(notes))

    def _read(self, box: Box) -> NDArray[Any]:
        try:
            self._file.seek(0)
            # Opened without Pillow's own limit, which is below the size of a large camera.
            pixels = np.asarray(PngImageFile(self._file), self.header.dtype)[np.newaxis]
        except _DAMAGE as error:
            if is_away(error):
                raise
            raise FormatError(
                f"the image cannot be unpacked: {type(error).__name__} {error}",
                remedy="Copy the file again, or wait until it is written completely",
            ) from error
        return np.ascontiguousarray(pixels[box.slices])


def _image_header(start: bytes) -> tuple[int, int, int, int]:
    """Return columns, rows, bits and kind of colour of the chunk that every PNG begins with."""
    if not start.startswith(_SIGNATURE) or start[12:16] != b"IHDR":
        raise FormatError(f"not a PNG file: it begins with {start[:16]!r}", remedy="Check the file")
    if zlib.crc32(start[12:29]) != int.from_bytes(start[29:33], "big"):
        raise FormatError("the header of the PNG file is damaged", remedy="Copy the file again")
    columns, rows, bits, colour = struct.unpack(">IIBB", start[16:26])
    return columns, rows, bits, colour


def _refuse_unread_kinds(bits: int, colour: int) -> None:
    remedy = "Save it as grey of 8 or 16 bits"
    if colour != 0:
        raise FormatError(f"a PNG image with {_COLOURS.get(colour, 'colours')}", remedy=remedy)
    if bits not in _DTYPES:
        raise FormatError(f"a PNG image of {bits} bits; 8 and 16 are read", remedy=remedy)
