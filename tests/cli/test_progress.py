"""How long a session still takes."""

import pytest

from tomoseg.cli.progress import Remaining
from tomoseg.pipeline.stages import STAGES


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_the_shares_of_all_stages_are_a_tomogram():
    assert sum(stage.share for stage in STAGES.values()) == pytest.approx(1)


def test_the_time_left_is_that_of_the_tomograms_before():
    clock = Clock()
    left = Remaining([f"TS_{n:02}" for n in range(1, 41)], clock)
    assert left("TS_01", "ingest copy", 0, 9) == "1 of 40"
    clock.now = 30.0
    # 0.03 of ingest and half of 0.41: 128 s a tomogram.
    assert left("TS_01", "segment predict", 1, 2) == "1 of 40, about 1.4 hours left"
    for place in range(1, 12):
        clock.now = 6.0 * place
        said = left(f"TS_{place + 1:02}", "ingest copy", 0, 9)
    assert said == "12 of 40, about 3 minutes left"


def test_one_tomogram_is_not_counted_and_nothing_is_said_without_any():
    clock = Clock()
    left = Remaining(["a"], clock)
    assert left("a", "ingest copy", 0, 9) == ""
    clock.now = 44.0
    assert left("a", "clean smooth", 0, 9) == "about 60 seconds left"
    assert Remaining([], clock)("a", "trace ridges", 0, 9) == ""
