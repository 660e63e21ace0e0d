"""Files compressed as a whole: unpacked in a stream, because nothing in them can be sought."""

from __future__ import annotations

import bz2
import gzip
import zlib
from typing import BinaryIO, Literal

from tomoseg.core.errors import FormatError

Compression = Literal["gzip", "bzip2"]

CHUNK_BYTES = 2**20


def compression_of(name: str) -> Compression | None:
    """Tell from a file's name how it is compressed, None if it is not."""
    if name.lower().endswith(".gz"):
        return "gzip"
    return "bzip2" if name.lower().endswith(".bz2") else None


def decompress(
    source: BinaryIO, target: BinaryIO, compression: Compression, *, most_bytes: int
) -> int:
    """Unpack a file into another, one MiB at a time.

    Parameters
    ----------
    source
        Open for reading in binary, at the start.
    target
        Open for writing in binary.
    compression
        As told by :func:`compression_of`.
    most_bytes
        What may be written: some KB can become a disk full.

    Returns
    -------
    Bytes written.

    Raises
    ------
    FormatError
        If the file is truncated, damaged, compressed otherwise, or becomes larger than that.
    """
    written = 0
    with _opened(source, compression) as unpacked:
        while chunk := _next_chunk(unpacked, compression):
            written += len(chunk)
            if written > most_bytes:
                raise FormatError(
                    f"the {compression} file becomes more than the {most_bytes} bytes that there "
                    "is room for",
                    remedy="Check the file; if it is right, unpack it yourself or free disk space",
                )
            target.write(chunk)
    return written


def beginning(source: BinaryIO, compression: Compression, count: int) -> bytes:
    """Return the first bytes of a file, unpacked; raise as :func:`decompress` does."""
    with _opened(source, compression) as unpacked:
        return _next_chunk(unpacked, compression, count)


def _opened(source: BinaryIO, compression: Compression) -> gzip.GzipFile | bz2.BZ2File:
    return gzip.GzipFile(fileobj=source) if compression == "gzip" else bz2.BZ2File(source)


def _next_chunk(
    unpacked: gzip.GzipFile | bz2.BZ2File, compression: Compression, count: int = CHUNK_BYTES
) -> bytes:
    try:
        return unpacked.read(count)
    except EOFError as error:
        raise FormatError(
            f"the {compression} file is truncated",
            remedy="Copy the file again, or wait until it is written completely",
        ) from error
    except (OSError, zlib.error) as error:
        # bz2 reports damage as an OSError without a number; one with a number is the disk's.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise FormatError(
            f"the {compression} file is damaged, or is none: {error}", remedy="Copy the file again"
        ) from error
