"""Sessions: the same results wherever blocks run, nothing done twice, failures that say why."""

import getpass
import json
import os
import re
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch
import zarr

from tomoseg import cli
from tomoseg.compute.clusters import local_workers, open_cluster
from tomoseg.core.errors import ClaimError, ModelError, RequestError, ResourceError
from tomoseg.core.version import code_version
from tomoseg.io.stores import Claim
from tomoseg.io.volumes.sources import Found
from tomoseg.nets.int8 import check_int8
from tomoseg.pipeline.checks import check_session
from tomoseg.pipeline.session import plan_session, run_session, session_address
from tomoseg.recipe.recipe import load_recipe, recipe_from
from tomoseg.service.status import session_status

NAMES = ("simulated_0500", "simulated_0501")
STAGES = ("ingest", "segment", "clean", "trace", "pick", "sample", "export", "report")
LABELS = ("semantic", "instances")
SECRET = "wJalrXUtnFEMI-planted-K7MDENG"
# Open settings: random weights make little that looks like a filament.
TRACING = {
    "radius_angstrom": 20.0,
    "seed_threshold": 0.6,
    "follow_threshold": 0.3,
    "gap_angstrom": 0.0,
    "minimum_length_angstrom": 50.0,
}


@pytest.fixture
def values(tiny_model, tiny_session, tmp_path):
    """A recipe of the tiny session as plain values; serial, results comparable bit by bit."""
    return recipe_values(tiny_model, tiny_session, tmp_path / "out")


def recipe_values(model, session, output):
    return {
        "session": {"input": str(session), "output": str(output)},
        "blocks": {"shape": (24, 48, 96)},
        "segment": {"model": str(model), "precision": "float32", "score_maps": False},
        "trace": {"double_membrane": TRACING},
        "pick": {"ribosome": {"radius_angstrom": 80.0, "threshold": 0.02}},
        "compute": {"runner": "serial"},
    }


def process(values, progress=lambda *progress: None):
    return run_session(plan_session(recipe_from(values)), progress)


def states_of(result):
    return {row["name"]: row["state"] for row in result["tomograms"]}


def arrays(folder, name):
    group = folder / name / "tomogram.zarr"
    return {p: zarr.open_array(group / "labels" / p / "0", mode="r")[:] for p in LABELS}


def tables(folder):
    """Return the bytes of everything that other programs read."""
    found = [p for p in sorted(folder.rglob("*")) if p.suffix in (".csv", ".star", ".mrc")]
    return {str(p.relative_to(folder)): p.read_bytes() for p in found}


def times(folder):
    """Return when each file was written, but for the session's own journal and claims."""
    return {
        p: p.stat().st_mtime_ns
        for p in folder.rglob("*")
        if p.is_file()
        and p.parent != folder
        and p.name != "manifest.json"
        and not p.match(".tomoseg/claim-*.json")
        and not p.match(".tomoseg/attempts.json")
    }


@pytest.fixture(scope="module")
def reference(tmp_path_factory, tiny_model, tiny_session):
    """The session processed serially, and what run_session returned."""
    output = tmp_path_factory.mktemp("reference")
    result = process(recipe_values(tiny_model, tiny_session, output))
    return output, result


@pytest.fixture(scope="module")
def references(tmp_path_factory, tiny_model, tiny_session, reference):
    """The output of the session processed serially, by precision."""
    output = tmp_path_factory.mktemp("bfloat16")
    values = recipe_values(tiny_model, tiny_session, output)
    values["segment"]["precision"] = "bfloat16"
    process(values)
    return {"float32": reference[0], "bfloat16": output}


@pytest.fixture
def copy_of_reference(reference, values, tmp_path):
    """A copy of the finished session that a test may spoil; returns its recipe's values."""
    shutil.copytree(reference[0], tmp_path / "out")
    return values


