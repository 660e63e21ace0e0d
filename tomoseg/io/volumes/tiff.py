"""TIFF stacks: pages along z, calibrated by ImageJ's text or OME's XML."""

from __future__ import annotations

import lzma
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, BinaryIO
from xml.etree import ElementTree

import numpy as np
import tifffile
from numpy.typing import NDArray

from tomoseg.core.blocks import Box
from tomoseg.core.errors import FormatError, is_away
from tomoseg.core.sampling import Header, Sampling, Shape, Triple
from tomoseg.io.volumes.box_reader import BoxReader
from tomoseg.io.volumes.foreign import kind_by_content
from tomoseg.io.volumes.ranges import StoredArray, byte_count, read_exactly
from tomoseg.io.volumes.tiff_segments import check_packing, is_ours, unpacked_page
from tomoseg.io.voxel_size import decide_voxel_size

DTYPES = ("uint8", "int8", "uint16", "int16", "float32", "float16")
# Of labels as other programs save them, and what their voxels are handed out as.
READ_AS = {"bool": "uint8"} | dict.fromkeys(("int32", "uint32", "int64", "uint64"), "float32")
# Beyond this not every whole number is a float32.
_LARGEST_WHOLE = 2**24
# A page is unpacked as a whole; a larger one is a damaged or hostile header.
LARGEST_PAGE_BYTES = 2**31
_PART_BYTES = 2**20

# The most that packed bytes may become, by kind of compression: what claims more is damaged, and
# what becomes more is a bomb.
LARGEST_RATIO = 2**12
_DEFLATE, _LZMA = (8, 32946, 50013), (34925,)

# What tifffile and the unpackers raised on 3,000 files damaged at random.
_DAMAGE = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RuntimeError,
    struct.error,
    ElementTree.ParseError,
    lzma.LZMAError,
    zlib.error,
)

ANGSTROM_PER_UNIT = {
    "pm": 0.01,
    "å": 1.0,
    "a": 1.0,
    "angstrom": 1.0,
    "angstroms": 1.0,
    "ångström": 1.0,
    "nm": 10.0,
    "nanometer": 10.0,
    "nanometre": 10.0,
    "µm": 1e4,  # micro sign
    "μm": 1e4,  # Greek mu
    r"\u00b5m": 1e4,  # as ImageJ escapes it
    "um": 1e4,
    "micron": 1e4,
    "microns": 1e4,
    "micrometer": 1e4,
    "mm": 1e7,
    "cm": 1e8,
    "m": 1e10,
}


