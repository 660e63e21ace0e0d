"""MRC files read: built by hand byte by byte, and real ones against mrcfile."""

from __future__ import annotations

import gzip
import io
import re
import struct
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tomoseg.core.blocks import Box
from tomoseg.core.errors import FormatError, RequestError, VoxelSizeError
from tomoseg.core.sampling import Sampling
from tomoseg.io.volumes.mrc import MrcReader

DATA = Path(__file__).resolve().parents[3] / ".." / "shared" / "data"
REAL = pytest.mark.skipif(not DATA.is_dir(), reason="shared real data are not on this machine")

MODE_OF = {"int8": 0, "uint8": 0, "int16": 1, "float32": 2, "uint16": 6, "float16": 12}
IMOD = struct.pack("<i", 1146047817)


def mrc_bytes(
    array: NDArray[Any],
    order: str = "<",
    changes: dict[int, bytes] | None = None,
    tail: bytes = b"",
) -> bytes:
    """Lay out an MRC file by offsets; ``changes`` overwrites header bytes, ``tail`` is data."""
    counts = array.shape[::-1]
    raw = bytearray(1024)
    struct.pack_into(order + "10i", raw, 0, *counts, MODE_OF[array.dtype.name], 0, 0, 0, *counts)
    struct.pack_into(order + "6f", raw, 40, *(10.0 * n for n in counts), 90, 90, 90)
    struct.pack_into(order + "3i3f2i", raw, 64, 1, 2, 3, array.min(), array.max(), 0, 1, 0)
    raw[208:212] = b"MAP "
    raw[212:216] = bytes([0x44, 0x44, 0, 0] if order == "<" else [0x11, 0x11, 0, 0])
    for offset, patch in (changes or {}).items():
        raw[offset : offset + len(patch)] = patch
    return bytes(raw) + tail + array.astype(array.dtype.newbyteorder(order)).tobytes()


def reader(raw: bytes, **options: Any) -> MrcReader:
    return MrcReader(io.BytesIO(raw), **options)


def read_all(source: MrcReader) -> NDArray[Any]:
    return source.read(Box.whole(source.header.sampling.shape))


def ramp(dtype: str = "int16", shape: tuple[int, int, int] = (3, 4, 5)) -> NDArray[Any]:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["int8", "int16", "float32", "uint16", "float16"])
def test_every_mode_is_read_bit_exact(dtype: str, order: str) -> None:
    array = ramp(dtype)
    source = reader(mrc_bytes(array, order))
    voxels = read_all(source)
    assert source.header.dtype == dtype
    assert source.header.sampling == Sampling((3, 4, 5), (10.0, 10.0, 10.0))
    assert source.header.notes == ()
    assert voxels.dtype == np.dtype(dtype) and voxels.dtype.isnative
    np.testing.assert_array_equal(voxels, array)


@pytest.mark.parametrize(
    ("order", "stamp"),
    [
        ("<", b"\0\0\0\0"),
        (">", b"\0\0\0\0"),
        ("<", b"D   "),
        ("<", b"\x11\x11\0\0"),
        (">", b"DD\0\0"),
        ("<", b"\xff\xff\xff\xff"),
    ],
    ids=["zero", "zero, big", "letter", "says big", "says little", "nonsense"],
)
def test_the_header_decides_on_byte_order_where_the_stamp_is_wrong(
    order: str, stamp: bytes
) -> None:
    source = reader(mrc_bytes(ramp(), order, {212: stamp}))
    np.testing.assert_array_equal(read_all(source), ramp())
    assert bool(source.header.notes) == (stamp[0] != 0x44 or order == ">")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({76: struct.pack("<2f", 0, 200)}, "uint8"),
        ({76: struct.pack("<2f", -5, 100)}, "int8"),
        ({76: struct.pack("<2f", 0, 127)}, "uint8"),
        ({76: struct.pack("<2f", 200, 0)}, "uint8"),
        ({76: struct.pack("<2f", 0, float("nan"))}, "uint8"),
        ({76: struct.pack("<2f", 0, 100), 152: IMOD + struct.pack("<i", 0)}, "uint8"),
        ({76: struct.pack("<2f", 0, 200), 152: IMOD + struct.pack("<i", 1)}, "int8"),
        ({76: struct.pack("<2f", 0, 100), 152: struct.pack("<2i", 7, 0)}, "uint8"),
    ],
    ids=[
        "maximum above 127",
        "negative minimum",
        "either, and wrong",
        "minimum above maximum",
        "no statistics",
        "IMOD says unsigned",
        "IMOD says signed",
        "another program's words",
    ],
)
def test_the_header_tells_the_sign_of_bytes_or_else_their_values(
    changes: dict[int, bytes], expected: str
) -> None:
    array = np.array([[[0, 100, 200]]], np.uint8)
    voxels = read_all(reader(mrc_bytes(array, changes=changes)))
    assert voxels.dtype == expected
    np.testing.assert_array_equal(voxels, array.view(expected))


