"""The watch under Prefect: what a person sees of a run, and that a schedule starts it once."""

import gc
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from tomoseg.arrivals import Sights, Works
from tomoseg.errors import BlockError, FormatError, StoreError
from tomoseg.stores import Folder, claimed
from tomoseg.watching.looks import look
from tomoseg.watching.settings import load_watch

flow_module = pytest.importorskip("flows.arrivals", reason="Prefect is not installed")

from prefect.artifacts import Artifact  # noqa: E402 - flows sets Prefect's environment first
from prefect.client.orchestration import get_client  # noqa: E402
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate  # noqa: E402
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings  # noqa: E402
from prefect.states import Running, Scheduled  # noqa: E402

from flows import look as look_module  # noqa: E402
from flows import watch as command  # noqa: E402
from flows.artifacts import Meter, artifact_key, why  # noqa: E402
from flows.deployments import deployments  # noqa: E402
from flows.due import run_due  # noqa: E402

# Prefect leaves the sockets of its clients to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
)

MARK = "mark-of-a-traceback"


def ended(process):
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A Prefect server with its scheduler, in a process of its own; yields its environment."""
    home = tmp_path_factory.mktemp("prefect")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    api = f"http://127.0.0.1:{port}/api"
    environment = {**os.environ, "PREFECT_HOME": str(home), "PREFECT_API_URL": api}
    environment |= {"PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "1"}
    environment |= {"PREFECT_RUNNER_POLL_FREQUENCY": "1", "NO_PROXY": "127.0.0.1"}
    command_line = [sys.executable, "-m", "prefect", "server", "start", "--no-ui"]
    log = (home / "server.log").open("w")
    process = subprocess.Popen(
        [*command_line, "--host", "127.0.0.1", "--port", str(port)],
        env=environment, stdout=log, stderr=log,
    )  # fmt: skip
    try:
        until(lambda: is_healthy(api), 120)
        with temporary_settings({PREFECT_HOME: home, PREFECT_API_URL: api}):
            yield environment
    finally:
        ended(process)
        log.close()
        gc.collect()


def is_healthy(api):
    try:
        with urllib.request.urlopen(f"{api}/health", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def until(condition, seconds):
    """Wait until something is so; fail if it is not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.2)


@pytest.fixture
def site(tmp_path, tiny_model, tiny_session):
    """A watch's file, a session s1 of a good tomogram that has settled."""
    recipe = {
        "segment": {"model": str(tiny_model)},
        "trace": {},
        "export": {"masks": False},
        "compute": {"runner": "serial"},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    watch = {
        "sessions": "in/*",
        "output": "out/{session}",
        "recipes": [{"recipe": "recipe.yaml"}],
        "settle_seconds": 0.5,
        "seconds_between_looks": 1,
    }
    path = tmp_path / "watch.yaml"
    path.write_text(json.dumps(watch))
    (tmp_path / "in" / "s1").mkdir(parents=True)
    content = (tiny_session / "simulated_0500.mrc").read_bytes()
    (tmp_path / "in" / "s1" / "good.mrc").write_bytes(content)
    output = Folder(str(tmp_path / "out" / "s1"))
    return SimpleNamespace(home=tmp_path, path=path, content=content, output=output)


def settle(site):
    past = datetime.now(UTC) - timedelta(hours=1)
    look(load_watch(site.path), past)
    return look(load_watch(site.path), past + timedelta(minutes=10))


def process(site):
    return flow_module.process_arrivals("s1", str(site.path), return_state=True)


def artifact(what):
    return Artifact.get(artifact_key("s1", what))


def test_a_run_shows_what_it_did_and_a_failure_its_traceback(server, site, monkeypatch):
    (site.home / "in" / "s1" / "bad.mrc").write_bytes(site.content)
    settle(site)
    honest = sys.modules["flows.session"].guarded_stage

    def poisoned(context, stage):
        if context.name == "bad" and stage == "clean":
            raise BlockError(f"ZeroDivisionError: {MARK}", tomogram="bad")
        return honest(context, stage)

    monkeypatch.setattr("flows.session.guarded_stage", poisoned)
    state = process(site)
    assert state.is_failed()
    assert state.message == "1 of 2 tomograms done; failed: bad"
    table = artifact("tomograms").data
    assert "| good | done |" in table
    (row,) = [line for line in table.splitlines() if line.startswith("| bad | failed |")]
    assert MARK in row
    task_run = row.partition("/runs/task-run/")[2].partition(")")[0]
    with get_client(sync_client=True) as client:
        run = client.read_task_run(task_run)
        assert (run.name, run.state_name) == ("bad clean", "Failed")

        def logged():
            filters = {"logs": {"task_run_id": {"any_": [task_run]}}}
            rows = client.request("POST", "/logs/filter", json=filters).json()
            return any("Traceback" in row["message"] and MARK in row["message"] for row in rows)

        until(logged, 20)
        progress = client.request(
            "POST", "/artifacts/filter",
            json={"artifacts": {"key": {"any_": [artifact_key("s1", "progress")]}}},
        ).json()  # fmt: skip
    assert [each["data"] for each in progress] == [100.0]
    assert artifact("good").data.startswith("data:image/jpeg;base64,/9j/")
    assert f"{site.output.url}/index.html" in artifact("report").data
    assert Works.read(site.output).tomograms["bad"].attempts == 1
    assert process(site).message == "nothing is ready", "it pauses"


def test_storage_is_tried_again_and_segmentation_waits_for_a_gpu(server, site, monkeypatch):
    settle(site)
    name = "tomoseg-gpu"
    assert flow_module.existing_limit(name) == ""
    honest, tried = sys.modules["flows.session"].guarded_stage, []
    with get_client(sync_client=True) as client:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=1))

        def unlucky(context, stage):
            slots = client.read_global_concurrency_limit_by_name(name).active_slots
            tried.append((stage, slots))
            if len(tried) == 1:
                raise StoreError("503 slow down", tomogram="good")
            return honest(context, stage)

        monkeypatch.setattr("flows.session.guarded_stage", unlucky)
        quick = flow_module.process_stage.with_options(retry_delay_seconds=0)
        monkeypatch.setattr(flow_module, "process_stage", quick)
        assert process(site).is_completed()
    assert tried[:4] == [("ingest", 0), ("ingest", 0), ("segment", 1), ("clean", 0)]
    assert Works.read(site.output).tomograms["good"].attempts == 1


