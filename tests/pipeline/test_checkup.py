"""What is recorded against what is there: lost, cut and changed, and the command that mends it."""

import json
import shlex
import shutil

import numpy as np
import pytest
import zarr

from tomoseg import cli
from tomoseg.io.stores import Folder
from tomoseg.pipeline.checkup import compare_session, lost_of
from tomoseg.pipeline.session import plan_session, run_session
from tomoseg.recipe.recipe import recipe_from
from tomoseg.service.arrivals import Sights

NAME, OTHER = "simulated_0500", "simulated_0501"
LABELS = "tomogram.zarr/labels/semantic/0"
MASK = f"masks/{NAME}__actin.mrc"


def run(values, *names):
    home = values["session"]["input"]
    inputs = [f"{home}/{name}.mrc" for name in names] or home
    session = {**values["session"], "input": inputs}
    plan = plan_session(recipe_from({**values, "session": session}))
    return run_session(plan, lambda *progress: None)


def values_for(model, session, output):
    return {
        "session": {"input": str(session), "output": str(output)},
        "blocks": {"shape": (24, 48, 96)},
        "segment": {"model": str(model), "precision": "float32", "score_maps": False},
        "trace": {},
        "pick": {"ribosome": {"radius_angstrom": 80.0, "threshold": 0.02}},
        "compute": {"runner": "serial"},
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_model, tiny_session):
    """A session of one tomogram, and its recipe."""
    output = tmp_path_factory.mktemp("finished") / "A"
    values = values_for(tiny_model, tiny_session, output)
    run(values, NAME)
    return output, values


@pytest.fixture
def session(finished, tmp_path):
    """A copy that a test may spoil."""
    output, values = finished
    shutil.copytree(output, tmp_path / "A")
    values = {**values, "session": {**values["session"], "output": str(tmp_path / "A")}}
    return tmp_path / "A", values


def checked_by_name(output):
    return {one.name: one for one in compare_session(Folder(str(output)))}


