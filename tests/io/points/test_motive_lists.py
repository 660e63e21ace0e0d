"""Motive lists of STOPGAP and AV3, and EM files: against starfile, emfile and a real list."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path
from typing import Any

import emfile
import numpy as np
import pandas as pd
import pytest
import starfile
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from tomoseg.core.coordinates import Filament, Particles, resample
from tomoseg.core.errors import FormatError, RequestError
from tomoseg.core.sampling import Sampling
from tomoseg.io.points.dialects import TomoContext, TomogramPoints, WriteOptions
from tomoseg.io.points.motive_lists import Av3, Stopgap
from tomoseg.io.volumes.em import read_em, write_em

DATA = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "formats" / "em"
REAL = pytest.mark.skipif(not DATA.is_dir(), reason="shared real data are not on this machine")

GRID = Sampling((100, 250, 240), (10.0, 10.0, 10.0))
ONE = TomoContext("TS_01", GRID, 2.5, (960, 1000, 400))
TWO = TomoContext("TS_02", Sampling((60, 90, 80), (13.6,) * 3))
NAMES = {1: "TS_01", 2: "TS_02"}
LINE = Filament("microtubule", 3, GRID.to_angstrom([(40, 100.5, 60.25), (44.8, 106.9, 66.25)]))
OPTIONS = WriteOptions({"microtubule": 100.0})
EACH = pytest.mark.parametrize("dialect", [Stopgap(NAMES), Av3(NAMES)], ids=["stopgap", "av3"])

# sg_get_motl_fields.m of STOPGAP.
FIELDS = [
    *("motl_idx", "tomo_num", "object", "subtomo_num", "halfset", "orig_x", "orig_y", "orig_z"),
    *("score", "x_shift", "y_shift", "z_shift", "phi", "psi", "the", "class"),
]
# sg_motl_stopgap_to_av3.m, rows counted from 1.
AV3 = {
    "score": 1,
    "subtomo_num": 4,
    "tomo_num": 5,
    "object": 6,
    "orig_x": 8,
    "orig_y": 9,
    "orig_z": 10,
    "x_shift": 11,
    "y_shift": 12,
    "z_shift": 13,
    "phi": 17,
    "psi": 18,
    "the": 19,
    "class": 20,
}


def arc(number: int) -> Filament:
    """A quarter of a circle of radius 500 Å in a slanted plane."""
    turn = np.linspace(0, np.pi / 2, 200)
    points = 500 * np.stack([0.6 * np.sin(turn), np.cos(turn), 0.8 * np.sin(turn)], axis=1)
    return Filament("microtubule", number, np.add(points, (60, 90, 70 + 20 * number)), 0.5)


def ribosomes(count: int, seed: int) -> Particles:
    rng = np.random.default_rng(seed)
    turns = Rotation.random(count, random_state=seed).as_matrix()
    return Particles("ribosome", rng.uniform(0, 500, (count, 3)), rng.uniform(0, 1, count), turns)


LINES = [TomogramPoints(ONE, [LINE, arc(7)]), TomogramPoints(TWO, [arc(3)])]
PICKS = [
    TomogramPoints(ONE, particles=[ribosomes(30, 1)]),
    TomogramPoints(TWO, particles=[ribosomes(20, 2)]),
]


def content(dialect: Any, points: list[TomogramPoints]) -> bytes:
    files = dialect.write(points, "all", OPTIONS)
    assert set(files) == {
        "all__motl.doc",
        "all__motl." + ("em" if dialect.name == "av3" else "star"),
    }
    return next(data for path, data in files.items() if not path.endswith(".doc"))


def by_library(dialect: Any, data: bytes, folder: Path) -> pd.DataFrame:
    """What emfile or starfile reads."""
    path = folder / "motl"
    path.write_bytes(data)
    if dialect.name == "stopgap":
        return starfile.read(path, always_dict=True)["stopgap_motivelist"]
    header, values = emfile.read(path)
    assert (header["xdim"], header["zdim"]) == (20, 1)
    return pd.DataFrame({name: values[0, :, row - 1] for name, row in AV3.items()})


def changed(**columns: Any) -> bytes:
    """STOPGAP's list of the picks with columns changed, or left out where None."""
    table = pd.DataFrame(
        [line.split() for line in content(Stopgap(), PICKS).decode().splitlines()[21:]],
        columns=FIELDS,
    )
    for column, values in columns.items():
        table = table.drop(columns=column) if values is None else table.assign(**{column: values})
    header = "".join(f"_{column}\n" for column in table)
    rows = "".join(" ".join(map(str, row)) + "\n" for row in table.to_numpy())
    return f"data_stopgap_motivelist\n\nloop_\n{header}\n{rows}".encode()


