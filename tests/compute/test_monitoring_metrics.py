"""Metrics: what Prometheus reads is what happened, and no name of a tomogram is among it."""

import socket
import sys
import threading
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from tomoseg.compute.devices import VARIABLE, memory_bytes
from tomoseg.compute.monitoring import metrics
from tomoseg.compute.monitoring.capacity import Times
from tomoseg.compute.monitoring.disks import Disks, mount_of
from tomoseg.compute.monitoring.metrics import ADDRESS, DeviceMemory, WorkMetrics
from tomoseg.compute.monitoring.tomograms import LookSeen, SessionSeen, TomogramMetrics
from tomoseg.core.errors import RequestError
from tomoseg.core.events import Scope, Span

BEGAN = datetime(2026, 3, 1, tzinfo=UTC)
LOOKED = BEGAN.timestamp() + 600


def block(name="0-0-0", stage="segment", voxels=1000):
    return Span("block", Scope("run", "session", "secret_tomogram", stage, name), voxels)


@pytest.fixture
def registry():
    return CollectorRegistry()


def test_blocks_are_counted_by_stage(registry):
    worked = WorkMetrics(registry)
    value = registry.get_sample_value
    blocks = [block(str(n)) for n in range(3)]
    for one in blocks:
        worked.began(one)
    assert value("tomoseg_blocks_in_work", {"stage": "segment"}) == 3
    # What may fail is there as 0 before it does: its increase is seen.
    assert value("tomoseg_blocks_total", {"stage": "segment", "outcome": "failed"}) == 0
    worked.ended(blocks[0], 0.15, is_done=True)
    worked.ended(blocks[1], 700.0, is_done=True)
    worked.ended(blocks[2], 1.0, is_done=False)
    assert value("tomoseg_blocks_in_work", {"stage": "segment"}) == 0
    assert value("tomoseg_blocks_total", {"stage": "segment", "outcome": "done"}) == 2
    assert value("tomoseg_blocks_total", {"stage": "segment", "outcome": "failed"}) == 1
    assert value("tomoseg_voxels_total", {"stage": "segment"}) == 2000
    assert value("tomoseg_block_seconds_sum", {"stage": "segment"}) == pytest.approx(700.15)
    assert value("tomoseg_block_seconds_bucket", {"stage": "segment", "le": "0.2"}) == 1
    assert value("tomoseg_block_seconds_bucket", {"stage": "segment", "le": "500.0"}) == 1
    assert value("tomoseg_block_seconds_bucket", {"stage": "segment", "le": "+Inf"}) == 2


def test_a_stage_is_no_block(registry):
    worked = WorkMetrics(registry)
    before = generate_latest(registry)
    for is_done in (True, False):
        stage = Span("stage", Scope(tomogram="secret_tomogram", stage="trace"))
        worked.began(stage)
        worked.ended(stage, 40.0, is_done=is_done)
    assert generate_latest(registry) == before