UNKNOWN = {76: struct.pack("<2f", 0, 0)}


def grey_bytes(dtype: str, mean: float, spread: float, seed: int = 0) -> NDArray[Any]:
    """Return a tomogram of bytes, cut off where its values leave their range."""
    bounds = np.iinfo(dtype)
    grey = np.random.default_rng(seed).normal(mean, spread, (4, 60, 70))
    return grey.round().clip(bounds.min, bounds.max).astype(dtype)


@pytest.mark.parametrize(
    ("dtype", "mean", "spread"),
    [
        ("uint8", 128, 20),
        ("uint8", 128, 60),  # cut off at both ends
        ("uint8", 70, 25),
        ("uint8", 230, 30),
        ("int8", 0, 20),
        ("int8", -5, 50),
        ("int8", 60, 25),
    ],
)
def test_the_values_of_bytes_tell_their_sign_where_the_header_does_not(
    dtype: str, mean: float, spread: float
) -> None:
    array = grey_bytes(dtype, mean, spread)
    source = reader(mrc_bytes(array, changes=UNKNOWN))
    assert source.header.dtype == dtype
    np.testing.assert_array_equal(read_all(source), array)
    (note,) = source.header.notes
    said, other = ("unsigned", "signed") if dtype == "uint8" else ("signed", "unsigned")
    assert note.startswith(f"mode 0 read as {said}: the header does not say, and as {other} they")
    assert note.endswith(f"source.integers: {other} overrules this")


@pytest.mark.parametrize("largest", [1, 100, 127])
def test_bytes_that_are_the_same_either_way_are_not_noted(largest: int) -> None:
    array = np.arange(60).reshape(3, 4, 5).clip(0, largest).astype(np.uint8)
    assert reader(mrc_bytes(array, changes=UNKNOWN)).header.notes == ()


def test_a_mask_of_0_and_255_is_a_guess_that_is_said() -> None:
    array = (ramp("uint8") % 2 * 255).astype(np.uint8)
    source = reader(mrc_bytes(array, changes=UNKNOWN))
    np.testing.assert_array_equal(read_all(source), array)
    assert "a guess" in source.header.notes[0]


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "float32"])
@pytest.mark.parametrize("integers", ["signed", "unsigned"])
def test_the_sign_that_a_person_says_is_taken(dtype: str, integers: Any) -> None:
    array = ramp("uint8").astype(dtype) if dtype != "uint8" else ramp("uint8") + np.uint8(190)
    source = reader(mrc_bytes(array), integers=integers)
    kind = "u" if integers == "unsigned" else "i"
    wanted = array if dtype == "float32" else array.view(f"{kind}{array.itemsize}")
    found = read_all(source)
    assert found.dtype == wanted.dtype
    np.testing.assert_array_equal(found, wanted)


def test_an_extended_header_is_not_taken_for_voxels() -> None:
    array = grey_bytes("int8", 0, 20)
    raw = mrc_bytes(array, changes={**UNKNOWN, 92: struct.pack("<i", 200_000)})
    raw = raw[:1024] + b"\x80" * 200_000 + raw[1024:]
    assert reader(raw).header.dtype == "int8"


