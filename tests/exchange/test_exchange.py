"""To other programs and back: a finished session's points, and what comes from outside."""

from __future__ import annotations

import shutil
import sys
import uuid
from dataclasses import dataclass

import fsspec
import mrcfile
import numpy as np
import pytest
import starfile
import tifffile
from pydantic import ValidationError
from scipy.spatial.transform import Rotation

from tomoseg import cli
from tomoseg.compute.runners import SerialRunner
from tomoseg.core.blocks import Box
from tomoseg.core.errors import FormatError, RequestError, VoxelSizeError
from tomoseg.core.events import untold
from tomoseg.evaluation import evaluate_folders
from tomoseg.exchange.exports import export_points
from tomoseg.exchange.imported import read_imported
from tomoseg.exchange.imports import ImportRequest, import_file
from tomoseg.exchange.tomograms import tomograms_at
from tomoseg.io.points.registry import DIALECTS
from tomoseg.io.stores import Folder, Volume
from tomoseg.pipeline.exports import ExportRequest, renew_exports, write_session
from tomoseg.pipeline.results import finished_results
from tomoseg.pipeline.session import plan_session, run_session
from tomoseg.pipeline.stages import Context, run_stage
from tomoseg.recipe.export import ExportSection
from tomoseg.recipe.recipe import load_recipe, recipe_from

SHAPE, VOXEL = (20, 40, 57), 10.0
# The tilt series, unbinned; rounded up, as reconstruction programs do.
PIXEL, SIZE_XYZ = 5.0, (116, 80, 40)
SPACING = 27.5
SUFFIXES = {
    **dict.fromkeys(("relion5", "relion4", "warp"), "{}.star"),
    "dynamo": "{}.tbl",
    "stopgap": "{}__motl.star",
    "av3": "{}__motl.em",
    "portal": "{}_*point.ndjson",
    **dict.fromkeys(("csv", "tardis"), "{}.csv"),
    "imod": "t1.mod",
    "amira": "t1.am",
    "eman2": "t1_info.json",
}
HAS_SCORES = ("relion5", "relion4", "warp", "dynamo", "stopgap", "av3", "amira", "eman2", "copick")
NO_ORIENTATIONS = ("imod", "amira", "eman2")


@dataclass
class Truth:
    """Points planted in a tomogram: lines of equal steps, so that sampling meets every point."""

    lines: list
    places: np.ndarray
    scores: np.ndarray
    orientations: np.ndarray


def truth_of(seed, particles):
    rng = np.random.default_rng(seed)
    starts = ((50.0, 60.0, 70.0), (120.0, 300.0, 400.0))
    steps = ((0.48, 0.64, 0.6), (0.0, -0.8, -0.6))
    lines = [
        np.array(start) + SPACING * np.outer(np.arange(5), step)
        for start, step in zip(starts, steps, strict=True)
    ]
    places = rng.uniform(0, np.array(SHAPE) * VOXEL - VOXEL, (particles, 3))
    turned = Rotation.random(particles, random_state=seed).as_matrix() if particles else []
    orientations = np.reshape(turned, (-1, 3, 3))
    return Truth(lines, places, rng.uniform(0.1, 1, particles), orientations)


TRUTH = {"t1": truth_of(1, 7), "t2": truth_of(2, 3)}


def write_volume(path, voxels, *, voxel=VOXEL, origin=(0, 0, 0)):
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(voxels)
        file.set_volume()
        file.voxel_size = voxel
        file.header.origin = origin
    return path