@pytest.fixture(scope="module")
def two_workers():
    """Address of a Dask cluster."""
    with open_cluster(workers=2, memory_gib=2.0) as address:
        yield address


def test_the_reference_found_something(reference):
    output, result = reference
    for name, row in zip(NAMES, result["tomograms"], strict=True):
        assert (row["name"], row["state"]) == (name, "done")
        counts = {one["name"]: one for one in row["classes"]}
        assert counts["double_membrane"]["filaments"] > 0
        assert counts["ribosome"]["particles"] > 10
        assert len(np.unique(arrays(output, name)["semantic"])) > 3
        assert all((output / path).is_file() for path in [*row["files"], row["picture"]])


@pytest.mark.parametrize(
    ("workers", "blocks", "precision"),
    [
        (0, (48, 96, 96), "float32"),
        (1, (24, 48, 96), "float32"),
        (2, (24, 48, 96), "float32"),
        (2, (16, 96, 48), "float32"),
        (2, (16, 96, 48), "bfloat16"),
    ],
)
def test_results_are_the_same_wherever_blocks_run(
    references, values, request, workers, blocks, precision
):
    values["segment"]["precision"] = precision
    values["blocks"] = {"shape": blocks}
    if workers == 1:
        # A cluster of the session's own.
        values["compute"] = {"runner": "dask", "workers": 1, "stall_minutes": 5}
    if workers == 2:
        address = request.getfixturevalue("two_workers")
        values["compute"] = {"runner": "dask", "address": address, "stall_minutes": 5}
    process(values)
    output, there = Path(values["session"]["output"]), references[precision]
    assert tables(output) == tables(there)
    assert len(tables(there)) > 20
    for name in NAMES:
        for path, labels in arrays(there, name).items():
            assert np.array_equal(arrays(output, name)[path], labels), path


def test_what_is_done_is_not_done_again(copy_of_reference):
    values, output = copy_of_reference, Path(copy_of_reference["session"]["output"])
    before = times(output)
    seen = []
    result = process(values, lambda *progress: seen.append(progress))
    assert {row["state"] for row in result["tomograms"]} == {"already there"}
    assert times(output) == before
    assert seen == []


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({"export": {"masks": False}}, {"export"}),
        ({"pick": {"ribosome": {"radius_angstrom": 90.0}}}, {"pick", "export", "report"}),
        ({"trace": {}}, {"trace", "export", "report"}),
        ({"clean": {}}, {"clean", "trace", "pick", "sample", "export", "report"}),
        ({"source": {"contrast": "bright"}}, set(STAGES) - {"ingest"}),
        ({"ingest": {"bin": 2}, "trace": {}}, set(STAGES)),
    ],
)
def test_a_changed_section_redoes_what_follows_it(copy_of_reference, tiny_session, change, again):
    values, output = copy_of_reference, Path(copy_of_reference["session"]["output"])
    values["session"]["input"] = str(tiny_session / f"{NAMES[0]}.mrc")
    folder = output / NAMES[0] / ".tomoseg"
    before = times(folder.parent)
    process({**values, **change})
    after = times(folder.parent)
    redone = {name for name in STAGES if before.get(r := folder / f"{name}.json") != after[r]}
    assert redone == again


@pytest.mark.parametrize(
    "path",
    [
        f"masks/{NAMES[0]}__actin.mrc",
        f"particles/{NAMES[0]}__ribosome__optimisation_set.star",
        "tomograms.star",
    ],
)
def test_a_deleted_file_is_written_again(copy_of_reference, reference, path):
    output = Path(copy_of_reference["session"]["output"])
    (output / NAMES[0] / path).unlink()
    before = times(output)
    states = states_of(process(copy_of_reference))
    assert states == dict(zip(NAMES, ("done", "already there"), strict=True))
    assert tables(output) == tables(reference[0])
    assert times(output)[output / NAMES[0] / ".tomoseg" / "clean.json"] in before.values()