class TiffReader(BoxReader):
    """A TIFF stack that is read box by box.

    Notes
    -----
    Uncompressed pages are read by ranges. A compressed page is unpacked whole for each box that
    touches it: read such files in slabs of whole pages.
    """

    @cached_property
    def header(self) -> Header:
        """What the file says about itself; the first use reads its directories.

        Raises
        ------
        FormatError
            If this is not a TIFF file, or not one grey volume of a type that is read here.
        VoxelSizeError
            If the file states no voxel size that can be right, and no override was given.
        """
        notes: list[str] = []
        _refuse_other_files(self._file)
        with _damage_named("the file is no TIFF file, or its directories are damaged"):
            shape = _stack_shape(self._series, notes)
            _note_greys(self._series.keyframe, notes)
            stated = _stated_voxel_size(self._tiff, shape)
            dtype = self._series.dtype.name
        if dtype in READ_AS:
            notes.append(f"voxels of type {dtype} are read as {READ_AS[dtype]}")
            dtype = READ_AS[dtype]
        size = decide_voxel_size(stated, self._override_angstrom, notes=notes)
        return Header(Sampling(shape, size), dtype, notes=tuple(notes))

    def _read(self, box: Box) -> NDArray[Any]:
        voxels = self._stored_voxels(box)
        kind = voxels.dtype.name
        if READ_AS.get(kind) == "float32":
            _refuse_inexact(voxels)
        return voxels.astype(READ_AS[kind]) if kind in READ_AS else voxels

    def _stored_voxels(self, box: Box) -> NDArray[Any]:
        if self._series.dataoffset is not None:
            stored = self._stored(self._series.dataoffset, self.header.sampling.shape)
            return stored.read(self._file, box)
        planes = range(box.begin[0], box.end[0] if box.size else 0)
        for z in planes:  # before there is memory for all of them
            with _damage_named(f"page {z} cannot be unpacked"):
                self._check_page(z)
        out: NDArray[Any] = np.empty(box.shape, self._series.dtype)
        _, rows, columns = box.slices
        for i, z in enumerate(planes):
            with _damage_named(f"page {z} cannot be unpacked"):
                out[i : i + 1] = self._read_page(z, rows, columns)
        return out

    def _check_page(self, z: int) -> None:
        page = self._series.pages[z]
        if not page.is_contiguous:
            _refuse_truncated(page, byte_count(self._file))
            _refuse_bombs(page, self._file)

    def _read_page(self, z: int, rows: slice, columns: slice) -> NDArray[Any]:
        page = self._series.pages[z]
        shape = (1, *self.header.sampling.shape[1:])
        if page.is_contiguous:
            box = Box((0, rows.start, columns.start), (1, rows.stop, columns.stop))
            return self._stored(page.dataoffsets[0], shape).read(self._file, box)
        unpacked: NDArray[Any] = (
            unpacked_page(page, self._file) if is_ours(page) else page.asarray(maxworkers=1)
        )
        return unpacked.reshape(shape)[:, rows, columns]

    def _stored(self, offset: int, shape: Shape) -> StoredArray:
        dtype = self._series.dtype.newbyteorder(self._tiff.byteorder)
        return StoredArray(offset, shape, dtype)

    @cached_property
    def _directories(self) -> _Directories:
        return _Directories(self._file)

    @cached_property
    def _tiff(self) -> Any:
        directories = self._directories
        self._file.seek(0)  # tifffile counts from where the file stands
        return tifffile.TiffFile(directories)

    @cached_property
    def _series(self) -> Any:
        """The one series of like pages that the file must hold."""
        _refuse_entities(self._tiff)
        series = self._tiff.series
        self._directories.are_read = True
        _refuse_missing_pages(self._tiff, self._file)
        if len(series) != 1:
            raise FormatError(
                f"the file holds {len(series)} series of pages that differ; one is read",
                remedy="Save the volume in a file of its own",
            )
        _refuse_unread_kinds(series[0])
        _refuse_missing_bytes(series[0], byte_count(self._file))
        return series[0]


