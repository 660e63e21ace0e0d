"""Metrics: what Prometheus reads is what happened, and no name of a tomogram is among it."""

import sys
import threading
import urllib.request
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from tomoseg.capacity import Times
from tomoseg.devices import VARIABLE, memory_bytes
from tomoseg.errors import RequestError
from tomoseg.events import Place, Work
from tomoseg.monitoring import metrics
from tomoseg.monitoring.metrics import ADDRESS, DeviceMemory, WorkMetrics
from tomoseg.monitoring.tomograms import TomogramMetrics

BEGAN = datetime(2026, 3, 1, tzinfo=UTC)
LOOKED = BEGAN.timestamp() + 600


def block(name="0-0-0", stage="segment", voxels=1000):
    return Work("block", Place("run", "session", "secret_tomogram", stage, name), voxels)


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


def test_stages_are_counted_apart_from_blocks(registry):
    worked = WorkMetrics(registry)
    for is_done in (True, False):
        stage = Work("stage", Place(tomogram="secret_tomogram", stage="trace"))
        worked.began(stage)
        worked.ended(stage, 40.0, is_done=is_done)
    value = registry.get_sample_value
    for outcome in ("done", "failed"):
        assert value("tomoseg_stages_total", {"stage": "trace", "outcome": outcome}) == 1
    assert value("tomoseg_stage_seconds_sum", {"stage": "trace"}) == 40
    assert value("tomoseg_blocks_total", {"stage": "trace", "outcome": "done"}) is None


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


def test_tomograms_are_counted_once_however_often_they_are_looked_at(registry):
    watched = TomogramMetrics(registry, BEGAN)
    assert not list(registry.collect())
    old = times("old", "done", -60, -30)
    watched.looked([old, times("a", "waiting", 1), times("b", "waiting", 2)], LOOKED)
    done = times("a", "done", 1, 11, ingest=5.0, segment=400.0)
    after = [old, done, times("b", "set aside", 2, 20)]
    watched.looked(after, LOOKED)
    watched.looked(after, LOOKED)
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
    watched.looked([old, times("a", "done", 30, 35), times("b", "set aside", 2, 20)], LOOKED)
    assert value("tomoseg_tomograms_arrived_total") == 3
    assert value("tomoseg_tomograms_ended_total", {"state": "done"}) == 2
    assert value("tomoseg_result_seconds_sum") == 900


def test_the_queue_is_as_old_as_what_waits_longest(registry, monkeypatch):
    watched = TomogramMetrics(registry, BEGAN)
    watched.looked(
        [times("a", "waiting", 4), times("b", "waiting", 1), times("c", "running", 0)], LOOKED
    )
    for minutes in (10, 25):
        now = (BEGAN + timedelta(minutes=minutes)).timestamp()
        monkeypatch.setattr("tomoseg.monitoring.tomograms.time.time", lambda now=now: now)
        # Also if nobody looks any more.
        assert registry.get_sample_value("tomoseg_queue_age_seconds") == (minutes - 1) * 60
    assert registry.get_sample_value("tomoseg_last_look_timestamp_seconds") == LOOKED


def test_what_stays_incomplete_grows_older(registry, monkeypatch):
    watched = TomogramMetrics(registry, BEGAN)
    watched.looked([], LOOKED, [BEGAN, BEGAN + timedelta(minutes=3)])
    now = (BEGAN + timedelta(minutes=90)).timestamp()
    monkeypatch.setattr("tomoseg.monitoring.tomograms.time.time", lambda: now)
    assert registry.get_sample_value("tomoseg_incomplete_age_seconds") == 90 * 60
    watched.looked([], LOOKED)
    assert registry.get_sample_value("tomoseg_incomplete_age_seconds") == 0


def test_a_session_that_could_not_be_looked_at_is_not_counted_anew(registry):
    watched = TomogramMetrics(registry, BEGAN)
    rows = [times("a", "done", 1, 11)]
    for found in (rows, [], rows):
        watched.looked(found, LOOKED)
    value = registry.get_sample_value
    assert value("tomoseg_tomograms_arrived_total") == 1
    assert value("tomoseg_tomograms_ended_total", {"state": "done"}) == 1
    # What is long past is not remembered, and not counted either.
    for found in ([], rows):
        watched.looked(found, LOOKED + timedelta(days=8).total_seconds())
    assert value("tomoseg_tomograms_arrived_total") == 1


def test_no_name_of_a_tomogram_or_a_block_is_shown(registry):
    worked, watched = WorkMetrics(registry), TomogramMetrics(registry, BEGAN)
    for number in range(50):
        one = block(f"secret_block_{number}")
        worked.began(one)
        worked.ended(one, 1.0, is_done=True)
    few = len(generate_latest(registry).splitlines())
    watched.looked([times(f"secret_tomogram_{n}", "done", n, n + 1) for n in range(200)], LOOKED)
    text = generate_latest(registry).decode()
    assert "secret" not in text
    assert len(text.splitlines()) < few + 70


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
    metrics.show_disk("output", tmp_path)
    metrics.show_disk("scratch", tmp_path / "none")
    url = metrics.serve_metrics()
    assert url.startswith("http://127.0.0.1:")
    text = urllib.request.urlopen(url, timeout=10).read().decode()
    assert 'tomoseg_info{version="' in text
    assert 'tomoseg_disk_free_bytes{place="scratch"} NaN' in text
    assert 'tomoseg_disk_size_bytes{place="output"} ' in text
    monkeypatch.setenv(ADDRESS, url.removeprefix("http://").removesuffix("/metrics"))
    with pytest.raises(RequestError, match="metrics cannot be shown at 127"):
        metrics.serve_metrics()


@pytest.mark.parametrize("address", ["9108", ":9108", "127.0.0.1", "127.0.0.1:x", "h:70000"])
def test_a_wrong_address_is_refused(monkeypatch, address):
    monkeypatch.setenv(ADDRESS, address)
    with pytest.raises(RequestError, match="not HOST:PORT"):
        metrics.serve_metrics()
