"""What a person does to a watch: pauses, resumes, asks again, deletes results, starts a second."""

import json
import shutil
from datetime import UTC, datetime, timedelta

import pytest
from facility import Site

from tomoseg.core.errors import RequestError, ResourceError
from tomoseg.io.stores import Folder, claimed
from tomoseg.report.summary import DONE
from tomoseg.service.arrivals import SessionWork, Sights
from tomoseg.service.arrivals.presence import read_presence
from tomoseg.service.watching.asking import pause, resume
from tomoseg.service.watching.changes import pause_session, resume_session
from tomoseg.service.watching.looks import ask_again, orders, survey
from tomoseg.service.watching.losses import COMPARED_A_LOOK, turn_of
from tomoseg.service.watching.opening import cluster_of, opened_run, processing
from tomoseg.service.watching.settings import load_watch
from tomoseg.service.watching.tables import table

flows = pytest.importorskip("flows.watch", reason="Prefect is not installed")


@pytest.fixture
def site(tmp_path, tiny_model, tiny_session):
    return Site(tmp_path, tiny_model, tiny_session / "simulated_0500.mrc")


def really(site):
    with (
        opened_run(site.watch, "s1", clock=lambda: site.now) as run,
        cluster_of(run) as (address, _),
    ):
        if run.session is None:
            return run.through(lambda found, records: {})
        return run.through(processing(run, address))


def test_a_file_beside_the_tomograms_pauses(site):
    site.put("s1", "a.mrc")
    site.settle()
    site.put("s1", "tomoseg.pause", b"the grid\nis being exchanged")
    one = site.look()["s1"]
    (hindrance,) = one.hindrances
    assert (hindrance.kind, hindrance.say) == ("paused", "the grid is being exchanged")
    assert "s1/tomoseg.pause" in hindrance.remedy
    assert site.where() == {"a": "paused"}
    assert site.orders() == []
    assert not one.needs_person
    assert site.work("s1").waits == hindrance.say
    site.wait(3600)
    assert site.look()["s1"].hindrances == (hindrance,), "since it was first seen"
    (site.home / "in/s1/tomoseg.pause").unlink()
    assert site.where() == {"a": "ready"}


@pytest.mark.parametrize("content", [b"", b"x" * 10_000, b"\xff\x00\x1b[31m"])
def test_any_file_of_that_name_pauses(site, content):
    site.put("s1", "a.mrc")
    site.put("s1", "tomoseg.pause", content)
    assert [each.kind for each in site.settle()["s1"].hindrances] == ["paused"]
    assert "\x1b" not in table([site.look()["s1"]])


def test_a_command_pauses_and_resumes(site):
    for session in ("s1", "s2"):
        site.put(session, "a.mrc")
    looks = list(site.settle().values())
    assert pause(looks, "s1", site.now, "beam time is over") == ["s1"]
    site.wait(60)
    said = table(list(site.look().values()))
    assert ": beam time is over. To go on: python -m " in said
    assert f"flows.watch {site.home}/watch.yaml --resume s1" in said
    assert site.orders() == ["s2"]
    assert resume(looks, "s*") == ["s1", "s2"]
    assert site.orders() == ["s1", "s2"]
    with pytest.raises(RequestError, match="nothing called s3 is known"):
        pause(looks, "s3", site.now)
    site.put("s1", "tomoseg.pause", b"")
    with pytest.raises(RequestError, match=r"Remove .*s1/tomoseg\.pause"):
        resume(looks, "s1")


@pytest.mark.parametrize("by_file", [False, True])
def test_a_run_at_work_ends_after_its_tomogram_when_its_session_is_paused(site, by_file):
    for name in ("a.mrc", "b.mrc", "c.mrc"):
        site.put("s1", name)
    place = site.settle()["s1"].session

    def process(found, records):
        if found.name == "b" and by_file:
            site.put("s1", "tomoseg.pause", b"stop")
        elif found.name == "b":
            pause_session(place, site.now, "stop")
        return {"name": found.name, "state": "done"}

    outcome = site.work("s1", process)
    assert [row["name"] for row in outcome.rows] == ["a", "b"]
    assert (outcome.left, outcome.error, outcome.waits) == (1, None, "paused: stop")
    assert site.where() == {"a": "done", "b": "done", "c": "paused"}
    if not by_file:
        resume_session(place)
        assert site.where() == {"a": "done", "b": "done", "c": "ready"}


