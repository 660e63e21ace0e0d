"""RELION-5 tables: the worked example, and everything there and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import starfile
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from tomoseg.core.coordinates import Filament, Particles, frames, resample
from tomoseg.core.errors import FormatError, RequestError
from tomoseg.core.sampling import Sampling
from tomoseg.io.points.angles import relion_angles, relion_orientations
from tomoseg.io.points.dialects import READ_AS_IS, ReadOptions, TomoContext
from tomoseg.io.points.relion import (
    PARTICLE_ANGLES,
    SUBTOMOGRAM_ANGLES,
    filaments_table,
    optics_table,
    optimisation_set_table,
    particles_table,
    tomograms_table,
)
from tomoseg.io.points.relion_reader import CENTRED, read_relion
from tomoseg.io.points.star import read_star, write_star

GRID = Sampling((100, 250, 240), (10.0, 10.0, 10.0))
BIN4 = TomoContext("TS_01", GRID, 2.5, (960, 1000, 400))
LINE = Filament("microtubule", 1, GRID.to_angstrom([(40, 100.5, 60.25), (44.8, 106.9, 66.25)]))
ALONG_XYZ = np.array([0.6, 0.64, 0.48])


def arc(number: int, name: str = "microtubule") -> Filament:
    """A quarter of a circle of radius 500 Å in a slanted plane, in steps of about 4 Å."""
    turn = np.linspace(0, np.pi / 2, 200)
    points = 500 * np.stack([0.6 * np.sin(turn), np.cos(turn), 0.8 * np.sin(turn)], axis=1)
    return Filament(name, number, np.add(points, (300.0, 900.0, 1200.0 + 50 * number)))


def filaments_of(table: pd.DataFrame, name: str, *, context: TomoContext) -> list[Filament]:
    [found] = read_relion({"particles": table}, [context], name, READ_AS_IS)
    return list(found.filaments)


def particles_of(table: pd.DataFrame, name: str, *, context: TomoContext) -> Particles:
    """All rows, those of filaments too."""
    options = ReadOptions(lines=False)
    [found] = read_relion({"particles": table}, [context], name, options)
    return found.particles[0] if found.particles else Particles.at(name, np.empty((0, 3)))


def turns(count: int, seed: int = 3) -> np.ndarray:
    return Rotation.random(count, random_state=seed).as_matrix()


def test_the_worked_example_of_positions() -> None:
    table = filaments_table([LINE], context=BIN4, spacing_angstrom=100.0)
    assert table[CENTRED].to_numpy().tolist() == [
        [-597.5, -245.0, -100.0],
        [-537.5, -181.0, -52.0],
    ]


def test_the_worked_example_of_angles() -> None:
    table = filaments_table([LINE], context=BIN4, spacing_angstrom=100.0)
    for row in table[SUBTOMOGRAM_ANGLES].to_numpy():
        assert row == pytest.approx([-180, 28.685402, -46.847610], abs=5e-7)
    angles = relion_angles(frames(LINE.points_angstrom))
    assert angles[0] == pytest.approx([0, 61.314598, 133.152390], abs=5e-7)


def test_the_helical_columns_are_those_that_refinement_reads() -> None:
    table = filaments_table([LINE], context=BIN4, spacing_angstrom=50.0)
    assert (table["rlnTomoName"] == "TS_01").all()
    assert (table[PARTICLE_ANGLES].to_numpy() == [0, 90, 0]).all()
    assert (table["rlnAngleTiltPrior"] == 90).all() and (table["rlnAnglePsiPrior"] == 0).all()
    assert (table["rlnHelicalTubeID"] == 1).all()
    assert table["rlnHelicalTrackLengthAngst"].tolist() == pytest.approx([0, 50, 100])
    assert (table["rlnAnglePsiFlipRatio"] == 0.5).all()
    assert (table["rlnOpticsGroup"] == 1).all()


def test_both_triples_of_angles_multiply_to_the_frame() -> None:
    table = filaments_table([arc(1)], context=BIN4, spacing_angstrom=40.0)
    product = relion_orientations(table[SUBTOMOGRAM_ANGLES].to_numpy()) @ relion_orientations(
        table[PARTICLE_ANGLES].to_numpy()
    )
    np.testing.assert_allclose(product, frames(resample(arc(1).points_angstrom, 40.0)), atol=1e-9)


def test_the_direction_is_along_the_line() -> None:
    table = filaments_table([LINE], context=BIN4, spacing_angstrom=100.0)
    back = particles_of(table, "microtubule", context=BIN4)
    np.testing.assert_allclose(back.orientations[:, :, 2], [ALONG_XYZ] * 2, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "spacing"), [("microtubule", 82.0), ("actin", 27.5), ("other", 82.0)]
)
def test_the_spacing_is_that_of_the_class(name: str, spacing: float) -> None:
    table = filaments_table([arc(1, name)], context=BIN4)
    track = table["rlnHelicalTrackLengthAngst"].to_numpy()
    np.testing.assert_allclose(np.diff(track), spacing)
    assert len(track) == int(arc(1).length_angstrom // spacing) + 1


@pytest.mark.parametrize("spacing", [0.0, -5.0])
def test_a_spacing_not_positive_is_refused(spacing: float) -> None:
    with pytest.raises(RequestError, match="spacing"):
        filaments_table([LINE], context=BIN4, spacing_angstrom=spacing)


def test_half_sets_go_by_whole_filament() -> None:
    table = filaments_table([arc(5), arc(2), arc(9)], context=BIN4)
    halves = table.groupby("rlnHelicalTubeID", sort=False)["rlnRandomSubset"].unique()
    assert [list(half) for half in halves] == [[1], [2], [1]]


@pytest.mark.parametrize("numbers", [(0,), (-1,), (1, 1)])
def test_tube_ids_that_relion_refuses_are_refused(numbers: tuple[int, ...]) -> None:
    with pytest.raises(RequestError, match="unique and at least 1"):
        filaments_table([arc(n) for n in numbers], context=BIN4)


def test_a_line_shorter_than_the_spacing_has_one_segment_along_it() -> None:
    table = filaments_table([LINE], context=BIN4, spacing_angstrom=500.0)
    back = particles_of(table, "microtubule", context=BIN4)
    np.testing.assert_allclose(back.orientations[0, :, 2], ALONG_XYZ, atol=1e-9)
    assert filaments_of(table, "microtubule", context=BIN4) == []


def test_no_filaments_are_a_table_without_rows() -> None:
    empty = filaments_table([], context=BIN4)
    assert list(empty.columns) == list(filaments_table([LINE], context=BIN4).columns)
    assert len(empty) == 0
    assert filaments_of(empty, "microtubule", context=BIN4) == []


def test_filaments_come_back_from_the_text() -> None:
    text = write_star({"particles": filaments_table([arc(1), arc(4)], context=BIN4)})
    table = read_star(text)["particles"].sample(frac=1, random_state=1)  # RELION may reorder rows
    back = filaments_of(table, "microtubule", context=BIN4)
    assert [f.number for f in back] == [1, 4]
    for filament in back:
        expected = resample(arc(filament.number).points_angstrom, 82.0)
        np.testing.assert_allclose(filament.points_angstrom, expected, atol=1e-6)


def test_particles_come_back_from_the_text() -> None:
    points = np.random.default_rng(2).uniform(0, 900, (50, 3))
    particles = Particles("ribosome", points, np.linspace(0, 1, 50), turns(50))
    table = read_star(write_star({"particles": particles_table(particles, context=BIN4)}))
    back = particles_of(table["particles"], "ribosome", context=BIN4)
    np.testing.assert_allclose(back.points_angstrom, points, atol=1e-6)
    np.testing.assert_allclose(back.scores, particles.scores, atol=1e-6)
    np.testing.assert_allclose(back.orientations, particles.orientations, atol=1e-7)


def test_particles_tell_one_story_of_their_angles() -> None:
    table = particles_table(Particles.at("ribosome", LINE.points_angstrom), context=BIN4)
    assert not set(SUBTOMOGRAM_ANGLES) & set(table.columns)
    assert not [column for column in table if "Helical" in column]
    assert "rlnAutopickFigureOfMerit" not in table


def test_no_particles_are_a_table_without_rows() -> None:
    table = particles_table(Particles.at("ribosome", np.empty((0, 3))), context=BIN4)
    assert len(table) == 0
    assert len(particles_of(table, "ribosome", context=BIN4)) == 0


def test_other_tomograms_are_refused() -> None:
    other = TomoContext("TS_02", GRID)
    table = particles_table(Particles.at("ribosome", LINE.points_angstrom), context=BIN4)
    with pytest.raises(FormatError, match="rlnTomoName names TS_01, and none alone is TS_02"):
        particles_of(table, "ribosome", context=other)


def test_a_refined_shift_is_subtracted_in_the_axes_of_the_subtomogram() -> None:
    table = filaments_table([LINE], context=BIN4, spacing_angstrom=100.0)
    table["rlnOriginXAngst"] = -7.0  # along the filament, which lies along x of the subtomogram
    moved = particles_of(table, "microtubule", context=BIN4).points_angstrom
    shift = (moved - LINE.points_angstrom)[:, ::-1]
    subtomogram_x = relion_orientations(table[SUBTOMOGRAM_ANGLES].to_numpy())[:, :, 0]
    np.testing.assert_allclose(shift, 7.0 * subtomogram_x, atol=1e-6)
    assert abs(abs(shift[0] @ ALONG_XYZ) - 7.0) < 1e-6


@pytest.mark.parametrize("column", CENTRED)
def test_a_missing_column_is_named(column: str) -> None:
    table = particles_table(Particles.at("ribosome", LINE.points_angstrom), context=BIN4)
    with pytest.raises(FormatError, match=column):
        particles_of(table.drop(columns=column), "ribosome", context=BIN4)


def test_without_a_tilt_series_the_tomogram_counts_as_unbinned() -> None:
    context = TomoContext("TS_01", GRID)
    assert context.pixel_angstrom == 10.0
    assert context.size_xyz == (240, 250, 100)
    table = particles_table(Particles.at("x", LINE.points_angstrom[:1]), context=context)
    assert table[CENTRED].to_numpy().tolist() == [[-597.5, -245.0, -100.0]]


def test_the_centre_of_other_programs_is_an_option() -> None:
    context = TomoContext("TS_01", GRID, 2.5, (960, 1000, 400), centre_shift_pixels=-1)
    table = particles_table(Particles.at("x", LINE.points_angstrom[:1]), context=context)
    assert table[CENTRED].to_numpy().tolist() == [[-595.0, -242.5, -97.5]]


def test_an_odd_size_is_noted() -> None:
    assert BIN4.notes == ()
    context = TomoContext("TS_01", GRID, 2.5, (960, 1001, 400))
    assert "1.25 Å" in context.notes[0]


@pytest.mark.parametrize(
    ("values", "fact"),
    [
        (("", GRID), "one word"),
        (("TS 01", GRID), "one word"),
        (("TS_01", GRID, 2.5), "one is missing"),
        (("TS_01", GRID, None, (960, 1000, 400)), "one is missing"),
        (("TS_01", GRID, 0.0, (960, 1000, 400)), "must be positive"),
        (("TS_01", GRID, 2.5, (960, 1000, 0)), "must be positive"),
        (("TS_01", GRID.binned(2)), "source's grid"),
    ],
)
def test_a_context_that_relion_would_misread_is_refused(values: tuple, fact: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(RequestError, match=fact):
        TomoContext(*values)


def test_the_tables_beside_are_read_by_starfile(tmp_path: Path) -> None:
    path = tmp_path / "all.star"
    path.write_text(
        write_star(
            {
                "optics": optics_table(BIN4),
                "particles": filaments_table([LINE], context=BIN4),
                "global": tomograms_table([BIN4, TomoContext("002", GRID)]),
                "optimisation_set": optimisation_set_table("particles.star", "tomograms.star"),
            }
        )
    )
    blocks = starfile.read(path, parse_as_string=["rlnTomoName"])
    assert blocks["optics"]["rlnTomoTiltSeriesPixelSize"].tolist() == [2.5]
    tomograms = blocks["global"]
    assert tomograms["rlnTomoName"].tolist() == ["TS_01", "002"]
    assert tomograms["rlnTomoTomogramBinning"].tolist() == [4.0, 1.0]
    assert tomograms[["rlnTomoSizeX", "rlnTomoSizeY", "rlnTomoSizeZ"]].to_numpy().tolist() == [
        [960, 1000, 400],
        [240, 250, 100],
    ]
    assert blocks["optimisation_set"]["rlnTomoParticlesFile"].tolist() == ["particles.star"]
    assert len(blocks["particles"]) == 2


def test_angles_equal_those_of_scipy() -> None:
    matrices = turns(200)
    expected = Rotation.from_matrix(matrices).inv().as_euler("ZYZ", degrees=True)
    np.testing.assert_allclose(relion_angles(matrices), expected, atol=1e-8)


@given(
    st.lists(
        st.tuples(
            st.floats(-180, 180),
            st.one_of(st.sampled_from([0.0, 90.0, 180.0]), st.floats(0, 180)),
            st.floats(-180, 180),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_angles_come_back_as_the_same_orientation(angles: list[tuple[float, float, float]]) -> None:
    matrices = relion_orientations(np.array(angles))
    again = relion_angles(matrices)
    np.testing.assert_allclose(relion_orientations(again), matrices, atol=1e-8)
    assert (again[:, [0, 2]] >= -180).all() and (again[:, [0, 2]] < 180).all()
    assert (again[:, 1] >= 0).all() and (again[:, 1] <= 180).all()
