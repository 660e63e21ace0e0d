"""Our own CSV tables of many tomograms and those of TARDIS, there and back."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.transform import Rotation

from tomoseg.core.coordinates import Filament, Particles
from tomoseg.core.errors import FormatError, RequestError
from tomoseg.core.sampling import Sampling
from tomoseg.io.points.csv_dialects import Csv, Tardis
from tomoseg.io.points.dialects import TomoContext, TomogramPoints, WriteOptions

GRID = Sampling((100, 250, 240), (10.0, 10.0, 10.0))
ONE, TWO = TomoContext("001", GRID), TomoContext("TS_02", GRID)
LINES = [
    Filament("microtubule", 3, np.array([[400.0, 1005.0, 602.5], [448.0, 1069.0, 662.5]]), 0.75),
    Filament("microtubule", 1, np.array([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0], [6.0, 7.0, 9.0]])),
]
RIBOSOMES = Particles(
    "ribosome",
    np.array([[400.0, 1005.0, 602.5], [1.0, 2.0, 3.0]]),
    np.array([0.5, np.nan]),
    Rotation.random(2, random_state=1).as_matrix(),
)
OPTIONS = WriteOptions()


def same_lines(found, wanted, *, scores=True):
    assert [(line.name, line.number) for line in found] == [(w.name, w.number) for w in wanted]
    for line, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(line.points_angstrom, other.points_angstrom, atol=1e-6)
        assert line.score == pytest.approx(other.score if scores else np.nan, nan_ok=True)


def same_particles(found, wanted):
    assert found.name == wanted.name
    np.testing.assert_allclose(found.points_angstrom, wanted.points_angstrom, atol=1e-6)
    np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-6)
    np.testing.assert_allclose(found.orientations, wanted.orientations, atol=1e-6)


def test_filaments_of_two_tomograms_stand_in_one_table() -> None:
    points = [TomogramPoints(ONE, LINES), TomogramPoints(TWO, LINES[1:])]
    ((path, data),) = Csv().write(points, "out/microtubule", OPTIONS).items()
    assert path == "out/microtubule.csv"
    table = pd.read_csv(io.BytesIO(data), dtype={"tomogram": str})
    assert table["tomogram"].tolist() == ["001"] * 5 + ["TS_02"] * 3
    assert table.loc[0, ["z_voxel", "y_voxel", "x_voxel"]].tolist() == [40, 100.5, 60.25]
    two, one = Csv().read(data, [TWO, ONE], name="ignored")
    same_lines(one.filaments, LINES)
    same_lines(two.filaments, LINES[1:])
    assert two.context is TWO


def test_particles_come_back() -> None:
    points = [TomogramPoints(ONE, particles=[RIBOSOMES]), TomogramPoints(TWO)]
    (data,) = Csv().write(points, "r", OPTIONS).values()
    one, two = Csv().read(data, [ONE, TWO], name="ribosome")
    same_particles(one.particles[0], RIBOSOMES)
    assert not two.particles and not one.filaments


def test_a_class_with_both_has_two_tables_and_one_with_nothing_a_header() -> None:
    both = [TomogramPoints(ONE, LINES, [RIBOSOMES])]
    assert sorted(Csv().write(both, "x", OPTIONS)) == ["x__filaments.csv", "x__particles.csv"]
    ((path, data),) = Csv().write([TomogramPoints(ONE)], "x", OPTIONS).items()
    assert path == "x.csv" and data.startswith(b"tomogram,class,") and data.count(b"\n") == 1
    (found,) = Csv().read(data, [ONE], name="x")
    assert not found.filaments and not found.particles


def test_a_table_without_names_is_of_the_only_tomogram() -> None:
    (data,) = Csv().write([TomogramPoints(ONE, LINES)], "x", OPTIONS).values()
    bare = pd.read_csv(io.BytesIO(data)).drop(columns="tomogram").assign(more="!")
    data = bare.to_csv(index=False).encode()
    (found,) = Csv().read(data, [TWO], name="x")
    same_lines(found.filaments, LINES)
    with pytest.raises(FormatError, match="2 tomograms are given"):
        Csv().read(data, [ONE, TWO], name="x")


TABLE = Csv().write([TomogramPoints(ONE, LINES)], "x", OPTIONS)["x.csv"]


@pytest.mark.parametrize(
    ("data", "fact"),
    [
        (TABLE.replace(b"001", b"TS_9"), "rows are of TS_9"),
        (TABLE.replace(b"z_angstrom", b"z"), "lacks the columns z_angstrom"),
        (TABLE.replace(b"400.000000", b"far"), "cannot be read"),
        (TABLE.replace(b"400.000000", b"inf"), "not finite"),
        (b"\n".join(TABLE.splitlines()[:2]), "shape"),
        (b"\xff\xfe\xff", "no text"),
        (b"", "cannot be read"),
    ],
    ids=["other tomogram", "column", "text", "infinite", "one point", "bytes", "empty"],
)
def test_wrong_tables_are_named(data: bytes, fact: str) -> None:
    with pytest.raises(FormatError, match=fact):
        Csv().read(data, [ONE], name="x")


def test_tardis_has_its_header_and_comes_back() -> None:
    ((path, data),) = Tardis().write([TomogramPoints(ONE, LINES)], "out/mt", OPTIONS).items()
    assert path == "out/mt.csv"
    rows = data.decode().splitlines()
    assert rows[0] == "IDs,X [A],Y [A],Z [A]"
    assert [float(value) for value in rows[1].split(",")] == [3, 602.5, 1005, 400]
    (found,) = Tardis().read(data, [ONE], name="microtubule")
    same_lines(found.filaments, LINES, scores=False)


def test_tardis_counts_from_zero() -> None:
    text = "IDs,X [A],Y [A],Z [A],Length\n0,1,2,3,9\n0,4,5,6,9\n1,0,0,0,9\n1,0,0,8,9\n"
    (found,) = Tardis().read(text.encode(), [ONE], name="actin")
    assert [line.number for line in found.filaments] == [1, 2]
    assert found.filaments[0].points_angstrom.tolist() == [[3, 2, 1], [6, 5, 4]]
    assert found.filaments[0].name == "actin"


def test_tardis_writes_a_file_a_tomogram_and_no_particles() -> None:
    points = [TomogramPoints(ONE, LINES), TomogramPoints(TWO)]
    files = Tardis().write(points, "mt", OPTIONS)
    assert sorted(files) == ["mt/001.csv", "mt/TS_02.csv"]
    assert Tardis().read(files["mt/TS_02.csv"], [TWO], name="mt")[0].filaments == []
    with pytest.raises(RequestError, match="filaments alone"):
        Tardis().write([TomogramPoints(ONE, particles=[RIBOSOMES])], "mt", OPTIONS)
    with pytest.raises(RequestError, match="2 are given"):
        Tardis().read(files["mt/001.csv"], [ONE, TWO], name="mt")


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("IDs,X [A],Y [A]\n0,1,2\n", r"lacks the columns Z \[A\]"),
        ("IDs,X [A],Y [A],Z [A]\n0,1,2,x\n", "cannot be read"),
        ("IDs,X [A],Y [A],Z [A]\n0,1,2,3\n", "shape"),
        ("IDs,X [A],Y [A],Z [A]\n0,1,2,3\n0,1,2,inf\n", "not finite"),
        ("IDs,X [A],Y [A],Z [A]\n0.5,1,2,3\n0.5,1,2,4\n", "an id"),
        ("IDs,X [A],Y [A],Z [A]\n-1,1,2,3\n-1,1,2,4\n", "an id"),
    ],
    ids=["column", "text", "one point", "infinite", "half an id", "negative id"],
)
def test_wrong_tables_of_tardis_are_named(text: str, fact: str) -> None:
    with pytest.raises(FormatError, match=fact):
        Tardis().read(text.encode(), [ONE], name="x")
