"""RELION 5, RELION 4 and Warp as dialects: against the starfile library and the worked example."""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
import pandas as pd
import pytest
import starfile
from scipy.spatial.transform import Rotation

from tomoseg.core.coordinates import Filament, Particles, frames, resample
from tomoseg.core.errors import FormatError, RequestError
from tomoseg.core.sampling import Sampling
from tomoseg.io.points.dialects import TomoContext, TomogramPoints, WriteOptions
from tomoseg.io.points.relion import Relion5
from tomoseg.io.points.relion_pixels import Relion4, Warp
from tomoseg.io.points.star import read_star, write_star

GRID = Sampling((100, 250, 240), (10.0, 10.0, 10.0))
BIN4 = TomoContext("TS_01", GRID, 2.5, (960, 1000, 400))
OTHER = TomoContext("002", Sampling((60, 90, 80), (13.6,) * 3), 3.4, (320, 360, 240))
LINE = Filament("microtubule", 1, GRID.to_angstrom([(40, 100.5, 60.25), (44.8, 106.9, 66.25)]))
OPTIONS = WriteOptions({"microtubule": 100.0})
ALL = [Relion5(), Relion4(), Warp()]
EACH = pytest.mark.parametrize("dialect", ALL, ids=lambda dialect: dialect.name)
PIXELS = [f"rlnCoordinate{axis}" for axis in "XYZ"]
CENTRED = [f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ"]
ANGLES = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]


def arc(number: int, *, polarity_known: bool = False) -> Filament:
    """A quarter of a circle of radius 500 Å in a slanted plane."""
    turn = np.linspace(0, np.pi / 2, 200)
    points = 500 * np.stack([0.6 * np.sin(turn), np.cos(turn), 0.8 * np.sin(turn)], axis=1)
    return Filament(
        "microtubule", number, np.add(points, (60, 90, 70 + 20 * number)), 0.5, polarity_known
    )


def ribosomes(count: int, seed: int) -> Particles:
    rng = np.random.default_rng(seed)
    turns = Rotation.random(count, random_state=seed).as_matrix()
    return Particles("ribosome", rng.uniform(0, 500, (count, 3)), rng.uniform(0, 1, count), turns)


LINES = [TomogramPoints(BIN4, [LINE, arc(7)]), TomogramPoints(OTHER, [arc(1)])]
PICKS = [
    TomogramPoints(BIN4, particles=[ribosomes(30, 1)]),
    TomogramPoints(OTHER, particles=[ribosomes(20, 2)]),
]


def written(dialect: Any, points: list[TomogramPoints]) -> dict[str, bytes]:
    files = dialect.write(points, "a/all__class", OPTIONS)
    assert all(path.startswith("a/all__class") for path in files)
    return files


def by_starfile(data: bytes) -> dict[str, pd.DataFrame]:
    names = ["rlnTomoName", "rlnMicrographName"]
    with tempfile.NamedTemporaryFile(suffix=".star") as file:
        file.write(data)
        file.flush()
        blocks: dict[str, pd.DataFrame] = starfile.read(
            file.name, always_dict=True, parse_as_string=names
        )
    return blocks


def particles(dialect: Any, points: list[TomogramPoints]) -> pd.DataFrame:
    return by_starfile(written(dialect, points)["a/all__class.star"])["particles"]


def matrices(table: pd.DataFrame, columns: list[str] = ANGLES) -> np.ndarray:
    return Rotation.from_euler("ZYZ", table[columns], degrees=True).inv().as_matrix()


def changed(dialect: Any, points: list[TomogramPoints], **columns: Any) -> bytes:
    """What is written, with columns changed, or left out where None."""
    blocks = read_star(written(dialect, points)["a/all__class.star"].decode())
    table = blocks["particles"]
    for column, values in columns.items():
        table = table.drop(columns=column) if values is None else table.assign(**{column: values})
    return write_star({**blocks, "particles": table}).encode()


@pytest.mark.parametrize(
    ("dialect", "columns", "wanted"),
    [
        (Relion5(), CENTRED, [-597.5, -245.0, -100.0]),
        (Relion4(), PIXELS, [241, 402, 160]),
        (Warp(), PIXELS, [60.25, 100.5, 40]),
    ],
    ids=["relion5", "relion4", "warp"],
)
def test_the_worked_example_of_positions(
    dialect: Any, columns: list[str], wanted: list[float]
) -> None:
    table = particles(dialect, [TomogramPoints(BIN4, [LINE])])
    assert table[columns].iloc[0].tolist() == wanted
    assert len(table) == 2


