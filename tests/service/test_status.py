"""Status: one session or all below a folder, and whether their cluster keeps up."""

import json
import re
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tomoseg import cli
from tomoseg.core.errors import RequestError
from tomoseg.io.stores import Folder, Owner, claimed
from tomoseg.pipeline.progress import note_waiting, read_progress
from tomoseg.pipeline.progress import noting_progress as progress_noted
from tomoseg.service.arrivals import Hindrance, Seen, SessionWork, Sights, Trouble
from tomoseg.service.arrivals.presence import announced, presence_here
from tomoseg.service.status import session_status, status_of


def ago(hours):
    """A time some hours before now, and some seconds for the test itself."""
    return (datetime.now(UTC) - timedelta(hours=hours)).isoformat(timespec="seconds")


def journal(folder, rows, finished=""):
    folder.mkdir(parents=True)
    values = {"started": ago(4), "finished": finished, "tomograms": rows}
    (folder / "session.json").write_text(json.dumps(values))


def done(name, started, finished):
    return {"name": name, "state": "done", "started": ago(started), "finished": ago(finished)}


def at_work(folder):
    """Hold an output."""
    return claimed(Folder(str(folder)))


@pytest.fixture
def sessions(tmp_path):
    """Two sessions of one cluster in work, one two folders down; and what is no session.

    Four tomograms in four hours at work, and two still wait.
    """
    first = [done("a", 4, 3), done("b", 3, 2), {"name": "c", "state": "waiting"}]
    second = [
        done("a", 2, 1),
        {"name": "b", "state": "failed", "started": ago(1), "finished": ago(0), "error": "e",
         "remedy": "Copy it again."},
        {"name": "c", "state": "waiting"},
        {"name": "d", "state": "already there", "started": ago(4), "finished": ago(4)},
    ]  # fmt: skip
    journal(tmp_path / "out" / "monday", first)
    journal(tmp_path / "out" / "krios1" / "tuesday", second)
    (tmp_path / "out" / "notes").mkdir()
    (tmp_path / "out" / "notes" / "session.txt").touch()
    with at_work(tmp_path / "out" / "monday"), at_work(tmp_path / "out" / "krios1" / "tuesday"):
        yield tmp_path / "out"


def test_all_sessions_below_a_folder_share_a_capacity(sessions):
    state = status_of(str(sessions))
    assert list(state["sessions"]) == ["krios1/tuesday", "monday"]
    assert state["headline"] == "2 sessions: 4 of 7 tomograms done, 1 failed"
    capacity = state["capacity"]
    assert capacity["finished_per_hour"] == pytest.approx(1, rel=0.01)
    assert capacity["possible_per_hour"] == pytest.approx(1, rel=0.01)
    assert capacity["backlog"] == 2
    finish = datetime.fromisoformat(capacity["predicted_finish"]) - datetime.now(UTC)
    assert finish.total_seconds() == pytest.approx(2 * 3600, abs=120)
    # When files came is not known, so neither is whether it keeps up.
    assert capacity["arriving_per_hour"] is capacity["is_keeping_up"] is None
    assert "2 to do, done at about 20" in capacity["say"]
    assert state["is_well"] is False, "one failed"


def test_one_session_has_its_own(sessions):
    state = status_of(str(sessions / "monday"))
    assert state.keys() == session_status(str(sessions / "monday")).keys()
    assert state["capacity"]["backlog"] == 1
    assert [row["name"] for row in state["tomograms"]] == ["a", "b", "c"]


def test_a_folder_of_none_is_refused(tmp_path):
    with pytest.raises(RequestError, match="there is no session in"):
        status_of(str(tmp_path))


def test_the_command_says_it_in_lines_and_as_json(sessions, capsys):
    for option, place in (((), sessions), (("--json",), sessions), ((), sessions / "monday")):
        with pytest.raises(SystemExit) as ended:
            cli.app(["status", str(place), *option])
        assert ended.value.code == (1 if place == sessions else 0)
    said = capsys.readouterr().out
    lines, rest = said.split("{", 1)
    end = rest.rindex("}") + 1
    head, capacity, *each = lines.strip().splitlines()
    assert head.startswith("2 sessions: ")
    assert capacity.startswith("1 an hour went out, 1 an hour are possible, 2 to do")
    assert [line.split(": ")[0] for line in each] == [
        "krios1/tuesday", "krios1/tuesday/b", "monday",
    ]  # fmt: skip
    assert each[1] == "krios1/tuesday/b: failed - e. Copy it again."
    assert json.loads("{" + rest[:end])["capacity"]["backlog"] == 2
    assert "\nc: waiting\n" in rest[end:]


