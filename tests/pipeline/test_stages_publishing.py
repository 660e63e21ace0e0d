"""What blocks write is published at the end: late writers, kills and losses do not show."""

import contextlib
import logging
from collections import Counter
from dataclasses import replace

import mrcfile
import numpy as np
import pytest

from tomoseg import __version__
from tomoseg.compute.runners import SerialRunner
from tomoseg.core.blocks import Box
from tomoseg.core.errors import ClaimError, StoreError
from tomoseg.io.stores import Folder, moves
from tomoseg.pipeline.session import plan_session
from tomoseg.pipeline.stages import publishing, run_stage
from tomoseg.pipeline.stages.publishing import sweep
from tomoseg.recipe.recipe import recipe_from

# Six blocks of level 0, two of level 1.
SHAPE, BLOCKS = (16, 136, 40), (8, 48, 40)
STAGES = ("ingest", "segment", "clean")
LABELS = "tomogram.zarr/labels/semantic/0"


class Killed(BaseException):
    """The driver's end."""


class Counting(SerialRunner):
    """Counts the blocks of each pass and keeps the work that it is given; may die on the way."""

    def __init__(self, dies_in="", after=0):
        super().__init__()
        self.blocks, self.steps = Counter(), {}
        self._dies_in, self._after = dies_in, after
        self.between = lambda: None

    def map(self, task, items, *, on_device=False, waits=None):
        name = f"{task.ledger.stage} {task.label}"
        for item in items:
            if name == self._dies_in and self.blocks[name] == self._after:
                self.steps[name] = (task, item)
                raise Killed
            self.blocks[name] += 1
            yield task(item)
            if self.blocks[name] == 2:
                self.between()


@pytest.fixture(scope="module")
def tomogram(tmp_path_factory):
    path = tmp_path_factory.mktemp("in") / "t.mrc"
    with mrcfile.new(path) as file:
        file.set_data(np.random.default_rng(3).normal(0, 100, SHAPE).astype(np.int16))
        file.voxel_size = 12.0
    return path


@pytest.fixture(scope="module")
def context_of(tomogram, tiny_model):
    """Plan a tomogram of an output; ``bright`` stands for another recipe."""

    def plan(output, runner=None, *, contrast="dark", **session):
        values = {
            "session": {"input": str(tomogram), "output": output.url, **session},
            "source": {"contrast": contrast},
            "segment": {"model": str(tiny_model), "precision": "float32"},
            "blocks": {"shape": BLOCKS},
            "clean": {"actin": {"closing_angstrom": 24.0}},
            "trace": {"microtubule": {}},
            "pick": {},
        }
        planned = plan_session(recipe_from(values))
        (found,) = planned.tomograms
        return planned.context(found, runner or Counting(), lambda *progress: None)

    return plan


def run(context):
    """Take a tomogram through the stages that make arrays."""
    reused = [run_stage(context, name)["is_reused"] for name in STAGES]
    sweep(context.folder)
    return reused


def contents(context):
    """Return all files but the receipts and records, which hold times."""
    folder = context.folder
    names = [
        n for n in moves.sizes_below(folder) if not n.endswith((".json", "begun", "publishing"))
    ]
    return {name: folder.read(name) for name in names} | {
        name: folder.read(name) for name in moves.sizes_below(folder, "tomogram.zarr")
    }


def arrays(found):
    return {name: content for name, content in found.items() if name.startswith("tomogram.zarr")}


@pytest.fixture(scope="module")
def undisturbed(context_of, tmp_path_factory):
    """Contents after runs that nothing happened to, by contrast."""
    found = {}
    for contrast in ("dark", "bright"):
        context = context_of(Folder(str(tmp_path_factory.mktemp(contrast))), contrast=contrast)
        run(context)
        found[contrast] = contents(context)
    assert found["dark"].keys() != found["bright"].keys(), "sidecars lie under their digests"
    for part in ("work/segmented/c/", "scores/microtubule/c/", "labels/semantic/1/c/", "1/c/"):
        assert any(name.startswith(f"tomogram.zarr/{part}") for name in found["dark"]), part
    segmented = [n for n in found["dark"] if "segmented/c/" in n]
    assert all(found["dark"][name] != found["bright"][name] for name in segmented)
    return found


