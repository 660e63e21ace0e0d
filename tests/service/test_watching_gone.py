"""A watch whose files, folders, drives and disks go away for a while: a wait, not an attempt."""

import errno
import json
import shutil
import threading
from types import SimpleNamespace

import pytest
from facility import Site

from tomoseg.core.errors import (
    AwayError,
    BlockError,
    FullDiskError,
    MissingError,
    ModelError,
)
from tomoseg.io import stores
from tomoseg.io.stores import folders
from tomoseg.pipeline.stages import ingest
from tomoseg.service.arrivals import SessionWork, Sights
from tomoseg.service.watching import sightings
from tomoseg.service.watching.opening import cluster_of, opened_run, processing
from tomoseg.service.watching.sessions import find_session, sessions_of
from tomoseg.service.watching.tables import table, times

DAY = 24 * 3600


@pytest.fixture
def site(tmp_path, tiny_model, tiny_session):
    return Site(tmp_path, tiny_model, tiny_session / "simulated_0500.mrc")


def moving(site, *, name="a", back=False):
    """Return work during which the folder of all sessions is renamed, as a network drive goes."""

    def process(found, records):
        if found.name == name:
            (site.home / "in").rename(site.home / "away")
            error = MissingError(f"{found.url} does not exist")
            if back:
                (site.home / "away").rename(site.home / "in")
            raise error
        return {"name": found.name, "state": "done"}

    return process


def kinds(one):
    return [each.kind for each in one.hindrances]


def test_the_input_renamed_for_a_minute_is_a_wait(site):
    for name in ("a.mrc", "b.mrc", "c.mrc"):
        site.put("s1", name)
    site.settle()
    outcome = site.work("s1", moving(site, name="b"))
    assert [row["name"] for row in outcome.rows] == ["a"]
    assert site.begun == ["a", "b"], "the run stops: c would fail alike"
    assert (outcome.error, outcome.left) == (None, 2)
    assert "s1/b.mrc is not there" in outcome.waits or "is empty or gone" in outcome.waits
    rows = SessionWork.read(site.look()["s1"].session.results).tomograms
    assert {name: (row.state, row.attempts) for name, row in rows.items()} == {
        "a": ("done", 1), "b": ("spared", 0),
    }  # fmt: skip
    journal = site.look()["s1"].session.results.read_json("session.json")["tomograms"]
    assert [(row["name"], row["state"]) for row in journal] == [
        ("a", "done"), ("b", "waiting"), ("c", "waiting"),
    ]  # fmt: skip
    assert "is not there" in journal[1]["notes"][0]
    found = site.survey()
    (one,) = found.looks
    assert site.where() == {"a": "done", "b": "gone", "c": "gone"}
    assert kinds(one) == ["gone"]
    assert one.needs_person
    (warning,) = found.presence.warnings
    assert "in/* finds nothing" in warning.say
    said = table(found.looks, found.presence.warnings)
    assert "the watch: " in said
    assert "in is not there" in said
    assert "): no tomogram is there any more" in said
    assert {each.name: each.state for each in times(one)} == {
        "s1/a": "done", "s1/b": "waiting", "s1/c": "waiting",
    }, "the gauges keep their values"  # fmt: skip
    assert site.orders() == []
    assert site.work("s1").waits.startswith("no tomogram is there any more")
    site.wait(60)
    (site.home / "away").rename(site.home / "in")
    found = site.survey()
    assert (found.presence.warnings, kinds(found.looks[0])) == ((), [])
    assert site.where() == {"a": "done", "b": "ready", "c": "ready"}
    assert site.orders() == ["s1"]
    assert site.work("s1").waits == ""
    assert site.begun == ["b", "c"]
    assert SessionWork.read(one.session.results).tomograms["b"].attempts == 1


def test_a_file_that_was_away_only_while_it_was_read_is_tried_again_after_a_pause(site):
    site.put("s1", "a.mrc")
    site.settle()
    outcome = site.work("s1", moving(site, back=True))
    assert outcome.rows == ()
    assert "a.mrc does not exist" in outcome.waits
    assert site.where() == {"a": "resting"}
    assert "a: resting - until 2026-11-21 12:01 UTC: " in table([site.look()["s1"]])
    site.wait(60)
    assert site.where() == {"a": "ready"}