@pytest.mark.parametrize("crs", [(1, 2, 3), (1, 3, 2), (2, 1, 3), (2, 3, 1), (3, 1, 2), (3, 2, 1)])
def test_permuted_axes_are_handed_out_as_zyx(crs: tuple[int, int, int]) -> None:
    truth = ramp(shape=(3, 4, 5))
    sections_rows_columns = tuple(3 - axis for axis in reversed(crs))
    start_zyx = (30, 20, 10)
    changes = {
        16: struct.pack("<3i", *(start_zyx[3 - axis] for axis in crs)),
        28: struct.pack("<3i3f", 5, 4, 3, 50, 40, 30),
        64: struct.pack("<3i", *crs),
    }
    source = reader(mrc_bytes(truth.transpose(sections_rows_columns), changes=changes))
    assert source.header.sampling == Sampling((3, 4, 5), (10.0, 10.0, 10.0))
    assert source.header.start_voxels == start_zyx
    np.testing.assert_array_equal(read_all(source), truth)
    box = Box((1, 0, 2), (3, 3, 5))
    part = source.read(box)
    np.testing.assert_array_equal(part, truth[box.slices])
    assert part.flags.c_contiguous


def test_all_zero_axes_are_the_usual_ones() -> None:
    source = reader(mrc_bytes(ramp(), changes={64: struct.pack("<3i", 0, 0, 0)}))
    np.testing.assert_array_equal(read_all(source), ramp())


def test_origin_and_negative_start_are_kept() -> None:
    changes = {16: struct.pack("<3i", -1, -2, -3), 196: struct.pack("<3f", 1.5, 2.5, -3.5)}
    header = reader(mrc_bytes(ramp(), changes=changes)).header
    assert header.origin_angstrom == (-3.5, 2.5, 1.5)
    assert header.start_voxels == (-3, -2, -1)


@pytest.mark.parametrize(
    ("stamp", "flags", "version", "is_turned"),
    [
        (b"\0\0\0\0", 0, 0, False),  # MRC2000
        (b"\0\0\0\0", 0, 20141, False),  # MRC2014
        (b"\0\0\0\0", 4, 0, False),  # flags mean nothing without the stamp
        (IMOD, 0, 0, True),  # IMOD's own: where 0 lies in the volume
        (IMOD, 1, 0, True),
        (IMOD, 4, 0, False),  # inverted for other programs
        (IMOD, 5, 20140, False),
        (IMOD, 1, 20140, False),  # mrc_head_read goes by the version as well
        (IMOD, 0, 12345, True),  # no version of the standard
    ],
)
def test_an_origin_of_imod_is_turned_round_unless_it_is_flagged(
    stamp: bytes, flags: int, version: int, is_turned: bool
) -> None:
    changes = {
        108: struct.pack("<i", version),
        152: stamp + struct.pack("<i", flags),
        196: struct.pack("<3f", 1.5, 2.5, -3.5),
    }
    header = reader(mrc_bytes(ramp(), changes=changes)).header
    assert header.origin_angstrom == ((3.5, -2.5, -1.5) if is_turned else (-3.5, 2.5, 1.5))
    assert header.has_imods_origin is is_turned
    assert any("opposite sign" in note for note in header.notes) is is_turned


@REAL
def test_points_on_a_membrane_lie_on_its_labels_by_their_files_origin() -> None:
    """Membranorama's points of a crop, in Å of the whole tomogram, with the crop's MRC file."""
    folder = DATA / "cryoet" / "membrane_labels"
    text = (folder / "T1S4M8.xml").read_text(encoding="utf-16")
    found = re.findall(r'<Point [^>]*Position="([^"]+)"', text)
    points = np.array([row.split(",") for row in found], np.float64)[:, ::-1]
    source = reader(gzip.decompress((folder / "T1S4M8_crop.mrc.gz").read_bytes()))
    voxels = source.header.sampling.to_voxels(points - source.header.origin_angstrom)
    labels = read_all(source)
    near = np.rint(voxels).astype(int)
    assert len(points) > 15
    assert source.header.sampling.contains(points - source.header.origin_angstrom).all()
    assert (labels[tuple(near.T)] > 0).mean() > 0.5 > 3 * (labels > 0).mean()


