"""IMOD models: the worked example, the bytes of the specification, and another library."""

from __future__ import annotations

import contextlib
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imodmodel import ImodModel
from imodmodel.models import ContourType

from tomoseg.core.coordinates import Filament, Particles
from tomoseg.core.errors import FormatError, RequestError
from tomoseg.core.sampling import Sampling
from tomoseg.io.points.dialects import TomoContext, TomogramPoints, WriteOptions
from tomoseg.io.points.imod import Imod

DATA = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "formats" / "imod"
REAL = pytest.mark.skipif(not DATA.is_dir(), reason="shared real data are not on this machine")

GRID = Sampling((100, 250, 240), (10.0, 10.0, 10.0))
TOMOGRAM = TomoContext("TS_01", GRID, origin_angstrom=(0.0, 0.0, 0.0))
LINE = Filament("microtubule", 3, GRID.to_angstrom([(40, 100.5, 60.25), (44.8, 106.9, 66.25)]))
BENT = Filament("microtubule", 1, GRID.to_angstrom([(1, 2, 3), (4, 5, 6), (7, 8, 10.125)]))
ACTIN = Filament("actin", 1, GRID.to_angstrom([(9, 9, 9), (0, 0, 0)]))
RIBOSOMES = Particles.at(
    "ribosome", GRID.to_angstrom([(0, 0, 0), (99, 249, 239), (40, 100.5, 60.25)])
)
ALL = TomogramPoints(TOMOGRAM, [LINE, ACTIN, BENT], [RIBOSOMES])
OPTIONS = WriteOptions(
    radius_angstrom={"ribosome": 125.0}, colours={"actin": "#ff8000", "ribosome": "0000ff"}
)


def written(points: TomogramPoints = ALL, options: WriteOptions = OPTIONS) -> bytes:
    files = Imod().write([points], "points/TS_01", options)
    assert list(files) == ["points/TS_01.mod"]
    return files["points/TS_01.mod"]


def read(data: bytes, context: TomoContext = TOMOGRAM) -> TomogramPoints:
    (found,) = Imod().read(data, [context], name="unnamed")
    return found


def independent(data: bytes, tmp_path: Path) -> Any:
    path = tmp_path / "model.mod"
    path.write_bytes(data)
    return ImodModel.from_file(path)


def test_another_library_reads_positions_with_half_a_voxel_in_x_and_y(tmp_path: Path) -> None:
    model = independent(written(), tmp_path)
    assert [each.header.name for each in model.objects] == ["microtubule", "actin", "ribosome"]
    line = model.objects[0].contours[0].points
    np.testing.assert_allclose(line, [(60.75, 101.0, 40.0), (66.75, 107.4, 44.8)], atol=1e-5)
    spheres = model.objects[2].contours[0]
    np.testing.assert_allclose(
        spheres.points, [(0.5, 0.5, 0), (239.5, 249.5, 99), (60.75, 101.0, 40)], atol=1e-5
    )
    assert spheres.point_sizes.tolist() == [12.5, 12.5, 12.5]


def test_another_library_reads_what_makes_the_model_lie_on_the_tomogram(tmp_path: Path) -> None:
    model = independent(written(), tmp_path)
    header = model.header
    assert (header.xmax, header.ymax, header.zmax) == (240, 250, 100)
    assert (header.pixelsize, header.units, header.zscale) == (1.0, -9, 1.0)
    assert header.flags.z_coordinates_start_from_negative_half
    assert header.flags.model_has_not_been_written
    assert not header.flags.model_last_viewed_onYZ_flipped_or_rotated
    assert model.minx.cscale == (10.0, 10.0, 10.0)
    assert model.minx.ctrans == model.minx.crot == (0.0, 0.0, 0.0)


