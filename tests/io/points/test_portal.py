"""Points of the CryoET Data Portal: ndjson by hand, by pandas, and there and back."""

from __future__ import annotations

import io
import json
import os
import subprocess

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.transform import Rotation

from tomoseg.core.coordinates import Filament, Particles
from tomoseg.core.errors import FormatError, RequestError
from tomoseg.core.sampling import Sampling
from tomoseg.io.points.dialects import TomoContext, TomogramPoints, WriteOptions
from tomoseg.io.points.portal import Portal

COPICK_PYTHON = os.environ.get("TOMOSEG_COPICK_PYTHON")
GRID = Sampling((100, 250, 240), (10.0, 10.0, 10.0))
CONTEXT = TomoContext("TS_01", GRID)
PLACES = np.array([[400.0, 1005.0, 602.5], [448.0, 1069.0, 662.5]])
LINES = [
    Filament("actin", 2, PLACES),
    Filament("actin", 1, np.array([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0], [6.0, 7.0, 9.0]])),
]
ROTATIONS = Rotation.random(2, random_state=1).as_matrix()
ORIENTED = Particles("ribosome", PLACES, np.full(2, np.nan), ROTATIONS)
OPTIONS = WriteOptions()


def written(*, filaments=(), particles=()):
    return Portal().write([TomogramPoints(CONTEXT, filaments, particles)], "p/x", OPTIONS)


def test_oriented_points_are_voxels_xyz_with_a_matrix() -> None:
    files = written(particles=[ORIENTED])
    assert sorted(files) == ["p/x_orientedpoint.json", "p/x_orientedpoint.ndjson"]
    rows = pd.read_json(io.BytesIO(files["p/x_orientedpoint.ndjson"]), lines=True)
    assert rows["type"].tolist() == ["orientedPoint"] * 2
    assert rows["location"][0] == {"x": 60.25, "y": 100.5, "z": 40.0}
    # The particle's z axis in the tomogram is the third column.
    np.testing.assert_allclose(
        Rotation.from_matrix(np.array(rows["xyz_rotation_matrix"].tolist())).apply([0, 0, 1]),
        ROTATIONS[:, :, 2],
        atol=1e-9,
    )
    about = json.loads(files["p/x_orientedpoint.json"])
    assert about["voxel_spacing"] == 10.0 and about["object_count"] == 2
    assert about["annotation_object"] == {"name": "ribosome"}
    assert about["files"][0]["path"] == "x_orientedpoint.ndjson"


def test_oriented_points_come_back() -> None:
    data = written(particles=[ORIENTED])["p/x_orientedpoint.ndjson"]
    (found,) = Portal().read(data, [CONTEXT], name="ribosome")
    (table,) = found.particles
    assert table.name == "ribosome" and np.isnan(table.scores).all()
    np.testing.assert_allclose(table.points_angstrom, PLACES, atol=1e-9)
    np.testing.assert_allclose(table.orientations, ROTATIONS, atol=1e-9)


def test_points_without_orientation_are_plain_points() -> None:
    data = written(particles=[Particles.at("x", PLACES)])["p/x_point.ndjson"]
    assert json.loads(data.splitlines()[1]) == {
        "type": "point",
        "location": {"x": 66.25, "y": 106.9, "z": 44.8},
    }
    (table,) = Portal().read(data, [CONTEXT], name="x")[0].particles
    np.testing.assert_allclose(table.points_angstrom, PLACES, atol=1e-9)
    np.testing.assert_array_equal(table.orientations, np.tile(np.eye(3), (2, 1, 1)))


def test_filaments_are_instance_points_and_come_back() -> None:
    data = written(filaments=LINES)["p/x_instancepoint.ndjson"]
    rows = [json.loads(line) for line in data.splitlines()]
    assert [row["instance_id"] for row in rows] == [2, 2, 1, 1, 1]
    assert {row["type"] for row in rows} == {"instancePoint"}
    (found,) = Portal().read(data, [CONTEXT], name="actin")
    assert [line.number for line in found.filaments] == [2, 1]
    for line, other in zip(found.filaments, LINES, strict=True):
        np.testing.assert_allclose(line.points_angstrom, other.points_angstrom, atol=1e-9)


