"""CSV tables of filaments and particles."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tomoseg.core.coordinates import Filament, Particles
from tomoseg.core.errors import FormatError
from tomoseg.core.sampling import Sampling
from tomoseg.io.points.tables import (
    FILAMENT_COLUMNS,
    PARTICLE_COLUMNS,
    POLARITY,
    filaments_csv,
    particles_csv,
    read_filaments_csv,
    read_particles_csv,
)

GRID = Sampling((100, 250, 240), (10.0, 10.0, 10.0))
FILAMENTS = [
    Filament("microtubule", 7, np.array([[400.0, 1005.0, 602.5], [448.0, 1069.0, 662.5]]), 0.75),
    Filament(
        "actin, thin",
        1,
        np.array([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0], [2.0, 4.0, 6.0]]),
        polarity_known=True,
    ),
    Filament("NA", 7, np.array([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]])),
]
PARTICLES = [
    Particles(
        "ribosome",
        np.array([[400.0, 1005.0, 602.5], [1.0, 2.0, 3.0]]),
        np.array([0.5, np.nan]),
        Rotation.random(2, random_state=1).as_matrix(),
    ),
    Particles.at("apo-ferritin", np.array([[5.0, 6.0, 7.0]])),
]


def test_filaments_come_back() -> None:
    back = read_filaments_csv(filaments_csv(FILAMENTS, GRID))
    assert [(f.name, f.number) for f in back] == [(f.name, f.number) for f in FILAMENTS]
    for ours, theirs in zip(back, FILAMENTS, strict=True):
        np.testing.assert_allclose(ours.points_angstrom, theirs.points_angstrom, atol=1e-6)
        assert ours.score == pytest.approx(theirs.score, nan_ok=True)
    assert [f.polarity_known for f in back] == [False, True, False]


def test_tables_of_earlier_versions_say_nothing_of_the_polarity() -> None:
    lines = filaments_csv(FILAMENTS, GRID).splitlines()
    assert lines[3].endswith(",,1")  # a row of the second line: no score, polarity known
    earlier = "\n".join(line.rpartition(",")[0] for line in lines)
    back = read_filaments_csv(earlier)
    assert [f.name for f in back] == [f.name for f in FILAMENTS]
    assert not any(f.polarity_known for f in back)


def test_particles_come_back() -> None:
    back = read_particles_csv(particles_csv(PARTICLES, GRID))
    assert [p.name for p in back] == ["ribosome", "apo-ferritin"]
    for ours, theirs in zip(back, PARTICLES, strict=True):
        np.testing.assert_allclose(ours.points_angstrom, theirs.points_angstrom, atol=1e-6)
        np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-6)
        np.testing.assert_allclose(ours.orientations, theirs.orientations, atol=1e-6)


def test_a_row_holds_voxels_and_angstrom() -> None:
    row = next(csv.DictReader(io.StringIO(filaments_csv(FILAMENTS, GRID))))
    assert list(row) == [*FILAMENT_COLUMNS, POLARITY]
    assert row["class"] == "microtubule" and row["filament"] == "7" and row["point"] == "1"
    assert [float(row[f"{axis}_voxel"]) for axis in "zyx"] == [40.0, 100.5, 60.25]
    assert [float(row[f"{axis}_angstrom"]) for axis in "zyx"] == [400.0, 1005.0, 602.5]
    assert float(row["track_angstrom"]) == 0.0 and float(row["score"]) == 0.75


def test_the_axes_of_a_particle_are_named() -> None:
    row = next(csv.DictReader(io.StringIO(particles_csv(PARTICLES, GRID))))
    assert list(row) == PARTICLE_COLUMNS
    z_axis = [float(row[f"zaxis_{component}"]) for component in "xyz"]
    np.testing.assert_allclose(z_axis, PARTICLES[0].orientations[0, :, 2], atol=1e-6)


def test_an_unknown_score_is_an_empty_field() -> None:
    rows = list(csv.DictReader(io.StringIO(particles_csv(PARTICLES, GRID))))
    assert [row["score"] for row in rows] == ["0.500000", "", ""]


def test_no_objects_are_a_header_alone() -> None:
    assert filaments_csv([], GRID) == ",".join([*FILAMENT_COLUMNS, POLARITY]) + "\n"
    assert particles_csv([], GRID) == ",".join(PARTICLE_COLUMNS) + "\n"
    assert read_filaments_csv(filaments_csv([], GRID)) == []
    assert read_particles_csv(particles_csv([], GRID)) == []


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("", "cannot be read"),
        ("class,filament\nmicrotubule,1\n", "lacks the columns point"),
        (filaments_csv(FILAMENTS, GRID).replace("400.000000", "far"), "cannot be read"),
        (filaments_csv(FILAMENTS, GRID).replace("400.000000", ""), "cannot be read"),
        (filaments_csv(FILAMENTS, GRID).replace(",,1\n", ",,plus\n"), "cannot be read"),
    ],
    ids=["empty", "other columns", "not a number", "nothing", "no polarity"],
)
def test_broken_tables_are_refused(text: str, fact: str) -> None:
    with pytest.raises(FormatError, match=fact):
        read_filaments_csv(text)
