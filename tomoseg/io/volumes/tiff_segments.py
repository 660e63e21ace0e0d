"""Strips and tiles of TIFF pages that tifffile leaves to another package, unpacked by Pillow.

Each becomes a TIFF image of its own, of bytes: what libtiff can become of it is bounded by its
rows and columns. Predictors are undone here, for every type of voxel.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL.TiffImagePlugin import TiffImageFile

from tomoseg.core.errors import FormatError
from tomoseg.io.volumes.ranges import read_exactly

LZW, JPEG, ZSTD, DEFLATE = 5, 7, 50000, (8, 32946)
HORIZONTAL, FLOATING = 2, 3
_JPEG_TABLES = 347
# By compression, which predictors are undone. 34925 is LZMA, 32773 runs of bytes.
_PREDICTORS = {
    1: (1,),
    JPEG: (1,),
    **dict.fromkeys((LZW, ZSTD, *DEFLATE), (1, HORIZONTAL, FLOATING)),
    **dict.fromkeys((50013, 34925, 32773), (1,)),
}

Bytes = NDArray[np.uint8]


def check_packing(page: Any) -> None:
    """Refuse what could not be unpacked later.

    Raises
    ------
    FormatError
        With the name of the compression.
    """
    packing, predictor = int(page.compression), int(page.predictor)
    is_known = predictor in _PREDICTORS.get(packing, ())
    if packing == JPEG and page.dtype != np.uint8:
        is_known = False
    if is_ours(page) and int(page.fillorder) != 1:
        is_known = False
    if not is_known:
        name = getattr(page.compression, "name", str(packing))
        raise FormatError(
            f"pages packed by {name} (predictor {predictor}, {page.dtype}) are not read",
            remedy="Save the file uncompressed, or packed by deflate (zlib) or LZW",
        )


def is_ours(page: Any) -> bool:
    """Tell whether a page is unpacked here, not by tifffile."""
    packing = int(page.keyframe.compression)
    return packing in (LZW, JPEG, ZSTD) or (packing in DEFLATE and page.keyframe.predictor != 1)


def unpacked_page(page: Any, file: BinaryIO) -> NDArray[Any]:
    """Return a page's pixels, rows × columns, in the byte order of the file.

    Raises
    ------
    FormatError
        If a segment is damaged or cut.
    """
    rows, columns = page.keyframe.imagelength, page.keyframe.imagewidth
    dtype = np.dtype(page.keyframe.dtype).newbyteorder(page.keyframe.parent.byteorder)
    out = np.zeros((rows, columns), dtype)
    segments = zip(_places(page), page.dataoffsets, page.databytecounts, strict=True)
    for (top, left, height, width), offset, count in segments:
        raw = read_exactly(file, offset, count)
        pixels = _unpacked(raw, page, (height, width), dtype)
        part = out[top : top + height, left : left + width]
        part[...] = pixels[: part.shape[0], : part.shape[1]]
    return out


def _places(page: Any) -> Iterator[tuple[int, int, int, int]]:
    """Yield top, left, height and width of each segment; tiles are whole beyond the border."""
    rows, columns = page.keyframe.imagelength, page.keyframe.imagewidth
    if page.keyframe.is_tiled:
        height, width = page.keyframe.tilelength, page.keyframe.tilewidth
        for top in range(0, rows, height):
            yield from ((top, left, height, width) for left in range(0, columns, width))
        return
    height = min(page.keyframe.rowsperstrip, rows)
    for top in range(0, rows, height):
        yield top, 0, min(height, rows - top), columns


def _unpacked(raw: bytes, page: Any, shape: tuple[int, int], dtype: np.dtype[Any]) -> NDArray[Any]:
    rows, columns = shape
    try:
        with TiffImageFile(io.BytesIO(_image_of(raw, page, rows, columns * dtype.itemsize))) as one:
            plain = np.array(one, np.uint8)
    except (OSError, SyntaxError, ValueError, LookupError, struct.error) as error:
        raise FormatError(
            f"page {page.index} cannot be unpacked: {error}",
            remedy="Copy the file again, or save it uncompressed",
        ) from error
    return _without_predictor(plain, int(page.keyframe.predictor), dtype)


def _without_predictor(plain: Bytes, predictor: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Undo differences along rows (TIFF 6.0, section 14; Adobe's technical note 3)."""
    if predictor == HORIZONTAL:
        whole = dtype if dtype.kind in "iu" else np.dtype(f"{dtype.byteorder}u{dtype.itemsize}")
        values = plain.view(whole)
        summed = np.cumsum(values, axis=1, dtype=values.dtype.newbyteorder("="))
        return summed.astype(whole).view(dtype)
    if predictor == FLOATING:
        summed = np.cumsum(plain, axis=1, dtype=np.uint8)
        # Of all numbers of a row the most significant bytes come first.
        planes = summed.reshape(len(plain), dtype.itemsize, -1).transpose(0, 2, 1)
        numbers = np.ascontiguousarray(planes).view(dtype.newbyteorder(">"))
        return numbers.reshape(len(plain), -1).astype(dtype)
    return plain.view(dtype)


def _image_of(raw: bytes, page: Any, rows: int, row_bytes: int) -> bytes:
    """Return a TIFF file of one strip of bytes, packed as the segment is."""
    tables = page.jpegtables if int(page.keyframe.compression) == JPEG else None
    tags = [
        (256, 4, 1, row_bytes),
        (257, 4, 1, rows),
        (258, 3, 1, 8),
        (259, 3, 1, int(page.keyframe.compression)),
        (262, 3, 1, 1),
        (273, 4, 1, 0),
        (277, 3, 1, 1),
        (278, 4, 1, rows),
        (279, 4, 1, len(raw)),
    ]
    end = 8 + 2 + 12 * (len(tags) + bool(tables)) + 4
    tags[5] = (273, 4, 1, end)
    if tables:
        tags.append((_JPEG_TABLES, 7, len(tables), end + len(raw)))
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<I", 8) + directory + bytes(4) + raw + (tables or b"")
