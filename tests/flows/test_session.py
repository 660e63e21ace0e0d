"""The Prefect flow: states and artifacts a person sees, and retries of what can pass alone."""

import gc
import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime

import pytest

import flows
from tomoseg.core.errors import FormatError, ModelError, StoreError
from tomoseg.io.stores import Claim, Folder, claimed
from tomoseg.pipeline import session as session_module
from tomoseg.pipeline.history import History

flow_module = pytest.importorskip("flows.session", reason="Prefect is not installed")

from prefect.artifacts import Artifact  # noqa: E402 - flows sets Prefect's environment first
from prefect.client.orchestration import get_client  # noqa: E402
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId  # noqa: E402
from prefect.settings import PREFECT_HOME, temporary_settings  # noqa: E402
from prefect.states import Completed, Failed  # noqa: E402
from prefect.testing.utilities import prefect_test_harness  # noqa: E402

# Prefect leaves the sockets of its clients to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
)

STAGES = ("ingest", "segment", "clean", "trace", "pick", "sample", "export", "report")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A Prefect server of its own for the tests of this file, and nothing in a person's home."""
    with (
        temporary_settings({PREFECT_HOME: tmp_path_factory.mktemp("prefect")}),
        prefect_test_harness(server_startup_timeout=180),
    ):
        yield
    # Here, where it is expected, and not in a test of another file.
    gc.collect()


