"""Events: who listens hears what began and how it ended, and where; names do not leak."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest

from tomoseg.core import events
from tomoseg.core.events import Listener, Scope, at, here, listen, working


class Heard(Listener):
    """Writes down what it hears."""

    def __init__(self):
        self.said = []

    def began(self, span):
        self.said.append(("began", span.kind, span.scope, span.voxels))

    def ended(self, span, seconds, *, is_done):
        assert seconds >= 0
        self.said.append(("ended", span.kind, span.scope, is_done))


@pytest.fixture
def heard(monkeypatch):
    monkeypatch.setattr(events, "_listeners", [])
    listener = Heard()
    listen(listener)
    return listener.said


def test_work_within_work_has_all_the_names(heard):
    stage, block = Scope("r", "s", "t", "segment"), Scope("r", "s", "t", "segment", "0-0-0")
    with at(run="r", session="s"):
        with working("stage", tomogram="t", stage="segment"):
            with working("block", voxels=24, block="0-0-0"):
                assert here() == block
            assert here() == stage
        assert here() == Scope("r", "s")
    assert here() == Scope()
    assert heard == [
        ("began", "stage", stage, 0),
        ("began", "block", block, 24),
        ("ended", "block", block, True),
        ("ended", "stage", stage, True),
    ]


def test_a_failure_is_heard_and_goes_on(heard):
    with pytest.raises(ZeroDivisionError), working("block", block="b"):
        raise ZeroDivisionError
    assert heard[-1] == ("ended", "block", Scope(block="b"), False)
    assert here() == Scope()


def test_a_place_goes_to_another_process(heard):
    with at(run="r", tomogram="t"):
        sent = pickle.dumps(here())
    with at(run="other", block="left out"), at(pickle.loads(sent)), working("block", block="b"):
        assert here() == Scope("r", "", "t", "", "b")


def test_threads_do_not_share_a_place():
    with at(tomogram="mine"), ThreadPoolExecutor(1) as pool:
        assert pool.submit(here).result() == Scope()


def test_who_listens_twice_hears_once(heard):
    listener = Heard()
    listen(listener)
    listen(listener)
    with working("block"):
        pass
    assert len(listener.said) == len(heard) == 2
