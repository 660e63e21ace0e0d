"""A real Prometheus reads a real scheduler, worker and run: the numbers are the true ones."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from tomoseg.compute.monitoring.disks import mount_of

DEPLOY = Path(__file__).parents[2] / "deploy" / "monitoring"
NAMES = ("simulated_0500", "simulated_0501")
DASK = "distributed.cli.dask_"
RUN = """
import sys
from datetime import UTC, datetime, timedelta
from tomoseg.compute.monitoring.capacity import Times, times_of
from tomoseg.compute.monitoring import begin
from tomoseg.compute.monitoring.metrics import show_disk, show_look
from tomoseg.compute.monitoring.tomograms import LookSeen, SessionSeen
from tomoseg.recipe.recipe import load_recipe
from tomoseg.pipeline.session import plan_session, run_session

print(begin(), flush=True)
session = plan_session(load_recipe(sys.argv[1]))
show_disk(session.output.path)
run_session(session, lambda *progress: None)
waits = Times("late", "waiting", complete=datetime.now(UTC) - timedelta(minutes=10))
rows = [*times_of(session.output.read_json("session.json")["tomograms"]), waits]
show_look(LookSeen([SessionSeen("s1", "seen", rows)], 0, None, 60.0))
print("done", flush=True)
sys.stdin.read()
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def process(*command, log, **keys):
    """A process that is ended, with the group that it leads."""
    with log.open("wb") as errors:
        started = subprocess.Popen(
            [str(part) for part in command], stderr=errors, start_new_session=True, **keys
        )
    try:
        yield started
    finally:
        for pipe in (started.stdin, started.stdout):
            if pipe:
                pipe.close()
        started.terminate()
        try:
            started.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, 9)
            started.wait(10)


def answer(url):
    with urllib.request.urlopen(url, timeout=10) as page:
        return page.read().decode()


def until(question, seconds=40):
    """Ask until the answer is not empty."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            found = question()
        except OSError:
            found = None
        if found or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


@pytest.fixture(scope="module")
def stack(tmp_path_factory, tiny_model, tiny_session):
    """A scheduler, a worker and a process that ran a session of two tomograms; all are up."""
    folder = tmp_path_factory.mktemp("stack")
    scheduler, dashboard, metrics = free_port(), free_port(), free_port()
    recipe = {
        "session": {"input": str(tiny_session), "output": str(folder / "out")},
        "blocks": {"shape": (24, 48, 96)},
        "segment": {"model": str(tiny_model), "precision": "float32", "score_maps": False},
        "trace": {},
        "pick": {},
        "compute": {"runner": "dask", "address": f"tcp://127.0.0.1:{scheduler}"},
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    environment = {
        **os.environ,
        "TOMOSEG_LOG": "json",
        "TOMOSEG_LOG_LEVEL": "debug",
        "TOMOSEG_METRICS_ADDRESS": f"127.0.0.1:{metrics}",
        "DASK_LOGGING__DISTRIBUTED": "warning",
    }
    monitored = ("--preload", "tomoseg.compute.monitoring")
    local = ("--host", "127.0.0.1", "--dashboard-address")
    logs = {name: folder / f"{name}.log" for name in ("scheduler", "worker", "run")}
    with ExitStack() as parts:

        def start(name, *command, **keys):
            python = (sys.executable, *command)
            return parts.enter_context(process(*python, log=logs[name], env=environment, **keys))

        start(
            "scheduler", "-m", f"{DASK}scheduler", "--port", scheduler, *monitored, *local,
            f"127.0.0.1:{dashboard}",
        )  # fmt: skip
        start(
            "worker", "-m", f"{DASK}worker", f"tcp://127.0.0.1:{scheduler}", *monitored, *local,
            "127.0.0.1:0", "--nthreads", 2, "--local-directory", folder, "--preload-nanny",
            "tomoseg.compute.monitoring",
        )  # fmt: skip
        run = start(
            "run", "-c", RUN, folder / "recipe.yaml", stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        said = [run.stdout.readline().decode().strip() for _ in range(2)]
        assert said == [f"http://127.0.0.1:{metrics}/metrics", "done"], logs["run"].read_text()
        targets = f"http://127.0.0.1:{dashboard}/tomoseg/targets"
        (worker,) = until(lambda: json.loads(answer(targets))[0]["targets"])
        yield SimpleNamespace(
            folder=folder, output=folder / "out", logs=logs, worker=worker,
            scheduler=f"127.0.0.1:{dashboard}", run=f"127.0.0.1:{metrics}",
        )  # fmt: skip


@pytest.fixture(scope="module")
def query(stack, tmp_path_factory):
    """Ask a Prometheus that reads the stack as deploy/monitoring tells it to, only more often."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("Prometheus is not installed")
    folder = tmp_path_factory.mktemp("prometheus")
    text = (DEPLOY / "prometheus.yml").read_text()
    for usual, here in (("127.0.0.1:8787", stack.scheduler), ("127.0.0.1:9108", stack.run),
                        ("15s", "1s"), ("30s", "1s")):  # fmt: skip
        assert usual in text
        text = text.replace(usual, here)
    (folder / "prometheus.yml").write_text(text)
    shutil.copy(DEPLOY / "tomoseg.rules.yml", folder)
    address = f"127.0.0.1:{free_port()}"
    options = (f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'd'}")
    listen = f"--web.listen-address={address}"

    def ask(expression):
        """The values of an expression by label set; none if there is none yet."""
        question = urllib.parse.urlencode({"query": expression})
        rows = json.loads(answer(f"http://{address}/api/v1/query?{question}"))["data"]["result"]
        return {
            tuple(sorted((k, v) for k, v in row["metric"].items() if k != "__name__")): float(
                row["value"][1]
            )
            for row in rows
        }

    with process(program, *options, listen, log=folder / "log"):
        up = until(lambda: len(ask('up{job=~"tomoseg-.*"} == 1')) == 3)
        assert up, (folder / "log").read_text()
        yield ask