def test_a_deleted_volume_is_made_again(copy_of_reference, reference):
    output = Path(copy_of_reference["session"]["output"])
    shutil.rmtree(output / NAMES[1] / "tomogram.zarr")
    states = states_of(process(copy_of_reference))
    assert states == dict(zip(NAMES, ("already there", "done"), strict=True))
    for path, labels in arrays(reference[0], NAMES[1]).items():
        assert np.array_equal(arrays(output, NAMES[1])[path], labels), path


@pytest.fixture
def tomoseg(monkeypatch, capsys):
    """Run the command line as a person does; returns exit code, stdout and stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["tomoseg", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, *capsys.readouterr()

    return run


def test_a_run_of_one_tomogram_keeps_the_other(copy_of_reference, reference, tomoseg, tiny_session):
    """Its row, its picture on the page, and its part of the tables of the session."""
    output, recipe = Path(copy_of_reference["session"]["output"]), reference[0] / "recipe.yaml"
    one = tiny_session / f"{NAMES[1]}.mrc"
    code, said, _ = tomoseg("run", one, "-r", recipe, "-o", output)
    assert code == 0
    assert "1 of 1 tomograms done (with those of earlier runs 2 of 2)" in said
    rows = json.loads((output / "session.json").read_text())["tomograms"]
    assert [row["state"] for row in rows] == ["done", "already there"]
    assert {**rows[0], "notes": []} == {**reference[1]["tomograms"][0], "notes": []}
    assert (output / "index.html").read_text().count('src="data:image/jpeg') == len(NAMES)
    assert tables(output) == tables(reference[0])
    assert (output / "session" / "csv" / "ribosome.csv").read_text().count(NAMES[0]) > 10


def test_a_run_tells_what_is_lost_of_those_that_it_leaves_alone(
    copy_of_reference, reference, tomoseg, tiny_session
):
    output, recipe = Path(copy_of_reference["session"]["output"]), reference[0] / "recipe.yaml"
    (output / NAMES[0] / "masks" / f"{NAMES[0]}__actin.mrc").unlink()
    _, _, warned = tomoseg("run", tiny_session / f"{NAMES[1]}.mrc", "-r", recipe, "-o", output)
    line = (
        f"note: {NAMES[0]}: not there any more, or cut: masks/{NAMES[0]}__actin.mrc; run it again"
    )
    assert line in warned
    assert line.removeprefix(f"note: {NAMES[0]}: ") in (output / "index.html").read_text()


def test_the_recipe_that_was_used_can_be_used_again(
    copy_of_reference, reference, tomoseg, tmp_path, monkeypatch, two_workers
):
    """From anywhere: the same output stands, and another gets the same results."""
    output = Path(copy_of_reference["session"]["output"])
    recipe = output / "recipe.yaml"
    monkeypatch.chdir(tmp_path)
    # The last run was on a cluster that has ended since.
    assert tomoseg("run", "-r", recipe, "-o", "out", "--dask", two_workers)[0] == 0
    assert two_workers not in recipe.read_text()
    assert two_workers not in (output / NAMES[0] / "manifest.json").read_text()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert tomoseg("validate", recipe)[0] == 0
    before = times(output)
    assert tomoseg("run", "-r", recipe)[0] == 0
    assert times(output) == before
    manifest = output / NAMES[0] / "manifest.json"
    one = load_recipe(recipe).session.input[0] + f"/{NAMES[0]}.mrc"
    assert tomoseg("run", one, "-r", manifest, "-o", "other")[0] == 0
    there = {p: content for p, content in tables(reference[0]).items() if p.startswith(NAMES[0])}
    other = tables(Path("other"))
    assert {p: content for p, content in other.items() if p.startswith(NAMES[0])} == there


@pytest.fixture
def half_bad_session(tiny_session, tmp_path):
    """A good tomogram and one whose file ends early."""
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(tiny_session / f"{NAMES[0]}.mrc", folder / "good.mrc")
    whole = (tiny_session / f"{NAMES[1]}.mrc").read_bytes()
    (folder / "bad.mrc").write_bytes(whole[: len(whole) // 2])
    return folder


def test_a_bad_tomogram_does_not_stop_the_others(
    half_bad_session, tmp_path, values, tomoseg, monkeypatch
):
    recipe = tmp_path / "recipe.yaml"
    values["session"] = {"input": "in", "output": "out"}
    recipe.write_text(json.dumps(values))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", SECRET)
    code, said, warned = tomoseg("run", "--recipe", recipe)
    assert code == 1
    assert "bytes" not in warned
    assert "1 of 2 tomograms done, failed: bad; look at" in said
    output = tmp_path / "out"
    bad, good = json.loads((output / "session.json").read_text())["tomograms"]
    assert (bad["state"], good["state"]) == ("failed", "done")
    assert "bytes" in bad["error"]
    assert bad["remedy"].startswith("Copy the file again")
    page = (output / "index.html").read_text()
    assert "Copy the file again" in page
    code, status, _ = tomoseg("status", output)
    assert code == 1
    assert "1 of 2 tomograms done, 1 failed" in status
    assert bad["remedy"] in status
    for path in output.rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path
    assert SECRET not in said + warned


def test_an_empty_folder_is_a_wrong_request(tmp_path, tiny_model, tomoseg):
    (tmp_path / "in").mkdir()
    given = ["--output", tmp_path / "out", "--set", f"segment.model={tiny_model}"]
    code, _, warned = tomoseg("run", tmp_path / "in", *given)
    assert code == 2
    assert "no tomogram in" in warned
    assert not (tmp_path / "out").exists()


def test_no_output_is_a_wrong_request(values):
    values["session"]["output"] = ""
    with pytest.raises(RequestError, match="--output"):
        plan_session(recipe_from(values))


def test_an_output_that_is_a_file_is_refused_before_work(values, tmp_path):
    (tmp_path / "taken").write_text("")
    for place in ("taken", "taken/below"):
        values["session"]["output"] = str(tmp_path / place)
        with pytest.raises(RequestError, match=r"/taken is a file\. Choose another --output"):
            plan_session(recipe_from(values))


def test_an_output_that_may_only_be_read_is_refused_before_work(values, tmp_path, monkeypatch):
    values["session"]["output"] = str(tmp_path / "locked" / "out")
    # Who runs the tests may be allowed everything.
    monkeypatch.setattr("os.access", lambda place, mode: place != tmp_path)
    with pytest.raises(RequestError, match="may only be read here"):
        plan_session(recipe_from(values))


@pytest.mark.parametrize(
    ("tomogram", "output"),
    [("a.zarr", "a.zarr"), ("a.zarr", "a.zarr/out"), ("tomogram/tomogram.zarr", "")],
)
def test_results_and_a_tomogram_that_would_replace_each_other(values, tmp_path, tomogram, output):
    values["session"]["output"] = str(tmp_path / output)
    found = Found(Path(tomogram).stem, (tmp_path / tomogram).as_uri())
    with pytest.raises(RequestError, match="lie in each other"):
        plan_session(recipe_from(values), [found])


def test_the_journal_and_the_manifest_say_everything(reference, tiny_session, tiny_model):
    output, result = reference
    journal = json.loads((output / "session.json").read_text())
    assert journal == json.loads(json.dumps(result))
    assert journal["version"] == code_version()
    assert journal["started"] <= journal["finished"]
    card = json.loads((tiny_model / "card.json").read_text())
    source = tiny_session / f"{NAMES[0]}.mrc"
    manifest = json.loads((output / NAMES[0] / "manifest.json").read_text())
    assert manifest["tomoseg"] == manifest["environment"]["tomoseg"] == code_version()
    assert manifest["source"]["url"] == source.as_uri()
    assert manifest["source"]["size"] == source.stat().st_size
    assert "mtime" in manifest["source"]["version"]
    assert manifest["classes"] == card["classes"]
    (network,) = manifest["networks"]
    assert network["weights_sha256"] == card["weights_sha256"]
    assert journal["networks"] == manifest["networks"]
    assert tuple(manifest["stages"]) == STAGES
    for stage in manifest["stages"].values():
        assert len(stage["digest"]) == 64
        assert stage["seconds"] >= 0
        assert stage["finished"] >= journal["started"]
    # What was run can be run again from the manifest or the recipe beside it.
    assert recipe_from(manifest["recipe"]).as_yaml() == (output / "recipe.yaml").read_text()


def test_the_journal_and_the_page_say_what_was_left_out(values, tiny_session, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.mrc", "a_mask.mrc"):
        (folder / name).symlink_to(tiny_session / "simulated_0500.mrc")
    values["session"]["input"] = str(folder)
    session = plan_session(recipe_from(values))
    assert session.left_out == {f"file://{folder}/a_mask.mrc": "a mask or labels of a"}
    session.journal()
    output = tmp_path / "out"
    assert json.loads((output / "session.json").read_text())["left_out"] == session.left_out
    line = "1 file left out: a_mask.mrc (a mask or labels of a); to process one as a tomogram"
    assert line in (output / "index.html").read_text()
    assert session_status(str(output))["left_out"].startswith(line)


def test_the_journal_says_when_each_tomogram_was_worked_on(reference):
    journal = json.loads((reference[0] / "session.json").read_text())
    times = [one for row in journal["tomograms"] for one in (row["started"], row["finished"])]
    assert [journal["started"], *times, journal["finished"]] == sorted(
        [journal["started"], *times, journal["finished"]]
    )


def test_status_counts_what_is_there(reference, tmp_path):
    state = session_status(str(reference[0]))
    assert (state["done"], state["failed"]) == (2, 0)
    with pytest.raises(RequestError, match="no session"):
        session_status(str(tmp_path))


def test_status_of_a_session_that_was_interrupted(values):
    def interrupt(tomogram, work, done, total):
        if (work, done) == ("segment predict", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        process(values, interrupt)
    state = session_status(values["session"]["output"])
    first, second = state["tomograms"]
    assert (first["state"], second["state"]) == ("waiting", "waiting"), "it was stopped in order"
    assert state["headline"].endswith("not finished, and nobody is at work: run it again")


def test_a_session_in_bytes_is_made_anew_from_its_networks_on(
    copy_of_reference, reference, tiny_session, monkeypatch, tmp_path
):
    try:
        check_int8("")
    except ResourceError as error:
        pytest.skip(str(error))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    values, (output, _) = copy_of_reference, reference
    values["session"]["input"] = str(tiny_session / f"{NAMES[0]}.mrc")
    values["segment"]["engine"] = "int8"
    result = process(values)
    assert states_of(result) == {NAMES[0]: "done", NAMES[1]: "done"}
    noted = [[n for n in row["notes"] if "another recipe" in n] for row in result["tomograms"]]
    assert (noted[0], "segment.engine" in noted[1][0]) == ([], True)
    folder = Path(values["session"]["output"])
    before, after = (
        json.loads((one / NAMES[0] / "manifest.json").read_text()) for one in (output, folder)
    )
    assert after["recipe"]["segment"]["engine"] == "int8"
    changed = [s for s in STAGES if before["stages"][s]["digest"] != after["stages"][s]["digest"]]
    assert changed[0] == "segment"
    assert before["stages"]["ingest"] == after["stages"]["ingest"]
    path = f"{NAMES[0]}/tomogram.zarr/labels/semantic/0"
    expected, found = (zarr.open_array(one / path, mode="r")[:] for one in (output, folder))
    assert len(np.unique(expected)) > 3
    # Random weights decide by little: trained ones change 2 in 1000 (test_int8.py), these 53.
    assert 0 < (expected != found).mean() < 0.06


@pytest.mark.parametrize("is_elsewhere", [False, True])
def test_an_engine_without_its_processor_is_told_before_any_work(values, monkeypatch, is_elsewhere):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    values["segment"]["engine"] = "int8"
    if is_elsewhere:
        values["compute"] = {"address": "tcp://10.0.0.1:8786"}
        assert {check.problem for check in check_session(plan_session(recipe_from(values)))} == {""}
        return
    with pytest.raises(ResourceError, match=r"one of avx512_vnni.*engine: torch"):
        check_session(plan_session(recipe_from(values)))


def test_bytes_on_gpus_are_refused_before_any_work(values):
    values["segment"]["engine"] = "int8"
    values["compute"] = {"device": "cuda"}
    with pytest.raises(RequestError, match=r"int8 computes on a CPU alone.*engine: torch"):
        check_session(plan_session(recipe_from(values)))


def test_more_threads_than_cores_are_refused_where_the_blocks_run_here(values):
    values["compute"] = {"threads": 1024}
    with pytest.raises(RequestError, match=r"compute\.threads: 1024 are more than the \d+ cores"):
        check_session(plan_session(recipe_from(values)))
    values["compute"]["address"] = "tcp://10.0.0.1:8786"
    assert {check.problem for check in check_session(plan_session(recipe_from(values)))} == {""}


def test_a_disk_too_small_is_told_before_any_work(values, monkeypatch):
    monkeypatch.setattr("tomoseg.pipeline.checks.free_bytes", lambda folder: 2**20)
    with pytest.raises(ResourceError, match=r"are needed in .*/out, .* are free\. Free space"):
        check_session(plan_session(recipe_from(values)))


def test_the_bytes_needed_are_enough(values, reference):
    for check in check_session(plan_session(recipe_from(values))):
        files = [p for p in (reference[0] / check.name).rglob("*") if p.is_file()]
        used = sum(p.stat().st_size for p in files)
        assert used < check.bytes_needed < 2 * used


@pytest.mark.parametrize(
    ("voxel_angstrom", "rescale", "problem"),
    [
        (9.0, "never", r"9 Å, but model tiny was trained at 12 Å.*segment\.rescale: auto"),
        (4.0, "auto", r"2\.5 times apart is not rescaled.*ingest\.bin: 3"),
        (40.0, "auto", "Use a finer reconstruction"),
    ],
)
def test_voxel_sizes_that_do_not_fit_are_told(values, voxel_angstrom, rescale, problem):
    values["source"] = {"voxel_size_angstrom": voxel_angstrom}
    values["segment"]["rescale"] = rescale
    for check in check_session(plan_session(recipe_from(values))):
        assert re.search(problem, check.problem), check.problem


def test_tomograms_that_fit_are_described(values, tiny_session):
    values["source"] = {"voxel_size_angstrom": 9.0}
    first, _ = check_session(plan_session(recipe_from(values)))
    assert first.problem == ""
    assert first.sampling.shape == mrcfile.read(tiny_session / f"{NAMES[0]}.mrc").shape
    assert (first.dtype, first.network_voxels_angstrom) == ("float32", (12.0,))


@pytest.mark.parametrize(
    ("compute", "cores", "blocks", "starts"),
    [
        ({}, 2, [48, 96, 96], False),  # two tomograms of one block
        ({}, 2, [24, 48, 48], True),
        ({}, 1, [16, 32, 32], False),
        ({"workers": 3}, 1, [16, 32, 32], True),
        ({"runner": "serial"}, 4, [16, 32, 32], False),
        ({"runner": "dask"}, 2, [64, 96, 96], True),
    ],
)
def test_workers_are_started_where_they_pay(
    tmp_path, tiny_model, tiny_session, monkeypatch, compute, cores, blocks, starts
):
    started = []

    @contextmanager
    def cluster(compute):
        started.append(local_workers(compute))
        yield "tcp://127.0.0.1:1"

    monkeypatch.setattr("tomoseg.pipeline.session.cluster_address", cluster)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    values = recipe_values(tiny_model, tiny_session, tmp_path / "out")
    values |= {"compute": compute, "blocks": {"shape": blocks}}
    with session_address(plan_session(recipe_from(values))) as address:
        assert (address is not None) == starts
    assert started == ([compute.get("workers", cores)] if starts else [])


@pytest.mark.parametrize("damage", ["missing", "other"])
def test_weights_that_are_not_the_cards_are_told_before_any_work(
    values, tiny_model, tmp_path, damage
):
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    weights = model / "weights.safetensors"
    if damage == "missing":
        weights.unlink()
    else:
        weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    values["segment"]["model"] = str(model)
    with pytest.raises(ModelError, match=r"weights\.safetensors .*Fetch"):
        plan_session(recipe_from(values))
    assert not Path(values["session"]["output"]).exists()


def test_a_source_that_changes_on_the_way_is_taken_anew(values, tiny_session, tmp_path):
    source = tmp_path / "in" / "a.mrc"
    source.parent.mkdir()
    shutil.copy(tiny_session / f"{NAMES[0]}.mrc", source)
    values["session"]["input"] = str(source)

    def changing(tomogram, work, done, total):
        if work.startswith("segment"):
            shutil.copy(tiny_session / f"{NAMES[1]}.mrc", source)

    process(values, changing)
    process(values)
    output = Path(values["session"]["output"])
    values["session"]["output"] = str(tmp_path / "fresh")
    process(values)
    assert tables(output) == tables(tmp_path / "fresh")
    for path, labels in arrays(tmp_path / "fresh", "a").items():
        assert np.array_equal(arrays(output, "a")[path], labels), path


def test_a_second_run_into_one_output_is_refused(values):
    """It stops before it touches anything, and status says who is at work."""
    refused, said = [], []

    def start_another(tomogram, work, done, total):
        if (work, done) == ("segment predict", 1) and not refused:
            before = Path(output, "session.json").read_bytes()
            with pytest.raises(ClaimError, match=f"process {os.getpid()}") as error:
                process(values)
            refused.append(str(error.value))
            said.append(session_status(output))
            assert Path(output, "session.json").read_bytes() == before

    output = values["session"]["output"]
    result = process(values, start_another)
    assert [row["state"] for row in result["tomograms"]] == ["done", "done"]
    assert "Wait for it, end it, or choose another output" in refused[0]
    assert f"not finished; at work: {getpass.getuser()}@" in said[0]["headline"]
    assert said[0]["owner"]["pid"] == os.getpid()
    after = session_status(output)
    assert after["owner"] is None
    assert "at work" not in after["headline"]


def test_a_run_that_was_taken_over_stops(values):
    output = values["session"]["output"]
    blocks = []

    def take_over(tomogram, work, done, total):
        blocks.append(work)
        if (work, done) == ("segment predict", 1):
            (claim,) = Path(output, ".tomoseg").glob("claim-*")
            other = {**json.loads(claim.read_text()), "host": "elsewhere", "pid": 1}
            Path(output, ".tomoseg", "claim-000099.json").write_text(json.dumps(other))

    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(ClaimError, match=r"was taken over by .*@elsewhere, process 1 "),
    ):
        # A sign of life, and with it a look, at each block.
        check = Claim.check
        patch.setattr(Claim, "check", lambda claim: (claim.renew(), check(claim)))
        process(values, take_over)
    assert blocks[-1] == "segment predict"
    state = session_status(output)
    assert state["owner"]["host"] == "elsewhere"
    # What the other run says of the session is left alone.
    assert [row["state"] for row in state["tomograms"]] == ["running", "waiting"]
