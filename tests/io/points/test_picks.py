"""Picks of other programs: hand-worked positions, and real files beside independent readers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import starfile

from tomoseg.core.coordinates import Particles
from tomoseg.core.errors import FormatError
from tomoseg.core.sampling import Sampling
from tomoseg.io.points import picks
from tomoseg.io.points.dialects import TomoContext
from tomoseg.io.points.picks import read_picks, read_points
from tomoseg.io.points.relion import micrograph_table, optics_table, particles_table
from tomoseg.io.points.star import write_star
from tomoseg.io.points.tables import particles_csv

DATA = Path(__file__).resolve().parents[3] / ".." / "shared" / "data"
REAL = pytest.mark.skipif(not DATA.is_dir(), reason="shared real data are not on this machine")

TOMOGRAM = Sampling((100, 250, 240), (10.0, 10.0, 10.0))
MICROGRAPH = Sampling((1, 400, 600), (2.0, 2.0, 2.0))
WORKED = [[400.0, 1005.0, 602.5], [448.0, 1069.0, 662.5]]


def star(**columns: object) -> bytes:
    return write_star({"particles": pd.DataFrame(columns)}).encode()


def points(content: str | bytes, name: str = "a.star", grid: Sampling = TOMOGRAM, **how: str):
    data = content.encode() if isinstance(content, str) else content
    (found,) = read_picks(data, name, grid, **how)
    return found.points_angstrom.tolist()


# STAR


def test_relion_5_positions_are_centred() -> None:
    written = Particles.at("ribosome", np.array(WORKED), np.array([0.5, 0.25]))
    context = TomoContext("TS_01", TOMOGRAM)
    blocks = {
        "optics": optics_table(context),
        "particles": particles_table(written, context=context),
    }
    (found,) = read_picks(write_star(blocks).encode(), "a.star", TOMOGRAM, tomogram="TS_01")
    np.testing.assert_allclose(found.points_angstrom, WORKED, atol=1e-6)
    assert found.scores.tolist() == [0.5, 0.25]


def test_picks_on_a_micrograph_come_back() -> None:
    written = Particles.at("ribosome", np.array([[0, 41.0, 60.5], [0, 0, 0]]), np.array([0.5, 1]))
    table = micrograph_table(written, "m1.mrc", sampling=MICROGRAPH)
    content = write_star({"": table}).encode()
    (found,) = read_picks(content, "a.star", MICROGRAPH, tomogram="m1")
    np.testing.assert_allclose(found.points_angstrom, written.points_angstrom)
    assert found.scores.tolist() == [0.5, 1]


def test_relion_4_positions_are_pixels_of_the_tilt_series() -> None:
    blocks = {
        "optics": pd.DataFrame(
            {"rlnOpticsGroup": [2, 1], "rlnTomoTiltSeriesPixelSize": [5.0, 2.5]}
        ),
        "particles": pd.DataFrame(
            {
                "rlnTomoName": ["TS_01"] * 3,
                "rlnCoordinateX": [241.0, 265.0, 120.5],
                "rlnCoordinateY": [402.0, 427.6, 201.0],
                "rlnCoordinateZ": [160.0, 179.2, 80.0],
                "rlnOpticsGroup": [1, 1, 2],
            }
        ),
    }
    np.testing.assert_allclose(points(write_star(blocks)), [*WORKED, WORKED[0]])


@pytest.mark.parametrize(
    ("stated", "factor", "reason"),
    [
        ({}, 10.0, "the tomogram's own voxels"),
        ({"rlnPixelSize": 5.0}, 5.0, "Warp"),
        ({"rlnDetectorPixelSize": 8.48}, 8.48, "template matching"),
        ({"rlnDetectorPixelSize": 5.0, "rlnMagnification": 10000.0}, 5.0, "Warp of RELION 3.0"),
        ({"rlnDetectorPixelSize": 5.0, "rlnMagnification": 20000.0}, 2.5, "RELION 3.0"),
        ({"rlnImagePixelSize": 4.0}, 10.0, "says how the images were binned, no more"),
    ],
)
def test_pixels_in_3d_are_of_the_size_stated(stated, factor, reason) -> None:
    found = points(star(rlnCoordinateX=[3], rlnCoordinateY=[2], rlnCoordinateZ=[1.5], **stated))
    np.testing.assert_allclose(found, [[1.5 * factor, 2 * factor, 3 * factor]], err_msg=reason)


@pytest.mark.parametrize(
    ("stated", "factor"),
    [
        ({}, 2.0),
        ({"rlnMicrographPixelSize": 1.0}, 1.0),
        # Of the extracted images, which may be binned.
        ({"rlnDetectorPixelSize": 5.0, "rlnMagnification": 10000.0}, 2.0),
    ],
)
def test_pixels_of_a_micrograph_are_its_own(stated, factor) -> None:
    found = points(star(rlnCoordinateX=[30], rlnCoordinateY=[20.5], **stated), grid=MICROGRAPH)
    assert found == [[0.0, 20.5 * factor, 30 * factor]]


@pytest.mark.parametrize(
    ("shift", "moved"),
    [
        ({"rlnOriginXAngst": 1.0, "rlnOriginYAngst": -3.0}, [0.0, 43.0, 59.0]),
        ({"rlnOriginX": 1.0, "rlnOriginY": -3.0}, [0.0, 46.0, 58.0]),
    ],
)
def test_refined_shifts_are_subtracted(shift, moved) -> None:
    content = star(rlnCoordinateX=[30], rlnCoordinateY=[20], **shift)
    assert points(content, grid=MICROGRAPH) == [moved]


@pytest.mark.parametrize(
    ("names", "tomogram", "rows"),
    [
        (["x/TS_01.mrc", "TS_02.mrc"], "TS_01", [0]),
        (["TS_01.tomostar", "TS_02.tomostar"], "TS_02", [1]),
        (["TS_1", "TS_1_2"], "TS_1", [0]),
        (["01006", "01007"], "01006_10.73Apx", [0]),
        (["a/01006_10.73Apx.mrc", "01007"], "01006", [0]),
        (["001", "002"], "002", [1]),
        (["TS_01", "TS_02"], None, [0, 1]),
    ],
)
@pytest.mark.parametrize("column", ["rlnTomoName", "rlnMicrographName"])
def test_rows_of_one_tomogram_are_taken(names, tomogram, rows, column) -> None:
    content = star(**{column: names}, rlnCoordinateX=[0.0, 1.0], rlnCoordinateY=[0.0, 0.0])
    found = points(content, grid=MICROGRAPH, tomogram=tomogram)
    assert [x for _, _, x in found] == [2.0 * row for row in rows]


@pytest.mark.parametrize(
    ("names", "tomogram"),
    [
        (["TS_01", "TS_02"], "TS_03"),
        (["TS_01"], "TS_011"),
        (["TS_01_a", "TS_01_b"], "TS_01"),
    ],
)
def test_rows_of_other_tomograms_alone_are_refused(names, tomogram) -> None:
    content = star(rlnTomoName=names, rlnCoordinateX=range(len(names)))
    with pytest.raises(FormatError, match=rf"a\.star: rlnTomoName names {names[0]}.* {tomogram}\."):
        read_picks(content, "a.star", MICROGRAPH, tomogram=tomogram)


def test_an_unknown_merit_is_no_score_and_any_other_is_kept() -> None:
    merits = [0.25, -9999.0, 3.5, 1.0]
    content = star(rlnCoordinateX=[1] * 4, rlnCoordinateY=[1] * 4, rlnAutopickFigureOfMerit=merits)
    (found,) = read_picks(content, "a.star", MICROGRAPH)
    np.testing.assert_array_equal(found.scores, [0.25, np.nan, 3.5, 1.0])


# Boxes

CBOX = """
data_global

