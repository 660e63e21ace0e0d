"""The service as a facility runs it: real servers and processes, arrivals, faults; nobody watches.

Six tomograms are dropped into a bucket one by one, one written in pieces, one no tomogram, one of
another voxel size than its network's. Meanwhile a worker is killed, the store is away for 20 s and
Prefect's server is killed.
"""

import contextlib
import json
import os
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path

import fsspec
import psutil
import pytest
import servers
from stack import ROOT, Stack

from tomoseg.io.stores import Folder
from tomoseg.pipeline.session import plan_session, run_session
from tomoseg.pipeline.stages import STAGES
from tomoseg.recipe.recipe import recipe_from
from tomoseg.service.arrivals import DONE, REFUSED, RUNNING, SessionWork, Sights
from tomoseg.simulation import PhantomParameters
from tomoseg.simulation.sessions import simulated_session

BUCKET, SESSION = "lab", "krios1"
# Everything else of a tomogram is the same bytes as in a run that nothing disturbed.
TIMED = ("manifest.json",)
RECIPE = {
    "blocks": {"shape": (16, 48, 48)},
    "segment": {"precision": "float32"},
    "trace": {"microtubule": {}},
    "pick": {"ribosome": {}},
}
HALTED_SECONDS = 20


@pytest.fixture(scope="module")
def tomograms(tmp_path_factory):
    """Five files of 12 Å a voxel and one of 9 Å, by name."""
    folder = tmp_path_factory.mktemp("arriving")
    family = {"shape": (16, 48, 96)}
    usual = PhantomParameters(**family, voxel_size_angstrom=12.0, seed=600)
    finer = PhantomParameters(**family, voxel_size_angstrom=9.0, seed=700)
    for base, number in ((usual, 5), (finer, 1)):
        for _ in simulated_session(Folder(str(folder)), base, tomograms=number, density=4.0):
            pass
    return {path.stem: path for path in sorted(folder.glob("simulated_*.mrc"))}


@pytest.fixture
def place():
    """A folder that PostgreSQL's user may enter too."""
    with tempfile.TemporaryDirectory(prefix="tomoseg-") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


RUNS = """
import json
from prefect.client.orchestration import get_client
with get_client(sync_client=True) as client:
    flows = {flow.id: flow.name for flow in client.read_flows()}
    runs = [(flows[run.flow_id], run.state_name) for run in client.read_flow_runs(limit=200)]
    tasks = [(run.name, run.state_name) for run in client.read_task_runs(limit=200)]
print(json.dumps([runs, tasks]))
"""


@pytest.mark.timeout(2400)
@pytest.mark.parametrize("variant", ["moto and SQLite", "Ceph and PostgreSQL"])
def test_a_session_arrives(variant, tomograms, tiny_model, place, monkeypatch):
    with contextlib.ExitStack() as stack:
        try:
            if variant.startswith("Ceph"):
                store = stack.enter_context(servers.ceph(place / "store"))
                database = stack.enter_context(servers.postgres(place / "database"))
                monkeypatch.setenv("PREFECT_SERVER_DATABASE_CONNECTION_URL", database)
            else:
                store = stack.enter_context(servers.moto(place / "store"))
        except servers.Missing as error:
            pytest.skip(str(error))
        stack.enter_context(servers.served_by(store.environment))
        client = bucket_client()
        recipe = {**RECIPE, "segment": {**RECIPE["segment"], "model": str(tiny_model)}}
        watch = written_watch(place, recipe)
        service = Stack(place, dict(os.environ) | {"PYTHONPATH": str(ROOT)})
        results = Folder(f"s3://{BUCKET}/results/{SESSION}")
        with service.running(watch):
            arrive(client, service, store, tomograms, results)
            seconds = waits(results)
            check_runs(service)
            check_metrics_and_logs(service)
            check_results(results, recipe, tomograms, place / "undisturbed")
            replace_the_corrupt(client, tomograms, results)
        print(f"{store.kind}: complete to started, to finished (s):", seconds)
    assert not leftovers(place)


def bucket_client():
    import boto3

    client = boto3.session.Session().client("s3")
    client.create_bucket(Bucket=BUCKET)
    return client


def written_watch(place, recipe):
    (place / "recipe.yaml").write_text(json.dumps(recipe))
    watch = {
        "sessions": f"s3://{BUCKET}/sessions/*",
        "output": f"s3://{BUCKET}/results/{{session}}",
        "recipes": [{"recipe": "recipe.yaml"}],
        "seconds_between_looks": 5,
        "settle_seconds": 2,
        "incomplete_minutes": 0.3,
        "pauses_seconds": [2, 4],
    }
    (place / "watch.yaml").write_text(json.dumps(watch))
    return place / "watch.yaml"


