"""Whose rows a table holds: rows of other tomograms are never taken."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tomoseg.core.errors import FormatError
from tomoseg.core.sampling import Sampling
from tomoseg.io.points.dialects import EVERY, READ_AS_IS, ReadOptions, TomoContext
from tomoseg.io.points.owners import NAME_COLUMNS, find_owners, is_alike

GRID = Sampling((100, 250, 240), (10.0, 10.0, 10.0))


def of(names: list[str], tomograms: list[str], options: ReadOptions = READ_AS_IS):
    contexts = [TomoContext(name, GRID) for name in tomograms]
    return find_owners(pd.DataFrame({NAME_COLUMNS[0]: names}), contexts, options)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("TS_01", "TS_01_10.00Apx"),
        ("TS_01", "rec_TS_01"),
        ("TS_01_bin4_denoised", "TS_01_13.48Apx"),
        ("SPEF1MT2_001", "SPEF1MT2_001_8.48Apx"),
        ("TS_01", "TS_01_EVN"),
        ("m1", "m1_DW"),
    ],
)
def test_what_processing_adds_makes_no_other_tilt_series(one: str, other: str) -> None:
    assert is_alike(one, other) and is_alike(other, one)


@pytest.mark.parametrize(
    "other",
    ["TS_10", "TS_011", "TS_0", "TS_01_2", "TS_01_a", "TS-01", "ts_01", "TS_01a", "A_TS_01"],
)
def test_other_tilt_series_are_others_however_their_names_begin(other: str) -> None:
    assert not is_alike("TS_01", other)
    with pytest.raises(FormatError, match=f"rlnTomoName names {other}, and none alone is TS_01"):
        of([other], ["TS_01"])


def test_a_tomograms_own_name_goes_before_one_alike_and_the_rest_is_said() -> None:
    found = of(["TS_01", "TS_01_bin4", "TS_02", "TS_01"], ["TS_01"])
    assert found.places.tolist() == [0, -1, -1, 0]
    assert found.says == ("2 rows of TS_01_bin4, TS_02 left out",)


def test_rows_of_the_same_tilt_series_are_taken_and_said() -> None:
    found = of(["x/TS_01_10.00Apx.mrc", "TS_10"], ["TS_01"])
    assert found.places.tolist() == [0, -1]
    assert found.says == (
        "the rows of TS_01_10.00Apx taken to be its own; 1 rows of TS_10 left out",
    )


def test_two_files_of_one_name_are_said() -> None:
    found = of(["day1/TS_01.mrc", "day2/TS_01.mrc"], ["TS_01"])
    assert found.places.tolist() == [0, 0]
    assert found.says == ("the rows of day1/TS_01.mrc, day2/TS_01.mrc taken to be its own",)


@pytest.mark.parametrize(
    ("names", "tomograms"),
    [
        (["TS_01_bin4", "TS_01_rec"], ["TS_01"]),
        (["TS_01"], ["TS_01_10.00Apx", "TS_01_13.48Apx"]),
    ],
    ids=["two tables for one", "two tomograms of one"],
)
def test_what_is_not_certain_is_refused(names: list[str], tomograms: list[str]) -> None:
    with pytest.raises(FormatError, match=r"none alone is .*--rows-of NAME"):
        of(names, tomograms)


def test_each_of_several_tomograms_gets_its_rows() -> None:
    found = of(["TS_02", "TS_01_bin4", "TS_03", "TS_02"], ["TS_01", "TS_02", "TS_04"])
    assert found.places.tolist() == [1, 0, -1, 1]
    assert [says.count("left out") for says in found.says] == [1, 1, 1]


def test_a_name_with_dots_is_that_of_its_tomogram() -> None:
    assert of(["sample.A", "sample.B"], ["sample.A"]).places.tolist() == [0, -1]


def test_a_person_may_say_whose_rows_they_are() -> None:
    assert of(["a", "b"], ["TS_01"], ReadOptions(rows_of="b")).places.tolist() == [-1, 0]
    assert of(["a", "b"], ["TS_01"], ReadOptions(rows_of=EVERY)).places.tolist() == [0, 0]
    with pytest.raises(FormatError, match="names a, b, and none alone is c"):
        of(["a", "b"], ["TS_01"], ReadOptions(rows_of="c"))
    with pytest.raises(FormatError, match="--rows-of b is said of 2 tomograms"):
        of(["a", "b"], ["TS_01", "TS_02"], ReadOptions(rows_of="b"))


@pytest.mark.parametrize(
    ("file", "tomograms", "place", "says"),
    [
        ("a.star", ["TS_01"], 0, "the rows name no tomogram, and the file is called a"),
        ("TS_02.cbox", ["TS_01"], 0, "the rows name no tomogram, and the file is called TS_02"),
        ("x/TS_01_10.00Apx.cbox", ["TS_01"], 0, ""),
        (
            "TS_02__ribosome.csv",
            ["TS_01", "TS_02"],
            1,
            "taken to be its rows by the name of the file",
        ),
    ],
)
def test_rows_without_a_name_go_by_the_files(
    file: str, tomograms: list[str], place: int, says: str
) -> None:
    contexts = [TomoContext(name, GRID) for name in tomograms]
    found = find_owners(pd.DataFrame({"x": [1, 2]}), contexts, ReadOptions(file=file))
    assert found.places.tolist() == [place, place]
    assert found.says[place] == says
    assert not any(said for other, said in enumerate(found.says) if other != place)


def test_rows_without_a_name_of_several_tomograms_are_refused() -> None:
    contexts = [TomoContext(name, GRID) for name in ("TS_01", "TS_02")]
    with pytest.raises(FormatError, match="nor is the file called after one of TS_01, TS_02"):
        find_owners(pd.DataFrame({"x": [1]}), contexts, ReadOptions(file="a.star"))


def test_an_endless_name_is_looked_at_once() -> None:
    with pytest.raises(FormatError, match="none alone is TS_01"):
        of([f"TS_01{'_bin4' * 200_000}"], ["TS_01"])


def test_no_rows_are_nobodys() -> None:
    assert of([], ["TS_01"]).places.dtype == np.int64
