"""Which tables that annotate are of filaments, whoever wrote them."""

import pytest

from tomoseg.training.annotations.tables import holds_lines

CBOX = "data_cryolo\n\nloop_\n_CoordinateX #1\n_CoordinateY #2\n_Width #3\n_Height #4\n{}"


@pytest.mark.parametrize(
    ("name", "content", "are_lines"),
    [
        ("a.csv", "x,y,z\n1,2,3\n", False),
        ("a.csv", "class,filament,point,z_angstrom,y_angstrom,x_angstrom\na,1,0,1,2,3\n", True),
        ("a.cbox", CBOX.format("1 2 4 4\n5 6 4 4\n"), False),
        ("a.cbox", CBOX.format("_filamentid #5\n1 2 4 4 0\n5 6 4 4 0\n"), True),
    ],
)
def test_lines_are_told_from_points(tmp_path, name, content, are_lines):
    (tmp_path / name).write_text(content)
    assert holds_lines(str(tmp_path / name)) == are_lines
