"""EM volumes of TOM and its relatives: tomograms and masks, read by ranges; see :mod:`.em`."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.core.blocks import Box
from tomoseg.core.errors import FormatError
from tomoseg.core.sampling import Header, Sampling
from tomoseg.io.volumes.box_reader import BoxReader
from tomoseg.io.volumes.em import HEADER_BYTES, parse_em_header
from tomoseg.io.volumes.ranges import StoredArray, byte_count
from tomoseg.io.voxel_size import decide_voxel_size

# Numbers a particle in a motive list, which is an EM file too.
MOTIVE_LIST_ROWS = 20


def is_motive_list(start: bytes) -> bool:
    """Tell whether a file that begins so is a list of particles: 20 numbers each, one slice."""
    try:
        depth, _, columns = parse_em_header(start[:HEADER_BYTES], 2**63).shape
    except FormatError:
        return False
    return depth == 1 and columns == MOTIVE_LIST_ROWS


class EmReader(BoxReader):
    """An EM volume that is read box by box.

    Notes
    -----
    Its voxel size must be given: programs leave what the header has for it empty, or write there
    what they like.
    """

    @cached_property
    def header(self) -> Header:
        """What the file says about itself; the first use reads 512 bytes.

        Raises
        ------
        FormatError
            If this is no EM file, a motive list, empty, or of another length than its sizes say.
        VoxelSizeError
            If no voxel size was given.
        """
        notes: list[str] = []
        stored = self._stored
        size = decide_voxel_size(None, self._override_angstrom, notes=notes)
        dtype = stored.dtype.newbyteorder("=").name
        return Header(Sampling(stored.shape, size), dtype, notes=tuple(notes))

    def _read(self, box: Box) -> NDArray[Any]:
        return np.asarray(self._stored.read(self._file, box))

    @cached_property
    def _stored(self) -> StoredArray:
        present = byte_count(self._file)
        self._file.seek(0)
        start = self._file.read(HEADER_BYTES)
        stored = parse_em_header(start, present)
        z, y, x = stored.shape
        if is_motive_list(start):
            raise FormatError(
                f"this EM file is a motive list of {y} particles, no volume",
                remedy="Import it: tomoseg import FILE --into TOMOGRAM --as CLASS",
            )
        if not min(stored.shape):
            raise FormatError(f"{x} × {y} × {z} are no voxels", remedy="Check the file")
        if present != HEADER_BYTES + stored.byte_count:
            raise FormatError(
                f"{x} × {y} × {z} voxels (xyz) need {stored.byte_count} bytes; the file has "
                f"{present - HEADER_BYTES}: its sizes or its kind of number are wrong",
                remedy="Write the volume again",
            )
        return stored
