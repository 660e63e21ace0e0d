"""copick overlays: read back by copick itself where it is, by its schema, and by ourselves.

copick 1.31 needs zarr 2, so that it cannot stand beside tomoseg. Its test runs in the interpreter
that TOMOSEG_COPICK_PYTHON names; ``make oracles`` makes it an environment.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tomoseg.core.coordinates import Filament, Particles
from tomoseg.core.errors import FormatError, RequestError
from tomoseg.core.sampling import Sampling
from tomoseg.io.points.copick import Copick, object_name
from tomoseg.io.points.dialects import TomoContext, TomogramPoints, WriteOptions

COPICK_PYTHON = os.environ.get("TOMOSEG_COPICK_PYTHON")
GRID = Sampling((100, 250, 240), (10.0, 10.0, 10.0))
CONTEXT = TomoContext("TS_01", GRID)
ALONG = np.array([[400.0, 1005.0, 602.5], [448.0, 1069.0, 662.5]])
LINES = [
    Filament("thick_filament", 3, ALONG, 0.75),
    Filament(
        "thick_filament",
        1,
        np.array([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0], [6.0, 7.0, 9.0]]),
        polarity_known=True,
    ),
]
RIBOSOMES = Particles(
    "ribosome",
    np.array([[400.0, 1005.0, 602.5], [1.0, 2.0, 3.0]]),
    np.array([0.5, np.nan]),
    Rotation.random(2, random_state=1).as_matrix(),
)
OPTIONS = WriteOptions(
    spacing_angstrom={"thick_filament": 50.0},
    radius_angstrom={"ribosome": 125.0},
    colours={"single_membrane": "#f0e442", "ribosome": "#ff0080", "thick_filament": "#00ff00"},
)
POINTS = TomogramPoints(CONTEXT, LINES, [RIBOSOMES, Particles.at("site", ALONG)])
RUN = "out/ExperimentRuns/TS_01"


@pytest.fixture(scope="module")
def files():
    return Copick().write([POINTS], "out", OPTIONS)


def test_an_overlay_has_copicks_layout(files) -> None:
    assert sorted(files) == [
        f"{RUN}/Filaments/tomoseg_0_thick-filament.json",
        f"{RUN}/Picks/tomoseg_0_ribosome.json",
        f"{RUN}/Picks/tomoseg_0_site.json",
        f"{RUN}/Picks/tomoseg_0_thick-filament.json",
        "out/config.json",
    ]


def test_the_configuration_names_classes_labels_colours_and_radii(files) -> None:
    objects = json.loads(files["out/config.json"])["pickable_objects"]
    assert [(o["name"], o["label"], o["is_particle"]) for o in objects] == [
        ("single-membrane", 1, False),
        ("ribosome", 2, True),
        ("thick-filament", 3, True),
        ("site", 4, True),
    ]
    assert objects[1]["color"] == [255, 0, 128, 255] and objects[1]["radius"] == 125.0
    assert objects[2]["metadata"] == {"copick": {"filament": {}}}
    assert "color" not in objects[3] and "metadata" not in objects[3]


def test_picks_are_angstrom_xyz_with_a_matrix(files) -> None:
    picks = json.loads(files[f"{RUN}/Picks/tomoseg_0_ribosome.json"])
    assert picks["run_name"] == "TS_01" and picks["unit"] == "angstrom"
    assert picks["voxel_spacing"] == 10.0 and picks["trust_orientation"]
    first, second = picks["points"]
    assert first["location"] == {"x": 602.5, "y": 1005.0, "z": 400.0}
    matrix = np.array(first["transformation_"])
    np.testing.assert_allclose(matrix[:3, :3], RIBOSOMES.orientations[0], atol=1e-12)
    assert matrix[3].tolist() == [0, 0, 0, 1] and matrix[:3, 3].tolist() == [0, 0, 0]
    assert first["score"] == 0.5 and "score" not in second
    assert not json.loads(files[f"{RUN}/Picks/tomoseg_0_site.json"])["trust_orientation"]


def test_segments_point_along_their_filament(files) -> None:
    picks = json.loads(files[f"{RUN}/Picks/tomoseg_0_thick-filament.json"])["points"]
    mine = [pick for pick in picks if pick["instance_id"] == 3]
    # 100 Å long, a segment each 50 Å, along (0.6, 0.64, 0.48)
    assert [pick["location"]["x"] for pick in mine] == pytest.approx([602.5, 632.5, 662.5])
    for pick in mine:
        along = np.array(pick["transformation_"])[:3, 2]
        np.testing.assert_allclose(along, (0.6, 0.64, 0.48), atol=1e-9)


@pytest.mark.parametrize("name", ["thick_filament", "actin"])
def test_filaments_come_back(files, name) -> None:
    data = files[f"{RUN}/Filaments/tomoseg_0_thick-filament.json"]
    (found,) = Copick().read(data, [TomoContext("TS_02", GRID), CONTEXT], name=name)
    assert found.context is CONTEXT
    for line, other in zip(found.filaments, LINES, strict=True):
        assert line.name == ("thick_filament" if name == "thick_filament" else "thick-filament")
        assert (line.number, line.polarity_known) == (other.number, other.polarity_known)
        np.testing.assert_allclose(line.points_angstrom, other.points_angstrom, atol=1e-9)
        assert line.score == pytest.approx(other.score, nan_ok=True)


def test_picks_come_back_and_a_translation_moves_them(files) -> None:
    data = files[f"{RUN}/Picks/tomoseg_0_ribosome.json"]
    ((found,),) = (t.particles for t in Copick().read(data, [CONTEXT], name="ribosome"))
    np.testing.assert_allclose(found.points_angstrom, RIBOSOMES.points_angstrom, atol=1e-9)
    np.testing.assert_allclose(found.orientations, RIBOSOMES.orientations, atol=1e-9)
    np.testing.assert_allclose(found.scores, RIBOSOMES.scores)
    content = json.loads(data)
    for row, shift in zip(content["points"][0]["transformation_"], (1.0, -2.0, 3.0), strict=False):
        row[3] = shift
    content["trust_orientation"] = False
    moved = Copick().read(json.dumps(content).encode(), [CONTEXT], name="ribosome")[0].particles[0]
    assert moved.points_angstrom[0].tolist() == [403.0, 1003.0, 603.5]
    np.testing.assert_array_equal(moved.orientations[0], np.eye(3))


def changed(files, path, **values) -> bytes:
    return json.dumps(json.loads(files[f"{RUN}/{path}"]) | values).encode()


def test_a_file_without_a_run_is_of_the_only_tomogram(files) -> None:
    data = changed(files, "Picks/tomoseg_0_site.json", run_name=None)
    assert Copick().read(data, [CONTEXT], name="site")[0].context is CONTEXT
    with pytest.raises(FormatError, match="run None"):
        Copick().read(data, [CONTEXT, TomoContext("TS_02", GRID)], name="site")


AT = {"location": {"x": 1, "y": 2, "z": 3}}
MIRROR = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1]]


@pytest.mark.parametrize(
    ("values", "fact"),
    [
        ({"run_name": "TS_09"}, "run TS_09"),
        ({"unit": "nanometer"}, "nanometer"),
        ({"points": None}, "points"),
        ({"points": [{"score": 1}]}, r"points\.0\.location"),
        ({"points": [{"location": {"x": 1, "y": 2}}]}, r"location\.z"),
        ({"points": [{"location": {"x": 1, "y": 2, "z": "far"}}]}, r"location\.z"),
        ({"points": [AT, AT | {"transformation_": MIRROR}]}, "point 2 is no rotation"),
        ({"points": [AT | {"transformation_": [[1, 0], [0, 1]]}]}, "transformation_"),
        ({"pickable_object_name": 3}, "pickable_object_name"),
        ({"filaments": [{"instance_id": 0, "points": [[0, 0, 0], [1, 1, 1]]}]}, "instance_id"),
        ({"filaments": [{"instance_id": 1, "points": [[0, 0, 0]]}]}, "points"),
    ],
)
def test_wrong_and_missing_fields_are_named(files, values, fact) -> None:
    with pytest.raises(FormatError, match=fact):
        Copick().read(changed(files, "Picks/tomoseg_0_site.json", **values), [CONTEXT], name="site")


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_file_of_copick_is_refused(data) -> None:
    with pytest.raises(FormatError, match="not a file of copick"):
        Copick().read(data, [CONTEXT], name="site")


def test_a_position_that_is_not_finite_is_refused(files) -> None:
    data = files[f"{RUN}/Picks/tomoseg_0_site.json"].replace(b"602.5", b"NaN")
    with pytest.raises(FormatError, match=r"location\.x"):
        Copick().read(data, [CONTEXT], name="site")


def test_names_that_copick_could_not_tell_apart_are_refused() -> None:
    with pytest.raises(RequestError, match="'__'"):
        object_name("__")
    tables = [Particles.at(name, ALONG) for name in ("a_b", "a-b")]
    with pytest.raises(RequestError, match="two tables"):
        Copick().write([TomogramPoints(CONTEXT, particles=tables)], "out", WriteOptions())


READ = """
import json, copick
root = copick.from_file("config.json")
(run,) = root.runs
print(json.dumps({
    "run": run.name,
    "objects": {o.name: [o.label, o.color, o.radius, o.is_particle, o.is_filament]
                for o in root.pickable_objects},
    "picks": {p.pickable_object_name: [p.full_positions().tolist(), p.numpy()[1].tolist(),
              p.instance_ids().tolist(), p.scores().tolist(), p.from_tool] for p in run.picks},
    "filaments": {f.pickable_object_name: [
        [line.instance_id, line.points, line.score, line.polarity_known] for line in f.filaments]
        for f in run.filaments},
}))
"""


@pytest.mark.skipif(not COPICK_PYTHON, reason="TOMOSEG_COPICK_PYTHON names no interpreter")
def test_copick_reads_what_is_written(files, tmp_path: Path) -> None:
    for path, data in files.items():
        place = tmp_path / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    ran = subprocess.run(
        [str(COPICK_PYTHON), "-c", READ],
        cwd=tmp_path / "out",
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(ran.stdout.splitlines()[-1])
    assert found["run"] == "TS_01"
    assert found["objects"]["ribosome"] == [2, [255, 0, 128, 255], 125.0, True, False]
    assert found["objects"]["thick-filament"][3:] == [True, True]
    assert found["objects"]["single-membrane"][3:] == [False, False]
    places, matrices, _, scores, is_tool = found["picks"]["ribosome"]
    np.testing.assert_allclose(places, RIBOSOMES.points_angstrom[:, ::-1], atol=1e-6)
    rotations = np.array(matrices)[:, :3, :3]
    np.testing.assert_allclose(rotations, RIBOSOMES.orientations, atol=1e-9)
    assert scores == [0.5, 1.0] and is_tool
    assert found["picks"]["thick-filament"][2] == [3, 3, 3, 1]
    for (number, points, score, polarity), line in zip(
        found["filaments"]["thick-filament"], LINES, strict=True
    ):
        assert (number, polarity) == (line.number, line.polarity_known)
        assert score == (0.75 if line.number == 3 else 1.0)
        np.testing.assert_allclose(points, line.points_angstrom[:, ::-1], atol=1e-6)