def test_an_origin_not_finite_is_zero_with_a_note() -> None:
    header = reader(mrc_bytes(ramp(), changes={196: struct.pack("<f", float("inf"))})).header
    assert header.origin_angstrom == (0.0, 0.0, 0.0)
    assert "not finite" in header.notes[0]


@pytest.mark.parametrize("extended", [160, 80_000, 900_000])
def test_extended_headers_are_skipped(extended: int) -> None:
    changes = {92: struct.pack("<i", extended)}
    source = reader(mrc_bytes(ramp(), changes=changes, tail=b"x" * extended))
    np.testing.assert_array_equal(read_all(source), ramp())


def test_an_extended_header_announced_but_missing_does_not_shift_the_data() -> None:
    source = reader(mrc_bytes(ramp(), changes={92: struct.pack("<i", 4096)}))
    np.testing.assert_array_equal(read_all(source), ramp())
    assert "is not there" in source.header.notes[0]


def test_bytes_after_the_data_are_noted() -> None:
    source = reader(mrc_bytes(ramp()) + b"rest")
    np.testing.assert_array_equal(read_all(source), ramp())
    assert source.header.notes == ("4 bytes after the last voxel were not read",)


def test_one_z_interval_means_that_z_is_like_x_and_y() -> None:
    changes = {28: struct.pack("<3i3f", 5, 4, 1, 50, 40, 1)}
    header = reader(mrc_bytes(ramp(), changes=changes)).header
    assert header.sampling.voxel_size_angstrom == (10.0, 10.0, 10.0)
    assert "MZ is 1" in header.notes[0]


def test_skewed_cells_are_noted() -> None:
    header = reader(mrc_bytes(ramp(), changes={52: struct.pack("<3f", 90, 94, 90)})).header
    assert "94" in header.notes[0]


VOXEL_SIZES = {
    "cell 0": struct.pack("<3i3f", 5, 4, 3, 0, 0, 0),
    "exactly 1": struct.pack("<3i3f", 5, 4, 3, 5, 4, 3),
    "infinite": struct.pack("<3i3f", 5, 4, 3, float("inf"), 40, 30),
    "not a number": struct.pack("<3i3f", 5, 4, 3, float("nan"), 40, 30),
    "negative": struct.pack("<3i3f", 5, 4, 3, -50, -40, -30),
    "no intervals": struct.pack("<3i3f", 0, 0, 0, 50, 40, 30),
    "unequal": struct.pack("<3i3f", 5, 4, 3, 50, 40, 30.1),
    "nm written as Å, twice": struct.pack("<3i3f", 5, 4, 3, 0.067, 0.0536, 0.0402),
    "metres": struct.pack("<3i3f", 5, 4, 3, 50e10, 40e10, 30e10),
}


@pytest.mark.parametrize("cell", VOXEL_SIZES.values(), ids=VOXEL_SIZES.keys())
def test_a_voxel_size_that_cannot_be_right_is_refused_and_overridden(cell: bytes) -> None:
    raw = mrc_bytes(ramp(), changes={28: cell})
    with pytest.raises(VoxelSizeError, match=r"source\.voxel_size_angstrom"):
        _ = reader(raw).header
    source = reader(raw, voxel_size_angstrom=13.4)
    assert source.header.sampling.voxel_size_angstrom == (13.4, 13.4, 13.4)
    assert "13.4" in source.header.notes[0]
    np.testing.assert_array_equal(read_all(source), ramp())