@EACH
def test_the_worked_example(dialect: Any, tmp_path: Path) -> None:
    data = content(dialect, [TomogramPoints(ONE, [LINE])])
    first = by_library(dialect, data, tmp_path).iloc[0]
    assert first[["orig_x", "orig_y", "orig_z"]].tolist() == [61, 102, 41]
    assert first[["x_shift", "y_shift", "z_shift"]].tolist() == [0.25, -0.5, 0]
    assert first["psi"] == pytest.approx(136.847610, abs=1e-5)
    assert first["the"] == pytest.approx(61.314598, abs=1e-5)
    assert first["object"] == 3


@EACH
def test_libraries_read_the_particles_where_they_are(dialect: Any, tmp_path: Path) -> None:
    found = by_library(dialect, content(dialect, PICKS), tmp_path)
    assert found["subtomo_num"].tolist() == list(range(1, 51))
    assert found["tomo_num"].tolist() == [1] * 30 + [2] * 20
    assert (found["object"] == 0).all() and (found["class"] == 1).all()
    assert (found[["x_shift", "y_shift", "z_shift"]].abs() <= 0.5).all(axis=None)
    for number, truth in enumerate(PICKS, start=1):
        rows, [particles] = found[found["tomo_num"] == number], truth.particles
        whole = rows[["orig_x", "orig_y", "orig_z"]].to_numpy()
        voxels = whole + rows[["x_shift", "y_shift", "z_shift"]].to_numpy()
        wanted = truth.context.sampling.to_voxels(particles.points_angstrom)[:, ::-1] + 1
        assert (whole == np.rint(whole)).all()
        np.testing.assert_allclose(voxels, wanted, atol=1e-5)
        turns = Rotation.from_euler("zxz", rows[["phi", "the", "psi"]], degrees=True).as_matrix()
        np.testing.assert_allclose(turns, particles.orientations, atol=1e-6)
        np.testing.assert_allclose(rows["score"], particles.scores, atol=1e-6)


def test_stopgap_gets_the_text_that_its_reader_takes() -> None:
    """Bare names in its own order, an empty line after them, no comment (sg_motl_read2.m)."""
    lines = content(Stopgap(), LINES).decode().split("\n")
    assert lines[:4] == ["", "data_stopgap_motivelist", "", "loop_"]
    assert lines[4:20] == [f"_{field}" for field in FIELDS]
    assert lines[20] == ""
    assert all(len(line.split()) == 16 for line in lines[21:-1])
    assert lines[-1] == ""
    assert not any("#" in line for line in lines)


def test_half_sets_of_stopgap_go_by_whole_filament(tmp_path: Path) -> None:
    found = by_library(Stopgap(), content(Stopgap(), LINES), tmp_path)
    assert found["halfset"].tolist() == [*"AA", *"B" * 8, *"A" * 8]
    found = by_library(Stopgap(), content(Stopgap(), PICKS), tmp_path)
    assert found["halfset"].tolist() == [*"AB"] * 25