def test_a_pause_is_not_lost_to_a_look_of_the_same_moment(site):
    site.put("s1", "a.mrc")
    (one,) = site.settle().values()
    with claimed(one.session.results / ".tomoseg/arrivals"):
        slept = []

        def released(seconds):
            slept.append(seconds)
            raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tomoseg.service.watching.changes.time.sleep", released)
            with pytest.raises(KeyboardInterrupt):
                pause_session(one.session, site.now)
    assert slept == [0.1], "it waits for the look to end"
    pause_session(one.session, site.now)
    assert Sights.read(one.session.results).paused


def test_a_paused_session_of_a_wrong_recipe_is_not_begun(site):
    site.put("s1", "a.mrc")
    site.put("s1", "tomoseg.yaml", b"segment: {modle: x}")
    site.put("s1", "tomoseg.pause", b"")
    assert "paused" in {each.kind for each in site.settle()["s1"].hindrances}
    assert site.orders() == []


def test_again_takes_what_is_done_as_well(site):
    for name in ("a.mrc", "b.mrc"):
        site.put("s1", name)
    site.settle()
    site.work("s1")
    site.wait(1)
    assert ask_again(site.watch, "s1/a", site.now) == ["s1/a"]
    assert site.orders() == ["s1"]
    site.wait(1)
    site.work("s1")
    assert site.begun == ["a"]
    site.wait(1)
    assert ask_again(site.watch, "s1", site.now) == ["s1/a", "s1/b"]
    site.put("s1", "c.mrc")
    site.look()
    with pytest.raises(RequestError, match="s1/c is settling"):
        ask_again(site.watch, "c", site.now)
    with pytest.raises(RequestError, match=r"nothing called TS_02 is known\. There is: s1, s1/a"):
        ask_again(site.watch, "TS_02", site.now)


def delete(site, name):
    path = site.home / "out/s1" / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def results(site):
    """Return all files of the tomogram but what keeps its stages."""
    every = (site.home / "out/s1/a").rglob("*")
    return {path for path in every if path.is_file() and ".tomoseg" not in path.parts}


@pytest.mark.parametrize(
    "lost", ["a/manifest.json", "a/tomogram.zarr/0", "a/report/overview.png", "a"]
)
def test_a_lost_result_is_noticed_and_made_again(site, lost):
    site.put("s1", "a.mrc")
    site.settle()
    (row,) = really(site).rows
    assert row["state"] == "done"
    files = results(site)
    assert site.home / "out/s1" / lost in {*files, *(up for file in files for up in file.parents)}
    site.wait(60)
    assert site.where() == {"a": "done"}
    delete(site, lost)
    site.wait(60)
    assert site.where() == {"a": "ready"}
    assert site.orders() == ["s1"]
    site.wait(1)
    (row,) = really(site).rows
    assert row["state"] in DONE
    assert results(site) == files
    site.wait(60)
    assert site.where() == {"a": "done"}
    assert SessionWork.read(Folder(str(site.home / "out/s1"))).trouble is None


def test_each_run_compares_what_is_done(site, monkeypatch):
    site.put("s1", "a.mrc")
    site.settle()
    really(site)
    site.put("s1", "b.mrc")
    monkeypatch.setattr("tomoseg.service.watching.looks.turn_of", lambda *values: [])
    site.settle()
    delete(site, "a/manifest.json")
    site.wait(3)
    assert site.where() == {"a": "done", "b": "ready"}
    assert {row["name"] for row in really(site).rows} == {"a", "b"}
    assert (site.home / "out/s1/a/manifest.json").exists()


def test_what_cannot_be_made_again_is_not_tried_at_each_look(site):
    site.put("s1", "a.mrc")
    site.settle()
    row = {"name": "a", "state": "done", "seconds": {"ingest": 1.0}}
    site.work("s1", lambda found, records: row)
    site.wait(60)
    assert site.where() == {"a": "ready"}
    site.wait(60)
    site.work("s1", lambda found, records: row)
    for _ in range(3):
        site.wait(60)
        assert site.where() == {"a": "done"}
    site.wait(3600)
    assert site.where() == {"a": "ready"}


def test_every_result_has_its_turn(site):
    done = [("s1", f"t{number}") for number in range(3 * COMPARED_A_LOOK + 1)]
    seen = []
    for _ in range(4):
        seen += turn_of(done, site.now, 60.0)
        site.wait(60)
    assert len(seen) == 4 * COMPARED_A_LOOK
    assert set(seen) == set(done)
    assert turn_of([], site.now, 60.0) == []
    assert set(turn_of(done[:3], site.now, 60.0)) == set(done[:3])