@pytest.mark.parametrize("is_empty", [False, True])
def test_an_unmounted_drive_forgets_nothing(site, is_empty):
    for name in ("a.mrc", "b.mrc"):
        site.put("s1", name)
    site.settle()
    shutil.move(site.home / "in" / "s1", site.home / "away")
    if is_empty:
        (site.home / "in" / "s1").mkdir()
    else:
        site.put("s2", "a.mrc")
    for days in (0, 30):
        site.wait(days * DAY)
        assert site.where() == {"a": "gone", "b": "gone"}
        (hindrance,) = site.look()["s1"].hindrances
        assert hindrance.kind == "gone"
        assert hindrance.since == "2026-11-21T12:00:30.000+00:00"
        assert "--pause s1" in hindrance.remedy
    shutil.rmtree(site.home / "in" / "s1", ignore_errors=True)
    shutil.move(site.home / "away", site.home / "in" / "s1")
    assert site.where() == {"a": "ready", "b": "ready"}


def test_raw_data_that_are_cleaned_up_leave_what_is_done(site):
    site.put("s1", "a.mrc")
    site.put("s2", "b.mrc")
    site.settle()
    site.work("s1")
    shutil.rmtree(site.home / "in" / "s1")
    for days in (0, 2):
        site.wait(days * DAY)
        assert site.where() == {"a": "done"}
        found = site.survey()
        assert found.presence.warnings == ()
        assert (kinds(found.looks[0]), found.looks[0].needs_person) == ([], False)
    site.wait(2 * DAY)
    site.look()
    assert list(site.look()) == ["s2"], "after some days nobody looks there any more"
    site.put("s1", "a.mrc", site.tomogram + b"\0")
    assert site.where() == {"a": "settling"}, "and it is known again when something is there"


def test_a_single_file_that_is_gone_is_told_and_forgotten_after_days(site):
    for name in ("a.mrc", "b.mrc", "done.mrc"):
        site.put("s1", name)
    site.settle()
    site.work("s1", lambda found, records: {"name": found.name, "state": "done"})
    site.put("s1", "c.mrc")
    site.settle()
    for name in ("done.mrc", "c.mrc"):
        (site.home / "in" / "s1" / name).unlink()
    assert site.where() == {"a": "done", "b": "done", "c": "gone", "done": "done"}
    assert "s1/c: gone - since 2026-11-21 12:01 UTC" in table([site.look()["s1"]])
    assert kinds(site.look()["s1"]) == []
    site.wait(3 * DAY)
    assert site.where() == {"a": "done", "b": "done", "done": "done"}


def test_a_first_name_of_a_copy_is_not_missed(site):
    site.put("s1", "a.mrc")
    site.put("s1", "tmp_b.mrc", b"half")
    site.look()
    (site.home / "in" / "s1" / "tmp_b.mrc").rename(site.home / "in" / "s1" / "b.mrc")
    assert site.where() == {"a": "settling", "b": "settling"}


def test_a_link_to_what_is_not_there_is_gone(site):
    target = site.put("s1", "a.mrc").rename(site.home / "a.mrc")
    (site.home / "in" / "s1" / "a.mrc").symlink_to(target)
    site.put("s1", "b.mrc")
    site.settle()
    target.rename(site.home / "c.mrc")
    assert site.where() == {"a": "gone", "b": "ready"}
    (site.home / "c.mrc").rename(target)
    assert site.where() == {"a": "ready", "b": "ready"}


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("nowhere/*", "nowhere is not there"),
        ("in/krios*", "no folder matches"),
        ("in/s9", "s9 is not there"),
    ],
)
def test_a_pattern_that_finds_nothing_is_a_warning(site, pattern, says):
    site.put("s1", "a.mrc")
    site.write(sessions=["in/*", pattern])
    (warning,) = site.survey().presence.warnings
    assert (warning.kind, says in warning.say) == ("gone", True)
    site.wait(60)
    assert site.survey().presence.warnings == (warning,), "with the time when it was first so"


