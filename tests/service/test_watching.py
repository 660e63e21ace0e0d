"""A watch without Prefect: places, recipes, looks with a clock of ours, and the work of runs."""

import json
import shutil
from datetime import timedelta
from types import SimpleNamespace

import pytest
from facility import Site, failing

from tomoseg.core.errors import (
    BlockError,
    ClaimError,
    FormatError,
    RequestError,
    ResourceError,
    StoreError,
)
from tomoseg.core.layout import ARRIVALS
from tomoseg.io.stores import Folder, claimed, living_owner
from tomoseg.pipeline.history import History
from tomoseg.pipeline.stages import STAGES
from tomoseg.recipe.recipe import recipe_from
from tomoseg.service.arrivals import SessionWork, Sights, Standing, TomogramWork, iso
from tomoseg.service.status import session_status
from tomoseg.service.watching import run as run_module
from tomoseg.service.watching.looks import ask_again, counts
from tomoseg.service.watching.opening import cluster_of, note_death, opened_run, processing
from tomoseg.service.watching.recipes import session_recipe
from tomoseg.service.watching.sessions import sessions_of
from tomoseg.service.watching.settings import load_watch
from tomoseg.service.watching.tables import table, times


@pytest.fixture
def site(tmp_path, tiny_model, tiny_session):
    return Site(tmp_path, tiny_model, tiny_session / "simulated_0500.mrc")


def test_a_mask_that_comes_before_its_tomogram_is_none(site):
    site.put("s1", "a_mask.mrc")
    site.put("s1", "a_lamella.mrc")
    recipe = json.loads((site.home / "recipe.yaml").read_text())
    recipe["source"] = {"mask": "{folder}/{name}_lamella.mrc"}
    (site.home / "recipe.yaml").write_text(json.dumps(recipe))
    (one,) = site.settle().values()
    assert one.standings == {}
    (line,) = table([one]).splitlines()[2:]
    assert line == (
        "s1: 2 files left out: a_lamella.mrc (it belongs to a, as the recipe says), "
        "a_mask.mrc (a mask or labels, whose tomogram is not there); "
        "rename what is a tomogram all the same"
    )
    said = session_status(str(site.home / "out" / "s1"))["left_out"]
    assert f"s1: {said}" == line
    site.put("s1", "a.mrc")
    (one,) = site.settle().values()
    assert list(one.standings) == ["a"]
    assert "a_mask.mrc (a mask or labels of a)" in table([one])
    site.work("s1")
    journal = json.loads((site.home / "out" / "s1" / "session.json").read_text())
    assert journal["left_out"] == dict(one.sights.left_out)
    assert "2 files left out: " in (site.home / "out" / "s1" / "index.html").read_text()


def test_a_half_map_that_comes_first_waits_for_the_whole(site):
    site.put("s1", "a_EVN.mrc")
    site.settle()
    assert site.where() == {"a_EVN": "incomplete"}
    (one,) = site.look().values()
    assert "it looks like a half map; its tomogram may still come" in table([one])
    site.wait(600)
    assert site.where() == {"a_EVN": "ready"}
    site.put("s1", "a.mrc")
    assert site.where() == {"a": "settling"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"settle_minutes": 3}, "settle_minutes is not a known key"),
        ({"output": "out"}, "output needs {session}"),
        ({"sentinel": "{nam}.mdoc"}, "use {name} or {file}"),
        ({"pauses_seconds": [600, 60]}, "pauses must grow"),
        ({"sessions": []}, "sessions: "),
        ({"limits": {"session_runs": 0}}, "limits.session_runs"),
    ],
)
def test_a_wrong_watch_says_what_is_wrong(site, changes, says):
    with pytest.raises(RequestError, match="the recipe is wrong") as caught:
        site.write(**changes)
    assert says in str(caught.value)


def test_sessions_are_found_by_patterns(site):
    for session in ("krios1/today", "krios1/.hidden", "krios2/today"):
        site.put(session, "tomo/a.mrc")
    site.put("krios1", "note.txt")
    site.write(sessions=["in/*/*/tomo", "in/krios1"])
    names = {place.name: place.url for place in sessions_of(site.watch)}
    base = (site.home / "in").as_uri()
    assert names == {
        "krios1": f"{base}/krios1",
        "krios1/today": f"{base}/krios1/today/tomo",
        "krios2/today": f"{base}/krios2/today/tomo",
    }
    site.write(sessions=["in/krios1/today/*", "in/krios2/today/*"])
    with pytest.raises(RequestError, match=r"would both write to .*out/tomo"):
        sessions_of(site.watch)