@EACH
def test_filaments_of_a_session_come_back(dialect: Any) -> None:
    back = dialect.read(content(dialect, LINES), [ONE, TWO], name="microtubule")
    for found, truth in zip(back, LINES, strict=True):
        assert not found.particles
        assert [f.number for f in found.filaments] == [f.number for f in truth.filaments]
        for one, other in zip(found.filaments, truth.filaments, strict=True):
            wanted = resample(other.points_angstrom, 100.0)
            np.testing.assert_allclose(one.points_angstrom, wanted, atol=1e-3)


@EACH
def test_particles_of_a_session_come_back(dialect: Any) -> None:
    back = dialect.read(content(dialect, PICKS), [ONE, TWO], name="ribosome")
    for found, truth in zip(back, PICKS, strict=True):
        [[one], [other]] = found.particles, truth.particles
        np.testing.assert_allclose(one.points_angstrom, other.points_angstrom, atol=1e-3)
        np.testing.assert_allclose(one.orientations, other.orientations, atol=1e-6)
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-6)
        assert not found.filaments


@EACH
def test_numbers_are_named_by_a_text_beside_the_list(dialect: Any) -> None:
    doc = dialect.write(LINES, "all", OPTIONS)["all__motl.doc"]
    assert doc == b"1 TS_01.mrc\n2 TS_02.mrc\n"
    named = type(dialect)({1: "TS_02", 2: "TS_01"})
    [back] = named.read(content(dialect, LINES), [ONE], name="microtubule")
    assert [f.number for f in back.filaments] == [3]
    with pytest.raises(
        FormatError, match=r"are \[1, 2\], and no .doc says which of them are TS_01"
    ):
        type(dialect)().read(content(dialect, LINES), [ONE], name="microtubule")


@EACH
def test_nothing_found_is_an_empty_list(dialect: Any) -> None:
    [back] = dialect.read(content(dialect, [TomogramPoints(ONE)]), [ONE], name="x")
    assert not back.filaments and not back.particles


@EACH
def test_ids_that_name_no_filament_are_not_written(dialect: Any) -> None:
    with pytest.raises(RequestError, match="unique and at least 1"):
        content(dialect, [TomogramPoints(ONE, [arc(0)])])


@pytest.mark.parametrize(
    "column", ["tomo_num", "object", "orig_x", "y_shift", "score", "phi", "psi", "the"]
)
def test_a_missing_column_of_stopgap_is_named(column: str) -> None:
    with pytest.raises(FormatError, match=f"lacks the columns {column}"):
        Stopgap(NAMES).read(changed(**{column: None}), [ONE, TWO], name="x")


@pytest.mark.parametrize(
    ("columns", "fact"),
    [
        ({"psi": "north"}, "no number"),
        ({"the": "nan"}, "an angle is not finite"),
        ({"orig_y": "inf"}, "a position is not finite"),
        ({"object": 1.5}, "object is not a whole number"),
        ({"tomo_num": 9}, r"\[9\] are none of TS_01, TS_02"),
    ],
)
def test_a_wrong_column_of_stopgap_is_named(columns: dict[str, Any], fact: str) -> None:
    with pytest.raises(FormatError, match=fact):
        Stopgap(NAMES).read(changed(**columns), [ONE, TWO], name="x")


def test_columns_that_are_not_read_may_be_missing_and_extra_ones_are_ignored() -> None:
    data = changed(halfset=None, motl_idx=None, mood="good")
    back = Stopgap(NAMES).read(data, [ONE, TWO], name="x")
    assert [len(each.particles[0]) for each in back] == [30, 20]


@pytest.mark.parametrize("data", [b"", b"hello", b"\xff\xfe\0", b"data_particles\n_a 1\n"])
def test_another_file_is_no_list(data: bytes) -> None:
    for dialect in (Stopgap(), Av3()):
        with pytest.raises(FormatError):
            dialect.read(data, [ONE], name="x")


