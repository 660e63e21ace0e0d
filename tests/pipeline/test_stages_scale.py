"""What the driver holds and reads does not grow with a tomogram's blocks, nor with a session."""

import tracemalloc
from collections import deque
from types import SimpleNamespace

import numpy as np
import pytest

from tomoseg.compute.runners import SerialRunner
from tomoseg.core.blocks import BlockGrid
from tomoseg.core.sampling import Sampling
from tomoseg.io.stores import Folder, Ledger, Volume
from tomoseg.pipeline.session import Journal
from tomoseg.pipeline.stages import Context
from tomoseg.pipeline.stages.context import receipt_name
from tomoseg.pipeline.stages.picture import _mean
from tomoseg.recipe.recipe import recipe_from


class Numbered:
    """Work that notes its blocks."""

    def __init__(self):
        self.blocks = []

    def __call__(self, block):
        self.blocks.append(block.name)
        return {"number": len(self.blocks)}


class Blind:
    """A runner that looks at items, one at a time, and does nothing."""

    def map(self, task, items, *, on_device=False, waits=None):
        deque((item for item in items), maxlen=0)
        return iter(())


def context(folder, runner, progress=lambda *done: None):
    return Context("t", "", folder, recipe_from({}), {}, (), runner, progress)


GRID = BlockGrid((24, 32, 16), (8, 8, 8))


def test_a_pass_does_what_has_no_receipt_and_names_all_in_order(folder):
    ledger, said = Ledger(folder, "segment", "0" * 64), []
    there = [GRID.block(index) for index in ((0, 1, 0), (2, 3, 1), (2, 0, 0))]
    for block in there:
        ledger.write(receipt_name("predict", block), {"number": 0})
    # Receipts of other passes, and a sidecar without one, do not count.
    ledger.write(receipt_name("predict-again", GRID.block((1, 0, 0))), {})
    ledger.write_arrays(receipt_name("predict", GRID.block((1, 1, 1))), {})
    work = Numbered()
    given = context(folder, SerialRunner(), lambda *done: said.append(done))
    names = list(given.run_pass(ledger, "predict", work, GRID))
    assert names == [f"predict/{z}/{z}-{y}-{x}" for z in range(3) for y in range(4) for x in (0, 1)]
    assert work.blocks == [b.name for b in GRID if b not in there]
    assert [done for *_, done, _ in said] == [3, *range(4, 25)]
    assert {ledger.read(name)["number"] for name in names} == set(range(22))


def test_a_pass_holds_a_byte_a_block_and_not_the_blocks(tmp_path):
    grid = BlockGrid((20, 25, 20), (1, 1, 1))
    given = context(Folder(str(tmp_path)), Blind())
    ledger = Ledger(given.folder, "segment", "0" * 64)
    given.run_pass(ledger, "predict", Numbered(), GRID)  # what is imported once
    tracemalloc.start()
    try:
        given.run_pass(ledger, "predict", Numbered(), grid)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A list of the blocks takes some 500 bytes each.
    assert peak < 4 * len(grid) + 50_000


def test_a_pass_tells_each_receipt_once_and_reads_only_those_of_before(folder, monkeypatch):
    ledger, told, read = Ledger(folder, "segment", "0" * 64), [], []
    there = [GRID.block(index) for index in ((0, 1, 0), (2, 3, 1))]
    for block in there:
        ledger.write(receipt_name("predict", block), {"number": -1})
    whole = Ledger.read
    monkeypatch.setattr(Ledger, "read", lambda self, name: read.append(name) or whole(self, name))
    monkeypatch.setattr(Ledger, "find", lambda self, name: None)
    given = context(folder, SerialRunner())
    given.run_pass(ledger, "predict", Numbered(), GRID, told=told.append)
    assert sorted(receipt["number"] for receipt in told) == [-1, -1, *range(1, 23)]
    assert sorted(read) == [receipt_name("predict", block) for block in there]


@pytest.mark.parametrize("blocks", [(8, 16, 8), (5, 20, 30)])
def test_the_projection_is_the_mean_of_numbers_whatever_the_blocks(tmp_path, blocks):
    voxels = np.random.default_rng(3).normal(size=(20, 20, 30)).astype(np.float32)
    voxels[7, :4] = np.nan
    voxels[:, 9, 9] = np.inf
    volume = Volume(Folder(str(tmp_path)), "0")
    volume.create(voxels.shape, "float32", shard=blocks)
    for block in BlockGrid(voxels.shape, blocks):
        volume.write(block.write, voxels[block.write.slices])
    given = SimpleNamespace(
        sampling=lambda: Sampling(voxels.shape, (10.0, 10.0, 10.0)),
        recipe=recipe_from({"blocks": {"shape": [8, 16, 8]}}),
        volume=lambda path: volume,
    )
    found = _mean(given, 3, 17)
    known = np.ma.masked_invalid(voxels[3:17]).mean(axis=0)
    np.testing.assert_allclose(np.ma.array(found, mask=known.mask), known, atol=1e-6)
    assert known.mask.sum() == 1 and known.mask[9, 9]
    assert found[9, 9] == pytest.approx(known.mean(), abs=1e-5)


def test_a_journal_reads_each_thumbnail_once(tmp_path, monkeypatch):
    names, folder, read = [f"t{i}" for i in range(6)], Folder(str(tmp_path)), []
    for name in names:
        folder.write(f"{name}/.tomoseg/thumbnail.jpg", f"picture of {name}".encode())
    values = {
        "version": "0", "started": "2026-01-31T00:00:00+00:00", "finished": "",
        "tomograms": [{"name": name, "state": "waiting"} for name in names],
    }  # fmt: skip
    whole = Folder.read
    monkeypatch.setattr(Folder, "read", lambda f, name: read.append(name) or whole(f, name))
    journal = Journal(folder, values)
    for name in names:
        journal.note({"name": name, "state": "running"})
        journal.note({"name": name, "state": "done", "picture": f"{name}/report/overview.png"})
    journal.finish()
    pictures = [name for name in read if name.endswith(".jpg")]
    assert pictures == [f"{name}/.tomoseg/thumbnail.jpg" for name in names]
    assert (tmp_path / "index.html").read_text().count("data:image/jpeg;base64,") == len(names)