@pytest.mark.parametrize("sessions", ["in/*", "in/../elsewhere/*"])
def test_sessions_outside_of_the_roots_are_refused(site, sessions):
    site.put("s1", "a.mrc")
    site.put("../elsewhere/s1", "a.mrc")
    site.write(sessions=sessions, roots=["in", "out"])
    if "elsewhere" not in sessions:
        assert [place.name for place in sessions_of(site.watch)] == ["s1"]
        return
    with pytest.raises(RequestError, match="lies outside of"):
        sessions_of(site.watch)


def recipe_of(site, session="s1"):
    (place,) = (one for one in sessions_of(site.watch) if one.name == session)
    entries = [SimpleNamespace(name=path.name) for path in (site.home / "in" / session).iterdir()]
    return session_recipe(site.watch, place, entries)


def test_a_recipe_beside_the_tomograms_wins_over_rules(site):
    site.put("s1", "a.mrc")
    (site.home / "other.yaml").write_text("export: {masks: [tiff]}\ncompute: {threads: 2}\n")
    rules = [{"sessions": "in/s1", "recipe": "other.yaml"}, {"recipe": "recipe.yaml"}]
    site.write(recipes=rules)
    ruled = recipe_of(site).right
    assert ruled.export.masks == ("tiff",)
    assert ruled.session.input == ((site.home / "in" / "s1").as_uri(),)
    assert ruled.session.output == (site.home / "out" / "s1").as_uri()
    site.put("s1", "tomoseg.yaml", b"segment: {model: nets/mine}\nsession: {input: elsewhere}\n")
    own = recipe_of(site).right
    assert own.segment.model == (site.home / "in" / "s1" / "nets" / "mine").as_uri()
    assert own.session.input == ruled.session.input
    assert own.compute.threads == 2, "where blocks run is the watch's to say"


@pytest.mark.parametrize(
    ("own", "says"),
    [
        (b"compute: {threads: 2}", "cannot say where blocks run"),
        (b"segment: {modle: x}", "segment.modle is not a known key"),
        (b"segment: {model: /etc}", "lies outside of"),
        (b"source: {mask: '{folder}/../../secret.mrc'}", "lies outside of"),
        (b"a: [", "is not a YAML file"),
    ],
)
def test_a_wrong_recipe_is_told(site, own, says):
    site.put("s1", "a.mrc")
    site.put("s1", "tomoseg.yaml", own)
    site.write(roots=["in", "out"])
    wrong = recipe_of(site)
    assert wrong.recipe is None
    assert says in str(wrong.error)
    with pytest.raises(RequestError):
        _ = wrong.right


def test_without_a_recipe_nothing_is_done(site):
    site.put("s1", "a.mrc")
    site.write(recipes=[{"sessions": "in/other*", "recipe": "recipe.yaml"}])
    assert "no recipe is known" in str(recipe_of(site).error)


def test_the_scheduler_of_the_environment_goes_before_every_recipe(site):
    site.put("s1", "a.mrc")
    (site.home / "recipe.yaml").write_text("compute: {cluster: cuda, threads: 2, workers: 1}\n")
    address = {"TOMOSEG_SCHEDULER": "tcp://10.0.0.1:8786"}
    watch = load_watch(site.home / "watch.yaml", address)
    (place,) = sessions_of(watch)
    compute = session_recipe(watch, place, []).right.compute
    assert (compute.address, compute.runner) == ("tcp://10.0.0.1:8786", "dask")
    assert (compute.cluster, compute.threads, compute.workers) == ("local", 2, None)


