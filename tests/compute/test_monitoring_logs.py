"""Logs: one line a record, with the names of what is worked on, from every process."""

import json
import logging
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from tomoseg.compute.clusters import open_cluster, runner_at
from tomoseg.compute.monitoring.logs import (
    KIND,
    LEVEL,
    JsonFormatter,
    TextFormatter,
    configure_logs,
    log_environment,
)
from tomoseg.compute.settings import ComputeSection
from tomoseg.core.errors import RequestError, StoreError
from tomoseg.core.events import at

NAMES = {"run": "r1", "session": "/out", "tomogram": "ts_1", "stage": "segment"}


def record(message, *arguments, error=None):
    info = (type(error), error, None) if error else None
    return logging.LogRecord("tomoseg.x", logging.INFO, "x.py", 1, message, arguments, info)


@pytest.fixture
def loggers():
    """Gives loggers back as they were, and what Python does with what nobody caught."""
    names = ("", "tomoseg", "distributed")
    kept = {n: (list(logging.getLogger(n).handlers), logging.getLogger(n).level) for n in names}
    hooks = sys.excepthook, threading.excepthook
    yield
    sys.excepthook, threading.excepthook = hooks
    logging.captureWarnings(False)
    for name, (handlers, level) in kept.items():
        logging.getLogger(name).handlers = handlers
        logging.getLogger(name).setLevel(level)


def test_a_line_for_machines_has_every_name_that_is_known():
    line = JsonFormatter(worker="tcp://127.0.0.1:1")
    with at(**NAMES, block="predict-0-0-1"):
        values = json.loads(line.format(record("%d voxels", 7)))
    assert values.pop("time").endswith("+00:00")
    assert values == {
        "level": "info",
        "logger": "tomoseg.x",
        "message": "7 voxels",
        **NAMES,
        "block": "predict-0-0-1",
        "worker": "tcp://127.0.0.1:1",
    }
    assert json.loads(JsonFormatter().format(record("x"))).keys() == {
        "time", "level", "logger", "message",
    }  # fmt: skip


def test_a_traceback_is_part_of_the_line():
    text = JsonFormatter().format(record("x", error=ValueError("bad\nluck")))
    assert "\n" not in text
    assert json.loads(text)["error"].endswith("ValueError: bad\nluck")


def test_a_line_for_people():
    with at(tomogram="ts_1", stage="segment", block="predict-0-0-1"):
        line = TextFormatter().format(record("%s s", 3))
    assert line.endswith("INFO tomoseg.x: [ts_1 segment predict-0-0-1] 3 s")
    assert TextFormatter().format(record("x")).endswith("INFO tomoseg.x: x")


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
def test_a_hostile_name_makes_no_line_of_its_own(formatter):
    name = "a\n2026-01-01 ERROR tomoseg: all is lost\r\x1b[2J"
    with at(tomogram=name):
        text = formatter.format(record("cannot read %s", name))
    assert len(text.splitlines()) == 1
    assert "\x1b" not in text


def test_console_handlers_of_others_become_lines_too(monkeypatch, capsys, loggers):
    monkeypatch.setenv(KIND, "json")
    theirs = logging.getLogger("distributed")
    theirs.handlers = [logging.StreamHandler(sys.stderr), logging.NullHandler()]
    configure_logs(worker="tcp://w")
    configure_logs(worker="tcp://w")
    theirs.error("a worker died")
    lines = capsys.readouterr().err.splitlines()
    values = [json.loads(line) for line in lines]
    assert [one["message"] for one in values if one["logger"] == "distributed"] == ["a worker died"]
    assert values[-1]["worker"] == "tcp://w"
    assert any(isinstance(one, logging.NullHandler) for one in theirs.handlers)


SPEAKING = """
import threading, warnings
from tomoseg.compute.monitoring import configure_logs
from tomoseg.compute.workers import quieten

configure_logs()
quieten()
import distributed.nanny
distributed.nanny.logger.error("a worker died")
warnings.warn("old")
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
raise ValueError("two\\nlines")
"""


