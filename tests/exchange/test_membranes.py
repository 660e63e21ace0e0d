"""Sampling other programs' membranes: whatever a file holds, the same points come out."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile
import tifffile
from scipy.spatial import cKDTree

from tomoseg import cli
from tomoseg.core.sampling import Sampling
from tomoseg.io.points.dialects import TomoContext
from tomoseg.io.points.membranorama import read_membranorama
from tomoseg.io.volumes.turns import file_voxels

DATA = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "cryoet/membrane_labels"
SHAPE, VOXEL = (64, 64, 64), 12.0
CENTRE, RADIUS, THICKNESS = 32 * VOXEL, 250.0, 60.0
POINTS, AXES = ["z_angstrom", "y_angstrom", "x_angstrom"], ["zaxis_z", "zaxis_y", "zaxis_x"]


@pytest.fixture
def tomoseg(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["tomoseg", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def vesicle():
    """Score map of a hollow ball, soft over a voxel."""
    away = np.linalg.norm(np.moveaxis(np.indices(SHAPE), 0, -1) * VOXEL - CENTRE, axis=-1)
    return ((THICKNESS / 2 - np.abs(away - RADIUS)) / VOXEL + 0.5).clip(0, 1).astype(np.float32)


def write_mrc(path, voxels, origin=(0, 0, 0)):
    with mrcfile.new(path) as file:
        file.set_data(voxels)
        file.voxel_size = VOXEL
        file.header.origin = origin
    return path


def check_vesicle(path):
    found = pd.read_csv(path)
    outward = found[POINTS].to_numpy() - CENTRE
    away = np.linalg.norm(outward, axis=1)
    assert np.abs(away - RADIUS).max() < VOXEL
    assert ((found[AXES].to_numpy() * outward).sum(axis=1) / away).min() > 0.9
    assert (found["surface"] == 1).all()
    assert found["area_angstrom2"].sum() == pytest.approx(4 * np.pi * RADIUS**2, rel=0.1)
    assert found["thickness_angstrom"].mean() == pytest.approx(THICKNESS, abs=VOXEL)
    return found


EVIDENCE = {
    "mask": (lambda s: (s > 0.5).astype(np.int8), []),
    "labels": (lambda s: np.where(s > 0.5, 2, 1).astype(np.int8), ["--label", 2]),
    "probability": (lambda s: s, []),
    "logits": (lambda s: (16 * s - 8).astype(np.float32), ["--scale", "logits"]),
}


def test_a_map_whose_axes_are_exchanged_gives_the_same_points(tomoseg, tmp_path, vesicle):
    ball = np.roll(vesicle, (6, 3), (0, 1))
    tables = []
    for name, voxels in (("zyx", ball), ("rotx", file_voxels(ball, "rotx"))):
        out = tmp_path / name
        out.mkdir()
        path = write_mrc(out / "other.mrc", voxels)
        code, _, _ = tomoseg("sample", path, "-o", out, "--set", f"source.axes={name}")
        assert code == 0
        tables.append((out / "other__membrane.csv").read_text())
    assert len(tables[0].splitlines()) > 40
    assert tables[0] == tables[1]


@pytest.mark.parametrize("kind", EVIDENCE)
def test_any_map_gives_the_membrane(tomoseg, tmp_path, vesicle, kind):
    convert, how = EVIDENCE[kind]
    path, out = write_mrc(tmp_path / "other.mrc", convert(vesicle)), tmp_path / "out"
    code, said, _ = tomoseg("sample", path, "--as", "membrane", "-o", out, *how)
    assert code == 0
    found = check_vesicle(out / "other__membrane.csv")
    assert f"1 surfaces, {found['area_angstrom2'].sum() / 100:.0f} nm²" in said
    table = starfile.read(out / "other__membrane.star", always_dict=True)["particles"]
    assert len(table) == len(found)
    record = json.loads((out / "other__membrane__sample.json").read_text())
    assert record["read_as"]["name"] == {"labels": "label 2"}.get(kind, kind)


def test_spacing_dialects_and_other_files(tomoseg, tmp_path, vesicle):
    tifffile.imwrite(tmp_path / "a.tif", (vesicle > 0.5).astype(np.uint8))
    words = ["sample", tmp_path / "a.tif", "--voxel-size", VOXEL, "-o", tmp_path / "out"]
    code, _, _ = tomoseg(*words, "--spacing", 50, "--to", "dynamo", "--to", "imod")
    assert code == 0
    found = check_vesicle(tmp_path / "out" / "a__membrane.csv")
    assert len(found) > 4 * RADIUS**2 / 50**2
    assert cKDTree(found[POINTS]).query(found[POINTS], k=2)[0][:, 1].min() >= 50
    rows = np.loadtxt(tmp_path / "out" / "dynamo" / "a__membrane.tbl")
    np.testing.assert_allclose(rows[:, 23:26] - 0.5, found[POINTS[::-1]] / VOXEL, atol=1e-4)
    assert (tmp_path / "out" / "imod" / "a__membrane.mod").exists()


def test_blocks_and_recipes_change_what_they_say(tomoseg, tmp_path, vesicle):
    path = write_mrc(tmp_path / "other.mrc", vesicle)
    for name, shape in (("one", "[64,64,64]"), ("many", "[32,32,32]")):
        words = ["-o", tmp_path / name, "--set", f"blocks.shape={shape}"]
        assert tomoseg("sample", path, *words)[0] == 0
    one, many = (tmp_path / name / "other__membrane.csv" for name in ("one", "many"))
    assert one.read_bytes() == many.read_bytes()
    (tmp_path / "recipe.yaml").write_text("sample: {membrane: {spacing_angstrom: 300}}\n")
    tomoseg("sample", path, "-o", tmp_path / "few", "-r", tmp_path / "recipe.yaml")
    few = pd.read_csv(tmp_path / "few" / "other__membrane.csv")
    assert len(few) < len(pd.read_csv(one)) / 3


@pytest.mark.parametrize(
    ("values", "words", "says"),
    [
        ([0, 1, 2, 3], [], "--label"),
        ([0, 1], ["--thickness", 5], "at least 2 are needed"),
        ([0, 1], ["--to", "tardis"], "tardis is no dialect that has points of membranes"),
        ([0, 1], ["--scale", "mask", "--label", 1], "leave out --scale"),
    ],
)
def test_requests_that_are_wrong_are_named(tomoseg, tmp_path, values, words, says):
    path = write_mrc(tmp_path / "other.mrc", np.resize(np.array(values, np.int8), (8, 8, 8)))
    code, _, err = tomoseg("sample", path, "-o", tmp_path / "out", *words)
    assert (code, says in err) == (2, True)


def test_nothing_found_names_the_likely_causes(tomoseg, tmp_path):
    path = write_mrc(tmp_path / "other.mrc", np.zeros((30, 30, 30), np.int8))
    code, said, _ = tomoseg("sample", path, "-o", tmp_path / "out")
    assert (code, "0 surfaces" in said, "--thickness" in said) == (0, True, True)
    assert len(pd.read_csv(tmp_path / "out" / "other__membrane.csv")) == 0


@pytest.mark.skipif(not DATA.is_dir(), reason="shared real data are not on this machine")
def test_a_real_membrane_has_points_where_its_particles_are(tomoseg, tmp_path):
    code, said, _ = tomoseg("sample", DATA / "T1S4M8_crop.mrc.gz", "-o", tmp_path)
    assert (code, "1 surfaces" in said) == (0, True)
    record = json.loads((tmp_path / "T1S4M8_crop__membrane__sample.json").read_text())
    context = TomoContext(
        "T1S4M8",
        Sampling.from_dict(record["sampling"]),
        origin_angstrom=tuple(record["origin_angstrom"]),
    )
    seen = read_membranorama((DATA / "T1S4M8.xml").read_bytes(), context)
    particles = np.concatenate([group.points_angstrom for group in seen.particles])
    points = pd.read_csv(tmp_path / "T1S4M8_crop__membrane.csv")[POINTS]
    # No place of a membrane is farther from a point than the spacing of 100 Å.
    away = cKDTree(points).query(particles)[0]
    assert away.max() < 100 + 2.3 * 13.68