def test_a_file_that_stays_incomplete_is_told(sessions, capsys):
    """Also where nothing has been processed yet."""
    seen = Seen("file:///in/d.mrc", 10, "v", ago(5), ago(3), waits="the file has 10 bytes, not 20")
    growing = Seen("file:///in/e.mrc", 10, "v", ago(0), ago(0))
    for name in ("monday", "new"):
        Sights({"d": seen, "e": growing}).write(Folder(str(sessions / name)))
    said = {row["name"]: row for row in status_of(str(sessions / "monday"))["tomograms"]}
    assert said["d"]["state"] == "incomplete"
    assert said["d"]["say"] == "unchanged for 3 h 0 min: the file has 10 bytes, not 20"
    assert (said["e"]["state"], said["b"]["state"]) == ("settling", "done")
    new = status_of(str(sessions))["sessions"]["new"]
    told = "0 of 2 tomograms done, 0 failed; 1 settling, 1 incomplete; nothing has begun"
    assert (new["headline"], new["is_well"]) == (told, True)
    with pytest.raises(SystemExit):
        cli.app(["status", str(sessions / "new")])
    assert "d: incomplete - unchanged for 3 h 0 min" in capsys.readouterr().out


def test_files_that_are_no_tomograms_are_told(sessions, capsys):
    """As a run wrote them down; where a watch looks, as it saw them last."""
    place = sessions / "monday" / "session.json"
    values = json.loads(place.read_text())
    values["left_out"] = {f"file:///in/{n:02}.st": "a tilt series" for n in range(9)}
    place.write_text(json.dumps(values))
    said = session_status(str(sessions / "monday"))["left_out"]
    assert said.startswith("9 files left out: 00.st (a tilt series), ")
    assert " and 3 more; to process one as a tomogram, name the file itself" in said
    Sights(left_out={"file:///in/a_mask.mrc": "a mask"}).write(Folder(str(sessions / "new")))
    with pytest.raises(SystemExit):
        cli.app(["status", str(sessions)])
    lines = capsys.readouterr().out.splitlines()
    assert f"monday: {said}" in lines
    assert (
        "new: 1 file left out: a_mask.mrc (a mask); rename what is a tomogram all the same" in lines
    )
    with pytest.raises(SystemExit):
        cli.app(["status", str(sessions / "monday")])
    assert said in capsys.readouterr().out.splitlines()


def test_a_running_tomogram_says_how_far_it_is_and_a_finished_one_what_was_noted(tmp_path):
    noted = {**done("a", 2, 1), "notes": ["no filament"], "blocks": {"all": 1, "skipped": {}}}
    journal(tmp_path / "out", [noted, {"name": "b", "state": "running"}])
    folder = Folder(str(tmp_path / "out" / "b"))
    assert read_progress(folder) is None
    now, told = [0.0], []
    tell = progress_noted(lambda *each: told.append(each), folder, lambda: now[0])
    for blocks in (0, 1, 2):
        tell("b", "segment predict", blocks, 9)
    assert read_progress(folder).done == 0
    now[0] = 6.0
    tell("b", "segment predict", 3, 9)
    assert len(told) == 4
    with at_work(tmp_path / "out"):
        first, second = session_status(str(tmp_path / "out"))["tomograms"]
    assert first["say"] == "no filament"
    assert second["say"].startswith("segment predict, 3 of 9 blocks at 20")
    note_waiting(folder, "nobody works on them")
    begun = read_progress(folder)
    note_waiting(folder, "nobody works on them")
    assert read_progress(folder) == begun, "it says since when"
    assert str(begun).endswith("; nobody works on them")
    note_waiting(Folder(str(tmp_path / "out" / "c")), "nothing was begun")
    assert not (tmp_path / "out" / "c").exists()
    now[0] = 12.0
    tell("b", "segment predict", 3, 9)
    assert read_progress(folder).waits == ""
    # It does not run any more when nobody is at work.
    dead = session_status(str(tmp_path / "out"))
    told = "its run ended without a word: segment predict, 3 of 9 blocks at 20"
    assert dead["tomograms"][1]["state"] == "stopped"
    assert dead["tomograms"][1]["say"].startswith(told)
    assert dead["tomograms"][1]["say"].endswith(". Run it again.")
    assert (dead["is_well"], dead["capacity"]["is_moving"]) == (False, False)
    assert "nobody is at work: run it again" in dead["headline"]