def plant(output, name):
    """Put the truth in place of what was found."""
    records, truth = Folder(f"{output}/{name}/.tomoseg"), TRUTH[name]
    lines = {
        "points_angstrom": np.concatenate(truth.lines),
        "lengths": np.array([len(line) for line in truth.lines]),
        "scores": np.array([0.75, 0.5]),
    }
    records.write_arrays("filaments/actin.npz", lines)
    picks = {
        "points_angstrom": truth.places,
        "scores": truth.scores,
        "orientations": truth.orientations,
    }
    records.write_arrays("particles/ribosome.npz", picks)
    nothing = {key: values[:0] for key, values in picks.items()}
    records.write_arrays("particles/carbon_edge.npz", nothing)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_model):
    """A session of two tomograms with the truth planted, and one that failed; its result too."""
    folder = tmp_path_factory.mktemp("exchange")
    (folder / "in").mkdir()
    voxels = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    write_volume(folder / "in" / "t1.mrc", voxels, origin=(-60, 24, 120))
    whole = write_volume(folder / "in" / "t2.mrc", voxels).read_bytes()
    (folder / "in" / "bad.mrc").write_bytes(whole[:5000])
    values = {
        "session": {"input": str(folder / "in"), "output": str(folder / "out")},
        "source": {"voxel_size_angstrom": None},
        "segment": {"model": str(tiny_model), "rescale": "auto"},
        "trace": {"actin": {"radius_angstrom": 35}},
        "pick": {"ribosome": {}, "carbon_edge": {}},
        "export": {
            "masks": False,
            "tilt_series_pixel_size_angstrom": PIXEL,
            "tilt_series_size_xyz": SIZE_XYZ,
        },
        "compute": {"runner": "serial"},
    }
    session = plan_session(recipe_from(values))
    result = run_session(session, lambda *progress: None)
    for name in TRUTH:
        plant(folder / "out", name)
    write_session(session.output)
    return folder / "out", result, session