@pytest.mark.parametrize(
    ("recipe", "compute", "said"),
    [
        ({"threads": 2}, None, {"threads": 2}),
        # What a person wrote stays.
        ({"address": "tcp://10.0.0.9:1"}, None, {"address": "tcp://10.0.0.9:1"}),
        ({"threads": 2}, {"memory_gib": 8.0}, {"memory_gib": 8.0}),
        ({}, {"tls": {"ca": "ca.pem", "cert": "c.pem", "key": "k.pem"}}, {}),
        ({}, {"cluster": "cuda"}, {}),
    ],
)
def test_the_scheduler_of_a_watch_is_not_written_into_the_recipe(site, recipe, compute, said):
    """It has ended when somebody uses that recipe again."""
    site.put("s1", "a.mrc")
    (site.home / "recipe.yaml").write_text(json.dumps({"compute": recipe}))
    watch = site.write(compute=compute, scheduler="tls://10.0.0.1:8786")
    (place,) = sessions_of(watch)
    right = session_recipe(watch, place, []).right
    assert right.compute.address == "tls://10.0.0.1:8786"
    again = right.resolved(()).lasting()
    assert again["compute"] == recipe_from({"compute": said}).compute.model_dump(mode="json")
    assert recipe_from(again).session.input == (place.url,)


def test_what_was_tried_and_why_it_failed_is_kept(site):
    """A success does not erase it; what keeps the whole session from being begun is told too."""
    path = site.put("s1", "bad.mrc")
    site.settle()
    site.work("s1", failing(BlockError("out of luck", remedy="Try again.")))
    site.wait(60)
    site.work("s1", lambda found, records: {"name": found.name, "state": "done"})
    (site.home / "recipe.yaml").write_text("segment: {modle: x}")
    with pytest.raises(RequestError):
        site.work("s1")
    output = Folder(str(site.home / "out" / "s1"))
    said = [(one.tomogram, one.state, one.error[:11]) for one in History.read(output).attempts]
    assert said[:2] == [("bad", "failed", "out of luck"), ("bad", "done", "")]
    ((name, state, why),) = said[2:]
    assert (name, state, why) == ("", "refused", "the recipe ")
    (row,) = output.read_json("session.json")["tomograms"]
    assert row["url"] == path.as_uri()


def test_masks_and_tilt_series_beside_tomograms_are_none(site, caplog):
    caplog.set_level("INFO", logger="tomoseg.service.watching.looks")
    for name in ("a.mrc", "a.st", "a_seg.mrc", "a_inside.mrc"):
        site.put("one", name)
    site.put("one", "tomoseg.yaml", b"source: {mask: '{folder}/{name}_inside.mrc'}")
    one = site.settle()["one"]
    assert one.recipe.error is None
    assert list(one.standings) == ["a"]
    (line,) = {line for line in caplog.messages if " left out: " in line}
    assert "a_inside.mrc (it belongs to a, as the recipe says)" in line


def test_an_upgrade_makes_nothing_again_that_is_done(site, monkeypatch):
    """Neither new code, nor a key that says its default, nor what changes no result."""
    site.put("s1", "a.mrc")
    site.settle()
    site.work("s1")
    assert site.where() == {"a": "done"}
    monkeypatch.setattr("tomoseg.pipeline.stages.terms.code_version", lambda: "0+new")
    path = site.home / "recipe.yaml"
    values = json.loads(path.read_text())
    values["segment"] |= {"precision": "auto", "tta": 1}
    values["session"] = {"results_of": "any_code", "keep_previous": True}
    path.write_text(json.dumps(values))
    assert site.where() == {"a": "done"}
    values["segment"]["tta"] = 4
    path.write_text(json.dumps(values))
    assert site.where() != {"a": "done"}


def test_a_file_still_being_written_waits(site):
    half = len(site.tomogram) // 2
    site.put("s1", "a.mrc", site.tomogram[:half])
    assert site.where() == {"a": "settling"}
    site.wait(60)
    one = site.look()["s1"]
    assert one.named(Standing.INCOMPLETE) == ["a"]
    assert f"the file has {half} bytes" in table([one])
    site.put("s1", "a.mrc")
    assert site.where() == {"a": "settling"}
    site.wait(30)
    assert site.where() == {"a": "ready"}


def test_a_file_cut_for_good_is_no_longer_waited_for(site):
    site.put("s1", "a.mrc", site.tomogram[:5000])
    site.settle()
    site.wait(10 * 60)
    assert site.where() == {"a": "ready"}, "so that it is refused, with its error"


def test_a_sentinel_says_when(site):
    site.write(sentinel="{file}.mdoc")
    site.put("s1", "a.mrc")
    site.settle()
    site.wait(9999)
    assert site.where() == {"a": "incomplete"}
    assert "there is no a.mrc.mdoc" in table(list(site.look().values()))
    site.put("s1", "a.mrc.mdoc", b"")
    assert site.where() == {"a": "ready"}


