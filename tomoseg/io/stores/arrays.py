"""Named arrays as one ``.npz`` file, read with no more memory than it has values for."""

from __future__ import annotations

import io
import threading
import zipfile
import zlib
from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from tomoseg.core.errors import StoreError

LARGEST_BYTES = 2**32
# Of a name.npy before the values: magic, and a header of up to 10,000 bytes that NumPy parses.
_HEADER_BYTES = 2**14
_ONE_AT_A_TIME = threading.Lock()
"""NumPy parses headers as Python, and CPython 3.11 fails (SystemError: AST constructor recursion
depth mismatch) where a thread parses while another, amid its parsing, collects garbage."""
# Also of members that are said to be encrypted, or packed in an unknown way (RuntimeError).
_DAMAGE = (ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


def npz_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return an ``.npz`` file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **dict(arrays))  # type: ignore[arg-type]
    return buffer.getvalue()


def npz_arrays(content: bytes, where: str) -> dict[str, NDArray[Any]]:
    """Return the arrays of an ``.npz`` file.

    Raises
    ------
    StoreError
        If it is damaged, holds objects, an array of it is not as long as its header says, or all
        together are larger than 4 GiB; ``where`` is what the error calls it.
    """
    try:
        with _ONE_AT_A_TIME, zipfile.ZipFile(io.BytesIO(content)) as archive:
            _check_sizes(archive)
        with _ONE_AT_A_TIME, np.load(io.BytesIO(content), allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except _DAMAGE as error:
        raise StoreError(
            f"{where} is cut or damaged: {error}", remedy="Remove it and run again"
        ) from error


def _check_sizes(archive: zipfile.ZipFile) -> None:
    members = archive.infolist()
    # zipfile hands out no more of a member than this, whatever it unpacks to.
    together = sum(member.file_size for member in members)
    if together > LARGEST_BYTES:
        raise ValueError(f"its arrays have {together} bytes, more than {LARGEST_BYTES}")
    for member in members:
        with archive.open(member) as file:
            start = io.BytesIO(file.read(_HEADER_BYTES))
        needed = _announced_bytes(start)
        if needed > member.file_size:
            raise ValueError(f"{member.filename} announces {needed} bytes, not {member.file_size}")


def _announced_bytes(start: io.BytesIO) -> int:
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    version = npy.read_magic(start)
    if version not in readers:
        raise ValueError(f"version {version} of the array's header is not read")
    shape, _, dtype = readers[version](start)
    if dtype.hasobject:
        raise ValueError("objects are not read (allow_pickle)")
    return int(prod(shape)) * dtype.itemsize