def receipts(stack, stage):
    """The receipts of blocks of a stage on the disk."""
    found = stack.output.glob(f"*/.tomoseg/{stage}-*/**/*.json")
    return [path for path in found if path.name != "begun.json"]


def test_blocks_are_as_many_as_receipts(stack, query):
    found = query('sum by (stage) (tomoseg_blocks_total{outcome="done"})')
    assert found[(("stage", "segment"),)] == 2 * (2 * 2 * 1)
    assert {key[0][1]: number for key, number in found.items()} == {
        stage: len(receipts(stack, stage))
        for stage in ("ingest", "segment", "clean", "export", "report")
        if receipts(stack, stage)
    }
    assert set(query('tomoseg_blocks_total{outcome="failed"}').values()) == {0.0}
    assert set(query("tomoseg_blocks_in_work").values()) == {0.0}


def test_voxels_are_those_of_the_tomograms(query):
    assert query('sum(tomoseg_voxels_total{stage="segment"})') == {(): 2 * 48 * 96 * 96}


def test_seconds_are_those_of_the_records(stack, query):
    rows = json.loads((stack.output / "session.json").read_text())["tomograms"]
    assert [row["name"] for row in rows] == list(NAMES)
    found = query("sum by (stage) (tomoseg_tomogram_stage_seconds_sum)")
    for stage, seconds in rows[0]["seconds"].items():
        total = seconds + rows[1]["seconds"][stage]
        assert found[(("stage", stage),)] == pytest.approx(total)
    assert query("sum(tomoseg_tomogram_stage_seconds_count)") == {(): 16}


def test_tomograms_and_the_queue(query):
    assert query('sum(tomoseg_tomograms_ended_total{state="done"})') == {(): 2}
    assert query('tomoseg_tomograms{state="waiting"}').popitem()[1] == 1
    assert 600 <= query("tomoseg_queue_age_seconds").popitem()[1] < 720
    assert 0 <= query("time() - tomoseg_last_look_timestamp_seconds").popitem()[1] < 120


