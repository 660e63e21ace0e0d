"""TIFF stacks, written by tifffile and by other programs."""

from __future__ import annotations

import io
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from tomoseg.core.blocks import Box
from tomoseg.core.errors import FormatError, RequestError, TomosegError, VoxelSizeError
from tomoseg.core.sampling import Sampling
from tomoseg.io.volumes.tiff import TiffReader

DATA = Path(__file__).resolve().parents[3] / ".." / "shared" / "data"
REAL = pytest.mark.skipif(not DATA.is_dir(), reason="shared real data are not on this machine")

SHAPE = (6, 20, 30)
PLAIN: dict[str, Any] = {"photometric": "minisblack", "metadata": None}


def ramp(dtype: str = "uint16", shape: tuple[int, ...] = SHAPE) -> NDArray[Any]:
    return (np.arange(np.prod(shape)) % 251).reshape(shape).astype(dtype)


def tiff_bytes(array: NDArray[Any], **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def imagej(array: NDArray[Any], per_pixel: tuple[float, float], **metadata: Any) -> bytes:
    """Write as ImageJ does; ``per_pixel`` is the size of a pixel in the unit, xy."""
    resolution = (1 / per_pixel[0], 1 / per_pixel[1])
    return tiff_bytes(
        array, imagej=True, resolution=resolution, metadata={"axes": "ZYX", **metadata}
    )


def reader(raw: bytes, **options: Any) -> TiffReader:
    return TiffReader(io.BytesIO(raw), **options)


def read_all(source: TiffReader) -> NDArray[Any]:
    return source.read(Box.whole(source.header.sampling.shape))


LAYOUTS: dict[str, dict[str, Any]] = {
    "one piece": PLAIN,
    "big-endian": {**PLAIN, "byteorder": ">"},
    "BigTIFF": {**PLAIN, "bigtiff": True},
    "described shape": {"photometric": "minisblack"},
    "strips": {**PLAIN, "rowsperstrip": 3},
    "tiles": {**PLAIN, "tile": (16, 16)},
    "deflate": {**PLAIN, "compression": "zlib"},
    "deflate, big-endian, strips": {
        **PLAIN,
        "compression": "zlib",
        "byteorder": ">",
        "rowsperstrip": 7,
    },
}


@pytest.mark.parametrize("options", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float16", "float32"])
def test_every_layout_and_type_is_read_bit_exact(dtype: str, options: dict[str, Any]) -> None:
    source = reader(tiff_bytes(ramp(dtype), **options), voxel_size_angstrom=10.0)
    assert source.header.dtype == dtype
    voxels = read_all(source)
    assert voxels.dtype == np.dtype(dtype) and voxels.dtype.isnative
    np.testing.assert_array_equal(voxels, ramp(dtype))
    box = Box((1, 5, 7), (4, 18, 9))
    np.testing.assert_array_equal(source.read(box), ramp(dtype)[box.slices])


def test_pages_that_lie_apart_are_read_by_ranges() -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as out:
        for page in ramp():
            out.write(page, contiguous=False, **PLAIN)
    source = TiffReader(file, voxel_size_angstrom=10.0)
    np.testing.assert_array_equal(read_all(source), ramp())


class CountingFile(io.BytesIO):
    bytes_read = 0

    def read(self, size: int | None = -1, /) -> bytes:
        part = super().read(size)
        self.bytes_read += len(part)
        return part


def test_only_the_needed_rows_of_uncompressed_data_are_read() -> None:
    file = CountingFile(tiff_bytes(ramp(), **PLAIN))
    source = TiffReader(file, voxel_size_angstrom=10.0)
    assert source.header.dtype == "uint16"
    file.bytes_read = 0
    source.read(Box((2, 4, 0), (4, 7, 30)))
    assert file.bytes_read == 2 * 3 * 30 * 2


@settings(max_examples=40)
@given(st.data(), st.sampled_from(sorted(LAYOUTS)))
def test_any_box_equals_slicing(data: st.DataObject, layout: str) -> None:
    pairs = [sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n)))) for n in SHAPE]
    box = Box(tuple(a for a, _ in pairs), tuple(b for _, b in pairs))  # type: ignore[arg-type]
    source = reader(tiff_bytes(ramp(), **LAYOUTS[layout]), voxel_size_angstrom=10.0)
    np.testing.assert_array_equal(source.read(box), ramp()[box.slices])


