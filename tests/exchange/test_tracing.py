"""Tracing other programs' evidence: whatever a file holds, the same lines come out."""

import json
import sys
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile
import tifffile
import zarr
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from tomoseg import cli
from tomoseg.core.coordinates import frames, resample
from tomoseg.io.points.angles import relion_angles
from tomoseg.io.points.tables import read_filaments_csv
from tomoseg.io.volumes.turns import file_voxels

DATA = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
SHAPE, VOXEL = (60, 90, 150), 12.0
ENDS = np.array([[(30, 25, 12), (30, 70, 138)], [(28, 75, 15), (34, 20, 100)]]) * VOXEL
RADIUS = 100.0


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
def tubes():
    """Score map of two tubes that cross, 0..1, soft over a voxel."""
    places = VOXEL * np.moveaxis(np.indices(SHAPE), 0, -1)
    score = np.zeros(SHAPE)
    for begin, end in ENDS:
        share = (places - begin) @ (end - begin) / np.sum((end - begin) ** 2)
        away = np.linalg.norm(places - begin - share[..., None] * (end - begin), axis=-1)
        tube = ((RADIUS - away) / VOXEL + 0.5).clip(0, 1)
        score = np.maximum(score, np.where((share >= 0) & (share <= 1), tube, 0))
    return score.astype(np.float32)


def write_mrc(path, voxels, voxel=VOXEL):
    with mrcfile.new(path) as file:
        file.set_data(voxels)
        file.voxel_size = voxel
    return path


def correlations(tubes):
    noise = np.random.default_rng(0).normal(0.05, 0.02, SHAPE)
    return (noise + 0.4 * tubes**2).astype(np.float32)


EVIDENCE = {
    "mask": (lambda t: (t > 0.5).astype(np.int8), []),
    "labels": (lambda t: np.where(t > 0.5, 3, 5 * (t > 0.1)).astype(np.int8), ["--label", 3]),
    "probabilities": (lambda t: t, []),
    "ais": (lambda t: np.rint(255 * t).astype(np.float32), ["--scale", "ais"]),
    "int8": (lambda t: np.rint(127 * t).astype(np.int8), []),
    "logits": (lambda t: (16 * t - 8).astype(np.float32), ["--scale", "logits"]),
    "correlations": (correlations, ["--scale", "correlation"]),
    "range": (lambda t: (3000 * t - 700).astype(np.int16), ["--scale=-700,2300"]),
    "threshold": (lambda t: (3000 * t - 700).astype(np.int16), ["--scale", "800,800"]),
}


def away(points, lines=ENDS):
    """Distance of points from the nearest of straight lines."""
    parts = [np.linalg.norm(np.cross(points - a, (b - a)), axis=1) for a, b in lines]
    return np.min([p / np.linalg.norm(b - a) for p, (a, b) in zip(parts, lines, strict=True)], 0)


def check_two_tubes(path, furthest=0.3 * RADIUS):
    found = read_filaments_csv(path.read_text())
    assert len(found) == 2
    for line in found:
        assert np.median(away(line.points_angstrom)) < 0.1 * RADIUS
        assert away(line.points_angstrom).max() < furthest
    lengths = sorted(line.length_angstrom for line in found)
    true = sorted(np.linalg.norm(ENDS[:, 1] - ENDS[:, 0], axis=1))
    np.testing.assert_allclose(lengths, true, atol=RADIUS)


@pytest.mark.parametrize("axes", ["rotx", "yzx"])
def test_a_map_whose_axes_are_exchanged_gives_the_same_lines(tomoseg, tmp_path, tubes, axes):
    path = write_mrc(tmp_path / "other.mrc", file_voxels(tubes, axes))
    words = ["trace", path, "--as", "tube", "--radius", RADIUS, "-o", tmp_path / "out"]
    code, said, _ = tomoseg(*words, "--set", f"source.axes={axes}")
    assert code == 0
    assert f"note: read with source.axes: {axes}" in said
    check_two_tubes(tmp_path / "out" / "other__tube.csv")
    code, said, _ = tomoseg("info", path, "--axes", axes)
    assert f"voxels (xyz)      {SHAPE[2]} × {SHAPE[1]} × {SHAPE[0]}" in said
    assert f"in 3 of {SHAPE[1]} slices" in said