@pytest.fixture
def session(tiny_session, tmp_path):
    """A folder with a good tomogram, and one whose file ends early."""
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(tiny_session / "simulated_0500.mrc", folder / "good.mrc")
    whole = (tiny_session / "simulated_0501.mrc").read_bytes()
    (folder / "bad.mrc").write_bytes(whole[: len(whole) // 2])
    return folder


@pytest.fixture
def recipe(tiny_model, session, tmp_path):
    """A recipe file of that session; serial, one block, nothing traced."""
    values = {
        "session": {"input": str(session), "output": str(tmp_path / "out")},
        "segment": {"model": str(tiny_model)},
        "trace": {},
        "export": {"masks": False},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(values))
    return path


def task_runs(state):
    """Return the state's name of every task run of a flow run, by the task run's name."""
    flow_run = FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
    with get_client(sync_client=True) as client:
        runs = client.read_task_runs(flow_run_filter=flow_run)
    return {run.name: run.state.name for run in runs}


def journal(tmp_path):
    return json.loads((tmp_path / "out" / "session.json").read_text())["tomograms"]


def values_of(recipe):
    return flow_module.load_recipe(recipe).model_dump(mode="json")


def test_a_failure_stops_only_its_tomogram(server, recipe, tmp_path):
    state = flow_module.process_session(values_of(recipe), return_state=True)
    assert state.is_failed()
    assert "1 of 2 tomograms done" in state.message
    assert "failed: bad" in state.message
    bad, good = journal(tmp_path)
    assert (bad["state"], good["state"]) == ("failed", "done")
    assert bad["remedy"]
    history = History.read(Folder(str(tmp_path / "out")))
    failed, done = history.since(datetime(2026, 1, 1, tzinfo=UTC))
    assert (failed.tomogram, failed.stage, failed.error) == ("bad", "ingest", bad["error"])
    assert failed.run == done.run == str(state.state_details.flow_run_id)
    assert task_runs(state) == {
        "bad ingest": "Failed",
        **{f"good {stage}": "Completed" for stage in STAGES},
    }
    table = Artifact.get("tomoseg-session")
    assert f"| bad | failed | {bad['error']} {bad['remedy']} |" in table.data
    assert "| good | done |" in table.data
    link = Artifact.get("tomoseg-report")
    assert f"{(tmp_path / 'out').as_uri()}/index.html" in link.data


def test_the_command_ends_with_the_right_code(server, recipe, session, tmp_path, capsys):
    assert flow_module.main([str(recipe)]) == 1
    assert "failed: bad" in capsys.readouterr().out
    (session / "bad.mrc").unlink()
    assert flow_module.main([str(recipe)]) == 0
    said = capsys.readouterr().out
    assert "1 of 1 tomograms done" in said
    assert str(tmp_path / "out" / "index.html") in said
    assert [row["state"] for row in journal(tmp_path)] == ["already there"]


def test_a_flow_is_refused_while_another_run_holds_the_output(server, recipe, tmp_path):
    with claimed(Folder(str(tmp_path / "out"))):
        state = flow_module.process_session(values_of(recipe), return_state=True)
    assert state.is_failed()
    assert f"process {os.getpid()}" in state.message
    assert not (tmp_path / "out" / "session.json").exists()


def claim_behind(progress):
    """The run's claim, which its progress asks after every block."""
    held = [cell.cell_contents for cell in progress.__closure__ or ()]
    inner = [claim_behind(one) for one in held if hasattr(one, "__closure__")]
    return next((one for one in (*held, *inner) if isinstance(one, Claim)), None)


def test_a_flow_that_was_taken_over_stops(server, recipe, session, tmp_path, monkeypatch):
    honest = session_module.guarded_stage
    begun = []

    def taken_over(context, stage):
        begun.append(stage)
        (claim,) = (tmp_path / "out" / ".tomoseg").glob("claim-*")
        if stage == "segment":
            claim.with_name("claim-000099.json").write_text(claim.read_text())
            claim_behind(context.progress).renew()
        return honest(context, stage)

    (session / "bad.mrc").unlink()
    monkeypatch.setattr(session_module, "guarded_stage", taken_over)
    state = flow_module.process_session(values_of(recipe), return_state=True)
    assert state.is_failed()
    assert "was taken over by" in state.message
    assert begun == ["ingest", "segment"]
    assert [row["state"] for row in journal(tmp_path)] == ["running"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--input", "empty"], "no tomogram in"),
        (["--set", "segment.modle=x"], "segment.modle is not a known key"),
        (["--set", "session.output=''"], "no output is given"),
        (["nowhere.yaml"], "there is no recipe at"),
    ],
)
def test_a_wrong_request_needs_no_server(recipe, tmp_path, monkeypatch, capsys, arguments, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    named = [] if arguments[0].endswith("yaml") else [str(recipe)]
    assert flow_module.main([*named, *arguments]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_missing_model_is_a_failure(recipe, capsys):
    assert flow_module.main([str(recipe), "--set", "segment.model=/nowhere"]) == 1
    assert "/nowhere/card.json cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "tries"), [(StoreError("503 slow down"), 2), (FormatError("not an image"), 1)]
)
def test_a_task_tries_again_only_what_can_pass(
    server, recipe, session, tmp_path, monkeypatch, error, tries
):
    (session / "bad.mrc").unlink()
    honest = session_module.guarded_stage
    tried = []

    def once_unlucky(context, stage):
        if stage == "segment":
            tried.append(stage)
            if len(tried) == 1:
                raise error.within(tomogram=context.name)
        return honest(context, stage)

    monkeypatch.setattr(session_module, "guarded_stage", once_unlucky)
    quick = flow_module.process_stage.with_options(retry_delay_seconds=0)
    monkeypatch.setattr(flow_module, "process_stage", quick)
    state = flow_module.process_session(values_of(recipe), return_state=True)
    assert len(tried) == tries
    assert state.is_completed() == (tries == 2)
    (row,) = journal(tmp_path)
    assert row["state"] == ("done" if tries == 2 else "failed")


@pytest.mark.parametrize(
    ("state", "wanted"),
    [
        (Failed(data=StoreError("x")), True),
        (Failed(data=FormatError("x")), False),
        (Failed(data=ModelError("x")), False),
        (Failed(data=ZeroDivisionError("x")), False),
        (Completed(data={}), False),
    ],
)
def test_what_can_pass(state, wanted):
    assert flow_module._may_pass(None, None, state) is wanted


def test_the_environment_is_set_only_where_a_person_has_not():
    code = "import os, flows, json; print(json.dumps(dict(os.environ)))"
    bare = {key: value for key, value in os.environ.items() if key not in flows.QUIET}
    theirs = {"PREFECT_SERVER_ANALYTICS_ENABLED": "true", "DO_NOT_TRACK": "0"}
    run = subprocess.run(
        [sys.executable, "-c", code], env={**bare, **theirs}, capture_output=True, check=True
    )
    found = json.loads(run.stdout)
    assert {key: found[key] for key in flows.QUIET} == {**flows.QUIET, **theirs}