@pytest.mark.parametrize(
    ("unit", "size"),
    [
        ("nm", 1.052),
        ("NM", 1.052),
        ("um", 0.001052),
        ("micron", 0.001052),
        ("\\u00B5m", 0.001052),
        ("angstrom", 10.52),
        ("A", 10.52),
        ("pm", 1052.0),
    ],
)
def test_imagej_calibration_is_read(unit: str, size: float) -> None:
    header = reader(imagej(ramp(), (size, size), unit=unit, spacing=size)).header
    assert header.sampling == Sampling(SHAPE, (10.52, 10.52, 10.52))


def test_a_spacing_left_out_is_one_unit() -> None:
    header = reader(imagej(ramp(), (1.0, 1.0), unit="nm")).header
    assert header.sampling.voxel_size_angstrom == (10.0, 10.0, 10.0)


def test_a_single_page_is_one_slice_like_x_and_y() -> None:
    page = ramp()[:1]
    header = reader(imagej(page, (2.0, 2.0), unit="nm", spacing=70.0)).header
    assert header.sampling == Sampling((1, 20, 30), (20.0, 20.0, 20.0))


@pytest.mark.parametrize(("unit", "size"), [("nm", 1.0), ("Å", 10.0), ("µm", 0.001), (None, 0.001)])
def test_ome_physical_sizes_are_read(unit: str | None, size: float) -> None:
    metadata: dict[str, Any] = {"axes": "ZYX"}
    for axis in "ZYX":
        metadata[f"PhysicalSize{axis}"] = size
        if unit:
            metadata[f"PhysicalSize{axis}Unit"] = unit
    source = reader(tiff_bytes(ramp(), ome=True, metadata=metadata))
    assert source.header.sampling == Sampling(SHAPE, (10.0, 10.0, 10.0))
    np.testing.assert_array_equal(read_all(source), ramp())


def test_an_ome_slice_needs_no_z_size() -> None:
    metadata = {"axes": "YX", "PhysicalSizeX": 0.001, "PhysicalSizeY": 0.001}
    header = reader(tiff_bytes(ramp()[0], ome=True, metadata=metadata)).header
    assert header.sampling == Sampling((1, 20, 30), (10.0, 10.0, 10.0))


UNCALIBRATED = {
    "no description": tiff_bytes(ramp(), **PLAIN),
    "print resolution": tiff_bytes(ramp(), resolution=(72, 72), resolutionunit="inch", **PLAIN),
    "pixels": imagej(ramp(), (1.0, 1.0), unit="pixel"),
    "no unit": imagej(ramp(), (1.0, 1.0)),
    "z differs": imagej(ramp(), (1.0, 1.0), unit="nm", spacing=5.0),
    "y differs": imagej(ramp(), (1.0, 2.0), unit="nm", spacing=1.0),
    "one Å": imagej(ramp(), (0.1, 0.1), unit="nm", spacing=0.1),
    "OME without z": tiff_bytes(
        ramp(), ome=True, metadata={"axes": "ZYX", "PhysicalSizeX": 0.001, "PhysicalSizeY": 0.001}
    ),
}


@pytest.mark.parametrize("raw", UNCALIBRATED.values(), ids=UNCALIBRATED.keys())
def test_without_a_calibration_the_override_is_named(raw: bytes) -> None:
    with pytest.raises(VoxelSizeError, match=r"source\.voxel_size_angstrom"):
        _ = reader(raw).header
    header = reader(raw, voxel_size_angstrom=8.0).header
    assert header.sampling == Sampling(SHAPE, (8.0, 8.0, 8.0))


def test_time_points_are_slices_with_a_note() -> None:
    raw = imagej(ramp(), (1.0, 1.0), unit="nm", axes="TYX")
    header = reader(raw).header
    assert header.sampling.shape == SHAPE
    assert "time points" in header.notes[0]


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("dtype", ["int32", "uint32", "int64", "uint64", "bool"])
def test_labels_of_types_that_are_not_kept_are_read(dtype: str, layout: dict[str, Any]) -> None:
    labels = ramp() % 7
    labels[2] = 0
    if dtype == "bool" and "tile" in layout:
        pytest.skip("tifffile does not write bits so")
    source = reader(tiff_bytes(labels.astype(dtype), **layout), voxel_size_angstrom=10.0)
    kept = "uint8" if dtype == "bool" else "float32"
    assert source.header.dtype == kept
    assert f"voxels of type {dtype} are read as {kept}" in source.header.notes
    voxels = read_all(source)
    assert voxels.dtype == kept
    assert np.array_equal(voxels, labels.astype(dtype))
    box = Box((1, 3, 5), (4, 9, 22))
    assert np.array_equal(source.read(box), labels[box.slices].astype(dtype))


