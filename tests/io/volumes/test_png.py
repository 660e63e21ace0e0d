"""PNG images, written by Pillow, by a few lines of our own, and by other programs."""

from __future__ import annotations

import io
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tomoseg.core.blocks import Box
from tomoseg.core.errors import FormatError, RequestError, VoxelSizeError
from tomoseg.core.sampling import Sampling
from tomoseg.io.volumes.png import PngReader

DATA = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "micrographs"
REAL = pytest.mark.skipif(not DATA.is_dir(), reason="shared real data are not on this machine")


def ramp(dtype: str, shape: tuple[int, int] = (20, 30)) -> NDArray[Any]:
    return (np.arange(np.prod(shape)) * 109).reshape(shape).astype(dtype)


def png_bytes(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def made(columns: int, rows: int, *, bits: int = 8, colour: int = 0, pixels: bytes = b"") -> bytes:
    """Write the chunks of an image by hand; the pixels may be fewer than it says."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", columns, rows, bits, colour, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(pixels))
    return b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b"")


def reader(raw: bytes, voxel_size_angstrom: float | None = 1.5) -> PngReader:
    return PngReader(io.BytesIO(raw), voxel_size_angstrom=voxel_size_angstrom)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_grey_image_is_one_slice_bit_exact(dtype: str) -> None:
    pixels = ramp(dtype)
    source = reader(png_bytes(Image.fromarray(pixels), dpi=(72, 72)))
    assert source.header.sampling == Sampling((1, 20, 30), (1.5, 1.5, 1.5))
    assert source.header.dtype == dtype
    assert source.header.notes == ("voxel size 1.5 Å was given; the file states none",)
    whole = source.read(Box.whole((1, 20, 30)))
    assert whole.dtype == np.dtype(dtype) and whole.dtype.isnative
    np.testing.assert_array_equal(whole[0], pixels)
    box = Box((0, 3, 5), (1, 17, 29))
    np.testing.assert_array_equal(source.read(box), pixels[np.newaxis][box.slices])


def test_rows_run_as_in_the_file() -> None:
    # Each row begins with its filter, 0: none. Sixteen bits are big-endian.
    pixels = b"\x00\x00\x01\x00\x02\x00\x01\x00\xff\xff"
    source = reader(made(2, 2, bits=16, pixels=pixels))
    assert source.read(Box.whole((1, 2, 2))).tolist() == [[[1, 2], [256, 65535]]]


def test_the_voxel_size_must_be_given() -> None:
    source = reader(png_bytes(Image.fromarray(ramp("uint8"))), None)
    with pytest.raises(VoxelSizeError, match=r"no voxel size\. Set source\.voxel_size_angstrom"):
        _ = source.header


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("RGB", "with colours"),
        ("RGBA", "with colours and transparency"),
        ("LA", "with transparency"),
        ("P", "with a palette"),
        ("1", "of 1 bits; 8 and 16 are read"),
    ],
)
def test_what_is_not_grey_is_refused(mode: str, message: str) -> None:
    raw = png_bytes(Image.fromarray(ramp("uint8")).convert(mode))
    with pytest.raises(FormatError, match=f"{message}.* Save it as grey of 8 or 16 bits"):
        _ = reader(raw).header


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "ended"),
        (b"II*\x00" + bytes(40), "not a PNG file: it begins with b'II"),
        (made(2, 2).replace(b"IHDR", b"IDAT"), "not a PNG file"),
        (made(2, 2).replace(b"\x02\x08\x00", b"\x03\x08\x00"), "the header .* is damaged"),
        (made(2**31 - 1, 2**31 - 1), "2147483647 × 2147483647 pixels; 1 to 268435456"),
        (made(0, 5), "0 × 5 pixels"),
    ],
)
def test_a_header_that_cannot_be_right_is_refused(raw: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        _ = reader(raw).header


def test_pixels_that_are_missing_are_an_error() -> None:
    raw = png_bytes(Image.fromarray(np.random.default_rng(0).integers(0, 2**16, (60, 50), "u2")))
    for part in (raw[: len(raw) // 2], raw[:33], raw[:60], made(50, 60, pixels=b"\x00\x01")):
        with pytest.raises(FormatError, match=r"cannot be unpacked: .*Copy the file again"):
            reader(part).read(Box.whole((1, 60, 50)))


def test_damage_is_an_error_or_wrong_pixels_never_a_crash() -> None:
    raw = png_bytes(Image.fromarray(ramp("uint16", (60, 50))))
    rng = random.Random(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(raw)
        for _ in range(rng.randint(1, 6)):
            damaged[rng.randrange(33, len(raw))] = rng.randrange(256)
        try:
            assert reader(bytes(damaged)).read(Box.whole((1, 60, 50))).shape == (1, 60, 50)
        except FormatError:
            refused += 1
    assert refused > 250


def test_a_box_outside_is_refused() -> None:
    with pytest.raises(RequestError, match="leaves the volume"):
        reader(made(2, 2)).read(Box((0, 0, 0), (1, 3, 2)))


@REAL
def test_a_real_micrograph_beside_an_independent_reader() -> None:
    path = DATA / "apoferritin_04.33.57.png"
    source = reader(path.read_bytes())
    assert source.header.sampling.shape == (1, 1200, 1240)
    with Image.open(path) as image:
        pixels = np.asarray(image)
    np.testing.assert_array_equal(source.read(Box.whole((1, 1200, 1240)))[0], pixels)
    assert source.header.dtype == "uint16"
