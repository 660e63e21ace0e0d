"""What may happen to a run at any time: killed, a worker lost, the disk full."""

import errno
import getpass
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from distributed import Client

from tomoseg.clusters import open_cluster
from tomoseg.errors import ResourceError
from tomoseg.recipe import recipe_from
from tomoseg.session import plan_session, run_session
from tomoseg.stores import Folder, living_owner

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
    (claim,) = (output.path / ".tomoseg").iterdir()
    assert json.loads(claim.read_text())["is_released"]


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
    assert len(done) == 5
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
