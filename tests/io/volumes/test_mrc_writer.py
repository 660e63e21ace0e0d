"""MRC files written: read back and validated by mrcfile."""

from __future__ import annotations

import io
import struct
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from numpy.typing import NDArray

from tomoseg.core.blocks import Box
from tomoseg.core.errors import FormatError, RequestError
from tomoseg.core.sampling import Header, Sampling
from tomoseg.io.volumes.mrc import MrcReader, MrcWriter, label_type

MODE_OF = {"int8": 0, "int16": 1, "float32": 2, "uint16": 6, "float16": 12}
HEADER = Header(
    Sampling((5, 6, 7), (13.68, 13.68, 13.68)),
    "float32",
    origin_angstrom=(5814.0, 2462.5, -2298.25),
    start_voxels=(-3, 2, 1),
)
TILES = [
    Box((z, y, x), (min(z + 2, 5), min(y + 4, 6), min(x + 3, 7)))
    for x in (6, 3, 0)
    for z in (0, 2, 4)
    for y in (4, 0)
]


@pytest.mark.parametrize("tiles", [TILES, [Box((0, 0, 0), (2, 6, 7)), Box((2, 0, 0), (5, 6, 7))]])
@pytest.mark.parametrize("dtype", ["int8", "int16", "uint16", "float16", "float32"])
def test_mrcfile_reads_and_validates_what_is_written(
    dtype: str, tiles: list[Box], tmp_path: Path
) -> None:
    array = (np.random.default_rng(1).random((5, 6, 7)) * 100).astype(dtype)
    path = tmp_path / "out.mrc"
    with path.open("wb") as file, MrcWriter(file, HEADER, dtype, label="microtubule") as out:
        for box in tiles:
            out.write(box, array[box.slices])
    if dtype != "float16":  # its own float16 files fail too: it sums squares in float16
        assert mrcfile.validate(path, print_file=io.StringIO())
    with mrcfile.open(path) as other:
        np.testing.assert_array_equal(other.data, array)
        head = other.header
        assert head.mode == MODE_OF[dtype] and head.ispg == 1 and head.mz == 5
        assert other.voxel_size.x == pytest.approx(13.68, rel=1e-6)
        assert (head.nzstart, head.nystart, head.nxstart) == HEADER.start_voxels
        assert (head.origin.z, head.origin.y, head.origin.x) == HEADER.origin_angstrom
        assert head.dmin == array.min() and head.dmax == array.max()
        assert head.dmean == pytest.approx(array.mean(dtype=np.float64), rel=1e-6)
        assert head.rms == pytest.approx(array.std(dtype=np.float64), rel=1e-6)
        assert bytes(head.label[0]).startswith(b"tomoseg ")
        assert b"microtubule" in bytes(head.label[0])


def test_what_is_written_reads_back_with_the_same_header() -> None:
    file = io.BytesIO()
    with MrcWriter(file, HEADER, "float32", label="scores") as out:
        out.write(Box.whole((5, 6, 7)), np.ones((5, 6, 7), np.float32))
    assert MrcReader(file).header == HEADER


def test_an_origin_is_stated_as_the_source_states_it(tmp_path: Path) -> None:
    """Then it overlays in IMOD, which knows of the two signs, and in others, which do not."""
    source = replace(HEADER, has_imods_origin=True)
    path = tmp_path / "out.mrc"
    with path.open("w+b") as file, MrcWriter(file, source, np.int8, label="mask") as out:
        out.write(Box.whole((5, 6, 7)), np.full((5, 6, 7), -3, np.int8))
    with mrcfile.open(path, permissive=True) as other:
        head = other.header
        assert (head.origin.z, head.origin.y, head.origin.x) == (-5814.0, -2462.5, 2298.25)
        assert head.nversion == 0
    # IMOD's stamp, and its flag of signed bytes alone.
    assert struct.unpack("<2i", path.read_bytes()[152:160]) == (1146047817, 1)
    with path.open("rb") as file:
        back = MrcReader(file)
        assert back.header.origin_angstrom == HEADER.origin_angstrom
        assert back.header.has_imods_origin
        assert back.read(Box((0, 0, 0), (1, 1, 1))) == -3


def test_voxels_never_written_are_zeros_and_count(tmp_path: Path) -> None:
    path = tmp_path / "out.mrc"
    with path.open("wb") as file, MrcWriter(file, HEADER, np.int8, label="mask") as out:
        out.write(Box((1, 1, 1), (2, 3, 3)), np.full((1, 2, 2), 7, np.uint8))
    assert mrcfile.validate(path, print_file=io.StringIO())
    with mrcfile.open(path) as other:
        assert int(other.data.sum()) == 28
        assert (other.header.dmin, other.header.dmax) == (0, 7)
        assert other.header.dmean == pytest.approx(28 / 210)


