"""Blocks of a driver that was killed go on, on a worker of a cluster, beside the next run."""

import contextlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import holding
import mrcfile
import numpy as np
import pytest
import servers

from tomoseg.io.stores import Folder
from tomoseg.io.stores.moves import sizes_below
from tomoseg.pipeline.session import plan_session, run_session
from tomoseg.recipe.recipe import recipe_from

# Eight blocks; on disk all of them wait.
SHAPE, BLOCKS = (16, 192, 40), (8, 48, 40)
NAMES = [f"{z}-{y}-0" for z in range(2) for y in range(4)]
GATES = ("during", "after")
# What holds times, or tells how often something was begun.
TIMED = re.compile(
    r"session\.json|\.tomoseg/attempts\.json|index\.html|recipe\.yaml|t/manifest\.json|\.tomoseg/claim-\d+\.json"
    r"|t/\.tomoseg/(\w+\.json|[\w-]+/(begun|.+\.json))"
)
CLUSTER = """
import sys
from distributed import LocalCluster
from tomoseg.compute.workers import quieten
quieten()
if __name__ == "__main__":
    with LocalCluster(
        n_workers=1, threads_per_worker=10, host="127.0.0.1", dashboard_address="127.0.0.1:0",
        memory_limit=0, preload=["tomoseg.compute.monitoring", "holding"],
    ) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()
"""


@dataclass(frozen=True)
class Cluster:
    """A scheduler and its worker, which are nobody's children here."""

    address: str
    place: Path
    environment: dict[str, str]

    @contextlib.contextmanager
    def holding(self, wanted):
        """Have blocks wait, at a moment and behind a gate each, until the end at the latest."""
        for name in ("wanted", "held", "gates", "over"):
            (self.place / name).mkdir(parents=True)
        for block, (moment, gate) in wanted.items():
            (self.place / "wanted" / block).write_text(f"{moment} {gate}")
        try:
            yield
        finally:
            (self.place / "gates" / GATES[0]).touch()
            self.let_go(GATES[1], self.names("held"))
            shutil.rmtree(self.place)

    def names(self, folder):
        return sorted(path.name for path in (self.place / folder).iterdir())

    def let_go(self, gate, blocks):
        """Open a gate and wait until the blocks behind it have ended."""
        (self.place / "gates" / gate).touch()
        servers.wait_until(
            lambda: set(blocks) <= set(self.names("over")), f"blocks behind {gate} do not end", 300
        )


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Environment of object storage; empty where no server is installed."""
    if any(importlib.util.find_spec(name) is None for name in ("s3fs", "moto")):
        yield {}
        return
    with servers.moto(tmp_path_factory.mktemp("moto")) as server:
        yield dict(server.environment)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, store):
    tmp_path = tmp_path_factory.mktemp("cluster")
    place = tmp_path / "holding"
    paths = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, **store, holding.VARIABLE: str(place)}
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    script = tmp_path / "cluster.py"
    script.write_text(CLUSTER)
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    ) as process:
        yield Cluster(process.stdout.readline().strip(), place, environment)
        process.stdin.close()
        process.wait(60)


@pytest.fixture(scope="module")
def values(tmp_path_factory, tiny_model):
    path = tmp_path_factory.mktemp("in") / "t.mrc"
    with mrcfile.new(path) as file:
        file.set_data(np.random.default_rng(3).normal(0, 100, SHAPE).astype(np.int16))
        file.voxel_size = 12.0

    def of(output, contrast, **compute):
        return {
            "session": {"input": str(path), "output": output.url},
            "source": {"contrast": contrast},
            "segment": {"model": str(tiny_model), "precision": "float32"},
            "blocks": {"shape": BLOCKS},
            "trace": {"microtubule": {}},
            "export": {"masks": False},
            "compute": compute,
        }

    return of


@pytest.fixture(scope="module")
def undisturbed(values, tmp_path_factory):
    """What runs give that nothing happens to, by contrast."""
    found = {}
    for contrast in ("dark", "bright"):
        output = Folder(str(tmp_path_factory.mktemp(contrast)))
        (row,) = run(values(output, contrast, runner="serial"))["tomograms"]
        assert row["state"] == "done", row
        found[contrast] = contents(output)
    segmented = [name for name in found["dark"] if "/segmented/c/" in name]
    assert len(segmented) == len(NAMES)
    assert all(found["dark"][name] != found["bright"][name] for name in segmented)
    return found


def run(values, progress=lambda *progress: None):
    return run_session(plan_session(recipe_from(values)), progress)


def contents(output):
    """Return all files, hidden ones too; of those that hold times, that they are there."""
    names = sizes_below(output)
    return {
        re.sub(r"claim-\d+", "claim", name): b"" if TIMED.fullmatch(name) else output.read(name)
        for name in names
        if not name.endswith("/generations.json")
    }


def orphaned(values, cluster, wanted, folder):
    """Start a run, wait until its blocks wait, and kill it."""
    recipe = folder / "recipe.json"
    recipe.write_text(json.dumps(values))
    command = [sys.executable, "-m", "tomoseg.cli", "run", "--recipe", str(recipe)]
    with (folder / "first.log").open("w") as log:
        first = subprocess.Popen(command, stdout=log, stderr=log, env=cluster.environment)
    try:
        servers.wait_until(
            lambda: cluster.names("held") == sorted(wanted) or first.poll() is not None,
            "blocks do not come to where they shall wait",
            300,
        )
        assert first.poll() is None, (folder / "first.log").read_text()
    finally:
        first.kill()
        first.wait()
    assert cluster.names("over") == []


def beside_orphans(values, cluster, wanted):
    """Run while blocks of the gate "during" end, and let those of "after" end then."""
    behind = {
        gate: [block for block, (_, asked) in wanted.items() if asked == gate] for gate in GATES
    }

    def let_go(tomogram, work, done, total):
        if work == "segment predict" and done == total - 1:
            cluster.let_go("during", behind["during"])
            assert cluster.names("over") == sorted(behind["during"])

    (row,) = run(values, let_go)["tomograms"]
    assert row["state"] == "done", row
    assert cluster.names("over") == sorted(behind["during"]), "a block ended before its time"
    cluster.let_go("after", behind["after"])


@pytest.mark.parametrize(
    ("kind", "contrast"), [("disk", "bright"), ("disk", "dark"), ("s3", "bright")]
)
def test_orphans_of_a_killed_driver_write_late(
    values, undisturbed, cluster, store, tmp_path, kind, contrast
):
    """At every moment of a block's work, under another recipe and under the same."""
    if kind == "s3" and not store:
        pytest.skip("s3fs or moto is not installed")
    moments = [one for one in holding.MOMENTS if kind == "disk" or one != "file"]
    cases = [(moment, gate) for moment in moments for gate in GATES]
    wanted = dict(zip(NAMES, cases, strict=False))
    with contextlib.ExitStack() as stack:
        stack.enter_context(cluster.holding(wanted))
        output = Folder(str(tmp_path / "out"))
        if kind == "s3":
            import boto3

            stack.enter_context(servers.served_by(store))
            boto3.client("s3").create_bucket(Bucket=contrast)
            output = Folder(f"s3://{contrast}/out")
        compute = {"runner": "dask", "address": cluster.address, "stall_minutes": 10}
        orphaned(values(output, "dark", **compute), cluster, wanted, tmp_path)
        beside_orphans(values(output, contrast, **compute), cluster, wanted)
        found = contents(output)
        said = {path.name: path.read_text() for path in (cluster.place / "over").iterdir()}
    assert found.keys() == undisturbed[contrast].keys(), said
    assert found == undisturbed[contrast], said
