"""deploy/monitoring: Prometheus accepts it, each alert is tested, each panel draws what it says."""

import json
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from itertools import combinations
from pathlib import Path

import pytest
import servers
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy" / "monitoring"
RULES = DEPLOY / "tomoseg.rules.yml"
DASHBOARD = json.loads((DEPLOY / "grafana/dashboards/tomoseg.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
ALERTS = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
NOW = time.time() // 60 * 60
# Two hours that end now: what a series begins with, and what each minute adds.
SERIES = {
    'tomoseg_tomograms{state="waiting"}': (4, 0),
    'tomoseg_tomograms{state="running"}': (2, 0),
    'tomoseg_tomograms{state="set aside"}': (1, 0),
    'tomoseg_tomograms{state="done"}': (9, 0),
    "tomoseg_queue_age_seconds": (0, 30),
    "tomoseg_incomplete_age_seconds": (0, 10),
    "tomoseg_standstill_seconds": (0, 0),
    'tomoseg_sessions{state="seen"}': (3, 0),
    'tomoseg_sessions{state="paused"}': (2, 0),
    'tomoseg_sessions{state="gone"}': (0, 0),
    "tomoseg_missing_places": (1, 0),
    "tomoseg_last_look_timestamp_seconds": (NOW - 42, 0),
    "tomoseg_session_seen_age_seconds": (0, 5),
    "tomoseg_tomograms_arrived_total": (7, 0.1),
    'tomoseg_tomograms_ended_total{state="done"}': (0, 0.05),
    'tomoseg_tomograms_ended_total{state="failed"}': (0, 0),
    'tomoseg_result_seconds_bucket{le="300.0"}': (0, 0),
    'tomoseg_result_seconds_bucket{le="600.0"}': (0, 1),
    'tomoseg_result_seconds_bucket{le="+Inf"}': (0, 1),
    'tomoseg_tomogram_stage_seconds_sum{stage="segment"}': (0, 40),
    'tomoseg_tomogram_stage_seconds_count{stage="segment"}': (0, 0.5),
    'tomoseg_voxels_total{stage="segment",instance="a"}': (5, 60e6),
    'tomoseg_voxels_total{stage="segment",instance="b"}': (0, 30e6),
    'tomoseg_blocks_in_work{stage="segment",instance="a"}': (2, 0),
    'tomoseg_blocks_in_work{stage="segment",instance="b"}': (1, 0),
    'tomoseg_blocks_total{stage="segment",outcome="done"}': (0, 12),
    'tomoseg_blocks_total{stage="segment",outcome="failed"}': (0, 0.2),
    'tomoseg_block_seconds_bucket{stage="segment",le="10.0"}': (0, 0),
    'tomoseg_block_seconds_bucket{stage="segment",le="20.0"}': (0, 12),
    'tomoseg_block_seconds_bucket{stage="segment",le="+Inf"}': (0, 12),
    'tomoseg_device_memory_used_bytes{instance="a",device="0"}': (3e9, 0),
    'tomoseg_device_memory_size_bytes{instance="a",device="0"}': (8e9, 0),
    'tomoseg_disk_free_bytes{host="h",mount="/data",instance="a"}': (6e9, 0),
    'tomoseg_disk_free_bytes{host="h",mount="/data",instance="b"}': (5e9, 0),
    'dask_worker_memory_bytes{instance="a",type="managed"}': (1e9, 0),
    'dask_worker_memory_bytes{instance="a",type="spilled"}': (7e9, 0),
    'dask_scheduler_workers{state="idle"}': (1, 0),
    'dask_scheduler_workers{state="saturated"}': (2, 0),
    'dask_scheduler_tasks{state="processing"}': (3, 0),
    'dask_scheduler_tasks{state="memory"}': (9, 0),
    "dask_scheduler_tasks_suspicious_total": (0, 0.4),
}
# What each panel then writes beside its lines or its number.
PICTURE = {
    ("Tomograms waiting", "stat"): {"waiting": 4},
    ("In work", "stat"): {"running": 2},
    ("Oldest waits", "stat"): {"oldest": 3600, "incomplete": 1200},
    ("Stands still", "stat"): {"stands still": 0},
    ("Set aside or refused", "stat"): {"set aside": 1},
    ("Sessions hindered", "stat"): {"paused": 2, "missing places": 1},
    ("Workers", "stat"): {"workers": 3},
    ("Last look", "stat"): {"ago": 42, "a session is missed for": 600},
    ("Tomograms an hour", "timeseries"): {"in": 6, "out: done": 3, "out: failed": 0},
    ("Backlog", "timeseries"): {"waiting": 4, "running": 2},
    ("From complete file to result", "timeseries"): {"half of them within": 450, "95% within": 585},
    ("Voxels a second", "timeseries"): {"segment": 1.5e6},
    ("Blocks in work", "timeseries"): {"segment": 3},
    ("Blocks that failed", "timeseries"): {"segment": 1},
    ("Blocks done a minute", "timeseries"): {"segment": 12},
    ("Seconds a block", "timeseries"): {"segment": 19.5},
    ("Seconds a stage", "timeseries"): {"segment": 80},
    ("GPU memory in use", "timeseries"): {"a GPU 0": 3e9, "there is": 8e9},
    ("Worker memory", "timeseries"): {"a": 1e9},
    ("Disk free", "timeseries"): {"h /data": 5e9},
    ("Blocks at the scheduler", "timeseries"): {"processing": 3},
    ("Workers", "timeseries"): {"idle": 1, "saturated": 2},
    ("Blocks lost with their worker", "timeseries"): {"lost": 2},
}


def targets():
    return [target for panel in PANELS for target in panel["targets"]]


@pytest.fixture
def promtool():
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed")

    def call(*arguments):
        return subprocess.run(
            [program, *map(str, arguments)], capture_output=True, text=True, check=False
        )

    return call


def test_prometheus_accepts_the_configuration_and_the_rules(promtool):
    checked = promtool("check", "config", DEPLOY / "prometheus.yml")
    assert checked.returncode == 0, checked.stderr
    assert f"{len(ALERTS)} rules found" in checked.stdout


def test_the_rules_pass_their_tests(promtool):
    tested = promtool("test", "rules", DEPLOY / "tomoseg.rules.test.yml")
    assert tested.returncode == 0, tested.stdout


def test_each_alert_is_missed_when_it_does_not_fire(promtool, tmp_path):
    """Its test then fails: there is one for each."""
    rules = yaml.safe_load(RULES.read_text())
    for rule in rules["groups"][0]["rules"]:
        rule["expr"] = f"({rule['expr']}) and on () vector(1) == 2"
    (tmp_path / RULES.name).write_text(yaml.safe_dump(rules))
    shutil.copy(DEPLOY / "tomoseg.rules.test.yml", tmp_path)
    tested = promtool("test", "rules", tmp_path / "tomoseg.rules.test.yml")
    assert tested.returncode == 1
    missed = set(re.findall(r"alertname: (\w+)", tested.stdout + tested.stderr))
    assert missed == {rule["alert"] for rule in ALERTS}


def test_each_alert_says_what_to_do():
    for rule in ALERTS:
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"].endswith(".")
        assert len(rule["annotations"]["description"]) > 20


def test_prometheus_can_read_every_expression_of_the_dashboard(promtool, tmp_path):
    """As recording rules, with a value for what Grafana puts in."""
    exprs = [one["expr"].replace("$__rate_interval", "5m") for one in targets()]
    assert not any("$" in one for one in exprs)
    rules = [{"record": f"panel:{number}", "expr": one} for number, one in enumerate(exprs)]
    for extra, code in (([], 0), ([{"record": "panel:x", "expr": "sum(rate(x[5m])"}], 1)):
        path = tmp_path / f"{code}.yml"
        path.write_text(yaml.safe_dump({"groups": [{"name": "x", "rules": rules + extra}]}))
        checked = promtool("check", "rules", path)
        assert checked.returncode == code, checked.stderr


@pytest.fixture(scope="module")
def ask(tmp_path_factory):
    """Ask a Prometheus that remembers two hours: rows of labels and a value, as they are now."""
    if not (shutil.which("promtool") and shutil.which("prometheus")):
        pytest.skip("Prometheus is not installed")
    folder = tmp_path_factory.mktemp("hours")
    lines = [
        f"{series} {begin + each * (minute + 120)} {NOW + 60 * minute:.0f}"
        for series, (begin, each) in SERIES.items()
        for minute in range(-120, 1)
    ]
    (folder / "hours.txt").write_text("\n".join([*lines, "# EOF", ""]))
    filled = ("promtool", "tsdb", "create-blocks-from", "openmetrics")
    subprocess.run(
        [*filled, folder / "hours.txt", folder / "tsdb"], check=True, capture_output=True
    )
    (folder / "none.yml").write_text("{}")
    address = f"127.0.0.1:{servers.free_port()}"
    command = [
        "prometheus", f"--config.file={folder / 'none.yml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address={address}",
    ]  # fmt: skip

    def answered(expression):
        question = urllib.parse.urlencode({"query": expression, "time": NOW})
        url = f"http://{address}/api/v1/query?{question}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            rows = json.load(answer)["data"]["result"]
        return [(row["metric"], float(row["value"][1])) for row in rows]

    with servers.running(command, folder / "log"):
        servers.wait_for_http(f"http://{address}/-/ready", folder / "log")
        yield answered


def drawn(panel, ask):
    """What a panel writes beside each line or number that it draws, and the value."""
    rows = [
        (re.sub(r"\{\{(\w+)\}\}", lambda of, had=labels: had[of[1]], one["legendFormat"]), value)
        for one in panel["targets"]
        for labels, value in ask(one["expr"].replace("$__rate_interval", "5m"))
    ]
    assert len(dict(rows)) == len(rows), f"{panel['title']}: lines of one name"
    return dict(rows)


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: f"{panel['title']} {panel['type']}")
def test_every_panel_draws_the_hours_that_were(panel, ask):
    assert drawn(panel, ask) == pytest.approx(PICTURE[panel["title"], panel["type"]])


def test_every_panel_has_what_grafana_needs():
    sources = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/tomoseg.yml").read_text())
    (source,) = sources["datasources"]
    everything = DASHBOARD["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    for panel in PANELS:
        assert panel["type"] in ("stat", "timeseries")
        assert panel["title"]
        assert panel["description"]
        assert panel["targets"]
        assert panel["fieldConfig"]["defaults"]["unit"] in ("short", "s", "bytes")
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs)
        for holder in (panel, *panel["targets"]):
            assert holder["datasource"] == {"type": "prometheus", "uid": source["uid"]}


def test_no_panel_lies_on_another():
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    assert all(p["x"] >= 0 and p["x"] + p["w"] <= 24 for p in places)
    for a, b in combinations(places, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        above = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or above, (a, b)


def test_the_provider_finds_the_dashboard_where_deployments_say():
    providers = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/tomoseg.yml").read_text())
    (provider,) = providers["providers"]
    assert provider["type"] == "file"
    assert provider["options"]["path"] == "${TOMOSEG_DASHBOARDS}"
