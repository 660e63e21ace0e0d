"""The watch under Prefect: what a person sees of a run, and that a schedule starts it once."""

import gc
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from uuid import uuid4

import pytest

from tomoseg.core.attempts import explaining
from tomoseg.core.errors import BlockError, FormatError, StoreError, TomosegError
from tomoseg.io.stores import Folder, Life, Owner, claimed, living_owner
from tomoseg.pipeline import session as session_module
from tomoseg.service.arrivals import SessionWork, Sights
from tomoseg.service.watching.looks import look, orders
from tomoseg.service.watching.settings import load_watch

flow_module = pytest.importorskip("flows.arrivals", reason="Prefect is not installed")

from prefect.artifacts import Artifact  # noqa: E402 - flows sets Prefect's environment first
from prefect.client.orchestration import get_client  # noqa: E402
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate  # noqa: E402
from prefect.client.schemas.filters import (  # noqa: E402
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import (  # noqa: E402
    ConcurrencyLimitConfig,
    ConcurrencyLimitStrategy,
    StateType,
)
from prefect.exceptions import TerminationSignal  # noqa: E402
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings  # noqa: E402
from prefect.states import (  # noqa: E402
    Cancelled,
    Cancelling,
    Crashed,
    Failed,
    Pending,
    Running,
    Scheduled,
)

from flows import look as look_module  # noqa: E402
from flows import runs as runs_module  # noqa: E402
from flows import watch as command  # noqa: E402
from flows.artifacts import Meter, artifact_key, why  # noqa: E402
from flows.deployments import deployed  # noqa: E402
from flows.serving import Own, Runs, Told, next_look, run_asked  # noqa: E402

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
    honest = session_module.guarded_stage

    def poisoned(context, stage):
        if context.name == "bad" and stage == "clean":
            raise BlockError(f"ZeroDivisionError: {MARK}", tomogram="bad")
        return honest(context, stage)

    monkeypatch.setattr("tomoseg.pipeline.session.guarded_stage", poisoned)
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
    assert SessionWork.read(site.output).tomograms["bad"].attempts == 1
    assert process(site).message == "nothing is ready", "it pauses"


def test_storage_is_tried_again_and_segmentation_waits_for_a_gpu(server, site, monkeypatch):
    settle(site)
    name = "tomoseg-gpu"
    assert flow_module.existing_limit(name) == ""
    honest, tried = session_module.guarded_stage, []
    with get_client(sync_client=True) as client:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=1))

        def unlucky(context, stage):
            slots = client.read_global_concurrency_limit_by_name(name).active_slots
            tried.append((stage, slots))
            if len(tried) == 1:
                raise StoreError("503 slow down", tomogram="good")
            return honest(context, stage)

        monkeypatch.setattr("tomoseg.pipeline.session.guarded_stage", unlucky)
        quick = flow_module.process_stage.with_options(retry_delay_seconds=0)
        monkeypatch.setattr(flow_module, "process_stage", quick)
        assert process(site).is_completed()
    assert tried[:4] == [("ingest", 0), ("ingest", 0), ("segment", 1), ("clean", 0)]
    assert SessionWork.read(site.output).tomograms["good"].attempts == 1


def test_a_wrong_recipe_fails_at_once_and_says_the_remedy(server, site, caplog):
    (site.home / "in" / "s1" / "tomoseg.yaml").write_text("segment: {modle: x}")
    settle(site)
    state = process(site)
    assert state.is_failed()
    said = artifact("tomograms").data
    assert "segment.modle is not a known key" in said.replace("\\", "")
    assert "**Remedy:** Correct these keys" in said
    assert SessionWork.read(site.output).trouble.is_refusal
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


@contextmanager
def serving(site, server):
    """The watch in a process of its own, ended when the block is."""
    with (site.home / "watch.log").open("a") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.watch", str(site.path)],
            env=server | {"TOMOSEG_LOG": "json"}, stdout=out, stderr=out,
            start_new_session=True,
        )  # fmt: skip
        try:
            yield process
        except BaseException:
            print((site.home / "watch.log").read_text())
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            ended(process)