def second_watch(site, **changes):
    """Return the watch of another file, from another folder into the same outputs."""
    (site.home / "in2/s1").mkdir(parents=True)
    (site.home / "in2/s1/b.mrc").write_bytes(site.tomogram)
    values = json.loads((site.home / "watch.yaml").read_text())
    path = site.home / "second.yaml"
    path.write_text(json.dumps(values | {"sessions": "in2/*"} | changes))
    return load_watch(path, {})


def test_a_second_watch_with_another_folder_waits_in_words(site):
    site.put("s1", "a.mrc")
    site.settle()
    before = Sights.read(Folder(str(site.home / "out/s1")))
    second = second_watch(site)
    (one,) = survey(second, site.now + timedelta(minutes=1)).looks
    (hindrance,) = one.hindrances
    assert hindrance.kind == "elsewhere"
    assert (
        f"another watch serves {site.home}/out/s1, from file://{site.home}/in/s1" in hindrance.say
    )
    assert f"{site.home}/watch.yaml" in hindrance.say
    assert one.needs_person
    assert orders([one], second, site.now) == []
    with opened_run(second, "s1", clock=lambda: site.now) as run:
        outcome = run.through(lambda found, records: {})
    assert outcome.waits == hindrance.say
    assert Sights.read(one.session.results) == before, "nothing of the first is touched"
    assert "another watch serves" in table([one])
    assert site.where() == {"a": "ready"}


def test_a_second_watch_takes_over_when_the_first_has_ended(site):
    site.put("s1", "a.mrc")
    (one,) = site.settle().values()
    presence = read_presence(one.sights.watch)
    assert presence.places["s1"].url == one.session.url
    second = second_watch(site)
    place, _, name = one.sights.watch.rpartition("/")
    values = Folder(place).read_json(name)
    values["owner"]["is_released"] = True
    Folder(place).write_json(name, values)
    (two,) = survey(second, site.now).looks
    assert {name: str(each) for name, each in two.standings.items()} == {
        "a": "gone", "b": "settling",
    }  # fmt: skip
    assert two.sights.watch != one.sights.watch


def test_a_run_of_an_output_in_work_waits(site):
    site.put("s1", "a.mrc")
    (one,) = site.settle().values()
    with claimed(one.session.results):
        outcome = site.work("s1")
    assert (outcome.rows, outcome.error, site.begun) == ((), None, [])
    assert "is being written by" in outcome.waits


def test_a_trouble_is_told_until_it_is_over(site):
    site.put("s1", "a.mrc")
    site.settle()

    def process(found, records):
        raise ResourceError("no Dask scheduler answers", remedy="Start it")

    site.work("s1", process)
    for _ in range(3):
        site.wait(3600)
        assert ": no Dask scheduler answers. Start it." in table([site.look()["s1"]])
        assert site.look()["s1"].needs_person
    site.work("s1")
    assert "Dask" not in table([site.look()["s1"]])


def command(site, capsys, *arguments):
    code = flows.main([str(site.home / "watch.yaml"), *arguments])
    said = capsys.readouterr()
    return code, said.out + said.err


def test_the_commands(site, capsys):
    site.put("s1", "a.mrc")
    site.write(settle_seconds=0)
    site.now = datetime.now(UTC)
    site.look()
    assert command(site, capsys, "--look")[0] == 0
    code, said = command(site, capsys, "--pause", "s1", "--why", "no beam")
    assert (code, said) == (0, "paused: s1; --resume s1 lets go on\n")
    code, said = command(site, capsys, "--once")
    assert code == 0
    assert ": no beam. To go on: python -m " in said
    assert command(site, capsys, "--resume", "s1") == (0, "goes on: s1\n")
    assert command(site, capsys, "--pause", "s2")[0] == 2
    shutil.rmtree(site.home / "in/s1")
    (site.home / "in").rename(site.home / "away")
    code, said = command(site, capsys, "--look")
    assert code == 1
    assert "the watch: " in said
    assert "finds nothing" in said


def test_a_second_watch_is_told_at_its_start(site, capsys):
    site.put("s1", "a.mrc")
    site.look()
    (file,) = (site.home / "out/.tomoseg/watches").iterdir()
    values = json.loads(file.read_text())
    values["owner"] |= {"host": "krios2", "processes": "", "seen": "2999-01-01T00:00:00+00:00"}
    values["file"] = "/etc/other.yaml"
    (file.parent / "0.json").write_text(json.dumps(values))
    _, said = command(site, capsys, "--look")
    assert "another watch has outputs below " in said
    assert "@krios2, process" in said
    assert "with /etc/other.yaml for " in said
