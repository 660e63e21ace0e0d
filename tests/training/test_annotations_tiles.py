"""Tiles: positives with masks and negatives without become labels at their places."""

import mrcfile
import numpy as np
import pytest

from tomoseg.core.blocks import Box
from tomoseg.core.errors import RequestError
from tomoseg.nets.settings import TrainingSettings
from tomoseg.recipe.source import SourceSection
from tomoseg.training.annotations import TilesAnnotation, annotated_volumes

SHAPE = (6, 40, 44)
WHOLE = Box.whole(SHAPE)
SIZE = 8


def save(path, voxels, voxel_size=10.0):
    with mrcfile.new(path, voxels, overwrite=True) as file:
        file.set_volume()
        file.voxel_size = voxel_size


@pytest.fixture
def volume(tmp_path):
    """Return a function that writes tiles and returns the volume that they make."""

    def make(centres, painted, empty=(), *, voxel_size=10.0, classes=("actin",), **said):
        image = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
        save(tmp_path / "t1.mrc", image, voxel_size)
        save(tmp_path / "masks.mrc", np.asarray(painted, np.uint8))
        for name, places in (("positives", centres), ("negatives", empty)):
            rows = ["x,y,z", *(f"{x},{y},{z}" for z, y, x in places)]
            (tmp_path / f"{name}.csv").write_text("\n".join(rows) + "\n")
        files = {
            "tomogram": "t1.mrc", "masks": "masks.mrc", "positives": "positives.csv",
            "negatives": "negatives.csv" if len(empty) else None,
        }  # fmt: skip
        annotation = TilesAnnotation(kind="tiles", **{"size": SIZE} | files | said)
        settings = TrainingSettings(
            name="n", classes=classes, voxel_size_angstrom=10.0, steps=1,
            intensity=({"kind": "z_score"},), colours=("#000000",) * len(classes),
        )  # fmt: skip
        complete = annotation.placed(tmp_path).completed(classes, SourceSection())
        (found,) = annotated_volumes([complete], settings, memory_gib=1.0)
        return found

    return make


def mask(*rows_columns, value=1):
    labels = np.zeros((SIZE, SIZE), np.uint8)
    for row, column in rows_columns:
        labels[row, column] = value
    return labels


def test_a_mask_lies_around_its_centre_and_nothing_else_is_annotated(volume):
    # A tile of 8 begins 4 voxels before its centre: rows 16..23, columns 8..15 of slice 2.
    found = volume([(2, 20, 12)], [mask((0, 0), (5, 7))], [(4, 30, 30)])
    expected = np.full(SHAPE, 255, np.uint8)
    expected[2, 16:24, 8:16] = 0
    expected[4, 26:34, 26:34] = 0
    expected[2, 16, 8] = expected[2, 21, 15] = 1
    assert np.array_equal(found.labels(WHOLE), expected)
    assert found.annotated == (Box((2, 16, 8), (3, 24, 16)), Box((4, 26, 26), (5, 34, 34)))
    assert (found.name, found.tomogram, found.judged) == ("t1 positives.csv", "t1", (1,))
    box = Box((1, 18, 10), (5, 31, 29))
    assert np.array_equal(found.labels(box), expected[box.slices])


def test_negatives_may_be_missing(volume):
    found = volume([(0, 20, 12), (5, 20, 12)], [mask((0, 0)), mask((1, 1))])
    assert [box.begin[0] for box in found.annotated] == [0, 5]


def test_a_tile_at_the_border_is_cut(volume):
    # rows -3..4, columns 38..45 of 44
    found = volume([(0, 1, 42)], [mask((2, 0), (3, 5), (7, 7))])
    assert found.annotated == (Box((0, 0, 38), (1, 5, 44)),)
    labels = found.labels(WHOLE)
    assert np.argwhere(labels == 1).tolist() == [[0, 0, 43]]
    assert (labels != 255).sum() == 5 * 6


