"""Chunks of zarr arrays that others made, unpacked to the size that their metadata announce.

A few MB of zeros, packed, become terabytes, and zarr looks at a chunk's size when it has it whole.
"""

from __future__ import annotations

import asyncio
import bz2
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import zarr
from numcodecs.abc import Codec
from numcodecs.blosc import Blosc
from numcodecs.lz4 import LZ4
from numcodecs.zstd import Zstd
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec, TransposeCodec

from tomoseg.core.errors import FormatError

Unpack = Callable[[Any, int], Any]
"""Of what is packed and the bytes that it must become; ValueError or RuntimeError where not."""


def bound_chunks(array: zarr.Array[Any]) -> zarr.Array[Any]:
    """Return the array, for reading alone; a chunk of it that becomes more than it should raises.

    Raises
    ------
    FormatError
        If its chunks go through anything but what is known here. Some codecs run code.
    """
    metadata: Any = array.metadata
    try:
        if metadata.zarr_format == 2:
            changes = {"compressor": _of_v2(metadata)}
        else:
            changes = {"codecs": _of_v3(metadata.codecs)}
    except LookupError as error:
        raise FormatError(
            f"{array.store_path}: chunks packed by {error.args[0]!r} are not read",
            remedy="Store it again, packed by blosc, zstd or gzip, or not at all",
        ) from error
    inner: Any = array.async_array
    return zarr.Array(type(inner)(replace(metadata, **changes), inner.store_path, inner.config))


def _of_v2(metadata: Any) -> Codec | None:
    for filtering in metadata.filters or ():
        raise LookupError(filtering.codec_id)
    if metadata.compressor is None:
        return None
    size = prod(metadata.chunks) * metadata.dtype.to_native_dtype().itemsize
    return _Chunk(UNPACKS[metadata.compressor.codec_id], size)


def _of_v3(codecs: Iterable[Any]) -> tuple[Any, ...]:
    """Voxels, turned, are bytes or a shard of chunks; bytes may be packed once, and have a sum."""
    chain: list[Any] = []
    for codec in codecs:
        name = str(codec.to_dict()["name"]).removeprefix("numcodecs.")
        if isinstance(codec, ShardingCodec):
            for part in codec.index_codecs:
                if not isinstance(part, (BytesCodec, Crc32cCodec)):
                    raise LookupError(part.to_dict()["name"])
            chain.append(replace(codec, codecs=_of_v3(codec.codecs)))
        elif isinstance(codec, (TransposeCodec, BytesCodec, Crc32cCodec)):
            chain.append(codec)
        elif chain and isinstance(chain[-1], BytesCodec):
            chain.append(_ChunkOfV3(UNPACKS[name]))
        else:
            raise LookupError(name)
    return tuple(chain)


class _Chunk(Codec):  # type: ignore[misc]
    """What unpacks a chunk of zarr v2."""

    codec_id = "tomoseg.bounded"

    def __init__(self, unpack: Unpack, size: int) -> None:
        self._unpack, self._size = unpack, size

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Return the chunk's bytes."""
        return self._unpack(buf, self._size)

    def encode(self, buf: Any) -> Any:
        """Refuse: the array is for reading."""
        raise NotImplementedError


@dataclass(frozen=True)
class _ChunkOfV3(BytesBytesCodec):
    """What unpacks a chunk of zarr v3."""

    unpack: Unpack
    is_fixed_size = False

    async def _decode_single(self, chunk_data: Any, chunk_spec: Any) -> Any:
        size = prod(chunk_spec.shape) * chunk_spec.dtype.to_native_dtype().itemsize
        whole = await asyncio.to_thread(self.unpack, chunk_data.as_numpy_array(), size)
        return chunk_spec.prototype.buffer.from_bytes(whole)

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: Any) -> int:
        """Refuse: it is not known."""
        raise NotImplementedError


def _into(codec: Codec) -> Unpack:
    """Unpack where the codec refuses what does not fit, but is content with less."""

    def unpack(packed: Any, size: int) -> Any:
        for mark in (0xA5, 0x5A):
            whole = np.empty(size, np.uint8)
            whole[-1:] = mark
            codec.decode(packed, out=whole)
            if whole[-1] != mark:
                return whole
        raise ValueError(f"a chunk becomes less than its {size} bytes")

    return unpack


BLOSC_HEADER_BYTES = 16
_unframe_blosc = _into(Blosc())


def _unpack_blosc(packed: Any, size: int) -> Any:
    """Unpack after a look at how long it says it is: Blosc is not told where the bytes end."""
    said = int.from_bytes(bytes(packed[12:16]), "little")
    if len(packed) < BLOSC_HEADER_BYTES or said > len(packed):
        raise ValueError(f"a chunk of {len(packed)} bytes says that it has {said}")
    return _unframe_blosc(packed, size)


def _in_parts(unpacker_of: Callable[[], Any]) -> Unpack:
    """Unpack where one can say how much is wanted."""

    def unpack(packed: Any, size: int) -> Any:
        unpacker = unpacker_of()
        try:
            whole = unpacker.decompress(bytes(packed), size + 1)
        except (zlib.error, OSError) as error:
            raise ValueError(str(error)) from error
        if len(whole) != size or not unpacker.eof:
            raise ValueError(f"a chunk becomes more or less than its {size} bytes, or is cut")
        return whole

    return unpack


_ZLIB_OR_GZIP = 47  # of zlib's window bits: whichever of the two the header says
_deflated = _in_parts(lambda: zlib.decompressobj(_ZLIB_OR_GZIP))
UNPACKS: dict[str, Unpack] = {
    "blosc": _unpack_blosc,
    "zstd": _into(Zstd()),
    "lz4": _into(LZ4()),
    "gzip": _deflated,
    "zlib": _deflated,
    "bz2": _in_parts(bz2.BZ2Decompressor),
}
