"""Tomograms as they come: found by name, opened by kind, read by boxes."""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tomoseg.analysis import intensity
from tomoseg.core.blocks import Box
from tomoseg.core.errors import FormatError, MissingError, RequestError
from tomoseg.core.lookalikes import stem_of
from tomoseg.core.sampling import Header
from tomoseg.io.stores import (
    Folder,
    OmeZarrReader,
    checked_url,
    open_file,
    spool_bytes,
)
from tomoseg.io.volumes.amira_lattice import AmiraReader
from tomoseg.io.volumes.compressed import beginning, compression_of, decompress
from tomoseg.io.volumes.em_volume import EmReader
from tomoseg.io.volumes.mrc import MrcReader
from tomoseg.io.volumes.mrc_header import HEADER_BYTES, Integers, announced_bytes, parse_header
from tomoseg.io.volumes.png import PngReader
from tomoseg.io.volumes.ranges import refuse_outside
from tomoseg.io.volumes.tiff import TiffReader
from tomoseg.io.volumes.turns import Axes, file_box, upright_header, upright_voxels

UNPACKED_SHARE = 0.5
"""Of the free disk, what one compressed file may become; its results need room as well."""

TRAILING_BYTES = 16 * 2**20
"""What may follow the last voxel of an MRC file."""

ANY_VOXEL_ANGSTROM = 10.0
"""Given where the voxel size does not matter."""

_ROWS_LOOKED_AT = 256

MRC_SUFFIXES = (".mrc", ".rec", ".map", ".st", ".mrcs")
TIFF_SUFFIXES = (".tif", ".tiff")
ZARR_SUFFIXES = (".zarr",)
PNG_SUFFIXES = (".png",)
AMIRA_SUFFIXES = (".am",)
EM_SUFFIXES = (".em",)
_SUFFIXES = {
    "mrc": MRC_SUFFIXES,
    "tiff": TIFF_SUFFIXES,
    "zarr": ZARR_SUFFIXES,
    "png": PNG_SUFFIXES,
    "amira": AMIRA_SUFFIXES,
    "em": EM_SUFFIXES,
}
_READERS: dict[str | None, type[MrcReader | TiffReader | PngReader | AmiraReader | EmReader]] = {
    "mrc": MrcReader,
    "tiff": TiffReader,
    "png": PngReader,
    "amira": AmiraReader,
    "em": EmReader,
}
# Stands for the name that a pattern asks for; no file is called so.
_ANY_NAME = "any-9f1c6f4e"
# They end a path, a quotation or a cell of a table, begin markup, or are no part of a name in
# Windows.
_NOT_IN_NAMES = re.compile(r"""[/\\"'`<>|:*?$;&]""")
_DEVICES = re.compile(r"(CON|PRN|AUX|NUL|(COM|LPT)\d)(\..*)?", re.IGNORECASE)
# File systems take 255, and the classes and endings of the results follow.
_LONGEST_NAME_BYTES = 120
KINDS = (
    "files or a folder of "
    f"{', '.join(suffix for known in _SUFFIXES.values() for suffix in known)} "
    "(or these with .gz or .bz2)"
)


class Source(Protocol):
    """A tomogram whose header is known and whose voxels are read a box at a time."""

    @property
    def header(self) -> Header:
        """What the file says of itself."""

    def read(self, box: Box) -> NDArray[Any]:
        """Return the voxels of a box, zyx, in the source's dtype."""


@dataclass(frozen=True)
class Found:
    """A tomogram of a session: its name and where it is."""

    name: str
    url: str


def by_name(urls: Iterable[str], remove: Sequence[str] = ()) -> list[Found]:
    """Return tomograms by name.

    Raises
    ------
    RequestError
        If two have one name, or one has none.
    """
    found: dict[str, str] = {}
    for url in urls:
        name = tomogram_name(url, remove)
        if name in found:
            raise RequestError(
                f"{found[name]} and {url} would both be called {name}",
                remedy="Rename one, or change session.tomogram_name_remove.",
            )
        found[name] = url
    return [Found(name, url) for name, url in sorted(found.items())]


def tomogram_name(url: str, remove: Sequence[str] = ()) -> str:
    """Return a tomogram's name: the file's stem without what the patterns cut out.

    Raises
    ------
    RequestError
        If nothing is left, or it could not be a folder's name.
    """
    name = cut_name(url, remove)
    if not name or name.startswith("."):
        raise RequestError(
            f"{url} would be called {name!r}", remedy="Change session.tomogram_name_remove."
        )
    return safe_name(name)