@pytest.mark.parametrize("value", [2**24 + 1, -(2**24) - 1])
def test_whole_numbers_that_would_change_are_refused(value: int) -> None:
    labels = ramp("int32")
    labels[3, 4, 5] = value
    source = reader(tiff_bytes(labels, **PLAIN), voxel_size_angstrom=10.0)
    assert source.read(Box((0, 0, 0), (2, 20, 30))).max() < 251
    with pytest.raises(FormatError, match=f"int32 are read from .* {value}") as caught:
        read_all(source)
    assert "labels to uint8 or uint16" in caught.value.remedy


REFUSED = {
    "colour": (tiff_bytes(ramp("uint8", (20, 30, 3)), photometric="rgb"), "colours"),
    "channels": (imagej(ramp(), (1, 1), axes="CYX"), "channels"),
    "channels and slices": (imagej(ramp(shape=(3, 2, 9, 9)), (1, 1), axes="ZCYX"), "channels"),
    "times and slices": (imagej(ramp(shape=(3, 2, 9, 9)), (1, 1), axes="TZYX"), "one stack"),
    "doubles": (tiff_bytes(ramp("float64"), **PLAIN), "float64"),
    "complex numbers": (tiff_bytes(ramp("complex64"), **PLAIN), "not read"),
    "empty": (b"", "no TIFF file"),
    "text": (b"not a picture at all", "no TIFF file"),
    "truncated, one page": (tiff_bytes(ramp()[0], **PLAIN)[:-1], "need"),
    "truncated, no chain of pages": (tiff_bytes(ramp(), **PLAIN)[:5000], "chain of pages"),
    "truncated by ImageJ": (imagej(ramp(), (1, 1), unit="nm")[:5000], "chain of pages"),
}


