"""Filaments are scored against points that somebody clicked along them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tomoseg.core.coordinates import Filament
from tomoseg.core.errors import FormatError, RequestError
from tomoseg.core.sampling import Sampling
from tomoseg.evaluation import Options, evaluate_files
from tomoseg.io.points.tables import filaments_csv

DATA = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
GRID = Sampling((60, 200, 200), (12.0, 12.0, 12.0))
CLICKS = "100.0 50.0 25.0\n60.5 150.2 30.5\n20 180 35\n"
POINTS = np.array([[25, 50, 100.0], [30.5, 150.2, 60.5], [35, 180, 20]]) * 12
VOXELS = Options(voxel_size_angstrom=12.0)


@pytest.fixture
def found(tmp_path):
    lines = [Filament("microtubule", 1, POINTS + 5.0, 0.9)]
    (tmp_path / "found.csv").write_text(filaments_csv(lines, GRID))
    return str(tmp_path / "found.csv")


def write(tmp_path, text, name="clicks.txt"):
    (tmp_path / name).write_text(text)
    return str(tmp_path / name)


def test_three_points_are_one_line(tmp_path, found):
    said = []
    clicks = write(tmp_path, CLICKS)
    scores = evaluate_files(found, clicks, VOXELS, say=said.append)
    assert scores["microtubule"]["instance_f1"] == 1
    assert scores["microtubule"]["position_rms_angstrom"] == pytest.approx(75**0.5)
    assert said == [
        f"{clicks}: 3 points taken as clicked along 1 filaments, in order",
        f"{clicks}: columns without names taken as x, y, z in voxels from 0",
    ]
    # Clicked points as the result, filaments as the truth.
    assert evaluate_files(clicks, found, VOXELS)["microtubule"]["f1"] == 1


def test_several_lines_are_told_apart(tmp_path, found):
    rows = [f"{n},{x},{y},{z}\n" for n in (1, 2) for z, y, x in POINTS / 10 + 40 * (n - 1)]
    clicks = write(tmp_path, "line,x_nm,y_nm,z_nm\n" + "".join(rows), "clicks.csv")
    scores = evaluate_files(found, clicks)
    assert scores["microtubule"]["missed"] == 1
    assert scores["microtubule"]["instance_recall"] == 0.5


def test_what_is_not_known_is_asked_for(tmp_path, found):
    with pytest.raises(RequestError, match=r"in voxels.*--voxel-size"):
        evaluate_files(found, write(tmp_path, CLICKS))
    with pytest.raises(FormatError, match="one point, and a line needs two"):
        evaluate_files(found, write(tmp_path, "1 2 3\n"), VOXELS)
    lines = [Filament(name, 1, POINTS) for name in ("actin", "microtubule")]
    two = write(tmp_path, filaments_csv(lines, GRID), "two.csv")
    clicks = write(tmp_path, CLICKS)
    with pytest.raises(RequestError, match=r"of which of actin, microtubule .*--classes"):
        evaluate_files(two, clicks, VOXELS)
    how = Options(voxel_size_angstrom=12.0, classes=("actin",))
    assert evaluate_files(two, clicks, how)["actin"]["f1"] == 1


@pytest.mark.skipif(not DATA.is_dir(), reason="shared real data are not on this machine")
def test_the_clicks_on_a_real_microtubule(tmp_path):
    known = json.loads((DATA / "cryoet/microtubule_14pf/axis_points.json").read_text())
    clicked = known["14pf_MT.tif"]["clicked_axis_points"]
    rows = "".join(f"{z},{y},{x}\n" for z, y, x in clicked)
    clicks = write(tmp_path, "z_nm,y_nm,x_nm\n" + rows, "clicks.csv")
    line = Filament("microtubule", 1, 10 * np.array(clicked)[[0, 2]])
    found = write(tmp_path, filaments_csv([line], GRID), "found.csv")
    scores = evaluate_files(found, clicks)["microtubule"]
    # The microtubule bends by some nm between its ends.
    assert scores["instance_f1"] == 1
    assert 5 < scores["position_rms_angstrom"] < 50