def cut_name(url: str, remove: Sequence[str]) -> str:
    """Return a file's stem without what the patterns cut out; of what lies in a .zarr, its own."""
    name = stem_of(re.sub(r"(?<=\.zarr)/.*", "", url))
    for pattern in remove:
        try:
            name = re.sub(pattern, "", name)
        except re.error as error:
            raise RequestError(
                f"session.tomogram_name_remove: {pattern!r} is no regular expression: {error}"
            ) from error
    return name


def safe_name(name: str) -> str:
    """Return a name that is one word, a folder's name on every system, and only a name.

    It stands in paths, tables, pages and commands, and files are called whatever a microscope or
    somebody else likes. What is neither letter, digit nor plain punctuation becomes ``_``; so do
    marks that a shell takes for an option or a spreadsheet for a formula, where they begin it. Of
    a long name the beginning and a digest are left.

    >>> [safe_name(name) for name in ("TS 01_[2]+a", "=cmd|'/C calc'!A0", "../x", "con")]
    ['TS_01_[2]+a', '_cmd___C_calc_!A0', '_._x', '_con']
    """
    # RELION reads a name only up to the first space.
    plain = _NOT_IN_NAMES.sub("_", re.sub(r"\s+", "_", name))
    plain = "".join(c if c.isprintable() else "_" for c in plain)
    plain = re.sub(r"^[-=+@.~]", "_", plain)
    if _DEVICES.fullmatch(plain):
        plain = f"_{plain}"
    if len(plain.encode()) > _LONGEST_NAME_BYTES:
        digest = hashlib.sha256(plain.encode()).hexdigest()[:8]
        kept = plain.encode()[: _LONGEST_NAME_BYTES - 9].decode(errors="ignore")
        plain = f"{kept}-{digest}"
    return plain


def companion_url(pattern: str, tomogram: Found) -> str:
    """Return where a file is that belongs to a tomogram.

    Parameters
    ----------
    pattern
        A path or URL, ``{folder}`` and ``{name}`` standing for those of the tomogram.

    Raises
    ------
    RequestError
        If anything else stands in braces.
    """
    values = {"folder": tomogram.url.rpartition("/")[0], "name": tomogram.name}
    try:
        parts = list(string.Formatter().parse(pattern))
        # A width or an attribute could ask for anything.
        if any(spec or how or field not in (None, *values) for _, field, spec, how in parts):
            raise ValueError(pattern)
    except ValueError as error:
        raise RequestError(
            f"{pattern!r} does not name a file", remedy="Use {folder} and {name}, nothing else."
        ) from error
    return checked_url(pattern.format(**values))


def companion_of(pattern: str, url: str) -> str:
    """Return the name of the tomogram whose file a pattern says that this is; empty if none's.

    >>> companion_of("{folder}/{name}_lamella.mrc", "file:///a/TS_01_lamella.mrc")
    'TS_01'
    """
    place = companion_url(pattern, Found(_ANY_NAME, url))
    before, *rest = (re.escape(part) for part in place.split(_ANY_NAME))
    if not rest:
        return ""
    match = re.fullmatch(f"{before}([^/]+)" + r"\1".join(rest), url)
    return match[1] if match else ""


@dataclass(frozen=True)
class _Upright:
    """A tomogram whose z is the beam, whatever the file's axes are."""

    source: Source
    axes: Axes

    @property
    def header(self) -> Header:
        return upright_header(self.source.header, self.axes)

    def read(self, box: Box) -> NDArray[Any]:
        refuse_outside(box, self.header.sampling.shape)
        in_file = file_box(box, self.axes, self.header.sampling.shape)
        return upright_voxels(self.source.read(in_file), self.axes)


@contextmanager
def open_source(
    url: str,
    *,
    voxel_size_angstrom: float | None = None,
    axes: Axes = "zyx",
    integers: Integers = "auto",
) -> Iterator[Source]:
    """Open a tomogram; only its header is read.

    Parameters
    ----------
    url
        Path or URL.
    voxel_size_angstrom
        Taken instead of what the file says.
    axes
        Which axis of the file is which (:mod:`tomoseg.io.volumes.turns`).
    integers
        Whether those of an MRC file have a sign.

    Raises
    ------
    FormatError, VoxelSizeError
        As the format's reader says; a compressed file must be unpacked first (:func:`unpack`).
    """
    with _as_in_the_file(url, voxel_size_angstrom, integers) as source:
        yield _Upright(source, axes)


@contextmanager
def _as_in_the_file(
    url: str, voxel_size_angstrom: float | None, integers: Integers
) -> Iterator[Source]:
    if kind_of(url) == "zarr":
        yield _zarr_reader(url, voxel_size_angstrom)
        return
    if compression_of(url):
        raise FormatError(f"{url} is compressed and has not been unpacked")
    with open_file(url) as file:
        reader = _READERS.get(kind_of(url), MrcReader)
        signs = {"integers": integers} if reader is MrcReader else {}
        yield reader(file, voxel_size_angstrom=voxel_size_angstrom, **signs)


