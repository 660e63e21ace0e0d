"""Runners: the same receipts serially and on Dask; failures retried, named, bounded."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tomoseg.errors import BlockError, FormatError, ResourceError, StoreError
from tomoseg.runners import GPU_SHARE, DaskRunner, SerialRunner, can_pass, open_cluster, open_runner


@dataclass(frozen=True)
class Square:
    """Square numbers; the item 13 is bad luck of the given kind until its count is used up."""

    folder: Path
    trouble: str = ""
    times: int = 99

    def name(self, item: int) -> str:
        return f"item-{item}"

    def __call__(self, item: int) -> dict[str, int]:
        if item == 13 and self.trouble:
            tries = len(list(self.folder.iterdir()))
            if tries < self.times:
                (self.folder / str(tries)).touch()
                if self.trouble == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                if self.trouble == "sleep":
                    time.sleep(30)
                raise {
                    "store": StoreError("503 slow down"),
                    "format": FormatError("not an image"),
                    "disk": OSError(28, "No space left on device"),
                    "bug": ZeroDivisionError("x"),
                }[self.trouble]
        return {"item": item, "square": item * item}


@pytest.fixture(scope="module")
def dask():
    with (
        open_cluster(workers=2, memory_gib=1.0) as address,
        open_runner(address, stall_minutes=2.0) as runner,
    ):
        yield runner


@pytest.fixture(params=["serial", "dask"])
def runner(request, monkeypatch):
    if request.param == "dask":
        return request.getfixturevalue("dask")
    monkeypatch.setattr("tomoseg.runners.PAUSE_SECONDS", 0.0)
    return SerialRunner()


def test_every_item_gives_one_receipt(runner, tmp_path):
    receipts = list(runner.map(Square(tmp_path), range(40)))
    assert sorted(r["square"] for r in receipts) == [i * i for i in range(40)]


def test_what_can_pass_is_tried_again(runner, tmp_path):
    receipts = list(runner.map(Square(tmp_path, "store", times=2), range(20)))
    assert len(receipts) == 20
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("trouble", "kind", "tries"),
    [
        ("store", StoreError, 3),
        ("bug", BlockError, 3),
        ("format", FormatError, 1),
        ("disk", ResourceError, 1),
    ],
)
def test_what_fails_for_good_names_the_block(runner, tmp_path, trouble, kind, tries):
    with pytest.raises(kind, match="item-13"):
        list(runner.map(Square(tmp_path, trouble), range(20)))
    assert len(list(tmp_path.iterdir())) == tries


def test_a_killed_worker_costs_only_its_blocks(dask, tmp_path):
    receipts = list(dask.map(Square(tmp_path, "kill", times=1), range(30)))
    assert sorted(r["item"] for r in receipts) == list(range(30))
    assert len(list(tmp_path.iterdir())) == 1


def test_a_cluster_that_stalls_is_an_error(tmp_path):
    with (
        open_cluster(workers=1, memory_gib=1.0) as address,
        open_runner(address, stall_minutes=0.05) as runner,
        pytest.raises(ResourceError, match="stall_minutes"),
    ):
        list(runner.map(Square(tmp_path, "sleep", times=1), [13]))


@dataclass(frozen=True)
class Meet:
    """Wait until items of three workers have begun."""

    folder: Path

    def name(self, item: int) -> str:
        return f"item-{item}"

    def __call__(self, item: int) -> dict[str, int]:
        (self.folder / str(os.getpid())).touch()
        deadline = time.monotonic() + 120
        while len(list(self.folder.iterdir())) < 3:
            if time.monotonic() > deadline:
                # Of a kind that is not tried again.
                raise ResourceError("the third worker got nothing to do")
            time.sleep(0.02)
        return {"pid": os.getpid()}


def test_workers_that_come_late_find_blocks(tmp_path):
    """The first worker's block ends only once the third has one: more must be in flight."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=1,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            resources={"GPU": 1},
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        cluster.scale(3)
        runner = DaskRunner(client, stall_minutes=5.0, ahead=8)
        receipts = list(runner.map(Meet(tmp_path), range(8), on_device=True))
    assert len(receipts) == 8
    assert len({receipt["pid"] for receipt in receipts}) == 3


def test_only_work_on_devices_waits_for_gpus(dask, tmp_path, monkeypatch):
    asked = []
    submit = dask._client.submit

    def watched(*arguments, resources, **keys):
        asked.append(resources)
        return submit(*arguments, **keys)

    monkeypatch.setattr(dask._client, "submit", watched)
    workers = {
        "tcp://127.0.0.1:1": {"resources": {"GPU": 1.0}},
        "tcp://127.0.0.1:2": {"resources": {}},
    }
    list(dask.map(Square(tmp_path), [1], on_device=True))
    monkeypatch.setattr(dask._client, "scheduler_info", lambda n_workers: {"workers": workers})
    list(dask.map(Square(tmp_path), [2], on_device=True))
    list(dask.map(Square(tmp_path), [3]))
    assert asked == [None, {"GPU": GPU_SHARE}, None]


def test_no_scheduler_at_the_address_is_an_error(monkeypatch):
    monkeypatch.setattr("tomoseg.runners.CONNECT_SECONDS", 1.0)
    with (
        pytest.raises(ResourceError, match=r"tcp://127\.0\.0\.1:9"),
        open_runner("tcp://127.0.0.1:9"),
    ):
        pass


def test_wrong_input_cannot_pass():
    assert not can_pass(FormatError("x"))
    assert not can_pass(ResourceError("x"))
    assert can_pass(StoreError("x"))