def instance(number, x=0.0):
    row = {"type": "instancePoint", "location": {"x": x, "y": 0, "z": 0}, "instance_id": number}
    return json.dumps(row) + "\n"


def test_instances_counted_from_zero_and_instances_of_one_point() -> None:
    text = instance(0) + instance(4) + instance(0, 2.0) + instance(4, 3.0)
    (found,) = Portal().read(text.encode(), [CONTEXT], name="actin")
    assert [line.number for line in found.filaments] == [1, 5]
    assert found.filaments[1].points_angstrom[:, 2].tolist() == [0.0, 30.0]
    (found,) = Portal().read((instance(1) + instance(2)).encode(), [CONTEXT], name="x")
    assert not found.filaments and len(found.particles[0]) == 2


def test_several_tomograms_are_several_files() -> None:
    points = [TomogramPoints(TomoContext(name, GRID), particles=[ORIENTED]) for name in ("a", "b")]
    files = Portal().write(points, "p/x", OPTIONS)
    assert [path for path in files if path.endswith("ndjson")] == [
        "p/x/a_orientedpoint.ndjson",
        "p/x/b_orientedpoint.ndjson",
    ]
    with pytest.raises(RequestError, match="2 are given"):
        Portal().read(b"", [point.context for point in points], name="x")


def test_an_empty_file_has_no_points() -> None:
    (data, _) = written(particles=[Particles.at("x", np.empty((0, 3)))]).values()
    assert data == b""
    assert len(Portal().read(data, [CONTEXT], name="x")[0].particles[0]) == 0


POINT = '{"type": "point", "location": {"x": 1, "y": 2, "z": 3}}\n'
MIRROR = POINT.replace('"point"', '"orientedPoint"').replace(
    "}}", '}, "xyz_rotation_matrix": [[1, 0, 0], [0, -1, 0], [0, 0, 1]]}'
)


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("{", "line 1 is no point"),
        (POINT + "3\n", "line 2 is no point"),
        (POINT.replace('"type": "point", ', ""), "type"),
        (POINT.replace('"point"', '"cuboid"'), "cuboid"),
        (POINT.replace('"point"', '"orientedPoint"'), "xyz_rotation_matrix"),
        (POINT.replace('"point"', '"instancePoint"'), "instance_id"),
        (POINT.replace('"y": 2, ', ""), r"location\.y"),
        (POINT.replace('"y": 2', '"y": NaN'), r"location\.y"),
        (POINT.replace('"y": 2', '"y": "b"'), r"location\.y"),
        (POINT + instance(1), "types instancePoint, point"),
        (MIRROR, "point 1 is no rotation"),
        (instance(-1) + instance(-1), "instance_id"),
        (instance(1) + instance(1) + instance(2), "instance 2 has one point"),
    ],
)
def test_wrong_and_missing_fields_are_named(text, fact) -> None:
    with pytest.raises(FormatError, match=fact):
        Portal().read(text.encode(), [CONTEXT], name="x")


def test_extra_fields_and_empty_lines_are_ignored() -> None:
    data = "\n" + POINT.replace("}}", '}, "score": 1}') + "\n"
    assert len(Portal().read(data.encode(), [CONTEXT], name="x")[0].particles[0]) == 1


READ = """
import json, sys
from copick.impl.mlcroissant import _parse_ndjson_picks
names = ("pickable_object_name", "user_id", "session_id", "run_name")
file = _parse_ndjson_picks(sys.stdin.read(), 10.0, **dict.fromkeys(names, "x"))
print(json.dumps([[(p.location.x, p.location.y, p.location.z), p.transformation_]
                  for p in file.points]))
"""


@pytest.mark.skipif(not COPICK_PYTHON, reason="TOMOSEG_COPICK_PYTHON names no interpreter")
def test_copick_reads_what_is_written() -> None:
    data = written(particles=[ORIENTED])["p/x_orientedpoint.ndjson"]
    ran = subprocess.run(
        [str(COPICK_PYTHON), "-c", READ],
        input=data.decode(),
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    places, matrices = zip(*json.loads(ran.stdout.splitlines()[-1]), strict=True)
    np.testing.assert_allclose(places, PLACES[:, ::-1], atol=1e-6)
    np.testing.assert_allclose(np.array(matrices)[:, :3, :3], ROTATIONS, atol=1e-9)