def test_another_library_reads_objects_as_open_or_scattered_in_their_colours(
    tmp_path: Path,
) -> None:
    tubes, actin, ribosomes = independent(written(), tmp_path).objects
    assert tubes.header.flags.open and not tubes.header.flags.scattered
    assert ribosomes.header.flags.scattered and ribosomes.header.pdrawsize == 12
    assert len(tubes.contours) == tubes.header.contsize == 2
    assert [contour.header.surf for contour in tubes.contours] == [3, 1]
    colour = (actin.header.red, actin.header.green, actin.header.blue)
    assert colour == pytest.approx((1.0, 128 / 255, 0.0))
    assert (ribosomes.header.red, ribosomes.header.blue) == (0.0, 1.0)
    assert (tubes.imat.ambient, tubes.imat.diffuse) == (102, 255)


@pytest.mark.parametrize("origin", [None, (0.0, 0.0, 120.0)])
def test_without_an_origin_of_zero_the_model_takes_that_of_the_volume(
    origin: Any, tmp_path: Path
) -> None:
    context = replace(TOMOGRAM, origin_angstrom=origin)
    model = independent(written(replace(ALL, context=context)), tmp_path)
    assert model.minx is None
    assert len(model.objects) == 3


def test_bytes_are_those_of_the_specification() -> None:
    """Offsets of the binary file format, version 1.2, counted by hand."""
    data = written(TomogramPoints(TOMOGRAM, [LINE]), WriteOptions())
    assert data[:8] == b"IMODV1.2"
    assert data[8:16] == b"tomoseg\0"
    assert struct.unpack(">4i", data[136:152]) == (240, 250, 100, 1)
    assert struct.unpack(">I", data[152:156])[0] == 0b1111_1100_0000_0000
    assert struct.unpack(">6f", data[172:196]) == (0, 0, 0, 1, 1, 1)
    assert struct.unpack(">fi", data[216:224]) == (1.0, -9)
    body = 8 + 232
    assert data[body : body + 16] == b"OBJTmicrotubule\0"
    contours, flags = struct.unpack(">iI", data[body + 132 : body + 140])
    assert (contours, flags) == (1, 1 << 3)
    assert struct.unpack(">3f", data[body + 148 : body + 160]) == (0, 1, 0)
    contour = body + 4 + 176
    assert data[contour : contour + 4] == b"CONT"
    assert struct.unpack(">4i", data[contour + 4 : contour + 20]) == (2, 0, 0, 3)
    assert struct.unpack(">3f", data[contour + 20 : contour + 32]) == (60.75, 101.0, 40.0)
    after = contour + 20 + 24
    assert data[after : after + 8] == b"IMAT\0\0\0\x10"
    assert data[after + 24 : after + 32] == b"MINX\0\0\0\x48"
    assert data[after + 32 + 72 :] == b"IEOF"


def test_points_come_back() -> None:
    found = read(written())
    assert [(f.name, f.number) for f in found.filaments] == [
        ("microtubule", 3),
        ("microtubule", 1),
        ("actin", 1),
    ]
    for filament, expected in zip(found.filaments, [LINE, BENT, ACTIN], strict=True):
        np.testing.assert_allclose(filament.points_angstrom, expected.points_angstrom, atol=1e-3)
    (particles,) = found.particles
    assert particles.name == "ribosome"
    np.testing.assert_allclose(particles.points_angstrom, RIBOSOMES.points_angstrom, atol=1e-3)


@pytest.mark.filterwarnings("ignore:The `dict` method is deprecated")
@pytest.mark.parametrize("kind", [ContourType.OPEN, ContourType.SCATTERED])
def test_models_that_another_library_writes_are_read(kind: ContourType, tmp_path: Path) -> None:
    """It leaves sizes and MINX out."""
    table = pd.DataFrame(
        {"object_id": 0, "contour_id": 0, "x": [0.5, 60.75], "y": [0.5, 101.0], "z": [0.0, 40.0]}
    )
    path = tmp_path / "theirs.mod"
    ImodModel.from_dataframe(table, type=kind).to_file(path)
    found = read(path.read_bytes())
    (points,) = found.filaments if kind is ContourType.OPEN else found.particles
    assert points.name == "unnamed"
    expected = GRID.to_angstrom([(0, 0, 0), (40, 100.5, 60.25)])
    np.testing.assert_allclose(points.points_angstrom, expected, atol=1e-3)


