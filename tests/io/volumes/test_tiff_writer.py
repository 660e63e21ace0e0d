"""TIFF stacks written: read back by tifffile and by ourselves."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import numpy as np
import pytest
import tifffile

from tomoseg.core.blocks import Box
from tomoseg.core.errors import RequestError
from tomoseg.core.sampling import Sampling
from tomoseg.io.volumes.tiff import TiffReader
from tomoseg.io.volumes.tiff_writer import TiffWriter

GRID = Sampling((5, 6, 7), (13.68, 13.68, 13.68))
TILES = [
    Box((z, y, x), (min(z + 2, 5), min(y + 4, 6), min(x + 3, 7)))
    for x in (6, 3, 0)
    for z in (0, 2, 4)
    for y in (4, 0)
]


@pytest.mark.parametrize("tiles", [TILES, [Box((0, 0, 0), (2, 6, 7)), Box((2, 0, 0), (5, 6, 7))]])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_tifffile_and_we_read_what_is_written(dtype, tiles, tmp_path: Path) -> None:
    array = (np.random.default_rng(1).random(GRID.shape) * 100).astype(dtype)
    path = tmp_path / "out.tif"
    with path.open("w+b") as file:
        writer = TiffWriter(file, GRID, dtype, shown=(0, 1))
        for box in tiles:
            writer.write(box, array[box.slices])
    np.testing.assert_array_equal(tifffile.imread(path), array)
    with tifffile.TiffFile(path) as other:
        about = other.imagej_metadata
        assert (about["slices"], about["unit"], about["max"]) == (5, "nm", 1)
        assert about["spacing"] == pytest.approx(1.368)
        pixels, units = other.pages[0].tags["XResolution"].value
        assert units / pixels == pytest.approx(1.368)
    with path.open("rb") as file:
        reader = TiffReader(file)
        assert reader.header.sampling == GRID and reader.header.dtype == dtype
        np.testing.assert_array_equal(reader.read(Box.whole(GRID.shape)), array)


def test_a_file_without_a_name_is_written() -> None:
    """As what goes to object storage is; its name is a number."""
    with tempfile.TemporaryFile() as file:
        TiffWriter(file, GRID, "uint8", shown=(0, 1))
        file.seek(0)
        assert tifffile.imread(io.BytesIO(file.read())).shape == GRID.shape


def test_the_same_voxels_are_the_same_bytes_and_none_are_zeros() -> None:
    files = []
    for _ in range(2):
        file = io.BytesIO()
        TiffWriter(file, GRID, "uint8", shown=(0, 1)).write(
            Box((1, 1, 1), (2, 3, 3)), np.full((1, 2, 2), 7, np.uint8)
        )
        files.append(file.getvalue())
    assert files[0] == files[1]
    assert tifffile.imread(io.BytesIO(files[0])).sum() == 28


def test_one_slice_and_sizes_that_differ() -> None:
    file = io.BytesIO()
    grid = Sampling((1, 6, 7), (70.0, 20.0, 10.0))
    TiffWriter(file, grid, "uint8", shown=(0, 1))
    with tifffile.TiffFile(io.BytesIO(file.getvalue())) as other:
        tags = other.pages[0].tags
        assert [tags[f"{axis}Resolution"].value for axis in "XY"] == [(1, 1), (1, 2)]
        assert other.imagej_metadata["spacing"] == 7.0


def test_more_than_four_gigabytes(tmp_path: Path) -> None:
    grid = Sampling((520, 3000, 3000), (10.0, 10.0, 10.0))
    path = tmp_path / "large.tif"
    last = Box((519, 2999, 2998), (520, 3000, 3000))
    with path.open("w+b") as file:
        TiffWriter(file, grid, "uint8", shown=(0, 1)).write(last, np.array([[[3, 4]]], np.uint8))
    assert path.stat().st_blocks < 10_000, "not a sparse file"
    with path.open("rb") as file:
        reader = TiffReader(file)
        assert reader.header.sampling == grid
        assert reader.read(last).tolist() == [[[3, 4]]]


def test_what_does_not_fit_is_refused() -> None:
    writer = TiffWriter(io.BytesIO(), GRID, "uint8", shown=(0, 1))
    with pytest.raises(RequestError, match="leaves the volume"):
        writer.write(Box((0, 0, 0), (6, 1, 1)), np.zeros((6, 1, 1), np.uint8))
    with pytest.raises(RequestError, match="float32 array"):
        writer.write(Box((0, 0, 0), (1, 1, 1)), np.zeros((1, 1, 1), np.float32))
    with pytest.raises(RequestError, match="no type for int16"):
        TiffWriter(io.BytesIO(), GRID, "int16", shown=(0, 1))