@pytest.fixture
def output(finished, tmp_path):
    """A copy of the finished session that a test may change."""
    shutil.copytree(finished[0], tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def tomoseg(monkeypatch, capsys):
    """Return a function that runs a command and gives exit code, output and errors."""

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


def imported(output, name="t1"):
    group = tomograms_at(str(output), wanted=[name])
    return read_imported(group.home, group.tomograms[0]).points


def is_same_lines(found, wanted, voxels=0.01):
    assert [line.number for line in found] == list(range(1, len(wanted) + 1))
    for line, points in zip(found, wanted, strict=True):
        np.testing.assert_allclose(line.points_angstrom, points, rtol=0, atol=voxels * VOXEL)
    return True


def files_for(dialect, folder, name):
    """Return the file of a class among those of a tomogram."""
    if dialect == "copick":
        kind = "Filaments" if name == "actin" else "Picks"
        return folder / "copick" / "ExperimentRuns" / "t1" / kind / f"tomoseg_0_{name}.json"
    (file,) = folder.glob(SUFFIXES[dialect].format(f"t1__{name}"))
    return file


def test_every_dialect_is_a_name_of_a_recipe():
    assert ExportSection(dialects=list(DIALECTS)).dialects == tuple(DIALECTS)
    with pytest.raises(ValidationError, match=r"'relion6' is none of relion5, .*, tardis"):
        ExportSection(dialects=["csv", "relion6"])


# There and back


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_dialect_comes_back(finished, output, tmp_path, dialect):
    into = tmp_path / "files"
    request = ExportRequest(dialect, tomograms=("t1",), into=str(into))
    done = export_points(str(finished[0]), request)
    assert done.filaments == 2
    assert {str(p.relative_to(into)) for p in into.rglob("*") if p.is_file()} == set(done.files)
    for name in ("actin", "ribosome"):
        if name == "ribosome" and dialect == "tardis":
            assert done.notes[-1] == (
                "tardis has no place for particles: ribosome, carbon_edge left out"
            )
            continue
        several = dialect in NO_ORIENTATIONS
        file = str(files_for(dialect, into, name))
        import_file(
            ImportRequest(file, f"{output}/t1", f"my_{name}", only=name if several else None)
        )
    points, truth = imported(output), TRUTH["t1"]
    assert is_same_lines(points.filaments, truth.lines)
    assert {line.name for line in points.filaments} == {"my_actin"}
    if dialect == "tardis":
        return
    (picks,) = points.particles
    np.testing.assert_allclose(picks.points_angstrom, truth.places, rtol=0, atol=0.01 * VOXEL)
    if dialect not in NO_ORIENTATIONS:
        np.testing.assert_allclose(picks.orientations, truth.orientations, atol=1e-4)
    known = truth.scores if dialect in (*HAS_SCORES, "csv") else np.full(7, np.nan)
    np.testing.assert_allclose(picks.scores, known, atol=1e-4)


@pytest.mark.parametrize("dialect", [n for n, k in DIALECTS.items() if k.dialect.scope == "class"])
def test_nothing_found_is_no_error_to_write_and_one_to_import(finished, output, tmp_path, dialect):
    request = ExportRequest(dialect, classes=("carbon_edge",), into=str(tmp_path / "files"))
    done = export_points(str(finished[0]), request)
    assert (done.filaments, done.particles) == (0, 0)
    for path in done.files:
        if path.endswith((".tbl", ".em", ".csv")) or path.endswith("edge.star"):
            with pytest.raises((RequestError, FormatError)):
                import_file(ImportRequest(str(tmp_path / "files" / path), f"{output}/t1", "x"))
    assert not (output / "imported").exists()


def test_the_two_tomograms_together(finished, output):
    folder, result, _ = finished
    states = {row["name"]: row["state"] for row in result["tomograms"]}
    assert states == {"t1": "done", "t2": "done", "bad": "failed"}
    assert result["together"]["left_out"] == ["bad"]
    assert "session/relion5/actin.star" in result["together"]["files"]
    chosen = starfile.read(folder / "session" / "relion5" / "ribosome__optimisation_set.star")
    particles, tomograms = (
        starfile.read(folder / chosen[f"rlnTomo{kind}File"][0], parse_as_string=["rlnTomoName"])
        for kind in ("Particles", "Tomograms")
    )
    assert particles["particles"]["rlnTomoName"].tolist() == ["t1"] * 7 + ["t2"] * 3
    assert tomograms["rlnTomoName"].tolist() == ["t1", "t2"]
    assert tomograms[[f"rlnTomoSize{a}" for a in "XYZ"]].values.tolist() == [list(SIZE_XYZ)] * 2
    # RELION's centre is half of the tilt series' size: 580, 400, 200 / 2 Å.
    centred = particles["particles"][[f"rlnCenteredCoordinate{a}Angst" for a in "XYZ"]].to_numpy()
    wanted = TRUTH["t2"].places[:, ::-1] - (290, 200, 100)
    np.testing.assert_allclose(centred[7:], wanted, atol=1e-4)
    for dialect in ("relion5", "csv"):
        (file,) = (folder / "session" / dialect).glob("actin.*")
        import_file(ImportRequest(str(file), str(output), f"from_{dialect}"))
    for name, truth in TRUTH.items():
        for dialect in ("relion5", "csv"):
            lines = [f for f in imported(output, name).filaments if f.name == f"from_{dialect}"]
            assert is_same_lines(lines, truth.lines)


def test_files_together_are_made_anew(output):
    target = Folder(str(output))
    before = {p: p.stat().st_mtime_ns for p in (output / "session").rglob("*.*")}
    write_session(target)
    assert {p: p.stat().st_mtime_ns for p in (output / "session").rglob("*.*")} == before
    (output / "session" / "notes.txt").write_text("a person's")
    Folder(f"{output}/t2").remove("manifest.json")
    assert set(write_session(target)["left_out"]) == {"t2", "bad"}
    assert (output / "session" / "notes.txt").exists()
    table = starfile.read(output / "session" / "relion5" / "ribosome.star")["particles"]
    assert set(table["rlnTomoName"]) == {"t1"}


def test_a_recipe_writes_its_dialects_in_folders_of_their_own(output, finished):
    values = finished[2].recipe.model_dump(mode="json")
    values["export"] |= {"dialects": list(DIALECTS), "flip_z": True}
    values["session"]["output"] = str(output)
    session = plan_session(recipe_from(values))
    found = next(one for one in session.tomograms if one.name == "t1")
    context = session.context(found, SerialRunner(), lambda *progress: None)
    summary = run_stage(context, "export")["summary"]
    assert "tardis has no place for particles: ribosome, carbon_edge left out" in summary["notes"]
    own = {path.partition("/")[0] for path in summary["files"]} & set(DIALECTS)
    assert own == set(DIALECTS) - {"relion5", "csv"}
    assert all((output / "t1" / path).is_file() for path in summary["files"])
    # Slice z becomes 19 - z; our own table stays as the tomogram is.
    (line, _), places = TRUTH["t1"].lines, TRUTH["t1"].places
    star = starfile.read(output / "t1" / "filaments" / "t1__actin.star")["particles"]
    heights = star["rlnCenteredCoordinateZAngst"][:5] + 100
    np.testing.assert_allclose(heights, 190 - line[:, 0], atol=1e-4)
    tbl = np.loadtxt(output / "t1" / "dynamo" / "t1__ribosome.tbl")
    np.testing.assert_allclose(tbl[:, 25], 19 - places[:, 0] / 10 + 0.5, atol=1e-5)
    csv = np.genfromtxt(output / "t1" / "particles" / "t1__ribosome.csv", delimiter=",", names=True)
    np.testing.assert_allclose(csv["z_angstrom"], places[:, 0], atol=1e-5)


def test_options_of_the_command_go_before_the_recipe(finished, tmp_path, tomoseg):
    out = finished[0]
    common = ("export", out, "--to", "dynamo", "--tomogram", "t2", "--into")
    assert tomoseg(*common, tmp_path / "a", "--class", "ribosome", "--origin", "centre")[0] == 0
    table = np.loadtxt(tmp_path / "a" / "t2__ribosome.tbl")
    np.testing.assert_allclose(table[:, 23:26], TRUTH["t2"].places[:, ::-1] / 10, atol=1e-5)
    assert not (tmp_path / "a" / "t2__actin.tbl").exists()
    assert tomoseg(*common, tmp_path / "b", "--class", "actin", "--spacing", "actin=55")[0] == 0
    # Lines of 110 Å.
    assert len(np.loadtxt(tmp_path / "b" / "t2__actin.tbl")) == 6
    code, said, noted = tomoseg("export", out, "--to", "warp", "--together", "--into", tmp_path)
    assert code == 0
    assert noted == "left out, as it is not done: bad\n"
    assert said.endswith("4 filaments, 10 particles written as warp\n")
    table = starfile.read(tmp_path / "ribosome.star")
    assert len(table) == 10


def test_what_scores_less_is_left_out_and_counted(finished, tmp_path, tomoseg):
    scores = TRUTH["t1"].scores
    command = (
        "export",
        finished[0],
        "--to",
        "csv",
        "--class",
        "ribosome",
        "--tomogram",
        "t1",
        "--into",
    )
    _, _, error = tomoseg(*command, tmp_path / "a", "--minimum-score", 0.5)
    kept = (tmp_path / "a" / "t1__ribosome.csv").read_text().count("\n") - 1
    assert 0 < kept == (scores >= 0.5).sum() < len(scores)
    assert f"{len(scores) - kept} of {len(scores)} particles score below 0.5" in error
    _, said, _ = tomoseg(*command, tmp_path / "b", "--minimum-score", 2)
    assert "0 particles written as csv" in said


def test_there_and_back_without_a_disk(finished, tmp_path):
    """memory:// goes the way of s3://."""
    there = Folder(f"memory://{uuid.uuid4().hex}")
    try:
        for file in finished[0].rglob("*"):
            if file.is_file() and "tomogram.zarr" not in file.parts:
                there.write(str(file.relative_to(finished[0])), file.read_bytes())
        done = export_points(there.url, ExportRequest("stopgap", together=True))
        assert "session/stopgap/ribosome__motl.star" in done.files
        place = f"{there.url}/session/stopgap/ribosome__motl.star"
        import_file(ImportRequest(place, f"{there.url}/t2", "again"))
        (picks,) = imported(there.url, "t2").particles
        np.testing.assert_allclose(picks.points_angstrom, TRUTH["t2"].places, atol=0.1)
    finally:
        fsspec.filesystem("memory").store.clear()


# What is refused


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--to", "dynano"], "there is no dialect 'dynano'"),
        (["--to", "warp", "--class", "vesicle"], "there is no class vesicle; there is actin"),
        (["--to", "warp", "--tomogram", "t9"], "there is no tomogram t9; there is t1, t2"),
        (["--to", "warp", "--tomogram", "bad"], "there is no tomogram bad"),
        (["--to", "imod", "--together"], "imod has a file a tomogram"),
        (["--to", "csv", "--flip-z"], "csv is tomoseg's own table"),
        (["--to", "warp", "--spacing", "actin"], "is not CLASS=Å"),
        (["--to", "warp", "--spacing", "actin=-1"], "greater than or equal to 1"),
        (["--to", "warp", "--spacing", "vesicle=3"], "there is no class vesicle"),
        (["--to", "warp", "--imported"], "nothing was imported"),
    ],
)
def test_a_wrong_export_says_what_there_is(finished, tomoseg, arguments, says):
    before = sorted(finished[0].rglob("*"))
    code, _, error = tomoseg("export", finished[0], *arguments)
    assert code == 2
    assert says in error
    assert sorted(finished[0].rglob("*")) == before


