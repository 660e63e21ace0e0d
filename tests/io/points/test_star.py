"""STAR text against the starfile library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import starfile
from hypothesis import given
from hypothesis import strategies as st

from tomoseg.core.errors import FormatError, RequestError
from tomoseg.io.points.star import read_star, write_star

DATA = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "formats"
REAL = pytest.mark.skipif(not DATA.is_dir(), reason="shared real data are not on this machine")

TABLE = pd.DataFrame(
    {
        "rlnTomoName": ["001", "TS 02"],
        "rlnAngleTilt": [1.5, -2.0],
        "rlnHelicalTubeID": [1, 2],
    }
)


def test_the_starfile_library_reads_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "out.star"
    path.write_text(write_star({"optics": TABLE[:1], "particles": TABLE}))
    blocks = starfile.read(path, parse_as_string=["rlnTomoName"])
    assert list(blocks) == ["optics", "particles"]
    assert list(blocks["particles"].columns) == list(TABLE.columns)
    assert blocks["particles"]["rlnTomoName"].tolist() == ["001", "TS 02"]
    assert blocks["particles"]["rlnAngleTilt"].tolist() == [1.5, -2.0]
    assert blocks["particles"]["rlnHelicalTubeID"].tolist() == [1, 2]
    assert len(blocks["optics"]) == 1


def test_what_the_starfile_library_writes_is_read() -> None:
    blocks = read_star(starfile.to_string({"particles": TABLE}))
    pd.testing.assert_frame_equal(blocks["particles"], TABLE, check_dtype=False)
    assert blocks["particles"]["rlnHelicalTubeID"].dtype == np.int64
    assert blocks["particles"]["rlnAngleTilt"].dtype == np.float64


@REAL
@pytest.mark.parametrize(
    "path",
    [
        "star/relion_3.0.star",
        "star/relion_3.1_optics.star",
        "picks/SPEF1MT2_001_8.48Apx_particles.star",
    ],
)
def test_real_files_are_read_as_starfile_reads_them(path: str) -> None:
    ours = read_star((DATA / path).read_text())
    theirs: dict[str, Any] = starfile.read(DATA / path, always_dict=True)
    assert set(ours) == set(theirs)
    for name, table in theirs.items():
        assert list(ours[name].columns) == list(table.columns)
        assert len(ours[name]) == len(table)
        for column in table.select_dtypes("number"):
            if not column.endswith(("Name", "File")):
                np.testing.assert_allclose(ours[name][column], table[column], rtol=0, atol=1e-12)


def test_the_same_table_gives_the_same_text() -> None:
    assert write_star({"particles": TABLE}) == write_star({"particles": TABLE})


def test_an_empty_table_keeps_its_columns() -> None:
    table = read_star(write_star({"particles": TABLE[:0], "next": TABLE}))["particles"]
    assert list(table.columns) == list(TABLE.columns)
    assert len(table) == 0


def test_blocks_without_loop_comments_and_quotes_are_read() -> None:
    text = """
    # a comment
    data_general
    _rlnTomoSubTomosAre2DStacks   1  # one
    _rlnTomoName '003'

    data_particles
    loop_
    _rlnTomoName #1
    _rlnAngleRot #2
    "a # b"  1.5
    'it"s'   nan
    # version 50001
    data_
    _rlnPixelSize 2
    """
    blocks = read_star(text)
    assert blocks["general"].to_dict("list") == {
        "rlnTomoSubTomosAre2DStacks": [1],
        "rlnTomoName": ["003"],
    }
    assert blocks["particles"]["rlnTomoName"].tolist() == ["a # b", 'it"s']
    assert np.isnan(blocks["particles"]["rlnAngleRot"][1])
    assert blocks[""]["rlnPixelSize"].tolist() == [2]


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("", "not a STAR file"),
        ("x,y,z\n1,2,3\n", "not a STAR file"),
        ("data_a\nloop_\n_x\n_y\n1 2\n1\n", "line 6 .* 1 values for 2 columns"),
        ("data_a\n_x 1 2\n", "line 2 .* not a name and a value"),
        ("data_a\n_x #1\n", "line 2 .* not a name and a value"),
        ("data_p\nloop_\n_x #1\n_y #2\n_x #3\n1 2 3\n", "'p' has the column x twice"),
        ("data_a\n_x 1\n_x 2\n", "'a' has the column x twice"),
        ("data_a\n_x 1\ndata_b\n_x 1\ndata_a\n_x 2\n", "two blocks are called data_a"),
    ],
    ids=["empty", "CSV", "short row", "two values", "no value", "twice", "single", "block"],
)
def test_broken_text_is_refused(text: str, fact: str) -> None:
    with pytest.raises(FormatError, match=fact):
        read_star(text)


@pytest.mark.parametrize("header", ["_n #1\n_x #2\n", "_n\n_x\n"])
def test_a_name_may_begin_as_a_column_does(header: str) -> None:
    blocks = read_star(f"data_\nloop_\n{header}_TS_01 1\n_TS_02 1\n")
    assert blocks[""]["n"].tolist() == ["_TS_01", "_TS_02"]


def test_a_name_alone_in_its_row_may_begin_as_a_column_does() -> None:
    table = read_star("data_\nloop_\n_rlnTomoName #1\n_TS_03\n_TS_04\n")[""]
    assert table["rlnTomoName"].tolist() == ["_TS_03", "_TS_04"]


def test_of_a_large_block_the_first_lines_say_what_it_holds() -> None:
    text = "data_a\nloop_\n_x #1\n1\n2\n3\ndata_b\n_y 1\n"
    head = read_star(text, most_lines=3)
    assert (head["a"]["x"].tolist(), head["b"]["y"].tolist()) == ([1], [1])


@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp"]), max_size=8),
        min_size=1,
        max_size=4,
    )
)
def test_any_name_comes_back_or_is_refused(names: list[str]) -> None:
    table = pd.DataFrame({"rlnTomoName": names})
    if any('"' in name and "'" in name for name in names):
        try:
            text = write_star({"particles": table})
        except RequestError:
            return
    else:
        text = write_star({"particles": table})
    assert read_star(text)["particles"]["rlnTomoName"].tolist() == names


@pytest.mark.parametrize("name", ["a\nb", "a\rb", "a \"b' c"])
def test_a_text_that_no_quote_holds_is_refused(name: str) -> None:
    with pytest.raises(RequestError, match="cannot be written"):
        write_star({"particles": pd.DataFrame({"rlnTomoName": [name]})})