@pytest.mark.timeout(300)
def test_a_watch_starts_a_run_once_and_looks_leave_none(server, site):
    looks = count_of("tomoseg watch")
    with serving(site, server):
        until((site.home / "out/s1/good/manifest.json").exists, 120)
        until(lambda: count_of("tomoseg arrivals", site) == 1, 60)
        log = site.home / "watch.log"
        until(lambda: "1 sessions, 0 in work, started: none" in log.read_text(), 60)
    assert count_of("tomoseg arrivals", site) == 1, log.read_text()
    assert count_of("tomoseg watch") == looks
    worked = SessionWork.read(site.output).tomograms["good"]
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

    monkeypatch.setattr("tomoseg.pipeline.session.guarded_stage", refusing)
    assert process(site).is_failed()
    assert "good: ingest failed: good: not an MRC file. Copy it again." in caplog.messages
    assert not [record for record in caplog.records if record.exc_info]
    assert "Traceback" not in caplog.text


def drop(site, session, number):
    """Let copies of a tomogram arrive in a session."""
    folder = site.home / "in" / session
    folder.mkdir(exist_ok=True)
    for i in range(number):
        (folder / f"copy{i}.mrc").write_bytes(site.content)


def runs_of(site, session="s1"):
    """The runs of a session, the oldest first."""
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[runs_module.ARRIVALS])),
        )
    ours = [run for run in runs if run.parameters.get("watch") == str(site.path)]
    mine = [run for run in ours if run.parameters["session"] == session]
    return sorted(mine, key=lambda run: run.created)


def rows(site):
    return SessionWork.read(site.output).tomograms


def at_work(site, number=0):
    """Wait until the session's run of that number has begun a tomogram; return it and its pid."""

    def has_begun():
        runs = runs_of(site)
        return len(runs) > number and living_owner(site.output) is not None and "running" in [
            row.state for row in rows(site).values()
        ]  # fmt: skip

    until(has_begun, 200)
    run = runs_of(site)[number]
    return run, Life.read(run.infrastructure_pid).pid


def done(site):
    return [row.attempts for row in rows(site).values() if row.state == "done"]


def state_of(run):
    with get_client(sync_client=True) as client:
        return client.read_flow_run(run.id).state


@pytest.mark.timeout(900)
def test_work_goes_on_at_once_after_the_watch_and_its_run_were_killed(server, site):
    drop(site, "s1", 1)
    with serving(site, server) as watch:
        first, pid = at_work(site)
        # It would be done with all of them while the watch begins again.
        os.kill(pid, signal.SIGSTOP)
        watch.kill()
        watch.wait()
    with serving(site, server) as watch:
        log = site.home / "watch.log"
        until(lambda: "1 in work, started: none" in log.read_text(), 120)
        assert state_of(first).is_running(), "its process lives"
        os.kill(pid, signal.SIGKILL)
        watch.kill()
        watch.wait()
    assert state_of(first).is_running(), "nobody has told"
    began = datetime.now(UTC)
    with serving(site, server):
        until(lambda: len(runs_of(site)) == 2, 120)
        looked = state_of(first)
        assert (looked.name, looked.message.partition(" on ")[0]) == (
            "Stopped", f"its process {pid}",
        )  # fmt: skip
        second = runs_of(site)[1]
        until(lambda: len(done(site)) == 2, 400)
    seconds = [(one - began).total_seconds() for one in (looked.timestamp, second.created)]
    print("told, and followed by another run, after", seconds, "s, the watch's own start among it")
    assert seconds[1] - seconds[0] < 20
    assert seconds[1] < 100
    assert sorted(done(site)) == [1, 2]
    assert len(runs_of(site)) == 2


@pytest.mark.timeout(900)
def test_a_watch_that_is_told_to_end_ends_its_run_and_neither_is_an_attempt(server, site):
    drop(site, "s1", 1)
    with serving(site, server) as watch:
        run, pid = at_work(site)
        # As services are ended: the run hears it twice, from here and from its watch.
        os.killpg(watch.pid, signal.SIGTERM)
        assert watch.wait(60) == 0
        state = state_of(run)
        assert (state.type, state.name) == (StateType.CANCELLED, "Stopped"), state
        assert Life.here(pid).is_gone
    assert living_owner(site.output) is None
    left = rows(site)
    assert {row.state for row in left.values()} <= {"done"}
    assert len(left) < 2
    with serving(site, server):
        until(lambda: [each.state_name for each in runs_of(site)] == ["Stopped", "Completed"], 400)
    assert done(site) == [1, 1]
    assert Sights.read(site.output).paused == ""


