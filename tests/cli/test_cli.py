"""The command line as people meet it: words, exit codes, and how fast it answers."""

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import tifffile
import yaml
import zarr

from tomoseg import cli
from tomoseg.cli import networks
from tomoseg.core.coordinates import Filament, Particles
from tomoseg.core.sampling import Sampling
from tomoseg.core.version import said_version
from tomoseg.io.points.tables import filaments_csv, particles_csv
from tomoseg.io.stores import Folder
from tomoseg.nets.settings import TrainingProgress

DATA = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
HEAVY = ("torch", "zarr", "dask", "distributed", "pandas", "matplotlib", "skimage", "prefect")
COMMANDS = (
    *("run", "validate", "status", "info", "simulate", "train", "evaluate", "trace"),
    *("export", "import"),
)


@pytest.fixture
def tomoseg(monkeypatch, capsys):
    """Return a function that runs a command and gives exit code, output and errors."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["tomoseg", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def tomogram(tmp_path):
    """Return a function that writes an MRC file as another program would."""

    def write(name="a.mrc", *, shape=(48, 64, 64), voxel_size=12.0):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        with mrcfile.new(path, np.random.default_rng(0).normal(size=shape).astype("f4")) as file:
            file.voxel_size = voxel_size
        return path

    return write


# How it answers


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["run", "--help"]])
def test_it_answers_at_once_and_imports_nothing_heavy(arguments):
    script = (
        "import os, sys\n"
        f"sys.argv = ['tomoseg', *{arguments!r}]\n"
        "from tomoseg.cli import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    assert not end.code\n"
        f"print('LOADED', [name for name in {HEAVY!r} if name in sys.modules])\n"
        "print('SECONDS', sum(os.times()[:2]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert "LOADED []" in done.stdout
    # Processor time: the clock on the wall says more about what else the machine does.
    assert float(done.stdout.rsplit(" ", 1)[1]) < 0.5


def test_help_names_every_command_and_the_exit_codes(tomoseg):
    code, out, _ = tomoseg("--help")
    assert code == 0
    for command in COMMANDS:
        assert re.search(rf"\b{command}\b", out), command
        assert tomoseg(command, "--help")[0] == 0
    assert "0 done, 1 some tomograms failed, 2 the request was wrong" in out
    assert tomoseg("--version")[:2] == (0, f"tomoseg {said_version()}\n")


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["info"], ["run", "--nonsense"], ["simulate", "o", "--tomograms", "0"]],
)
def test_unknown_words_are_a_wrong_request(tomoseg, arguments):
    code, out, err = tomoseg(*arguments)
    assert code == 2
    assert err.startswith("Usage: ")
    assert out == ""


def test_the_program_is_a_module_too():
    done = subprocess.run(
        [sys.executable, "-m", "tomoseg.cli", "info", "none.mrc"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


# info


def test_info_says_what_the_header_says(tomoseg, tomogram):
    path = tomogram(shape=(10, 20, 30), voxel_size=13.48)
    with mrcfile.open(path, "r+") as file:
        file.header.origin = (1.5, -2, 3)
        file.header.nxstart = -7
    code, out, err = tomoseg("info", path)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "voxels (xyz)      30 × 20 × 10",
        "voxel size (xyz)  13.48 × 13.48 × 13.48 Å",
        "extent (xyz)      40.44 × 26.96 × 13.48 nm",
        "type              float32",
        "origin (xyz)      1.5, -2, 3 Å",
        "start (xyz)       -7, 0, 0 voxels",
        "values            -3.8994 to 3.145, mean 0.018196, spread 1.0026, in 3 of 10 slices",
    ]
    _, given, _ = tomoseg("info", path, "--voxel-size", "10")
    assert "voxel size (xyz)  10 × 10 × 10 Å" in given
    assert "note              voxel size 10 Å was given; the file states 13.48" in given


@pytest.mark.parametrize(
    ("file", "lines"),
    [
        ("formats/mrc/EMD-3197.map",
         ["20 × 20 × 20", "11.4 × 11.4 × 11.4 Å", "start (xyz)       -2, 0, 0 voxels"]),
        ("formats/mrc/relion_mode12_stack.mrcs",
         ["64 × 64 × 215", "float16", "note              MZ is 1: "]),
        ("cryoet/microtubule_14pf/14pf_MT.tif",
         ["84 × 136 × 44", "10.52 × 10.52 × 10.52 Å", "uint8"]),
        ("cryoet/membrane_labels/T1S4M8_crop.mrc.gz",
         ["143 × 90 × 61", "13.68 × 13.68 × 13.68 Å", "(xyz)      2298.24, 2462.4, 5813.99 Å"]),
    ],
)  # fmt: skip
def test_info_on_real_files(tomoseg, file, lines):
    if not (DATA / file).exists():
        pytest.skip(f"{file} of the shared data is not here")
    code, out, _ = tomoseg("info", DATA / file)
    assert code == 0
    for line in lines:
        assert line in out


def broken(path, how):
    content = path.read_bytes()
    if how == "text":
        path.write_text("a text that somebody called a map\n" * 50)
    elif how == "short":
        path.write_text("just text")
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "truncated":
        path.write_bytes(content[:-1])
    elif how == "no voxel size":
        with mrcfile.open(path, "r+") as file:
            file.voxel_size = 0
    elif how == "one":
        with mrcfile.open(path, "r+") as file:
            file.voxel_size = 1


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("text", ["MRC"]),
        ("short", ["9 bytes", "an MRC header has 1024", "Check that"]),
        ("empty", ["the file is empty", "Check that"]),
        ("truncated", ["bytes", "Copy the file again"]),
    ],
)
def test_info_says_what_is_wrong_in_one_line(tomoseg, tomogram, how, words):
    path = tomogram(shape=(4, 5, 6))
    broken(path, how)
    code, out, err = tomoseg("info", path)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for word in words:
        assert word in err


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(
    ("how", "words"), [("no voxel size", "outside 0.1..1000 Å"), ("one", "exactly 1 Å")]
)
def test_info_shows_all_else_where_the_voxel_size_is_missing(tomoseg, tomogram, how, words, suffix):
    path = tomogram(shape=(4, 5, 6))
    broken(path, how)
    if suffix:
        packed = path.with_name(f"{path.name}{suffix}")
        packed.write_bytes(gzip.compress(path.read_bytes()))
        path = packed
    code, out, err = tomoseg("info", path)
    assert code == 2
    assert (
        "voxels (xyz)      6 × 5 × 4\nvoxel size (xyz)  unknown\ntype              float32" in out
    )
    assert "\nvalues            -2.325 to 2.0024, mean 0.01626" in out
    assert "10 Å" not in out
    assert words in err
    assert "Use --voxel-size; in a recipe, source.voxel_size_angstrom." in err


def test_info_says_what_is_odd_about_the_voxels(tomoseg, tomogram):
    path = tomogram(shape=(30, 10, 30))
    with mrcfile.open(path, "r+") as file:
        file.data[15, :, :20] = np.nan
    _, out, _ = tomoseg("info", path)
    assert "note              22.2% of the voxels looked at are NaN or infinite; " in out
    assert "y is the shortest axis (30 × 10 × 30 voxels xyz): it looks like an unrotated" in out


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("none.mrc", "none.mrc does not exist"),
        (".", "is a folder, not a file"),
        ("http://a.org/b.mrc", "is not a place that tomoseg opens"),
    ],
)
def test_info_on_places_that_are_none(tomoseg, place, words):
    code, _, err = tomoseg("info", place)
    assert code == 2
    assert words in err


# validate, run and status


@pytest.fixture
def recipe(tmp_path, tiny_model):
    """Return a function that writes a recipe with the tiny model."""

    def write(**sections):
        values = {
            "session": {"input": "data", "output": "out"},
            "segment": {"model": str(tiny_model)},
        } | sections
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return write


def test_validate_says_what_will_be_done(tomoseg, tomogram, recipe, tmp_path):
    tomogram("data/a.mrc", shape=(48, 64, 80))
    tomogram("data/rec b.mrc", voxel_size=6.0)
    code, out, err = tomoseg("validate", recipe())
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("model tiny: microtubule, actin, ")
    assert lines[0].endswith(
        "carbon_edge; voxels of 4.8 to 30 Å; halo 2×18×18 voxels (zyx): blocks change nothing"
    )
    assert lines[1] == "blocks run on this process"
    assert lines[2] == ("a: 80×64×48 voxels (xyz) of 12 Å, float32; network at 12 Å; rlnTomoName a")
    assert lines[3].startswith("rec_b: 64×64×48 voxels (xyz) of 6 Å, float32; network at 12 Å;")
    assert f" GB will be written to {tmp_path}/out" in lines[4]
    assert lines[5] == "2 of 2 tomograms can be processed"
    assert not (tmp_path / "out").exists()


def test_validate_says_what_the_halo_costs(tomoseg, tomogram, recipe):
    tomogram("data/a.mrc")
    for model, cost in (("shipped", "blocks change 0.0"), (None, "what blocks change was not")):
        keys = ("segment.halo=16", *([f"segment.model={model}"] if model else []))
        changes = [word for key in keys for word in ("--set", key)]
        code, out, _ = tomoseg("validate", recipe(), *changes)
        assert code == 0
        assert f"×16×16 voxels (zyx): {cost}" in out.splitlines()[0]


@pytest.mark.parametrize(
    ("compute", "says"),
    [
        ({"runner": "dask", "workers": 2}, "2 worker processes of this machine, 4 GiB each"),
        ({"address": "tcp://10.0.0.1:8786"}, "the Dask scheduler at tcp://10.0.0.1:8786"),
        ({"cluster": "cuda", "memory_gib": 8}, "2 worker processes, one a GPU of this machine"),
    ],
)
def test_validate_says_where_blocks_would_run(
    tomoseg, tomogram, recipe, monkeypatch, compute, says
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    tomogram("data/a.mrc")
    code, out, _ = tomoseg("validate", recipe(compute=compute))
    assert code == 0
    assert f"\nblocks run on {says}" in out


def test_validate_names_a_cluster_that_cannot_be_started(tomoseg, tomogram, recipe, monkeypatch):
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    tomogram("data/a.mrc")
    slurm = {"interface": "ib0", "protocol": "tcp"}
    code, _, err = tomoseg("validate", recipe(compute={"cluster": "slurm", "slurm": slurm}))
    assert code != 0
    assert "pip install 'tomoseg[slurm]'" in err


def test_validate_names_the_tomograms_that_cannot_be_done(tomoseg, tomogram, recipe):
    tomogram("data/a.mrc")
    broken(tomogram("data/b.mrc"), "no voxel size")
    broken(tomogram("data/c.mrc"), "truncated")
    code, out, _ = tomoseg("validate", recipe())
    assert code == 2
    assert re.search(r"^b: .*Set source\.voxel_size_angstrom", out, re.M)
    assert re.search(r"^c: .*Copy the file again", out, re.M)
    assert "1 of 3 tomograms can be processed" in out
    code, out, _ = tomoseg("validate", recipe(segment={"model": "none"}))
    assert code != 0


def test_validate_finds_what_would_fail_later(tomoseg, tomogram, recipe):
    """A page that is cut, a packed header that is wrong, a shard that is damaged."""
    pages = np.zeros((4, 64, 64), np.uint8)
    folder = tomogram("data/good.mrc").parent
    tifffile.imwrite(folder / "cut.tif", pages, compression="zlib", photometric="minisblack")
    raw = (folder / "cut.tif").read_bytes()
    with tifffile.TiffFile(folder / "cut.tif") as file:
        last = file.pages[3].dataoffsets[0]
    (folder / "cut.tif").write_bytes(raw[: last + 2] + bytes(8) + raw[last + 10 :])
    (folder / "text.mrc.gz").write_bytes(gzip.compress(b"a text" * 1000))
    (folder / "packed.mrc.gz").write_bytes(gzip.compress((folder / "good.mrc").read_bytes()))
    (folder / "torn.mrc.gz").write_bytes((folder / "packed.mrc.gz").read_bytes()[:200])
    array = zarr.create_array(str(folder / "bad.zarr"), shape=(8, 64, 64), chunks=(8, 64, 64),
                              dtype="u1", compressors=None)  # fmt: skip
    array[:] = 1
    (folder / "bad.zarr/c/0/0/0").write_bytes(b"\0" * 100)
    code, out, _ = tomoseg("validate", recipe(source={"voxel_size_angstrom": 12.0}))
    assert code == 2
    assert re.search(r"^cut: page 3 cannot be unpacked", out, re.M)
    assert re.search(r"^text: not an MRC file", out, re.M)
    assert re.search(r"^torn: the gzip file is truncated", out, re.M)
    assert re.search(r"^bad: a shard of .* is cut or damaged", out, re.M)
    assert re.search(r"^packed: 64×64×48 voxels \(xyz\) of 12 Å, float32; .*compressed", out, re.M)
    assert "2 of 6 tomograms can be processed" in out


def test_validate_says_what_is_odd(tomoseg, tomogram, recipe):
    tomogram("data/a.mrc", shape=(64, 40, 80))
    path = tomogram("data/b.mrc")
    with mrcfile.open(path, "r+") as file:
        file.data[24] = np.inf
    with mrcfile.open(tomogram("data/c.mrc"), "r+") as file:
        file.data[:] = 3
    tomogram("data/a_mask.mrc")
    code, out, _ = tomoseg("validate", recipe())
    assert code == 0
    assert re.search(r"^a: .*looks like an unrotated volume.*source\.axes: rotx", out, re.M)
    assert re.search(r"^b: .*33\.3% of the voxels looked at are NaN or infinite", out, re.M)
    assert re.search(r"^c: .*every voxel looked at is 3", out, re.M)
    assert "3 of 3 tomograms can be processed" in out


def test_validate_reads_masks_through(tomoseg, tomogram, recipe):
    for name in ("a", "b"):
        tomogram(f"data/{name}.mrc")
        tomogram(f"masks/{name}.mrc")
    # The grey values of a tomogram are no mask.
    code, out, _ = tomoseg("validate", recipe(source={"mask": "masks/{name}.mrc"}))
    assert code == 2
    assert re.search(r"^b: the mask \S*masks/b\.mrc: values .* are not labels 0\.\.255", out, re.M)
    assert "0 of 2 tomograms can be processed" in out


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["ingest.bins=2"], "ingest.bins is not a known key"),
        (["blocks.shape=[1,2,3]"], "blocks.shape.0: Input should be greater than or equal to 8"),
        (["trace.cilium.gap_angstrom=3"], "trace names cilium, but the model has microtubule"),
        (["session.input=nowhere"], "nowhere is not a folder"),
        (["session.output=''"], "Use --output, or session.output in the recipe"),
        (["ingest"], "is not of the form a.b=value"),
    ],
)
def test_a_wrong_request_is_told_before_any_work(tomoseg, tomogram, recipe, changes, words):
    tomogram("data/a.mrc")
    options = [part for change in changes for part in ("--set", change)]
    code, out, err = tomoseg("run", "--recipe", recipe(), *options)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert words in err


def test_a_session_runs_and_its_status_is_told(tomoseg, tomogram, recipe, tmp_path, caplog):
    tomogram("data/a.mrc")
    broken(tomogram("data/b.mrc"), "truncated")
    path = recipe(export={"masks": True}, clean={}, trace={}, pick={})
    code, out, err = tomoseg("run", "-r", path, "-o", tmp_path / "there")
    assert code == 1
    assert f"1 of 2 tomograms done, failed: b; look at {tmp_path}/there/index.html" in out
    # Said when it happens, and once.
    assert len(re.findall(r"failed: b: .*Copy the file again", caplog.text)) == 1
    assert "Copy the file again" not in err
    assert re.search(r"^a: segment.*, \d+ of \d+ blocks; 1 of 2", err, re.M)
    assert (tmp_path / "there" / "index.html").exists()

    code, out, _ = tomoseg("status", tmp_path / "there")
    assert code == 1
    assert out.startswith("1 of 2 tomograms done, 1 failed; started ")
    assert "\na: done\n" in out
    assert re.search(r"^b: failed - .*Copy the file again", out, re.M)
    code, out, _ = tomoseg("status", tmp_path / "there", "--json")
    state = json.loads(out)
    assert (state["done"], state["failed"]) == (1, 1)

    (tmp_path / "data" / "b.mrc").unlink()
    code, out, err = tomoseg("run", "-r", path, "-o", tmp_path / "there")
    assert code == 0
    assert "1 of 1 tomograms done" in out
    assert tomoseg("status", tmp_path / "there")[0] == 0


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_status_of_no_session(tomoseg, tmp_path, arguments):
    code, out, err = tomoseg("status", tmp_path / "none", *arguments)
    assert (code, out) == (2, "")
    assert err == (
        f"error: there is no session in {tmp_path}/none. Name the output folder of a run.\n"
    )


# simulate, train and evaluate


def test_simulate_says_what_it_wrote(tomoseg, tmp_path):
    code, out, _ = tomoseg(
        "simulate", tmp_path / "s", "--shape", "16,17,33", "--seed", "3",
        "--tilt-step", "20", "--density", "0.1", "--tomograms", "2",
    )  # fmt: skip
    assert code == 0
    assert out.splitlines() == [f"{tmp_path}/s/simulated_000{seed}.mrc" for seed in (3, 4)]
    with mrcfile.open(tmp_path / "s" / "simulated_0003.mrc", header_only=True) as file:
        assert [int(file.header[name]) for name in ("nx", "ny", "nz")] == [33, 17, 16]
    assert len(Folder(str(tmp_path / "s")).names("truth")) == 10


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--shape", "3,4"], "--shape 3,4 is not three integers z,y,x"),
        (["--shape", "a,b,c"], "--shape a,b,c is not three integers"),
        (["--shape", "8,64,64"], "shape.0: Input should be greater than or equal to 16, not '8'"),
        (["--snr", "0"], "snr: Input should be greater than or equal to 0.0001, not '0.0'"),
        (["--tilt-max", "90"], "tilt_max_degrees: Input should be less than or equal to 75"),
        (["--tilt-step", "70"], "tilt_step_degrees 70 is above tilt_max_degrees 60"),
        (["--thickness", "1600"], "thickness_angstrom 1600 is more than the box has, 1536 Å"),
        (["--voxel-size", "20"], "not in 8..16. Simulate at 8 to 16 Å and rescale."),
        (["--seed", "-1"], "seed: Input should be greater than or equal to 0, not '-1'"),
    ],
)
def test_simulate_refuses_what_cannot_be(tomoseg, tmp_path, options, words):
    code, out, err = tomoseg("simulate", tmp_path / "s", *options)
    assert (code, out) == (2, "")
    assert words in err
    assert not (tmp_path / "s").exists()


def test_train_tells_its_progress(tomoseg, tiny_session, tmp_path, caplog):
    values = {
        "input": [str(tiny_session)],
        "output": "model",
        "network": {
            "name": "small",
            "architecture": {"slices_in": 4, "slices_out": 2, "widths": [4, 8]},
            "voxel_size_angstrom": 12.0,
            "patch": [2, 16, 16],
            "batch": 1,
            "steps": 1,
            "device": "cpu",
            "precision": "float32",
        },
    }
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(values))
    code, out, err = tomoseg("train", path)
    assert code == 0
    assert err == ""
    # One step teaches nothing, which is told.
    assert re.search(r"small: actin: F1 0\.\d{3} on what was kept apart, below 0\.3", caplog.text)
    lines = out.splitlines()
    assert lines[0].startswith("labels are read from {folder}/truth/{name}__labels.mrc; ")
    assert lines[1] == "painted: labels {folder}/truth/{name}__labels.mrc"
    assert lines[2] == "network: slab, slices_in 4, slices_out 2"
    assert re.match(
        r"100\.0% +\d+\.\d min, 0\.0 left  step 1  loss .*  mean F1 \d\.\d{3} \(kept\): ", lines[-2]
    )
    assert re.fullmatch(rf"model small in {tmp_path}/model: mean F1 \d\.\d{{3}}", lines[-1])
    code, _, err = tomoseg("train", tmp_path / "none.yaml")
    assert code == 2
    assert "there is no recipe at" in err


def test_evaluate_prints_a_column_a_class(tomoseg, tmp_path, tiny_session):
    labels = tiny_session / "truth" / "simulated_0500__labels.mrc"
    code, out, _ = tomoseg("evaluate", labels, labels)
    assert code == 0
    head, *rows = (line.split() for line in out.splitlines())
    assert head[:2] == ["microtubule", "actin"]
    assert [row[0] for row in rows] == [
        "precision", "recall", "f1", "dice", "iou", "surface_dice", "support",
    ]  # fmt: skip
    assert rows[2][2] == "1.000"
    assert len({len(line) for line in out.splitlines()}) == 1
    code, out, _ = tomoseg("evaluate", labels, labels, "--json")
    assert json.loads(out)["actin"]["f1"] == 1.0
    code, _, err = tomoseg("evaluate", labels, tmp_path / "a.csv")
    assert code == 2
    assert "not of one kind" in err
    code, _, err = tomoseg("evaluate", labels, labels, "--value", "actin")
    assert code == 2
    assert "--value actin is not N=CLASS" in err


def test_evaluate_has_a_dash_for_what_is_not_defined(tomoseg, tmp_path):
    grid = Sampling((9, 9, 9), (10.0, 10.0, 10.0))
    line = Filament("actin", 1, np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 80.0]]), 1.0)
    lines, empty = tmp_path / "lines.csv", tmp_path / "empty.csv"
    lines.write_text(filaments_csv([line], grid))
    empty.write_text(filaments_csv([], grid))
    code, out, _ = tomoseg("evaluate", empty, lines)
    assert code == 0
    assert re.search(r"^precision +-\nrecall +0\.000$", out, re.MULTILINE)
    code, out, _ = tomoseg("evaluate", lines, lines, "--tolerance", "1")
    assert re.search(r"^f1 +1\.000$", out, re.MULTILINE)
    assert out.count("actin") == 1


def test_evaluate_scores_particles_as_the_challenge_does(tomoseg, tmp_path):
    grid = Sampling((99, 99, 99), (10.0, 10.0, 10.0))
    picks = tmp_path / "picks.csv"
    picks.write_text(particles_csv([Particles.at("ice", np.zeros((1, 3)))], grid))
    code, _, err = tomoseg("evaluate", picks, picks, "--czii")
    assert code == 2
    assert "of ice no radius is known. Give --particle NAME=RADIUS,WEIGHT." in err
    code, out, _ = tomoseg("evaluate", picks, picks, "--particle", "ice=50,2", "--json")
    assert code == 0
    scores = json.loads(out)
    assert scores["ice"]["weight"] == 2.0
    assert scores["weighted_mean"] == {"czii_f4": 1.0, "generous_f4": 1.0}
    code, _, err = tomoseg("evaluate", picks, picks, "--particle", "ice=wide")
    assert code == 2
    assert "--particle ice=wide is not NAME=RADIUS[,WEIGHT]" in err


def test_training_tells_what_is_known_and_no_more():
    line = networks._training_line(
        TrainingProgress(
            step=7,
            fraction=0.5,
            minutes=1.25,
            loss=None,
            learning_rate=1e-3,
            seconds_left=90.0,
            f1={"microtubule": 0.5, "actin": None},
            mean_f1=0.5,
            is_best=True,
        )
    )
    assert (
        line
        == " 50.0%   1.2 min, 1.5 left  step 7  mean F1 0.500 (kept): microtubule 0.500, actin -"
    )


def test_a_tomogram_is_no_recipe(tomoseg, tomogram):
    path = tomogram("data/a.mrc")
    code, out, err = tomoseg("validate", path)
    assert (code, out) == (2, "")
    assert f"{path} is no recipe but a tomogram" in err
    assert f"tomoseg validate RECIPE {path}, or tomoseg info {path}." in err