def test_threads_lose_no_count(registry):
    worked = WorkMetrics(registry)

    def many():
        for _ in range(200):
            one = block()
            worked.began(one)
            worked.ended(one, 0.01, is_done=True)

    threads = [threading.Thread(target=many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done = {"stage": "segment", "outcome": "done"}
    assert registry.get_sample_value("tomoseg_blocks_total", done) == 800
    assert registry.get_sample_value("tomoseg_blocks_in_work", {"stage": "segment"}) == 0


def times(name, state, complete=None, finished=None, **seconds):
    def at(minutes):
        return None if minutes is None else BEGAN + timedelta(minutes=minutes)

    return Times(name, state, at(complete), at(complete), at(finished), seconds)


def found(rows=(), incomplete=(), state="seen", **others):
    """A look that found one session, or what others say."""
    sessions = [SessionSeen("s1", state, rows, incomplete)]
    return LookSeen(**{"sessions": sessions, **others})


def test_tomograms_are_counted_once_however_often_they_are_looked_at(registry):
    watched = TomogramMetrics(registry, BEGAN)
    assert not list(registry.collect())
    old = times("old", "done", -60, -30)
    watched.looked(found([old, times("a", "waiting", 1), times("b", "waiting", 2)]), LOOKED)
    done = times("a", "done", 1, 11, ingest=5.0, segment=400.0)
    after = [old, done, times("b", "set aside", 2, 20)]
    watched.looked(found(after), LOOKED)
    watched.looked(found(after), LOOKED)
    value = registry.get_sample_value
    assert value("tomoseg_tomograms_arrived_total") == 2
    assert value("tomoseg_tomograms_ended_total", {"state": "done"}) == 1
    assert value("tomoseg_tomograms_ended_total", {"state": "failed"}) == 0
    assert value("tomoseg_tomograms_ended_total", {"state": "set aside"}) == 1
    assert value("tomoseg_tomograms", {"state": "done"}) == 2
    assert value("tomoseg_tomograms", {"state": "waiting"}) == 0
    assert value("tomoseg_result_seconds_count") == 1
    assert value("tomoseg_result_seconds_sum") == 600
    assert value("tomoseg_tomogram_stage_seconds_sum", {"stage": "segment"}) == 400
    assert value("tomoseg_queue_age_seconds") == 0
    # New content is a new arrival, and a new result.
    last = [old, times("a", "done", 30, 35), times("b", "set aside", 2, 20)]
    watched.looked(found(last), LOOKED)
    assert value("tomoseg_tomograms_arrived_total") == 3
    assert value("tomoseg_tomograms_ended_total", {"state": "done"}) == 2
    assert value("tomoseg_result_seconds_sum") == 900


def test_the_queue_is_as_old_as_what_waits_longest(registry, monkeypatch):
    watched = TomogramMetrics(registry, BEGAN)
    rows = [times("a", "waiting", 4), times("b", "waiting", 1), times("c", "running", 0)]
    watched.looked(found(rows), LOOKED)
    for minutes in (10, 25):
        now = (BEGAN + timedelta(minutes=minutes)).timestamp()
        monkeypatch.setattr("tomoseg.compute.monitoring.tomograms.time.time", lambda now=now: now)
        # Also if nobody looks any more.
        assert registry.get_sample_value("tomoseg_queue_age_seconds") == (minutes - 1) * 60
    assert registry.get_sample_value("tomoseg_last_look_timestamp_seconds") == LOOKED


def test_what_stays_incomplete_grows_older(registry, monkeypatch):
    watched = TomogramMetrics(registry, BEGAN)
    watched.looked(found((), [BEGAN, BEGAN + timedelta(minutes=3)]), LOOKED)
    now = (BEGAN + timedelta(minutes=90)).timestamp()
    monkeypatch.setattr("tomoseg.compute.monitoring.tomograms.time.time", lambda: now)
    assert registry.get_sample_value("tomoseg_incomplete_age_seconds") == 90 * 60
    watched.looked(found(), LOOKED)
    assert registry.get_sample_value("tomoseg_incomplete_age_seconds") == 0


def test_a_session_that_could_not_be_looked_at_is_not_counted_anew(registry):
    watched = TomogramMetrics(registry, BEGAN)
    rows = [times("a", "done", 1, 11)]
    for each in (rows, [], rows):
        watched.looked(found(each), LOOKED)
    value = registry.get_sample_value
    assert value("tomoseg_tomograms_arrived_total") == 1
    assert value("tomoseg_tomograms_ended_total", {"state": "done"}) == 1
    # What is long past is not remembered, and not counted either.
    for each in ([], rows):
        watched.looked(found(each), LOOKED + timedelta(days=8).total_seconds())
    assert value("tomoseg_tomograms_arrived_total") == 1


def test_no_name_of_a_tomogram_or_a_block_is_shown(registry):
    worked, watched = WorkMetrics(registry), TomogramMetrics(registry, BEGAN)
    for number in range(50):
        one = block(f"secret_block_{number}")
        worked.began(one)
        worked.ended(one, 1.0, is_done=True)
    few = len(generate_latest(registry).splitlines())
    rows = [times(f"secret_tomogram_{n}", "done", n, n + 1) for n in range(200)]
    watched.looked(LookSeen([SessionSeen("secret_session", "gone", rows)]), LOOKED)
    text = generate_latest(registry).decode()
    assert "secret" not in text
    assert len(text.splitlines()) < few + 90


def test_the_memory_of_visible_gpus_is_shown(registry, monkeypatch):
    asked = []

    def memory(handle):
        asked.append(handle)
        return SimpleNamespace(used=3 << 30, total=80 << 30)

    driver = SimpleNamespace(
        NVMLError=OSError,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda number: ("index", number),
        nvmlDeviceGetHandleByUUID=lambda name: ("uuid", name),
        nvmlDeviceGetMemoryInfo=memory,
    )
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    monkeypatch.setenv(VARIABLE, "2,GPU-5ad1")
    registry.register(DeviceMemory())
    value = registry.get_sample_value
    assert value("tomoseg_device_memory_used_bytes", {"device": "2"}) == 3 << 30
    assert value("tomoseg_device_memory_size_bytes", {"device": "GPU-5ad1"}) == 80 << 30
    assert set(asked) == {("index", 2), ("uuid", "GPU-5ad1")}
    monkeypatch.setenv(VARIABLE, "")
    assert memory_bytes() == {}
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.delenv(VARIABLE)
    assert memory_bytes() == {}


def test_a_process_shows_its_metrics_where_it_is_told(monkeypatch, tmp_path):
    monkeypatch.delenv(ADDRESS, raising=False)
    assert metrics.serve_metrics() is None
    monkeypatch.setenv(ADDRESS, "127.0.0.1:0")
    metrics.show_disk(tmp_path)
    metrics.show_disk(tmp_path / "none")
    url = metrics.serve_metrics()
    assert url.startswith("http://127.0.0.1:")
    text = urllib.request.urlopen(url, timeout=10).read().decode()
    assert 'tomoseg_info{version="' in text
    labels = f'host="{socket.gethostname()}",mount="{mount_of(tmp_path)}"'
    sample = f"tomoseg_disk_size_bytes{{{labels}}} "
    assert text.count(sample) == 1
    monkeypatch.setenv(ADDRESS, url.removeprefix("http://").removesuffix("/metrics"))
    with pytest.raises(RequestError, match="metrics cannot be shown at 127"):
        metrics.serve_metrics()


def test_what_cannot_be_looked_at_keeps_its_values_and_says_their_age(registry, monkeypatch):
    """Also a session that is gone with its drive: no alert that stands is ended by that."""
    watched = TomogramMetrics(registry, BEGAN)
    rows = [times("a", "set aside", 1, 2), times("b", "waiting", 1), times("c", "done", 1, 2)]
    other = SessionSeen("s2", "seen", [times("d", "done", 1, 2)])
    watched.looked(found(sessions=[SessionSeen("s1", "seen", rows, [BEGAN]), other]), LOOKED)
    value = registry.get_sample_value

    def states():
        return [value("tomoseg_tomograms", {"state": s}) for s in ("set aside", "waiting", "done")]

    def sessions():
        kinds = ("seen", "unreadable", "gone", "refused", "stopped", "paused")
        return [value("tomoseg_sessions", {"state": each}) for each in kinds]

    monkeypatch.setattr("tomoseg.compute.monitoring.tomograms.time.time", lambda: LOOKED + 500)
    assert (states(), sessions()) == ([1, 1, 2], [2, 0, 0, 0, 0, 0])
    assert value("tomoseg_session_seen_age_seconds") == 0
    # What is all done may be moved away: it is kept, but not missed.
    for away, kinds in (
        ([SessionSeen("s1", "unreadable"), other], [1, 1, 0, 0, 0, 0]),
        ([SessionSeen("s1", "gone"), other], [1, 0, 1, 0, 0, 0]),
        ([], [0, 0, 1, 0, 0, 0]),
    ):
        watched.looked(found(sessions=away, missing_places=1), LOOKED + 300)
        assert (states(), sessions()) == ([1, 1, 2], kinds)
        assert value("tomoseg_session_seen_age_seconds") == 500
        assert value("tomoseg_incomplete_age_seconds") == LOOKED + 500 - BEGAN.timestamp()
        assert value("tomoseg_queue_age_seconds") == LOOKED + 500 - BEGAN.timestamp() - 60
        assert value("tomoseg_missing_places") == 1
    back = [SessionSeen("s1", "refused", rows[2:]), SessionSeen("s2", "paused", other.tomograms)]
    watched.looked(found(sessions=back), LOOKED + 400)
    assert (states(), sessions()) == ([0, 0, 2], [0, 0, 0, 1, 0, 1])
    assert value("tomoseg_session_seen_age_seconds") == value("tomoseg_missing_places") == 0
    # After a week nobody waits for it any more.
    watched.looked(found(sessions=[]), LOOKED + 8 * 24 * 3600)
    assert (states(), sessions()) == ([0, 0, 0], [0] * 6)


def test_a_standstill_grows_older_between_looks_and_where_none_comes(registry, monkeypatch):
    watched = TomogramMetrics(registry, BEGAN)
    waits = [times("a", "waiting", 1)]

    def seconds(now):
        monkeypatch.setattr("tomoseg.compute.monitoring.tomograms.time.time", lambda: LOOKED + now)
        return registry.get_sample_value("tomoseg_standstill_seconds")

    watched.looked(found(waits, still_since=BEGAN, seconds_between=60.0), LOOKED)
    assert [seconds(0), seconds(10)] == [600, 610]
    watched.looked(found(waits, seconds_between=60.0), LOOKED)
    assert [seconds(0), seconds(180), seconds(181)] == [0, 0, 181], "no look for three intervals"
    for look in (found([times("a", "done", 1, 2)], seconds_between=60.0), found(waits)):
        watched.looked(look, LOOKED)
        assert seconds(9999) == 0, "there is nothing to do, or nobody knows when a look is due"


class FileSystems:
    """Folders on file systems of ours: mount → device, free bytes."""

    def __init__(self, monkeypatch, mounts):
        self.mounts = mounts
        paths = "tomoseg.compute.monitoring.disks"
        monkeypatch.setattr(f"{paths}.mount_of", lambda folder: max(
            (each for each in self.mounts if str(folder).startswith(each)), key=len))  # fmt: skip
        monkeypatch.setattr(f"{paths}.os.path.ismount", lambda mount: mount in self.mounts)
        monkeypatch.setattr(f"{paths}._device", lambda mount: self.mounts.get(mount, (mount,))[0])
        monkeypatch.setattr(f"{paths}._usage", lambda mount: (self.mounts[mount][1], 1000))


def test_a_file_system_is_one_sample_and_asked_each_time(registry, monkeypatch):
    system = FileSystems(monkeypatch, {"/": (1, 100), "/data": (2, 200), "/again": (2, 200)})
    disks = Disks()
    registry.register(disks)
    for folder in ("/data/out/a", "/data/out/b", "/data/scratch", "/again/out", "/home"):
        disks.add(folder)

    def free():
        return {
            sample.labels["mount"]: sample.value
            for metric in registry.collect()
            for sample in metric.samples
            if sample.name == "tomoseg_disk_free_bytes"
        }

    assert free() == {"/data": 200, "/": 100}
    system.mounts |= {"/data": (2, 20)}
    assert free() == {"/data": 20, "/": 100}
    del system.mounts["/data"]
    assert free() == {"/data": 20, "/": 100}, "it is away: its alert stands"


def test_where_a_folder_is_or_will_be_mounted(tmp_path):
    assert mount_of(tmp_path / "not" / "yet") == mount_of(tmp_path)
    assert Path(mount_of(tmp_path)).is_mount()
    assert str(tmp_path).startswith(mount_of(tmp_path))


@pytest.mark.parametrize("address", ["9108", ":9108", "127.0.0.1", "127.0.0.1:x", "h:70000"])
def test_a_wrong_address_is_refused(monkeypatch, address):
    monkeypatch.setenv(ADDRESS, address)
    with pytest.raises(RequestError, match="not HOST:PORT"):
        metrics.serve_metrics()