@pytest.mark.parametrize("kind", EVIDENCE)
def test_any_map_gives_the_same_lines(tomoseg, tmp_path, tubes, kind):
    convert, how = EVIDENCE[kind]
    path = write_mrc(tmp_path / "other.mrc", convert(tubes))
    out = tmp_path / "out"
    code, said, err = tomoseg("trace", path, "--as", "tube", "--radius", RADIUS, "-o", out, *how)
    assert (code, err.count("error")) == (0, 0)
    assert "2 filaments, 0." in said
    check_two_tubes(out / "other__tube.csv")
    table = starfile.read(out / "other__tube.star", always_dict=True)["particles"]
    assert sorted(table["rlnHelicalTubeID"].unique()) == [1, 2]
    numbers = pd.read_csv(out / "other__tube__measures.csv")
    assert (numbers["straightness"] > 0.99).all()
    record = json.loads((out / "other__tube__trace.json").read_text())
    assert record["settings"]["radius_angstrom"] == RADIUS
    assert record["read_as"]["name"] == {"labels": "label 3", "correlations": "correlation"}.get(
        kind, {"probabilities": "probability", "threshold": "range"}.get(kind, kind)
    )


def test_tiff_and_zarr_are_read_too(tomoseg, tmp_path, tubes):
    tifffile.imwrite(tmp_path / "a.tif", (tubes > 0.5).astype(np.uint8))
    group = zarr.create_group(tmp_path / "b.zarr")
    group.create_array("0", data=(tubes > 0.5).astype(np.uint8))
    axes = [{"name": n, "type": "space", "unit": "angstrom"} for n in "zyx"]
    scale = [{"type": "scale", "scale": [VOXEL] * 3}]
    levels = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": levels}]}
    for name, how in (("a.tif", ["--voxel-size", VOXEL]), ("b.zarr", [])):
        words = ["--as", "tube", "--radius", RADIUS, "-o", tmp_path / "out", *how]
        code, _, err = tomoseg("trace", tmp_path / name, *words)
        assert (code, err.count("error")) == (0, 0)
        check_two_tubes(tmp_path / "out" / f"{name[0]}__tube.csv")


def test_any_blocks_give_the_same_lines(tomoseg, tmp_path, tubes):
    path = write_mrc(tmp_path / "other.mrc", tubes)
    for name, shape in (("one", "[64,128,256]"), ("many", "[32,48,64]")):
        words = ["--as", "tube", "--radius", RADIUS, "-o", tmp_path / name]
        assert tomoseg("trace", path, *words, "--set", f"blocks.shape={shape}")[0] == 0
    one, many = (tmp_path / name / "other__tube.csv" for name in ("one", "many"))
    assert one.read_bytes() == many.read_bytes()


@pytest.mark.parametrize(
    ("voxels", "words", "message"),
    [
        ([0, 1, 2, 3], ["--radius", 60], "--label"),
        ([0, 1], [], "Use --radius"),
        ([0, 1], ["--radius", 60, "--scale", "loud"], "--scale loud is none of"),
        ([0, 1], ["--radius", 60, "--scale", "2,1"], "must not be above"),
        ([0, 1], ["--radius", 60, "--scale", "mask", "--label", 1], "leave out --scale"),
        ([0, 1], ["--radius", 5], "at least 1 is needed"),
        ([0, 1], ["--radius", -5], "radius_angstrom: Input should be greater than 0"),
        ([0, 1], ["--radius", 60, "--tomogram", "a.mrc"], "for tables of picks"),
    ],
)
def test_requests_that_are_wrong_are_named(tomoseg, tmp_path, voxels, words, message):
    grid = np.resize(np.array(voxels, np.int8), (8, 8, 8))
    path = write_mrc(tmp_path / "other.mrc", grid)
    code, _, err = tomoseg("trace", path, "-o", tmp_path / "out", *words)
    assert code == 2
    assert message in err