def arrive(client, service, store, tomograms, results):
    """Drop six files, one after the other, and do harm in between."""
    names = sorted(tomograms)
    first, growing, third, corrupt, fifth, finer = names

    def drop(name, content=None):
        body = tomograms[name].read_bytes() if content is None else content
        client.put_object(Bucket=BUCKET, Key=f"sessions/{SESSION}/{name}.mrc", Body=body)

    drop(first)
    until(results, first, RUNNING)
    service.kill("worker-0", child=True)
    whole = tomograms[growing].read_bytes()
    for share in (4, 2):
        drop(growing, whole[: len(whole) // share])
        seen = sighted(results, growing, len(whole) // share)
        assert not seen.complete
    assert growing not in SessionWork.read(results).tomograms
    drop(growing)
    until(results, growing, RUNNING)
    store.halt()
    time.sleep(HALTED_SECONDS)
    store.resume()
    drop(third)
    drop(corrupt, b"\0" * 1024 + b"not a tomogram" * 5000)
    until(results, third, RUNNING)
    service.kill("prefect")
    drop(fifth)
    drop(finer)
    for name in (first, growing, third, fifth, finer):
        until(results, name, DONE)
    until(results, corrupt, REFUSED)


def until(results, name, state, seconds=600):
    """Wait until a tomogram is in a state, or past it."""
    wanted = {RUNNING: {RUNNING, DONE}}.get(state, {state})

    def is_there():
        worked = SessionWork.read(results).tomograms.get(name)
        return worked is not None and worked.state in wanted

    servers.wait_until(is_there, f"{name} is not {state}: {SessionWork.read(results)}", seconds)


def sighted(results, name, size):
    def seen():
        return Sights.read(results).tomograms.get(name)

    servers.wait_until(lambda: seen() and seen().size == size, f"{name} was not seen", 60)
    return seen()


def waits(results):
    """Seconds from complete to started and finished, of each tomogram."""
    from datetime import datetime

    rows = {}
    for name, one in SessionWork.read(results).tomograms.items():
        begun, started, finished = map(
            datetime.fromisoformat, (one.complete, one.started, one.finished)
        )
        rows[name] = (
            round((started - begun).total_seconds(), 1),
            round((finished - begun).total_seconds(), 1),
        )
    return rows


def check_runs(service):
    """No run is left over, and no stage of a tomogram was completed twice."""
    servers.wait_until(lambda: not unfinished(service), "runs do not end", 60)
    runs, tasks = json.loads(service.asked("-c", RUNS))
    completed = Counter(name for name, state in tasks if state == "Completed")
    assert {name for name, number in completed.items() if number > 1} == set()
    assert len(completed) == 5 * len(STAGES)
    number = len([flow for flow, _ in runs if flow == "tomoseg arrivals"])
    time.sleep(10)
    runs, _ = json.loads(service.asked("-c", RUNS))
    assert len([flow for flow, _ in runs if flow == "tomoseg arrivals"]) == number


def unfinished(service):
    runs, _ = json.loads(service.asked("-c", RUNS))
    return [state for flow, state in runs if flow == "tomoseg arrivals" and state == "Running"]


def check_metrics_and_logs(service):
    """The watch shows what its looks found, and run's lines say whose they are."""
    port = service.parts()["watch"]["ports"][0]

    def shown():
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
            return page.read().decode()

    servers.wait_until(lambda: 'tomoseg_tomograms{state="done"} 5.0' in shown(), shown())
    assert 'tomoseg_tomograms_ended_total{state="set aside"} 1.0' in shown()
    assert "tomoseg_result_seconds_count 5.0" in shown()
    lines = (service.state / "logs" / "watch.log").read_text().splitlines()
    rows = [json.loads(line) for line in lines if line.startswith("{")]
    reported = [row["tomogram"] for row in rows if row.get("stage") == "report"]
    assert set(reported) == {f"simulated_060{n}" for n in (0, 1, 2, 4)} | {"simulated_0700"}


def check_results(results, recipe, tomograms, undisturbed):
    """Five results, each the same bytes as undisturbed, and one clear refusal."""
    rows = {row["name"]: row for row in results.read_json("session.json")["tomograms"]}
    assert sorted(rows) == sorted(tomograms)
    refused = [row for row in rows.values() if row["state"] == "failed"]
    assert [row["name"] for row in refused] == ["simulated_0603"]
    assert refused[0]["error"].startswith("not an MRC file")
    assert refused[0]["remedy"]
    done = [str(tomograms[name]) for name, row in rows.items() if row["state"] == "done"]
    assert len(done) == 5
    places = {"input": done, "output": str(undisturbed)}
    session = plan_session(recipe_from({**recipe, "session": places}))
    run_session(session, lambda *progress: None)
    for name in (Path(path).stem for path in done):
        ours, theirs = contents(results / name), contents(Folder(str(undisturbed / name)))
        assert sorted(ours) == sorted(theirs)
        assert [path for path in ours if ours[path] != theirs[path]] == []


def contents(folder):
    """Bytes of every file that does not hold a time, by its path."""
    system, root = fsspec.url_to_fs(folder.url)
    found = {place[len(root) :].strip("/"): place for place in system.find(root)}
    kept = [name for name in found if name not in TIMED and not name.startswith(".tomoseg")]
    assert len(kept) > 20
    return {name: system.cat_file(found[name]) for name in kept}


def replace_the_corrupt(client, tomograms, results):
    """A file that is mended is a new arrival, and nothing else is done again."""
    before = SessionWork.read(results).tomograms
    mended = "simulated_0603"
    body = tomograms[mended].read_bytes()
    client.put_object(Bucket=BUCKET, Key=f"sessions/{SESSION}/{mended}.mrc", Body=body)
    until(results, mended, DONE)
    after = dict(SessionWork.read(results).tomograms)
    assert after.pop(mended).attempts == 1
    assert after == {name: row for name, row in before.items() if name != mended}


def leftovers(place):
    """Processes that have this test's folder in their command."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = " ".join(process.info["cmdline"] or [])
        if str(place) in command and process.pid != os.getpid():
            found.append(command)
    return found
