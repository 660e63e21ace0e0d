"""One truth: a facility with sessions in every state, as status, ``--look`` and metrics tell it."""

import time
from collections import Counter
from datetime import datetime
from typing import get_args, get_type_hints

import pytest
from facility import Site
from prometheus_client import REGISTRY, CollectorRegistry

from tomoseg.compute.monitoring.disks import mount_of
from tomoseg.compute.monitoring.metrics import shown_metrics
from tomoseg.compute.monitoring.tomograms import LookSeen, SessionState, TomogramMetrics
from tomoseg.core.errors import BlockError, FormatError, FullDiskError
from tomoseg.core.layout import PROGRESS
from tomoseg.io.stores import Folder, claimed
from tomoseg.pipeline.progress import PassProgress
from tomoseg.service.arrivals import (
    Account,
    Hindrance,
    Looks,
    SessionWork,
    Sights,
    Standing,
    TomogramWork,
    iso,
)
from tomoseg.service.arrivals.words import line_of
from tomoseg.service.status import lines_of, status_of
from tomoseg.service.watching.looks import SessionLook
from tomoseg.service.watching.shown import SESSIONS, show, shown
from tomoseg.service.watching.tables import standstill_of, table

EXPECTED = {
    "broken": {"wrong": "set aside", "slow": "resting", "well": "done"},
    "busy": {"first": "running", "second": "ready"},
    "double": {"a": "ready"},
    "fresh": {"a": "settling"},
    "full": {"a": "resting", "b": "resting"},
    "half": {"a": "incomplete"},
    "lost": {"a": "refused"},
    "typo": {"a": "refused", "b": "done"},
}
METRICS = {"waiting": 5, "running": 1, "refused": 2, "set aside": 1, "done": 2}
HINDERED = {"double": "unreadable", "full": "stopped", "lost": "refused", "typo": "refused"}


def outcome(found, records):
    errors = {
        "wrong": FormatError("not an image", remedy="Copy it again."),
        "slow": BlockError("ZeroDivisionError", remedy="Report it."),
    }
    if found.name in errors:
        raise errors[found.name]
    return {"name": found.name, "state": "done", "notes": ["a note"]}


def full(found, records):
    raise FullDiskError("3 GB are needed, 1 GB are free", remedy="Free space.")


@pytest.fixture
def facility(tmp_path, tiny_model, tiny_session):
    """Its sessions stand as ``EXPECTED``; somebody holds busy."""
    site = Site(tmp_path, tiny_model, tiny_session / "simulated_0500.mrc")
    for session in EXPECTED.keys() - {"fresh", "typo"}:
        for name in EXPECTED[session]:
            site.put(session, f"{name}.mrc")
    site.put("typo", "b.mrc")
    site.put("half", "a.mrc", site.tomogram[:5000])
    site.put("lost", "tomoseg.yaml", b"segment: {model: /nowhere}")
    site.settle()
    for session in ("broken", "typo"):
        site.work(session, outcome)
    with pytest.raises(Exception, match="/nowhere"):
        site.work("lost")
    site.work("full", full)
    site.put("typo", "a.mrc")
    site.put("typo", "tomoseg.yaml", b"segment: {modle: x}")
    site.settle()
    site.put("double", "a.tif")
    site.put("fresh", "a.mrc")
    output = Folder(str(tmp_path / "out" / "busy"))
    seen, now = Sights.read(output), iso(site.now)
    first = seen.tomograms["first"]
    begun = TomogramWork(first.size, first.version, seen.recipe, "running", 1, now, now, now)
    SessionWork({"first": begun}).write(output)
    (output / "first").write_json(PROGRESS, vars(PassProgress("segment predict", 3, 9, now)))
    with claimed(output):
        site.look()
        yield site


def test_a_facility_is_told_alike_by_status_look_and_metrics(facility):
    looks = facility.look()
    told = status_of(str(facility.home / "out"), facility.now)
    assert {name: {row["name"]: row["state"] for row in one["tomograms"]}
            for name, one in told["sessions"].items()} == EXPECTED  # fmt: skip
    for name, look in looks.items():
        assert {each: str(stand) for each, stand in look.standings.items()} == EXPECTED[name]
    metrics = CollectorRegistry()
    seen = LookSeen([shown(one) for one in looks.values()])
    TomogramMetrics(metrics, facility.now).looked(seen, facility.now.timestamp())
    of_state = {each: metrics.get_sample_value("tomoseg_tomograms", {"state": each})
                for each in METRICS}  # fmt: skip
    assert of_state == METRICS, "what settles or is incomplete has not arrived yet"
    for kind, number in Counter({"seen": 4, **Counter(HINDERED.values())}).items():
        assert metrics.get_sample_value("tomoseg_sessions", {"state": kind}) == number
    assert told["failed"] == of_state["refused"] + of_state["set aside"] == 3
    assert told["done"] == of_state["done"] == 2
    assert told["capacity"]["backlog"] == of_state["waiting"] + of_state["running"]
    assert told["capacity"]["held"] == of_state["refused"]
    is_well = {name for name, one in told["sessions"].items() if one["is_well"]}
    assert is_well == {"busy", "fresh", "half"}