_cbox_format_version 1.0

data_cryolo

loop_
_CoordinateX #1
_CoordinateY #2
_CoordinateZ #3
_Width #4
_Height #5
_Confidence #6
{rows}

data_cryolo_include

loop_
_slice_index #1
"""


def test_a_box_is_known_by_its_low_corner() -> None:
    content = CBOX.format(rows="90.5 30 <NA> 20 30 0.75\n10 0.5 <NA> 20 20 <NA>")
    (found,) = read_picks(content.encode(), "a.cbox", MICROGRAPH)
    assert found.points_angstrom.tolist() == [[0, 90, 201], [0, 21, 40]]
    np.testing.assert_array_equal(found.scores, [0.75, np.nan])


def test_a_box_in_a_tomogram_is_at_its_slice() -> None:
    assert points(CBOX.format(rows="90 30 7 20 30 0.75"), "a.cbox") == [[70, 450, 1000]]
    with pytest.raises(FormatError, match="no CoordinateZ, and the tomogram has 100 slices"):
        points(CBOX.format(rows="90 30 <NA> 20 30 0.75"), "a.cbox")


@pytest.mark.parametrize("content", ["10\t20\t6\t8\n0\t0\t5\t5\n", "10 20 6 8 1\r\n0 0 5 5\n\n"])
def test_emans_boxes(content) -> None:
    assert points(content, "S3://b/a.BOX", MICROGRAPH) == [[0, 48, 26], [0, 5, 5]]


def test_filaments_of_boxes_are_refused() -> None:
    with pytest.raises(FormatError, match=r"box 1 is '#micrograph: a\.mrc': .*not of filaments"):
        points("#micrograph: a.mrc\n#segment length: 38\n", "a.box", MICROGRAPH)


# Tables of text


def test_our_own_tables_keep_everything() -> None:
    turned = np.array([[[0.0, -1, 0], [1, 0, 0], [0, 0, 1]], np.eye(3)])
    written = [
        Particles("ribosome", np.array(WORKED), np.array([0.5, np.nan]), turned),
        Particles.at("proteasome", np.array([[1.0, 2.0, 3.0]])),
    ]
    found = read_picks(particles_csv(written, TOMOGRAM).encode(), "a.csv", TOMOGRAM)
    assert [each.name for each in found] == ["ribosome", "proteasome"]
    np.testing.assert_array_equal(found[0].points_angstrom, WORKED)
    np.testing.assert_array_equal(found[0].scores, [0.5, np.nan])
    np.testing.assert_array_equal(found[0].orientations, turned)


@pytest.mark.parametrize(
    "content",
    [
        "x,y,z\n60.25,100.5,40\n66.25,106.9,44.8\n",
        "\ufeffX ; Y;Z\n60.25;100.5;40\n66.25;106.9;44.8\n",
        "id\tz_voxel\ty_voxel\tx_voxel\n7\t40\t100.5\t60.25\n8\t44.8\t106.9\t66.25\n",
        "IDs,X [A],Y [A],Z [A]\n0,602.5,1005,400\n0,662.5,1069,448\n",
        "x,y,z,x_angstrom,y_angstrom,z_angstrom\n1,1,1,602.5,1005,400\n1,1,1,662.5,1069,448\n",
    ],
    ids=["voxels", "marked and spaced", "order", "Å", "Å before voxels"],
)
def test_tables_by_the_names_of_their_columns(content) -> None:
    np.testing.assert_allclose(points(content, "a.csv"), WORKED)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("60.25 100.5 40\n66.25 106.9 44.8\n", "without names taken as x, y, z in voxels from 0"),
        ("60.25\t100.5\t40\n66.25\t106.9\t44.8", "without names taken as x, y, z in voxels"),
        ("60.25,100.5,40\n\n66.25,106.9,44.8\n", "without names taken as x, y, z in voxels"),
        ("# picked by hand\n60.25 100.5 40\n66.25 106.9 44.8\n", "without names taken as"),
        ("# x y z\n60.25 100.5 40\n# end\n66.25 106.9 44.8\n", "x, y, z taken as voxels"),
        (
            "index,axis-0,axis-1,axis-2\n0,40,100.5,60.25\n1,44.8,106.9,66.25\n",
            "axis-2, axis-1, axis-0 of napari taken as x, y, z in voxels from 0",
        ),
        ("x_nm,y_nm,z_nm\n60.25,100.5,40\n66.25,106.9,44.8\n", "positions are x_nm, y_nm, z_nm"),
        ("X (nm),Y (nm),Z (nm)\n60.25,100.5,40\n66.25,106.9,44.8\n", "x (nm), y (nm), z (nm)"),
        ("X[Å];Y[Å];Z[Å]\n602.5;1005;400\n662.5;1069;448\n", "positions are x[å], y[å], z[å]"),
        ("pos_x,pos_y,pos_z\n60.25,100.5,40\n66.25,106.9,44.8\n", "call them x_angstrom … or"),
        (
            "CoordinateX CoordinateY CoordinateZ\n60.25 100.5 40\n66.25 106.9 44.8\n",
            "voxels from 0",
        ),
        ("x,y,z,radius,kind\n60.25,100.5,40,9,a\n66.25,106.9,44.8,9,b\n", "not read: radius, kind"),
        (
            "tomogram,x,y,z\nTS_02,1,2,3\nTS_01.mrc,60.25,100.5,40\nTS_01,66.25,106.9,44.8\n",
            "1 rows of TS_02 left out",
        ),
    ],
)
def test_how_a_table_was_read_is_said(content, says) -> None:
    context = TomoContext("TS_01", TOMOGRAM)
    [found] = read_points(content.encode(), "a.csv", [context])
    assert says in "; ".join(found.says)
    (picks,) = found.particles
    np.testing.assert_allclose(picks.points_angstrom, WORKED)


def test_on_a_micrograph_two_columns_are_enough() -> None:
    for content in ("20 10\n", "axis-0,axis-1\n10,20\n", "x,y\n20,10\n"):
        assert points(content, "a.coords", MICROGRAPH) == [[0, 20, 40]]


def test_classes_are_named_by_class_alone() -> None:
    content = "x_px,y_px,class,score\n10,20,NA,0.5\n1,2,,\n11,21,NA,1\n"
    good, rest = read_picks(content.encode(), "a.csv", MICROGRAPH)
    assert (good.name, rest.name) == ("NA", "particle")
    assert good.points_angstrom.tolist() == [[0, 40, 20], [0, 42, 22]]
    assert rest.points_angstrom.tolist() == [[0, 4, 2]]
    assert good.scores.tolist() == [0.5, 1.0]
    content = content.replace("class", "kind")
    (every,) = read_picks(content.encode(), "a.csv", MICROGRAPH)
    assert (every.name, len(every)) == ("particle", 3)


def test_rows_of_other_tomograms_are_never_taken() -> None:
    written = particles_csv([Particles.at("ribosome", np.array(WORKED))], TOMOGRAM)
    head, one, two = written.splitlines()
    content = f"tomogram,{head}\nTS_01,{one}\nTS_02,{two}\n"
    for tomogram, row in (("TS_01", 0), ("TS_02", 1)):
        found = points(content, "a.csv", tomogram=tomogram)
        np.testing.assert_allclose(found, [WORKED[row]])
    with pytest.raises(FormatError, match="names TS_01, TS_02, and none alone is TS_03"):
        points(content, "a.csv", tomogram="TS_03")
    contexts = [TomoContext(name, TOMOGRAM) for name in ("TS_02", "TS_01", "TS_03")]
    found = read_points(content.encode(), "a.csv", contexts)
    assert [sum(len(table) for table in one.particles) for one in found] == [1, 1, 0]


@pytest.mark.parametrize("content", ["x,y,z\n", "x,y,z,class\n"])
def test_an_empty_table_has_no_positions(content) -> None:
    assert sum(len(each) for each in read_picks(content.encode(), "a.csv", TOMOGRAM)) == 0


# What is refused

LOOP = "data_\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "cannot be read"),
        ("a.csv", "1,2,3,4\n3,4,5,6\n", r"4 columns without names, and x, y and z are three"),
        ("a.csv", "x,z\n3,4\n", r"none of the columns x, z is known as a position"),
        ("a.csv", "left,top\n3,4\n", r"none of the columns left, top is known as a position"),
        ("a.csv", "x,y\n1,2,3\n", r"cannot be read: .*does not match"),
        ("a.csv", "x,y,pos_x\n1,2,3\n", "x and pos_x both are x"),
        ("a.csv", "axis-0,axis-1,axis-2,axis-3\n1,2,3,4\n", "axis-3 are 4 axes"),
        ("a.csv", "x,y\n1,2\n,3\n4,nan\n", r"2 of 3 positions are not finite, the first in row 2"),
        ("a.csv", "x,X,y\n1,2,3\n", "two columns have one name: x, x, y"),
        ("a.csv", "x,y\n1,inf\n", "1 of 1 positions are not finite"),
        ("a.csv", "x,y\n1,b\n", "x or y holds what is no number: .*'b'"),
        ("a.csv", 'x,y\n1,"2\n', "cannot be read"),
        ("a.star", "x,y\n1,2\n", "not a STAR file"),
        ("a.star", "data_a\n_b 1\n", "no block has a column rlnCenteredCoordinateXAngst or"),
        ("a.star", "data_\nloop_\n_rlnCoordinateX\n1\n", r"lacks the columns rlnCoordinateY"),
        ("a.txt", f"{LOOP}1 nan\n", "a position is not finite .* in 1 of 1, the first is row 1"),
        ("a.star", f"{LOOP}1 b\n", "rlnCoordinateY holds what is no number"),
        (
            "a.star",
            f"{LOOP}_rlnMicrographPixelSize\n1 1 0\n",
            "Size, the pixel size, is not posit",
        ),
        ("a.cbox", "data_cryolo\nloop_\n_CoordinateX\n_CoordinateY\n1 2\n", "columns Width, Heigh"),
        ("a.box", "1 2 3\n", "box 1 is '1 2 3': x, y, width and height are needed"),
        ("a.box", "1 2 3 b\n", "Height holds what is no number"),
        ("a.csv", b"\xff\xfe\x00x", "this is no text"),
        ("a.csv", b"x,y\n" + b"1,2\n" * 300, "1204 bytes are more than the 1000"),
    ],
)
def test_a_bad_file_is_named(monkeypatch, name, content, message) -> None:
    monkeypatch.setattr(picks, "LARGEST_BYTES", 1000)
    with pytest.raises(FormatError, match=rf"^dir/{name}: .*{message}"):
        points(content, f"dir/{name}", MICROGRAPH)


def test_positions_without_z_do_not_fall_on_the_first_slice() -> None:
    with pytest.raises(FormatError, match="there is no z, and the tomogram has 100 slices"):
        points("x,y\n1,2\n", "a.csv")


# Real files


@REAL
def test_a_real_cbox_beside_its_independent_reader() -> None:
    path = DATA / "formats/cbox/TcdA1-0018_frames_sum.cbox"
    table = starfile.read(path)["cryolo"]
    grid = Sampling((1, 4096, 4096), (1.14, 1.14, 1.14))
    (found,) = read_picks(path.read_bytes(), str(path), grid)
    assert len(found) == len(table) == 120
    corner = table[["CoordinateY", "CoordinateX"]].to_numpy(float)
    np.testing.assert_allclose(found.points_angstrom[:, 1:], (corner + 110) * 1.14)
    np.testing.assert_allclose(found.scores, table["Confidence"].to_numpy(float))
    # A box may be cut by the border, its middle lies on the micrograph.
    assert grid.contains(found.points_angstrom).all()


@REAL
def test_real_picks_of_template_matching_lie_in_their_tomogram() -> None:
    path = DATA / "formats/picks/SPEF1MT2_001_8.48Apx_particles.star"
    grid = Sampling((250, 1100, 1100), (8.48, 8.48, 8.48))
    (found,) = read_picks(path.read_bytes(), str(path), grid, tomogram="SPEF1MT2_001")
    table = starfile.read(path)
    assert len(found) == len(table) == 2500
    voxels = table[[f"rlnCoordinate{axis}" for axis in "ZYX"]].to_numpy(float)
    np.testing.assert_allclose(grid.to_voxels(found.points_angstrom), voxels)


@REAL
@pytest.mark.parametrize(
    ("file", "tomogram", "pixel", "first"),
    [
        ("relion_3.0.star", "01006_10.73Apx", 5.364, [422.955, 733.955, 1028.455]),
        ("relion_3.1_optics.star", "0002_12.23Apx", 2.446, [938.008, 1480.63, 915.549]),
    ],
)
def test_real_particles_of_warp(file, tomogram, pixel, first) -> None:
    path = DATA / "formats/star" / file
    grid = Sampling((500, 928, 960), (10.73, 10.73, 10.73))
    (found,) = read_picks(path.read_bytes(), str(path), grid, tomogram=tomogram)
    shift = [7.24711, -2.69889, -0.25289] if "3.1" in file else [0, 0, 0]
    np.testing.assert_allclose(found.points_angstrom[0], np.multiply(first, pixel) - shift)


@REAL
def test_the_centres_of_the_real_micrographs() -> None:
    grid = Sampling((1, 1200, 1240), (1.5, 1.5, 1.5))
    for path in sorted((DATA / "micrographs").glob("*.csv")):
        found = read_picks(path.read_bytes(), str(path), grid)
        assert [each.name for each in found] == ["particle"]
        assert sum(map(len, found)) == len(path.read_text().splitlines()) - 1
        assert all(grid.contains(each.points_angstrom).all() for each in found)
