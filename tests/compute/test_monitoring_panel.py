"""The worker's page: what is in work and what ended, by name."""

import threading
from datetime import UTC, datetime

from tomoseg.compute.monitoring.panel import COLOURS, KEPT, Recent
from tomoseg.core.events import Scope, Span


def block(name, stage="segment", voxels=3_000_000):
    return Span("block", Scope("run", "session", "ts_1", stage, name), voxels)


def test_a_block_is_in_work_until_it_ends():
    recent = Recent()
    first, second = block("0-0-0"), block("0-0-1", stage="trace")
    recent.began(first)
    recent.began(Span("stage", Scope(stage="segment")))
    recent.began(second)
    rows = recent.in_work()
    assert rows["tomogram"] == ["ts_1", "ts_1"]
    assert (rows["stage"], rows["block"]) == (["segment", "trace"], ["0-0-0", "0-0-1"])
    assert all(0 <= seconds < 60 for seconds in rows["seconds"])
    before = datetime.now(UTC)
    recent.ended(first, 2.0, is_done=True)
    recent.ended(second, 0.5, is_done=False)
    assert recent.in_work()["block"] == []
    points = recent.points()
    assert points["block"] == ["ts_1 0-0-0", "ts_1 0-0-1"]
    assert (points["seconds"], points["speed"]) == ([2.0, 0.5], [1.5, 6.0])
    assert points["marker"] == ["circle", "x"]
    assert points["colour"] == [COLOURS[0], COLOURS[1]]
    assert before <= points["when"][0] <= datetime.now(UTC)


def test_only_the_last_are_kept():
    recent = Recent()
    for number in range(KEPT + 5):
        recent.ended(block(str(number)), 1.0, is_done=True)
    points = recent.points()
    assert len(points["when"]) == KEPT
    assert points["block"][0] == "ts_1 5"


def test_threads_may_read_while_others_write():
    recent, over = Recent(), threading.Event()

    def work():
        while not over.is_set():
            one = block("x")
            recent.began(one)
            recent.ended(one, 1.0, is_done=True)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    lengths = [{len(c) for c in recent.points().values()} for _ in range(200)]
    lengths += [{len(c) for c in recent.in_work().values()} for _ in range(200)]
    over.set()
    for thread in threads:
        thread.join()
    assert all(len(one) == 1 for one in lengths)
