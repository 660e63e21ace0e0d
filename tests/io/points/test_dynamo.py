"""Dynamo's tables: against the dynamotable library, a real table, and hand-made ones."""

from __future__ import annotations

from pathlib import Path

import dynamotable
import numpy as np
import pandas as pd
import pytest
from scipy.spatial.transform import Rotation

from tomoseg.core.coordinates import Filament, Particles, frames, resample
from tomoseg.core.errors import FormatError, RequestError
from tomoseg.core.sampling import Sampling
from tomoseg.io.points.dialects import TomoContext, TomogramPoints, WriteOptions
from tomoseg.io.points.dynamo import Dynamo
from tomoseg.io.points.numbered import read_doc

DATA = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "formats" / "dynamo"
REAL = pytest.mark.skipif(not DATA.is_dir(), reason="shared real data are not on this machine")

GRID = Sampling((100, 250, 240), (10.0, 10.0, 10.0))
ONE = TomoContext("TS_01", GRID, 2.5, (960, 1000, 400))
TWO = TomoContext("TS_02_13.60Apx", Sampling((60, 90, 80), (13.6,) * 3))
NAMES = {1: "TS_01", 2: "TS_02_13.60Apx"}
LINE = Filament("microtubule", 3, GRID.to_angstrom([(40, 100.5, 60.25), (44.8, 106.9, 66.25)]))
OPTIONS = WriteOptions({"microtubule": 100.0})


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


def written(points: list[TomogramPoints], options: WriteOptions = OPTIONS) -> bytes:
    return Dynamo().write(points, "all", options)["all.tbl"]


def by_dynamotable(points: list[TomogramPoints], folder: Path) -> pd.DataFrame:
    for path, content in Dynamo().write(points, "all", OPTIONS).items():
        (folder / path).write_bytes(content)
    return dynamotable.read(str(folder / "all.tbl"), str(folder / "all.doc"))


def line(**columns: float) -> str:
    """A line of 35 columns; keys are c1 … c35."""
    values = [columns.get(f"c{number}", 0.0) for number in range(1, 36)]
    return " ".join(f"{value:g}" for value in values)


def table(*lines: str) -> bytes:
    return "\n".join(lines).encode()


def test_the_worked_example(tmp_path: Path) -> None:
    found = by_dynamotable([TomogramPoints(ONE, [LINE])], tmp_path)
    assert found[["x", "y", "z"]].to_numpy().tolist() == [[60.75, 101, 40.5], [66.75, 107.4, 45.3]]
    assert found["tdrot"].tolist() == pytest.approx([43.152390] * 2, abs=1e-6)
    assert found["tilt"].tolist() == pytest.approx([61.314598] * 2, abs=1e-6)
    assert found["reg"].tolist() == [3, 3]
    assert found["tomo_file"].tolist() == ["TS_01.mrc"] * 2


def test_dynamotable_reads_what_dynamo_needs(tmp_path: Path) -> None:
    found = by_dynamotable(PICKS, tmp_path)
    assert found["tag"].tolist() == list(range(1, 51))
    assert (found["aligned_value"] == 1).all()
    assert (found["ftype"] == 1).all()
    assert (found[["ymintilt", "ymaxtilt"]] == [-60, 60]).all(axis=None)
    assert found["tomo"].tolist() == [1] * 30 + [2] * 20
    assert (found["reg"] == 0).all()
    assert found["apix"].tolist() == [10.0] * 30 + [13.6] * 20
    assert found["tomo_file"].unique().tolist() == ["TS_01.mrc", "TS_02_13.60Apx.mrc"]
    for number, truth in enumerate(PICKS, start=1):
        rows, [particles] = found[found["tomo"] == number], truth.particles
        voxels = truth.context.sampling.to_voxels(particles.points_angstrom)[:, ::-1]
        np.testing.assert_allclose(rows[["x", "y", "z"]], voxels + 0.5, atol=1e-5)
        angles = rows[["tdrot", "tilt", "narot"]]
        turns = Rotation.from_euler("zxz", angles, degrees=True).inv().as_matrix()
        np.testing.assert_allclose(turns, particles.orientations, atol=1e-6)
        np.testing.assert_allclose(rows["cc"], particles.scores, atol=1e-6)