def test_content_is_worked_once_and_again_when_it_changes(site):
    site.put("s1", "a.mrc")
    site.settle()
    done = []

    def process(found, records):
        done.append(found.name)
        return {"name": found.name, "state": "done"}

    assert site.orders() == ["s1"]
    site.work("s1", process)
    assert site.orders() == []
    site.work("s1", process)
    assert done == ["a"]
    site.put("s1", "a.mrc", site.tomogram + b"\0")
    site.settle()
    site.work("s1", process)
    assert done == ["a", "a"]
    recipe = json.loads((site.home / "recipe.yaml").read_text())
    (site.home / "recipe.yaml").write_text(json.dumps({**recipe, "ingest": {"bin": 2}}))
    assert site.orders() == ["s1"]
    site.work("s1", process)
    assert done == ["a", "a", "a"]
    (site.home / "recipe.yaml").write_text(
        json.dumps({**recipe, "ingest": {"bin": 2}, "compute": {"threads": 2}})
    )
    assert site.orders() == [], "where blocks run decides no result"


def test_the_key_of_a_run_stays_until_there_is_other_work(site):
    site.put("s1", "a.mrc")
    first = site.settle()["s1"].key
    site.wait(60)
    assert site.look()["s1"].key == first
    site.put("s1", "b.mrc")
    second = site.settle()["s1"].key
    assert second != first
    site.put("s1", "bad.mrc")
    third = site.settle()["s1"].key
    site.work("s1", failing(StoreError("no route to host")))
    site.wait(60)
    again = site.look()["s1"]
    assert again.ready == ["bad"]
    assert len({first, second, third, again.key}) == 4, "another attempt is another run"


def test_an_idle_look_writes_nothing(site):
    site.put("s1", "a.mrc")
    site.settle()
    site.work("s1")

    def written():
        files = (path for path in site.home.rglob("*") if "watches" not in str(path))
        return {path: path.stat().st_mtime_ns for path in files}

    before = written()
    site.wait(60)
    assert site.where() == {"a": "done"}
    assert written() == before, "but for what the watch says of itself"


def test_a_poison_tomogram_is_tried_three_times_and_set_aside(site):
    for name in ("bad.mrc", "good.mrc"):
        site.put("s1", name)
    site.settle()
    process = failing(BlockError("ZeroDivisionError: division by zero", remedy="Report it"))
    waited = []
    for pause in (60, 600, None):
        outcome = site.work("s1", process)
        assert outcome.error is None
        assert site.where()["good"] == "done"
        if pause is not None:
            site.wait(pause - 1)
            assert site.orders() == []
            assert site.where()["bad"] == "resting"
            site.wait(1)
            waited.append(site.orders())
    assert waited == [["s1"], ["s1"]]
    site.wait(99999)
    assert site.where() == {"bad": "set aside", "good": "done"}
    assert site.orders() == []
    said = "set aside after 3 attempts: ZeroDivisionError: division by zero. Report it."
    assert f"s1/bad: {said}" in table(list(site.look().values()))
    status = session_status(str(site.home / "out" / "s1"))
    assert {row["name"]: row["say"] for row in status["tomograms"]}["bad"] == said


def test_what_was_set_aside_comes_back_when_asked_for(site):
    test_a_poison_tomogram_is_tried_three_times_and_set_aside(site)
    with pytest.raises(RequestError, match=r"nothing called gode is known\. There is: s1/good"):
        ask_again(site.watch, "gode", site.now)
    assert ask_again(site.watch, "s1/b*", site.now) == ["s1/bad"]
    assert site.orders() == ["s1"]
    site.work("s1")
    assert site.where() == {"bad": "done", "good": "done"}


def test_what_no_second_try_mends_is_set_aside_at_once(site):
    site.put("s1", "bad.mrc")
    site.settle()
    site.work("s1", failing(FormatError("not an image")))
    site.wait(99999)
    assert site.where() == {"bad": "set aside"}
    site.put("s1", "bad.mrc", site.tomogram + b"\0")
    assert site.where() == {"bad": "settling"}