@pytest.fixture
def orphan(context_of, folder):
    """A block of a driver that was killed, as a worker holds it that looked before it leapt."""
    runner = Counting("segment predict", after=2)
    with pytest.raises(Killed):
        run(context_of(folder, runner))
    step, block = runner.steps["segment predict"]
    return replace(step, is_fenced=False), block


def writes_late(orphan):
    step, block = orphan
    with pytest.raises(StoreError):
        step(block)


@pytest.mark.parametrize("moment", ["before", "during", "after"])
def test_an_orphan_of_another_recipe_writes_late(orphan, context_of, folder, undisturbed, moment):
    runner = Counting()
    context = context_of(folder, runner, contrast="bright")
    if moment == "during":
        runner.between = lambda: writes_late(orphan)
    if moment == "before":
        orphan[0](orphan[1])
    run(context)
    if moment == "after":
        writes_late(orphan)
    assert contents(context) == undisturbed["bright"]
    assert runner.blocks["segment predict"] == 6


@pytest.mark.parametrize("moment", ["during", "after"])
def test_an_orphan_of_the_same_recipe_writes_late(orphan, context_of, folder, undisturbed, moment):
    runner = Counting()
    context = context_of(folder, runner)
    step, block = orphan
    shard = "tomogram.zarr/work/segmented/c/0/0/0"
    if moment == "during":
        # Its driver's successor works under the same digest: the same voxels, and a half of a file.
        def between():
            step(block)
            if folder.is_local:
                step.ledger.staged.write(f"{shard}.{32 * '5'}.partial", b"")

        runner.between = between
    run(context)
    if moment == "after":
        step.ledger.forget("predict/0/0-2-0")
        writes_late(orphan)
    sweep(context.folder)
    assert contents(context) == undisturbed["dark"]


def test_an_orphan_meets_a_stage_begun_anew_with_its_own_recipe(
    orphan, context_of, folder, undisturbed
):
    """Back and forth: what it writes must not count in the second run of its own recipe."""
    run(context_of(folder, contrast="bright"))
    runner = Counting()
    runner.between = lambda: writes_late(orphan)
    context = context_of(folder, runner)
    run(context)
    assert runner.blocks["segment predict"] == 6
    assert arrays(contents(context)) == arrays(undisturbed["dark"])


def test_an_orphan_that_looks_does_nothing(orphan, context_of, folder):
    run(context_of(folder, contrast="bright"))
    step, block = orphan
    with pytest.raises(StoreError, match="was given up: another run works with other settings"):
        replace(step, is_fenced=True)(block)


def test_an_orphan_reads_what_other_settings_made(context_of, folder, undisturbed):
    """Its stage was begun and not finished; the next run of its recipe must not take its block."""
    runner = Counting("clean smooth", after=1)
    with pytest.raises(Killed):
        run(context_of(folder, runner))
    step, block = runner.steps["clean smooth"]
    other = context_of(folder, contrast="bright")
    run_stage(other, "ingest")
    run_stage(other, "segment")
    with contextlib.suppress(StoreError):
        step(block)
    context = context_of(folder)
    run(context)
    assert arrays(contents(context)) == arrays(undisturbed["dark"])


@pytest.mark.parametrize("moment", ["looked", "moving", "recording"])
def test_a_driver_that_was_frozen_takes_nothing_from_its_successor(
    context_of, folder, undisturbed, monkeypatch, moment
):
    """It wakes when the other is done, between its look at the claim and what it does then."""
    if moment == "moving" and not folder.is_local:
        pytest.skip("where nothing is renamed, it could still remove what it is to replace")
    frozen = []

    def freeze():
        if not frozen:
            frozen.append(context_of(folder, contrast="bright"))
            run(frozen[0])

    def looked(tomogram, work, done, number):
        if moment == "looked" and work == "segment publish" and done == 1:
            freeze()

    def moving(*args, stands=moves.stands):
        is_there = stands(*args)
        freeze()
        return is_there

    def recording(*args, create_json=Folder.create_json):
        freeze()
        return create_json(*args)

    context = replace(context_of(folder), progress=looked)
    run_stage(context, "ingest")
    if moment == "moving":
        monkeypatch.setattr(moves, "stands", moving)
    if moment == "recording":
        monkeypatch.setattr(Folder, "create_json", recording)
    with pytest.raises((ClaimError, FileNotFoundError)):
        run(context)
    monkeypatch.undo()
    assert contents(frozen[0]) == undisturbed["bright"]
    assert run(frozen[0]) == [True] * 3