def test_export_needs_a_session_and_lists_its_dialects(tomoseg, tmp_path):
    code, _, error = tomoseg("export", tmp_path, "--to", "warp")
    assert code == 2
    assert "there is no session in" in error
    code, said, _ = tomoseg("export", "--to", "list")
    assert code == 0
    assert [line.split()[0] for line in said.splitlines()] == list(DIALECTS)


def test_a_recipe_with_an_unknown_dialect_is_refused():
    with pytest.raises(RequestError, match=r"export\.dialects: 'dynano' is none of .*dynamo"):
        load_recipe(None, ["export.dialects=[relion5, dynano]"])
    assert load_recipe(None, ["export.dialects=imod"]).export.dialects == ("imod",)
    assert load_recipe(None, ["export.dialects=no"]).export.dialects == ()


@pytest.mark.parametrize("name", ["session", "imported"])
def test_a_tomogram_cannot_have_the_name_of_a_folder_of_ours(tmp_path, tiny_model, name):
    write_volume(tmp_path / f"{name}.mrc", np.zeros(SHAPE, np.float32))
    values = {
        "session": {"input": str(tmp_path), "output": str(tmp_path / "out")},
        "segment": {"model": str(tiny_model)},
    }
    with pytest.raises(RequestError, match=f"cannot be called {name}"):
        plan_session(recipe_from(values))