def watched(root, **others):
    """Write what a watch that looked just now says of itself."""
    output = f"{root.url}/{{session}}"
    presence = presence_here("w", ("in/*",), output, seconds_between_looks=30.0, session_runs=1)
    return announced(replace(presence, **{"looked": ago(0), **others}), [])


def test_a_session_that_waits_for_its_turn_does_not_stand_still(tmp_path):
    """Its watch's file says which sessions are beside it, and when the last look was."""
    root = Folder(str(tmp_path / "out"))
    watch = watched(root).url
    seen = Seen("file:///in/a.mrc", 10, "v", ago(2), ago(2), complete=ago(1))
    for name in ("krios/mine", "other", "krios/other"):
        Sights({"a": seen}, recipe="r", watch=watch).write(root / name)
    with at_work(tmp_path / "out" / "other"):
        waits = session_status(str(tmp_path / "out" / "krios" / "mine"))
    assert (waits["standstill"], waits["is_well"]) == (None, True)
    still = session_status(str(tmp_path / "out" / "krios" / "mine"))
    assert "krios/mine/a, krios/other/a, other/a wait" in still["standstill"]["say"]
    assert still["is_well"] is False
    assert still["capacity"]["say"].startswith("stands still: ")
    watched(root, looked=ago(1))
    unseen = status_of(str(tmp_path / "out"))["standstill"]
    assert unseen["say"].startswith("no watch has looked since ")


def test_nothing_is_predicted_of_a_run_that_ended_before_its_time(tmp_path):
    """Though another session of that folder is finished."""
    rows = [done("a", 4, 3), done("b", 3, 2)]
    journal(tmp_path / "over", rows, finished=ago(2))
    journal(tmp_path / "cut", [*rows, {"name": "c", "state": "waiting"}])
    for place, is_held in (("cut", False), (".", False), (".", True)):
        with at_work(tmp_path / "cut") if is_held else nullcontext():
            capacity = status_of(str(tmp_path / place))["capacity"]
        assert capacity["say"].startswith("stands still: ") != is_held
        assert (capacity["predicted_finish"] is not None) == is_held


def test_a_full_disk_lets_nothing_be_predicted_and_says_what_is_free_now(tmp_path):
    seen = Seen("file:///in/a.mrc", 10, "v", ago(2), ago(2), complete=ago(1))
    output = Folder(str(tmp_path / "s1"))
    Sights({"a": seen}, recipe="r", pauses_seconds=(60.0, 600.0)).write(output)
    full = Trouble(
        "r", ago(0), "3 GB are needed, 1 GB are free", "Free space.", 4, is_full=True, since=ago(1)
    )
    SessionWork(trouble=full).write(output)
    state = session_status(str(output))
    assert [row["state"] for row in state["tomograms"]] == ["resting"]
    assert (state["is_well"], state["failed"]) == (False, 0)
    assert state["standstill"]["since"] == full.since
    assert state["capacity"]["is_moving"] is False
    (told,) = state["hindrances"]
    assert re.search(r"1 GB are free\. Free space\. Free there now: [\d.e+]+ GB\.$", told["line"])
    assert state["free_bytes"] > 0


def test_what_is_wrong_with_a_watch_is_told_where_its_outputs_are(tmp_path, capsys):
    """Also where its pattern has never matched anything."""
    gone = Hindrance("gone", "in/* matches nothing", "Mount it.", ago(1))
    watched(Folder(str(tmp_path)), warnings=(gone,))
    with pytest.raises(SystemExit) as ended:
        cli.app(["status", str(tmp_path)])
    assert ended.value.code == 1
    said = capsys.readouterr().out
    assert "the watch: gone since " in said
    assert "(1 h 0 min): in/* matches nothing. Mount it." in said


def test_what_a_watch_said_that_has_ended_is_old(tmp_path):
    root = Folder(str(tmp_path))
    journal(tmp_path / "s1", [done("a", 4, 3)], finished=ago(3))
    gone = Hindrance("gone", "in/* matches nothing", "Mount it.", ago(5))
    for looked, is_told in ((0, True), (2, False)):
        owner = replace(Owner.here(2.0), is_released=True)
        watched(root, warnings=(gone,), looked=ago(looked), owner=owner)
        state = status_of(str(tmp_path))
        assert (bool(state["hindrances"]), state["is_well"]) == (is_told, not is_told)