def status(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        cli.app(["status", *map(str, arguments)])
    return ended.value.code, capsys.readouterr().out


def test_what_stands_is_whole(session, capsys):
    output, _ = session
    assert lost_of(Folder(str(output)), NAME) == []
    assert all(one.is_whole for one in compare_session(Folder(str(output))))
    code, out = status(capsys, output.parent, "--check")
    assert (code, out) == (0, "1 tomogram looked at: all that is recorded stands\n")


@pytest.mark.parametrize(
    "path",
    [
        MASK,
        f"particles/{NAME}__ribosome.csv",
        "tomograms.star",
        "report/overview.png",
        ".tomoseg/thumbnail.jpg",
        ".tomoseg/trace.json",
        "manifest.json",
        f"{LABELS}/zarr.json",
        f"{LABELS}/c/0/0/0",
    ],
)
@pytest.mark.parametrize("is_cut", [False, True])
def test_a_lost_or_cut_file_is_told_by_its_path(session, path, is_cut):
    output, _ = session
    file = output / NAME / path
    file.unlink()
    if is_cut:
        file.touch()
    array = path.startswith(LABELS)
    # Of what cannot be read nothing is known.
    known = path.endswith(".json")
    assert lost_of(Folder(str(output)), NAME) == [LABELS if array else path]
    found = checked_by_name(output)[NAME].found
    where = found.cut if is_cut and not known else found.lost
    assert where == (LABELS if array else path,)


def test_a_cut_receipt_stops_no_check_and_no_run(session, capsys):
    """Of a stage of which a shard is gone, too."""
    output, values = session
    (receipt, *_) = (output / NAME / ".tomoseg").glob("clean-*/*/*/*.json")
    receipt.write_bytes(receipt.read_bytes()[:9])
    before = (output / NAME / LABELS / "c/0/0/0").read_bytes()
    (output / NAME / LABELS / "c/0/0/0").unlink()
    assert LABELS in lost_of(Folder(str(output)), NAME)
    result = run(values, NAME)
    assert [row["state"] for row in result["tomograms"]] == ["done"]
    assert (output / NAME / LABELS / "c/0/0/0").read_bytes() == before


def test_files_of_no_bytes_and_folders_stand_where_they_were_written_so(folder):
    """In object storage, too."""
    files = ["imod/none.txt", "masks/a.ome.zarr", "masks/b.mrc", "masks/c.mrc", "masks/d.mrc"]
    record = {
        "digest": "0" * 64,
        "summary": {"files": files[:3]},
        "published": {
            "files": files[2:4],
            "written": files[4:],
            "sizes": {files[0]: 0, files[2]: 1, files[3]: 9, files[4]: 9},
        },
    }
    folder.write_json("t/manifest.json", {"stages": {"export": {}}})
    folder.write_json("t/.tomoseg/export.json", record)
    folder.write("t/imod/none.txt", b"")
    folder.write("t/masks/a.ome.zarr/zarr.json", b"{}")
    folder.write("t/masks/b.mrc", b"b")
    folder.write("t/masks/c.mrc", b"")
    assert lost_of(folder, "t") == ["masks/d.mrc", "masks/c.mrc"]


def test_the_command_makes_again_what_is_lost_and_no_more(session, capsys):
    """As printed; of a session whose recipe has changed since, by the recipe of the tomogram."""
    output, values = session
    run({**values, "ingest": {"bin": 2}, "clean": {}}, OTHER)
    before = (output / NAME / MASK).read_bytes()
    (output / NAME / MASK).unlink()
    code, out = status(capsys, output, "--check")
    assert code == 1
    head, line = out.splitlines()
    assert head == "2 tomograms looked at: 1 to make again"
    assert line.startswith(f"A: {NAME}: lost {MASK} - to make it again: tomoseg run ")
    assert f"-r {output}/{NAME}/manifest.json" in line
    records = {p: p.stat().st_mtime_ns for p in (output / NAME / ".tomoseg").glob("*.json")}
    command = shlex.split(line.partition("to make it again: ")[2])
    with pytest.raises(SystemExit) as ended:
        cli.app(command[1:])
    assert ended.value.code == 0
    assert (output / NAME / MASK).read_bytes() == before
    redone = {p.stem for p, when in records.items() if p.stat().st_mtime_ns != when}
    assert redone - {"progress"} == {"export"}
    capsys.readouterr()
    assert status(capsys, output, "--check")[0] == 0


def test_what_a_person_wrote_is_told_and_is_no_loss(session, capsys):
    output, _ = session
    array = zarr.open_array(output / NAME / LABELS)
    array[:] = np.random.default_rng(0).integers(0, 3, array.shape).astype(array.dtype)
    assert lost_of(Folder(str(output)), NAME) == []
    code, out = status(capsys, output, "--check")
    assert (code, out.splitlines()[1]) == (0, f"A: {NAME}: changed {LABELS}")


def test_a_tomogram_whose_folder_is_gone(session, capsys, tiny_session):
    output, _ = session
    shutil.rmtree(output / NAME)
    assert "manifest.json" in lost_of(Folder(str(output)), NAME)
    _, out = status(capsys, output, "--check", "--json")
    (one, _) = json.loads(out)["sessions"]["A"]
    assert (one["name"], one["note"], one["lost"]) == (
        NAME, "its results are not there any more", []
    )  # fmt: skip
    assert one["command"] == (
        f"tomoseg run {tiny_session}/{NAME}.mrc -r {output}/recipe.yaml -o {output}"
    )


def test_a_finished_tomogram_that_the_journal_does_not_name(session):
    """As a run of others left it before they were kept."""
    output, _ = session
    journal = json.loads((output / "session.json").read_text())
    (output / "session.json").write_text(json.dumps({**journal, "tomograms": []}))
    one = checked_by_name(output)[NAME]
    assert one.note == "it is done, and session.json does not name it"
    assert one.found.is_whole and one.command


def test_a_journal_that_is_gone(session, capsys):
    output, _ = session
    (output / "session.json").unlink()
    code, out = status(capsys, output.parent, "--check")
    assert code == 1
    assert f"A: {NAME}: it is done, and session.json does not name it - to make it again: " in out
    assert "A: the session: lost session.json - to make it again: " in out


def test_where_nothing_has_begun_nothing_is_lost(tmp_path, capsys):
    Sights().write(Folder(str(tmp_path / "A")))
    assert status(capsys, tmp_path, "--check")[0] == 0


@pytest.mark.parametrize("name", ["index.html", "recipe.yaml", "session/csv/ribosome.csv"])
def test_files_of_the_session_itself(session, name):
    output, values = session
    (output / name).unlink()
    one = checked_by_name(output)[""]
    assert one.found.lost == (name,)
    assert one.command.startswith("tomoseg run ")
    run(values, NAME)
    assert (output / name).is_file()


def test_what_was_exported_and_is_gone(session, capsys):
    output, _ = session
    with pytest.raises(SystemExit):
        cli.app(["export", str(output), "--to", "dynamo"])
    (gone, *_) = (output / NAME / "dynamo").iterdir()
    gone.unlink()
    one = checked_by_name(output)[""]
    assert one.found.lost == (f"{NAME}/dynamo/{gone.name}",)
    assert one.command == f"tomoseg export {output} --to dynamo"