@pytest.mark.parametrize("number", [errno.ESTALE, errno.ENOTCONN, errno.EIO])
def test_a_drive_that_fails_a_listing_keeps_what_is_known(site, number, monkeypatch):
    site.put("s1", "a.mrc")
    site.put("s1", "b.mrc")
    site.settle()
    site.work("s1", lambda found, records: {"name": found.name, "state": "done"})
    site.put("s1", "c.mrc")
    site.settle()
    honest = sightings.Folder.entries

    def stale(folder, below=""):
        if "/in" in folder.url and folder.url.rpartition("/in")[2] in ("", "/s1"):
            raise OSError(number, "stale")
        return honest(folder, below)

    with monkeypatch.context() as patch:
        patch.setattr(sightings.Folder, "entries", stale)
        found = site.survey()
        (one,) = found.looks
        assert {name: str(each) for name, each in one.standings.items()} == {
            "a": "done", "b": "done", "c": "ready",
        }  # fmt: skip
        assert "stale" in one.problem
        assert kinds(one) == ["unreadable"]
        assert site.orders() == []
        assert "cannot be looked at" in found.presence.warnings[0].say
    assert kinds(site.look()["s1"]) == []
    assert site.orders() == ["s1"]


def test_a_drive_that_stumbles_is_never_an_attempt(site):
    for name in ("a.mrc", "b.mrc"):
        site.put("s1", name)
    site.settle()

    def process(found, records):
        if found.name == "a":
            raise OSError(errno.ESTALE, "Stale file handle")
        return {"name": found.name, "state": "done"}

    pauses = []
    for pause in (60, 600, 600, 600):
        site.work("s1", process)
        assert site.begun[0] == "a"
        assert site.where() == {"a": "resting", "b": "done"}
        site.wait(pause - 1)
        assert site.orders() == []
        site.wait(1)
        pauses.append(site.orders())
    assert pauses == [["s1"]] * 4
    worked = SessionWork.read(site.look()["s1"].session.results).tomograms["a"]
    assert (worked.attempts, worked.spared) == (0, 4)
    site.work("s1")
    assert site.where() == {"a": "done", "b": "done"}


def test_a_failure_after_a_stumble_is_the_first_attempt(site):
    site.put("s1", "a.mrc")
    site.settle()
    for error in (AwayError("EIO"), BlockError("poison")):

        def process(found, records, error=error):
            raise error

        site.work("s1", process)
        site.wait(60)
    worked = SessionWork.read(site.look()["s1"].session.results).tomograms["a"]
    assert (worked.state, worked.attempts) == ("failed", 1)


def test_a_mask_that_is_not_there_may_come(site):
    site.put("s1", "a.mrc")
    site.settle()
    site.work("s1", lambda found, records: stores.fingerprint("/nowhere/a_mask.mrc"))
    assert site.where() == {"a": "resting"}
    assert "after 1 attempt: /nowhere/a_mask.mrc does not exist" in table([site.look()["s1"]])


def test_a_full_disk_is_no_attempt_and_its_free_space_is_that_of_now(site, monkeypatch):
    for name in ("a.mrc", "b.mrc"):
        site.put("s1", name)
    site.settle()

    def process(found, records):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    for pause in (60, 600, 600):
        outcome = site.work("s1", process)
        assert isinstance(outcome.error, FullDiskError)
        assert site.begun == ["a"]
        site.wait(pause)
    assert SessionWork.read(site.look()["s1"].session.results).tomograms["a"].attempts == 0
    assert site.where() == {"a": "ready", "b": "ready"}
    for free in (1.5e9, 7e9):
        usage = SimpleNamespace(free=int(free))
        monkeypatch.setattr(folders.shutil, "disk_usage", lambda place, usage=usage: usage)
        said = table([site.look()["s1"]])
        assert f"Free there now: {free / 1e9:.3g} GB." in said
    assert site.look()["s1"].needs_person
    site.work("s1")
    assert "Free there now" not in table([site.look()["s1"]])


