"""A tomogram whose file has an origin: every dialect puts points onto the same voxels.

Written files are read by other libraries where there is one, and by ourselves.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dynamotable
import emfile
import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile
from imodmodel import ImodModel

from tomoseg.core.coordinates import Filament, Particles
from tomoseg.core.sampling import Sampling
from tomoseg.io.points.dialects import TomoContext, TomogramPoints, WriteOptions
from tomoseg.io.points.registry import DIALECTS, reader
from tomoseg.io.volumes.sources import open_source
from tomoseg.pipeline.stages.points import tomo_context
from tomoseg.recipe.export import ExportSection

SHAPE, VOXEL = (14, 24, 30), 10.0
VOXELS = np.array([(4.0, 5.25, 6.0), (9.0, 18.0, 24.5)])
# xyz of the first point. Only Amira's space begins at the file's origin.
EXPECTED = {
    "relion5": (60 - 150, 52.5 - 120, 40 - 70),
    **dict.fromkeys(("relion4", "warp", "portal"), (6, 5.25, 4)),
    "dynamo": (6.5, 5.75, 4.5),
    **dict.fromkeys(("stopgap", "av3"), (7, 6.25, 5)),
    "imod": (6.5, 5.75, 4),
    "amira": (100 + 60, 200 + 52.5, 300 + 40),
    "eman2": (6 - 15, 5.25 - 12, 4 - 7),
    **dict.fromkeys(("copick", "csv", "tardis"), (60, 52.5, 40)),
}


def star(path: Path, columns: str, block: str = "particles") -> Any:
    table = starfile.read(path, always_dict=True, parse_as_string=["rlnTomoName"])[block]
    return table[[columns.format(axis) for axis in "XYZ"]].to_numpy()


def stopgap(path: Path) -> Any:
    table = starfile.read(path)
    return table[["orig_x", "orig_y", "orig_z"]] + table[["x_shift", "y_shift", "z_shift"]].values


def av3(path: Path) -> Any:
    _, values = emfile.read(path)
    return values[0, :, 7:10] + values[0, :, 10:13]


def amira(path: Path) -> Any:
    section = path.read_text().split("\n@1\n")[1]
    return [row.split() for row in section.split("\n")[:2]]


def copick(path: Path) -> Any:
    picks = json.loads(path.read_text())["points"]
    return [[pick["location"][axis] for axis in "xyz"] for pick in picks]


def portal(path: Path) -> Any:
    rows = [json.loads(line)["location"] for line in path.read_text().splitlines()]
    return [[row[axis] for axis in "xyz"] for row in rows]


READ: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "relion5": ("x.star", lambda path: star(path, "rlnCenteredCoordinate{}Angst")),
    "relion4": ("x.star", lambda path: star(path, "rlnCoordinate{}")),
    "warp": ("x.star", lambda path: star(path, "rlnCoordinate{}")),
    "dynamo": ("x.tbl", lambda path: dynamotable.read(path)[["x", "y", "z"]]),
    "stopgap": ("x__motl.star", stopgap),
    "av3": ("x__motl.em", av3),
    "imod": ("x.mod", lambda path: ImodModel.from_file(path).objects[0].contours[0].points),
    "amira": ("x.am", amira),
    "eman2": (
        "x_info.json",
        lambda path: [row[:3] for row in json.loads(path.read_text())["boxes_3d"]],
    ),
    "copick": ("x/ExperimentRuns/t1/Picks/tomoseg_0_site.json", copick),
    "portal": ("x_point.ndjson", portal),
    "csv": (
        "x.csv",
        lambda path: pd.read_csv(path)[["x_angstrom", "y_angstrom", "z_angstrom"]],
    ),
    "tardis": ("x.csv", lambda path: pd.read_csv(path)[["X [A]", "Y [A]", "Z [A]"]]),
}


@pytest.fixture(params=["mrc2014", "imod"])
def context(request: Any, tmp_path: Path) -> TomoContext:
    """The tomogram, by the header of its file: MRC2014's, or IMOD's with the opposite sign."""
    path, sign = tmp_path / "t1.mrc", 1 if request.param == "mrc2014" else -1
    with mrcfile.new(path, np.zeros(SHAPE, np.float32)) as file:
        file.voxel_size = VOXEL
        file.header.origin = tuple(sign * place for place in (100, 200, 300))
    if sign < 0:
        raw = bytearray(path.read_bytes())
        raw[108:112] = struct.pack("<i", 0)
        raw[152:160] = struct.pack("<2i", 1146047817, 0)
        path.write_bytes(raw)
    with open_source(str(path)) as source:
        return tomo_context("t1", source.header, ExportSection())


def test_every_dialect_is_here() -> None:
    assert set(EXPECTED) == set(READ) == set(DIALECTS)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_points_stay_on_their_voxels(context: TomoContext, dialect: str, tmp_path: Path) -> None:
    grid = Sampling(SHAPE, (VOXEL,) * 3)
    assert context.sampling == grid
    angstrom = grid.to_angstrom(VOXELS)
    if DIALECTS[dialect].has_particles:
        points = TomogramPoints(context, particles=[Particles.at("site", angstrom)])
    else:
        points = TomogramPoints(context, [Filament("site", 1, angstrom)])
    files = DIALECTS[dialect].dialect.write([points], f"{tmp_path}/x", WriteOptions())
    for name, content in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(content)
    name, other = READ[dialect]
    theirs = np.asarray(other(tmp_path / name), np.float64)
    assert theirs[0] == pytest.approx(EXPECTED[dialect], abs=1e-4)
    (back,) = reader(dialect).read((tmp_path / name).read_bytes(), [context], name="site")
    (found,) = back.particles or back.filaments
    np.testing.assert_allclose(grid.to_voxels(found.points_angstrom), VOXELS, atol=1e-5)