@pytest.mark.parametrize("shape", [(1, 5, 19), (1, 5, 21), (2, 5, 20)])
def test_another_array_is_no_list(shape: tuple[int, int, int]) -> None:
    with pytest.raises(FormatError, match="20 × particles × 1"):
        Av3().read(write_em(np.zeros(shape, np.float32)), [ONE], name="x")


def test_arrays_go_to_emfile_and_back(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4) - 7.5
    (tmp_path / "ours.em").write_bytes(write_em(values))
    np.testing.assert_array_equal(emfile.read(tmp_path / "ours.em")[1], values)
    for number, kind in enumerate(("i1", "i2", "i4", "f4", "f8")):
        path = tmp_path / f"{number}.em"
        emfile.write(path, np.rint(values).astype(kind))
        found = read_em(path.read_bytes())
        assert found.dtype == kind
        np.testing.assert_array_equal(found, np.rint(values))


def header(machine: int, kind: int, *sizes: int, order: str = "<") -> bytes:
    return struct.pack(f"{order}4B3i", machine, 0, 0, kind, *sizes).ljust(512, b"\0")


@pytest.mark.parametrize("machine", [0, 3, 5])
def test_other_machines_write_big_endian(machine: int) -> None:
    data = header(machine, 2, 3, 1, 1, order=">") + struct.pack(">3h", 1, -2, 300)
    assert read_em(data).tolist() == [[[1, -2, 300]]]


@pytest.mark.parametrize(
    ("data", "fact"),
    [
        (b"\6\0\0\5", "fewer than the 512"),
        (header(6, 5, 20, 2**31 - 1, 2**31 - 1), "the file has 0"),
        (header(6, 5, 2**30, 2**30, 16), "the file has 0"),  # 2**66 bytes: 0 where 64 bits overflow
        (header(6, 5, 20, -1, 1), "sizes 20, -1, 1"),
        (header(6, 5, -20, -1, 1), "sizes -20, -1, 1"),
        (header(6, 5, 20, 2, 1) + b"\0" * 159, "need 160 bytes; the file has 159"),
        (header(6, 8, 1, 1, 1) + b"\0" * 8, "kind of number 8"),
        (header(6, 3, 1, 1, 1) + b"\0" * 8, "kind of number 3"),
        (header(7, 5, 1, 1, 1) + b"\0" * 8, "machine 7"),
    ],
)
def test_hostile_files_are_named(data: bytes, fact: str) -> None:
    with pytest.raises(FormatError, match=fact):
        read_em(data)


@given(st.binary(max_size=700), st.booleans())
def test_noise_is_an_array_no_larger_than_itself_or_named(noise: bytes, begins: bool) -> None:
    data = header(6, 5, 20, 1, 1)[:12] + noise if begins else noise
    with contextlib.suppress(FormatError):
        assert read_em(data).nbytes <= len(data)


@REAL
def test_a_real_list_is_read_as_emfile_reads_it() -> None:
    _, values = emfile.read(DATA / "ribosome.em")
    numbers = values[0, :, 4]
    contexts = [TomoContext(f"TS_{number:.0f}", GRID) for number in np.unique(numbers)]
    dialect = Av3({int(c.tomo_name[3:]): c.tomo_name for c in contexts})
    back = dialect.read((DATA / "ribosome.em").read_bytes(), contexts, name="ribosome")
    assert sum(len(each.particles[0]) for each in back) == values.shape[1] == 1023
    for each in back:
        rows = values[0, numbers == int(each.context.tomo_name[3:])].astype(np.float64)
        [particles] = each.particles
        voxels = particles.points_angstrom[:, ::-1] / 10 + 1
        np.testing.assert_allclose(voxels, rows[:, 7:10] + rows[:, 10:13], atol=1e-6)
        angles = rows[:, [16, 18, 17]]
        turns = Rotation.from_euler("zxz", angles, degrees=True).as_matrix()
        np.testing.assert_allclose(particles.orientations, turns, atol=1e-9)
        np.testing.assert_allclose(particles.scores, rows[:, 0], atol=1e-6)