@pytest.mark.parametrize("name", ["../../evil", "a/b", "", " ", "réticule", "1st", "x" + "\n"])
def test_a_class_cannot_have_a_hostile_name(finished, output, name):
    file = finished[0] / "session" / "csv" / "ribosome.csv"
    with pytest.raises(RequestError, match="cannot be the name of a class"):
        import_file(ImportRequest(str(file), str(output), name))
    # Nor may somebody write one into a table later.
    import_file(ImportRequest(str(file), str(output), "fine"))
    table = output / "imported" / "t1__particles.csv"
    table.write_text(table.read_text().replace("fine", "../../evil"))
    with pytest.raises(RequestError, match="cannot be the name of a class"):
        export_points(str(output), ExportRequest("warp", imported=True))


STAR = "data_\nloop_\n_rlnTomoName\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnCoordinateZ\n"


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("a.csv", "x,y,z\n1,2,3\n", "cannot be told"),
        ("a.star", "data_\nloop_\n_rlnCoordinateX\n_rlnCoordinateY\n1 2\n", "cannot be told"),
        ("a.json", "{}", "cannot be told"),
        ("a.xyz", "1 2 3", "cannot be told"),
        ("a.mod", "IMODV1.2", "damaged"),
        ("a.tbl", "1 2 3", "columns"),
        ("a.csv", "tomogram,class,particle\n", "cannot be told"),
        (
            "a.star",
            "data_p\nloop_\n_x #1\n_x #2\n1 2\n",
            "a.star: block 'p' has the column x ",
        ),
        ("a.star", f"{STAR}TS_09 1 2 3\n", "a.star: rlnTomoName names TS_09, and none alone is t1"),
        ("a.star", f"{STAR}t10 1 2 3\n", "a.star: rlnTomoName names t10, and none alone is t1"),
    ],
)
def test_what_cannot_be_told_is_asked_for(output, tmp_path, tomoseg, file, content, says):
    (tmp_path / file).write_text(content)
    code, _, error = tomoseg("import", tmp_path / file, "--into", f"{output}/t1", "--as", "x")
    assert code == 2
    assert says in error
    assert not (output / "imported").exists()


def test_a_plain_table_is_read_when_it_is_said(output, tmp_path, tomoseg):
    (tmp_path / "a.csv").write_text("x,y,z\n1,2,3\n4,5,6\n")
    command = ("import", tmp_path / "a.csv", "--as", "vesicle", "--from", "picks", "--into")
    code, said, _ = tomoseg(*command, f"{output}/t1/tomogram.zarr")
    assert code == 0
    (picks,) = imported(output).particles
    assert picks.points_angstrom.tolist() == [[30, 20, 10], [60, 50, 40]]
    assert f"tomoseg evaluate {output} {output}/imported" in said
    assert f"tomoseg export {output} --imported --class vesicle --to NAME" in said
    code, _, error = tomoseg(*command, output)
    assert code == 2
    assert "the rows name no tomogram, nor is the file called after one of t1, t2" in error


