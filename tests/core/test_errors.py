"""Errors keep what they know, in words and across processes."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from tomoseg.core import errors
from tomoseg.core.errors import BlockError, FormatError, RequestError, TomosegError, VoxelSizeError

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, TomosegError)
]


def fields_of(error: TomosegError) -> tuple[object, ...]:
    return type(error), error.message, error.remedy, error.tomogram, error.block, str(error)


def fail(kind: type[TomosegError]) -> None:
    raise kind("12 of 8 voxels", remedy="Look again.", tomogram="ts_01", block="0-1-2")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickling_keeps_every_field(kind: type[TomosegError], protocol: int) -> None:
    error = kind("12 of 8 voxels", remedy="Look again.", tomogram="ts_01", block="0-1-2")
    assert fields_of(pickle.loads(pickle.dumps(error, protocol))) == fields_of(error)
    assert fields_of(copy.deepcopy(error)) == fields_of(error)


def test_an_error_comes_back_from_another_process() -> None:
    with (
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
        pytest.raises(BlockError) as caught,
    ):
        pool.submit(fail, BlockError).result()
    assert (caught.value.remedy, caught.value.block) == ("Look again.", "0-1-2")


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ({}, "too large. Bin it."),
        ({"tomogram": "ts_01"}, "ts_01: too large. Bin it."),
        ({"block": "0-0-1"}, "block 0-0-1: too large. Bin it."),
        ({"tomogram": "ts_01", "block": "0-0-1"}, "ts_01, block 0-0-1: too large. Bin it."),
    ],
)
def test_one_line_says_where_what_and_what_to_do(where: dict[str, str], text: str) -> None:
    assert str(RequestError("too large", remedy="Bin it.", **where)) == text


def test_no_remedy_adds_nothing() -> None:
    assert str(FormatError("too short")) == "too short"


def test_within_fills_in_only_what_was_not_known() -> None:
    inner = VoxelSizeError("0 Å", remedy="Say it.", block="1-1-1")
    outer = inner.within(tomogram="ts_02", block="9-9-9")
    assert type(outer) is VoxelSizeError
    assert (outer.tomogram, outer.block) == ("ts_02", "1-1-1")
    assert (outer.message, outer.remedy) == (inner.message, inner.remedy)
    assert inner.tomogram == ""


def test_the_traceback_of_a_cause_crosses_processes() -> None:
    try:
        raise ZeroDivisionError("by zero")
    except ZeroDivisionError as cause:
        inner = BlockError("it broke").noting(cause)
    outer = pickle.loads(pickle.dumps(inner)).within(tomogram="ts_02")
    (note,) = outer.__notes__
    assert note.startswith("Traceback (most recent call last)")
    assert note.endswith("ZeroDivisionError: by zero")
    assert "test_the_traceback_of_a_cause_crosses_processes" in note


def test_voxel_size_is_a_format_error_and_all_are_ours() -> None:
    assert issubclass(VoxelSizeError, FormatError)
    assert len(KINDS) >= 8
