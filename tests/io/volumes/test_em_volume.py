"""EM volumes: both byte orders beside an independent reader, and files that are none."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import emfile
import numpy as np
import pytest
from numpy.typing import NDArray

from tomoseg.core.blocks import Box
from tomoseg.core.errors import FormatError, VoxelSizeError
from tomoseg.exchange.imports import ImportRequest, import_file
from tomoseg.io.discovery import discover
from tomoseg.io.points.registry import dialect_of
from tomoseg.io.volumes.em import HEADER_BYTES, write_em
from tomoseg.io.volumes.em_volume import EmReader, is_motive_list
from tomoseg.io.volumes.mrc import MrcReader
from tomoseg.io.volumes.sources import open_source

DATA = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "formats" / "em"
REAL = pytest.mark.skipif(not DATA.is_dir(), reason="shared real data are not on this machine")
SHAPE = (3, 4, 5)
KINDS = {1: "i1", 2: "i2", 4: "i4", 5: "f4", 9: "f8"}


def ramp(kind: str) -> NDArray[Any]:
    return np.arange(60).reshape(SHAPE).astype(kind)


def em(voxels: NDArray[Any], *, machine: int = 6, kind: int = 5) -> bytes:
    z, y, x = voxels.shape
    order = "<" if machine == 6 else ">"
    head = struct.pack(f"{order}4B3i", machine, 0, 0, kind, x, y, z).ljust(HEADER_BYTES, b"\0")
    return head + voxels.astype(voxels.dtype.newbyteorder(order)).tobytes()


def reader(raw: bytes, size: float | None = 10.0) -> EmReader:
    return EmReader(io.BytesIO(raw), voxel_size_angstrom=size)


@pytest.mark.parametrize("machine", [6, 5, 3, 0])
@pytest.mark.parametrize("kind", KINDS)
def test_every_type_and_byte_order_is_read_bit_exact(machine: int, kind: int) -> None:
    source = reader(em(ramp(KINDS[kind]), machine=machine, kind=kind))
    assert source.header.sampling.shape == SHAPE
    assert source.header.sampling.voxel_size_angstrom == (10.0, 10.0, 10.0)
    voxels = source.read(Box((1, 1, 2), (3, 4, 5)))
    assert source.header.dtype == voxels.dtype.name == np.dtype(KINDS[kind]).name
    np.testing.assert_array_equal(voxels, ramp(KINDS[kind])[1:3, 1:4, 2:5])


def test_what_another_library_writes_is_read(tmp_path: Path) -> None:
    emfile.write(str(tmp_path / "a.em"), ramp("f4"))
    with open_source(str(tmp_path / "a.em"), voxel_size_angstrom=13.6) as source:
        np.testing.assert_array_equal(source.read(Box.whole(SHAPE)), ramp("f4"))


def test_the_voxel_size_must_be_given() -> None:
    with pytest.raises(VoxelSizeError, match=r"voxel size.*source\.voxel_size_angstrom"):
        _ = reader(em(ramp("f4")), None).header


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (em(ramp("f4"))[:-1], "need 240 bytes; the file has 239"),
        (em(ramp("f4")) + b"\0\0", "need 240 bytes; the file has 242: its sizes"),
        (em(ramp("i2"), kind=1), "60 bytes; the file has 120: its sizes or its kind"),
        (em(ramp("f4"))[:100], "fewer than the 512"),
        (b"", "fewer than the 512"),
        (em(ramp("f4"), kind=8), "kind of number 8"),
        (b"\x07" + em(ramp("f4"))[1:], "machine 7"),
        (em(np.zeros((0, 4, 5), np.float32)), "are no voxels"),
        (em(np.zeros((1, 7, 20), np.float32)), "motive list of 7 particles.*tomoseg import"),
        (
            struct.pack("<4B3i", 6, 0, 0, 5, *(2**31 - 1,) * 3).ljust(512, b"\0"),
            "need 3961408120179",
        ),
        (struct.pack("<4B3i", 6, 0, 0, 5, -1, 4, 5).ljust(512, b"\0"), "sizes -1, 4, 5"),
    ],
)
def test_what_is_no_volume_is_refused(raw: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        _ = reader(raw).header


def test_a_motive_list_is_no_tomogram_of_a_folder(tmp_path: Path) -> None:
    motives = write_em(np.zeros((1, 7, 20), np.float32))
    (tmp_path / "motl.em").write_bytes(motives)
    (tmp_path / "tomo.em").write_bytes(em(ramp("f4")))
    assert [found.name for found in discover([str(tmp_path)])] == ["tomo"]
    assert dialect_of(motives, "motl.em") == "av3"
    assert dialect_of(em(ramp("f4")), "tomo.em") is None


def test_a_mask_is_imported(tmp_path: Path) -> None:
    (tmp_path / "tomo.em").write_bytes(em(ramp("f4")))
    (tmp_path / "mask.em").write_bytes(em((ramp("f4") > 30).astype(np.int8), kind=1))
    request = ImportRequest(
        str(tmp_path / "mask.em"), str(tmp_path / "tomo.em"), "membrane", voxel_size_angstrom=10.0
    )
    done = import_file(request)
    assert done.kind == "mask"
    with (tmp_path / done.files[0]).open("rb") as file:
        labels = MrcReader(file).read(Box.whole(SHAPE))
    np.testing.assert_array_equal(labels, ramp("f4") > 30)


@REAL
def test_a_real_list_is_told() -> None:
    raw = (DATA / "ribosome.em").read_bytes()
    assert is_motive_list(raw)
    with pytest.raises(FormatError, match="motive list of 1023 particles"):
        _ = reader(raw).header
