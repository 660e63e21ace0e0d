"""Runners: the same receipts serially and on Dask; failures retried, named, bounded."""

import itertools
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from dask import config as dask_config
from dask.utils import key_split
from distributed import Client, KilledWorker, LocalCluster, get_worker

from tomoseg.compute.clusters import open_cluster
from tomoseg.compute.runners import (
    GPU_SHARE,
    STREAK,
    Attempt,
    DaskRunner,
    SerialRunner,
    open_runner,
)
from tomoseg.compute.vitals import find_silence, last_signs
from tomoseg.compute.workers import KEPT_MESSAGES, quieten
from tomoseg.core.attempts import ATTEMPTS, can_pass, explaining
from tomoseg.core.errors import BlockError, FormatError, ResourceError, StoreError, UnfitWorkerError


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
        open_runner(address, stall_minutes=10.0) as runner,
    ):
        yield runner


@pytest.fixture(params=["serial", "overlapped", "dask"])
def runner(request, monkeypatch):
    if request.param == "dask":
        return request.getfixturevalue("dask")
    monkeypatch.setattr("tomoseg.core.attempts.PAUSE_SECONDS", 0.0)
    return SerialRunner(2 if request.param == "overlapped" else 1)


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


@dataclass(frozen=True)
class Troubled:
    """Logs who began what; item 13 has the given trouble, or all items on one worker have."""

    log: Path
    trouble: str
    place: str = ""

    def name(self, item: int) -> str:
        return f"item-{item}"

    def __call__(self, item: int) -> dict[str, int]:
        here = get_worker().address
        with self.log.open("a") as log:
            log.write(f"{item} {here}\n")
        if self.trouble == "broken worker" and here == self.place:
            raise OSError(5, "Input/output error", "/scratch")
        if item == 13 and self.trouble == "poison":
            time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGKILL)
        if item == 13 and self.trouble == "memory":
            hoard = [bytearray(b"x" * (16 << 20)) for _ in range(200) if not time.sleep(0.02)]
            assert hoard
        time.sleep(0.02)
        return {"item": item}

    @property
    def begun(self) -> list[tuple[int, str]]:
        rows = [line.split() for line in self.log.read_text().splitlines()]
        return [(int(item), worker) for item, worker in rows]


@pytest.mark.parametrize(
    ("trouble", "kind", "says"),
    [
        ("poison", BlockError, r"block item-13: each worker that tried the block died"),
        ("memory", ResourceError, r"block item-13: the block needs more memory .*memory_gib"),
    ],
)
def test_a_block_that_kills_its_workers_is_named(tmp_path, trouble, kind, says):
    """It may do so three times; its neighbours in the queue are not to blame, and are done."""
    task = Troubled(tmp_path / "log", trouble)
    receipts = []
    with (
        open_cluster(workers=2, memory_gib=0.5) as address,
        open_runner(address, stall_minutes=10.0) as runner,
    ):
        with pytest.raises(kind, match=says):
            receipts.extend(runner.map(task, range(30)))
        tries = [worker for item, worker in task.begun if item == 13]
        assert len(tries) == len(set(tries)) == ATTEMPTS
        items = sorted(receipt["item"] for receipt in receipts)
        assert len(items) == len(set(items))
        assert set(range(13)) <= set(items)
        # The cluster is there for the next tomogram.
        after = list(runner.map(Troubled(tmp_path / "after", ""), range(13, 20)))
        assert len(after) == 7


def test_on_a_scheduler_that_is_not_ours_the_last_attempt_kills_one_worker(tmp_path):
    """Unless told otherwise Dask sends a block to four workers before it tells of the losses."""
    task = Troubled(tmp_path / "log", "poison")
    with (
        # As Dask's own: a cluster of ours, still open, would have it otherwise.
        dask_config.set({"distributed.scheduler.allowed-failures": 3}),
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
        ) as cluster,
        open_runner(cluster.scheduler_address, stall_minutes=10.0) as runner,
    ):
        with pytest.raises(BlockError, match="block item-13: each worker that tried the block"):
            list(runner.map(task, range(20)))
        tries = [worker for item, worker in task.begun if item == 13]
        assert len(tries) == len(set(tries)) == 4 + 1
        others = [item for item, _ in task.begun if item != 13]
        assert len(set(others)) == len(others)


def test_a_block_that_ended_on_a_worker_that_died_before_it_told_is_sent_again():
    worker = SimpleNamespace(address="tcp://127.0.0.1:1")

    def result():
        raise KilledWorker("item-1", worker, 0)

    future = SimpleNamespace(status="finished", result=result)
    runner = DaskRunner(None, stall_minutes=1.0)
    assert runner._outcome(future, Attempt(1), "item-1") == Attempt(1, number=2)
    assert runner._outcome(future, Attempt(1, number=2), "item-1").is_alone


