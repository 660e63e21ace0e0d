"""Status: one session or all below a folder, and whether their cluster keeps up."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from tomoseg import cli
from tomoseg.arrivals import Seen, Sights
from tomoseg.capacity import Times
from tomoseg.errors import RequestError
from tomoseg.stages.progress import noted as progress_noted
from tomoseg.stages.progress import read_progress
from tomoseg.status import session_status, status_of, tomogram_times
from tomoseg.stores import Folder


def ago(hours):
    """A time some hours before now, and some seconds for the test itself."""
    return (datetime.now(UTC) - timedelta(hours=hours)).isoformat(timespec="seconds")


def journal(folder, rows, finished=""):
    folder.mkdir(parents=True)
    values = {"started": ago(4), "finished": finished, "tomograms": rows}
    (folder / "session.json").write_text(json.dumps(values))


def done(name, started, finished):
    return {"name": name, "state": "done", "started": ago(started), "finished": ago(finished)}


@pytest.fixture
def sessions(tmp_path):
    """Two sessions of one cluster, one of them two folders down; and what is no session.

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
    return tmp_path / "out"


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
    assert [line.split(": ")[0] for line in each] == ["krios1/tuesday", "monday"]
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
    assert "e" not in said
    new = status_of(str(sessions))["sessions"]["new"]
    assert new["headline"] == "0 of 1 tomograms done, 0 failed; nothing has begun"
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
    first, second = session_status(str(tmp_path / "out"))["tomograms"]
    assert first["say"] == "no filament"
    assert second["say"].startswith("segment predict, 3 of 9 blocks at 20")


def test_times_are_those_of_the_journal(sessions):
    a, _, c = tomogram_times(Folder(str(sessions / "monday")), "monday")
    assert (a.name, a.state) == ("monday/a", "done")
    assert a.finished - a.started == timedelta(hours=1)
    assert c == Times("monday/c", "waiting")