@pytest.mark.parametrize("step", range(12))
def test_publishing_may_be_killed_at_any_step(context_of, folder, undisturbed, monkeypatch, step):
    """Also in the middle of a copy, where the store cannot rename."""
    left = [step]

    def dying(whole):
        def call(*args, **kwargs):
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            return whole(*args, **kwargs)

        return call

    context = context_of(folder)
    run_stage(context, "ingest")
    for module, name in ((publishing, "transfer"), (publishing, "discard"), (moves, "_copy")):
        monkeypatch.setattr(module, name, dying(getattr(module, name)))
    with contextlib.suppress(Killed):
        run_stage(context, "segment")
    monkeypatch.undo()
    runner = Counting()
    again = context_of(folder, runner)
    run(again)
    assert runner.blocks["segment predict"] == 0
    assert contents(again) == undisturbed["dark"]
    assert run(again) == [True] * 3


@pytest.mark.parametrize("damage", ["gone", "empty", "cut"])
@pytest.mark.parametrize(
    ("array", "passes"),
    [
        ("0", {"ingest copy": 1}),
        ("1", {"ingest copy": 1}),
        ("work/segmented", {"segment predict": 1}),
        ("scores/microtubule", {"segment predict": 1}),
        ("labels/semantic/0", {"clean smooth": 6, "clean relabel": 1}),
        ("labels/instances/1", {"clean smooth": 6, "clean relabel": 1}),
    ],
)
def test_a_lost_shard_is_made_again_and_no_other(
    context_of, folder, undisturbed, array, passes, damage
):
    run(context_of(folder))
    shard = next(n for n in undisturbed["dark"] if n.startswith(f"tomogram.zarr/{array}/c/"))
    context = context_of(folder, runner := Counting())
    if damage == "gone":
        context.folder.remove(shard)
    else:
        whole = context.folder.read(shard)
        context.folder.write(shard, b"" if damage == "empty" else whole[: len(whole) // 2])
    run(context)
    assert runner.blocks == passes
    assert contents(context) == undisturbed["dark"]
    assert run(context) == [True] * 3


def test_what_a_person_put_there_is_told_and_left_alone(context_of, folder, caplog):
    context = context_of(folder)
    run(context)
    volume = context.volume("labels/semantic/0")
    block = Box((0, 0, 0), BLOCKS)
    mine = volume.read(block) * 0 + 3
    mine[0, 0, 0] = 1
    volume.write(block, mine)
    with caplog.at_level(logging.WARNING):
        assert run(context) == [True] * 3
    assert f"{LABELS} is not what the run wrote; it is left as it is" in caplog.text
    assert np.array_equal(volume.read(block), mine)


FILES = ("trace", "pick", "sample", "export", "report")


@pytest.fixture(scope="module")
def exported(context_of, tmp_path_factory):
    """A tomogram that all stages have seen."""
    context = context_of(Folder(str(tmp_path_factory.mktemp("exported"))))
    run(context)
    for name in FILES:
        run_stage(context, name)
    return context


def reused(context):
    return {name for name in FILES if run_stage(context, name)["is_reused"]}


@pytest.mark.parametrize(
    ("path", "stage"),
    [
        ("filaments/t__microtubule.csv", "export"),
        ("filaments/t__microtubule.star", "export"),
        ("tomograms.star", "export"),
        ("masks/t__actin.mrc", "export"),
        ("report/overview.png", "report"),
        (".tomoseg/filaments/microtubule.npz", "trace"),
    ],
)
@pytest.mark.parametrize("left", [0.0, 0.4, 0.97])
def test_a_file_that_was_cut_is_made_again_and_no_other(exported, path, stage, left):
    whole = exported.folder.read(path)
    cut = whole[: int(len(whole) * left)].removesuffix(b"\n")
    assert len(cut) < len(whole)
    exported.folder.write(path, cut)
    again = reused(exported)
    assert stage not in again
    assert {"trace", "pick", "sample"} - {stage} <= again
    assert exported.folder.read(path) == whole
    assert reused(exported) == set(FILES)


def edited(content, path):
    if path.endswith(".mrc"):
        return content + bytes(8)
    if path.endswith(".png"):
        return content[:99] + content[120:]
    return content[:10] + b"\n"


@pytest.mark.parametrize(
    "path",
    ["filaments/t__microtubule.csv", "tomograms.star", "masks/t__actin.mrc", "report/overview.png"],
)
def test_a_file_that_a_person_edited_is_told_and_left_alone(exported, path, caplog):
    whole = exported.folder.read(path)
    mine = edited(whole, path)
    exported.folder.write(path, mine)
    try:
        with caplog.at_level(logging.WARNING):
            assert reused(exported) == set(FILES)
        assert f"t: {path} is not what the run wrote; it is left as it is" in caplog.text
        assert exported.folder.read(path) == mine
    finally:
        exported.folder.write(path, whole)


def test_a_stage_whose_record_was_cut_is_made_again(context_of, folder, undisturbed):
    context = context_of(folder)
    run(context)
    context.records.write("segment.json", b'{"dig')
    assert run(context) == [True, False, True]
    assert arrays(contents(context)) == arrays(undisturbed["dark"])
    assert run(context) == [True] * 3


def test_a_shard_lost_while_the_stage_worked_is_made_again(orphan, context_of, folder, undisturbed):
    staged = orphan[0].ledger.staged
    shard = "tomogram.zarr/work/segmented/c/0/0/0"
    assert staged.exists(shard)
    staged.remove(shard)
    context = context_of(folder, runner := Counting())
    run(context)
    assert runner.blocks["segment predict"] == 5
    assert contents(context) == undisturbed["dark"]


@pytest.mark.parametrize("is_kept", [False, True])
def test_what_other_settings_replace_is_told_and_kept_where_asked(
    context_of, folder, undisturbed, caplog, is_kept
):
    context = context_of(folder)
    run(context)
    stages = ("trace", "pick", "sample", "export", "report")
    for name in stages:
        run_stage(context, name)
    context.folder.write("masks/mine.txt", b"a person's")
    table = context.folder.read("filaments/t__microtubule.csv")
    recipe = context.recipe.model_dump(mode="json")
    context.folder.write_json("manifest.json", {"tomoseg": __version__, "recipe": recipe})
    again = context_of(folder, contrast="bright", keep_previous=is_kept)
    with caplog.at_level(logging.WARNING):
        run(again)
    (said,) = [r.getMessage() for r in caplog.records if "made again" in r.getMessage()]
    assert said.startswith(
        "t: segment, clean, trace, pick, sample, export, report will be made again: "
        "source.contrast differs; results of 20"
    )
    assert ("kept under previous/" in said) == is_kept
    # Nothing of the old settings lies beside what is new.
    names = context.folder.names()
    assert ("previous" in names) == is_kept
    assert not {"filaments", "manifest.json", "report"} & set(names)
    assert context.folder.names("masks") == ["mine.txt"]
    assert arrays(contents(again)) == arrays(undisturbed["bright"])
    if is_kept:
        (when,) = context.folder.names("previous")
        kept = context.folder / f"previous/{when}"
        assert when in said
        assert kept.read("filaments/t__microtubule.csv") == table
        for name, content in undisturbed["dark"].items():
            if "/labels/" in name or "/scores/" in name:
                assert kept.read(name) == content
        assert kept.exists("manifest.json")
        assert not kept.exists("masks/mine.txt")