def test_the_tilt_range_and_the_origin_are_options() -> None:
    options = WriteOptions({"microtubule": 100.0}, origin="centre", tilt_range_degrees=(-48, 54))
    data = written([TomogramPoints(ONE, [LINE])], options)
    fields = data.decode().splitlines()[0].split()
    assert fields[13:15] == ["-48", "54"]
    assert fields[23:26] == ["60.25", "100.5", "40"]
    [back] = Dynamo(origin="centre").read(data, [ONE], name="microtubule")
    points = back.filaments[0].points_angstrom
    np.testing.assert_allclose(points, LINE.points_angstrom, atol=1e-6)
    [back] = Dynamo().read(data, [ONE], name="microtubule")
    points = back.filaments[0].points_angstrom
    np.testing.assert_allclose(points, LINE.points_angstrom - 5.0, atol=1e-6)


def test_filaments_of_a_session_come_back() -> None:
    back = Dynamo(NAMES).read(written(LINES), [ONE, TWO], name="microtubule")
    for found, truth in zip(back, LINES, strict=True):
        assert not found.particles
        assert [f.number for f in found.filaments] == [f.number for f in truth.filaments]
        for one, other in zip(found.filaments, truth.filaments, strict=True):
            wanted = resample(other.points_angstrom, 100.0)
            np.testing.assert_allclose(one.points_angstrom, wanted, atol=1e-4)
            assert not one.polarity_known
    assert back[1].filaments[0].score == pytest.approx(0.5)


def test_particles_of_a_session_come_back() -> None:
    back = Dynamo(NAMES).read(written(PICKS), [ONE, TWO], name="ribosome")
    for found, truth in zip(back, PICKS, strict=True):
        [[one], [other]] = found.particles, truth.particles
        np.testing.assert_allclose(one.points_angstrom, other.points_angstrom, atol=1e-4)
        np.testing.assert_allclose(one.orientations, other.orientations, atol=1e-6)
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-6)
        assert not found.filaments


def test_unknown_scores_stay_unknown() -> None:
    points = [TomogramPoints(ONE, particles=[Particles.at("x", np.ones((2, 3)))])]
    [back] = Dynamo().read(written(points), [ONE], name="x")
    assert np.isnan(back.particles[0].scores).all()


def test_a_doc_says_which_number_is_which_tomogram() -> None:
    names = {1: "TS_02_13.60Apx", 2: "TS_01", 5: "TS_05"}
    back = Dynamo(names).read(written(LINES), [ONE], name="microtubule")
    assert [f.number for f in back[0].filaments] == [3]


def test_docs_are_read() -> None:
    text = "1 /a b/TS_01_10.00Apx.mrc\n 12  C:\\tomo\\TS_02.rec \n\n3\tplain\n4 \t TS_04.mrc\n"
    assert read_doc(text) == {1: "TS_01_10.00Apx", 12: "TS_02", 3: "plain", 4: "TS_04"}
    with pytest.raises(FormatError, match="number 1 is TS_01 and TS_02"):
        read_doc("1 TS_01.mrc\n1 TS_02.mrc\n")
    for wrong in ("one TS_01.mrc", "1", "-1 TS_01.mrc"):
        with pytest.raises(FormatError, match="not a number and a tomogram's file"):
            read_doc(wrong)


@pytest.mark.parametrize(
    ("numbers", "names", "contexts", "fact"),
    [
        ((1, 2), {}, [ONE, TWO], r"are \[1, 2\], and no .doc says which of them are TS_01, TS_02"),
        ((1, 2), {}, [ONE], r"are \[1, 2\], and no .doc says which of them are TS_01"),
        ((1,), {}, [ONE, TWO], r"are \[1\], and no .doc says"),
        ((1, 2), {1: "TS_01"}, [ONE], r"by the .doc \[2\] are none of"),
        ((1,), {1: "TS_07"}, [ONE], r"by the .doc \[1\] are none of"),
    ],
)
def test_a_tomogram_that_is_unknown_is_named(
    numbers: tuple[int, ...], names: dict[int, str], contexts: list[TomoContext], fact: str
) -> None:
    data = table(*(line(c20=number) for number in numbers))
    with pytest.raises(FormatError, match=fact):
        Dynamo(names).read(data, contexts, name="x")


def test_the_only_tomogram_of_a_file_is_the_only_one_given() -> None:
    [back] = Dynamo().read(table(line(c20=51, c24=1.5)), [ONE], name="x")
    np.testing.assert_allclose(back.particles[0].points_angstrom, [[-5, -5, 10]])
    assert back.says == (
        "no .doc says which tomogram is number 51: taken to be this one",
        "column 36 states no pixel size: positions taken as the tomogram's voxels",
        "counted from the corner of the first voxel (--origin centre changes it)",
    )


