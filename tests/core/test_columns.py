from dataclasses import dataclass

import numpy as np
import pytest

from tomoseg.core.columns import Columns, column


@dataclass(frozen=True, eq=False)
class Picks(Columns):
    """A table of two columns."""

    index: np.ndarray = column(np.int32, 3)
    score: np.ndarray = column(np.float32)


def picks(*scores):
    index = np.repeat(np.arange(len(scores), dtype=np.int32)[:, None], 3, axis=1)
    return Picks(index, np.array(scores, np.float32))


def test_nothing_has_the_types_and_shapes_of_something():
    for nothing in (Picks.none(), Picks.concatenate([])):
        assert len(nothing) == 0
        for name, values in picks(1, 2).as_dict().items():
            empty = nothing.as_dict()[name]
            assert (empty.dtype, empty.shape[1:]) == (values.dtype, values.shape[1:])


def test_rows_are_joined_and_taken_in_the_order_asked_for():
    table = Picks.concatenate([picks(1, 2), Picks.none(), picks(3)])
    assert table.score.tolist() == [1, 2, 3]
    assert table.index[:, 0].tolist() == [0, 1, 0]
    assert table.select(np.array([2, 0])).score.tolist() == [3, 1]
    assert table.select(table.score > 1).index.tolist() == [[1, 1, 1], [0, 0, 0]]


def test_a_file_with_more_columns_is_read_and_one_with_fewer_refused(tmp_path):
    np.savez(tmp_path / "a.npz", **picks(1, 2).as_dict(), more=np.zeros(2))
    with np.load(tmp_path / "a.npz") as arrays:
        assert Picks.from_dict(arrays).score.tolist() == [1, 2]
    with pytest.raises(KeyError, match="index"):
        Picks.from_dict({"score": np.zeros(2)})