def test_a_map_of_nothing_gives_no_line(tomoseg, tmp_path):
    path = write_mrc(tmp_path / "other.mrc", np.zeros((30, 30, 30), np.int8))
    words = ["trace", path, "-o", tmp_path / "out", "--as", "microtubule"]
    code, said, _ = tomoseg(*words)
    assert code == 0
    assert "0 filaments" in said
    assert (tmp_path / "out" / "other__microtubule__measures.csv").read_text().count("\n") == 1


# Picks


def pick_table(rng, *, is_oriented, strays=8):
    """Picks 42 Å apart on the two tubes, off by some Å and some degrees, with a gap; strays."""
    parts = [resample(ends, 42.0) for ends in ENDS]
    parts[0] = np.delete(parts[0], slice(14, 20), axis=0)  # 29 nm
    lost = Rotation.random(strays, rng=1).as_matrix()
    turned = np.concatenate([*(frames(part) for part in parts), lost])
    points = np.concatenate([*parts, rng.uniform(0, VOXEL * np.array(SHAPE), (strays, 3))])
    points[:-strays] += rng.normal(0, 6, points[:-strays].shape)
    columns = dict(zip([f"rlnCoordinate{a}" for a in "ZYX"], (points / 8).T, strict=True))
    if is_oriented:
        names = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
        columns |= dict(zip(names, relion_angles(turned).T, strict=True))
    return pd.DataFrame(columns | {"rlnMicrographName": "TS_01.tomostar"})


@pytest.mark.parametrize("is_oriented", [True, False])
@pytest.mark.parametrize("place", ["stated", "voxel size", "tomogram"])
def test_picks_are_linked_to_the_tubes_they_lie_on(tomoseg, tmp_path, is_oriented, place):
    table = pick_table(np.random.default_rng(1), is_oriented=is_oriented)
    how = ["--voxel-size", 8] if place == "voxel size" else []
    if place == "tomogram":
        how = ["--tomogram", write_mrc(tmp_path / "TS_01.mrc", np.zeros((90, 135, 225), "i1"), 8)]
    if place == "stated":
        table["rlnDetectorPixelSize"] = 8.0
    starfile.write({"particles": table}, tmp_path / "picks.star")
    words = ["--as", "tube", "--radius", RADIUS, "-o", tmp_path / "out", *how]
    code, said, err = tomoseg("trace", tmp_path / "picks.star", *words)
    assert (code, err.count("error")) == (0, 0)
    assert f"directions from: {'orientations' if is_oriented else 'neighbours'}" in said
    # A stray pick beside the gap draws the line aside, within the tube.
    check_two_tubes(tmp_path / "out" / "TS_01__tube.csv", furthest=RADIUS)
    # RELION counts from the tomogram's centre: without its size there is no such table.
    assert (tmp_path / "out" / "TS_01__tube.star").exists() == (place == "tomogram")


def test_how_picks_were_read_is_said_and_can_be_changed(tomoseg, tmp_path):
    table = pick_table(np.random.default_rng(1), is_oriented=True)
    table["rlnDetectorPixelSize"] = 4.0  # wrong
    other = table.assign(rlnMicrographName="TS_02.tomostar")
    starfile.write({"particles": pd.concat([table, other])}, tmp_path / "picks.star")
    tomogram = write_mrc(tmp_path / "TS_01.mrc", np.zeros((90, 135, 225), "i1"), 8)
    words = ["trace", tmp_path / "picks.star", "--as", "tube", "--radius", RADIUS]
    words += ["--tomogram", tomogram, "-o", tmp_path / "out"]
    code, said, _ = tomoseg(*words, "--pixel-size", 8)
    assert code == 0
    number = len(table)
    assert f"table: TS_01: {number} particles; {number} rows of TS_02 left out; pixels of 8" in said
    check_two_tubes(tmp_path / "out" / "TS_01__tube.csv", furthest=RADIUS)
    assert "pixels of 4 Å (rlnDetectorPixelSize; --pixel-size changes it)" in tomoseg(*words)[1]
    code, said, _ = tomoseg(*words, "--rows-of", "TS_02", "--pixel-size", 8)
    assert (code, "the rows of TS_02 taken to be its own" in said) == (0, True)
    code, _, err = tomoseg(*words, "--block", "optics")
    assert (code, "no block with positions is called 'optics'" in err) == (2, True)