def test_what_a_table_does_not_say_can_be_said(output, tmp_path, tomoseg):
    (tmp_path / "a.star").write_text(f"{STAR}b 1 2 3\nt1 4 5 6\n{STAR.replace('data_', 'data_x')}")
    command = ("import", tmp_path / "a.star", "--as", "vesicle", "--into", output)
    code, said, _ = tomoseg(*command)
    assert code == 0
    assert said.startswith(
        "t1: 1 particles, read as relion4; block data_, not data_x (--block takes another); 1 rows "
        "of b left out; pixels taken as the tilt series' of 5 Å, as the recipe says (no pixel size "
        "in the table; --pixel-size changes it)\nnothing of t2\n"
    )
    code, said, error = tomoseg(*command, "--tomogram", "t1", "--rows-of", "b", "--pixel-size", 20)
    assert (code, error) == (0, "")
    assert "the rows of b taken to be its own; 1 rows of t1 left out; pixels of 20 Å" in said
    (picks,) = imported(output).particles
    assert picks.points_angstrom.tolist() == [[60, 40, 20]]
    code, _, error = tomoseg(*command, "--block", "x")
    assert (code, "a.star holds no point of t1, t2" in error) == (2, True)
    code, _, error = tomoseg(*command, "--pixel-size", 0)
    assert (code, "a pixel of 0 Å is none" in error) == (2, True)


def test_a_file_called_after_one_of_several_tomograms_is_of_that(output, tmp_path, tomoseg):
    (tmp_path / "t2.box").write_text("10 20 4 4\n")
    command = ("import", tmp_path / "t2.box", "--as", "vesicle", "--into", output)
    code, _, error = tomoseg(*command)
    assert (code, "there is no CoordinateZ, and the tomogram has" in error) == (2, True)
    text = "data_cryolo\nloop_\n_CoordinateX\n_CoordinateY\n_CoordinateZ\n_Width\n_Height\n"
    (tmp_path / "t2.cbox").write_text(f"{text}10 20 7 4 4\n")
    code, said, _ = tomoseg(*command[:1], tmp_path / "t2.cbox", *command[2:])
    assert code == 0
    assert said.startswith("t2: 1 particles, read as picks; taken to be its rows by the name of")


def test_points_of_other_classes_stay_and_the_same_class_is_replaced(finished, output):
    folder = finished[0] / "session" / "csv"
    for name in ("one", "two", "one"):
        import_file(ImportRequest(str(folder / "ribosome.csv"), f"{output}/t1", name))
    assert sorted((t.name, len(t)) for t in imported(output).particles) == [("one", 7), ("two", 7)]
    request = ExportRequest("warp", imported=True, classes=("two",), together=True)
    assert export_points(str(output), request).files == ("session/warp/two.star",)
    mixed = output / "imported" / "t1__particles.csv"
    with pytest.raises(RequestError, match="several classes: one, two"):
        import_file(ImportRequest(str(mixed), f"{output}/t1", "three"))


def test_what_an_export_wrote_follows_its_points(output, caplog):
    """It is left alone while they stay, written anew when they change, and goes with its class."""
    folder = Folder(str(output))
    request = ExportRequest("dynamo", tomograms=("t1",), classes=("ribosome",))
    (table,) = (path for path in export_points(folder.url, request).files if path.endswith(".tbl"))
    folder.write("t1/dynamo/mine.tbl", b"a person's")
    folder.write(table, b"edited")
    renew_exports(folder)
    assert folder.read(table) == b"edited"
    records = folder / "t1" / ".tomoseg"
    picks = records.read_arrays("particles/ribosome.npz")
    records.write_arrays("particles/ribosome.npz", {key: rows[:2] for key, rows in picks.items()})
    records.write_json("pick.json", {**records.read_json("pick.json"), "digest": "another"})
    renew_exports(folder)
    assert len(folder.read(table).splitlines()) == 2
    assert "as dynamo was of earlier points and is written anew" in caplog.text
    manifest = folder.read_json("t1/manifest.json")
    del manifest["recipe"]["pick"]["ribosome"]
    folder.write_json("t1/manifest.json", manifest)
    records.write_json("pick.json", {**records.read_json("pick.json"), "digest": "a third"})
    renew_exports(folder)
    assert folder.names("t1/dynamo") == ["mine.tbl"]
    assert "is removed: there is no class ribosome" in caplog.text


def test_the_session_s_files_that_are_not_written_any_more_go(output):
    folder = Folder(str(output))
    assert {"csv", "relion5"} <= set(folder.names("session"))
    folder.write("session/csv/mine.csv", b"a person's")
    for name in TRUTH:
        manifest = folder.read_json(f"{name}/manifest.json")
        manifest["recipe"]["export"]["dialects"] = ["csv"]
        del manifest["recipe"]["pick"]["ribosome"]
        folder.write_json(f"{name}/manifest.json", manifest)
    write_session(folder)
    assert folder.names("session") == ["csv"]
    assert folder.names("session/csv") == ["actin.csv", "carbon_edge.csv", "mine.csv"]


