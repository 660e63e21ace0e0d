"""The journal of a session: a run of some tomograms keeps what is true of the others."""

import base64
from datetime import UTC, datetime, timedelta

import pytest

from tomoseg.core.errors import ClaimError, ResourceError
from tomoseg.core.layout import ATTEMPTS, PROGRESS
from tomoseg.io.volumes.sources import Found
from tomoseg.pipeline.history import History
from tomoseg.pipeline.journal import Journal, note_trouble, summarise
from tomoseg.recipe.plain_yaml import LARGEST_CHARACTERS
from tomoseg.recipe.recipe import Recipe, load_recipe, recipe_from

RECIPE = Recipe(clean={}, trace={}, pick={}, sample={})


def begin(output, *names, recipe=RECIPE, home="memory://in"):
    found = [Found(name, f"{home}/{name}.mrc") for name in names]
    return Journal.begin(output, recipe, (), found)


def finished(output, name, recipe=RECIPE, **row):
    """A tomogram as a run leaves it; returns its row."""
    manifest = {"source": {"url": f"memory://in/{name}.mrc"}, "networks": []}
    output.write_json(f"{name}/manifest.json", {**manifest, "recipe": recipe.lasting()})
    output.write(f"{name}/.tomoseg/thumbnail.jpg", name.encode())
    return {"name": name, "state": "done", "picture": f"{name}/report/overview.png", **row}


def write(output, *rows):
    output.write_json("session.json", {"started": "", "finished": "", "tomograms": list(rows)})


def rows_of(journal):
    rows = {row["name"]: row for row in journal.values["tomograms"]}
    assert journal.output.read_json("session.json")["tomograms"] == list(rows.values())
    return rows


def page_of(journal):
    return journal.output.read("index.html").decode()


def test_rows_of_others_stay(folder):
    failed = {"name": "b", "state": "failed", "error": "bad", "remedy": "Copy it.", "attempts": 2}
    write(folder, finished(folder, "a", notes=["odd"]), failed)
    rows = rows_of(begin(folder, "c"))
    assert list(rows) == ["a", "b", "c"]
    assert (rows["a"]["state"], rows["a"]["notes"]) == ("done", ["odd"])
    assert rows["a"]["url"] == "memory://in/a.mrc"
    assert rows["b"] == failed
    assert rows["c"] == {"name": "c", "url": "memory://in/c.mrc", "state": "waiting"}


def test_the_page_keeps_the_pictures_of_others(folder, caplog):
    write(folder, finished(folder, "a"), finished(folder, "b"))
    folder.remove("b/.tomoseg/thumbnail.jpg")
    journal = begin(folder, "c")
    assert base64.b64encode(b"a").decode() in page_of(journal)
    assert "b: the page has no picture of it" in caplog.text
    journal.note({"name": "c", "state": "running"})
    assert base64.b64encode(b"a").decode() in page_of(journal)


def test_what_ran_in_a_dead_run_waits(folder):
    write(folder, {"name": "a", "state": "running", "started": "2026-11-30T00:00:00+00:00"})
    assert rows_of(begin(folder, "c"))["a"] == {"name": "a", "state": "waiting"}


@pytest.mark.parametrize("content", [None, b'{"recipe": '])
def test_results_that_are_gone_are_not_shown_as_done(folder, content, caplog):
    write(folder, finished(folder, "a"))
    folder.remove("a")
    if content:
        folder.write("a/manifest.json", content)
    journal = begin(folder, "c")
    row = rows_of(journal)["a"]
    assert row["state"] == "waiting"
    assert row["notes"] == [
        "its results are not there any more: run it again, or remove its file too"
    ]
    assert row["notes"][0] in page_of(journal)
    assert "a: its results are not there any more" in caplog.text
    assert summarise({"tomograms": list(rows_of(journal).values())}, {"c"})[0].endswith("0 of 2)")


def test_what_has_neither_results_nor_a_file_is_forgotten(folder, tmp_path, caplog):
    """Only where the folder of its file is there: a drive may be away for a while."""
    (tmp_path / "in").mkdir()
    gone, away = (tmp_path / place / "a.mrc" for place in ("in", "away"))
    removed = {**finished(folder, "a"), "url": gone.as_uri()}
    write(
        folder,
        removed,
        {"name": "b", "state": "failed", "error": "bad", "url": gone.as_uri()},
        {"name": "d", "state": "failed", "error": "bad", "url": away.as_uri()},
    )
    assert list(rows_of(begin(folder, "c"))) == ["a", "c", "d"], "what has results stays"
    folder.remove("a")
    assert list(rows_of(begin(folder, "c"))) == ["c", "d"]
    assert "b is forgotten: it was failed, and its file is removed" in caplog.text


def test_another_recipe_is_noted_and_no_more_once_it_is_the_same(folder, caplog):
    write(folder, finished(folder, "a", notes=["odd"]))
    other = recipe_from({**RECIPE.model_dump(), "ingest": {"bin": 2}, "source": {"axes": "yzx"}})
    for _ in range(2):
        journal = begin(folder, "c", recipe=other)
        assert rows_of(journal)["a"]["notes"] == [
            "made with another recipe than recipe.yaml: source.axes, ingest.bin differ; its own is "
            "in its manifest.json",
            "odd",
        ]
        assert "made with another recipe" in page_of(journal)
    assert caplog.messages[0].endswith(
        "ingest.bin differ; its own is in its manifest.json; to work by that one, "
        f"give -r {folder}/a/manifest.json"
    )
    assert rows_of(begin(folder, "c"))["a"]["notes"] == ["odd"]


