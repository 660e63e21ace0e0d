"""What is read of the zarr arrays that others made: their metadata can announce anything."""

from __future__ import annotations

from math import prod
from typing import Any

import zarr

from tomoseg.core.errors import FormatError
from tomoseg.io.stores.folders import Folder

LARGEST_ARRAY_BYTES = 2**43
LARGEST_CHUNK_BYTES = 2**31
MOST_CHUNKS_A_SHARD = 2**20

# What zarr raises on metadata that are damaged.
DAMAGED_METADATA = (
    KeyError,
    IndexError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    NotImplementedError,
)


def check_sizes(array: zarr.Array[Any], where: Folder) -> None:
    """Refuse sizes that no tomogram has, before a voxel is read.

    A chunk is unpacked whole for any voxel in it, and so is the index of a shard.

    Raises
    ------
    FormatError
        If the array is larger than 8 TiB, a chunk than 2 GiB, or a shard has over a million chunks.
    """
    item, chunk = array.dtype.itemsize, prod(array.chunks)
    shard = prod(array.shards) if array.shards else chunk
    limits = {
        "the array": (prod(array.shape) * item, LARGEST_ARRAY_BYTES, "bytes"),
        "a chunk": (chunk * item, LARGEST_CHUNK_BYTES, "bytes"),
        "a shard": (-(-shard // max(chunk, 1)), MOST_CHUNKS_A_SHARD, "chunks"),
    }
    for what, (announced, most, unit) in limits.items():
        if announced > most:
            raise FormatError(
                f"{where}: {what} is announced with {announced} {unit}; {most} are read at most",
                remedy="Check its metadata, or store it again in smaller parts",
            )
    if array.dtype.kind not in "biuf":
        raise FormatError(f"{where} holds {array.dtype}, not numbers")
