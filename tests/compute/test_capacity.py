"""Capacity: rates, backlog and predicted finish of cases worked out by hand."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tomoseg.compute.monitoring.capacity import Capacity, Times, busy_hours, capacity, times_of

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def ago(hours):
    return None if hours is None else NOW - timedelta(hours=hours)


def tomogram(name, state, complete=None, started=None, finished=None):
    """Times in hours before now."""
    return Times(name, state, ago(complete), ago(started), ago(finished))


def test_a_cluster_that_keeps_up():
    """Five came in an hour apart, half an hour of work each; the last is in work for a quarter."""
    rows = [
        tomogram(str(n), "done", complete=4.25 - n, started=4.25 - n, finished=3.75 - n)
        for n in range(4)
    ]
    rows.append(tomogram("4", "running", complete=0.25, started=0.25))
    found = capacity(rows, NOW, window_hours=6)
    # The first opens the count of arrivals: four more in 4.25 hours.
    assert found.arriving_per_hour == pytest.approx(4 / 4.25)
    assert found.finished_per_hour == pytest.approx(4 / 4.25)
    # Four done in 4 × 0.5 + 0.25 hours at work.
    assert found.possible_per_hour == pytest.approx(4 / 2.25)
    assert (found.backlog, found.oldest_hours) == (1, 0.25)
    assert found.is_keeping_up is True
    assert found.predicted_finish == NOW + timedelta(hours=2.25 / 4)
    assert str(found) == (
        "keeps up: 0.941 tomograms an hour come in, 0.941 an hour went out, 1.78 an hour are "
        "possible, 1 to do, done at about 2026-03-01 12:33 UTC"
    )


def test_a_cluster_that_falls_behind():
    """Twelve came, one each half hour for six hours; each takes an hour, one after the other."""
    rows = []
    for n in range(12):
        complete = 6 - n / 2
        state = "done" if n < 5 else "running" if n == 5 else "waiting"
        started = 6 - n if n <= 5 else None
        rows.append(tomogram(str(n), state, complete, started, 5 - n if n < 5 else None))
    found = capacity(rows, NOW, window_hours=6)
    # The window is open at its begin: the first, just then, is not counted, and is not the opener.
    assert found.arriving_per_hour == pytest.approx(11 / 6)
    assert found.possible_per_hour == pytest.approx(5 / 6)
    assert found.is_keeping_up is False
    assert (found.backlog, found.oldest_hours) == (7, 3.5)
    assert found.predicted_finish == NOW + timedelta(hours=7 / (5 / 6))
    assert str(found).startswith("falls behind: 1.83 tomograms an hour come in")


def test_rates_are_those_of_the_window():
    """What came and went before it counts for nothing, but says that arrivals are not new."""
    old = [tomogram(f"o{n}", "done", 30 - n, 30 - n, 29 - n) for n in range(10)]
    new = [tomogram(f"n{n}", "done", 1.5 - n / 2, 1.5 - n / 2, 1.4 - n / 2) for n in range(3)]
    found = capacity([*old, *new], NOW, window_hours=2)
    assert found.arriving_per_hour == pytest.approx(3 / 2)
    assert found.finished_per_hour == pytest.approx(3 / 2)
    assert found.possible_per_hour == pytest.approx(3 / 0.3)
    assert (found.backlog, found.predicted_finish, found.is_keeping_up) == (0, None, True)


def test_two_at_once_share_the_hour():
    """Four in two hours, in pairs beside each other: two an hour, not one."""
    spans = [(2, 1), (2, 1), (1, 0), (1, 0)]
    rows = [tomogram(str(n), "done", None, *span) for n, span in enumerate(spans)]
    rows += [tomogram(f"w{n}", "waiting") for n in range(4)]
    found = capacity(rows, NOW)
    assert found.possible_per_hour == 2
    assert found.predicted_finish == NOW + timedelta(hours=2)
    # A folder of files: nobody knows when they came.
    assert found.arriving_per_hour is None
    assert found.is_keeping_up is None


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        pytest.param([], Capacity(None, 0.0, None, 0, 0.0, None), id="nothing"),
        pytest.param(
            [tomogram("a", "waiting", 0.5)],
            Capacity(None, 0.0, None, 1, 0.5, None),
            id="one arrival is no rate",
        ),
        pytest.param(
            times_of([{"name": "a", "state": "already there", "started": "x"}]),
            Capacity(None, 0.0, None, 0, 0.0, None),
            id="what was there already is no work",
        ),
    ],
)
def test_little_is_known(rows, expected):
    assert capacity(rows, NOW) == expected


def test_one_that_hangs_lowers_what_is_possible():
    done = tomogram("a", "done", None, 5, 4)
    waits = tomogram("b", "waiting")
    hangs = tomogram("c", "running", None, 4)
    assert capacity([done, waits], NOW).possible_per_hour == 1
    assert capacity([done, waits, hangs], NOW).possible_per_hour == pytest.approx(1 / 5)


def test_nothing_is_predicted_of_what_stands_still_nor_of_what_waits_for_a_person():
    """Two were done in two hours at work, and two wait: an hour each, if only somebody worked."""
    rows = [tomogram(str(n), "done", 3, 3 - n, 2 - n) for n in range(2)]
    rows += [tomogram(str(n), "waiting", 3) for n in (2, 3)]
    rows += [tomogram(state, state, 3) for state in ("paused", "refused", "gone")]
    moving, still = (capacity(rows, NOW, is_moving=is_moving) for is_moving in (True, False))
    assert (moving.backlog, moving.held, still.backlog) == (2, 3, 2)
    assert moving.predicted_finish == NOW + timedelta(hours=2)
    assert (still.predicted_finish, still.is_keeping_up) == (None, False)
    assert str(still).startswith("stands still: ")
    assert str(still).endswith("2 to do, 3 paused, refused or gone")
    assert capacity(rows[:2], NOW, is_moving=False).is_keeping_up is True, "there is nothing to do"


def test_rows_of_a_journal_and_of_a_watch_are_read():
    rows = [
        {"name": "a", "state": "done", "started": "2026-03-01T10:00:00+00:00",
         "finished": "2026-03-01T13:00:00+01:00", "seconds": {"ingest": 2.0}},
        {"name": "b", "state": "refused", "complete": "2026-03-01T12:00:00.250+00:00",
         "started": "", "finished": ""},
        {"name": "c", "state": "set aside"},
    ]  # fmt: skip
    a, b, c = times_of(rows, session="today")
    assert a == Times("today/a", "done", None, ago(2), NOW, {"ingest": 2.0})
    assert b == Times("today/b", "refused", NOW + timedelta(seconds=0.25))
    assert c == Times("today/c", "set aside")
    with pytest.raises(KeyError):
        times_of([{"name": "a", "state": "lost"}])


hours = st.integers(0, 12)


@given(st.lists(st.tuples(hours, hours)), hours, hours)
def test_busy_hours_are_those_that_a_span_covers(spans, begin, end):
    """Spans begin and end on full hours here: each hour is covered or not."""
    covered = {hour for start, stop in spans for hour in range(start, stop)}
    expected = len(covered & set(range(begin, end)))
    at = [NOW + timedelta(hours=hour) for hour in range(13)]
    found = busy_hours([(at[a], at[b]) for a, b in spans], at[begin], at[end])
    assert found == pytest.approx(expected)