def test_voxels_that_are_not_cubic_come_back(tmp_path: Path) -> None:
    grid = Sampling((10, 20, 30), (40.0, 10.0, 10.0))
    context = TomoContext("a", grid, origin_angstrom=(0.0, 0.0, 0.0))
    line = Filament("axon", 1, grid.to_angstrom([(1, 2, 3), (9, 8, 7)]))
    data = written(TomogramPoints(context, [line]))
    model = independent(data, tmp_path)
    assert (model.header.pixelsize, model.header.zscale) == (1.0, 4.0)
    assert model.minx.cscale == (10.0, 10.0, 40.0)
    back = read(data, context).filaments[0].points_angstrom
    np.testing.assert_allclose(back, line.points_angstrom, atol=1e-4)


def test_nothing_is_a_model_without_objects(tmp_path: Path) -> None:
    data = written(TomogramPoints(TOMOGRAM))
    assert independent(data, tmp_path).objects == []
    assert read(data).filaments == [] and read(data).particles == []


def test_no_particles_are_an_object_without_points() -> None:
    found = read(written(TomogramPoints(TOMOGRAM, [], [RIBOSOMES.select(np.zeros(3, bool))])))
    (particles,) = found.particles
    assert particles.name == "ribosome" and len(particles) == 0


@pytest.mark.parametrize(
    ("points", "options", "message"),
    [
        (replace(ALL, particles=[replace(RIBOSOMES, name="x" * 64)]), WriteOptions(), "63 bytes"),
        (ALL, WriteOptions(colours={"actin": "green"}), "'green' is no colour"),
        (ALL, WriteOptions(colours={"actin": "#00ff"}), "'#00ff' is no colour"),
    ],
)
def test_what_imod_could_not_show_is_refused(
    points: TomogramPoints, options: WriteOptions, message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        written(points, options)


def test_a_model_is_of_one_tomogram() -> None:
    with pytest.raises(RequestError, match="one tomogram"):
        Imod().read(written(), [TOMOGRAM, TOMOGRAM], name="x")
    with pytest.raises(RequestError, match="one tomogram"):
        Imod().write([], "x", OPTIONS)


# Files by 3dmod; counts as imodmodel gives them.


@REAL
def test_closed_contours_drawn_in_3dmod_are_lines_through_their_points() -> None:
    data = (DATA / "two_contour_example.mod").read_bytes()
    context = TomoContext("a", Sampling((128, 128, 128), (4.48, 4.48, 4.48)))
    found = read(data, context)
    assert [(f.name, f.number, len(f.points_angstrom)) for f in found.filaments] == [
        ("unnamed", 1, 17),
        ("unnamed", 2, 8),
    ]
    expected = ImodModel.from_file(DATA / "two_contour_example.mod").objects[0].contours[1].points
    voxels = context.sampling.to_voxels(found.filaments[1].points_angstrom)
    np.testing.assert_allclose(voxels[:, ::-1] + [0.5, 0.5, 0], expected, atol=1e-5)


@REAL
def test_objects_of_one_name_are_one_class_and_meshes_are_passed_over() -> None:
    data = (DATA / "multiple_objects_example.mod").read_bytes()
    voxel = 19.733333587646484
    found = read(data, TomoContext("a", Sampling((300, 924, 956), (voxel,) * 3)))
    assert [(f.name, f.number, len(f.points_angstrom)) for f in found.filaments] == [
        ("chemo-array", 1, 3),
        ("chemo-array", 2, 3),
    ]
    assert found.particles == []


@REAL
@pytest.mark.parametrize(
    ("shape", "voxel", "message"),
    [
        ((128, 128, 64), 4.48, "128 × 128 × 128 voxels"),
        ((128, 128, 128), 8.96, "voxels of .*4.48"),
    ],
)
def test_a_model_of_another_volume_is_refused(
    shape: tuple[int, int, int], voxel: float, message: str
) -> None:
    data = (DATA / "two_contour_example.mod").read_bytes()
    with pytest.raises(FormatError, match=message):
        read(data, TomoContext("a", Sampling(shape, (voxel,) * 3)))


# Models by other programs, made by changing ours.

HEADER_BYTES = 8 + 232
FLAGS_AT = 8 + 144
POINTS_AT = HEADER_BYTES + 4 + 176 + 20
SIMPLE = written(TomogramPoints(TOMOGRAM, [LINE]), WriteOptions())


def changed(at: int, layout: str, *values: float) -> bytes:
    raw = bytearray(SIMPLE)
    struct.pack_into(layout, raw, at, *values)
    return bytes(raw)


def test_contours_of_one_point_each_are_particles() -> None:
    points = [Filament("p", n, GRID.to_angstrom([(n, 2, 3), (4, 5, 6)])) for n in (1, 2)]
    data = written(TomogramPoints(TOMOGRAM, points), WriteOptions())
    contour = data[HEADER_BYTES + 4 + 176 :][: 20 + 24]
    single = contour[:4] + struct.pack(">i", 1) + contour[8:32]
    data = data.replace(contour, single)
    with pytest.raises(FormatError, match=r"contour 1 .* has one point"):
        read(data)
    second = data[HEADER_BYTES + 4 + 176 + len(single) :][: 20 + 24]
    data = data.replace(second, second[:4] + struct.pack(">i", 1) + second[8:32])
    (particles,) = read(data).particles
    np.testing.assert_allclose(particles.points_angstrom, GRID.to_angstrom([(1, 2, 3), (2, 2, 3)]))


def test_a_model_of_a_program_that_leaves_the_size_out_is_read() -> None:
    assert len(read(changed(8 + 128, ">3i", 0, 0, 0)).filaments) == 1


DAMAGED = {
    "another file": (b"MRC " + SIMPLE[4:], "begins with b'MRC V1.2'"),
    "ASCII": (b"imod 1\nobject 0 1 0\n", "begins with"),
    "empty": (b"", "begins with b''"),
    "old version": (b"IMODV0.1" + SIMPLE[8:], "V0.1"),
    "header only": (SIMPLE[:HEADER_BYTES], "damaged: 4 bytes"),
    "no end": (SIMPLE[:-4], "damaged: 4 bytes"),
    "cut in points": (SIMPLE[: POINTS_AT + 5], "damaged: 24 bytes"),
    "negative points": (changed(POINTS_AT - 16, ">i", -1), "damaged: -12 bytes"),
    "2 billion points": (changed(POINTS_AT - 16, ">i", 2**31 - 1), "damaged: 25769803764 bytes"),
    "negative chunk": (changed(POINTS_AT + 24 + 4, ">i", -9), "damaged: -9 bytes"),
    "not finite": (changed(POINTS_AT, ">f", float("nan")), "not finite"),
    "signalling NaN": (changed(POINTS_AT, ">I", 0x7F800001), "not finite"),
    "contour first": (SIMPLE[:HEADER_BYTES] + SIMPLE[POINTS_AT - 20 :], "before the first object"),
    "flipped": (changed(FLAGS_AT, ">I", 1 << 16), "y and z flipped"),
    "short MINX": (SIMPLE[:-84] + b"MINX\0\0\0\x04ABCDIEOF", "MINX has 4 bytes"),
}


@pytest.mark.parametrize(("data", "message"), DAMAGED.values(), ids=DAMAGED.keys())
def test_damage_is_named(data: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read(data)


@settings(max_examples=150, derandomize=True)
@given(st.data())
def test_random_damage_gives_points_or_a_named_error(data: st.DataObject) -> None:
    raw = bytearray(written())
    for at in data.draw(st.lists(st.integers(8, len(raw) - 1), max_size=6)):
        raw[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(raw)))
    with contextlib.suppress(FormatError):
        read(bytes(raw[:cut]))
