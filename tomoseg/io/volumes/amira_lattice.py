"""AmiraMesh lattices: a volume of one value a voxel, uncompressed, read by ranges."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tomoseg.core.blocks import Box
from tomoseg.core.errors import FormatError
from tomoseg.core.sampling import Header, Sampling, Shape, Triple
from tomoseg.io.volumes.amira_header import (
    TYPES,
    AmiraField,
    AmiraHeader,
    read_amira_header,
)
from tomoseg.io.volumes.box_reader import BoxReader
from tomoseg.io.volumes.ranges import StoredArray, byte_count
from tomoseg.io.voxel_size import decide_voxel_size

KINDS = ("byte", "sbyte", "short", "ushort", "float")
# Behind the voxels, where white space ends a file and a mark begins the next section.
_REST_BYTES = 4096


class AmiraReader(BoxReader):
    """An AmiraMesh volume that is read box by box.

    Notes
    -----
    The bounding box goes from the centre of the first voxel to that of the last: the voxel size
    is its length over one less than the number of voxels, and its low corner the origin. Most
    files name no unit of length; it is then taken as Å, with a note.
    """

    @cached_property
    def header(self) -> Header:
        """What the file says about itself; the first use reads its head.

        Raises
        ------
        FormatError
            If this is not an AmiraMesh file of one uncompressed binary lattice of a type that is
            read here, with uniform coordinates, or if voxels are missing.
        VoxelSizeError
            If the file states no voxel size that can be right, and no override was given.
        """
        notes: list[str] = []
        stored = self._stored
        corner, stated = _bounding_box(self._head, stored.shape, notes)
        size = decide_voxel_size(stated, self._override_angstrom, notes=notes)
        dtype = stored.dtype.newbyteorder("=").name
        return Header(Sampling(stored.shape, size), dtype, corner, notes=tuple(notes))

    def _read(self, box: Box) -> NDArray[Any]:
        return self._stored.read(self._file, box)

    @cached_property
    def _head(self) -> AmiraHeader:
        return read_amira_header(self._file)

    @cached_property
    def _stored(self) -> StoredArray:
        field = _lattice_field(self._head)
        dtype = np.dtype(TYPES[field.kind]).newbyteorder(self._head.byte_order or "=")
        stored = StoredArray(self._head.data_offset, _shape(self._head), dtype)
        _check_length(self._file, stored, self._head)
        return stored


def _lattice_field(head: AmiraHeader) -> AmiraField:
    """Return the one field of the lattice, if it is of a kind that is read."""
    fields = [field for field in head.fields if field.location == "Lattice"]
    if len(fields) != 1:
        content = " ".join(head.parameters.get("ContentType", ())) or "other content"
        raise FormatError(
            f"the AmiraMesh file has {len(fields)} fields on a lattice ({content}); a volume has "
            "one",
            remedy="Save the volume in a file of its own",
        )
    (field,) = fields
    if not head.byte_order or field.packing:
        raise FormatError(
            f"the AmiraMesh volume is written as {field.packing or 'ASCII'}, which is not read",
            remedy="Save it in Amira as binary, without compression",
        )
    if field.kind not in KINDS or field.components != 1:
        raise FormatError(
            f"AmiraMesh voxels of {field.components} × {field.kind} are not read; the types read "
            f"are {', '.join(KINDS)}, one a voxel",
            remedy="Convert the volume in Amira",
        )
    coordinates = head.parameters.get("CoordType", ("uniform",))
    if coordinates != ("uniform",):
        raise FormatError(
            f"the AmiraMesh volume has {' '.join(coordinates)} coordinates; uniform ones are read",
            remedy="Resample it in Amira",
        )
    if field.section != head.first_section:
        raise FormatError(f"section {field.section} of the AmiraMesh volume is not its first")
    return field


def _check_length(file: BinaryIO, stored: StoredArray, head: AmiraHeader) -> None:
    """Refuse a file in which the voxels do not end where the lattice does."""
    end, present = stored.offset + stored.byte_count, byte_count(file)
    if end > present:
        raise FormatError(
            f"the file has {present} bytes, but its voxels need {end}",
            remedy="Copy the file again, or wait until it is written completely",
        )
    file.seek(end)
    rest = file.read(_REST_BYTES)
    is_next = len(head.fields) > 1 and rest.lstrip().startswith(b"@")
    if (rest.strip() or len(rest) == _REST_BYTES) and not is_next:
        x, y, z = head.counts["Lattice"]
        raise FormatError(
            f"after the {stored.byte_count} bytes of {x} × {y} × {z} voxels (xyz) the file goes "
            f"on, to {present - stored.offset}: the lattice, or the type of its voxels, is wrong",
            remedy="Save the volume in Amira again",
        )


def _shape(head: AmiraHeader) -> Shape:
    counts = head.counts.get("Lattice", ())
    if len(counts) != 3 or min(counts) < 1:
        raise FormatError(f"the AmiraMesh lattice is defined as {counts}, not x, y and z voxels")
    x, y, z = counts
    return z, y, x


def _bounding_box(
    head: AmiraHeader, shape: Shape, notes: list[str]
) -> tuple[Triple, Triple | None]:
    """Return the centre of the first voxel and the voxel size, zyx, Å; None if not stated."""
    try:
        x0, x1, y0, y1, z0, z1 = (float(word) for word in head.parameters.get("BoundingBox", ()))
    except ValueError:
        notes.append("the file has no bounding box of six numbers: its origin is taken as 0")
        return (0.0, 0.0, 0.0), None
    if not all(math.isfinite(edge) for edge in (x0, x1, y0, y1, z0, z1)):
        raise FormatError("the AmiraMesh volume's bounding box is not finite")
    unit = head.angstrom_per_unit
    if unit is None:
        notes.append("the file names no unit of length; taken as Å")
    per_unit = unit or 1.0
    corner = (z0 * per_unit, y0 * per_unit, x0 * per_unit)
    return corner, _voxel_size(shape, (z1 - z0, y1 - y0, x1 - x0), per_unit)


def _voxel_size(shape: Shape, lengths: Triple, per_unit: float) -> Triple | None:
    """Return zyx, Å. A single slice is as thick as its pixels are wide."""
    if min(shape[1:]) < 2:
        return None
    z, y, x = (length * per_unit / max(n - 1, 1) for length, n in zip(lengths, shape, strict=True))
    return ((y + x) / 2 if shape[0] == 1 else z), y, x
