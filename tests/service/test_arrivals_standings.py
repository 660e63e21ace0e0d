"""Where a tomogram stands, by what looks saw, what runs did, and the clock."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tomoseg.core.errors import ResourceError
from tomoseg.io.volumes.sources import Found
from tomoseg.service.arrivals import (
    Hindrance,
    Seen,
    SessionWork,
    Sights,
    Standing,
    TomogramWork,
    Trouble,
    find_stands,
    iso,
    observe,
    standing_of,
    trouble_after,
)

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
FOUND = Found("a", "file:///in/a.mrc")


def at(seconds):
    return NOON + timedelta(seconds=seconds)


SEEN = Seen(FOUND.url, 10, "v1", iso(at(0)), iso(at(0)), complete=iso(at(30)))
WORKED = TomogramWork(
    10, "v1", "r1", "failed", 1, iso(at(0)), iso(at(30)), iso(at(40)), iso(at(50)), "broke", "Fix."
)  # fmt: skip


def looks(*steps, settle_seconds=30, incomplete=lambda age: ""):
    """Return what is known after each (second, size)."""
    seen, all_seen = None, []
    for second, size in steps:
        seen = observe(
            seen, FOUND, (size, f"v{size}"), at(second),
            settle_seconds=settle_seconds, incomplete=incomplete,
        )  # fmt: skip
        all_seen.append(seen)
    return all_seen


def test_a_file_is_complete_when_it_has_not_changed_for_long_enough():
    first, soon, then, later = looks((0, 10), (5, 10), (30, 10), (90, 10))
    assert first == soon == Seen(FOUND.url, 10, "v10", iso(at(0)), iso(at(0)))
    assert then == later == replace(first, complete=iso(at(30)))


def test_a_file_that_grows_is_not_complete():
    grown = looks((0, 10), (60, 20), (120, 30), (140, 30), (150, 30))
    assert [bool(seen.complete) for seen in grown] == [False, False, False, False, True]
    assert [seen.changed for seen in grown[1:]] == [iso(at(s)) for s in (60, 120, 120, 120)]
    assert grown[-1].first_seen == iso(at(0))


def test_a_file_that_is_replaced_begins_anew():
    *_, complete, other = looks((0, 10), (60, 10), (70, 11))
    assert complete.complete
    assert not other.complete
    assert (other.first_seen, other.changed) == (iso(at(0)), iso(at(70)))


def test_a_file_that_comes_back_goes_on_as_it_was():
    (seen,) = looks((0, 10))
    back = observe(
        replace(seen, gone=iso(at(10))), FOUND, (10, "v10"), at(40),
        settle_seconds=30, incomplete=lambda age: "",
    )  # fmt: skip
    assert back == replace(seen, complete=iso(at(40)))


def test_what_is_incomplete_is_asked_for_again_until_it_is_not():
    ages = []

    def incomplete(age):
        ages.append(age.total_seconds())
        return "half" if age < timedelta(seconds=100) else ""

    *_, waiting, given_up, settled = looks(
        (0, 10), (10, 10), (40, 10), (100, 10), (200, 10), incomplete=incomplete
    )
    assert (waiting.waits, waiting.complete) == ("half", "")
    assert given_up == settled == replace(waiting, waits="", complete=iso(at(100)))
    assert ages == [40, 100], "neither before it has settled nor once it is complete"


@pytest.mark.parametrize(
    ("seen", "worked", "second", "expected"),
    [
        (replace(SEEN, complete=""), None, 60, Standing.SETTLING),
        (replace(SEEN, complete="", waits="half"), None, 60, Standing.INCOMPLETE),
        (SEEN, None, 60, Standing.READY),
        (SEEN, replace(WORKED, state="done"), 60, Standing.DONE),
        (SEEN, replace(WORKED, state="done", version="v0"), 60, Standing.READY),
        (SEEN, replace(WORKED, state="done", size=9), 60, Standing.READY),
        (SEEN, replace(WORKED, state="done", recipe="r0"), 60, Standing.READY),
        (SEEN, replace(WORKED, state="refused"), 9999, Standing.SET_ASIDE),
        (SEEN, WORKED, 50 + 59, Standing.RESTING),
        (SEEN, WORKED, 50 + 60, Standing.READY),
        (SEEN, replace(WORKED, attempts=2), 50 + 599, Standing.RESTING),
        (SEEN, replace(WORKED, attempts=2), 50 + 600, Standing.READY),
        (SEEN, replace(WORKED, attempts=3), 99999, Standing.SET_ASIDE),
        (SEEN, replace(WORKED, attempts=3, recipe="r0"), 60, Standing.READY),
        (replace(SEEN, again=iso(at(60))), replace(WORKED, attempts=3), 60, Standing.READY),
        (replace(SEEN, again=iso(at(20))), replace(WORKED, attempts=3), 60, Standing.SET_ASIDE),
        (SEEN, replace(WORKED, state="spared", attempts=0), 50, Standing.READY),
        (SEEN, replace(WORKED, state="spared", attempts=0, spared=1), 50 + 59, Standing.RESTING),
        (SEEN, replace(WORKED, state="spared", attempts=0, spared=9), 50 + 600, Standing.READY),
        (replace(SEEN, gone=iso(at(55))), None, 60, Standing.GONE),
        (replace(SEEN, gone=iso(at(55))), WORKED, 9999, Standing.GONE),
        (replace(SEEN, gone=iso(at(55))), replace(WORKED, state="spared"), 60, Standing.GONE),
        (replace(SEEN, gone=iso(at(55))), replace(WORKED, state="done"), 60, Standing.DONE),
        (SEEN, replace(WORKED, state="running", finished=""), 41, Standing.READY),
        (SEEN, replace(WORKED, state="running", finished="", attempts=3), 41, Standing.SET_ASIDE),
    ],
)
def test_where_it_stands(seen, worked, second, expected):
    sights = Sights({"a": seen}, recipe="r1", pauses_seconds=(60.0, 600.0))
    work = SessionWork({} if worked is None else {"a": worked})
    assert find_stands(sights, work, at(second))["a"].standing == expected


def test_it_runs_while_somebody_is_at_work():
    running = replace(WORKED, state="running", finished="")
    where = [
        standing_of(SEEN, running, at(500), pauses_seconds=(60,), is_at_work=is_at_work)
        for is_at_work in (True, False)
    ]
    assert where == [Standing.RUNNING, Standing.READY]


def test_troubles_in_a_row_are_counted_a_recipe():
    full = ResourceError("the disk is full", remedy="Free space.")
    first = trouble_after(None, full, "r1", at(0))
    second = trouble_after(first, full, "r1", at(60))
    assert (first.number, second.number) == (1, 2)
    assert second == Trouble(
        "r1", iso(at(60)), "the disk is full", "Free space.", 2, since=iso(at(0))
    )
    assert trouble_after(second, full, "r2", at(90)).number == 1


def test_the_state_outlasts_its_writer(folder):
    assert (Sights.read(folder), SessionWork.read(folder)) == (Sights(), SessionWork())
    hindered = (Hindrance("gone", "in is not there", "", iso(at(2))),)
    sights = Sights({"a": SEEN}, iso(at(1)), "r1", (60.0, 600.0), hindrances=hindered)
    work = SessionWork({"a": WORKED})
    sights.write(folder)
    work.write(folder)
    assert (Sights.read(folder), SessionWork.read(folder)) == (sights, work)
    troubled = SessionWork({"a": WORKED}, trouble_after(None, ResourceError("full"), "r1", at(0)))
    troubled.write(folder)
    assert SessionWork.read(folder) == troubled