def test_nothing_written_is_a_volume_of_zeros(tmp_path: Path) -> None:
    path = tmp_path / "out.mrc"
    with path.open("wb") as file, MrcWriter(file, HEADER, np.int8, label="mask"):
        pass
    assert mrcfile.validate(path, print_file=io.StringIO())


def test_statistics_do_not_cancel_on_a_large_mean() -> None:
    file = io.BytesIO()
    header = Header(Sampling((2, 1, 2), (10.0, 10.0, 10.0)), "float32")
    with MrcWriter(file, header, np.float32, label="") as out:
        for z in range(2):
            out.write(Box((z, 0, 0), (z + 1, 1, 2)), np.array([[[1e6, 1e6 + 1]]], np.float32))
    rms = struct.unpack_from("<f", file.getvalue(), 216)[0]
    assert rms == pytest.approx(0.5, rel=1e-6)


def test_the_same_voxels_give_the_same_bytes() -> None:
    files = [io.BytesIO(), io.BytesIO()]
    for file in files:
        with MrcWriter(file, HEADER, np.int8, label="mask") as out:
            out.write(TILES[0], np.ones(TILES[0].shape, bool))
    assert files[0].getvalue() == files[1].getvalue()


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_flags_have_the_statistics_of_numbers(share: float) -> None:
    flags = np.random.default_rng(1).random((5, 6, 7)) < share
    file = io.BytesIO()
    with MrcWriter(file, HEADER, np.int8, label="mask") as out:
        out.write(Box.whole(flags.shape), flags)
    head = np.frombuffer(file.getvalue()[:1024], "<f4")
    assert tuple(head[19:21]) == (float(flags.min()), float(flags.max()))
    assert head[21] == pytest.approx(flags.mean(), abs=1e-7)
    assert head[54] == pytest.approx(flags.std(), abs=1e-7)


def test_a_failed_writing_does_not_pass_for_a_file() -> None:
    file = io.BytesIO()
    with pytest.raises(KeyError), MrcWriter(file, HEADER, np.int8, label="mask") as out:
        out.write(Box.whole((5, 6, 7)), np.ones((5, 6, 7), np.int8))
        raise KeyError
    with pytest.raises(FormatError, match="not an MRC file"):
        _ = MrcReader(file).header


@pytest.mark.parametrize(
    ("dtype", "values", "fact"),
    [
        (np.int8, np.full((1, 1, 1), 128), "leave the range"),
        (np.int8, np.full((1, 1, 1), 0.5), "do not go into"),
        (np.float32, np.full((1, 1, 1), np.nan), "not finite"),
        (np.float16, np.full((1, 1, 1), 1e6), "not finite"),
        (np.int8, np.zeros((1, 1, 2), np.int8), "for a box of shape"),
    ],
)
def test_values_that_do_not_fit_are_refused(dtype: type, values: NDArray[Any], fact: str) -> None:
    out = MrcWriter(io.BytesIO(), HEADER, dtype, label="")
    with pytest.raises(RequestError, match=fact):
        out.write(Box((0, 0, 0), (1, 1, 1)), values)


def test_a_box_outside_is_not_written() -> None:
    out = MrcWriter(io.BytesIO(), HEADER, np.int8, label="")
    with pytest.raises(RequestError, match="leaves the volume"):
        out.write(Box((4, 0, 0), (6, 1, 1)), np.zeros((2, 1, 1), np.int8))


def test_a_type_without_a_mode_is_refused() -> None:
    with pytest.raises(RequestError, match="no mode for float64"):
        MrcWriter(io.BytesIO(), HEADER, np.float64, label="")


@pytest.mark.parametrize(
    ("largest", "name"), [(0, "int8"), (127, "int8"), (128, "int16"), (32768, "uint16")]
)
def test_labels_take_the_type_that_programs_read(largest: int, name: str) -> None:
    assert label_type(largest).name == name


@pytest.mark.parametrize("largest", [-1, 65536])
def test_labels_that_no_mode_holds_are_refused(largest: int) -> None:
    with pytest.raises(RequestError, match="no mode for labels"):
        label_type(largest)


def test_statistics_take_no_float64_of_a_box(tmp_path: Path) -> None:
    header = Header(Sampling((16, 256, 256), (10.0, 10.0, 10.0)), "int8")
    mask = np.ones((16, 256, 256), np.int8)
    with (tmp_path / "m.mrc").open("wb") as file, MrcWriter(file, header, "int8", label="m") as out:
        tracemalloc.start()
        try:
            out.write(Box.whole(mask.shape), mask)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 3 * mask.nbytes
