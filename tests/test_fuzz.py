"""Damaged files are read or refused by name, and soon; tests/benchmarks/fuzz.py runs millions."""

import importlib.util
import logging
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

PATH = Path(__file__).parent / "benchmarks" / "fuzz.py"
spec = importlib.util.spec_from_file_location("tomoseg_fuzz", PATH)
fuzz = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = fuzz
spec.loader.exec_module(fuzz)

QUICK = ("mrc", "em", "imod", "lattice", "png", "amira", "npz", "packed", "card", "eman2")
LONGEST_CPU_SECONDS = 2.0


@pytest.fixture(autouse=True)
def quiet():
    """Tifffile tells of every damage that it meets."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("name", [name for name in fuzz.targets() if name != "training"])
def test_sound_files_are_accepted(name):
    target = fuzz.targets()[name]
    assert target.seeds
    for data in target.seeds:
        assert fuzz.accepted(target, data)


def test_a_reader_that_stumbles_is_found():
    """The attack finds what is there: here a number that is trusted, and too large."""
    trusting = fuzz.Target((b"sound 12",), lambda data: bytearray(2 ** int(data.split()[-1]) - 1))
    with pytest.raises((ValueError, IndexError, OverflowError, MemoryError)):
        for seed in range(500):
            fuzz.accepted(trusting, fuzz.mutated(trusting, seed))


@pytest.mark.parametrize("name", fuzz.targets())
def test_damaged_files_are_read_or_refused(name):
    target = fuzz.targets()[name]
    seen = set()

    @settings(derandomize=True, max_examples=200 if name in QUICK else 60, database=None)
    @given(st.integers(0, 2**32 - 1))
    def attack(seed):
        began = time.process_time()
        seen.add(fuzz.accepted(target, fuzz.mutated(target, seed)))
        assert time.process_time() - began < LONGEST_CPU_SECONDS

    attack()
    assert False in seen or name in ("guess", "picks")  # they refuse within
