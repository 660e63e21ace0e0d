"""Points: centres become balls with a rim about which nothing is said."""

import mrcfile
import numpy as np
import pytest

from tomoseg.core.blocks import Box
from tomoseg.core.errors import RequestError
from tomoseg.nets.settings import TrainingSettings
from tomoseg.recipe.source import SourceSection
from tomoseg.training.annotations import PointsAnnotation, annotated_volumes

SHAPE = (20, 24, 28)
CLASSES = ("actin", "ribosome", "contamination")
VOXEL = 10.0


@pytest.fixture
def volume(tmp_path):
    """Return a function that writes a tomogram and tables and returns the labelled tomogram."""

    def make(points, *, shape=SHAPE, voxel_size=VOXEL, memory_gib=1.0, tables=None, **said):
        image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        with mrcfile.new(tmp_path / "t1.mrc", image, overwrite=True) as file:
            file.voxel_size = voxel_size
        for name, rows in {"t1": points, **(tables or {})}.items():
            text = "".join(f"{x},{y},{z}\n" for z, y, x in rows)
            (tmp_path / f"{name}.csv").write_text(f"x,y,z\n{text}")
        keys = {
            "kind": "points", "tomograms": "t1.mrc", "table": "{folder}/{name}.csv",
            "class": "ribosome", "radius_angstrom": 50.0, "core": 0.7, "rim": 1.3,
        }  # fmt: skip
        annotation = PointsAnnotation(**keys | said).placed(tmp_path)
        settings = TrainingSettings(
            name="n", classes=CLASSES, colours=("#000000",) * 3, voxel_size_angstrom=10.0, steps=1,
            intensity=({"kind": "z_score"},),
        )  # fmt: skip
        complete = annotation.completed(CLASSES, SourceSection())
        (found,) = annotated_volumes([complete], settings, memory_gib=memory_gib)
        return found

    return make


def distances(points, shape=SHAPE, voxel=VOXEL):
    """Return the distance of every voxel from the nearest point, Å."""
    voxels = np.indices(shape).transpose(1, 2, 3, 0)
    away = [np.linalg.norm((voxels - point) * voxel, axis=-1) for point in points]
    return np.min(away, axis=0)


def labels_of(found):
    return found.labels(Box.whole(found.shape))


def test_balls_have_a_core_and_a_rim(volume):
    points = [(9, 10, 10), (10.3, 11.5, 20.2), (1, 22, 1)]
    found = volume(points)
    away = distances(points)
    expected = np.where(away <= 35, 2, np.where(away <= 65, 255, 0))
    assert np.array_equal(labels_of(found), expected)
    assert found.annotated == (Box.whole(SHAPE),)
    assert (found.name, found.tomogram, found.judged) == ("t1 t1.csv", "t1", (2,))
    box = Box((5, 6, 7), (14, 20, 21))
    assert np.array_equal(found.labels(box), expected[box.slices])


def test_a_rim_does_not_cover_a_neighbour(volume):
    points = [(9, 10, 8), (9, 10, 13)]  # 50 Å apart: each core lies in the other's rim
    away = distances(points)
    labels = labels_of(volume(points, core=0.5, rim=1.2))
    assert np.array_equal(labels, np.where(away <= 25, 2, np.where(away <= 60, 255, 0)))


def test_where_only_some_were_picked_the_rest_is_not_annotated(volume):
    points, clicks = [(9, 10, 10)], [(9, 10, 22), (15, 20, 0)]
    found = volume(
        points,
        tables={"none": clicks},
        elsewhere="unannotated",
        background_table="none.csv",
    )
    expected = np.full(SHAPE, 255)
    expected[distances(clicks) <= 50] = 0
    expected[distances(points) <= 35] = 2
    labels = labels_of(found)
    assert np.array_equal(labels, expected)
    assert len(found.annotated) == 3
    outside = labels.copy()
    for box in found.annotated:
        outside[box.slices] = 255
    assert (outside == 255).all()
    assert sum(box.size for box in found.annotated) < 0.4 * labels.size


