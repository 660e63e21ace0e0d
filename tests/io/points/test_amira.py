"""SpatialGraphs: the text as Amira reads it, real lines, and everything there and back."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tomoseg.core.coordinates import Filament, Particles
from tomoseg.core.errors import FormatError, RequestError
from tomoseg.core.sampling import Sampling
from tomoseg.io.points.amira import Amira
from tomoseg.io.points.dialects import TomoContext, TomogramPoints, WriteOptions
from tomoseg.io.volumes.amira_lattice import AmiraReader

DATA = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "cryoet" / "spindle"
REAL = pytest.mark.skipif(not DATA.is_dir(), reason="shared real data are not on this machine")

GRID = Sampling((100, 250, 240), (10.0, 10.0, 10.0))
TOMOGRAM = TomoContext("TS_01", GRID)
LINE = Filament("microtubule", 3, GRID.to_angstrom([(40, 100.5, 60.25), (44.8, 106.9, 66.25)]))
BENT = Filament("actin", 3, GRID.to_angstrom([(1, 2, 3), (4, 5, 6), (7, 8, 10.125)]), 0.875)
RIBOSOMES = Particles.at(
    "ribosome", GRID.to_angstrom([(0, 0, 0), (9, 8, 7)]), np.array([0.25, np.nan])
)
ALL = TomogramPoints(TOMOGRAM, [LINE, BENT], [RIBOSOMES])


def written(points: TomogramPoints = ALL) -> bytes:
    files = Amira().write([points], "points/TS_01", WriteOptions())
    assert list(files) == ["points/TS_01.am"]
    return files["points/TS_01.am"]


def read(data: bytes, context: TomoContext = TOMOGRAM) -> TomogramPoints:
    (found,) = Amira().read(data, [context], name="unnamed")
    return found


TEXT = """\
# AmiraMesh 3D ASCII 3.0
# Lengths are in angstrom.

define VERTEX 3
define EDGE 1
define POINT 2

Parameters {
    Classes {
        Class0 "microtubule",
        Class1 "ribosome",
    }
    ContentType "HxSpatialGraph"
}

VERTEX { float[3] VertexCoordinates } @1
EDGE { int[2] EdgeConnectivity } @2
EDGE { int NumEdgePoints } @3
POINT { float[3] EdgePointCoordinates } @4
VERTEX { int Class } @5
VERTEX { float Score } @6
EDGE { int Class } @7
EDGE { int Number } @8
EDGE { float Score } @9

# Data section follows
@1
602.500000 1005.000000 400.000000
662.500000 1069.000000 448.000000
10.000000 20.000000 30.000000

@2
0 1

@3
2

@4
602.500000 1005.000000 400.000000
662.500000 1069.000000 448.000000

@5
0
0
1

@6
-1.000000
-1.000000
0.500000

@7
0

@8
3

