"""EMAN2's info files: positions as EMAN2's own programs compute them, and there and back."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tomoseg.core.coordinates import Filament, Particles
from tomoseg.core.errors import FormatError, RequestError
from tomoseg.core.sampling import Sampling
from tomoseg.io.points.dialects import TomoContext, TomogramPoints, WriteOptions
from tomoseg.io.points.eman2 import Eman2

# An odd size, whose middle EMAN2 rounds down.
GRID = Sampling((101, 250, 240), (10.0, 10.0, 10.0))
BIN4 = TomoContext("TS_01", GRID, 2.5, (960, 1000, 404))
VOXELS = [(40, 100.5, 60.25), (44.8, 106.9, 66.25)]
LINE = Filament("microtubule", 3, GRID.to_angstrom(VOXELS))
ACTIN = Filament("actin", 1, GRID.to_angstrom([(9, 9, 9), (0, 0, 0), (1, 2, 3)]))
RIBOSOMES = Particles.at("ribosome", GRID.to_angstrom(VOXELS), np.array([0.25, 0.75]))
UNSCORED = Particles.at("proteasome", GRID.to_angstrom([(50, 125, 120)]))
ALL = TomogramPoints(BIN4, [LINE, ACTIN], [RIBOSOMES, UNSCORED])
OPTIONS = WriteOptions(radius_angstrom={"ribosome": 126.0})


def written(points: TomogramPoints = ALL) -> bytes:
    files = Eman2().write([points], "info/TS_01", OPTIONS)
    assert list(files) == ["info/TS_01_info.json"]
    return files["info/TS_01_info.json"]


def read(data: bytes | dict[str, Any], context: TomoContext = BIN4) -> TomogramPoints:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    (found,) = Eman2().read(raw, [context], name="unnamed")
    return found


def test_boxes_are_from_the_middle_in_unbinned_pixels() -> None:
    info = json.loads(written())
    assert info["apix_unbin"] == 2.5
    # Worked by hand: (60.25 - 120) · 4, (100.5 - 125) · 4, (40 - 50) · 4.
    assert info["boxes_3d"][0] == [-239.0, -98.0, -40.0, "tomoseg", 0.25, 0]
    # The middle voxel itself; an unknown score.
    assert info["boxes_3d"][2] == [0.0, 0.0, 0.0, "tomoseg", 0.0, 1]
    assert info["class_list"] == {
        "0": {"name": "ribosome", "boxsize": 102},
        "1": {"name": "proteasome", "boxsize": 64},
    }


def test_curves_are_alike_with_their_number_and_class() -> None:
    info = json.loads(written())
    assert info["curves"][0] == [-239.0, -98.0, -40.0, 3, 0]
    assert info["curves"][2][3:] == [1, 1]
    assert [point[4] for point in info["curves"]] == [0, 0, 1, 1, 1]


def test_eman2_finds_the_voxels_in_a_volume_of_any_binning() -> None:
    """As e2spt_boxer.py opens a tomogram: it scales, and adds half the size, rounded down."""
    for x, y, z, *_ in json.loads(written())["boxes_3d"][:2]:
        voxels = [
            position / 10.0 * 2.5 + size // 2
            for position, size in zip((z, y, x), GRID.shape, strict=True)
        ]
        assert tuple(voxels) in VOXELS


def test_points_come_back() -> None:
    found = read(written())
    assert [(f.name, f.number) for f in found.filaments] == [("microtubule", 3), ("actin", 1)]
    for filament, expected in zip(found.filaments, [LINE, ACTIN], strict=True):
        np.testing.assert_allclose(filament.points_angstrom, expected.points_angstrom, atol=1e-9)
    ribosomes, unscored = found.particles
    np.testing.assert_allclose(ribosomes.points_angstrom, RIBOSOMES.points_angstrom, atol=1e-9)
    assert ribosomes.scores.tolist() == [0.25, 0.75]
    assert unscored.name == "proteasome" and np.isnan(unscored.scores).all()


def test_a_tomogram_without_a_tilt_series_counts_as_unbinned() -> None:
    context = TomoContext("a", GRID)
    data = written(TomogramPoints(context, [], [RIBOSOMES]))
    info = json.loads(data)
    assert info["apix_unbin"] == 10.0 and info["boxes_3d"][0][0] == -59.75
    back = read(data, context).particles[0].points_angstrom
    np.testing.assert_allclose(back, RIBOSOMES.points_angstrom)


def test_the_pixel_of_the_file_counts_not_that_of_the_tomogram() -> None:
    found = read({"apix_unbin": "5.0", "boxes_3d": [[10, 20, -30, "manual"]]})
    voxels = GRID.to_voxels(found.particles[0].points_angstrom)
    assert voxels.tolist() == [[35.0, 135.0, 125.0]]


def test_nothing_is_an_empty_file_of_the_tomogram() -> None:
    found = read(written(TomogramPoints(BIN4)))
    assert found.filaments == [] and found.particles == []


# As EMAN2 itself writes them.


def test_a_file_of_eman2_with_fewer_and_further_fields_and_keys_is_read() -> None:
    found = read(
        {
            "apix_unbin": 2.5,
            "tlt_params": [[0.0] * 5],
            "class_list": {"2": {"name": "ribo 70S", "boxsize": 128}},
            "boxes_3d": [
                [0, 0, 0],
                [4, 0, 0, "manual", 0.0, 1],
                [8, 0, 0, "tm", 5.5, 2, 7],
                [9, 0, 0, "tm", 0.5, 2],
            ],
            "curves": [[0, 0, 0, 0], [4, 0, 0, 0], [0, 0, 0, 1], [0, 4, 0, 1]],
        }
    )
    assert [(p.name, len(p)) for p in found.particles] == [
        ("unnamed", 1),
        ("unnamed_01", 1),
        ("ribo 70S", 2),
    ]
    # A merit that is no share 0..1 is unknown.
    np.testing.assert_array_equal(found.particles[2].scores, [np.nan, 0.5])
    assert [(f.name, f.number) for f in found.filaments] == [("unnamed", 1), ("unnamed", 2)]
    assert found.filaments[0].length_angstrom == pytest.approx(10.0)


def test_curves_do_not_take_the_names_of_boxes() -> None:
    """EMAN2 numbers the classes of both from 0, each for itself."""
    found = read(
        {
            "apix_unbin": 1,
            "class_list": {"0": {"name": "ribosome"}},
            "curves": [[0, 0, 0, 5, 0], [1, 0, 0, 5, 0]],
        }
    )
    assert [(f.name, f.number) for f in found.filaments] == [("unnamed", 5)]


REFUSED: dict[str, tuple[bytes | dict[str, Any], str]] = {
    "no JSON": (b"data_particles\n", "no JSON"),
    "cut": (written()[:200], "no JSON"),
    "no text": (b"\xff\xfe\x00\xd8", "no JSON"),
    "deep": (b"[" * 200_000, "no JSON"),
    "a list": (b"[]", "JSON object"),
    "no pixel": ({"boxes_3d": []}, "no apix_unbin"),
    "pixel 0": ({"apix_unbin": 0}, "must be positive"),
    "pixel no number": ({"apix_unbin": [1]}, "apix_unbin"),
    "boxes no list": ({"apix_unbin": 1, "boxes_3d": {}}, "boxes_3d of the info file is no list"),
    "box of two": ({"apix_unbin": 1, "boxes_3d": [[1, 2]]}, "item 0 of boxes_3d has no 3 fields"),
    "box of words": ({"apix_unbin": 1, "boxes_3d": [["a", 2, 3]]}, "boxes_3d of the info file"),
    "box not finite": (b'{"apix_unbin": 1, "boxes_3d": [[NaN, 2, 3]]}', "not finite"),
    "half a class": ({"apix_unbin": 1, "boxes_3d": [[1, 2, 3, "m", 0, 0.5]]}, "0.5 is no number"),
    "class of words": ({"apix_unbin": 1, "boxes_3d": [[1, 2, 3, "m", 0, "x"]]}, "a class or curve"),
    "curve without id": ({"apix_unbin": 1, "curves": [[1, 2, 3]]}, "item 0 of curves has no 4"),
    "curve of one point": ({"apix_unbin": 1, "curves": [[1, 2, 3, 0]]}, "curve 0 .* one point"),
    "classes no table": ({"apix_unbin": 1, "class_list": []}, "class_list .* does not map"),
    "class not numbered": ({"apix_unbin": 1, "class_list": {"a": {}}}, "class_list .* not map"),
    "class not named": ({"apix_unbin": 1, "class_list": {"0": {}}}, "class 0 .* no name"),
}


@pytest.mark.parametrize(("data", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_wrong_and_missing_fields_are_named(data: bytes | dict[str, Any], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read(data)


def test_an_info_file_is_of_one_tomogram() -> None:
    with pytest.raises(RequestError, match="one tomogram"):
        Eman2().read(written(), [], name="x")


ATOM = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
ROWS = st.lists(st.lists(ATOM | st.integers(-9, 9), min_size=2, max_size=7), max_size=4)
CLASSES = st.dictionaries(
    st.text(max_size=2) | st.just("0"), ATOM | st.fixed_dictionaries({"name": ATOM}), max_size=3
)


@settings(max_examples=150, derandomize=True)
@given(apix=ATOM | st.just(2.5), boxes=ROWS | ATOM, curves=ROWS | ATOM, classes=CLASSES | ATOM)
def test_any_json_gives_points_or_a_named_error(
    apix: object, boxes: object, curves: object, classes: object
) -> None:
    info = {"apix_unbin": apix, "boxes_3d": boxes, "curves": curves, "class_list": classes}
    with contextlib.suppress(FormatError):
        read(info)