def test_picks_that_say_not_where_they_are_are_refused(tomoseg, tmp_path):
    table = pick_table(np.random.default_rng(1), is_oriented=False)
    path, words = tmp_path / "picks.star", ["--as", "tube", "--radius", RADIUS, "-o", tmp_path]
    starfile.write({"particles": table}, path, overwrite=True)
    assert "--voxel-size" in tomoseg("trace", path, *words)[2]
    centred = table.drop(columns="rlnMicrographName").rename(
        columns=lambda name: name.replace("Coordinate", "CenteredCoordinate") + "Angst"
    )
    starfile.write({"particles": centred.assign(rlnTomoName="TS_01")}, path, overwrite=True)
    code, _, err = tomoseg("trace", path, *words, "--voxel-size", 8)
    assert (code, "Give the --tomogram." in err) == (2, True)
    table["rlnMicrographName"] = np.where(table.index < 20, "TS_01", "TS_02")
    starfile.write({"particles": table}, path, overwrite=True)
    code, _, err = tomoseg("trace", path, *words, "--voxel-size", 8)
    assert (code, "picks of 2 tomograms: TS_01, TS_02" in err) == (2, True)


def test_a_table_of_several_classes_is_asked_for_one(tomoseg, tmp_path):
    points = np.concatenate([resample(ends, 42.0) for ends in ENDS])
    table = pd.DataFrame(points, columns=["z_angstrom", "y_angstrom", "x_angstrom"])
    names = np.where(table.index < len(resample(ENDS[0], 42.0)), "tube", "rope")
    table.assign(**{"class": names}).to_csv(tmp_path / "picks.csv", index=False)
    words = ["trace", tmp_path / "picks.csv", "--radius", RADIUS, "-o", tmp_path]
    code, _, err = tomoseg(*words)
    assert (code, "picks of tube, rope" in err) == (2, True)
    assert tomoseg(*words, "--as", "tube")[0] == 0
    (line,) = read_filaments_csv((tmp_path / "picks__tube.csv").read_text())
    assert away(line.points_angstrom, ENDS[:1]).max() < 0.2 * RADIUS


def across(kind, width, number, rng):
    """Where hits lie across their filament: a ribbon 20 Å thick, two rows, a wall, all of it."""
    turn = rng.uniform(0, 2 * np.pi, number)
    away = width / 2 * (np.sqrt(rng.uniform(0, 1, number)) if kind == "full" else 1)
    flat = rng.uniform(-10, 10, number)
    return np.stack(
        {
            "ribbon": (rng.uniform(-width / 2, width / 2, number), flat),
            "rows": (width / 2 * rng.choice([-1, 1], number), flat),
            "wall": (away * np.cos(turn), away * np.sin(turn)),
            "full": (away * np.cos(turn), away * np.sin(turn)),
        }[kind],
        axis=1,
    )


def hit_table(lines, *, apart, kind, width, gap=0, strays=0, is_oriented=False):
    """Hits at random along straight lines and across them; strays anywhere."""
    rng = np.random.default_rng(5)
    points, turned = [], []
    for begin, end in np.array(lines, float):
        length, frame = np.linalg.norm(end - begin), frames(np.array([begin, end]))[0]
        track = rng.uniform(0, length, int(length / apart))
        track = track[np.abs(track - length / 2) >= gap / 2]
        beside = across(kind, width, len(track), rng) @ frame[:, :2].T
        points.append(begin + track[:, None] * frame[::-1, 2] + beside[:, ::-1])
        wobble = Rotation.from_rotvec(rng.normal(0, 0.1, (len(track), 3))).as_matrix()
        turned.append(wobble @ frame)
    low, high = np.min(lines, axis=(0, 1)) - 500, np.max(lines, axis=(0, 1)) + 500
    points.append(rng.uniform(low, high, (strays, 3)))
    turned.append(Rotation.random(strays, rng=1).as_matrix().reshape(-1, 3, 3))
    columns = [f"rlnCoordinate{a}" for a in "ZYX"]
    table = pd.DataFrame(np.concatenate(points), columns=columns).assign(rlnDetectorPixelSize=1.0)
    if is_oriented:
        names = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
        table[names] = relion_angles(np.concatenate(turned))
    return table