@pytest.mark.parametrize("dialect", [Relion4(), Warp()], ids=["relion4", "warp"])
def test_in_pixels_the_orientation_is_the_direction_and_priors_equal_it(dialect: Any) -> None:
    table = particles(dialect, [TomogramPoints(BIN4, [LINE])])
    assert table["rlnAngleTilt"].tolist() == pytest.approx([61.314598] * 2, abs=1e-6)
    assert table["rlnAnglePsi"].tolist() == pytest.approx([133.152390] * 2, abs=1e-6)
    assert table["rlnAngleTiltPrior"].tolist() == table["rlnAngleTilt"].tolist()
    assert table["rlnAnglePsiPrior"].tolist() == table["rlnAnglePsi"].tolist()
    assert not [column for column in table if "Subtomogram" in column]


@EACH
def test_the_helical_columns_are_complete(dialect: Any) -> None:
    table = particles(dialect, LINES)
    tubes = [*[1] * 2, *[7] * 8, *[1] * 8]
    assert table["rlnHelicalTubeID"].tolist() == tubes
    track = [0, 100, *range(0, 800, 100), *range(0, 800, 100)]
    assert table["rlnHelicalTrackLengthAngst"].tolist() == pytest.approx(track)
    assert (table["rlnAnglePsiFlipRatio"] == 0.5).all()
    assert table["rlnRandomSubset"].tolist() == [*[1] * 2, *[2] * 8, *[1] * 8]


@EACH
def test_half_sets_go_by_turns_over_tomograms_of_one_filament_each(dialect: Any) -> None:
    points = [TomogramPoints(context, [arc(1)]) for context in (BIN4, OTHER)]
    halves = particles(dialect, points)["rlnRandomSubset"].tolist()
    assert halves == [*[1] * 8, *[2] * 8]


@EACH
def test_a_known_polarity_is_an_ordinary_prior(dialect: Any) -> None:
    points = [TomogramPoints(BIN4, [arc(1, polarity_known=True), arc(2)])]
    assert particles(dialect, points)["rlnAnglePsiFlipRatio"].tolist() == [*[0.0] * 8, *[0.5] * 8]
    data = written(dialect, points)["a/all__class.star"]
    [back] = dialect.read(data, [BIN4], name="microtubule")
    assert [filament.polarity_known for filament in back.filaments] == [True, False]
    [back] = dialect.read(
        changed(dialect, points, rlnAnglePsiFlipRatio=None), [BIN4], name="microtubule"
    )
    assert not any(filament.polarity_known for filament in back.filaments)


@EACH
def test_starfile_reads_the_particles_where_they_are(dialect: Any) -> None:
    table = particles(dialect, PICKS)
    column = "rlnMicrographName" if dialect.name == "warp" else "rlnTomoName"
    ending = ".tomostar" if dialect.name == "warp" else ""
    for points in PICKS:
        [truth], context = points.particles, points.context
        rows = table[table[column] == context.tomo_name + ending]
        centre = np.array(context.size_xyz) / 2 * context.pixel_angstrom
        positions = {
            "relion5": lambda rows=rows, centre=centre: rows[CENTRED].to_numpy() + centre,
            "relion4": lambda rows=rows, c=context: rows[PIXELS].to_numpy() * c.pixel_angstrom,
            "warp": lambda rows=rows: rows[PIXELS].to_numpy() * rows[["rlnPixelSize"]].to_numpy(),
        }[dialect.name]()
        voxels = (positions[:, ::-1] - truth.points_angstrom) / context.sampling.voxel_angstrom
        assert abs(voxels).max() < 1e-3
        np.testing.assert_allclose(matrices(rows), truth.orientations, atol=1e-6)
        np.testing.assert_allclose(rows["rlnAutopickFigureOfMerit"], truth.scores, atol=1e-6)
        assert not [name for name in rows if "Helical" in name or "Prior" in name]


@EACH
def test_starfile_reads_the_frames_of_filaments(dialect: Any) -> None:
    table = particles(dialect, [TomogramPoints(BIN4, [arc(3)])])
    found = matrices(table)
    if dialect.name == "relion5":
        found = matrices(table, [f"rlnTomoSubtomogram{a}" for a in ("Rot", "Tilt", "Psi")]) @ found
    wanted = frames(resample(arc(3).points_angstrom, 100.0))
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@EACH
def test_filaments_of_a_session_come_back(dialect: Any) -> None:
    data = written(dialect, LINES)["a/all__class.star"]
    back = dialect.read(data, [OTHER, BIN4], name="microtubule")
    assert [each.context for each in back] == [OTHER, BIN4]
    for found, truth in zip(back, LINES[::-1], strict=True):
        assert not found.particles
        assert [f.number for f in found.filaments] == [f.number for f in truth.filaments]
        for one, other in zip(found.filaments, truth.filaments, strict=True):
            wanted = resample(other.points_angstrom, 100.0)
            np.testing.assert_allclose(one.points_angstrom, wanted, atol=1e-4)