def test_what_python_and_dask_say_by_themselves_are_lines_too():
    ended = subprocess.run(
        [sys.executable, "-c", SPEAKING],
        env={**os.environ, KIND: "json"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    rows = [json.loads(line) for line in ended.stderr.splitlines()]
    assert [row["level"] for row in rows] == ["error", "warning", "critical", "critical"]
    assert rows[0]["logger"] == "distributed.nanny"
    assert "UserWarning: old" in rows[1]["message"]
    assert rows[2]["message"] == "nobody caught ZeroDivisionError: division by zero"
    assert rows[3]["error"].endswith("ValueError: two\nlines")


@pytest.mark.parametrize(
    ("flow", "names"),
    [
        ({"flow_name": "tomoseg arrivals"}, {"run": "r2", "session": "s1"}),
        ({"flow_name": "<unknown>"}, {"run": "r2", "session": "s1"}),
        ({"flow_name": "tomoseg watch"}, {"run": "r2"}),
    ],
)
def test_what_prefect_says_around_a_flow_names_its_run_and_session(flow, names):
    said = record("Beginning flow run 's1'")
    vars(said).update({"flow_run_id": "r2", "flow_run_name": "s1", **flow})
    values = json.loads(JsonFormatter().format(said))
    assert {key: values[key] for key in ("run", "session") if key in values} == names
    with at(**NAMES):
        assert json.loads(JsonFormatter().format(said))["session"] == "/out"


@pytest.mark.parametrize(
    ("kind", "level", "is_verbose", "expected"),
    [
        ("", "", False, logging.WARNING),
        ("text", "", False, logging.INFO),
        ("JSON", "", False, logging.INFO),
        ("json", "debug", False, logging.DEBUG),
        ("", "error", False, logging.ERROR),
        ("", "", True, logging.DEBUG),
    ],
)
def test_how_much_is_told(monkeypatch, loggers, kind, level, is_verbose, expected):
    monkeypatch.setenv(KIND, kind)
    monkeypatch.setenv(LEVEL, level)
    configure_logs(is_verbose=is_verbose)
    assert logging.getLogger("tomoseg").level == expected


@pytest.mark.parametrize(("name", "value"), [(KIND, "xml"), (LEVEL, "loud")])
def test_a_wrong_variable_is_named(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(RequestError, match=f"{name} is '{value}', not one of "):
        configure_logs()


def test_other_processes_are_told_what_is_set(monkeypatch):
    monkeypatch.setenv(KIND, "json")
    monkeypatch.delenv(LEVEL, raising=False)
    assert log_environment() == {KIND: "json"}


def test_importing_configures_nothing():
    code = (
        "import logging, tomoseg.pipeline.session, tomoseg.compute.monitoring; "
        "import tomoseg.compute.monitoring.metrics; "
        "assert not logging.getLogger('tomoseg').handlers; "
        "assert logging.getLogger('tomoseg').level == 0 and not logging.root.handlers"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_command_line_speaks_to_machines_too(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-m", "tomoseg.cli", "status", str(tmp_path)],
        env={**os.environ, KIND: "json"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    (said,) = (json.loads(line) for line in ended.stderr.splitlines())
    assert said["level"] == "error"
    assert said["message"].startswith(f"error: there is no session in {tmp_path}")


@dataclass(frozen=True)
class Unlucky:
    """Fails the first time; a worker's own log lines go where a file says."""

    folder: Path

    def name(self, item):
        return f"predict-{item}"

    def __call__(self, item):
        if not (self.folder / "tried").exists():
            (self.folder / "tried").touch()
            raise StoreError("503 slow down")
        return {"item": item}


def test_a_worker_says_which_block_failed(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv(KIND, "json")
    with (
        open_cluster(workers=1, memory_gib=1.0) as address,
        runner_at(address, ComputeSection()) as runner,
        at(**NAMES),
    ):
        assert list(runner.map(Unlucky(tmp_path), ["0-0-1"])) == [{"item": "0-0-1"}]
    lines = [line for line in capfd.readouterr().err.splitlines() if "503" in line]
    (said,) = (json.loads(line) for line in lines)
    assert said["worker"].startswith("tcp://127.0.0.1:")
    assert {key: said[key] for key in (*NAMES, "block")} == {**NAMES, "block": "predict-0-0-1"}
    assert said["message"] == "the block failed: 503 slow down"
    assert "StoreError: 503 slow down" in said["error"]
    # The line came from a process of its own: nothing was configured in this one.
    assert logging.getLogger("tomoseg").level != logging.INFO