@9
-1.000000
"""


def test_the_text_is_a_spatial_graph_of_angstrom() -> None:
    particle = Particles.at("ribosome", np.array([[30.0, 20.0, 10.0]]), np.array([0.5]))
    assert written(TomogramPoints(TOMOGRAM, [LINE], [particle])).decode() == TEXT


def test_points_come_back() -> None:
    found = read(written())
    assert [(f.name, f.number) for f in found.filaments] == [("microtubule", 3), ("actin", 3)]
    assert np.isnan(found.filaments[0].score) and found.filaments[1].score == 0.875
    for filament, expected in zip(found.filaments, [LINE, BENT], strict=True):
        np.testing.assert_allclose(filament.points_angstrom, expected.points_angstrom, atol=1e-6)
    (particles,) = found.particles
    assert particles.name == "ribosome"
    np.testing.assert_allclose(particles.points_angstrom, RIBOSOMES.points_angstrom, atol=1e-6)
    np.testing.assert_array_equal(particles.scores, [0.25, np.nan])


def test_positions_are_from_where_the_file_puts_the_volume() -> None:
    context = replace(TOMOGRAM, origin_angstrom=(1000.0, 0.0, -20.0))
    data = written(TomogramPoints(context, [LINE]))
    assert b"@1\n582.500000 1005.000000 1400.000000\n" in data
    back = read(data, context).filaments[0].points_angstrom
    np.testing.assert_allclose(back, LINE.points_angstrom)


def test_a_unit_in_the_file_counts() -> None:
    data = TEXT.replace("Parameters {\n", 'Parameters {\n    Units { Coordinates "nm" }\n')
    back = read(data.encode()).filaments[0].points_angstrom
    np.testing.assert_allclose(back, 10 * LINE.points_angstrom)


def test_nothing_comes_back_as_nothing() -> None:
    found = read(written(TomogramPoints(TOMOGRAM)))
    assert found.filaments == [] and found.particles == []


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb"])
def test_a_class_that_could_not_stand_in_quotes_is_refused(name: str) -> None:
    with pytest.raises(RequestError, match="cannot be a name in Amira"):
        written(TomogramPoints(TOMOGRAM, [replace(LINE, name=name)]))


def test_a_graph_is_of_one_tomogram() -> None:
    with pytest.raises(RequestError, match="one tomogram"):
        Amira().read(TEXT.encode(), [TOMOGRAM, TOMOGRAM], name="x")


# Files by Amira.


@REAL
def test_the_lines_of_the_spindle_lie_in_its_volume() -> None:
    with open(DATA / "am3D.am", "rb") as file:
        header = AmiraReader(file).header
    context = TomoContext("spindle", header.sampling, origin_angstrom=header.origin_angstrom)
    found = read((DATA / "am3D.CorrelationLines.am").read_bytes(), context)
    assert [(f.name, f.number, len(f.points_angstrom)) for f in found.filaments] == [
        ("unnamed", 1, 2),
        ("unnamed", 2, 2),
        ("unnamed", 3, 6),
    ]
    assert found.particles == []
    # x and y as in the file; z is 535.14667 Å there, and the volume begins at 139.2 Å.
    np.testing.assert_allclose(
        found.filaments[0].points_angstrom[0], [395.94667, 5908.39941, 5780.06396], atol=1e-4
    )
    assert all(header.sampling.contains(f.points_angstrom).all() for f in found.filaments)


def binary(order: str, *, points: int = 2) -> bytes:
    head = TEXT.partition("VERTEX {")[0].replace("define POINT 2", f"define POINT {points}")
    name = {"<": "BINARY-LITTLE-ENDIAN", ">": "BINARY"}[order]
    fields = (
        "VERTEX { float[3] VertexCoordinates } @1\nEDGE { int[2] EdgeConnectivity } @2\n"
        "EDGE { int NumEdgePoints } @3\nPOINT { double[3] EdgePointCoordinates } = @4\n"
    )
    line = np.array([(602.5, 1005, 400), (662.5, 1069, 448)])
    sections = (
        np.vstack([line, [(10, 20, 30)]]).astype(f"{order}f4"),
        np.array([0, 1], f"{order}i4"),
        np.array([2], f"{order}i4"),
        line.astype(f"{order}f8"),
    )
    return (
        head.replace("3D ASCII", name) + fields + "\n# Data section follows"
    ).encode() + b"".join(
        b"\n@%d\n%s\n" % (i, values.tobytes()) for i, values in enumerate(sections, start=1)
    )


@pytest.mark.parametrize("order", ["<", ">"])
def test_binary_graphs_are_read(order: str) -> None:
    found = read(binary(order))
    (line,) = found.filaments
    np.testing.assert_allclose(line.points_angstrom, LINE.points_angstrom)
    np.testing.assert_allclose(found.particles[0].points_angstrom, [(30, 20, 10)])


def test_what_stands_in_the_history_is_no_header() -> None:
    log = (
        "Parameters {\n    History {\n        "
        'Log "define EDGE 9 \\"{ } \\n@7 # x\nEDGE { int A } @1"\n    }\n'
    )
    found = read(TEXT.replace("Parameters {\n", log).encode())
    assert [(f.name, f.number) for f in found.filaments] == [("microtubule", 3)]


def without(line: str) -> bytes:
    assert line in TEXT
    return TEXT.replace(line, "").encode()


def instead(old: str, new: str) -> bytes:
    assert old in TEXT
    return TEXT.replace(old, new, 1).encode()


REFUSED = {
    "one section twice": (instead("EDGE { int Class } @7", "EDGE { int Class } @8"), "one section"),
    "empty": (b"", "no AmiraMesh file"),
    "another file": (b"data_particles\n", "no AmiraMesh file"),
    "head without end": (TEXT.partition("@1\n")[0].encode() + b"@1", "ends in its head"),
    "other content": (instead("HxSpatialGraph", "HxLineSet"), "holds HxLineSet"),
    "no content": (without('    ContentType "HxSpatialGraph"\n'), "no named content"),
    "no points": (without("POINT { float[3] EdgePointCoordinates } @4\n"), "EdgePointCoordinates"),
    "no counts": (without("EDGE { int NumEdgePoints } @3\n"), "no NumEdgePoints of 1 a EDGE"),
    "no edges": (without("EDGE { int[2] EdgeConnectivity } @2\n"), "no EdgeConnectivity of 2"),
    "no vertices": (without("VERTEX { float[3] VertexCoordinates } @1\n"), "VertexCoordinates"),
    "two coordinates": (instead("float[3] Vertex", "float[2] Vertex"), "has 9 values, not 6"),
    "no coordinates": (instead("float[3] Vertex", "float[0] Vertex"), "0 VertexCoordinates"),
    "not defined": (without("define POINT 2\n"), "POINT, of which no are defined"),
    "cut": (TEXT.partition("662.5")[0].encode(), "VertexCoordinates .* has 3 values, not 9"),
    "cut in a number": (TEXT.partition("448.0")[0].encode(), "has 5 values, not 9"),
    "words": (instead("602.5", "x602.5"), "holds what is no number"),
    "not finite": (instead("602.5", "nan "), "has 10 values"),
    "infinite": (instead("602.500000", "inf"), "not finite"),
    "edge to nowhere": (instead("@2\n0 1", "@2\n0 3"), "join vertices 0..3 of 3"),
    "edge from nowhere": (instead("@2\n0 1", "@2\n-1 1"), "join vertices -1..1 of 3"),
    "edge of one point": (instead("@3\n2", "@3\n1"), "each needs two"),
    "edge of too many": (instead("@3\n2", "@3\n3"), "3 together; .* there are 2"),
    "edge of nan": (instead("@3\n2", "@3\nnan"), "each needs two"),
    "unit": (instead("Parameters {", 'Parameters { Units { Coordinates "ell" }'), "'ell'"),
    "binary cut": (binary("<")[:-40], "EdgePointCoordinates .* needs bytes up to"),
    "binary huge": (binary("<", points=10**17), "needs bytes up to"),
    "packed": (binary("<").replace(b"} @3\n", b"} @3(HxZip,9)\n"), "is HxZip, which is not read"),
    "type": (binary("<").replace(b"{ int Num", b"{ quad Num"), "is quad, which is not read"),
}


@pytest.mark.parametrize(("data", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_damage_and_missing_fields_are_named(data: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read(data)


@pytest.mark.parametrize(
    "filler", [b'\\"', b'"', b"{", b"} ", b"a ", b"a", b" ", b"\n", b"define ", b"A { int "]
)
def test_a_hostile_head_is_refused_at_once(filler: bytes) -> None:
    """A MiB that would take hours if any pattern went back over it, in quotes and without."""
    for quote in (b"", b'"'):
        head = b"# AmiraMesh 3D ASCII 3.0\n" + quote + filler * (2**20 // len(filler))
        with pytest.raises(FormatError, match="no named content"):
            read(head + b"\n@1\n1\n")


def test_a_head_without_end_is_given_up() -> None:
    with pytest.raises(FormatError, match="longer than 4194304 bytes"):
        read(b"# AmiraMesh 3D ASCII 3.0\n" + bytes(2**23))


@settings(max_examples=120, derandomize=True)
@given(st.data(), st.sampled_from([TEXT.encode(), binary("<"), binary(">")]))
def test_random_damage_gives_points_or_a_named_error(data: st.DataObject, raw: bytes) -> None:
    damaged = bytearray(raw)
    for at in data.draw(st.lists(st.integers(20, len(raw) - 1), max_size=6)):
        damaged[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(len(raw) // 2, len(raw)))
    with contextlib.suppress(FormatError):
        read(bytes(damaged[:cut]))
