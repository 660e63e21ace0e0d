"""What watches say of themselves beside the outputs."""

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

import pytest

from tomoseg.core.layout import WATCHES
from tomoseg.service.arrivals import Hindrance
from tomoseg.service.arrivals.presence import (
    Known,
    announced,
    home,
    presence_here,
    presences,
    read_presence,
    said_others,
)


@pytest.fixture
def mine(folder):
    return watch_of(folder, "/a/watch.yaml")


def watch_of(folder, file):
    return presence_here(
        file,
        ("file:///in/*",),
        f"{folder.url}/{{session}}",
        seconds_between_looks=60,
        session_runs=2,
    )


def elsewhere(presence, *, minutes=0.0, host="other"):
    """Return the presence as of a process of another host, last seen some minutes ago."""
    seen = (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat()
    owner = replace(presence.owner, host=host, processes="", pid=7, seen=seen)
    return replace(presence, owner=owner)


def test_it_comes_back_as_it_was_written(folder, mine):
    told = replace(
        mine,
        looked="2026-11-21T12:00:00+00:00",
        places={"s1": Known("file:///in/s1"), "s2": Known("file:///in/s2", "2026-11-21T12:00:00")},
        warnings=(Hindrance("gone", "in/* finds nothing", "", "2026-11-21T12:00:00"),),
    )
    written = announced(told, [])
    assert written == told
    assert presences(folder) == [told]
    assert read_presence(told.url) == told
    assert told.url.startswith(f"{folder.url}/{WATCHES}/")
    assert (told.is_alive, told.is_here) == (True, True)
    assert json.loads(folder.read(told.url.removeprefix(f"{folder.url}/")))["session_runs"] == 2


@pytest.mark.parametrize(
    ("output", "place"),
    [
        ("file:///out/{session}", "/out"),
        ("file:///out/x-{session}/results", "/out"),
        ("s3://bucket/{session}", "s3://bucket"),
        ("file:///out/s1", "/out/s1"),
    ],
)
def test_it_stands_where_all_outputs_lie(output, place):
    assert str(home(output)) == place


@pytest.mark.parametrize(
    ("seconds_between", "silent_minutes", "is_alive"),
    [(60, 2.5, True), (60, 3.5, False), (1, 1.9, True), (1, 2.1, False), (600, 29, True)],
)
def test_a_watch_that_does_not_look_any_more_is_dead(
    mine, seconds_between, silent_minutes, is_alive
):
    slow = presence_here(
        mine.file, (), mine.output, seconds_between_looks=seconds_between, session_runs=1
    )
    assert elsewhere(slow, minutes=silent_minutes).is_alive == is_alive


def test_who_only_looks_is_not_the_watch(folder, mine):
    serving = replace(mine, looked="2026-11-21T12:00:00+00:00")
    # Its process is another one of this host: the first of all always runs.
    serving = replace(serving, owner=replace(serving.owner, pid=1, processes=""))
    announced(serving, [])
    glance = announced(
        replace(mine, looked="2026-11-21T12:00:30+00:00", places={"s1": Known("file:///in/s1")}),
        presences(folder),
    )
    assert (glance.owner, glance.looked) == (serving.owner, serving.looked)
    assert presences(folder)[0].places == {"s1": Known("file:///in/s1")}


def test_a_watch_that_follows_a_dead_one_removes_its_file(folder, mine):
    for other in (
        elsewhere(mine, minutes=60, host="before"),
        elsewhere(watch_of(folder, "/b.yaml"), minutes=60, host="b"),
        elsewhere(watch_of(folder, "/c.yaml"), minutes=8 * 24 * 60, host="c"),
        elsewhere(mine, host="twin"),
    ):
        folder.write_json(other.url.removeprefix(f"{folder.url}/"), asdict(other))
    announced(mine, presences(folder))
    assert {(one.owner.host, one.file) for one in presences(folder)} == {
        (mine.owner.host, "/a/watch.yaml"), ("b", "/b.yaml"), ("twin", "/a/watch.yaml"),
    }  # fmt: skip


def test_a_second_watch_says_who_else_serves(folder, mine):
    other = elsewhere(watch_of(folder, "/b/watch.yaml"))
    dead = elsewhere(watch_of(folder, "/c/watch.yaml"), minutes=60)
    apart = elsewhere(watch_of(folder / "apart", "/d/watch.yaml"))
    (said,) = said_others(mine, [other, dead, apart, mine])
    assert "@other, process 7" in said
    assert "with /b/watch.yaml for file:///in/*" in said
    twin = replace(mine, owner=replace(mine.owner, pid=1, processes=""))
    (said,) = said_others(mine, [twin])
    assert said.startswith("this watch runs already: ")


@pytest.mark.parametrize(
    "content",
    [
        b"", b"[]", b"{}", b'{"owner": {}}', b'{"owner": 3, "looked": ""}',
        b'{"owner": {"began": "yesterday"}, "looked": ""}',
    ],
)  # fmt: skip
def test_a_file_that_is_not_sound_is_no_watch(folder, content):
    folder.write(f"{WATCHES}/odd.json", content)
    folder.write(f"{WATCHES}/note.txt", content)
    assert presences(folder) == []
