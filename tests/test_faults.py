"""What may happen to a run at any time: killed, a worker lost, the disk full."""

import errno
import getpass
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
from distributed import Client

from tomoseg.compute.clusters import open_cluster
from tomoseg.compute.runners import open_runner
from tomoseg.core.blocks import BlockGrid, Box
from tomoseg.core.errors import ResourceError
from tomoseg.io.stores import Folder, Ledger, Volume, living_owner
from tomoseg.pipeline.history import History
from tomoseg.pipeline.session import plan_session, run_session
from tomoseg.pipeline.stages.context import Step
from tomoseg.recipe.recipe import recipe_from

NAME = "simulated_0500"
BLOCKS = 36
# Everything but these is the same bytes from run to run; these hold times and places.
TIMED = ("session.json", "index.html", "recipe.yaml", "manifest.json")


@pytest.fixture
def values(tiny_model, tiny_session, tmp_path):
    return recipe_values(tiny_model, tiny_session, tmp_path / "out")


def recipe_values(model, session, output):
    """A recipe of one tomogram, on one thread, in so many blocks that there is a middle."""
    return {
        "session": {"input": str(session / f"{NAME}.mrc"), "output": str(output)},
        "blocks": {"shape": (16, 32, 24)},
        "segment": {"model": str(model), "precision": "float32"},
        "clean": {},
        "trace": {},
        "compute": {"runner": "serial"},
    }


def process(values, progress=lambda *progress: None):
    (row,) = run_session(plan_session(recipe_from(values)), progress)["tomograms"]
    return row


def results(output):
    """Return the bytes of every file that does not hold a time."""
    return {
        str(path.relative_to(output)): path.read_bytes()
        for path in sorted(Path(output).rglob("*"))
        if path.is_file() and path.name not in TIMED and not is_receipt(path)
    }


def is_receipt(path):
    return ".tomoseg" in path.parts and path.suffix == ".json"


def receipts(output, stage="segment"):
    """Return when each finished block of a stage got its receipt."""
    found = Path(output).glob(f"{NAME}/.tomoseg/{stage}-*/*/*/*.json")
    return {path: path.stat().st_mtime_ns for path in found}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, tiny_model, tiny_session):
    """What a run gives that nothing happens to."""
    output = tmp_path_factory.mktemp("undisturbed")
    assert process(recipe_values(tiny_model, tiny_session, output))["state"] == "done"
    found = results(output)
    kinds = {Path(path).suffix for path in found}
    assert kinds >= {".mrc", ".star", ".csv", ".npz", ".png"}
    assert any(path.endswith("tomogram.zarr/work/segmented/c/0/0/0") for path in found)
    assert len(receipts(output)) == BLOCKS
    return found


