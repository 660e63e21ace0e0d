"""deploy/monitoring: Prometheus accepts it, each alert is tested, the dashboard holds together."""

import json
import re
import shutil
import subprocess
from itertools import combinations
from pathlib import Path

import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy" / "monitoring"
RULES = DEPLOY / "tomoseg.rules.yml"
DASHBOARD = json.loads((DEPLOY / "grafana/dashboards/tomoseg.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
ALERTS = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


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


def test_every_panel_can_be_drawn():
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