def test_voxel_sizes_equal_within_a_thousandth_are_equal() -> None:
    cell = struct.pack("<3i3f", 5, 4, 3, 13.68 * 5, 13.68 * 4, 13.68 * 3)
    header = reader(mrc_bytes(ramp(), changes={28: cell})).header
    assert header.sampling.voxel_size_angstrom == (13.68, 13.68, 13.68)


def test_an_override_of_one_angstrom_is_believed() -> None:
    header = reader(mrc_bytes(ramp()), voxel_size_angstrom=1.0).header
    assert header.sampling.voxel_size_angstrom == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("override", [0.0, -1.0, float("nan"), 1e6])
def test_an_absurd_override_is_refused(override: float) -> None:
    with pytest.raises(VoxelSizeError, match=r"outside 0\.1\.\.1000"):
        _ = reader(mrc_bytes(ramp()), voxel_size_angstrom=override).header


BROKEN = {
    "empty": (b"", "empty"),
    "a few bytes": (b"MRC", "3 bytes"),
    "text": (b"_rlnTomoName #1\n" * 200, "not an MRC file"),
    "gzip": (gzip.compress(mrc_bytes(ramp())), "compressed"),
    "bzip2": (b"BZh91AY&SY" + b"0" * 2000, "compressed"),
    "header only": (mrc_bytes(ramp())[:1024], "has 1024 bytes"),
    "truncated": (mrc_bytes(ramp())[:-1], "need 1144"),
    "truncated, big-endian": (mrc_bytes(ramp(), ">")[:-1], "need 1144"),
    "complex": (mrc_bytes(ramp(), changes={12: struct.pack("<i", 4)}), "complex"),
    "unknown mode": (mrc_bytes(ramp(), changes={12: struct.pack("<i", 77)}), "mode 77"),
    "packed bytes": (
        mrc_bytes(ramp("int8"), changes={152: IMOD + struct.pack("<i", 16)}),
        "4-bit",
    ),
    "axes twice": (mrc_bytes(ramp(), changes={64: struct.pack("<3i", 1, 1, 3)}), "permutation"),
    "negative size": (mrc_bytes(ramp(), changes={0: struct.pack("<i", -5)}), "at least 1"),
    "size zero": (mrc_bytes(ramp(), changes={8: struct.pack("<i", 0)}), "at least 1"),
    "huge size": (mrc_bytes(ramp(), changes={0: struct.pack("<3i", *(2**31 - 1,) * 3)}), "need"),
    "product overflows": (
        mrc_bytes(ramp(), changes={0: struct.pack("<3i", *(2**22,) * 3)}),
        "need",
    ),
    "huge extended header": (
        mrc_bytes(ramp(), changes={92: struct.pack("<i", 2**31 - 1)}) + b"x",
        "need",
    ),
    "negative extended header": (
        mrc_bytes(ramp(), changes={92: struct.pack("<i", -1024)}) + b"x",
        "-1024 bytes",
    ),
}


