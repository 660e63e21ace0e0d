"""A standstill is told within two looks, with since when and what to look at; nothing else is."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tomoseg.core.layout import PROGRESS
from tomoseg.io.stores import claimed
from tomoseg.pipeline.progress import PassProgress
from tomoseg.service.arrivals import (
    Account,
    Hindrance,
    Looks,
    Seen,
    SessionWork,
    Sights,
    TomogramWork,
    Trouble,
    account_of,
    iso,
    looks_of,
    standstill,
)
from tomoseg.service.arrivals.presence import announced, presence_here
from tomoseg.service.arrivals.words import tell_hindrance

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
EVERY = Looks(60.0)


def at(seconds):
    return NOON + timedelta(seconds=seconds)


def seen(complete=0, **others):
    return Seen("file:///in/a.mrc", 10, "v1", iso(NOON), iso(NOON), iso(at(complete)), **others)


def worked(state="done", finished=0, attempts=1):
    return TomogramWork(
        10, "v1", "r1", state, attempts, iso(NOON), iso(NOON), iso(at(finished - 10)),
        iso(at(finished)) if state != "running" else "", "broke" if state == "failed" else "",
    )  # fmt: skip


def account(folder, now, tomograms=None, work=None, trouble=None, **sights):
    """The account at a second of a session, by what looks and runs know of its tomograms."""
    rows = {"a": seen()} if tomograms is None else tomograms
    return account_of(
        folder,
        Sights(rows, recipe="r1", pauses_seconds=(60.0, 600.0), **sights),
        SessionWork(work or {}, trouble),
        at(now),
    )


def still(now, *accounts, looks=EVERY):
    return standstill({f"s{n}": one for n, one in enumerate(accounts)}, at(now), looks)


def test_what_is_ready_and_in_nobodys_hands_is_told_by_the_second_look(folder):
    assert still(0, account(folder, 0)) is None
    # Looks come a moment early or late.
    assert still(61, account(folder, 61)) is None
    found = still(119, account(folder, 119))
    assert found.since == iso(NOON)
    assert found.say == "nothing is in work since 12:00 UTC (1 min 59 s), and s0/a wait"
    assert "RUNNING or PENDING" in found.remedy
    # With looks five minutes apart, a while later.
    assert still(299, account(folder, 299), looks=Looks(300.0)) is None


def test_the_turn_of_another_session_is_none(folder):
    waits = account(folder, 999)
    with claimed(folder / "s1"):
        work = account(folder / "s1", 999)
    assert work.owner is not None
    assert still(999, waits, replace(work, moved=iso(at(990)))) is None
    # When it has ended, the next look may give the other its turn.
    over = account(folder / "s1", 999, work={"a": worked(finished=950)})
    assert still(999, waits, over) is None
    assert still(1060, waits, over).since == iso(at(950))


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        ({"tomograms": {}}, "there is nothing"),
        ({"work": {"a": worked()}}, "all is done"),
        ({"work": {"a": worked("refused")}}, "it is set aside"),
        ({"work": {"a": worked("failed", 9990)}}, "it rests after a failure"),
        ({"tomograms": {"a": replace(seen(), complete="")}}, "it may still grow"),
        ({"tomograms": {"a": seen(gone=iso(at(5)))}}, "its file is gone"),
        ({"hindrances": (Hindrance("paused", "", "", iso(NOON)),)}, "a person lets it wait"),
        ({"hindrances": (Hindrance("recipe", "", "", iso(NOON)),)}, "its recipe is wrong"),
        ({"trouble": Trouble("r1", iso(NOON), "", "", is_refusal=True)}, "its model is missing"),
        ({"hindrances": (Hindrance("unreadable", "", "", iso(NOON)),)}, "it has two of one name"),
        ({"free_since": iso(at(9990))}, "its recipe was mended just now"),
        ({"tomograms": {"a": seen(again=iso(at(9990)))}}, "it was asked for just now"),
        ({"work": {"a": worked("failed", 9930)}}, "its rest was over just now"),
    ],
)
def test_what_waits_for_something_else_is_none(folder, known, reason):
    assert still(9999, account(folder, 9999, **known)) is None, reason


def test_what_stops_every_run_is_one_from_its_first_time_on(folder):
    """A full disk, tried every ten minutes: a try ends nothing, and neither does its rest."""
    full = Trouble("r1", iso(at(600)), "the disk is full", "Free space.", 3, since=iso(at(30)))
    for now in (601, 1199, 1201):
        found = still(now, account(folder, now, trouble=full))
        assert found.since == iso(at(30))
        assert found.say.endswith(": s0: the disk is full")
        assert found.remedy == "Free space."
    with claimed(folder):
        assert still(1201, account(folder, 1201, trouble=full)).since == iso(at(30))
        running = {"a": worked("running", 1210)}
        with_one = account(folder, 1202, trouble=full, work=running)
    assert still(1202, with_one) is None, "it is in work again"


def test_where_nobody_looks_any_more_it_is_told_after_three_looks(folder):
    for tomograms in ({"a": replace(seen(), complete="")}, {"a": seen()}):
        waits = account(folder, 1200, tomograms)
        last = Looks(60.0, iso(at(1000)))
        assert still(1180, replace(waits, moved=iso(at(1170))), looks=last) is None
        found = still(1200, waits, looks=last)
        assert found.since == iso(at(1000))
        assert found.say == "no watch has looked since 12:16 UTC (3 min 20 s)"
    done = account(folder, 1200, work={"a": worked()})
    assert still(1200, done, looks=last) is None


def test_a_run_that_ends_no_block_is_told_after_ten_minutes(folder):
    running = {"a": worked("running", 10)}
    progress = PassProgress("segment predict", 3, 9, iso(at(500)))
    with claimed(folder):
        begun = account(folder, 0, work=running)
        assert begun.moved == begun.owner.began, "before it has told anything"
        # Its owner began now, by the clock of the machine: as if that were noon.
        (folder / "a").write_json(PROGRESS, vars(progress) | {"at": "2999-01-01T00:00:00+00:00"})
        assert account(folder, 0, work=running).moved.startswith("2999")
    slow = replace(begun, moved=progress.at)
    assert still(500 + 600, slow) is None
    found = still(500 + 601, slow)
    assert found.since == progress.at
    assert found.say.startswith("s0 is in work, but no block was done since 12:08 UTC (10 min 1 s)")
    assert f"process {begun.owner.pid}" in found.remedy
    assert still(9999, replace(slow, owner=None, stands={})) is None


def test_a_run_that_says_that_nobody_works_on_its_blocks_is_told_at_once(folder):
    running = {"a": worked("running", 10)}
    waits = replace(
        PassProgress("segment predict", 3, 9, iso(at(500))),
        waits="there is no worker that takes the blocks", waits_since=iso(at(530)),
    )  # fmt: skip
    with claimed(folder):
        (folder / "a").write_json(PROGRESS, vars(waits))
        found = still(540, account(folder, 540, work=running))
        assert found.since == iso(at(530))
        assert found.say == (
            "s0/a is in work, but there is no worker that takes the blocks since 12:08 UTC (10.0 s)"
        )
        assert "workers" in found.remedy
        (folder / "a").write_json(PROGRESS, vars(replace(waits, waits="", waits_since="")))
        assert still(540, account(folder, 540, work=running)) is None


def test_the_file_of_a_watch_says_how_often_it_looks(folder):
    assert looks_of("") == looks_of(f"{folder.url}/.tomoseg/watches/none.json") == Looks(60.0, "")
    output = f"{folder.url}/{{session}}"
    presence = presence_here("w.yaml", ("in/*",), output, seconds_between_looks=5.0, session_runs=1)
    written = announced(replace(presence, looked=iso(NOON)), [])
    assert looks_of(written.url) == Looks(5.0, iso(NOON))


def test_the_free_space_is_measured_when_asked(folder, monkeypatch):
    full = Hindrance(
        "stopped", "3 GB are needed, 1 GB are free", "Free space.", iso(NOON), is_full=True
    )
    for free, said in ((5_250_000_000, "5.25"), (40_000_000_000, "40")):
        monkeypatch.setattr(
            "tomoseg.service.arrivals.words.free_bytes", lambda output, free=free: free
        )
        assert tell_hindrance(full, at(60), folder) == (
            "stopped since 12:00 UTC (1 min 0 s): 3 GB are needed, 1 GB are free. Free space. "
            f"Free there now: {said} GB."
        )


def test_a_wrong_recipe_leaves_what_is_done_and_refuses_what_would_be_begun(folder):
    wrong = (Hindrance("recipe", "modle is not a known key", "Write model.", iso(at(9))),)
    rows = {name: seen() for name in "abc"}
    work = {"a": replace(worked(), recipe="r0"), "b": replace(worked("refused"), recipe="r0")}
    found = account(folder, 99, rows, work, hindrances=wrong)
    assert {name: str(one.standing) for name, one in found.stands.items()} == {
        "a": "done", "b": "set aside", "c": "refused",
    }  # fmt: skip
    assert found.stands["c"].say == "modle is not a known key"
    assert isinstance(found, Account)
