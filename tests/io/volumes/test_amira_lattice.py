"""AmiraMesh volumes: a real one, and every layout that is read or refused."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tomoseg.core.blocks import Box
from tomoseg.core.errors import FormatError, RequestError, VoxelSizeError
from tomoseg.core.sampling import Sampling
from tomoseg.io.volumes.amira_lattice import AmiraReader

DATA = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "cryoet" / "spindle"
REAL = pytest.mark.skipif(not DATA.is_dir(), reason="shared real data are not on this machine")

SHAPE = (3, 4, 5)
# From the centre of the first voxel to that of the last: 4, 3 and 2 steps of 12 along x, y, z.
BOX = "BoundingBox 100 148 -50 -14 7 31,"
KINDS = {"byte": "u1", "sbyte": "i1", "short": "i2", "ushort": "u2", "float": "f4"}


def ramp(kind: str = "byte", order: str = "<", shape: tuple[int, ...] = SHAPE) -> NDArray[Any]:
    return np.arange(np.prod(shape)).reshape(shape).astype(f"{order}{KINDS[kind]}")


def amira(
    voxels: NDArray[Any],
    kind: str = "byte",
    *,
    magic: str = "AmiraMesh BINARY-LITTLE-ENDIAN 3.0",
    box: str = BOX,
    field: str = "Lattice { %s Data } @1",
    parameters: str = 'CoordType "uniform"',
) -> bytes:
    z, y, x = voxels.shape
    head = (
        f"# {magic}\n\n\ndefine Lattice {x} {y} {z}\n\nParameters {{\n"
        f'    Content "{x}x{y}x{z} {kind}, uniform coordinates",\n'
        f"    {box}\n    {parameters}\n}}\n\n"
        f"{field.replace('%s', kind)}\n\n# Data section follows\n@1\n"
    )
    return head.encode() + voxels.tobytes() + b"\n"


def reader(raw: bytes, **options: Any) -> AmiraReader:
    return AmiraReader(io.BytesIO(raw), **options)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("order", "magic"),
    [
        ("<", "AmiraMesh BINARY-LITTLE-ENDIAN 2.1"),
        ("<", "Avizo BINARY-LITTLE-ENDIAN 3.0"),
        (">", "AmiraMesh 3D BINARY 2.0"),
        (">", "AmiraMesh BINARY-BIG-ENDIAN 3.0"),
    ],
)
def test_every_type_and_byte_order_is_read_bit_exact(kind: str, order: str, magic: str) -> None:
    source = reader(amira(ramp(kind, order), kind, magic=magic))
    voxels = source.read(Box.whole(SHAPE))
    assert source.header.dtype == np.dtype(KINDS[kind]).name == voxels.dtype.name
    assert voxels.dtype.isnative
    np.testing.assert_array_equal(voxels, ramp(kind))


def test_white_space_or_another_section_may_follow() -> None:
    for raw in (amira(ramp())[:-1], amira(ramp()) + b"\r\n\n"):
        assert reader(raw).header.sampling.shape == SHAPE
    two = amira(ramp()) + b"\n@2\n" + bytes(400)
    two = two.replace(b"Data } @1", b"Data } @1\nVertices { float[3] Places } @2")
    assert reader(two).header.sampling.shape == SHAPE


def test_the_bounding_box_gives_the_voxel_size_and_the_origin() -> None:
    header = reader(amira(ramp())).header
    assert header.sampling == Sampling(SHAPE, (12.0, 12.0, 12.0))
    assert header.origin_angstrom == (7.0, -50.0, 100.0)
    assert header.notes == ("the file names no unit of length; taken as Å",)


@pytest.mark.parametrize(("unit", "factor"), [("nm", 10.0), ("Å", 1.0), ("µm", 1e4)])
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_a_unit_of_length_counts(unit: str, factor: float, encoding: str) -> None:
    numbers = [float(n) / factor for n in (100, 148, -50, -14, 7, 31)]
    box = f"BoundingBox {' '.join(map(repr, numbers))},"
    raw = amira(ramp(), box=box, parameters=f'Units {{\n Coordinates "{unit}"\n }}\n')
    head, mark, voxels = raw.partition(b"@1\n")
    header = reader(head.decode().encode(encoding) + mark + voxels).header
    assert header.sampling == Sampling(SHAPE, (12.0, 12.0, 12.0))
    assert header.origin_angstrom == pytest.approx((7.0, -50.0, 100.0))
    assert header.notes == ()


def test_a_single_slice_is_as_thick_as_its_pixels_are_wide() -> None:
    header = reader(amira(ramp(shape=(1, 4, 5)), box="BoundingBox 0 48 0 36 0 1,")).header
    assert header.sampling == Sampling((1, 4, 5), (12.0, 12.0, 12.0))


@pytest.mark.parametrize(
    "box",
    [
        "",
        "BoundingBox 0 4 0 3,",
        "BoundingBox 0 4 0 3 0 2,",
        "BoundingBox 0 48 0 36 0 30,",
        "BoundingBox 0 0 0 0 0 0,",
        "BoundingBox 48 0 36 0 24 0,",
    ],
)
def test_without_a_calibration_the_override_is_named(box: str) -> None:
    raw = amira(ramp(), box=box)
    with pytest.raises(VoxelSizeError, match=r"source\.voxel_size_angstrom"):
        _ = reader(raw).header
    assert reader(raw, voxel_size_angstrom=8.0).header.sampling == Sampling(SHAPE, (8.0,) * 3)


class CountingFile(io.BytesIO):
    bytes_read = 0

    def read(self, size: int | None = -1, /) -> bytes:
        part = super().read(size)
        self.bytes_read += len(part)
        return part


def test_only_the_head_and_the_needed_rows_are_read() -> None:
    shape = (40, 100, 200)
    raw = amira(ramp("short", shape=shape), "short", box="BoundingBox 0 1990 0 990 0 390,")
    file = CountingFile(raw)
    source = AmiraReader(file)
    assert source.header.sampling.voxel_angstrom == 10.0
    assert file.bytes_read <= 2**16 + 4096
    file.bytes_read = 0
    source.read(Box((2, 4, 0), (4, 7, 200)))
    assert file.bytes_read == 2 * 3 * 200 * 2


@settings(max_examples=40, derandomize=True)
@given(st.data())
def test_any_box_equals_slicing(data: st.DataObject) -> None:
    pairs = [sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n)))) for n in SHAPE]
    box = Box(tuple(a for a, _ in pairs), tuple(b for _, b in pairs))  # type: ignore[arg-type]
    source = reader(amira(ramp("float"), "float"))
    np.testing.assert_array_equal(source.read(box), ramp("float")[box.slices])


def test_a_box_outside_is_refused() -> None:
    with pytest.raises(RequestError, match="leaves the volume"):
        reader(amira(ramp())).read(Box((0, 0, 0), (3, 4, 6)))


@REAL
def test_the_spindle_is_read_as_its_last_bytes_say() -> None:
    path = DATA / "am3D.am"
    with open(path, "rb") as file:
        source = AmiraReader(file)
        header, voxels = source.header, source.read(Box.whole((8, 256, 256)))
    assert header.sampling == Sampling((8, 256, 256), (92.8, 92.8, 92.8))
    assert header.dtype == "uint8"
    assert header.origin_angstrom == pytest.approx((139.2, 0.0, 0.0), abs=1e-4)
    # The file's only data section stands at its end, followed by a line's end.
    raw = np.frombuffer(path.read_bytes()[-(8 * 256 * 256) - 1 : -1], np.uint8)
    np.testing.assert_array_equal(voxels.ravel(), raw)


REFUSED = {
    "empty": (b"", "no AmiraMesh file"),
    "MRC": (bytes(2048), "no AmiraMesh file"),
    "head cut": (amira(ramp())[:60], "ends in its head"),
    "ASCII": (amira(ramp(), magic="AmiraMesh 3D ASCII 2.0"), "written as ASCII"),
    "RLE": (amira(ramp(), field="Lattice { byte Labels } @1(HxByteRLE,59)"), "as HxByteRLE"),
    "ZIP": (amira(ramp(), field="Lattice { byte Data } @1(HxZip,59)"), "as HxZip"),
    "double": (amira(ramp(), field="Lattice { double Data } @1"), "1 × double are not read"),
    "vectors": (amira(ramp(), field="Lattice { float[3] Data } @1"), "3 × float are not read"),
    "colours": (amira(ramp(), field="Lattice { byte[4] Data } @1"), "4 × byte are not read"),
    "two fields": (
        amira(ramp(), field="Lattice { byte A } @1\nLattice { byte B } @2"),
        "2 fields on a lattice",
    ),
    "no field": (
        amira(ramp(), field="", parameters='ContentType "HxSpatialGraph"'),
        r"0 fields on a lattice \(HxSpatialGraph\)",
    ),
    "other section": (amira(ramp(), field="Lattice { byte A } @2"), "section 2 .* not its first"),
    "rectilinear": (amira(ramp(), parameters='CoordType "rectilinear"'), "rectilinear coordinates"),
    "not defined": (amira(ramp()).replace(b"define L", b"define M"), "defined as"),
    "two dimensions": (amira(ramp()).replace(b"5 4 3", b"5 4"), r"defined as \(5, 4\)"),
    "no voxel": (amira(ramp()).replace(b"5 4 3", b"5 0 3"), r"defined as \(5, 0, 3\)"),
    "cut": (amira(ramp())[:-2], "but its voxels need"),
    "a row too many": (
        amira(ramp())[:-1] + b"12345\n",
        r"goes on, to 66: the lattice, or the type",
    ),
    "wrong type": (amira(ramp("short"), "byte"), r"after the 60 bytes of 5 × 4 × 3 voxels"),
    "much behind": (amira(ramp()) + b" " * 5000, "the file goes on"),
    "huge": (amira(ramp()).replace(b"5 4 3", b"99999999 99999999 99"), "but its voxels need"),
    "unit": (amira(ramp(), parameters="Units { Coordinates ell }"), "'ell'"),
    "infinite": (amira(ramp(), box="BoundingBox 0 inf 0 9 0 9,"), "not finite"),
}


@pytest.mark.parametrize(("raw", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_read_is_named(raw: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        _ = reader(raw).header


@settings(max_examples=120, derandomize=True)
@given(st.data())
def test_random_damage_gives_voxels_or_a_named_error(data: st.DataObject) -> None:
    raw = bytearray(amira(ramp()))
    for at in data.draw(st.lists(st.integers(0, len(raw) - 1), max_size=6)):
        raw[at] = data.draw(st.integers(0, 255))
    source = reader(bytes(raw[: data.draw(st.integers(len(raw) // 2, len(raw)))]))
    with contextlib.suppress(FormatError):
        source.read(Box.whole(source.header.sampling.shape))