def test_where_blocks_ran_is_no_other_recipe_and_another_network_is(folder):
    write(folder, finished(folder, "a"), finished(folder, "b"))
    manifest = folder.read_json("b/manifest.json")
    folder.write_json("b/manifest.json", {**manifest, "networks": [{"name": "old"}]})
    elsewhere = recipe_from({**RECIPE.model_dump(), "compute": {"threads": 2}})
    rows = rows_of(begin(folder, "c", recipe=elsewhere))
    assert rows["a"]["notes"] == []
    assert "the network differs" in rows["b"]["notes"][0]


def test_a_key_that_an_earlier_version_did_not_have_is_no_difference(folder):
    write(folder, finished(folder, "a"))
    manifest = folder.read_json("a/manifest.json")
    del manifest["recipe"]["ingest"]
    folder.write_json("a/manifest.json", manifest)
    assert rows_of(begin(folder, "c"))["a"]["notes"] == []


def test_a_damaged_journal_is_told(folder, caplog):
    write(folder, finished(folder, "a"))
    folder.write("session.json", b'{"tomograms": [{"na')
    assert list(rows_of(begin(folder, "c"))) == ["c"]
    assert "session.json cannot be read" in caplog.text
    assert "run them again" in caplog.text


def test_the_recipe_names_all_tomograms_of_the_session(tmp_path, folder):
    (tmp_path / "in").mkdir()
    home = (tmp_path / "in").as_uri()
    rows = [
        {**finished(folder, name), "url": f"{place}/{name}.mrc"}
        for name, place in (("a", home), ("b", f"{home}/../elsewhere"), ("TS_1", home))
    ]
    write(folder, *rows)

    def inputs(*given):
        session = RECIPE.session.model_copy(update={"input": given})
        begin(folder, "c", recipe=RECIPE.model_copy(update={"session": session}), home=home)
        (tmp_path / "recipe.yaml").write_bytes(folder.read("recipe.yaml"))
        return load_recipe(tmp_path / "recipe.yaml").session.input

    home, there = str(tmp_path / "in"), str(tmp_path / "elsewhere" / "b.mrc")
    assert inputs(f"{home}/c.mrc") == (f"{home}/c.mrc", f"{home}/a.mrc", there, f"{home}/TS_1.mrc")
    write(folder, *rows)
    assert inputs(home) == (home, there)
    write(folder, *rows)
    assert inputs(f"{home}/TS_*.mrc") == (f"{home}/TS_*.mrc", f"{home}/a.mrc", there)


def test_a_recipe_that_nobody_could_read_names_folders(folder, tmp_path, caplog):
    home = tmp_path / "in"
    files = tuple(str(home / f"{'x' * 60}_{n:05d}.mrc") for n in range(2000))
    session = RECIPE.session.model_copy(update={"input": files})
    begin(folder, "c", recipe=RECIPE.model_copy(update={"session": session}))
    text = folder.read("recipe.yaml").decode()
    assert len(text) < LARGEST_CHARACTERS
    assert recipe_from(load(text, tmp_path)).session.input == (str(home),)
    assert "instead of 2000 files" in caplog.text


def load(text, tmp_path):
    (tmp_path / "read.yaml").write_text(text)
    return load_recipe(tmp_path / "read.yaml").model_dump()


def test_attempts_are_kept_and_a_killed_run_leaves_its_word(folder):
    journal = begin(folder, "a", "b")
    journal.note({"name": "a", "state": "running"})
    journal.note({"name": "a", "state": "failed", "stage": "trace", "error": "e", "remedy": "r"})
    journal.note({"name": "b", "state": "running"})
    sign = (datetime.now(UTC) + timedelta(minutes=1)).isoformat(timespec="seconds")
    values = {"work": "segment predict", "done": 1, "number": 2, "at": sign}
    folder.write_json(f"b/{PROGRESS}", values)
    again = begin(folder, "a")
    failed, died = again.history.attempts
    assert (failed.state, failed.stage, failed.error, failed.remedy) == (
        "failed",
        "trace",
        "e",
        "r",
    )
    assert (died.tomogram, died.state, died.finished) == ("b", "died", sign)
    again.note({"name": "a", "state": "running"})
    again.note({"name": "a", "state": "done"})
    states = [(one.tomogram, one.state) for one in History.read(folder).attempts]
    assert states == [("a", "failed"), ("b", "died"), ("a", "done")]
    note_trouble(folder, ResourceError("no workers"), datetime.now(UTC), is_refusal=False)
    assert folder.read_json(ATTEMPTS)["attempts"][-1]["error"] == "no workers"


def test_a_run_that_is_stopped_in_order_leaves_nothing_running(folder):
    """Unless another run holds the output by then: what that one wrote stays."""

    def lost():
        raise ClaimError("taken over")

    for check, state in ((lost, "running"), (lambda: None, "waiting")):
        journal = begin(folder, "a")
        journal.note({"name": "a", "state": "running"})
        with pytest.raises(SystemExit), journal.stopping(check):
            raise SystemExit(143)
        row = rows_of(journal)["a"]
        assert row.pop("started", "") == "" or state == "running"
        assert row == {"name": "a", "url": "memory://in/a.mrc", "state": state}
    assert [one.state for one in History.read(folder).attempts] == ["died", "stopped"]


def test_what_is_told_is_of_this_run():
    rows = [
        {"name": name, "state": state}
        for name, state in (("a", "done"), ("b", "failed"), ("c", "failed"), ("d", "waiting"))
    ]
    assert summarise({"tomograms": rows}, {"a"}) == (
        "1 of 1 tomograms done (with those of earlier runs 1 of 4)", []
    )  # fmt: skip
    said, failed = summarise({"tomograms": rows}, {"a", "b", "c", "d"})
    assert (said, failed) == ("2 of 4 tomograms done, failed: b, c", ["b", "c"])
