"""The one reader of RELION's and Warp's tables: what a pixel is, and what is said of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import mrcfile
import numpy as np
import pandas as pd
import pytest
from scipy.spatial.transform import Rotation

from tomoseg.core.errors import FormatError, RequestError
from tomoseg.core.sampling import Sampling
from tomoseg.evaluation import Options
from tomoseg.evaluation.tables import read_table
from tomoseg.exchange.imports import ImportRequest, import_file
from tomoseg.io.points.dialects import ReadOptions, TomoContext, TomogramPoints
from tomoseg.io.points.picks import read_points
from tomoseg.io.points.registry import dialect_of, reader
from tomoseg.io.points.relion_columns import PARTICLE_ANGLES, SHIFTS, SUBTOMOGRAM_ANGLES
from tomoseg.io.points.relion_reader import PIXELS, read_relion
from tomoseg.io.points.star import write_star
from tomoseg.io.points.tables import read_particles_csv
from tomoseg.io.volumes.sources import Found
from tomoseg.training.annotations.tables import read_points as annotated_points
from tomoseg.training.annotations.tomogram import SeenTomogram
from tomoseg.training.annotations.voxels import Voxels

GRID = Sampling((60, 200, 200), (10.0, 10.0, 10.0))
TS_01 = TomoContext("TS_01", GRID)
POSITION = dict(zip(PIXELS, ([40.0], [80.0], [20.0]), strict=True))


def table(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"rlnTomoName": "TS_01", **POSITION, **columns})


def read(
    blocks: dict[str, pd.DataFrame], context: TomoContext = TS_01, **options: Any
) -> TomogramPoints:
    [found] = read_relion(blocks, [context], "x", ReadOptions(**options))
    return found


def optics(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"rlnOpticsGroup": [1], **columns})


STACKS = {
    "general": pd.DataFrame({"rlnTomoSubTomosAre2DStacks": [1]}),
    "optics": optics(rlnTomoTiltSeriesPixelSize=[2.0], rlnImagePixelSize=[10.0]),
}


@pytest.mark.parametrize(
    ("blocks", "pixel", "says"),
    [
        ({"particles": table()}, 10.0, "this tomogram's voxels of 10 Å (no pixel size in"),
        ({"particles": table(rlnPixelSize=5.0)}, 5.0, "pixels of 5 Å (rlnPixelSize;"),
        ({"particles": table(rlnMicrographPixelSize=4.0)}, 4.0, "4 Å (rlnMicrographPixelSize;"),
        ({"particles": table(rlnDetectorPixelSize=4.0)}, 4.0, "4 Å (rlnDetectorPixelSize;"),
        (
            {"particles": table(rlnDetectorPixelSize=5.0, rlnMagnification=20000.0)},
            2.5,
            "pixels of 2.5 Å (rlnDetectorPixelSize;",
        ),
        (
            {
                "optics": optics(rlnTomoTiltSeriesPixelSize=[2.0], rlnImagePixelSize=[10.0]),
                "particles": table(rlnOpticsGroup=1),
            },
            2.0,
            "pixels of 2 Å (rlnTomoTiltSeriesPixelSize;",
        ),
        ({**STACKS, "particles": table(rlnOpticsGroup=1)}, 10.0, "10 Å (rlnImagePixelSize;"),
        (
            {
                "optics": STACKS["optics"],
                "particles": table(rlnTomoName="TS_01.tomostar", rlnOpticsGroup=1),
            },
            10.0,
            "pixels of 10 Å (rlnImagePixelSize;",
        ),
        (
            {
                "general": STACKS["general"],
                "optics": optics(rlnTomoTiltSeriesPixelSize=[2.5]),
                "particles": table(rlnOpticsGroup=1),
            },
            2.5,
            "pixels of 2.5 Å (rlnTomoTiltSeriesPixelSize;",
        ),
    ],
    ids=[
        "none",
        "Warp",
        "RELION 3.1",
        "template matching",
        "RELION 3.0",
        "RELION 4, binned",
        "WarpTools' stacks of tilts",
        "Warp 2",
        "stacks of full size",
    ],
)
def test_what_a_pixel_is_and_that_it_is_said(
    blocks: dict[str, pd.DataFrame], pixel: float, says: str
) -> None:
    found = read(blocks)
    wanted = [[20 * pixel, 80 * pixel, 40 * pixel]]
    np.testing.assert_allclose(found.points_angstrom, wanted)
    assert says in found.told()
    assert "--pixel-size changes it" in found.told()
    assert read(blocks, pixel_size_angstrom=3.0).points_angstrom.tolist() == [[60, 240, 120]]


def test_the_recipe_knows_the_tilt_series_of_relion_4() -> None:
    context = TomoContext("TS_01", GRID, 2.5, (800, 800, 240))
    found = read({"particles": table()}, context)
    np.testing.assert_allclose(found.points_angstrom, [[50, 200, 100]])
    assert "pixels taken as the tilt series' of 2.5 Å, as the recipe says" in found.told()
    # Warp counts in the tomogram's voxels.
    warp = table(rlnMicrographName="TS_01.tomostar").drop(columns="rlnTomoName")
    np.testing.assert_allclose(read({"": warp}, context).points_angstrom, [[200, 800, 400]])


def test_a_group_without_a_pixel_size_is_no_voxel() -> None:
    blocks = {
        "optics": optics(rlnTomoTiltSeriesPixelSize=[2.0]),
        "particles": table(rlnOpticsGroup=2),
    }
    with pytest.raises(FormatError, match="rlnTomoTiltSeriesPixelSize, the pixel size, is not"):
        read(blocks)


def test_shares_of_the_size_are_no_corner() -> None:
    values = {PIXELS[0]: [0.25, 0.75], PIXELS[1]: [0.5, 0.3], PIXELS[2]: [0.5, 0.4]}
    rows = pd.DataFrame({"rlnMicrographName": "TS_01.tomostar", **values})
    rows["rlnAutopickFigureOfMerit"] = [7.5, 5.25]
    found = read({"": rows})
    np.testing.assert_allclose(found.points_angstrom, [[300, 1000, 500], [240, 600, 1500]])
    assert found.particles[0].scores.tolist() == [7.5, 5.25]
    assert "positions 0..1 taken as shares of the tomogram's size" in found.told()
    assert "scores 5.25 to 7.5 are the program's own, no shares of 1" in found.told()
    # Whoever says the pixel, means pixels; so does a table that states it.
    near = read({"": rows}, pixel_size_angstrom=10.0).points_angstrom
    np.testing.assert_allclose(near, read({"": rows.assign(rlnPixelSize=10.0)}).points_angstrom)
    np.testing.assert_allclose(near[0], [5, 5, 2.5])


def test_a_shift_is_subtracted_in_the_axes_of_the_subtomogram() -> None:
    """Position = pixel · coordinate − A(subtomogram) · shift, worked by hand."""
    angles = dict(zip(SUBTOMOGRAM_ANGLES, (30.0, 70.0, -50.0), strict=True))
    turn = Rotation.from_euler("ZYZ", list(angles.values()), degrees=True).inv().as_matrix()
    own = dict(zip(PARTICLE_ANGLES, (10.0, 20.0, 30.0), strict=True))
    turned = Rotation.from_euler("ZYZ", list(own.values()), degrees=True).inv().as_matrix()
    shift = np.array([30.0, -20.0, 25.0])
    shifts = dict(zip(SHIFTS, shift, strict=True))
    rows = table(rlnTomoTiltSeriesPixelSize=2.5, **angles, **own, **shifts)
    [found] = read({"particles": rows}).particles
    wanted = np.array([100.0, 200.0, 50.0]) - turn @ shift
    np.testing.assert_allclose(found.points_angstrom[0, ::-1], wanted)
    np.testing.assert_allclose(found.orientations[0], turn @ turned)
    assert np.linalg.norm(turn @ shift - shift) > 20


def test_angles_that_are_not_known_are_none() -> None:
    rows = table(**dict.fromkeys(PARTICLE_ANGLES, -9999.0))
    assert read({"": rows}).particles[0].orientations.tolist() == [np.eye(3).tolist()]


# Blocks


def test_of_several_blocks_with_positions_one_is_said() -> None:
    blocks = {"a": table(), "b": table(rlnCoordinateX=[50.0])}
    with pytest.raises(FormatError, match=r"2 blocks have positions: data_a, data_b.*--block"):
        read(blocks)
    found = read(blocks, block="b")
    assert found.points_angstrom.tolist() == [[200, 800, 500]]
    assert "block data_b, not data_a (--block takes another)" in found.told()
    assert "block data_particles, not data_a" in read({"a": table(), "particles": table()}).told()


def test_a_block_a_tomogram() -> None:
    nameless = table().drop(columns="rlnTomoName")
    blocks = {"TS_02": nameless, "TS_01_10.00Apx": nameless.assign(rlnCoordinateX=[50.0])}
    found = read(blocks)
    assert found.points_angstrom.tolist() == [[200, 800, 500]]
    assert "block data_TS_01_10.00Apx, not data_TS_02" in found.told()
    assert "block data_TS_02" in read({"TS_02": nameless}).told()


# What looks wrong


@pytest.mark.parametrize(
    ("reach", "says"),
    [
        (0.2, "all points lie in the first 20% of every axis: is the unit right?"),
        (0.9, ""),
        (1.5, "10 of 20 points lie outside the tomogram: is it the right one, and the unit?"),
    ],
)
def test_another_unit_is_suspected(reach: float, says: str) -> None:
    share = np.repeat([reach / 2, reach], 10)
    values = {name: share * n for name, n in zip(PIXELS, (200, 200, 60), strict=True)}
    rows = pd.DataFrame({"rlnTomoName": "TS_01", **values})
    assert "; ".join(read({"": rows}).doubts) == says


@pytest.mark.parametrize("size", [0.0, -1.0, float("inf"), float("nan")])
def test_a_pixel_that_is_none_is_refused(size: float) -> None:
    with pytest.raises(RequestError, match=r"is none\. Give a positive size in Å"):
        ReadOptions(pixel_size_angstrom=size)


def test_positions_in_angstrom_have_no_pixel() -> None:
    rows = pd.DataFrame({f"rlnCenteredCoordinate{axis}Angst": [0.0] for axis in "XYZ"})
    assert read({"particles": rows}).points_angstrom.tolist() == [[300, 1000, 1000]]
    assert "Å from the centre of 200×200×60 pixels of 10 Å" in read({"particles": rows}).told()
    with pytest.raises(FormatError, match="is in Å, and a pixel size is given"):
        read({"particles": rows}, pixel_size_angstrom=2.0)


# Whoever asks


def test_whoever_asks_reads_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A refined particle of RELION 4, once 57 Å apart between import and picks."""
    angles = dict(zip(SUBTOMOGRAM_ANGLES, (30.0, 70.0, -50.0), strict=True))
    shifts = dict(zip(SHIFTS, (30.0, -20.0, 25.0), strict=True))
    rows = table(rlnOpticsGroup=1, **angles, **shifts)
    blocks = {
        "optics": optics(rlnTomoTiltSeriesPixelSize=[5.0]),
        "particles": pd.concat([rows, rows.assign(rlnTomoName="TS_02", rlnCoordinateX=1.0)]),
    }
    text = write_star(blocks)
    place, volume = tmp_path / "p__x.star", tmp_path / "TS_01.mrc"
    place.write_text(text)
    with mrcfile.new(volume) as file:
        file.set_data(np.zeros(GRID.shape, np.int8))
        file.voxel_size = 10.0
    [wanted] = read(blocks).points_angstrom.tolist()
    found: dict[str, Any] = {}
    for dialect in ("relion4", "picks"):
        request = ImportRequest(str(place), str(volume), "x", dialect=dialect)
        done = import_file(request)
        assert "1 particles, " in done.says[0]
        assert "1 rows of TS_02 left out" in done.says[0]
        assert "pixels of 5 Å (rlnTomoTiltSeriesPixelSize" in done.says[0]
        [one] = read_particles_csv((tmp_path / "imported" / "TS_01__particles.csv").read_text())
        found[dialect] = one.points_angstrom
    scored = read_table(str(place), Options(tomogram=str(volume)))
    assert scored.particles is not None
    found["evaluate"] = scored.particles["TS_01"][0].points_angstrom
    assert "1 rows of TS_02 left out" in scored.says[0]
    scene = SeenTomogram(Found("TS_01", str(volume)), GRID, GRID, cast(Voxels, None))
    found["training"] = annotated_points(str(place), scene)
    assert "1 rows of TS_02 left out" in caplog.text
    [unplaced] = read_points(text.encode(), "p.star", [TS_01], ReadOptions(lines=False))
    found["trace"] = unplaced.points_angstrom
    for who, points in found.items():
        np.testing.assert_allclose(points, [wanted], atol=1e-5, err_msg=who)


@pytest.mark.parametrize(
    ("blocks", "dialect"),
    [
        ({"particles": table()}, "relion4"),
        ({"particles": table(rlnTomoName="TS_01.tomostar")}, "warp"),
        ({"": table(rlnMicrographName="TS_01.tomostar").drop(columns="rlnTomoName")}, "warp"),
        ({"": table(rlnMicrographName="TS_01.mrc").drop(columns="rlnTomoName")}, None),
    ],
)
def test_whose_table_it_is(blocks: dict[str, pd.DataFrame], dialect: str | None) -> None:
    assert dialect_of(write_star(blocks).encode(), "a.star") == dialect


@pytest.mark.parametrize("dialect", ["relion4", "warp"])
def test_dialects_that_count_in_pixels_read_the_same(dialect: str) -> None:
    data = write_star({**STACKS, "particles": table(rlnOpticsGroup=1)}).encode()
    [found] = reader(dialect).read(data, [TS_01], name="x")
    assert found.points_angstrom.tolist() == [[200, 800, 400]]