@pytest.mark.parametrize(("raw", "fact"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_one_grey_volume_is_refused(raw: bytes, fact: str) -> None:
    with pytest.raises(FormatError, match=fact):
        _ = reader(raw, voxel_size_angstrom=10.0).header


def test_pages_that_differ_are_refused() -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as out:
        out.write(ramp()[0], **PLAIN)
        out.write(ramp()[0, :10], **PLAIN)
    with pytest.raises(FormatError, match="2 series"):
        _ = TiffReader(file, voxel_size_angstrom=10.0).header


def test_a_compressed_page_cut_short_is_an_error_not_zeros() -> None:
    raw = tiff_bytes(ramp(), compression="zlib", **PLAIN)
    with tifffile.TiffFile(io.BytesIO(raw)) as other:
        last = max(page.dataoffsets[0] for page in other.pages)
    file = io.BytesIO(raw)
    source = TiffReader(file, voxel_size_angstrom=10.0)
    assert source.header.dtype == "uint16"
    file.truncate(last + 3)
    with pytest.raises(FormatError, match="outside the file"):
        read_all(source)


def test_a_box_outside_is_refused() -> None:
    with pytest.raises(RequestError, match="leaves the volume"):
        reader(tiff_bytes(ramp(), **PLAIN), voxel_size_angstrom=10.0).read(
            Box((0, 0, 0), (7, 1, 1))
        )


@pytest.mark.parametrize("options", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_damage_at_random_is_a_named_error_or_harmless(options: dict[str, Any]) -> None:
    whole = tiff_bytes(ramp("uint8", (2, 20, 30)), **options)
    dice = random.Random(7)
    for _ in range(60):
        raw = bytearray(whole)
        for _ in range(3):
            raw[dice.randrange(min(600, len(raw)))] = dice.choice([0, 1, 255])
        source = reader(bytes(raw), voxel_size_angstrom=10.0)
        try:
            voxels = source.read(Box((0, 0, 0), (1, 1, 1)))
        except TomosegError:
            continue
        assert voxels.shape == (1, 1, 1)


@REAL
def test_a_real_calibrated_stack_is_read_as_tifffile_reads_it() -> None:
    path = DATA / "cryoet/microtubule_14pf/14pf_MT.tif"
    with path.open("rb") as file:
        source = TiffReader(file)
        assert source.header.sampling == Sampling((44, 136, 84), (10.52, 10.52, 10.52))
        assert source.header.dtype == "uint8"
        np.testing.assert_array_equal(read_all(source), tifffile.imread(path))


@REAL
def test_a_real_compressed_stack_without_calibration_is_read_with_the_override() -> None:
    path = DATA / "volume_em/vnc/labels_00-13.tif"
    with path.open("rb") as file:
        source = TiffReader(file, voxel_size_angstrom=46.0)
        box = Box((3, 100, 200), (5, 164, 264))
        np.testing.assert_array_equal(source.read(box), tifffile.imread(path)[box.slices])


GREYS = {
    "0 is white": (tiff_bytes(ramp(), photometric="miniswhite"), "0 is white"),
    "colours": (
        tiff_bytes(
            ramp("uint8"),
            photometric="palette",
            colormap=np.random.default_rng(0).integers(0, 65535, (3, 256), np.uint16),
        ),
        "table of colours",
    ),
}


@pytest.mark.parametrize(("raw", "note"), GREYS.values(), ids=GREYS.keys())
def test_greys_that_others_show_otherwise_are_told(raw: bytes, note: str) -> None:
    source = reader(raw, voxel_size_angstrom=10.0)
    assert any(note in text for text in source.header.notes)
    assert read_all(source)[0, 0, 1] == 1  # the numbers are those of the file


def test_a_table_of_greys_is_nothing_to_tell() -> None:
    greys = np.tile(np.arange(256, dtype=np.uint16) * 257, (3, 1))
    raw = tiff_bytes(ramp("uint8"), photometric="palette", colormap=greys)
    notes = reader(raw, voxel_size_angstrom=10.0).header.notes
    assert not any("colours" in note for note in notes)


# Pages that tifffile leaves to another package


def by_pillow(array: NDArray[Any], **options: Any) -> bytes:
    file = io.BytesIO()
    first, *others = (Image.fromarray(page) for page in array)
    first.save(file, "TIFF", save_all=True, append_images=others, **options)
    return file.getvalue()


def differenced(array: NDArray[Any]) -> bytes:
    """Return LZW with differences along rows, as ImageMagick and libtiff write it."""
    return by_pillow(array, compression="tiff_lzw", tiffinfo={317: 2})


PACKED = {
    "LZW, bytes": (by_pillow(ramp("uint8"), compression="tiff_lzw"), ramp("uint8")),
    "LZW": (by_pillow(ramp(), compression="tiff_lzw"), ramp()),
    "LZW, real numbers": (by_pillow(ramp("float32"), compression="tiff_lzw"), ramp("float32")),
    "LZW, differences": (differenced(ramp()), ramp()),
    "LZW, differences of bytes": (differenced(ramp("uint8")), ramp("uint8")),
    "deflate, real differences": (
        by_pillow(ramp("float32"), compression="tiff_adobe_deflate", tiffinfo={317: 3}),
        ramp("float32"),
    ),
    "LZW, strips": (
        by_pillow(ramp(shape=(2, 300, 200)), compression="tiff_lzw", tiffinfo={278: 7}),
        ramp(shape=(2, 300, 200)),
    ),
    "zstd": (by_pillow(ramp(), compression="zstd"), ramp()),
}


@pytest.mark.parametrize(("raw", "truth"), PACKED.values(), ids=PACKED.keys())
def test_pages_packed_by_others_are_read_bit_exact(raw: bytes, truth: NDArray[Any]) -> None:
    source = reader(raw, voxel_size_angstrom=10.0)
    np.testing.assert_array_equal(read_all(source), truth)
    np.testing.assert_array_equal(source.read(Box((1, 2, 3), (2, 9, 8))), truth[1:2, 2:9, 3:8])


def test_pages_packed_by_jpeg_are_read_as_pillow_reads_them() -> None:
    raw = by_pillow(ramp("uint8"), compression="jpeg")
    with Image.open(io.BytesIO(raw)) as other:
        other.seek(4)
        page = np.array(other)
    voxels = read_all(reader(raw, voxel_size_angstrom=10.0))
    np.testing.assert_array_equal(voxels[4], page)
    assert np.abs(voxels.astype(int) - ramp("uint8")).mean() < 20


def test_a_packing_that_is_not_read_is_refused_by_the_header_with_the_way_out() -> None:
    raw = bytearray(tiff_bytes(ramp("uint8")[0], compression="zlib", metadata=None))
    at = raw.index(struct.pack("<HHIH", 259, 3, 1, 8)) + 8
    raw[at : at + 2] = struct.pack("<H", 34712)  # JPEG 2000
    with pytest.raises(FormatError, match=r"JPEG2000.* are not read\. Save the file uncompressed"):
        _ = reader(bytes(raw), voxel_size_angstrom=10.0).header


@pytest.mark.parametrize("name", ["LZW, differences", "LZW, strips"])
def test_damage_in_packed_pages_is_a_named_error_or_harmless(name: str) -> None:
    whole, truth = PACKED[name]
    dice = random.Random(3)
    for _ in range(60):
        raw = bytearray(whole)
        for _ in range(3):
            raw[dice.randrange(len(raw))] = dice.randrange(256)
        try:
            voxels = reader(bytes(raw), voxel_size_angstrom=10.0).read(Box.whole(truth.shape))
        except TomosegError:
            continue
        assert voxels.shape == truth.shape