def test_a_wrong_recipe_fails_at_once_and_says_the_remedy(server, site, caplog):
    (site.home / "in" / "s1" / "tomoseg.yaml").write_text("segment: {modle: x}")
    settle(site)
    state = process(site)
    assert state.is_failed()
    said = artifact("tomograms").data
    assert "segment.modle is not a known key" in said.replace("\\", "")
    assert "**Remedy:** Correct these keys" in said
    assert Works.read(site.output).trouble.is_refusal
    assert not [record for record in caplog.records if record.exc_info]


def test_progress_is_told_at_most_once_a_second(monkeypatch):
    told, now = [], [0.0]
    monkeypatch.setattr(
        "flows.artifacts.update_progress_artifact", lambda artifact, share: told.append(share)
    )
    meter = Meter("id", 2, clock=lambda: now[0])
    for done in range(100):
        meter("a", "ingest copy", done, 100)
    assert told == [0.0]
    now[0] = 1.0
    meter("a", "segment predict", 1, 2)
    meter("a", "segment predict", 2, 2)
    meter.end("b")
    assert told == [0.0, pytest.approx(100 * 1.5 / 8 / 2), pytest.approx(100 * (2 / 8 + 1) / 2)]


def test_a_server_that_is_away_stops_no_run(monkeypatch):
    def refused(artifact, share):
        raise OSError("connection refused")

    monkeypatch.setattr("flows.artifacts.update_progress_artifact", refused)
    meter = Meter("id", 1)
    meter.end("a")
    assert meter.percent == 100


@pytest.mark.parametrize("text", ["a|b", "[x](http://evil)", "<b>", "`x`", "a\nb"])
def test_a_name_is_no_markup(text):
    said = why({"error": text})
    assert not set("\n<>") & set(said)
    for mark in "|[]`":
        assert said.count(mark) == said.count(f"\\{mark}")


@pytest.mark.timeout(300)
def test_a_schedule_starts_a_run_once_and_only_once(server, site):
    log = site.home / "watch.log"
    with log.open("w") as out:
        serving = subprocess.Popen(
            [sys.executable, "-m", "flows.watch", str(site.path)],
            env=server | {"TOMOSEG_LOG": "json"}, stdout=out, stderr=out,
        )  # fmt: skip
        try:
            until((site.home / "out/s1/good/manifest.json").exists, 120)
            looks = count_of("tomoseg watch")
            until(lambda: count_of("tomoseg watch") >= looks + 2, 60)
        finally:
            ended(serving)
    assert count_of("tomoseg arrivals", deployed=True) == 1, log.read_text()
    worked = Works.read(site.output).tomograms["good"]
    assert (worked.state, worked.attempts) == ("done", 1)
    assert Sights.read(site.output).tomograms["good"].complete < worked.started < worked.finished
    check_lines(log.read_text())


def check_lines(text):
    """Each line of a watch and of its runs, the first too, is an object and says whose it is."""
    rows = [json.loads(line) for line in text.splitlines()]
    of_run = [row for row in rows if row.get("session") == "s1"]
    assert len({row["run"] for row in of_run}) == 1
    assert any("Beginning flow run 's1'" in row["message"] for row in of_run)
    stages = {row["stage"] for row in of_run if row.get("tomogram") == "good"}
    assert stages >= {"ingest", "segment", "report"}
    assert not [row for row in rows if row.get("tomogram") and not row.get("session")]