def test_contamination_is_a_class_and_loses_against_particles(volume):
    points, bad = [(9, 10, 10)], [(9, 10, 13), (15, 20, 20)]
    found = volume(points, tables={"bad": bad}, contamination_table="bad.csv")
    expected = np.zeros(SHAPE)
    expected[distances(points + bad) <= 65] = 255
    expected[distances(bad) <= 35] = 3
    expected[distances(points) <= 35] = 2
    assert np.array_equal(labels_of(found), expected)
    assert found.judged == (2, 3)


def test_a_micrograph_has_discs(volume):
    shape = (1, 24, 28)
    labels = labels_of(volume([(0, 10, 10)], shape=shape))
    away = distances([(0, 10, 10)], shape)
    assert np.array_equal(labels, np.where(away <= 35, 2, np.where(away <= 65, 255, 0)))
    # Whatever a table says of z, a click on a micrograph lies on it.
    assert np.array_equal(labels_of(volume([(7, 10, 10)], shape=shape)), labels)


def test_balls_have_their_size_on_a_resampled_grid(volume):
    found = volume([(10, 12, 14)], voxel_size=12.0)
    assert found.shape == (24, 29, 34)
    labels = labels_of(found)
    # The grids share their low corner: voxel i of 12 Å is at 1.2 i + 0.1 on that of 10 Å.
    away = distances([(12.1, 14.5, 16.9)], found.shape)
    assert np.array_equal(labels, np.where(away <= 35, 2, np.where(away <= 65, 255, 0)))


@pytest.mark.parametrize("voxel_size", [7.0, 15.0])
def test_a_micrograph_stays_one_slice_on_a_resampled_grid(volume, voxel_size):
    factor = voxel_size / 10
    found = volume([(0, 10, 14)], shape=(1, 24, 28), voxel_size=voxel_size)
    assert found.shape == (1, np.ceil(24 * factor), np.ceil(28 * factor))
    assert found.image(Box.whole(found.shape)).std() > 0.3
    centre = (0, (10 + 0.5) * factor - 0.5, (14 + 0.5) * factor - 0.5)
    away = distances([centre], found.shape)
    assert np.array_equal(labels_of(found), np.where(away <= 35, 2, np.where(away <= 65, 255, 0)))


def test_memory_does_not_change_the_labels(volume):
    points = [(9, 10, 10), (10, 11, 20)]
    kept, drawn = volume(points), volume(points, memory_gib=0)
    for box in (Box.whole(SHAPE), Box((8, 3, 3), (12, 14, 24))):
        assert np.array_equal(kept.labels(box), drawn.labels(box))


@pytest.mark.parametrize(
    ("points", "said", "message"),
    [
        ([], {}, r"t1\.csv holds no position in this tomogram"),
        ([(9, 10, 10), (9, 10, 28)], {}, r"1 of 2 positions in .*t1\.csv lie outside .*\(28\.0, 1"),
        ([(9, 10, 10)], {"table": "none.csv"}, r"none\.csv does not exist"),
        ([(9, 10, 10)], {"background_table": "none.csv"}, r"none\.csv does not exist"),
        ([(9, 10, 10)], {"radius_angstrom": 14.0}, r"ribosome of 9\.8 Å are smaller than a voxel"),
    ],
)
def test_what_does_not_fit_is_named(volume, points, said, message):
    with pytest.raises(RequestError, match=rf"^t1: .*{message}"):
        volume(points, **said)


def test_the_usual_rim_leaves_background_between_particles_that_touch(volume):
    # 100 Å apart along x, radius 50 Å, voxels of 10 Å: cores end at 30 Å, rims at 37.5 Å.
    labels = labels_of(volume([(9, 10, 8), (9, 10, 18)], core=0.6, rim=0.75))[9, 10, 8:19]
    assert labels.tolist() == [2, 2, 2, 2, 0, 0, 0, 2, 2, 2, 2]
    assert PointsAnnotation.model_fields["core"].default == 0.6
    assert PointsAnnotation.model_fields["rim"].default == 0.75


def test_a_rim_within_the_core_is_refused():
    with pytest.raises(ValueError, match=r"rim 0\.4 lies within core 0\.6"):
        PointsAnnotation.model_validate(
            {"kind": "points", "tomograms": ["a"], "table": "a.csv", "class": "a",
             "radius_angstrom": 50.0, "rim": 0.4}
        )  # fmt: skip
