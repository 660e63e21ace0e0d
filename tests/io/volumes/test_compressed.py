"""Files compressed as a whole."""

from __future__ import annotations

import bz2
import errno
import gzip
import io

import pytest

from tomoseg.core.errors import FormatError
from tomoseg.io.volumes.compressed import CHUNK_BYTES, Compression, compression_of, decompress

PLAIN = bytes(range(256)) * (CHUNK_BYTES // 128)  # two chunks


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.mrc.gz", "gzip"), ("A.MRC.GZ", "gzip"), ("a.rec.bz2", "bzip2"), ("a.mrc", None)],
)
def test_the_name_tells_the_compression(name: str, expected: str | None) -> None:
    assert compression_of(name) == expected


@pytest.mark.parametrize(
    ("packed", "compression"),
    [
        (gzip.compress(PLAIN), "gzip"),
        (bz2.compress(PLAIN), "bzip2"),
        (gzip.compress(PLAIN[:100]) + gzip.compress(PLAIN[100:]), "gzip"),
        (bz2.compress(PLAIN[:100]) + bz2.compress(PLAIN[100:]), "bzip2"),
    ],
    ids=["gzip", "bzip2", "gzip in two members", "bzip2 in two streams"],
)
def test_a_file_is_unpacked(packed: bytes, compression: Compression) -> None:
    target = io.BytesIO()
    assert decompress(io.BytesIO(packed), target, compression, most_bytes=len(PLAIN)) == len(PLAIN)
    assert target.getvalue() == PLAIN


@pytest.mark.parametrize(
    ("packed", "compression", "fact"),
    [
        (gzip.compress(PLAIN)[:-9], "gzip", "truncated"),
        (bz2.compress(PLAIN)[:-9], "bzip2", "truncated"),
        (PLAIN, "gzip", "damaged"),
        (PLAIN, "bzip2", "damaged"),
        (gzip.compress(PLAIN)[:20] + b"xxxxxxxx" + gzip.compress(PLAIN)[28:], "gzip", "damaged"),
    ],
    ids=["gzip cut", "bzip2 cut", "no gzip", "no bzip2", "gzip with wrong bytes"],
)
def test_a_broken_file_is_named(packed: bytes, compression: Compression, fact: str) -> None:
    with pytest.raises(FormatError, match=fact):
        decompress(io.BytesIO(packed), io.BytesIO(), compression, most_bytes=2**30)


class FailingFile(io.BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        raise OSError(errno.EIO, "the disk fails")


@pytest.mark.parametrize("compression", ["gzip", "bzip2"])
def test_a_failing_disk_is_not_called_a_damaged_file(compression: Compression) -> None:
    with pytest.raises(OSError, match="the disk fails"):
        decompress(FailingFile(), io.BytesIO(), compression, most_bytes=2**30)