class _Directories:
    """A file whose directories are read: a chain of pages that runs in a circle would not end.

    A page takes a few readings and more than a hundred bytes.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = 10_000 + byte_count(file) // 4
        self.are_read = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, count: int = -1) -> bytes:
        self._left -= not self.are_read
        if self._left < 0:
            raise FormatError(
                "the chain of pages runs in a circle", remedy="Copy the file again or repair it"
            )
        return self._file.read(count)


@contextmanager
def _damage_named(fact: str) -> Iterator[None]:
    """Turn what tifffile raises on damaged files into a FormatError."""
    try:
        yield
    except _DAMAGE as error:
        if is_away(error):
            raise
        raise FormatError(
            f"{fact}: {type(error).__name__} {error}",
            remedy="Check that the file is a TIFF file and copy it again",
        ) from error


def _refuse_other_files(file: BinaryIO) -> None:
    begin = read_exactly(file, 0, min(64, byte_count(file)))
    known = kind_by_content(begin)
    if known and not begin.startswith((b"II", b"MM")):
        raise FormatError(f"the file is no TIFF file: it is {known[0]}", remedy=known[1])


def _refuse_inexact(voxels: NDArray[Any]) -> None:
    """Refuse whole numbers that are no float32."""
    least, most = (int(voxels.min()), int(voxels.max())) if voxels.size else (0, 0)
    if max(-least, most) > _LARGEST_WHOLE:
        raise FormatError(
            f"voxels of type {voxels.dtype} are read from {-_LARGEST_WHOLE} to {_LARGEST_WHOLE}; "
            f"these go from {least} to {most}",
            remedy="Convert labels to uint8 or uint16, grey values to float32",
        )


def _refuse_unread_kinds(series: Any) -> None:
    if series.dtype is None or series.dtype.name not in (*DTYPES, *READ_AS):
        raise FormatError(
            f"TIFF voxels of type {series.dtype} are not read; the types read are "
            f"{', '.join((*DTYPES, *READ_AS))}",
            remedy="Convert the file to float32, labels to uint8",
        )
    page = series.keyframe
    if page.samplesperpixel != 1 or "C" in series.axes or "S" in series.axes:
        raise FormatError(
            f"the file has colours or channels (axes {series.axes}, shape {series.shape})",
            remedy="Save one channel as a grey volume",
        )
    if series.dataoffset is None and len(series.pages) != _page_count(series):
        raise FormatError(
            f"the file has {len(series.pages)} pages for a volume of shape {series.shape}",
            remedy="Save the volume with a page a slice",
        )
    if page.is_contiguous:
        return
    check_packing(page)
    if page.nbytes > LARGEST_PAGE_BYTES:
        raise FormatError(f"a compressed page of {page.nbytes} bytes exceeds {LARGEST_PAGE_BYTES}")


def _page_count(series: Any) -> int:
    return int(np.prod(series.shape[:-2], dtype=np.int64))


def _refuse_missing_pages(tiff: Any, file: BinaryIO) -> None:
    """Check that the chain of pages ends with a zero.

    tifffile hands out the pages before a break, which would be a volume with slices missing.
    """
    count = tiff.tiff.offsetsize
    last_link = read_exactly(file, tiff.pages.next_page_offset, count)
    if any(last_link):
        raise FormatError(
            f"the chain of pages breaks after page {len(tiff.pages)}",
            remedy="Copy the file again, or wait until it is written completely",
        )


def _refuse_missing_bytes(series: Any, file_bytes: int) -> None:
    """Check uncompressed data that lie in one piece; other pages are checked as they are read."""
    if series.dataoffset is None:
        return
    end = series.dataoffset + series.size * series.dtype.itemsize
    if end > file_bytes:
        raise FormatError(
            f"the file has {file_bytes} bytes, but its voxels need {end}",
            remedy="Copy the file again, or wait until it is written completely",
        )


def _refuse_truncated(page: Any, file_bytes: int) -> None:
    """Raise where a segment is missing: tifffile would read it as zeros."""
    segments = zip(page.dataoffsets, page.databytecounts, strict=True)
    if any(begin < 1 or begin + count > file_bytes for begin, count in segments):
        raise FormatError(
            f"page {page.index} has data outside the file's {file_bytes} bytes",
            remedy="Copy the file again, or wait until it is written completely",
        )


def _refuse_entities(tiff: Any) -> None:
    """Refuse XML that defines words of its own: they may stand for gigabytes of text."""
    if "<!" in tiff.pages[0].description.replace("<!--", ""):
        raise FormatError("the file's OME-XML has definitions, which are not read")


def _refuse_bombs(page: Any, file: BinaryIO) -> None:
    """Unpack what could become more than a page may, as far as that, before tifffile does it whole.

    Raises
    ------
    FormatError
        If a segment becomes more than the page, or so few bytes cannot be a page.
    """
    packed = sum(page.databytecounts)
    if page.nbytes > LARGEST_RATIO * max(packed, 1):
        raise FormatError(
            f"page {page.index} announces {page.nbytes} bytes; the {packed} that it has cannot "
            f"become more than {LARGEST_RATIO} times as many"
        )
    for begin, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        unpacker = _unpacker(page.compression, count)
        if unpacker is None:
            continue
        raw, room = read_exactly(file, begin, count), page.nbytes + 1
        while room > 0 and not unpacker.eof:
            part = unpacker.decompress(raw, min(room, _PART_BYTES))
            if not part:
                break
            room -= len(part)
            raw = getattr(unpacker, "unconsumed_tail", b"")
        if room <= 0:
            raise FormatError(f"page {page.index} becomes more than its {page.nbytes} bytes")


def _unpacker(compression: int, count: int) -> Any:
    """Return what unpacks a segment in parts; None if it can become no more than a page may."""
    if compression in _LZMA:
        return lzma.LZMADecompressor(memlimit=LARGEST_PAGE_BYTES)
    is_large = count * LARGEST_RATIO > LARGEST_PAGE_BYTES
    return zlib.decompressobj() if compression in _DEFLATE and is_large else None


def _stack_shape(series: Any, notes: list[str]) -> Shape:
    """Return zyx of a series with at most one axis of pages."""
    stacked = [
        (axis, count)
        for axis, count in zip(series.axes[:-2], series.shape[:-2], strict=True)
        if count > 1
    ]
    if len(stacked) > 1 or series.axes[-2:] != "YX":
        raise FormatError(
            f"the file has axes {series.axes} of shape {series.shape}; one stack of slices is read",
            remedy="Save one volume a file",
        )
    axis, count = stacked[0] if stacked else ("Z", 1)
    if axis == "T":
        notes.append("the pages are marked as time points; read as slices")
    rows, columns = series.shape[-2:]
    if min(count, rows, columns) < 1:
        raise FormatError(f"the file holds no voxel: its shape is {series.shape}")
    return int(count), int(rows), int(columns)


def _note_greys(page: Any, notes: list[str]) -> None:
    """Say where other programs show other greys than the file's numbers."""
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        notes.append(
            "the file says that 0 is white, so that others show it inverted; its numbers are taken "
            "as they are: look whether source.contrast fits"
        )
    colours = page.colormap
    if colours is not None and not (np.ptp(colours, axis=0) == 0).all():
        notes.append("the file has a table of colours; the numbers are taken as greys")