def test_a_worker_that_keeps_failing_is_retired_once(tmp_path, caplog):
    with (
        open_cluster(workers=2, memory_gib=1.0) as address,
        open_runner(address, stall_minutes=10.0) as runner,
    ):
        first, second = runner._client.nthreads()
        task = Troubled(tmp_path / "log", "broken worker", place=first)
        receipts = list(runner.map(task, range(60)))
        assert sorted(r["item"] for r in receipts) == list(range(60))
        assert list(runner._client.nthreads()) == [second]
    failed = [item for item, worker in task.begun if worker == first]
    assert STREAK <= len(failed) <= STREAK + 3  # what it had waiting when it was closed
    assert len(set(failed)) == len(failed), "a block was sent again where it had failed"
    warnings = [line for line in caplog.messages if "is retired" in line]
    assert len(warnings) == 1
    assert first in warnings[0]
    assert "Input/output error" in warnings[0]


def test_the_last_worker_is_not_retired(tmp_path):
    with (
        open_cluster(workers=1, memory_gib=1.0) as address,
        open_runner(address, stall_minutes=10.0) as runner,
    ):
        (only,) = runner._client.nthreads()
        with pytest.raises(StoreError, match="Input/output error"):
            list(runner.map(Troubled(tmp_path / "log", "broken worker", place=only), range(9)))
        assert list(runner._client.nthreads()) == [only]


def test_a_cluster_that_stalls_is_an_error(tmp_path):
    with (
        open_cluster(workers=1, memory_gib=1.0) as address,
        open_runner(address, stall_minutes=0.05) as runner,
        pytest.raises(ResourceError, match="stall_minutes"),
    ):
        list(runner.map(Square(tmp_path, "sleep", times=1), [13]))


def test_workers_that_give_no_sign_of_life_are_told_and_can_come_back(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr("tomoseg.compute.runners.SIGN_SECONDS", 2.0)
    told = []
    with (
        open_cluster(workers=1, memory_gib=1.0) as address,
        open_runner(address, stall_minutes=10.0) as runner,
    ):
        (worker,) = runner._client.run(os.getpid).items()
        os.kill(worker[1], signal.SIGSTOP)
        try:
            receipts = runner.map(Square(tmp_path), range(4), waits=told.append)
            ask = counted(last_signs, 4, os.kill, worker[1], signal.SIGCONT)
            monkeypatch.setattr("tomoseg.compute.runners.last_signs", ask)
            assert sorted(r["item"] for r in receipts) == [0, 1, 2, 3]
        finally:
            os.kill(worker[1], signal.SIGCONT)
    said = f"the workers that have blocks give no sign of life: {worker[0]}"
    assert set(told) == {said}
    assert len(told) >= 2, "it is told again and again"
    assert caplog.messages.count(f"{said}; 2 blocks wait") == 1


def counted(asked, times, then, *arguments):
    """What calls a function, and before one call another one."""
    calls = itertools.count(1)

    def ask(*about):
        if next(calls) == times:
            then(*arguments)
        return asked(*about)

    return ask


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        (None, {"a": 1.0}, ""),
        ({"b": 1.0}, {"a": 1.0}, ""),
        ({"a": 1.0}, {}, "there is no worker that takes the blocks"),
        ({"a": 1.0}, None, "the Dask scheduler does not answer"),
    ],
)
def test_silence(before, now, said):
    assert find_silence(before, now) == said


def test_a_scheduler_that_does_not_answer_and_blocks_that_no_worker_takes():
    def sync(call, *, callback_timeout, **_):
        assert callback_timeout > 0
        return call()

    def late():
        raise TimeoutError

    seen = {"workers": {"a": {"last_seen": 1}, "b": {"last_seen": 2}}}
    scheduler = SimpleNamespace(identity=lambda: seen, processing=lambda: {"a": [], "b": ["x"]})
    client = SimpleNamespace(scheduler=scheduler, sync=sync)
    assert last_signs(client) == {"b": 2.0}
    scheduler.processing = dict
    assert last_signs(client) == {}
    scheduler.identity = late
    assert last_signs(client) is None


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


@dataclass(frozen=True)
class Where:
    """A question: the process that answers, or an error."""

    trouble: str = ""

    def __call__(self) -> dict[str, int]:
        if self.trouble:
            raise ResourceError(self.trouble)
        return {"pid": os.getpid()}


def has_other_code():
    """Stand in for another package on a worker."""
    import tomoseg.compute.workers

    tomoseg.compute.workers.code_version = lambda: "0+other"


def test_every_worker_answers_once(dask):
    first = dask.ask(Where())
    assert len({answer["pid"] for answer in first}) == 2
    assert os.getpid() not in {answer["pid"] for answer in first}
    assert dask.ask(Where()) is first
    assert SerialRunner().ask(Where()) == [{"pid": os.getpid()}]


def test_a_worker_that_is_lost_when_it_is_asked_is_not_taken_for_unfit():
    told = {"first": {"pid": 1}, "second": OSError("in <TCP>: Stream is closed")}
    client = SimpleNamespace(nthreads=lambda: dict.fromkeys(told, 1), run=lambda *_, **__: told)
    runner = DaskRunner(client, stall_minutes=1.0)
    assert runner.ask(Where()) == [{"pid": 1}]
    assert runner._unfit == set()