APART = [[(0, 0, 0), (600, 0, 4950)], [(1500, 800, 0), (900, 1200, 4950)]]
LONG = [[(0, 0, 0), (0, 900, 8955)], [(300, 2000, 0), (600, 1000, 8940)]]
BESIDE = [[(0, 0, 0), (0, 0, 5000)], [(0, 350, 0), (0, 350, 5000)]]
CROSSING = [[(0, 0, -2500), (0, 0, 2500)], [(60, -1800, -1800), (60, 1800, 1800)]]


# A line stays in its tube; of few hits in a wide ribbon, in that. At its very end, where hits are
# few, one on one side or a stray draws it somewhat further.
@pytest.mark.parametrize(
    ("lines", "how", "furthest"),
    [
        (LONG, {"apart": 7.2, "kind": "ribbon", "width": 400}, 125),
        (LONG, {"apart": 58, "kind": "ribbon", "width": 400}, 200),
        (APART, {"apart": 7.2, "kind": "ribbon", "width": 500, "is_oriented": True}, 125),
        (APART, {"apart": 20, "kind": "ribbon", "width": 60, "strays": 30}, 160),
        (APART, {"apart": 20, "kind": "ribbon", "width": 250, "gap": 400}, 125),
        (APART, {"apart": 30, "kind": "rows", "width": 250, "strays": 5}, 160),
        (APART, {"apart": 30, "kind": "wall", "width": 250, "is_oriented": True}, 125),
        (APART, {"apart": 20, "kind": "full", "width": 250}, 125),
        (BESIDE, {"apart": 20, "kind": "ribbon", "width": 150}, 125),
        (BESIDE, {"apart": 58, "kind": "rows", "width": 60, "is_oriented": True}, 125),
        (CROSSING, {"apart": 20, "kind": "ribbon", "width": 60}, 125),
        (CROSSING, {"apart": 20, "kind": "ribbon", "width": 250, "is_oriented": True}, 125),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_hits_across_a_tube_are_one_line(tomoseg, tmp_path, lines, how, furthest):
    starfile.write({"particles": hit_table(lines, **how)}, tmp_path / "picks.star")
    code, said, _ = tomoseg("trace", tmp_path / "picks.star", "--as", "microtubule", "-o", tmp_path)
    assert (code, "2 filaments" in said) == (0, True)
    found = read_filaments_csv((tmp_path / "picks__microtubule.csv").read_text())
    for line in found:
        off = away(line.points_angstrom, np.array(lines, float))
        assert np.median(off) < 0.4 * 125
        assert off.max() < furthest
        length = np.linalg.norm(np.subtract(*lines[0]))
        assert line.length_angstrom == pytest.approx(length, rel=0.08)


@pytest.mark.skipif(not DATA.exists(), reason="the real data are not beside the repository")
def test_real_template_matching_picks_lie_on_ten_microtubules(tomoseg, tmp_path):
    name = "SPEF1MT2_001_8.48Apx"
    path = DATA / "formats" / "picks" / f"{name}_particles.star"
    code, said, _ = tomoseg("trace", path, "--as", "microtubule", "-o", tmp_path)
    assert code == 0
    assert "directions from: orientations" in said
    # Seen by eye in a plot of the picks: ten lines side by side, in groups of six, three and one,
    # nine of them across the field of 12 000 Å or most of it.
    numbers = pd.read_csv(tmp_path / f"{name}__microtubule__measures.csv")
    assert len(numbers) == 10
    assert numbers["length_angstrom"].between(8000, 12300).all()
    assert numbers["length_angstrom"].sum() == pytest.approx(114_000, rel=0.01)
    assert (numbers["straightness"] > 0.99).all()
    lines = read_filaments_csv((tmp_path / f"{name}__microtubule.csv").read_text())
    picks = starfile.read(path)
    points = 8.48 * picks[[f"rlnCoordinate{axis}" for axis in "ZYX"]].to_numpy()
    course = np.concatenate([resample(line.points_angstrom, 5.0) for line in lines])
    assert (cKDTree(course).query(points)[0] < 50).mean() > 0.99
