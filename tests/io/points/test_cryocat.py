"""Tables read by cryoCAT, which has one convention for the angles of all of them.

Its version 0.7.1 reads no STAR beside pandas 3, so that lists of STOPGAP are not among them.

It brings a web server along, so that it stands beside copick in the environment that ``make
oracles`` makes and TOMOSEG_COPICK_PYTHON names.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tomoseg.core.coordinates import Filament, Particles, frames
from tomoseg.core.sampling import Sampling
from tomoseg.io.points.dialects import TomoContext, TomogramPoints, WriteOptions
from tomoseg.io.points.registry import DIALECTS

PYTHON = os.environ.get("TOMOSEG_COPICK_PYTHON")
GRID = Sampling((100, 250, 240), (10.0, 10.0, 10.0))
CONTEXT = TomoContext("TS_01", GRID)
TURNS = Rotation.random(20, random_state=5).as_matrix()
PLACES = np.random.default_rng(5).uniform(0, 90, (20, 3))
RIBOSOMES = Particles("ribosome", GRID.to_angstrom(PLACES), np.full(20, 0.5), TURNS)
LINE = Filament("actin", 3, GRID.to_angstrom([(40, 100.5, 60.25), (44.8, 106.9, 66.25)]))
OPTIONS = WriteOptions(spacing_angstrom={"actin": 50.0})
# Name of the file, cryoCAT's name of the kind, and where it counts the first voxel, xyz.
KINDS = {
    "av3": ("x__motl.em", "emmotl", 1.0),
    "dynamo": ("x.tbl", "dynamo", 0.5),
}
READ = """
import json, sys, warnings
warnings.simplefilter("ignore")
from cryocat.cryomotl import Motl
table = Motl.load(sys.argv[1], motl_type=sys.argv[2])
print(json.dumps([table.get_coordinates().tolist(), table.get_rotations().as_matrix().tolist(),
                  table.df["object_id"].tolist()]))
"""


@pytest.fixture(scope="module", autouse=True)
def cryocat() -> None:
    """Skip where there is none."""
    if not PYTHON or subprocess.run([PYTHON, "-c", "import cryocat"], check=False).returncode:
        pytest.skip("TOMOSEG_COPICK_PYTHON names no interpreter with cryoCAT: use make oracles")


def by_cryocat(dialect: str, points: TomogramPoints, folder: Path) -> list[np.ndarray]:
    """Return positions, xyz, voxels; orientations; numbers of objects."""
    for path, content in DIALECTS[dialect].dialect.write([points], "x", OPTIONS).items():
        (folder / path).write_bytes(content)
    name, kind, first = KINDS[dialect]
    ran = subprocess.run(
        [str(PYTHON), "-c", READ, str(folder / name), kind],
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    places, turns, numbers = map(np.array, json.loads(ran.stdout.splitlines()[-1]))
    return [places - first, turns, numbers]


@pytest.mark.parametrize("dialect", KINDS)
def test_particles_lie_and_turn_as_cryocat_reads_them(dialect: str, tmp_path: Path) -> None:
    points = TomogramPoints(CONTEXT, particles=[RIBOSOMES])
    places, turns, _ = by_cryocat(dialect, points, tmp_path)
    np.testing.assert_allclose(places, PLACES[:, ::-1], atol=1e-4)
    np.testing.assert_allclose(turns, TURNS, atol=1e-6)


@pytest.mark.parametrize("dialect", KINDS)
def test_segments_of_a_filament_are_one_object_along_it(dialect: str, tmp_path: Path) -> None:
    places, turns, numbers = by_cryocat(dialect, TomogramPoints(CONTEXT, [LINE]), tmp_path)
    assert numbers.tolist() == [3, 3, 3]
    np.testing.assert_allclose(places[::2], [(60.25, 100.5, 40), (66.25, 106.9, 44.8)], atol=1e-4)
    np.testing.assert_allclose(turns[:, :, 2], np.tile([0.6, 0.64, 0.48], (3, 1)), atol=1e-6)
    np.testing.assert_allclose(turns[0], frames(LINE.points_angstrom)[0], atol=1e-6)