@pytest.mark.timeout(900)
def test_a_run_that_is_killed_has_failed_and_one_that_is_cancelled_pauses(server, site):
    drop(site, "s1", 1)
    with serving(site, server):
        run, pid = at_work(site)
        os.kill(pid, signal.SIGKILL)
        until(lambda: state_of(run).is_final(), 60)
        assert state_of(run).message == "its process ended: killed by SIGKILL"
        (dead,) = [row for row in rows(site).values() if row.state == "failed"]
        assert dead.error == "its run ended without a word: killed by SIGKILL"
        said = "session s1: the process of its run ended: killed by SIGKILL"
        assert said in (site.home / "watch.log").read_text()
        run, _ = at_work(site, 1)
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(run.id, Cancelling())
        until(lambda: state_of(run).name == "Session paused", 60)
        assert living_owner(site.output) is None
        assert Sights.read(site.output).paused
        kept = rows(site)
        assert "running" not in {row.state for row in kept.values()}
        drop(site, "s2", 1)
        until(lambda: [one.state_name for one in runs_of(site, "s2")] == ["Completed"], 400)
        assert rows(site) == kept
        assert len(runs_of(site)) == 2


@contextmanager
def asked_for(site):
    """Deploy a watch of looks that somebody asks for."""
    looks, _ = deployed(site.path)
    try:
        yield looks
    finally:
        with get_client(sync_client=True) as client:
            client.delete_deployment(looks)


def test_an_event_brings_a_look_sooner(server, site):
    event = f"emit_event({command.EVENT!r}, resource={{'prefect.resource.id': 'a.bucket'}})"
    with asked_for(site) as deployment:
        assert not run_asked(deployment)
        words = [sys.executable, "-c", f"from prefect.events import emit_event; {event}"]

        def is_looked_for():
            # A server that has just begun may miss the first.
            subprocess.run(words, env=server, check=True)
            return run_asked(deployment)

        until(is_looked_for, 120)
    assert set(Sights.read(site.output).tomograms) == {"good"}


def test_of_the_looks_that_are_asked_for_the_last_is_run(server, site):
    now = datetime.now(UTC)
    with asked_for(site) as deployment, get_client(sync_client=True) as client:
        runs = [
            client.create_flow_run_from_deployment(
                deployment, state=Scheduled(scheduled_time=now + timedelta(seconds=seconds))
            ).id
            for seconds in (-30, -10, -20, 3600)
        ]
        assert run_asked(deployment)
        assert not run_asked(deployment)
        states = [client.read_flow_run(run).state_name for run in runs]
        assert states == ["Cancelled", "Completed", "Cancelled", "Scheduled"]
    assert set(Sights.read(site.output).tomograms) == {"good"}


def scheduled(deployment):
    """Return the ids of the runs that are to come."""
    with get_client(sync_client=True) as client:
        soon = datetime.now(UTC) + timedelta(days=9)
        return {
            run.id for run in client.get_scheduled_flow_runs_for_deployments([deployment], soon)
        }


def test_what_an_earlier_version_left_is_removed(server, site):
    limit = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.ENQUEUE)
    earlier = look_module.look_for_arrivals.to_deployment("watch", interval=3600).apply()
    flow_module.process_arrivals.to_deployment("session", concurrency_limit=limit).apply()
    until(lambda: scheduled(earlier), 120)
    before = scheduled(earlier)
    with asked_for(site) as looks, get_client(sync_client=True) as client:
        assert looks == earlier
        assert client.read_deployment_schedules(looks) == []
        # Others, which the server makes at this very moment, are looks like those asked for.
        assert not before & scheduled(looks)
        name = f"{runs_module.ARRIVALS}/session"
        assert client.read_deployment_by_name(name).global_concurrency_limit is None