@EACH
def test_particles_of_a_session_come_back(dialect: Any) -> None:
    data = written(dialect, PICKS)["a/all__class.star"]
    for found, truth in zip(dialect.read(data, [BIN4, OTHER], name="ribosome"), PICKS, strict=True):
        [[one], [other]] = found.particles, truth.particles
        np.testing.assert_allclose(one.points_angstrom, other.points_angstrom, atol=1e-4)
        np.testing.assert_allclose(one.orientations, other.orientations, atol=1e-6)
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-6)
        assert not found.filaments


@EACH
def test_nothing_found_is_a_table_without_rows(dialect: Any) -> None:
    empty = TomogramPoints(BIN4, particles=[Particles.at("ribosome", np.empty((0, 3)))])
    data = written(dialect, [empty])["a/all__class.star"]
    [back] = dialect.read(data, [BIN4], name="ribosome")
    assert not back.filaments and not back.particles


def test_the_tables_beside_name_every_tomogram() -> None:
    files = written(Relion5(), PICKS)
    assert set(files) == {
        "a/all__class.star",
        "a/all__class__tomograms.star",
        "a/all__class__optimisation_set.star",
    }
    tomograms = by_starfile(files["a/all__class__tomograms.star"])["global"]
    assert tomograms["rlnTomoName"].tolist() == ["TS_01", "002"]
    assert tomograms["rlnOpticsGroupName"].tolist() == ["opticsGroup1", "opticsGroup2"]
    named = by_starfile(files["a/all__class__optimisation_set.star"])["optimisation_set"]
    assert named["rlnTomoParticlesFile"].tolist() == ["a/all__class.star"]
    assert named["rlnTomoTomogramsFile"].tolist() == ["a/all__class__tomograms.star"]


@pytest.mark.parametrize("dialect", [Relion5(), Relion4()], ids=["relion5", "relion4"])
def test_tilt_series_of_one_pixel_are_one_optics_group(dialect: Any) -> None:
    blocks = by_starfile(written(dialect, PICKS)["a/all__class.star"])
    assert blocks["optics"]["rlnTomoTiltSeriesPixelSize"].tolist() == [2.5, 3.4]
    assert blocks["particles"]["rlnOpticsGroup"].tolist() == [1] * 30 + [2] * 20
    twin = TomoContext("TS_02", GRID, 2.5, (960, 1000, 400))
    pair = [PICKS[0], TomogramPoints(twin, particles=[ribosomes(5, 3)])]
    blocks = by_starfile(written(dialect, pair)["a/all__class.star"])
    assert blocks["optics"]["rlnTomoTiltSeriesPixelSize"].tolist() == [2.5]
    assert (blocks["particles"]["rlnOpticsGroup"] == 1).all()


def test_generations_of_relion_are_told_apart() -> None:
    assert b"# version 50001" in written(Relion5(), PICKS)["a/all__class.star"]
    assert b"# version 30001" in written(Relion4(), PICKS)["a/all__class.star"]


@EACH
@pytest.mark.parametrize("numbers", [(0,), (3, 3)])
def test_tube_ids_that_relion_refuses_are_not_written(
    dialect: Any, numbers: tuple[int, ...]
) -> None:
    with pytest.raises(RequestError, match="unique and at least 1"):
        written(dialect, [TomogramPoints(BIN4, [arc(n) for n in numbers])])


@EACH
def test_filaments_and_particles_are_not_mixed(dialect: Any) -> None:
    with pytest.raises(RequestError, match="one table"):
        written(dialect, [TomogramPoints(BIN4, [LINE], [ribosomes(2, 1)])])