def test_the_shift_is_added_and_the_pixel_may_be_another() -> None:
    """A table of the tomogram binned by 2: 20 Å, and both begin at one corner."""
    base = line(c20=1, c24=10, c25=20, c26=30, c4=0.5, c5=-1, c6=2)
    [back] = Dynamo().read(table(base), [ONE], name="x")
    np.testing.assert_allclose(back.particles[0].points_angstrom, [[315, 185, 100]])
    binned = table(f"{base} 20")
    [back] = Dynamo().read(binned, [ONE], name="x")
    assert "pixels of 20 Å by column 36" in back.says
    np.testing.assert_allclose(back.particles[0].points_angstrom, [[635, 375, 205]])
    [back] = Dynamo(origin="centre").read(binned, [ONE], name="x")
    np.testing.assert_allclose(back.particles[0].points_angstrom, [[640, 380, 210]])


def test_regions_that_are_no_lines_are_particles() -> None:
    """Points on a sphere look outward, across the line through them; a single row is no line."""
    normals = np.array([[1.0, 0, 0], [0.8, 0.6, 0], [0.6, 0.8, 0]])
    outward = [frames(np.stack([0 * n, n]))[0] for n in normals]
    around = Particles("x", 300 + 200 * normals, np.full(3, np.nan), np.array(outward))
    fields = [
        row.split()
        for row in written([TomogramPoints(ONE, particles=[around])]).decode().splitlines()
    ]
    for row in fields:
        row[20] = "4"
    alone = written([TomogramPoints(ONE, [arc(9)])]).decode().splitlines()[:1]
    data = table(*(" ".join(row) for row in fields), *alone)
    [back] = Dynamo().read(data, [ONE], name="x")
    assert not back.filaments
    assert len(back.particles[0]) == 4


@pytest.mark.parametrize("numbers", [(0,), (2, 2)])
def test_ids_that_name_no_filament_are_not_written(numbers: tuple[int, ...]) -> None:
    with pytest.raises(RequestError, match="unique and at least 1"):
        written([TomogramPoints(ONE, [arc(number) for number in numbers])])


def test_nothing_found_is_a_table_without_lines() -> None:
    assert written([TomogramPoints(ONE)]) == b""
    [back] = Dynamo().read(b"", [ONE], name="x")
    assert not back.filaments and not back.particles


@pytest.mark.parametrize(
    ("data", "fact"),
    [
        (b"1 2 3", "has 3 columns"),
        (table(line(), line() + " 1"), "line 2 has 36 columns"),
        (table(line().replace("0", "zero")), "'zero', which is no number"),
        (table(line(c20=1, c24=np.nan)), "not finite"),
        (table(line(c20=1, c7=np.inf)), "columns 7 to 9 is not finite"),
        (table(line(c20=1.5)), "column 20 is not a whole number"),
        (table(line(c20=1, c21=np.nan)), "column 21 is not a whole number"),
        (b"\xff\xfe", "no text"),
    ],
)
def test_wrong_tables_are_named(data: bytes, fact: str) -> None:
    with pytest.raises(FormatError, match=fact):
        Dynamo().read(data, [ONE], name="x")


def test_more_columns_and_complex_ones_are_ignored() -> None:
    fields = line(c20=1, c24=1.5).split()
    fields[27] = "0.3+1.2i"
    [back] = Dynamo().read(table(" ".join([*fields, "0", *["7"] * 6])), [ONE], name="x")
    np.testing.assert_allclose(back.particles[0].points_angstrom, [[-5, -5, 10]])


@REAL
def test_a_real_table_is_read_as_dynamotable_reads_it() -> None:
    theirs = dynamotable.read(str(DATA / "t_double.tbl"))
    voxels = Sampling((400, 400, 400), (4.0, 4.0, 4.0))
    contexts = [TomoContext("one", voxels), TomoContext("two", voxels)]
    back = Dynamo({1: "one", 2: "two"}).read(
        (DATA / "t_double.tbl").read_bytes(), contexts, name="x"
    )
    assert [len(each.particles[0]) for each in back] == theirs["tomo"].value_counts()[
        [1, 2]
    ].tolist()
    for number, ours in enumerate(back, start=1):
        rows, [particles] = theirs[theirs["tomo"] == number], ours.particles
        # Its regions number each particle, so that none is a filament.
        assert not ours.filaments
        positions = rows[["x", "y", "z"]].to_numpy() + rows[["dx", "dy", "dz"]].to_numpy()
        found = particles.points_angstrom[:, ::-1] / 4 + 0.5
        np.testing.assert_allclose(found, positions, atol=1e-9)
        angles = rows[["tdrot", "tilt", "narot"]]
        turns = Rotation.from_euler("zxz", angles, degrees=True).inv().as_matrix()
        np.testing.assert_allclose(particles.orientations, turns, atol=1e-9)
        np.testing.assert_allclose(particles.scores, rows["cc"], atol=1e-9)
