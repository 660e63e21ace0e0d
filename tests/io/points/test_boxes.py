"""Boxes of crYOLO and EMAN, see also tests of picks."""

from __future__ import annotations

import numpy as np
import pytest

from tomoseg.core.coordinates import Filament
from tomoseg.core.errors import FormatError
from tomoseg.core.sampling import Sampling
from tomoseg.io.points.dialects import ReadOptions, TomoContext, TomogramPoints
from tomoseg.io.points.picks import read_points

TOMOGRAM = TomoContext("TS_01", Sampling((60, 200, 200), (10.0, 10.0, 10.0)))
MICROGRAPH = TomoContext("m", Sampling((1, 200, 200), (10.0, 10.0, 10.0)))
HEAD = "data_global\n\n_cbox_format_version 1.0\n"
BOX = "_CoordinateX #1\n_CoordinateY #2\n"


def read(
    text: str, context: TomoContext, name: str = "TS_01.cbox", **options: object
) -> TomogramPoints:
    [found] = read_points(text.encode(), name, [context], ReadOptions(**options))  # type: ignore[arg-type]
    return found


def filaments(columns: str, blocks: dict[str, list[tuple[float, ...]]]) -> str:
    parts = [HEAD]
    for name, rows in blocks.items():
        lines = "\n".join(" ".join(map(str, row)) for row in rows)
        parts.append(f"\ndata_{name}\n\nloop_\n{columns}{lines}\n")
    return "".join(parts)


def test_boxes_in_three_dimensions_stand_at_their_own_z() -> None:
    text = (
        f"{HEAD}\ndata_cryolo\n\nloop_\n{BOX}_CoordinateZ #3\n_Width #4\n_Height #5\n_Depth #6\n"
        "_Confidence #7\n100.0 50.0 25.0 20.0 20.0 20.0 0.9\n60.5 150.2 30.5 20.0 20.0 20.0 0.8\n"
    )
    found = read(text, TOMOGRAM)
    [picks] = found.particles
    np.testing.assert_allclose(picks.points_angstrom, [[250, 600, 1100], [305, 1602, 705]])
    assert picks.scores.tolist() == [0.9, 0.8]
    assert found.told() == (
        "TS_01: 2 particles; block data_cryolo; pixels taken as its own of 10 Å "
        "(--pixel-size changes it)"
    )


ENDS = [(20, 30, 0.0), (120, 30, 0.0), (40, 100, 1.0), (40, 180, 1.0)]
DENSE = [(20, 30, 0.0), (70, 30, 0.0), (120, 30, 0.0), (40, 100, 1.0), (40, 140, 1), (40, 180, 1)]


LINES = [[[20, 30], [70, 30], [120, 30]], [[40, 100], [40, 140], [40, 180]]]


def on_edges(rows: list[tuple[float, ...]]) -> list[tuple[float, ...]]:
    return [(x - 10, y - 10, number, 20, 20) for x, y, number in rows]


COLUMNS = f"{BOX}_filamentid #3\n_Width #4\n_Height #5\n"
BLOCKS = {"filament_vertices": on_edges(ENDS), "cryolo": on_edges(DENSE)}


def lines_xy(found: TomogramPoints) -> list[list[list[float]]]:
    return [(line.points_angstrom[:, :0:-1] / 10).tolist() for line in found.filaments]


def test_filaments_are_those_of_block_cryolo_wherever_it_stands() -> None:
    for blocks in (BLOCKS, dict(reversed(BLOCKS.items()))):
        found = read(filaments(COLUMNS, blocks), MICROGRAPH, "m.cbox")
        assert not found.particles
        assert [line.number for line in found.filaments] == [1, 2]
        assert lines_xy(found) == [
            [[20, 30], [70, 30], [120, 30]],
            [[40, 100], [40, 140], [40, 180]],
        ]
        assert "block data_cryolo, not data_filament_vertices (--block takes another)" in found.says


def test_another_block_is_taken_where_that_is_said() -> None:
    found = read(filaments(COLUMNS, BLOCKS), MICROGRAPH, "m.cbox", block="filament_vertices")
    assert lines_xy(found) == [[[20, 30], [120, 30]], [[40, 100], [40, 180]]]
    with pytest.raises(FormatError, match="'x'; those that have are data_filament_vertices,"):
        read(filaments(COLUMNS, BLOCKS), MICROGRAPH, "m.cbox", block="x")


def test_filaments_lie_in_three_dimensions_too() -> None:
    columns = f"{BOX}_CoordinateZ #3\n_Width #4\n_Height #5\n_Depth #6\n_filamentid #7\n"
    rows = [(10.0, 20, z, 20, 20, 20, 0) for z in (5, 15, 25)]
    found = read(filaments(columns, {"cryolo": rows}), TOMOGRAM)
    [line] = found.filaments
    np.testing.assert_allclose(line.points_angstrom, [[z, 300, 200] for z in (50, 150, 250)])


def test_a_box_without_a_filament_and_one_alone_are_particles() -> None:
    rows = [*on_edges(ENDS[:2]), (5, 5, "<NA>", 20, 20), (50, 50, 7, 20, 20)]
    found = read(filaments(COLUMNS, {"cryolo": rows}), MICROGRAPH, "m.cbox")
    assert len(found.filaments) == 1
    assert sum(map(len, found.particles)) == 2


def test_filaments_of_cryolos_star_are_filaments() -> None:
    columns = "_rlnCoordinateX #1\n_rlnCoordinateY #2\n_filamentid #3\n"
    text = filaments(columns, {"": DENSE}).removeprefix(HEAD)
    found = read(text, MICROGRAPH, "m.star")
    assert lines_xy(found) == LINES


def test_the_pixel_of_boxes_may_be_said() -> None:
    rows = [(10, 20, 0, 20, 20), (30, 20, 0, 20, 20)]
    found = read(
        filaments(COLUMNS, {"cryolo": rows}), MICROGRAPH, "m.cbox", pixel_size_angstrom=5.0
    )
    assert isinstance(found.filaments[0], Filament)
    assert found.filaments[0].points_angstrom.tolist() == [[0, 150, 100], [0, 150, 200]]
    assert "pixels of 5 Å, as --pixel-size says" in found.says


def test_a_file_called_after_another_tomogram_is_said() -> None:
    found = read(filaments(COLUMNS, {"cryolo": on_edges(ENDS)}), MICROGRAPH, "n.cbox")
    assert found.says[0] == "the rows name no tomogram, and the file is called n"
