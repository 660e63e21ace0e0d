"""Files that are not what they should be, in every dialect: the error names what is wrong."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tomoseg.core.coordinates import Filament, Particles
from tomoseg.core.errors import FormatError
from tomoseg.core.sampling import Sampling
from tomoseg.io.points.dialects import TomoContext, TomogramPoints, WriteOptions
from tomoseg.io.points.registry import DIALECTS, reader

GRID = Sampling((100, 250, 240), (10.0, 10.0, 10.0))
CONTEXT = TomoContext("TS_01", GRID, origin_angstrom=(0.0, 0.0, 0.0))
LINES = [
    Filament(
        "actin", number, GRID.to_angstrom([(z, 100.5, 60), (z + 5, 107, 66), (z + 10, 113, 72)])
    )
    for number, z in ((1, 10.0), (2, 40.0))
]
RIBOSOMES = Particles(
    "ribosome",
    GRID.to_angstrom([(4, 5, 6), (7, 8, 9.5), (70, 80, 90)]),
    np.array([0.5, 0.75, 0.25]),
    Rotation.random(3, random_state=1).as_matrix(),
)
ENDINGS = {
    "relion5": "x.star",
    "stopgap": ".star",
    "av3": ".em",
    "dynamo": ".tbl",
    "eman2": ".json",
    "copick": "ribosome.json",
    "portal": ".ndjson",
}


@cache
def good(dialect: str, *, lines: bool = False) -> bytes:
    """Return a file of particles, or of lines."""
    lines = lines or not DIALECTS[dialect].has_particles
    points = TomogramPoints(CONTEXT, LINES if lines else (), () if lines else [RIBOSOMES])
    files = DIALECTS[dialect].dialect.write([points], "x", WriteOptions())
    ending = ENDINGS.get(dialect, "")
    if lines and dialect == "copick":
        ending = "Filaments/tomoseg_0_actin.json"
    return next(data for path, data in files.items() if path.endswith(ending))


def read(dialect: str, data: bytes) -> TomogramPoints:
    (found,) = reader(dialect).read(data, [CONTEXT], name="x")
    return found


def swap(old: str, new: str) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        assert old.encode() in data
        return data.replace(old.encode(), new.encode(), 1)

    return change


def rows(change: Callable[[list[str]], list[str]], sep: str | None = None) -> Any:
    """Change the fields of every line that has more than one."""

    def changed(data: bytes) -> bytes:
        lines = [line.split(sep) for line in data.decode().splitlines()]
        joined = ((sep or " ").join(change(line) if len(line) > 2 else line) for line in lines)
        return ("\n".join(joined) + "\n").encode()

    return changed


def keys(change: Callable[[dict[str, Any]], Any]) -> Callable[[bytes], bytes]:
    """Change every object of a file of JSON, an object a line or one in all."""

    def changed(data: bytes) -> bytes:
        try:
            values = [json.loads(data)]
        except ValueError:
            values = [json.loads(line) for line in data.splitlines()]
        for value in values:
            change(value)
        return "\n".join(map(json.dumps, values)).encode()

    return changed


def cut(share: float) -> Callable[[bytes], bytes]:
    return lambda data: data[: int(share * len(data))].rstrip()


def em_rows(count: int) -> Callable[[bytes], bytes]:
    """Say that there are so many numbers a particle in an EM file, and have them."""

    def changed(data: bytes) -> bytes:
        head, values = data[:4], np.frombuffer(data[512:], "<f4").reshape(-1, 20)
        values = np.resize(values, (len(values), count))
        sizes = np.array([count, len(values), 1], "<i4").tobytes()
        return (head + sizes).ljust(512, b"\0") + values.tobytes()

    return changed


def em_value(row: int, value: float) -> Callable[[bytes], bytes]:
    def changed(data: bytes) -> bytes:
        values = np.frombuffer(data[512:], "<f4").reshape(-1, 20).copy()
        values[1, row] = value
        return data[:512] + values.tobytes()

    return changed


# Dialect → what was done to a good file, how, and what the error says.
WRONG: dict[str, list[tuple[str, Callable[[bytes], bytes], str]]] = {
    "relion5": [
        ("missing", swap("_rlnCenteredCoordinateYAngst", "_rlnOther"), "CenteredCoordinateYAngst"),
        ("number", swap("-1140.000000", "far"), "rlnCenteredCoordinate.*no number"),
        ("group", swap("\t1\t0.50", "\tone\t0.50"), "rlnOpticsGroup.*no number"),
        ("cut", cut(0.9), r"values for \d+ columns|no block has a column"),
    ],
    "relion4": [
        (
            "missing",
            swap("_rlnCoordinateZ", "_rlnOther"),
            "no rlnCoordinateZ, and the tomogram",
        ),
        ("number", swap("9.500000", "far"), "rlnCoordinate.*no number"),
        ("cut", cut(0.9), r"values for \d+ columns"),
    ],
    "warp": [
        ("missing", swap("_rlnCoordinateY", "_rlnOther"), "lacks the columns rlnCoordinateY"),
        ("number", swap("9.500000", "far"), "rlnCoordinate.*no number"),
        ("cut", cut(0.9), r"values for \d+ columns"),
    ],
    "dynamo": [
        ("missing", rows(lambda fields: fields[:25]), "has 25 columns; .* at least 26"),
        ("uneven", cut(0.97), "every line needs the same number"),
        ("number", swap("10 8.5", "far 8.5"), "'far', which is no number"),
        ("infinite", rows(lambda fields: [*fields[:35], "inf"]), "column 36, is not finite"),
        ("cut", cut(0.9), "columns; every line needs the same number"),
    ],
    "stopgap": [
        ("missing", swap("_phi", "_other"), "lacks the columns phi"),
        ("number", swap("0.750000", "far"), "no number"),
        ("cut", cut(0.9), r"values for \d+ columns"),
    ],
    "av3": [
        ("missing", em_rows(19), r"has 20 × particles × 1|a motive list has"),
        ("extra", em_rows(21), "a motive list has"),
        ("number", em_value(8, float("nan")), "a position is not finite"),
        ("tomogram", em_value(4, 1.5), "tomo_num is not a whole number"),
        ("cut", cut(0.9), r"sizes 20, 3, 1 need 240 bytes"),
    ],
    "imod": [
        ("number", swap("IMOD", "IMAD"), "binary IMOD models begin with"),
        ("cut", cut(0.9), "the model is damaged"),
        ("in the head", cut(0.1), "the model is damaged"),
    ],
    "amira": [
        ("missing", swap("VertexCoordinates } @1", "Other } @1"), "no VertexCoordinates of 3"),
        ("number", swap("60.000000", "far"), "VertexCoordinates .*no number"),
        ("count", swap("define VERTEX 3", "define VERTEX 4"), "has 9 values, not 12"),
        ("cut", lambda data: data[: data.rindex(b"@5\n") - 30], r"has . values, not"),
    ],
    "eman2": [
        ("missing", keys(lambda info: info.pop("apix_unbin")), "has no apix_unbin"),
        ("short", keys(lambda info: info["boxes_3d"][1].__delitem__(slice(2, 9))), "no 3 fields"),
        ("number", keys(lambda info: info["boxes_3d"][1].__setitem__(0, "far")), "boxes_3d"),
        ("cut", cut(0.9), "this is no JSON"),
    ],
    "copick": [
        ("missing", keys(lambda file: file["points"][1].pop("location")), "points.1.location"),
        ("number", swap('"x": 95.0', '"x": "far"'), "points.1.location.x"),
        ("rotation", swap('"transformation_": [[', '"transformation_": [[9'), "is no rotation"),
        ("cut", cut(0.9), "not a file of copick's Picks"),
    ],
    "portal": [
        ("missing", keys(lambda row: row.pop("location")), "line 1 is no point.*location"),
        ("number", swap('"x": 9.5', '"x": "far"'), "line 2 is no point.*location.x"),
        ("cut", cut(0.9), "line 3 is no point"),
    ],
    "csv": [
        ("missing", swap("y_angstrom", "other"), "lacks the columns y_angstrom"),
        ("number", swap("95.000000", "far"), "cannot be read"),
        ("infinite", swap("95.000000", "inf"), "a position is not finite"),
        ("cut", lambda data: data[: data.rindex(b",70.000000")], "cannot be read"),
    ],
    "tardis": [
        ("missing", swap("Y [A]", "other"), r"lacks the columns Y \[A\]"),
        ("number", swap("660.000000", "far"), "cannot be read"),
        ("number of line", swap("\n1,", "\n1.5,"), "an id is no number"),
        ("cut", lambda data: data[: data.rindex(b",")], "cannot be read"),
    ],
}
# What other programs add, and is read over.
EXTRA = {
    **dict.fromkeys(("relion5", "relion4", "warp", "stopgap"), "column"),
    "dynamo": rows(lambda fields: [*fields, "1", "2"]),
    "amira": swap("EDGE { int Number }", "VERTEX { float Other } @99\nEDGE { int Number }"),
    "eman2": keys(lambda info: info["boxes_3d"][1].append(7)),
    "copick": keys(lambda file: file.update(metadata={"a": 1})),
    "portal": keys(lambda row: row.update(source="x")),
    "csv": rows(lambda fields: [*fields, "1" if fields[0] != "tomogram" else "more"], ","),
    "tardis": rows(lambda fields: [*fields, "1" if fields[0] != "IDs" else "more"], ","),
}


def with_column(data: bytes) -> bytes:
    """Add a column to the last loop of a STAR file."""
    lines = data.decode().splitlines()
    begin = max(i for i, line in enumerate(lines) if line.startswith("_"))
    width = len(next(line for line in lines[begin + 1 :] if line.strip()).split())
    added = [line + "\t3" if len(line.split()) == width else line for line in lines[begin + 1 :]]
    return "\n".join([*lines[: begin + 1], "_rlnUnheardOf", *added]).encode()


def test_every_dialect_is_here() -> None:
    assert set(WRONG) == set(DIALECTS)
    # Models of IMOD and lists of AV3 have no room for more.
    assert set(EXTRA) == set(DIALECTS) - {"imod", "av3"}


@pytest.mark.parametrize(
    ("dialect", "change", "says"),
    [
        pytest.param(dialect, change, says, id=f"{dialect} {what}")
        for dialect, table in WRONG.items()
        for what, change, says in table
    ],
)
def test_what_is_wrong_is_named(dialect: str, change: Any, says: str) -> None:
    with pytest.raises(FormatError, match=says):
        read(dialect, change(good(dialect)))


@pytest.mark.parametrize("dialect", EXTRA)
def test_what_is_more_is_read_over(dialect: str) -> None:
    change = EXTRA[dialect]
    data = with_column(good(dialect)) if change == "column" else change(good(dialect))
    assert data != good(dialect)
    back, plain = read(dialect, data), read(dialect, good(dialect))
    (found,), (wanted,) = (
        (points.particles,) if points.particles else (points.filaments,) for points in (back, plain)
    )
    assert len(found) == len(wanted) > 0
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one.points_angstrom, other.points_angstrom)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_another_file_is_refused(dialect: str) -> None:
    # RELION 4 and Warp count in pixels both, and the table says which.
    twins = {"relion4", "warp"} if dialect in ("relion4", "warp") else {dialect}
    others = [good(other) for other in DIALECTS if other not in twins]
    # Of nothing found, Dynamo's table and the portal's file are empty.
    empty = [] if dialect in ("dynamo", "portal") else [b""]
    for data in [*others, *empty, b"hello", b"\xff\xfe\0", b"{}", b"data_x\n_a 1\n", bytes(5000)]:
        with pytest.raises(FormatError):
            read(dialect, data)


@pytest.mark.parametrize("lines", [False, True], ids=["particles", "lines"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_damage_raises_nothing_else(dialect: str, *, lines: bool) -> None:
    """Cut anywhere, or with bytes changed at random, a file is read or refused."""
    data, chance = good(dialect, lines=lines), random.Random(dialect)
    damaged = [data[: i * len(data) // 40] for i in range(40)]
    for _ in range(60):
        changed = bytearray(data)
        for _ in range(chance.choice((1, 2, 5))):
            changed[chance.randrange(len(data))] = chance.randrange(256)
        damaged.append(bytes(changed))
    refused = 0
    for each in damaged:
        try:
            read(dialect, each)
        except FormatError:
            refused += 1
    assert refused > 5