def test_points_outside_are_said(finished, output, tmp_path, tomoseg):
    (tmp_path / "a.csv").write_text("x,y,z\n1,2,3\n4,5,60\n")
    where = ("--into", f"{output}/t1", "--as", "vesicle", "--from", "picks")
    _, said, _ = tomoseg("import", tmp_path / "a.csv", *where)
    assert "2 particles, read as picks; the rows name no tomogram, and the file" in said
    assert "; x, y, z taken as voxels from 0" in said
    assert "; 1 of 2 points lie outside the tomogram" in said


# Masks


def test_masks_become_one_volume_of_labels(output, tmp_path, tomoseg):
    rng = np.random.default_rng(4)
    scores = rng.uniform(0, 255, SHAPE).astype(np.float32)
    objects = rng.integers(0, 4, SHAPE).astype(np.int16)
    write_volume(tmp_path / "scores.mrc", scores)
    tifffile.imwrite(tmp_path / "objects.tif", objects)
    flags = np.zeros(SHAPE, np.int8)
    flags[:3] = 1
    write_volume(tmp_path / "flags.mrc", flags)
    into = ("--into", f"{output}/t1", "--as")
    assert tomoseg("import", tmp_path / "scores.mrc", *into, "actin", "--threshold", 128)[0] == 0
    code, said, error = tomoseg("import", tmp_path / "objects.tif", *into, "ribosome", "--value", 2)
    assert error == ""
    assert code == 0
    assert "it states no voxel size" in said
    assert "labels: " in said
    assert "values: {2: ribosome}" in said
    assert tomoseg("import", tmp_path / "flags.mrc", *into, "gold", "--flip-z")[0] == 0
    wanted = np.where(scores > 128, 1, 0)
    wanted[objects == 2] = 2
    wanted[-3:] = 3
    with mrcfile.open(output / "imported" / "t1__labels.mrc") as file:
        np.testing.assert_array_equal(file.data, wanted)
        assert file.voxel_size.x == VOXEL
        assert file.header.origin.x == -60
    # Again, in its own place.
    write_volume(tmp_path / "scores.mrc", 255 - scores)
    assert tomoseg("import", tmp_path / "scores.mrc", *into, "actin", "--threshold", 200)[0] == 0
    again = np.where(wanted == 1, 0, wanted)
    again[255 - scores > 200] = 1
    np.testing.assert_array_equal(mrcfile.read(output / "imported" / "t1__labels.mrc"), again)


def test_what_was_imported_is_scored_as_it_is(finished, output, tmp_path):
    out = finished[0]
    labels = np.zeros(SHAPE, np.int8)
    labels[2:9, 5:30, 7:30] = 1
    write_volume(tmp_path / "mask.mrc", labels)
    import_file(ImportRequest(str(tmp_path / "mask.mrc"), f"{output}/t1", "actin"))
    for name in ("actin", "ribosome"):
        import_file(
            ImportRequest(str(out / "session" / "relion5" / f"{name}.star"), str(output), name)
        )
    for name in TRUTH:
        done = finished_results(Folder(str(output)), name)
        done.folder.remove(".tomoseg/export.json")
        run_stage(
            Context(**vars(done), networks=(), runner=SerialRunner(), progress=untold), "export"
        )
    scores = evaluate_folders(str(output), str(output / "imported"))
    assert scores["particles"]["ribosome"]["f1"] == 1
    assert scores["filaments"]["actin"]["f1"] == 1
    assert scores["labels"]["actin"]["support"] == 7 * 25 * 23


def test_what_was_imported_is_scored_where_the_tomograms_are_binned(tmp_path, tiny_model):
    rng = np.random.default_rng(7)
    (tmp_path / "in").mkdir()
    voxels = rng.normal(size=SHAPE).astype(np.float32)
    place = write_volume(tmp_path / "in" / "t1.mrc", voxels, voxel=6.0, origin=(100, 200, 300))
    values = {
        "session": {"input": str(place), "output": str(tmp_path / "out")},
        "ingest": {"bin": 2},
        "segment": {"model": str(tiny_model)},
        "compute": {"runner": "serial"},
    }
    session = plan_session(recipe_from(values))
    run_session(session, lambda *progress: None)
    # What another program gives back: the session's own mask of a class, on the source's grid.
    labels = Volume(Folder(f"{tmp_path}/out/t1/tomogram.zarr"), "labels/semantic/0")
    label = int(np.bincount(labels.read(Box.whole((10, 20, 28))).ravel())[1:].argmax()) + 1
    name = session.output.read_json("t1/manifest.json")["classes"][label - 1]
    mask = next((tmp_path / "out" / "t1" / "masks").glob(f"*__{name}.mrc"))
    import_file(ImportRequest(str(mask), f"{tmp_path}/out/t1", name))
    scores = evaluate_folders(str(tmp_path / "out"), str(tmp_path / "out" / "imported"))["labels"]
    assert scores[name]["iou"] == 1
    found = (labels.read(Box.whole((10, 20, 28))) == label).sum()
    assert scores[name]["support"] == 8 * found > 0