def test_where_tiles_overlap_a_class_wins_and_silence_loses(volume):
    painted = mask((0, 0), (0, 1))
    painted[1] = 255
    found = volume([(2, 20, 12)], [painted], [(2, 20, 12), (2, 18, 12)])
    labels = found.labels(WHOLE)[2]
    assert np.argwhere(labels == 1).tolist() == [[16, 8], [16, 9]]
    assert (labels[17, 8:16] == 0).all()  # the negatives say what the mask leaves open
    assert (labels[14:24, 8:16] <= 1).all()
    assert (np.delete(labels, np.s_[14:24], axis=0) == 255).all()


def test_several_features_at_once_and_one_of_many(volume):
    classes = ("actin", "ribosome", "microtubule")
    both = mask((0, 0)) + mask((1, 1), value=2)
    found = volume([(2, 20, 12)], [both], classes=classes)
    assert (found.judged, sorted(np.unique(found.labels(WHOLE)))) == ((1, 2, 3), [0, 1, 2, 255])
    said = {"values": {1: "microtubule", 2: "not_annotated"}}
    found = volume([(2, 20, 12)], [both], classes=classes, **said)
    assert (found.judged, sorted(np.unique(found.labels(WHOLE)))) == ((3,), [0, 3, 255])


@pytest.mark.parametrize("voxel_size", [7.0, 14.0])
def test_a_tile_keeps_its_one_slice_at_another_voxel_size(volume, voxel_size):
    centres = [(z, 20, 20) for z in range(SHAPE[0])]
    full = np.ones((len(centres), SIZE, SIZE), np.uint8)
    found = volume(centres, full, voxel_size=voxel_size)
    factor = voxel_size / 10
    for z, box in enumerate(found.annotated):
        assert box.shape[0] == 1
        # the centre of the slice in Å, seen from the low corner that both grids share
        assert abs((z + 0.5) * factor - (box.begin[0] + 0.5)) <= 0.5 + 1e-9
        for axis in (1, 2):
            assert abs(box.begin[axis] - 16 * factor) <= 1
            assert abs(box.end[axis] - 24 * factor) <= 1
        assert (found.labels(box) == 1).all()


@pytest.mark.parametrize(
    ("positives", "masks", "message"),
    [
        ([(2, 20, 12)], [mask()], r"mask 1 of 1 in .*masks\.mrc is empty\. Paint it, or move its"),
        (
            [(2, 20, 12), (2, 8, 8)],
            [mask((0, 0)), mask() + 255],
            r"mask 2 of 2 in .* is empty",
        ),
        (
            [(2, 20, 12), (2, 8, 8)],
            [mask((0, 0))],
            r"a stack of 1 masks of 8×8, but .*positives\.csv names 2 tiles of 8×8",
        ),
        (
            [(2, 20, 12)],
            np.ones((1, SIZE, SIZE + 1)),
            r"a stack of 1 masks of 8×9, but .* names 1 tiles of 8×8",
        ),
        (
            [(2, 20, 12)],
            [mask((0, 0), value=2)],
            r"masks\.mrc holds the value 2, .*known are 0, 1, 255",
        ),
        (
            [(2, 20, 12), (2, 41, 12)],
            [mask((0, 0))] * 2,
            r"1 of 2 positions in .*positives\.csv lie outside .*\(44, 40, 6\) voxels \(xyz\); the "
            r"first is number 2 at \(12\.0, 41\.0, 2\.0\)",
        ),
        ([], [mask((0, 0))], r"positives\.csv holds no position"),
    ],
)
def test_tiles_and_masks_that_do_not_fit_are_named(volume, positives, masks, message):
    with pytest.raises(RequestError, match=rf"^t1: .*{message}"):
        volume(positives, masks)


@pytest.mark.parametrize("key", ["positives", "masks", "negatives"])
def test_a_missing_file_is_named(volume, key):
    with pytest.raises(RequestError, match=r"^t1: .*none\.csv does not exist"):
        volume([(2, 20, 12)], [mask((0, 0))], **{key: "none.csv"})


def test_tiles_are_cut_from_one_tomogram(volume, tmp_path):
    save(tmp_path / "t2.mrc", np.zeros(SHAPE, np.float32))
    # the tomograms and the masks
    with pytest.raises(RequestError, match="holds 3 tomograms, but tiles are cut from one"):
        volume([(2, 20, 12)], [mask((0, 0))], tomogram=".")
