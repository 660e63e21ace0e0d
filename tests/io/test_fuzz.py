"""Damaged files are read or refused by name, and soon; tests/benchmarks/fuzz.py runs millions."""

import importlib.util
import io
import logging
import struct
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from tomoseg.core.errors import FormatError
from tomoseg.io.volumes.tiff import TiffReader

PATH = Path(__file__).parents[1] / "benchmarks" / "fuzz.py"
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


ENCRYPTED = bytearray(fuzz.targets()["npz"].seeds[0])
for mark in (b"PK\x03\x04", b"PK\x01\x02"):
    ENCRYPTED[ENCRYPTED.index(mark) + (6 if mark[2] == 3 else 8)] |= 1
GROUPS = b"""
data_optics

loop_
_rlnOpticsGroup
_rlnTomoTiltSeriesPixelSize
a 2.5
b 2.5

data_particles

loop_
_rlnTomoName
_rlnOpticsGroup
_rlnCenteredCoordinateXAngst
_rlnCenteredCoordinateYAngst
_rlnCenteredCoordinateZAngst
TS_01 1 0 0 0
"""


@pytest.mark.parametrize(
    ("name", "data"),
    [
        pytest.param("recipe", b"export: {dialects: [{a: 1}]}", id="mappings among words"),
        pytest.param("recipe", b"session: hello", id="a word for a section"),
        pytest.param("recipe", b"session: {input: ~nobody-of-that-name/x}", id="no such user"),
        pytest.param("npz", bytes(ENCRYPTED), id="said to be encrypted"),
        pytest.param("relion5", GROUPS, id="optics groups of words and of numbers"),
        pytest.param("dynamo", b"1\n" * 9, id="short lines"),
    ],
)
def test_what_was_found_stays_refused(name, data):
    assert not fuzz.accepted(fuzz.targets()[name], data)


def test_a_chain_of_pages_in_a_circle_ends():
    """A page that is its own next one, after more than the 100 that tifffile compares."""
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for _ in range(120):
            writer.write(np.zeros((4, 4), np.uint8), contiguous=False, metadata=None)
    data, at, links = bytearray(file.getvalue()), 4, []
    while (page := struct.unpack_from("<I", data, at)[0]) != 0:
        links.append(page)
        at = page + 2 + 12 * struct.unpack_from("<H", data, page)[0]
    assert len(links) == 120
    struct.pack_into("<I", data, at, links[-1])
    began = time.process_time()
    with pytest.raises(FormatError, match="the chain of pages runs in a circle"):
        assert TiffReader(io.BytesIO(data), voxel_size_angstrom=10.0).header
    assert time.process_time() - began < LONGEST_CPU_SECONDS


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