def count_of(flow, site=None):
    """Return how many runs of a flow have completed, of a site's watch alone if it is given."""
    wanted = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.COMPLETED]))
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[flow])),
            flow_run_filter=FlowRunFilter(state=wanted),
        )
    return len([run for run in runs if site is None or run.parameters["watch"] == str(site.path)])


@contextmanager
def run_in(site, state, life=None):
    """A run of session s1 that Prefect takes for unfinished; yields its client, id and a look."""
    settle(site)
    (one,) = look(load_watch(site.path), datetime.now(UTC))
    values = {"session": "s1", "watch": str(site.path)}
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(flow_module.process_arrivals, parameters=values).id
        if life is not None:
            client.update_flow_run(run, infrastructure_pid=str(life))
        client.set_flow_run_state(run, state, force=True)
        yield SimpleNamespace(client=client, id=run, look=one)
        client.delete_flow_run(run)


def busy(site, run, seconds=0.0, mine=()):
    now = datetime.now(UTC) + timedelta(seconds=seconds)
    return runs_module.busy(run.client, [run.look], site.path, now, mine)


NOBODY = replace(Life.here(), pid=2**22 + 1)
ELSEWHERE = replace(NOBODY, host="elsewhere", processes="another boot")


@pytest.mark.parametrize(
    ("state", "life", "seconds", "is_busy"),
    [
        pytest.param(Running(), NOBODY, 0, False, id="its process is gone"),
        pytest.param(Pending(), NOBODY, 0, False, id="gone before it began"),
        pytest.param(Running(), Life.here(), 179, True, id="its process is there"),
        pytest.param(Running(), Life.here(), 181, False, id="there, but does nothing"),
        pytest.param(Running(), None, 14, True, id="may not have said who it is"),
        pytest.param(Pending(), None, 16, False, id="would have said so"),
        pytest.param(Running(), ELSEWHERE, 179, True, id="elsewhere"),
        pytest.param(Running(), ELSEWHERE, 181, False, id="elsewhere, and silent"),
        pytest.param(Scheduled(), None, 999, True, id="waits for its turn"),
    ],
)
def test_the_dead_hold_no_place(server, site, state, life, seconds, is_busy):
    with run_in(site, state, life) as run:
        assert busy(site, run, seconds) == ({"s1"} if is_busy else set())
        now = run.client.read_flow_run(run.id).state
        assert now.name == (state.name if is_busy else "Stopped")
        assert is_busy or "goes on with the next look" in now.message


def test_who_holds_the_output_or_is_looked_after_is_not_dead(server, site):
    with run_in(site, Running()) as run:
        with claimed(run.look.session.results):
            assert busy(site, run, 999) == {"s1"}
        assert busy(site, run, 999, mine=[run.id]) == {"s1"}
        assert (
            runs_module.busy(run.client, [], site.home / "other.yaml", datetime.now(UTC)) == set()
        )


@pytest.mark.parametrize(("is_owner", "seconds"), [(True, 16), (True, 14), (False, 16)])
def test_a_cancelled_run_whose_watch_was_killed_ends_too(server, site, is_owner, seconds):
    with subprocess.Popen(["sleep", "600"]) as orphan:
        life = Life.here(orphan.pid)
        with run_in(site, Cancelling(), life) as run:
            pid = orphan.pid if is_owner else os.getpid()
            owner = replace(Owner.here(2.0), pid=pid)
            run.look.session.results.write_json(".tomoseg/claim-000099.json", asdict(owner))
            assert busy(site, run, seconds) == {"s1"}
            is_told = is_owner and seconds > 15
            if not is_told:
                assert orphan.poll() is None
                orphan.kill()
            assert orphan.wait(20) == (-signal.SIGTERM if is_told else -signal.SIGKILL)
            assert busy(site, run) == set()
            assert run.client.read_flow_run(run.id).state_name == "Cancelled"


