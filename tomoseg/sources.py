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

from tomoseg.blocks import Box
from tomoseg.errors import FormatError, RequestError
from tomoseg.formats.amira_lattice import AmiraReader
from tomoseg.formats.compressed import beginning, compression_of, decompress
from tomoseg.formats.em import HEADER_BYTES as EM_HEADER_BYTES
from tomoseg.formats.em_volume import EmReader, is_motive_list
from tomoseg.formats.mrc import MrcReader
from tomoseg.formats.mrc_header import HEADER_BYTES, announced_bytes
from tomoseg.formats.png import PngReader
from tomoseg.formats.tiff import TiffReader
from tomoseg.sampling import Header
from tomoseg.stores import (
    Folder,
    OmeZarrReader,
    checked_url,
    fingerprint,
    listing,
    open_file,
    spool_bytes,
)

UNPACKED_SHARE = 0.5
"""Of the free disk, what one compressed file may become; its results need room as well."""

TRAILING_BYTES = 16 * 2**20
"""What may follow the last voxel of an MRC file."""

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
# They end a path, a quotation or a cell of a table, begin markup, or are no part of a name in
# Windows.
_NOT_IN_NAMES = re.compile(r"""[/\\"'`<>|:*?$;&]""")
_DEVICES = re.compile(r"(CON|PRN|AUX|NUL|(COM|LPT)\d)(\..*)?", re.IGNORECASE)
# File systems take 255, and the classes and endings of the results follow.
_LONGEST_NAME_BYTES = 120
# Where an AmiraMesh file says what it holds.
_AMIRA_BYTES = 4096
_KINDS = (
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


def discover(inputs: Sequence[str], *, name_remove: Sequence[str] = ()) -> list[Found]:
    """Return the tomograms in files and folders, by name.

    Parameters
    ----------
    inputs
        Paths or URLs; a folder stands for the tomograms directly in it, and for PNG images only
        where it has nothing else: beside tomograms they are pictures of them. AmiraMesh files
        in it count if they are of a lattice: others hold lines and surfaces; EM files if they are
        no motive lists.
    name_remove
        Regular expressions cut out of the file's stem.

    Raises
    ------
    RequestError
        If nothing is found, two tomograms have one name, or a place does not exist.
    """
    # A file given by itself and in its folder is one tomogram.
    urls = dict.fromkeys(url for place in inputs for url in _tomograms_at(checked_url(place)))
    if not urls:
        where = ", ".join(inputs) or "no input"
        raise RequestError(
            f"no tomogram in {where}",
            remedy=f"Give {_KINDS}.",
        )
    return named(urls, name_remove)


def named(urls: Iterable[str], remove: Sequence[str] = ()) -> list[Found]:
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
    place = PurePosixPath(url)
    name = PurePosixPath(place.stem).stem if compression_of(url) else place.stem
    for pattern in remove:
        try:
            name = re.sub(pattern, "", name)
        except re.error as error:
            raise RequestError(
                f"session.tomogram_name_remove: {pattern!r} is no regular expression: {error}"
            ) from error
    if not name or name.startswith("."):
        raise RequestError(
            f"{url} would be called {name!r}", remedy="Change session.tomogram_name_remove."
        )
    return safe_name(name)


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


@contextmanager
def open_source(url: str, *, voxel_size_angstrom: float | None = None) -> Iterator[Source]:
    """Open a tomogram; only its header is read.

    Raises
    ------
    FormatError, VoxelSizeError
        As the format's reader says; a compressed file must be unpacked first (:func:`unpacked`).
    """
    # An image may lie inside another, as labels do.
    if _kind(url) == "zarr" or (_kind(url) is None and ".zarr/" in url):
        yield OmeZarrReader(url, voxel_size_angstrom=voxel_size_angstrom)
        return
    if compression_of(url):
        raise FormatError(f"{url} is compressed and has not been unpacked")
    with open_file(url) as file:
        reader = _READERS.get(_kind(url), MrcReader)
        yield reader(file, voxel_size_angstrom=voxel_size_angstrom)


def unpacked(url: str, spool: Folder) -> str:
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
        if _kind(url) == "mrc":
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


def _tomograms_at(url: str) -> list[str]:
    if _kind(url) is not None:
        fingerprint(url)  # raises where there is nothing
        return [url]
    try:
        return tomograms_among(listing(url))
    except RequestError as error:
        raise RequestError(
            f"{error.message}, nor a file of a known kind", remedy=f"Give {_KINDS}."
        ) from error


def tomograms_among(urls: Iterable[str]) -> list[str]:
    """Return those of a folder's files that are tomograms, as :func:`discover` says."""
    items = [item for item in urls if _kind(item) is not None]
    items = [item for item in items if _kind(item) != "amira" or _is_lattice(item)]
    items = [item for item in items if _kind(item) != "em" or _is_em_volume(item)]
    return [item for item in items if _kind(item) != "png"] or items


def _is_lattice(url: str) -> bool:
    if compression_of(url):
        return True  # told when it is unpacked
    with open_file(url) as file:
        return b"define Lattice" in file.read(_AMIRA_BYTES)


def _is_em_volume(url: str) -> bool:
    if compression_of(url):
        return True  # told when it is unpacked
    with open_file(url) as file:
        return not is_motive_list(file.read(EM_HEADER_BYTES))


def _kind(url: str) -> str | None:
    place = PurePosixPath(url.lower())
    if place.name.startswith("."):
        return None
    name = place.stem if compression_of(url) else place.name
    return next((kind for kind, known in _SUFFIXES.items() if name.endswith(known)), None)
