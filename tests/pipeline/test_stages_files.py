"""Files of a stage: a receipt each, killed and gone on with, and a lost one alone made again."""

from dataclasses import replace
from pathlib import Path

import pytest

from tomoseg.compute.runners import SerialRunner
from tomoseg.io.stores import Folder, Ledger
from tomoseg.pipeline.session import plan_session
from tomoseg.pipeline.stages import STAGES, run_stage
from tomoseg.pipeline.stages.context import Context, Piece
from tomoseg.pipeline.stages.files import make_files
from tomoseg.recipe.recipe import recipe_from


class Killed(BaseException):
    """What no code catches, as a kill is."""


class Dying(SerialRunner):
    """A runner whose process is killed after some items."""

    def __init__(self, items):
        super().__init__()
        self._items = items

    def map(self, task, items, *, on_device=False, waits=None):
        receipts = super().map(task, items, on_device=on_device)
        for _ in range(self._items):
            yield next(receipts)
        raise Killed


def contents(folder):
    """Return the bytes of all published files, but for records."""
    found = (path for path in sorted(folder.path.rglob("*")) if path.is_file())
    return {
        str(name): path.read_bytes()
        for path in found
        if (name := path.relative_to(folder.path)).parts[0] not in (".tomoseg", "tomogram.zarr")
    }


@pytest.fixture(scope="module")
def analysed(tmp_path_factory, tiny_model, tiny_session):
    """Return what takes a tomogram up to its export, in a folder of its own."""

    def context(name):
        values = {
            "session": {
                "input": str(tiny_session / "simulated_0500.mrc"),
                "output": str(tmp_path_factory.mktemp(name)),
            },
            "blocks": {"shape": (24, 48, 96)},
            "segment": {"model": str(tiny_model), "precision": "float32", "score_maps": False},
            "trace": {"double_membrane": {"radius_angstrom": 40.0}},
            "pick": {"ribosome": {"radius_angstrom": 80.0, "method": "components"}},
            "export": {
                "masks": ["mrc", "tiff", "ome_zarr", "copick"],
                "meshes": ["stl"],
                "dialects": ["relion5", "csv", "dynamo", "copick"],
            },
            "compute": {"runner": "serial"},
        }
        session = plan_session(recipe_from(values))
        seen = []
        found = session.context(session.tomograms[0], SerialRunner(), lambda *one: seen.append(one))
        for stage in STAGES:
            if stage == "export":
                break
            run_stage(found, stage)
        return found, seen

    return context


def made(seen):
    """Return how many files a stage's pass began with, made, and all."""
    done = [(one[2], one[3]) for one in seen if one[1].endswith(" files")]
    seen.clear()
    return done[0][0], done[-1][0] - done[0][0], done[-1][1]


def test_a_killed_export_goes_on_and_a_lost_file_alone_is_made_again(analysed):
    quiet, seen = analysed("quiet")
    seen.clear()
    files = run_stage(quiet, "export")["summary"]["files"]
    begun, there, number = made(seen)
    assert (begun, there) == (0, number)
    assert number > 20
    assert len(files) == len(set(files)) >= number
    assert all(quiet.folder.exists(name) for name in files)

    killed, seen = analysed("killed")
    with pytest.raises(Killed):
        run_stage(replace(killed, runner=Dying(9)), "export")
    assert contents(killed.folder) == {}
    seen.clear()
    assert run_stage(killed, "export")["summary"]["files"] == files
    assert made(seen) == (9, number - 9, number)
    assert contents(killed.folder) == contents(quiet.folder)

    before = contents(killed.folder)
    overlay = next(name for name in files if name.endswith("classes-multilabel.zarr"))
    table = next(name for name in files if name.startswith("dynamo/"))
    for lost in ("masks/simulated_0500__actin.mrc", "tomograms.star", table, overlay):
        killed.folder.remove(lost)
        assert run_stage(killed, "export")["is_reused"] is False
        assert made(seen) == (number - 1, 1, number)
    assert contents(killed.folder) == before
    assert run_stage(killed, "export")["is_reused"] is True

    # The picture is a file as others are.
    with pytest.raises(Killed):
        run_stage(replace(killed, runner=Dying(0)), "report")
    assert not killed.folder.exists("report/overview.png")
    seen.clear()
    run_stage(killed, "report")
    assert made(seen) == (0, 1, 1)
    assert killed.folder.size("report/overview.png") > 1000
    run_stage(quiet, "report")
    places = ("report/overview.png", ".tomoseg/thumbnail.jpg")
    assert [killed.folder.read(p) for p in places] == [quiet.folder.read(p) for p in places]


def write_name(context, *, name):
    context.staged.write(f"{name}.txt", name.encode())
    return [f"{name}.txt"]


class Writes:
    """Writes a file of its name; callable, so that it can be counted."""

    def __init__(self, name):
        self.name, self.count = name, 0

    def __call__(self, context):
        self.count += 1
        return write_name(context, name=self.name)


def test_pieces_keep_their_order_and_are_made_once(folder):
    told = []
    context = Context(
        "t", "", folder, recipe_from({}), {}, (), SerialRunner(2), lambda *one: told.append(one)
    )
    ledger = Ledger(context.records, "export", "0" * 64)
    writers = [Writes(name) for name in "cab"]
    pieces = [Piece(f"folder/{one.name}", one) for one in writers]
    for _ in range(2):
        assert make_files(context, ledger, pieces) == ["c.txt", "a.txt", "b.txt"]
    assert [one.count for one in writers] == [1, 1, 1]
    assert [one[2:] for one in told] == [(0, 3), (1, 3), (2, 3), (3, 3), (3, 3)]
    assert folder.read("a.txt") == b"a"


def test_no_two_pieces_of_an_export_share_a_file(analysed):
    context, _ = analysed("shared")
    run_stage(context, "export")
    ledger = Ledger.of(context.records, "export", context.record("export")["digest"])
    root = Path(ledger.folder.path, ledger.place, "files")
    receipts = [Folder(str(path.parent)).read_json(path.name) for path in root.rglob("*.json")]
    files = [name for receipt in receipts for name in receipt["files"]]
    assert sorted(files) == sorted(set(files))
    assert "copick/config.json" in files
    assert "tomograms.star" in files