def test_the_dead_give_the_slot_of_an_earlier_version_free(server, site):
    limit = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.ENQUEUE)
    settle(site)
    (one,) = look(load_watch(site.path), datetime.now(UTC))
    values = {"session": "s1", "watch": str(site.path)}
    deployment = flow_module.process_arrivals.to_deployment(
        "session", concurrency_limit=limit, parameters=values
    ).apply()
    with get_client(sync_client=True) as client:

        def slots():
            found = client.read_deployment(deployment).global_concurrency_limit
            return found.active_slots

        dead, waits = (client.create_flow_run_from_deployment(deployment).id for _ in range(2))
        client.set_flow_run_state(dead, Pending())
        client.set_flow_run_state(dead, Running())
        client.update_flow_run(dead, infrastructure_pid=str(NOBODY))
        client.set_flow_run_state(waits, Pending())
        assert client.read_flow_run(waits).state_name == "AwaitingConcurrencySlot"
        assert slots() == 1
        now = datetime.now(UTC)
        assert runs_module.busy(client, [one], site.path, now) == {"s1"}
        assert slots() == 0
        assert client.read_flow_run(dead).state_name == "Stopped"
        assert client.read_flow_run(waits).state.state_details.scheduled_time <= now
        client.delete_deployment(deployment)


def test_a_run_that_a_person_cancelled_pauses_its_session(server, site):
    with run_in(site, Cancelled()) as run:
        now = datetime.now(UTC)
        assert runs_module.hold_cancelled(run.client, [run.look], site.path, now) == {"s1"}
        assert run.client.read_flow_run(run.id).state_name == "Session paused"
        assert runs_module.hold_cancelled(run.client, [run.look], site.path, now) == set()
    settings = load_watch(site.path)
    (one,) = look(settings, now)
    assert one.standings == {"good": "paused"}
    assert orders([one], settings, now) == []


@pytest.mark.parametrize(
    "state", [runs_module.stopped("why"), Cancelled(message=runs_module.OLD_RUNNER)]
)
def test_what_ended_with_its_watch_pauses_nothing(server, site, state):
    with run_in(site, state) as run:
        now = datetime.now(UTC)
        assert runs_module.hold_cancelled(run.client, [run.look], site.path, now) == set()
    assert Sights.read(site.output).paused == ""


@pytest.mark.parametrize(
    ("state", "is_followed"),
    [(runs_module.stopped("why"), True), (Crashed(), False), (Failed(), False)],
)
def test_only_what_ended_by_itself_is_followed_after_a_pause(server, site, state, is_followed):
    settle(site)
    settings, now = load_watch(site.path), datetime.now(UTC)
    (one,) = look(settings, now)
    with asked_for(site), get_client(sync_client=True) as client:
        first = look_module.start(one, settings, site.path, now)
        client.set_flow_run_state(first.id, state, force=True)
        second = look_module.start(one, settings, site.path, now)
        assert (second is not None and second.id != first.id) == is_followed
        later = datetime.now(UTC) + timedelta(seconds=settings.pauses_seconds[0] + 1)
        third = look_module.start(one, settings, site.path, later)
        assert third.id != first.id
        for run in (first, third):
            client.delete_flow_run(run.id)


class Process:
    """A run's process that does as it is told."""

    pid, returncode = NOBODY.pid, None

    def poll(self):
        return self.returncode

    def terminate(self):
        self.returncode = -signal.SIGTERM


def test_a_run_that_a_person_deleted_ends_and_holds_up_no_other(server, site):
    runs = Runs(load_watch(site.path), site.path)
    own = [Own(uuid4(), "s1", Process()) for _ in range(2)]
    runs._keep(own)
    for _ in range(2):
        runs._asked = float("-inf")
        runs.mind()
    assert [one.process.returncode for one in own] == [-signal.SIGTERM] * 2
    assert runs.ids == frozenset()
    assert runs.news.is_set()


def test_nothing_is_begun_once_the_watch_is_to_end(server, site):
    settle(site)
    with asked_for(site), get_client(sync_client=True) as client:
        runs = Runs(load_watch(site.path), site.path)
        _, deployment = deployed(site.path)
        waits = client.create_flow_run_from_deployment(deployment, parameters={"session": "s1"}).id
        runs.end()
        runs.mind()
        assert runs.ids == frozenset()
        assert client.read_flow_run(waits).state.is_scheduled()
        assert runs._begun(waits, "s1") is None
        client.delete_deployment(deployment)