def test_a_refusal_is_a_line_with_its_remedy_and_no_traceback(server, site, monkeypatch, caplog):
    settle(site)

    def refusing(context, stage):
        raise FormatError("not an MRC file", remedy="Copy it again", tomogram=context.name)

    monkeypatch.setattr("flows.session.guarded_stage", refusing)
    assert process(site).is_failed()
    assert "good: ingest failed: good: not an MRC file. Copy it again." in caplog.messages
    assert not [record for record in caplog.records if record.exc_info]
    assert "Traceback" not in caplog.text


@contextmanager
def looking_rarely(site):
    """Deploy a watch that looks on New Year's Eve, and no sooner by itself."""
    site.path.write_text(json.dumps(json.loads(site.path.read_text()) | {"cron": "0 0 1 1 *"}))
    looks, _ = deployments(load_watch(site.path), site.path)
    looks.name = "rare"
    deployment = looks.apply()
    try:
        yield deployment
    finally:
        with get_client(sync_client=True) as client:
            client.delete_deployment(deployment)


def test_an_event_brings_a_look_sooner(server, site):
    event = f"emit_event({command.EVENT!r}, resource={{'prefect.resource.id': 'a.bucket'}})"
    with looking_rarely(site) as deployment:
        assert not run_due(deployment)
        words = [sys.executable, "-c", f"from prefect.events import emit_event; {event}"]

        def is_looked_for():
            # A server that has just begun may miss the first.
            subprocess.run(words, env=server, check=True)
            return run_due(deployment)

        until(is_looked_for, 120)
    assert set(Sights.read(site.output).tomograms) == {"good"}


def test_of_the_looks_that_are_due_the_last_is_run(server, site):
    now = datetime.now(UTC)
    with looking_rarely(site) as deployment, get_client(sync_client=True) as client:
        runs = [
            client.create_flow_run_from_deployment(
                deployment, state=Scheduled(scheduled_time=now + timedelta(seconds=seconds))
            ).id
            for seconds in (-30, -10, -20, 3600)
        ]
        assert run_due(deployment)
        assert not run_due(deployment)
        states = [client.read_flow_run(run).state_name for run in runs]
        assert states == ["Cancelled", "Completed", "Cancelled", "Scheduled"]
    assert set(Sights.read(site.output).tomograms) == {"good"}


def count_of(flow, *, deployed=False):
    """Return how many runs of a flow have completed."""
    filters = {
        "flows": {"name": {"any_": [flow]}},
        "flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}},
    }
    if deployed:
        filters["flow_runs"] = {"deployment_id": {"is_null_": False}}
    with get_client(sync_client=True) as client:
        return client.request("POST", "/flow_runs/count", json=filters).json()


def test_a_run_that_died_frees_its_place(server, site):
    settle(site)
    (one,) = look(load_watch(site.path), datetime.now(UTC))
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(flow_module.process_arrivals, parameters={"session": "s1"})
        client.set_flow_run_state(run.id, Running(), force=True)
        now = datetime.now(UTC)
        assert look_module._busy(client, [one], now) == {"s1"}
        later = now + timedelta(minutes=4)
        with claimed(one.place.results):
            (held,) = look(load_watch(site.path), now)
            assert look_module._busy(client, [held], later) == {"s1"}
        assert look_module._busy(client, [one], later) == set()
        assert client.read_flow_run(run.id).state_name == "Crashed"


@pytest.mark.parametrize(("way", "is_done"), [("--look", False), ("--once", True)])
def test_without_a_server(site, capsys, way, is_done):
    settle(site)
    assert command.main([str(site.path), way]) == 0
    said = capsys.readouterr().out
    assert said.split()[:3] == ["session", "settling", "incomplete"]
    assert said.splitlines()[1].split() == ["s1", "-", "-", "1", "-", "-", "-", "-"]
    assert (site.home / "out/s1/good/manifest.json").exists() == is_done
    assert ("s1/good: done" in said) == is_done


@pytest.mark.parametrize(
    ("values", "arguments", "says"),
    [
        ("sessions: in/*", [], "output: Field required"),
        (None, ["--again", "good"], "nothing called good is set aside"),
    ],
)
def test_a_wrong_request_is_told(site, capsys, values, arguments, says):
    if values:
        site.path.write_text(values)
    assert command.main([str(site.path), *arguments]) == 2
    assert says in capsys.readouterr().err


def test_serving_needs_a_server(site, capsys):
    with temporary_settings({PREFECT_API_URL: None}):
        assert command.main([str(site.path)]) == 2
    assert "set PREFECT_API_URL" in capsys.readouterr().err