def _stated_voxel_size(tiff: Any, shape: Shape) -> Triple | None:
    """Return zyx in Å; None if the file tells less than that.

    Resolution tags alone are a print size (72 dots per inch), not a calibration.
    """
    if tiff.is_imagej:
        size = _imagej_voxel_size(tiff)
    elif tiff.is_ome:
        size = _ome_voxel_size(tiff.ome_metadata, single=shape[0] == 1)
    else:
        return None
    if size is not None and shape[0] == 1:
        return (size[1] + size[2]) / 2, size[1], size[2]
    return size


def _imagej_voxel_size(tiff: Any) -> Triple | None:
    text = tiff.imagej_metadata or {}
    tags = tiff.pages[0].tags
    unit = _angstrom_per(text.get("unit"))
    if unit is None or "XResolution" not in tags or "YResolution" not in tags:
        return None
    x_pixels, x_units = tags["XResolution"].value
    y_pixels, y_units = tags["YResolution"].value
    if 0 in (x_pixels, y_pixels):
        return None
    # ImageJ leaves the spacing out where it is 1.
    z = float(text.get("spacing", 1.0)) * unit
    return z, y_units / y_pixels * unit, x_units / x_pixels * unit


def _ome_voxel_size(xml: str, *, single: bool) -> Triple | None:
    root = ElementTree.fromstring(xml)  # noqa: S314 - without definitions: _refuse_entities
    pixels = next((e.attrib for e in root.iter() if e.tag.endswith("Pixels")), {})
    sizes = []
    for axis in "YYX" if single else "ZYX":
        unit = _angstrom_per(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        if unit is None or f"PhysicalSize{axis}" not in pixels:
            return None
        sizes.append(float(pixels[f"PhysicalSize{axis}"]) * unit)
    return sizes[0], sizes[1], sizes[2]


def _angstrom_per(unit: object) -> float | None:
    return ANGSTROM_PER_UNIT.get(str(unit).strip().lower())