@pytest.mark.parametrize(
    ("number", "name"), [(signal.SIGTERM, "Stopped"), (signal.SIGKILL, "Crashed")]
)
def test_a_process_that_was_told_to_end_was_no_attempt(server, site, number, name):
    runs = Runs(load_watch(site.path), site.path)
    with run_in(site, Pending()) as run:
        process = Process()
        process.returncode = -number
        runs._keep([Own(run.id, "s1", process)])
        runs.mind()
        assert runs.ids == frozenset()
        state = run.client.read_flow_run(run.id).state
        assert (state.name, number.name in state.message) == (name, True)


@pytest.mark.parametrize(("state", "ends"), [(Cancelled(), True), (Failed(), False)])
def test_a_run_that_has_failed_may_still_tell_why(server, site, state, ends):
    runs = Runs(load_watch(site.path), site.path)
    with run_in(site, state) as run:
        own = Own(run.id, "s1", Process())
        runs._keep([own])
        runs.mind()
        assert Life.read(run.client.read_flow_run(run.id).infrastructure_pid) == NOBODY
    assert (own.process.returncode is not None) == ends


def test_the_first_signal_to_end_is_heard_and_no_other():
    earlier = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        with pytest.raises(TerminationSignal), flow_module.told_once():
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), earlier, strict=True):
            signal.signal(number, handler)
    with pytest.raises(StoreError), flow_module.told_once():
        raise StoreError("503 slow down")
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == earlier


def test_what_is_not_new_is_told_rarely(caplog, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("flows.serving.time.monotonic", lambda: now[0])
    told = Told()
    for now[0], text in ((1, "a"), (2, "a"), (3, "b"), (602, "b"), (604, "b")):
        told(logging.WARNING, text)
    with told.warning("no look"):
        raise StoreError("503 slow down")
    assert [row.message for row in caplog.records] == ["a", "b", "b", "no look: 503 slow down"]


def test_a_server_that_is_away_stops_no_look(site):
    past = datetime.now(UTC) - timedelta(hours=1)
    look(load_watch(site.path), past)
    assert not Sights.read(site.output).tomograms["good"].complete
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}),
        pytest.raises(TomosegError, match="Connection refused"),
        explaining(),
    ):
        look_module.look_once(site.path)
    assert Sights.read(site.output).tomograms["good"].complete


def test_a_session_that_another_run_works_on_is_a_wait(server, site):
    settle(site)
    with claimed(site.output):
        state = process(site)
    assert state.is_completed()
    assert state.message.startswith("waits: ")
    assert f"process {os.getpid()}" in state.message


@pytest.mark.parametrize(
    ("changes", "seconds"),
    [({"seconds_between_looks": 90}, 90), ({"cron": "30 12 * * *"}, 1800)],
)
def test_when_the_next_look_comes(site, changes, seconds):
    site.path.write_text(json.dumps(json.loads(site.path.read_text()) | changes))
    noon = datetime(2026, 11, 30, 12, tzinfo=UTC)
    assert next_look(load_watch(site.path), noon) == noon + timedelta(seconds=seconds)


def test_a_wrong_crontab_line_is_told(site, capsys):
    site.path.write_text(json.dumps(json.loads(site.path.read_text()) | {"cron": "at noon"}))
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        assert command.main([str(site.path)]) == 2
    assert "'at noon' is not a crontab's line" in capsys.readouterr().err


@pytest.mark.parametrize(("way", "is_done"), [("--look", False), ("--once", True)])
def test_without_a_server(site, capsys, way, is_done):
    settle(site)
    # What was ready for an hour, and nobody took, stands still.
    assert command.main([str(site.path), way]) == (0 if is_done else 1)
    said = capsys.readouterr().out
    assert ("STANDSTILL: no watch has looked since " in said) != is_done
    assert said.split()[:4] == ["session", "ready", "running", "done"]
    assert said.splitlines()[1].split() == ["s1", "1", "-", "-"]
    assert (site.home / "out/s1/good/manifest.json").exists() == is_done
    assert ("s1/good: done" in said) == is_done


@pytest.mark.parametrize(
    ("values", "arguments", "says"),
    [
        ("sessions: in/*", [], "output: Field required"),
        (None, ["--again", "good"], "s1/good is settling"),
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