def _zarr_reader(url: str, voxel_size_angstrom: float | None) -> OmeZarrReader:
    try:
        return OmeZarrReader(url, voxel_size_angstrom=voxel_size_angstrom)
    except FormatError as error:
        # What has gone with its drive is not of a wrong kind.
        if not Folder(url.rpartition("/")[0]).exists(url.rpartition("/")[2]):
            raise MissingError(f"{url} does not exist") from error
        raise


def look_into(url: str) -> intensity.Moments:
    """Read a little at the beginning, in the middle and at the end, so that no run fails later.

    Returns
    -------
    The moments of what was read: at most 256 rows of three slices of the file, in its own axes.

    Raises
    ------
    FormatError, StoreError
        If it cannot be unpacked, or is not there.
    """
    with open_source(url, voxel_size_angstrom=ANY_VOXEL_ANGSTROM) as source:
        depth, rows, columns = source.header.sampling.shape
        top = max(0, (rows - _ROWS_LOOKED_AT) // 2)
        bottom = min(rows, top + _ROWS_LOOKED_AT)
        slices = sorted({0, depth // 2, depth - 1})
        boxes = [Box((z, top, 0), (z + 1, bottom, columns)) for z in slices]
        return intensity.merge_moments(intensity.moments(source.read(box)) for box in boxes)


def told_missing(url: str) -> str:
    """Say that parts of a zarr array are not there; empty if all are, and for other files."""
    if kind_of(url) != "zarr":
        return ""
    return OmeZarrReader(url, voxel_size_angstrom=ANY_VOXEL_ANGSTROM).told_missing()


def packed_header(
    url: str, *, voxel_size_angstrom: float | None = None, axes: Axes = "zyx"
) -> Header | None:
    """Return the header of a compressed file, of which only the beginning is unpacked.

    None where that does not tell it; then only the unpacking was tried.

    Raises
    ------
    FormatError, VoxelSizeError
        As :func:`open_source` and :func:`tomoseg.io.volumes.compressed.beginning`.
    """
    kind = compression_of(url)
    assert kind is not None
    with open_file(url) as packed:
        raw = beginning(packed, kind, HEADER_BYTES)
    if kind_of(url) != "mrc":
        return None
    size = announced_bytes(raw)
    header = parse_header(raw, size, override_angstrom=voxel_size_angstrom).header
    return upright_header(header, axes)


def unpack(url: str, spool: Folder) -> str:
    """Return the URL of the tomogram unpacked: itself, or a copy in ``spool`` if compressed.

    The copy is streamed and appears only when it is whole. It takes half of the free disk at most,
    and of an MRC file little more than its header announces.
    """
    kind = compression_of(url)
    if kind is None:
        return url
    name = PurePosixPath(url).stem
    if not spool.exists(name):
        room = int(UNPACKED_SHARE * spool_bytes(spool))
        if kind_of(url) == "mrc":
            with open_file(url) as packed:
                wanted = announced_bytes(beginning(packed, kind, HEADER_BYTES))
            room = min(room, wanted + TRAILING_BYTES)
        with open_file(url) as packed, spool.publishing(name) as target:
            decompress(packed, target, kind, most_bytes=room)
    return f"{spool.url}/{name}"


def as_labels(voxels: NDArray[Any]) -> NDArray[np.uint8]:
    """Return labels read from a file as uint8; -1 in an int8 file is 255, not annotated.

    Raises
    ------
    RequestError
        If a value is no label 0..255.
    """
    with np.errstate(invalid="ignore"):
        labels = voxels.astype(np.uint8)
        if not np.array_equal(labels.astype(voxels.dtype), voxels):
            raise RequestError(
                f"values {voxels.min()}..{voxels.max()} of {voxels.dtype} are not labels 0..255"
            )
    return labels


def are_above(voxels: NDArray[Any], threshold: float) -> NDArray[np.bool_]:
    """Tell which voxels of a mask lie above a threshold; as of labels, bytes are unsigned."""
    values = voxels.view(np.uint8) if voxels.dtype == np.int8 else voxels
    return np.asarray(values > threshold)


def kind_of(url: str) -> str | None:
    """Return the format that a name tells; None for what is no tomogram."""
    place = PurePosixPath(url.lower())
    if place.name.startswith("."):
        return None
    if ".zarr/" in url.lower():
        return "zarr"  # an image may lie inside another, as labels do
    name = place.stem if compression_of(url) else place.name
    return next((kind for kind, known in _SUFFIXES.items() if name.endswith(known)), None)