def test_they_give_the_same_reasons_since_the_same_time(facility):
    looks = facility.look()
    told = status_of(str(facility.home / "out"), facility.now)
    lines = table(list(looks.values()), now=facility.now).splitlines()
    head, *counted = lines[: 1 + len(EXPECTED)]
    assert head.split() == [
        "session", "settling", "incomplete", "ready", "running", "resting", "done", "set",
        "aside", "refused",
    ]  # fmt: skip
    assert counted[0].split() == ["broken", "-", "-", "-", "-", "1", "1", "1", "-"]
    reasons = {line for one in HINDERED for line in lines if line.startswith(f"{one}: ")}
    assert len(reasons) == len(HINDERED)
    for name, one in told["sessions"].items():
        for each in one["hindrances"]:
            assert f"{name}: {each['line']}" in reasons
        for row in one["tomograms"]:
            stand = looks[name].stands[row["name"]]
            assert (row["since"], row["error"]) == (stand.since, stand.say)
            is_quiet = row["state"] in ("done", "ready", "running", "settling", "refused")
            line = line_of(f"{name}/{row['name']}", row["state"], row["say"])
            assert (line in lines) != (is_quiet or name == "full")
    assert any("would both be called a" in line and "unreadable" not in line for line in reasons)
    said = "\n".join(reasons)
    for part in ("typo: refused since 12:", "modle is not a known key", "/nowhere"):
        assert part in said
    assert "full: stopped since 12:00 UTC (" in said
    assert "1 GB are free. Free space. Free there now: " in said


def test_of_many_what_is_not_well_is_said_and_of_one_all(facility):
    said = ""
    for place in ("out", "out/broken", "out/typo", "out/busy", "out/fresh"):
        state = status_of(str(facility.home / place), facility.now)
        assert state["is_well"] == (place in ("out/busy", "out/fresh")), place
        said += "\n".join(["", *lines_of(state), ""])
    for line in (
        "broken/wrong: set aside after 1 attempt: not an image. Copy it again.",
        "well: done - a note",
        "b: done - a note",
        "a: refused",
    ):
        assert f"\n{line}\n" in said
    assert "\nfirst: running - segment predict, 3 of 9 blocks at 2026-11-21T12:0" in said
    assert "\na: settling - last changed " in said


def test_a_standstill_is_told_alike(facility):
    """The run of busy has ended without a word, and nobody takes what waits."""
    out = facility.home / "out"
    assert status_of(str(out), facility.now)["standstill"] is None
    claim = sorted((out / "busy" / ".tomoseg").glob("claim-*.json"))[-1]
    claim.unlink()
    facility.wait(600)
    looks = list(facility.look().values())
    still = standstill_of(looks, facility.now)
    assert still.since == max(one.account.moved for one in looks)
    assert "nothing is in work since 12:0" in still.say
    assert "STANDSTILL: nothing is in work since" in table(looks, still=still, now=facility.now)
    told = status_of(str(out), facility.now)
    assert told["standstill"] == vars(still)
    assert told["capacity"]["say"].startswith("stands still: ")
    assert told["sessions"]["broken"]["standstill"] is not None
    assert told["sessions"]["lost"]["standstill"] is None
    assert standstill_of(looks, facility.now, Looks(6000.0)) is None


def test_what_serves_shows_the_same(facility):
    """The standstill that a look found, and one sample of the disk of all eight results."""
    facility.wait(600)
    claim = sorted((facility.home / "out/busy/.tomoseg").glob("claim-*.json"))[-1]
    claim.unlink()
    looks = list(facility.look().values())
    still = show(looks, facility.watch, facility.now, missing_places=2)
    assert still == standstill_of(looks, facility.now)
    value = REGISTRY.get_sample_value
    age = time.time() - datetime.fromisoformat(still.since).timestamp()
    assert value("tomoseg_standstill_seconds") == pytest.approx(age, abs=60)
    assert value("tomoseg_missing_places") == 2
    disks = [
        sample.labels["mount"]
        for metric in shown_metrics().collect()
        for sample in metric.samples
        if metric.name == "tomoseg_disk_free_bytes"
    ]
    assert disks.count(mount_of(facility.home)) == 1


def test_every_standing_has_a_word_for_its_column():
    assert all(len(each) <= 10 for each in Standing)


def test_every_hindrance_has_its_place_among_the_metrics():
    """What hinders a session must not be counted as nothing."""
    kinds = get_args(get_type_hints(Hindrance)["kind"])
    for kind in kinds:
        one = SessionLook(
            None, account=Account(Sights(hindrances=(Hindrance(kind, "why", "", ""),)))
        )
        assert one.account.hindrances[0].kind == kind
        assert SESSIONS[kind] != "seen"
    assert set(SESSIONS) == set(kinds)
    assert set(SESSIONS.values()) <= set(get_args(SessionState))
