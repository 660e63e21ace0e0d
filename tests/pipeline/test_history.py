"""Attempts: a success erases no reason, a killed run leaves its word, and what is asked is told."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from tomoseg import cli
from tomoseg.core.errors import RequestError, ResourceError
from tomoseg.core.layout import ATTEMPTS
from tomoseg.pipeline.history import MOST, Attempt, History, since_when, totals

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)
FAILED = {"state": "failed", "stage": "segment", "error": "out of memory", "remedy": "Take less."}


def at(minutes):
    return NOON + timedelta(minutes=minutes)


def tried(*rows, name="TS_01"):
    """The history after these rows of a tomogram, a minute between two."""
    history = History()
    for minute, row in enumerate(rows):
        history = history.noted({"name": name, **row}, "run", at(minute))
    return history


def test_a_success_does_not_erase_what_failed_before_it():
    running = {"state": "running"}
    history = tried(running, FAILED, running, {"state": "done"})
    failed, done = history.attempts
    assert failed == Attempt(
        "TS_01", "2026-11-30T12:00:00+00:00", "run", "2026-11-30T12:01:00+00:00",
        "failed", "segment", "out of memory", "Take less.", 60.0,
    )  # fmt: skip
    assert (done.state, done.started[11:16], done.finished[11:16]) == ("done", "12:02", "12:03")


def test_what_was_found_done_is_no_attempt_and_what_waits_again_was_stopped():
    running = {"state": "running"}
    assert tried(running, {"state": "already there"}).attempts == ()
    (stopped,) = tried(running, {"state": "waiting"}).attempts
    assert stopped.state == "stopped"


def test_a_killed_run_ends_at_its_last_sign_of_life():
    history = tried({"state": "running"}).closed(
        lambda name: f"2026-11-30T12:07:30+00:00{name[:0]}"
    )
    (died,) = history.attempts
    assert (died.state, died.finished, died.seconds) == ("died", "2026-11-30T12:07:30+00:00", 450.0)
    assert "ended without a word" in died.error
    (unknown,) = tried({"state": "running"}).closed(lambda name: "").attempts
    assert (unknown.state, unknown.finished, unknown.seconds) == ("died", unknown.started, 0.0)
    # A sign of an earlier run of the tomogram says nothing of this one.
    (old,) = tried({"state": "running"}).closed(lambda name: "2026-11-29T00:00:00+00:00").attempts
    assert old.finished == old.started


def test_what_stops_a_session_again_and_again_is_one_entry():
    error = ResourceError("the disk is full", remedy="Free some.")
    history = History()
    for minute in (0, 5, 9):
        history = history.stopped(error, "run", at(minute), is_refusal=False)
    (one,) = history.attempts
    assert (one.tomogram, one.state, one.error) == ("", "failed", "the disk is full")
    assert (one.started[11:16], one.finished[11:16]) == ("12:00", "12:09")
    other = history.stopped(ResourceError("no workers"), "run", at(20), is_refusal=True)
    assert [one.state for one in other.attempts] == ["failed", "refused"]


def test_it_is_bounded_in_number_and_age(folder):
    old = Attempt("old", "2025-01-01T00:00:00+00:00", finished="2025-01-01T00:00:00+00:00")
    many = [Attempt(str(n), at(n).isoformat(timespec="seconds")) for n in range(MOST + 5)]
    History((old, *many)).write(folder, NOON)
    kept = History.read(folder).attempts
    assert [kept[0].tomogram, kept[-1].tomogram, len(kept)] == ["5", str(MOST + 4), MOST]
    History((old,)).write(folder, NOON)
    assert History.read(folder).attempts == ()


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"attempts": [1]}', b'{"attempts": [{}]}'])
def test_a_damaged_file_is_told_and_stops_nothing(folder, content, caplog):
    assert History.read(folder) == History()
    assert not caplog.messages
    folder.write(ATTEMPTS, content)
    assert History.read(folder) == History()
    assert "attempts.json cannot be read" in caplog.text


def test_what_failed_comes_first_and_what_ended_before_does_not():
    def ended(name, minute, state):
        return Attempt(name, at(0).isoformat(), finished=at(minute).isoformat(), state=state)

    history = History(
        (ended("a", 1, "failed"), ended("b", 20, "done"), ended("c", 30, "died"),
         ended("d", 40, "done"), Attempt("e", at(41).isoformat()))
    )  # fmt: skip
    assert [one.tomogram for one in history.since(at(10))] == ["c", "d", "b"]
    assert totals(history.since(at(0))) == {"done": 2, "failed": 1, "died": 1}


@pytest.mark.parametrize(
    ("text", "hours"), [("7d", 168), ("12h", 12), ("30min", 0.5), ("2w", 336), (" 1 d", 24)]
)
def test_a_span_is_counted_back(text, hours):
    assert NOON - since_when(text, NOON) == timedelta(hours=hours)


def test_a_date_is_its_midnight_here():
    assert since_when("2026-11-20", NOON) == datetime(2026, 11, 20).astimezone()
    assert since_when("2026-11-20T10:00+02:00", NOON).astimezone(UTC).hour == 8


@pytest.mark.parametrize("text", ["", "7", "-7d", "yesterday", "99999w", "2026-13-01"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(RequestError, match=r"is no time. Say 7d, 12h"):
        since_when(text, NOON)


def test_a_time_to_come_is_refused():
    with pytest.raises(RequestError, match="has not come"):
        since_when("2027-01-01", NOON)


def test_the_command_tells_what_failed_in_which_session(tmp_path, capsys):
    """Also of sessions two folders down, and as JSON."""
    now = datetime.now(UTC)
    for name in ("monday", "krios1/tuesday"):
        place = tmp_path / name
        (place / ".tomoseg").mkdir(parents=True)
        (place / "session.json").write_text('{"started": "", "finished": "", "tomograms": []}')
        ended = (now - timedelta(hours=3 if name == "monday" else 30)).isoformat(timespec="seconds")
        failed = {**FAILED, "tomogram": "TS_01", "started": ended, "finished": ended}
        failed["seconds"] = 90.0
        (place / ATTEMPTS).write_text(json.dumps({"attempts": [failed], "of_another_version": 1}))
    for since, number in (("12h", 1), ("7d", 2)):
        with pytest.raises(SystemExit) as stopped:
            cli.app(["status", str(tmp_path), "--since", since])
        assert stopped.value.code == 0
        head, *lines = capsys.readouterr().out.splitlines()
        assert f"0 done, {number} failed, in 2 sessions" in head
        assert len(lines) == number
    assert lines[-1].startswith("monday: ! 20")
    assert lines[-1].endswith(
        " UTC, TS_01: failed in segment after 1 min 30 s: out of memory. Take less."
    )
    with pytest.raises(SystemExit):
        cli.app(["status", str(tmp_path), "--since", "12h", "--json"])
    said = json.loads(capsys.readouterr().out)
    assert said["totals"] == {"done": 0, "failed": 1}
    assert [len(found) for found in said["sessions"].values()] == [0, 1]