def test_an_answer_that_all_fail_to_give_is_an_error(tmp_path):
    with pytest.raises(ResourceError, match="no such device"):
        SerialRunner().ask(Where("no such device"))
    with (
        open_cluster(workers=1, memory_gib=1.0) as address,
        open_runner(address, stall_minutes=10.0) as runner,
        pytest.raises(ResourceError, match="no such device"),
    ):
        runner.ask(Where("no such device"))


def test_a_cluster_without_workers_yet_is_asked_when_the_first_comes():
    with (
        LocalCluster(
            n_workers=0,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        runner = DaskRunner(client, stall_minutes=5.0)
        cluster.scale(1)
        (answer,) = runner.ask(Where())
    assert answer["pid"] != os.getpid()


@pytest.mark.parametrize("is_asked", [True, False])
def test_a_worker_of_other_code_gets_no_work(tmp_path, caplog, is_asked):
    """Asked before, or found out by its first block; no attempt of a block's is lost on it."""
    with (
        open_cluster(workers=2, memory_gib=1.0) as address,
        open_runner(address, stall_minutes=10.0) as runner,
    ):
        bad, good = runner._client.nthreads()
        runner._client.run(has_other_code, workers=[bad])
        if is_asked:
            assert len(runner.ask(Where())) == 1
        task = Troubled(tmp_path / "log", "")
        receipts = list(runner.map(task, range(30)))
        assert sorted(receipt["item"] for receipt in receipts) == list(range(30))
        assert {worker for _, worker in task.begun} == {good}
        (warning,) = [line for line in caplog.messages if "gets no work" in line]
        assert bad in warning
        assert "0+other" in warning
        # It is somebody else's, perhaps: it is left alone.
        assert bad in runner._client.nthreads()
        runner._client.run(has_other_code, workers=[good])
        with pytest.raises(UnfitWorkerError, match=r"0\+other.*Install the same tomoseg"):
            list(runner.map(task, range(5)))


def test_no_scheduler_at_the_address_is_an_error(monkeypatch):
    monkeypatch.setattr("tomoseg.compute.runners.CONNECT_SECONDS", 1.0)
    with (
        pytest.raises(ResourceError, match=r"tcp://127\.0\.0\.1:9"),
        open_runner("tcp://127.0.0.1:9"),
    ):
        pass


def test_a_store_that_nobody_answers_at_can_pass():
    exceptions = pytest.importorskip("botocore.exceptions", reason="S3 is not installed")
    with (
        pytest.raises(StoreError, match="EndpointConnectionError: Could not connect"),
        explaining(),
    ):
        raise exceptions.EndpointConnectionError(endpoint_url="http://127.0.0.1:9")


def test_wrong_input_cannot_pass():
    assert not can_pass(FormatError("x"))
    assert not can_pass(ResourceError("x"))
    assert can_pass(StoreError("x"))


def test_what_dask_keeps_of_keys_does_not_grow_with_the_blocks(dask, tmp_path, monkeypatch):
    monkeypatch.setattr("tomoseg.compute.runners.KEYS_KEPT", 20)
    list(dask.map(Square(tmp_path), range(100)))
    # Each item asks for several keys, all of which were kept before.
    assert key_split.cache_info().currsize < 100


def test_a_scheduler_keeps_no_span_of_what_it_did(dask, tmp_path):
    def spans(dask_scheduler):
        return len(dask_scheduler.extensions["spans"].spans)

    assert len(list(dask.map(Square(tmp_path), range(20)))) == 20
    assert dask._client.run_on_scheduler(spans) == 0


def test_a_scheduler_forgets_keys_too(monkeypatch):
    from tomoseg.compute.monitoring.spans import NoSpans

    monkeypatch.setattr("tomoseg.compute.monitoring.spans.KEYS_KEPT", 20)
    spans = NoSpans(None)
    for number in range(59):
        key_split(f"Step-{number}-x")
        assert spans.observe_tasks([], code=(), span_metadata={}) == {}
    assert key_split.cache_info().currsize == 19


def test_dask_keeps_few_of_its_messages_unless_a_person_wants_more():
    with dask_config.set({KEPT_MESSAGES: None}):
        quieten()
        assert dask_config.get(KEPT_MESSAGES) == 10
    with dask_config.set({KEPT_MESSAGES: 77}):
        quieten()
        assert dask_config.get(KEPT_MESSAGES) == 77


def test_a_client_that_stumbles_over_its_greeting_connects_again(monkeypatch):
    tried, stumbles = [], 1

    def stumbling(*words, **keys):
        tried.append(words)
        assert len(tried) > stumbles
        return Client(*words, **keys)

    monkeypatch.setattr("distributed.Client", stumbling)
    with LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster:
        with open_runner(cluster.scheduler_address):
            assert len(tried) == 2
        stumbles = 9
        with pytest.raises(AssertionError), open_runner(cluster.scheduler_address):
            pass
        assert len(tried) == 2 + 5