@pytest.mark.parametrize("is_first", [True, False])
def test_a_run_that_is_told_to_end_was_no_attempt(site, is_first):
    site.put("s1", "bad.mrc")
    site.settle()
    if not is_first:
        site.work("s1", failing(StoreError("no route to host")))
        site.wait(60)
    output = site.look()["s1"].session.results
    before = SessionWork.read(output)
    claims = []

    def interrupted(found, records):
        assert SessionWork.read(output).tomograms["bad"].state == "running"
        raise KeyboardInterrupt

    def run():
        with opened_run(site.watch, "s1", clock=lambda: site.now) as run:
            claims.append(run.claim)
            run.through(interrupted)

    with pytest.raises(KeyboardInterrupt):
        run()
    assert SessionWork.read(output) == before
    (row,) = output.read_json("session.json")["tomograms"]
    assert (row["name"], row["state"]) == ("bad", "waiting")
    assert living_owner(output) is None
    assert site.orders() == ["s1"]
    with pytest.raises(ClaimError, match="was told to end"):
        claims[0].check()


def test_a_death_that_was_seen_is_followed_after_a_pause_and_another_at_once(site):
    site.put("s1", "a.mrc")
    site.settle()
    place = site.look()["s1"].session

    begun = TomogramWork(
        *(getattr(site.look()["s1"].sights.tomograms["a"], name) for name in ("size", "version")),
        site.look()["s1"].recipe.digest, "running", 1, iso(site.now), iso(site.now), iso(site.now),
    )  # fmt: skip
    SessionWork({"a": begun}).write(place.results)
    assert site.orders() == ["s1"], "nobody saw it"
    note_death(place, "killed by SIGKILL", site.now)
    assert site.where() == {"a": "resting"}
    stand = site.look()["s1"].stands["a"]
    assert stand.say == "its run ended without a word: killed by SIGKILL"
    site.wait(60)
    assert site.orders() == ["s1"]
    with claimed(place.results), pytest.raises(ClaimError):
        note_death(place, "killed by SIGKILL", site.now)


def test_a_machine_that_gives_out_stops_the_run_and_spares_the_others(site):
    for name in ("bad.mrc", "good.mrc"):
        site.put("s1", name)
    site.settle()
    outcome = site.work("s1", failing(ResourceError("the disk is full")))
    assert (len(outcome.rows), outcome.left) == (1, 1)
    assert "the disk is full" in str(outcome.error)
    site.wait(59)
    assert site.orders() == []
    site.wait(1)
    assert site.orders() == ["s1"]
    begun = []

    def process(found, records):
        begun.append(found.name)
        return {"name": found.name, "state": "done"}

    assert site.work("s1", process).error is None
    assert begun == ["good", "bad"], "what has not failed goes first"
    assert SessionWork.read(site.look()["s1"].session.results).trouble is None


def test_a_wrong_recipe_is_refused_once(site):
    site.put("s1", "a.mrc")
    site.put("s1", "tomoseg.yaml", b"segment: {modle: x}")
    assert site.settle()["s1"].recipe.error is not None
    assert site.orders() == ["s1"], "its run says what is wrong"
    with pytest.raises(RequestError, match="modle is not a known key"):
        site.work("s1")
    site.wait(99999)
    assert site.orders() == []
    assert "modle is not a known key" in table(list(site.look().values()))
    site.put("s1", "tomoseg.yaml", b"segment: {model: /nowhere}")
    assert site.orders() == ["s1"]
    with pytest.raises(Exception, match="/nowhere"):
        site.work("s1")
    assert site.orders() == []
    assert ask_again(site.watch, "s1", site.now + timedelta(seconds=1)) == ["s1"]
    site.wait(2)
    assert site.orders() == ["s1"]


def test_live_sessions_go_before_backlog(site):
    site.write(limits={"session_runs": 2})
    for session in ("old1", "old2"):
        site.put(session, "a.mrc")
    site.settle()
    site.wait(13 * 3600)
    site.put("live", "a.mrc")
    site.settle()
    assert site.orders() == ["live", "old1"]
    assert site.orders(busy={"old1"}) == ["live"]
    assert site.orders(busy={"old1", "old2"}) == []


def test_a_run_takes_so_many_tomograms(site):
    site.write(limits={"tomograms_a_run": 2, "tomograms_at_once": 2})
    for name in ("c.mrc", "b.mrc", "a.mrc"):
        site.put("s1", name)
    site.settle()
    outcome = site.work("s1")
    assert (sorted(row["name"] for row in outcome.rows), outcome.left) == (["a", "b"], 1)
    journal = json.loads((site.home / "out/s1/session.json").read_text())
    assert [(row["name"], row["state"]) for row in journal["tomograms"]] == [
        ("a", "done"), ("b", "done"), ("c", "waiting"),
    ]  # fmt: skip
    assert site.orders() == ["s1"]