@pytest.mark.parametrize(("raw", "fact"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_file_is_refused_before_anything_is_allocated(raw: bytes, fact: str) -> None:
    source = reader(raw, voxel_size_angstrom=10.0)
    tracemalloc.start()
    with pytest.raises(FormatError, match=fact):
        _ = source.header
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 500_000


OLD: dict[str, dict[int, bytes]] = {
    "no stamp at all": {208: bytes(8)},
    "an origin where the stamp is now": {208: struct.pack("<3f", -30.0, 10.0, 20.0)},
    "no order of axes either": {64: bytes(12), 208: bytes(8)},
    "the deviation of today": {208: bytes(8), 216: struct.pack("<f", 2.5)},
    "letters of another program": {208: b"EMAN", 212: b"DD\0\0"},
}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("changes", OLD.values(), ids=OLD.keys())
def test_headers_of_old_without_a_stamp_are_read(changes: dict[int, bytes], order: str) -> None:
    if order == ">":
        changes = {at: swapped(raw) for at, raw in changes.items()}
    source = reader(mrc_bytes(ramp(), order, changes))
    np.testing.assert_array_equal(read_all(source), ramp())
    assert source.header.sampling.voxel_size_angstrom == (10.0, 10.0, 10.0)
    assert "no MAP stamp" in source.header.notes[0]
    has_origin = len(changes[208]) == 12
    assert source.header.origin_angstrom == ((-30.0, 20.0, 10.0) if has_origin else (0, 0, 0))


def swapped(raw: bytes) -> bytes:
    is_number = any(raw) and len(raw) in (4, 12)
    return np.frombuffer(raw, "<f4").astype(">f4").tobytes() if is_number else raw


@pytest.mark.parametrize("extended", [160, 131072])
def test_an_old_header_with_an_extended_one_is_read(extended: int) -> None:
    changes = {92: struct.pack("<i", extended), 208: bytes(8), 64: bytes(12)}
    source = reader(mrc_bytes(ramp(), changes=changes, tail=bytes(extended)))
    np.testing.assert_array_equal(read_all(source), ramp())


def test_an_origin_of_today_is_kept_where_the_stamp_alone_is_missing() -> None:
    changes = {196: struct.pack("<3f", 1.0, 2.0, 3.0), 208: bytes(8)}
    assert reader(mrc_bytes(ramp(), changes=changes)).header.origin_angstrom == (3.0, 2.0, 1.0)


NOT_OLD = {
    "a size that is not its own": {8: struct.pack("<i", 2), 64: bytes(12), 208: bytes(8)},
    "no mode": {12: struct.pack("<i", 9), 208: bytes(8)},
    "no columns": {0: bytes(4), 208: bytes(8)},
}


@pytest.mark.parametrize("changes", NOT_OLD.values(), ids=NOT_OLD.keys())
def test_numbers_that_make_no_sense_are_no_old_header(changes: dict[int, bytes]) -> None:
    with pytest.raises(FormatError, match="make no sense as an old header"):
        _ = reader(mrc_bytes(ramp(), changes=changes)).header


def test_an_old_header_cut_short_says_what_is_missing() -> None:
    with pytest.raises(FormatError, match=r"has 1100 bytes, but .* need 1144"):
        _ = reader(mrc_bytes(ramp(), changes={208: bytes(8)})[:1100]).header


@pytest.mark.parametrize(
    ("begin", "name"),
    [
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\x93NUMPY\x01\0", "NumPy"),
        (struct.pack("<i", 348), "NIfTI"),
        (b"<!DOCTYPE html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"II*\0", "TIFF"),
    ],
)
@pytest.mark.parametrize("size", [300, 4000])
def test_another_file_under_its_name_is_named(begin: bytes, name: str, size: int) -> None:
    with pytest.raises(FormatError, match=f"not an MRC file: it is .*{name}"):
        _ = reader(begin + bytes(size)).header


def test_a_volume_as_wide_as_another_header_is_long_is_read() -> None:
    array = ramp(shape=(2, 3, 348))
    source = reader(mrc_bytes(array, changes={208: bytes(8)}))
    np.testing.assert_array_equal(read_all(source), array)


def test_a_box_outside_is_refused() -> None:
    with pytest.raises(RequestError, match="leaves the volume"):
        reader(mrc_bytes(ramp())).read(Box((0, 0, 0), (3, 4, 6)))


def test_an_empty_box_reads_nothing() -> None:
    assert reader(mrc_bytes(ramp())).read(Box((1, 1, 1), (1, 2, 2))).shape == (0, 1, 1)


class CountingFile(io.BytesIO):
    """Remembers which ranges were read; answers in parts, as unbuffered files may."""

    def __init__(self, raw: bytes) -> None:
        super().__init__(raw)
        self.ranges: list[tuple[int, int]] = []

    def read(self, size: int | None = -1, /) -> bytes:
        begin = self.tell()
        part = super().read(min(size or 0, 700) if size and size > 0 else size)
        self.ranges.append((begin, begin + len(part)))
        return part


def test_only_the_header_and_the_needed_rows_are_read() -> None:
    array = ramp("float32", (6, 10, 20))
    file = CountingFile(mrc_bytes(array))
    source = MrcReader(file)
    box = Box((2, 3, 5), (4, 7, 9))
    np.testing.assert_array_equal(source.read(box), array[box.slices])
    row = 20 * 4
    starts = [1024 + (z * 10 + 3) * row for z in (2, 3)]
    wanted = [(0, 700), (700, 1024), *((start, start + 4 * row) for start in starts)]
    assert file.ranges == wanted


def test_whole_sections_are_read_as_one_range() -> None:
    array = ramp("int8", (6, 10, 10))
    file = CountingFile(mrc_bytes(array))
    source = MrcReader(file)
    assert source.header.dtype == "int8"
    file.ranges.clear()
    source.read(Box((1, 0, 4), (5, 10, 6)))
    assert file.ranges == [(1124, 1524)]


def test_a_file_that_shrinks_while_it_is_read_is_an_error() -> None:
    file = io.BytesIO(mrc_bytes(ramp()))
    source = MrcReader(file)
    assert source.header.dtype == "int16"
    file.truncate(1030)
    with pytest.raises(FormatError, match="ended"):
        read_all(source)


@st.composite
def boxes(draw: st.DrawFn, shape: tuple[int, int, int]) -> Box:
    pairs = [sorted(draw(st.tuples(st.integers(0, n), st.integers(0, n)))) for n in shape]
    return Box(tuple(a for a, _ in pairs), tuple(b for _, b in pairs))  # type: ignore[arg-type]


@settings(max_examples=60)
@given(box=boxes((5, 6, 7)), crs=st.permutations([1, 2, 3]), order=st.sampled_from("<>"))
def test_any_box_equals_slicing(box: Box, crs: list[int], order: str) -> None:
    truth = ramp("uint16", (5, 6, 7))
    stored = truth.transpose([3 - axis for axis in reversed(crs)])
    raw = mrc_bytes(stored, order, {64: struct.pack(order + "3i", *crs)})
    voxels = reader(raw, voxel_size_angstrom=10.0).read(box)
    np.testing.assert_array_equal(voxels, truth[box.slices])


def real(path: str) -> bytes:
    raw = (DATA / path).read_bytes()
    return gzip.decompress(raw) if path.endswith(".gz") else raw


@REAL
@pytest.mark.parametrize(
    ("path", "voxel_angstrom"),
    [
        ("cryoet/membrane_labels/T1S4M8_crop.mrc.gz", 13.68),
        ("cryoet/membrane_labels/mitochondrion_TE1_crop256.mrc.gz", 12.44),
        ("formats/mrc/EMD-3197.map", 11.4),
        ("formats/mrc/relion_mode12_stack.mrcs", 3.54),
    ],
)
def test_real_files_are_read_as_mrcfile_reads_them(path: str, voxel_angstrom: float) -> None:
    source = reader(real(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mrcfile remarks on mz = 1 and old versions
        with mrcfile.open(DATA / path, permissive=True) as other:
            np.testing.assert_array_equal(read_all(source), other.data)
            origin = other.header.origin
            assert source.header.dtype == other.data.dtype.name
            assert source.header.origin_angstrom == (origin.z, origin.y, origin.x)
    assert source.header.sampling.voxel_size_angstrom == (voxel_angstrom,) * 3


@REAL
@pytest.mark.parametrize("path", ["formats/mrc/EMD-3001.map", "formats/mrc/emd_3001.map.gz"])
def test_a_real_permuted_map_is_handed_out_as_zyx(path: str) -> None:
    raw = real(path)
    with pytest.raises(VoxelSizeError, match="not the same along the three axes"):
        _ = reader(raw).header
    source = reader(raw, voxel_size_angstrom=0.43)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with mrcfile.open(DATA / path, permissive=True) as other:
            in_file = other.data.copy()  # sections y, rows x, columns z
    np.testing.assert_array_equal(read_all(source), in_file.transpose(2, 0, 1))
    assert source.header.start_voxels == (0, -12, -21)