@EACH
@pytest.mark.parametrize(
    ("columns", "fact"),
    [
        ({"rlnHelicalTubeID": 0}, "takes ids from 1"),
        ({"rlnHelicalTubeID": 1.5}, "not a whole number"),
        ({"rlnHelicalTrackLengthAngst": "far"}, "rlnHelicalTrackLengthAngst.* no number"),
        ({"rlnAngleRot": "x"}, "rlnAngleRot .*no number"),
        ({"rlnAngleTilt": np.nan}, "rlnAngleTilt .*not finite"),
        ({"rlnTomoName": "TS_99", "rlnMicrographName": "TS_99.tomostar"}, "TS_99, and none"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_wrong_columns_are_named(dialect: Any, columns: dict[str, Any], fact: str) -> None:
    data = changed(dialect, LINES, **columns)
    with pytest.raises(FormatError, match=fact):
        dialect.read(data, [BIN4, OTHER], name="microtubule")


@EACH
def test_a_filament_of_one_segment_comes_back_as_a_particle(dialect: Any) -> None:
    short = Filament("microtubule", 4, LINE.points_angstrom[0] + [(0, 0, 0), (0, 0, 60.0)])
    lines = [TomogramPoints(BIN4, [short, LINE]), TomogramPoints(OTHER, [short])]
    data = written(dialect, lines)["a/all__class.star"]
    both, alone = dialect.read(data, [BIN4, OTHER], name="microtubule")
    [line] = both.filaments
    assert (line.number, len(line.points_angstrom)) == (1, 2)
    assert not alone.filaments
    for [table] in (both.particles, alone.particles):
        assert table.name == "microtubule"
        np.testing.assert_allclose(table.points_angstrom, short.points_angstrom[:1], atol=1e-5)
        # Along the line, which lies along x.
        np.testing.assert_allclose(table.orientations[0, :, 2], [1, 0, 0], atol=1e-6)


@EACH
def test_missing_columns_are_named_and_extra_ones_ignored(dialect: Any) -> None:
    for column in CENTRED if dialect.name == "relion5" else PIXELS:
        with pytest.raises(FormatError, match=column):
            dialect.read(changed(dialect, PICKS, **{column: None}), [BIN4], name="ribosome")
    data = changed(dialect, PICKS, rlnUnheardOf="yes", rlnClassNumber=3)
    [back] = dialect.read(data, [BIN4], name="ribosome")
    assert len(back.particles[0]) == 30


@EACH
@pytest.mark.parametrize("data", [b"", b"hello", b"\xff\xfe\x00", b"data_x\n_a 1\n"])
def test_another_file_is_refused(dialect: Any, data: bytes) -> None:
    with pytest.raises(FormatError):
        dialect.read(data, [BIN4], name="x")


@EACH
def test_a_refined_shift_is_subtracted(dialect: Any) -> None:
    """In the subtomogram's axes, which for particles are those of the tomogram; xyz to zyx."""
    data = changed(dialect, PICKS, rlnOriginXAngst=3.0, rlnOriginYAngst=-5.0, rlnOriginZAngst=7.0)
    [back] = dialect.read(data, [BIN4], name="ribosome")
    truth = PICKS[0].particles[0].points_angstrom
    moved = back.particles[0].points_angstrom - truth
    np.testing.assert_allclose(moved, np.tile([-7, 5, -3], (30, 1)), atol=1e-4)


@pytest.mark.parametrize("dialect", [Relion4(), Warp()], ids=["relion4", "warp"])
def test_an_older_shift_in_pixels_is_subtracted(dialect: Any) -> None:
    data = changed(dialect, PICKS, rlnOriginX=2.0)
    [back] = dialect.read(data, [BIN4], name="ribosome")
    moved = back.particles[0].points_angstrom - PICKS[0].particles[0].points_angstrom
    pixel = 2.5 if dialect.name == "relion4" else 10.0
    np.testing.assert_allclose(moved, np.tile([0, 0, -2 * pixel], (30, 1)), atol=1e-4)


@pytest.mark.parametrize(
    ("columns", "factor"),
    [
        ({"rlnPixelSize": 5.0}, 0.5),
        ({"rlnPixelSize": None}, 1.0),
        ({"rlnPixelSize": None, "rlnDetectorPixelSize": 5.0}, 0.5),
        ({"rlnPixelSize": None, "rlnDetectorPixelSize": 5.0, "rlnMagnification": 5000.0}, 1.0),
    ],
    ids=["stated", "the tomogram's", "template matching", "µm over magnification"],
)
def test_what_a_pixel_of_warp_is(columns: dict[str, Any], factor: float) -> None:
    [back] = Warp().read(changed(Warp(), PICKS[:1], **columns), [BIN4], name="ribosome")
    truth = PICKS[0].particles[0].points_angstrom
    np.testing.assert_allclose(back.particles[0].points_angstrom, factor * truth, atol=1e-4)


def test_what_a_pixel_of_relion_4_is() -> None:
    data = written(Relion4(), PICKS[:1])["a/all__class.star"]
    unknown = TomoContext("TS_01", GRID)  # counts as unbinned, where the table says nothing
    [back] = Relion4().read(data, [unknown], name="ribosome")
    truth = PICKS[0].particles[0].points_angstrom
    np.testing.assert_allclose(back.particles[0].points_angstrom, truth, atol=1e-4)


@pytest.mark.parametrize("size", [0.0, -1.0])
def test_a_pixel_that_is_none_is_refused(size: float) -> None:
    data = changed(Warp(), PICKS[:1], rlnPixelSize=size)
    with pytest.raises(FormatError, match="rlnPixelSize, the pixel size, is not positive"):
        Warp().read(data, [BIN4], name="ribosome")