def test_a_session_in_work_is_left_alone(site):
    site.put("s1", "a.mrc")
    one = site.settle()["s1"]
    with claimed(one.session.results):
        assert site.look()["s1"].is_at_work
        assert site.orders() == []
        outcome = site.work("s1")
        assert (outcome.rows, outcome.error) == ((), None)
        assert "is being written by" in outcome.waits
    assert site.orders() == ["s1"]


def test_two_looks_at_the_same_moment_do_not_undo_each_other(site):
    site.put("s1", "a.mrc")
    one = site.look()["s1"]
    with claimed(one.session.results / ARRIVALS):
        site.put("s1", "b.mrc")
        blocked = site.look()["s1"]
    assert "is being written by" in blocked.problem
    assert set(Sights.read(one.session.results).tomograms) == {"a"}
    assert site.where() == {"a": "settling", "b": "settling"}


def test_a_session_that_cannot_be_looked_at_stops_no_other(site):
    site.put("s1", "a.mrc")
    site.put("s1", "a.tif")
    site.put("s2", "a.mrc")
    looks = site.settle()
    assert "would both be called a" in looks["s1"].problem
    assert counts(looks["s2"])["ready"] == 1
    assert site.orders() == ["s2"]


def test_a_folder_that_is_gone_forgets_nothing(site):
    site.put("s1", "a.mrc")
    site.settle()
    site.work("s1")
    (site.home / "in" / "s1" / "a.mrc").rename(site.home / "a.mrc")
    site.write(sessions="in/s1", output="out/s1")
    assert site.where() == {"a": "done"}
    shutil.copy2(site.home / "a.mrc", site.home / "in" / "s1" / "a.mrc")
    assert site.where() == {"a": "done"}


def test_a_run_that_died_is_an_attempt(site, monkeypatch):
    monkeypatch.setattr(run_module.SessionRun, "_give_back", lambda run, journal: None)
    site.put("s1", "a.mrc")
    site.settle()

    def killed(found, records):
        raise KeyboardInterrupt

    for pause in (60, 600, 99999):
        with pytest.raises(KeyboardInterrupt):
            site.work("s1", killed)
        site.wait(pause)
    assert site.where() == {"a": "set aside"}
    assert "ended without a word" in table(list(site.look().values()))


def test_a_store_that_is_away_for_a_moment_is_waited_for(site, monkeypatch):
    site.put("s1", "a.mrc")
    site.settle()
    slept, write = [], SessionWork.write

    def flaky(work, output):
        if len(slept) < 2:
            raise OSError("no route to host")
        write(work, output)

    monkeypatch.setattr(SessionWork, "write", flaky)
    monkeypatch.setattr(run_module.time, "sleep", slept.append)
    site.work("s1")
    assert slept == [1.0, 2.0]
    assert site.where() == {"a": "done"}


def test_a_session_is_really_processed(site):
    site.put("s1", "good.mrc")
    site.put("s1", "bad.mrc", site.tomogram[: len(site.tomogram) // 2])
    site.settle()
    site.wait(600)
    with (
        opened_run(site.watch, "s1", clock=lambda: site.now) as run,
        cluster_of(run) as (address, dashboard),
    ):
        assert (address, dashboard) == (None, "")
        outcome = run.through(processing(run, address))
    assert {row["name"]: row["state"] for row in outcome.rows} == {"good": "done", "bad": "failed"}
    output = site.home / "out" / "s1"
    assert (output / "good" / "manifest.json").exists()
    assert site.where() == {"good": "done", "bad": "set aside"}
    bad, good = times(site.look()["s1"])
    assert (good.name, good.state) == ("s1/good", "done")
    assert good.complete <= good.started == good.finished == site.now
    assert set(good.seconds) == set(STAGES)
    assert (bad.name, bad.state, bad.seconds) == ("s1/bad", "set aside", {})
    status = session_status(str(output), site.now)
    rows = {row["name"]: row["state"] for row in status["tomograms"]}
    assert rows == {"bad": "set aside", "good": "done"}
    assert status["capacity"]["finished_per_hour"] > 0
