"""The EM format of TOM, AV3 and STOPGAP: a header of 512 bytes and an array.

Source: ``tom_emread.m`` of TOM and ``sg_emread.m`` of STOPGAP. Byte 0 names the machine and with
it the byte order, byte 3 the kind of number, the integers that follow the size along x, y and z.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.core.errors import FormatError
from tomoseg.io.volumes.ranges import StoredArray

HEADER_BYTES = 512
_ORDER = {6: "<", 0: ">", 3: ">", 5: ">"}
_KINDS = {1: "i1", 2: "i2", 4: "i4", 5: "f4", 9: "f8"}
_PC, _FLOAT = 6, 5


def parse_em_header(start: bytes, size: int) -> StoredArray:
    """Return where and how the array of an EM file lies.

    Parameters
    ----------
    start
        The file's first 512 bytes.
    size
        Bytes of the whole file.

    Raises
    ------
    FormatError
        If the machine or the kind of number is unknown or complex, a size is below 0, or there
        are fewer bytes than the sizes ask for.
    """
    if len(start) < HEADER_BYTES:
        raise FormatError(
            f"{len(start)} bytes are fewer than the {HEADER_BYTES} of an EM header",
            remedy="Check the file",
        )
    machine, kind = start[0], start[3]
    if machine not in _ORDER or kind not in _KINDS:
        raise FormatError(
            f"machine {machine} and kind of number {kind} are none of {sorted(_ORDER)} and "
            f"{sorted(_KINDS)}: this is no EM file that can be read",
            remedy="Check the file",
        )
    x, y, z = struct.unpack(f"{_ORDER[machine]}3i", start[4:16])
    stored = StoredArray(HEADER_BYTES, (z, y, x), np.dtype(f"{_ORDER[machine]}{_KINDS[kind]}"))
    # Python's integers do not overflow, whatever the header says.
    if min(x, y, z) < 0 or stored.byte_count > size - HEADER_BYTES:
        raise FormatError(
            f"sizes {x}, {y}, {z} need {stored.byte_count} bytes; the file has "
            f"{size - HEADER_BYTES}",
            remedy="The file is cut short or its header is wrong: copy it again",
        )
    return stored


def read_em(data: bytes) -> NDArray[Any]:
    """Return the array of an EM file, shape (z, y, x), read-only, in this machine's byte order.

    No more memory is taken than the file has.

    Raises
    ------
    FormatError
        As :func:`parse_em_header`.
    """
    stored = parse_em_header(data[:HEADER_BYTES], len(data))
    count = stored.byte_count // stored.dtype.itemsize
    values = np.frombuffer(data, stored.dtype, count=count, offset=HEADER_BYTES)
    return values.astype(stored.dtype.newbyteorder("="), copy=False).reshape(stored.shape)


def write_em(values: NDArray[np.float32]) -> bytes:
    """Return an EM file of an array, shape (z, y, x)."""
    z, y, x = values.shape
    header = struct.pack("<4B3i", _PC, 0, 0, _FLOAT, x, y, z).ljust(HEADER_BYTES, b"\0")
    return header + np.ascontiguousarray(values, "<f4").tobytes()