def test_disks_and_workers(stack, query):
    """Results and what the worker spills lie on one disk: it is one, though both show it."""
    free = shutil.disk_usage(stack.folder).free
    places = query("min by (host, mount) (tomoseg_disk_free_bytes)")
    here = (("host", socket.gethostname()), ("mount", mount_of(stack.folder)))
    assert places == {here: pytest.approx(free, rel=0.1)}
    assert query("sum(dask_scheduler_workers)") == {(): 1}


def expressions():
    """All that Prometheus is asked by the dashboard and the rules."""
    dashboard = json.loads((DEPLOY / "grafana/dashboards/tomoseg.json").read_text())
    rules = yaml.safe_load((DEPLOY / "tomoseg.rules.yml").read_text())["groups"]
    asked = [target for panel in dashboard["panels"] for target in panel.get("targets", ())]
    alerts = [rule for group in rules for rule in group["rules"]]
    return [one["expr"] for one in (*asked, *alerts, *dashboard["annotations"]["list"])]


def metric_names(expression):
    """The metrics in an expression: no labels, no values, no functions.

    >>> sorted(metric_names('sum by (stage) (rate(a_total{stage="b_c"}[5m])) / on (up_to) up'))
    ['a_total', 'up']
    """
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^]]*\]', "", expression)
    bare = re.sub(r"\b(by|without|on|ignoring) *\([^)]*\)", "", bare)
    names = set(re.findall(r"[a-zA-Z_][a-zA-Z0-9_]*(?![a-zA-Z0-9_]* *\()", bare))
    return names - {"and", "or", "unless", "sum", "max", "min", "avg", "count"}


def exported(*addresses):
    """Names of what these processes show."""
    for address in addresses:
        for line in answer(f"http://{address}/metrics").splitlines():
            if line.startswith("# TYPE"):
                _, _, name, kind = line.split()
                ends = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
                yield from (name + end for end in ends)


def test_every_metric_of_the_dashboard_and_the_rules_is_there(stack):
    shown = set(exported(stack.scheduler, stack.worker, stack.run)) | {"up", "ALERTS"}
    used = {name for one in expressions() for name in metric_names(one)}
    assert len(used) > 15
    assert used <= shown


def test_a_block_says_all_its_names_from_a_worker(stack):
    journal = json.loads((stack.output / "session.json").read_text())
    rows = [json.loads(line) for line in stack.logs["worker"].read_text().splitlines()]
    done = [row for row in rows if row["message"].startswith("done in ") and "block" in row]
    segmented = [row for row in done if row["stage"] == "segment"]
    assert sorted((row["tomogram"], row["block"]) for row in segmented) == sorted(
        (name, f"predict-{z}-{y}-0") for name in NAMES for z in (0, 1) for y in (0, 1)
    )
    for row in segmented:
        assert row["session"] == str(stack.output)
        assert row["worker"].startswith("tcp://127.0.0.1:")
        assert row["logger"] == "tomoseg.pipeline.stages.context"
        assert row["time"] >= journal["started"][:19]
    assert len({row["run"] for row in done}) == 1


def test_every_line_of_every_process_is_for_machines(stack):
    for name in stack.logs:
        lines = stack.logs[name].read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        assert all({"time", "level", "logger", "message"} <= set(row) for row in rows)
        if name == "run":
            stages = [row["stage"] for row in rows if row["message"].startswith("done in ")]
            assert stages.count("report") == 2


def test_the_example_of_the_workers_finds_the_worker(stack):
    jobs = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"]
    (place,) = (one["http_sd_configs"][0]["url"] for one in jobs if "http_sd_configs" in one)
    found = json.loads(answer(f"http://{stack.scheduler}/{place.split('/', 3)[3]}"))
    assert found == [{"targets": [stack.worker], "labels": {}}]
    assert stack.worker.startswith("127.0.0.1:")