def test_a_model_that_was_away_is_looked_for_again(site, tmp_path):
    values = json.loads((site.home / "recipe.yaml").read_text())
    model = tmp_path / "model"
    shutil.copytree(values["segment"]["model"], model)
    values["segment"]["model"] = str(model)
    (site.home / "recipe.yaml").write_text(json.dumps(values))
    site.put("s1", "a.mrc")
    site.settle()
    model.rename(tmp_path / "away")
    with pytest.raises(ModelError, match=r"model/card\.json cannot be read"):
        site.work("s1")
    site.wait(9999)
    assert site.orders() == [], "it is told, and no run fails again for it"
    assert "model/card.json cannot be read" in table([site.look()["s1"]])
    (tmp_path / "away").rename(model)
    assert site.orders() == ["s1"]
    assert site.work("s1").error is None
    assert SessionWork.read(site.look()["s1"].session.results).trouble is None


def test_ingest_in_the_middle_of_reading(site, monkeypatch):
    """The folder goes while blocks are read, and comes back: all is as without."""
    site.put("s1", "a.mrc")
    site.settle()
    honest = ingest.CopyBlocks._read

    def stumbling(self, box):
        (site.home / "in").rename(site.home / "away")
        return honest(self, box)

    with monkeypatch.context() as patch:
        patch.setattr(ingest.CopyBlocks, "_read", stumbling)
        patch.setattr("tomoseg.core.attempts.PAUSE_SECONDS", 0)
        outcome = really(site)
    assert outcome.rows == ()
    assert site.where() == {"a": "gone"}
    assert SessionWork.read(site.look()["s1"].session.results).tomograms["a"].attempts == 0
    (site.home / "away").rename(site.home / "in")
    (row,) = really(site).rows
    assert row["state"] == "done"


def test_a_file_that_changes_while_it_is_read_is_not_taken(site, monkeypatch):
    path = site.put("s1", "a.mrc")
    site.settle()
    honest = ingest.CopyBlocks._read

    def growing(self, box):
        beside = path.with_name(f"new{threading.get_ident()}")
        beside.write_bytes(site.tomogram + b"\0")
        beside.replace(path)
        return honest(self, box)

    monkeypatch.setattr(ingest.CopyBlocks, "_read", growing)
    (row,) = really(site).rows
    assert "a.mrc changed while it was read" in row["error"]


def really(site):
    with (
        opened_run(site.watch, "s1", clock=lambda: site.now) as run,
        cluster_of(run) as (address, _),
    ):
        return run.through(processing(run, address))


def test_results_that_are_gone_are_not_begun_anew(site):
    site.put("s1", "a.mrc")
    site.settle()
    site.work("s1")
    (site.home / "out").rename(site.home / "out.away")
    (site.home / "out").mkdir()
    with pytest.raises(AwayError, match=r"out are not there any more\. Mount their drive"):
        site.look()
    assert list((site.home / "out").iterdir()) == []
    (site.home / "out").rmdir()
    (site.home / "out.away").rename(site.home / "out")
    assert site.where() == {"a": "done"}


def test_a_session_that_was_known_is_found_by_name(site):
    site.put("s1", "a.mrc")
    site.settle()
    (site.home / "in").rename(site.home / "away")
    assert find_session(site.watch, "s1").url == (site.home / "in" / "s1").as_uri()
    site.write(sessions="other/*")
    assert sessions_of(site.watch) == [], "but not what the watch no longer wants"


def test_what_was_written_by_an_older_version_is_read(site):
    site.put("s1", "a.mrc")
    (one,) = site.settle().values()
    values = one.session.results.read_json(".tomoseg/arrivals/seen.json")
    for key in ("watch", "why_paused"):
        del values[key]
    one.session.results.write_json(".tomoseg/arrivals/seen.json", values)
    assert Sights.read(one.session.results).watch == ""
    assert site.where() == {"a": "ready"}