def start(values, folder):
    """Start ``tomoseg run`` and leave it running."""
    recipe = folder / "recipe.json"
    recipe.write_text(json.dumps(values))
    command = [sys.executable, "-m", "tomoseg.cli", "run", "--recipe", str(recipe)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.mark.parametrize("stage", ["segment", "clean"])
def test_a_killed_run_goes_on_where_it_was(values, tmp_path, undisturbed, stage):
    output = values["session"]["output"]
    with start(values, tmp_path) as process_:
        wait_for(lambda: len(receipts(output, stage)) >= 5)
        process_.send_signal(signal.SIGKILL)
    done = receipts(output, stage)
    assert len(done) < BLOCKS, "killed too late to test anything"
    assert not Path(output, NAME, ".tomoseg", f"{stage}.json").exists()
    assert process(values)["state"] == "done"
    after = receipts(output, stage)
    assert len(after) >= BLOCKS
    assert {path: after[path] for path in done} == done
    assert results(output) == undisturbed


@pytest.mark.parametrize("signal_", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_gives_the_output_free(values, tmp_path, signal_):
    """While it runs nobody else may; stopped, it leaves at once and in order."""
    output = Folder(values["session"]["output"])
    with start(values, tmp_path) as process_:
        wait_for(lambda: len(receipts(output.path)) >= 2)
        assert living_owner(output).pid == process_.pid
        second = start(values, tmp_path)
        _, said = second.communicate()
        process_.send_signal(signal_)
        assert process_.wait(30) not in (0, -signal_)
        assert "Traceback" not in process_.stderr.read()
    assert second.returncode == 1
    assert f"is being written by {getpass.getuser()}@" in said
    assert f"process {process_.pid} (" in said
    (claim,) = (output.path / ".tomoseg").glob("claim-*")
    assert json.loads(claim.read_text())["is_released"]
    (one,) = History.read(output).attempts
    assert (one.tomogram, one.state) == (NAME, "stopped")


def test_a_lost_worker_costs_nothing_but_its_blocks(values, undisturbed):
    output = values["session"]["output"]
    with open_cluster(workers=2, memory_gib=2.0) as address:
        values["compute"] = {"runner": "dask", "address": address, "stall_minutes": 5}
        killed = []

        def kill_once(tomogram, work, done, total):
            if work == "segment predict" and done >= 5 and not killed:
                assert done < total
                with Client(address, set_as_default=False) as client:
                    victim = next(iter(client.run(os.getpid).values()))
                killed.append(victim)
                psutil.Process(victim).kill()

        assert process(values, kill_once)["state"] == "done"
    assert len(killed) == 1
    assert results(output) == undisturbed


@dataclass(frozen=True)
class Doubling:
    """Doubles the voxels of a block and logs that it began; some blocks are a worker's last."""

    source: Volume
    target: Volume
    log: Path
    deaths: dict[str, str]

    def __call__(self, block):
        with self.log.open("a") as log:
            log.write(f"{block.name}\n")
        time.sleep(0.02)
        self.die(block, "computing")
        self.target.write(block.write, 2 * self.source.read(block.write))
        self.die(block, "written")
        return {}

    def die(self, block, moment):
        """End the process as ``kill -9`` does, the first time that this moment of it comes."""
        mark = self.log.with_name(block.name)
        if self.deaths.get(block.name) == moment and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class DyingStep(Step):
    """A step whose worker may also die after the receipt, before it tells."""

    def __call__(self, block):
        receipt = super().__call__(block)
        self.work.die(block, "receipt")
        return receipt


@pytest.fixture
def quick_workers(monkeypatch):
    """Worker processes that are forked from one that has imported what they need."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["distributed", "tomoseg.pipeline.stages.context"])
    for module in ("nanny", "process"):
        monkeypatch.setattr(f"distributed.{module}.get_mp_context", lambda: context)


@pytest.mark.usefixtures("quick_workers")
def test_ten_workers_killed_in_one_run(tmp_path):
    """Each costs the block it was at and no other; where the receipt stood, not even that."""
    grid = BlockGrid((40, 64, 64), (8, 16, 16))
    voxels = np.random.default_rng(7).integers(1, 99, (40, 64, 64), np.int16)
    source, target = (Volume(Folder(str(tmp_path / name)), "0") for name in ("in", "out"))
    for volume in (source, target):
        volume.create(voxels.shape, "int16", shard=(8, 16, 16))
    source.write(Box.whole(voxels.shape), voxels)
    # Apart, so that no block waits at two workers that die: it would be tried with none beside it.
    chance = random.Random(7)
    names = [block.name for block in grid]
    moments = ["computing", "written", "receipt"] * 3 + ["computing"]
    deaths = {names[8 * i + chance.randrange(4)]: moment for i, moment in enumerate(moments)}
    work = Doubling(source, target, tmp_path / "log", deaths)
    step = DyingStep(Ledger(Folder(str(tmp_path)), "double", "0" * 64), "double", work)
    with (
        open_cluster(workers=2, memory_gib=1.0) as address,
        open_runner(address, stall_minutes=5.0) as runner,
    ):
        told = sum(1 for _ in runner.map(step, grid))
    assert all((tmp_path / name).exists() for name in deaths)
    assert told == len(grid) == 80
    assert np.array_equal(target.read(Box.whole(voxels.shape)), 2 * voxels)
    begun = Counter(work.log.read_text().split())
    again = {name for name, moment in deaths.items() if moment != "receipt"}
    assert begun == {name: 1 + (name in again) for name in names}


SCHEDULER = """
import sys
from tomoseg.compute.clusters import open_cluster
with open_cluster(workers=1, memory_gib=2.0) as address:
    print(address, flush=True)
    sys.stdin.read()
"""


def test_a_killed_scheduler_is_named_and_finished_blocks_are_kept(values, undisturbed):
    output = values["session"]["output"]
    command = [sys.executable, "-c", SCHEDULER]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, **pipes) as cluster:
        address = cluster.stdout.readline().strip()
        values["compute"] = {"runner": "dask", "address": address, "stall_minutes": 5}

        def kill(tomogram, work, done, total):
            if work == "segment predict" and done >= 5:
                cluster.kill()

        row = process(values, kill)
    assert row["state"] == "failed"
    assert "the Dask scheduler went away" in row["error"]
    assert row["remedy"] == "Start it and run again."
    done = receipts(output)
    assert 5 <= len(done) < BLOCKS
    values["compute"] = {"runner": "serial"}
    assert process(values)["state"] == "done"
    after = receipts(output)
    assert len(after) == BLOCKS
    assert {path: after[path] for path in done} == done
    assert results(output) == undisturbed


def interrupted(values, moment, number):
    """Run until so many blocks of a pass are done."""

    def stop(tomogram, work, done, total):
        if work == moment and done == number:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        process(values, stop)


def test_writes_cut_in_the_middle_are_not_taken_for_done(values, undisturbed):
    """Shards without a receipt are torn, receipts empty or still beside their names."""
    output = values["session"]["output"]
    interrupted(values, "segment predict", 6)
    done = receipts(output)
    # A block more may have been in work, and one may have waited for it.
    assert 6 <= len(done) <= 8
    empty, beside, *kept = sorted(done)
    empty.write_bytes(b"")
    beside.rename(beside.with_name(f".{beside.name}.0123abcd"))
    (staged,) = Path(output, NAME, ".tomoseg", "staged").glob("segment-*")
    for lost in (empty, beside):
        shard = staged.joinpath("tomogram.zarr", "work", "segmented", "c").joinpath(
            *lost.stem.split("-")
        )
        shard.write_bytes(shard.read_bytes()[:50])
    assert process(values)["state"] == "done"
    after = receipts(output)
    assert {path: after[path] for path in kept} == {path: done[path] for path in kept}
    assert after[empty] > done[empty]
    assert after[beside] > done[beside]
    assert not beside.with_name(f".{beside.name}.0123abcd").exists()
    assert results(output) == undisturbed


def test_a_receipt_cut_in_the_middle_is_named_and_its_block_done_again(values, undisturbed):
    output = values["session"]["output"]
    interrupted(values, "segment predict", 6)
    done = receipts(output)
    cut, *kept = sorted(done)
    cut.write_bytes(cut.read_bytes()[:20])
    row = process(values)
    assert row["state"] == "failed"
    assert f"{cut.stem} was cut" in row["error"]
    assert row["remedy"] == "Run again: that block alone is done again."
    before = receipts(output)
    assert sorted(before) == kept
    assert process(values)["state"] == "done"
    after = receipts(output)
    assert {path: after[path] for path in before} == before
    assert {path: before[path] for path in kept} == {path: done[path] for path in kept}
    assert results(output) == undisturbed


def test_a_damaged_shard_beside_its_receipt_is_made_again(values, undisturbed):
    output = values["session"]["output"]
    interrupted(values, "clean objects", 1)
    labels = Path(output, NAME, "tomogram.zarr", "work", "segmented")
    shard = sorted(path for path in labels.glob("c/*/*/*") if path.is_file())[-1]
    shard.write_bytes(shard.read_bytes()[:50])
    before = receipts(output)
    assert process(values)["state"] == "done"
    after = receipts(output)
    assert sum(after[path] != before[path] for path in after) == 1
    assert results(output) == undisturbed


def test_a_full_disk_is_named_and_finished_blocks_are_kept(values, undisturbed, monkeypatch):
    output = values["session"]["output"]
    publishing = Folder.publishing

    def full(folder, name):
        if name.startswith("segment-") and len(receipts(output)) >= 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
        return publishing(folder, name)

    monkeypatch.setattr(Folder, "publishing", full)
    row = process(values)
    assert row["state"] == "failed"
    assert "the disk is full" in row["error"]
    assert row["remedy"] == "Free space and run again: finished blocks are kept."
    done = receipts(output)
    # Two blocks are in work at once, and both may find room.
    assert len(done) in (5, 6)
    monkeypatch.undo()
    assert process(values)["state"] == "done"
    after = receipts(output)
    assert {path: after[path] for path in done} == done
    assert results(output) == undisturbed


@pytest.mark.parametrize("name", ["manifest.json", "session.json"])
def test_a_disk_that_is_full_at_the_end(values, monkeypatch, name):
    """Nothing that a run writes, its own journal included, ends in a traceback."""
    publishing = Folder.publishing

    def full(folder, wanted):
        if wanted == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), wanted)
        return publishing(folder, wanted)

    monkeypatch.setattr(Folder, "publishing", full)
    values["blocks"]["shape"] = (48, 96, 96)
    if name == "session.json":
        with pytest.raises(ResourceError, match="the disk is full"):
            process(values)
    else:
        assert "the disk is full" in process(values)["error"]


def can_mount():
    if shutil.which("unshare") is None:
        return False
    command = ["unshare", "-Urm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not can_mount(), reason="no user namespaces with mounts on this machine")
def test_a_disk_that_really_fills_up(values, tmp_path, undisturbed):
    """A small file system of its own: full in the middle of a run, then larger."""
    output = tmp_path / "out"
    output.mkdir()
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps(values))
    tomoseg = f"{sys.executable} -m tomoseg.cli run --recipe {recipe}"
    script = f"""
        mount -t tmpfs -o size=11m tmpfs {output}
        {tomoseg}; echo "code $?"
        mount -o remount,size=200m {output}
        {tomoseg}; echo "code $?"
        cp -r {output} {tmp_path}/copy
    """
    command = ["unshare", "-Urm", "sh", "-c", script]
    run = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert "Traceback" not in run.stderr, run.stderr
    assert [line for line in run.stdout.splitlines() if "code" in line] == ["code 1", "code 0"]
    assert "the disk is full" in run.stderr
    assert "Free space and run again: finished blocks are kept." in run.stderr
    assert results(tmp_path / "copy") == undisturbed