@pytest.mark.parametrize(
    ("shape", "voxel", "value", "error", "says"),
    [
        ((20, 40, 56), VOXEL, 1, RequestError, "has shape"),
        (SHAPE, 12.0, 1, VoxelSizeError, "voxels of 12 × 12 × 12"),
        (SHAPE, VOXEL, 0, RequestError, "has no voxel that is not 0"),
        (SHAPE, VOXEL, None, RequestError, "values such as 0, 1, 2"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(output, tmp_path, shape, voxel, value, error, says):
    voxels = np.full(shape, value or 0, np.int16)
    if value is None:
        voxels[0, 0, :4] = (0, 1, 2, 3)
    place = write_volume(tmp_path / "mask.mrc", voxels, voxel=voxel)
    with pytest.raises(error, match=says):
        import_file(ImportRequest(str(place), f"{output}/t1", "actin"))
    assert not (output / "imported").exists()


def test_a_folder_of_tomograms_without_a_session(finished, tmp_path, tomoseg):
    """What RELION picked goes to Dynamo, with nothing of tomoseg run."""
    for name in TRUTH:
        write_volume(tmp_path / f"{name}.mrc", np.zeros(SHAPE, np.float32))
    star = finished[0] / "session" / "csv" / "ribosome.csv"
    assert tomoseg("import", star, "--into", tmp_path, "--as", "ribosome")[0] == 0
    code, _, error = tomoseg("export", tmp_path, "--to", "dynamo", "--imported", "--together")
    assert error == ""
    assert code == 0
    table = np.loadtxt(tmp_path / "session" / "dynamo" / "ribosome.tbl")
    places = np.concatenate([TRUTH[name].places for name in TRUTH])
    np.testing.assert_allclose(table[:, 23:26], places[:, ::-1] / 10 + 0.5, atol=1e-5)
    assert table[:, 19].tolist() == [1] * 7 + [2] * 3


def test_clicked_points_become_a_filament(output, tmp_path, tomoseg):
    (tmp_path / "clicks.txt").write_text("1 2 3\n20 30 4\n50 35 5\n")
    command = ("import", tmp_path / "clicks.txt", "--as", "microtubule", "--into", f"{output}/t1")
    code, said, _ = tomoseg(*command, "--filaments")
    assert code == 0
    assert "t1: 1 filaments, read as picks; the rows name no tomogram, and the file is" in said
    assert "; 3 points taken as clicked along 1 filaments" in said
    (line,) = imported(output).filaments
    assert (line.name, line.number) == ("microtubule", 1)
    assert line.points_angstrom.tolist() == [[30, 20, 10], [40, 300, 200], [50, 350, 500]]
    code, _, error = tomoseg(*command, "--filaments", "--from", "dynamo")
    assert (code, "--filaments is for a table of clicked points" in error) == (2, True)


def test_a_doc_elsewhere_says_which_number_is_which_tomogram(finished, output, tmp_path, tomoseg):
    how = {"classes": ("ribosome",), "together": True, "into": str(tmp_path / "a")}
    export_points(str(finished[0]), ExportRequest("dynamo", **how))
    table = tmp_path / "moved.tbl"
    shutil.copy(tmp_path / "a" / "ribosome.tbl", table)
    command = ("import", table, "--as", "x", "--into", output)
    code, _, error = tomoseg(*command)
    assert (code, "no .doc says which" in error, "--doc" in error) == (2, True, True)
    (tmp_path / "numbers.doc").write_text("1\tt1.mrc\n2\tt2.mrc\n")
    code, said, _ = tomoseg(*command, "--doc", tmp_path / "numbers.doc")
    assert code == 0
    assert "counted from the corner of the first voxel" in said
