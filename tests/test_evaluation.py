"""Scores from files, with numbers that were worked out by hand."""

import math

import mrcfile
import numpy as np
import pytest

from tomoseg.blocks import Box
from tomoseg.coordinates import Filament, Particles
from tomoseg.errors import FormatError, RequestError, StoreError
from tomoseg.evaluation import evaluate_files
from tomoseg.formats.tables import filaments_csv, particles_csv
from tomoseg.sampling import Header, Sampling
from tomoseg.stores import Folder, Volume, write_image_metadata, write_label_metadata

GRID = Sampling((40, 100, 100), (10.0, 10.0, 10.0))
SHAPE = (20, 4, 5)


@pytest.fixture
def mrc(tmp_path):
    """Return a function that writes a volume as another program would, and says where."""

    def write(name, voxels, voxel_size=0.0):
        with mrcfile.new(tmp_path / name, np.asarray(voxels)) as file:
            file.voxel_size = voxel_size
        return str(tmp_path / name)

    return write


@pytest.fixture
def text(tmp_path):
    def write(name, content):
        (tmp_path / name).write_text(content)
        return str(tmp_path / name)

    return write


def volume(*runs, dtype="int8"):
    """Return a volume whose first voxels, in C order, are so many of a value, the rest 0."""
    flat = np.zeros(np.prod(SHAPE), dtype)
    begin = 0
    for value, count in runs:
        flat[begin : begin + count] = value
        begin += count
    return flat.reshape(SHAPE)


# Labels


def test_labels_are_scored_class_by_class(mrc):
    # Of 10 true microtubule voxels 6 are found, 2 are called actin, 2 missed; 4 more are false.
    truth = mrc("truth.mrc", volume((1, 10), (0, 4), (2, 0)))
    found = mrc("found.mrc", volume((1, 6), (2, 2), (0, 2), (1, 4)))
    scores = evaluate_files(found, truth)
    assert list(scores) == ["microtubule", "actin"]
    assert scores["microtubule"] == pytest.approx(
        {"precision": 6 / 10, "recall": 6 / 10, "f1": 0.6, "iou": 6 / 14, "support": 10}
    )
    assert scores["actin"] == {"precision": 0, "recall": None, "f1": 0, "iou": 0, "support": 0}


def test_labels_beyond_one_strip_count_too(mrc):
    # A strip is 16 slices: the last four hold a class that the first strip has not.
    truth = np.zeros(SHAPE, np.int8)
    truth[0] = 1
    truth[18:] = 5
    found = truth.copy()
    found[19] = 0
    scores = evaluate_files(mrc("found.mrc", found), mrc("truth.mrc", truth))
    assert scores["microtubule"]["f1"] == 1.0
    assert scores["ribosome"]["recall"] == 0.5
    assert scores["ribosome"]["support"] == 40
    assert scores["single_membrane"]["f1"] is None


@pytest.mark.parametrize(("dtype", "unknown"), [("int8", -1), ("int16", 255), ("float32", 255)])
def test_what_is_not_annotated_is_left_out(mrc, dtype, unknown):
    truth = mrc("truth.mrc", volume((1, 4), (unknown, 6), dtype=dtype))
    found = mrc("found.mrc", volume((1, 10)))
    scores = evaluate_files(found, truth)
    assert list(scores) == ["microtubule"]
    assert scores["microtubule"]["precision"] == 1.0
    assert scores["microtubule"]["support"] == 4


def test_classes_without_a_name_are_counted(mrc):
    labels = mrc("a.mrc", volume((8, 3)))
    assert list(evaluate_files(labels, labels))[6:] == ["class_7", "class_8"]


def test_nothing_but_background_has_no_scores(mrc):
    labels = mrc("a.mrc", volume())
    assert evaluate_files(labels, labels) == {}


def test_the_labels_of_a_segmented_tomogram_are_found(tmp_path, mrc):
    grid = Sampling(SHAPE, (12.0, 12.0, 12.0))
    group = Folder(str(tmp_path / "tomogram.zarr"))
    found = volume((1, 6), (0, 4), dtype="uint8")
    for path, values in (("0", np.full(SHAPE, 9, np.uint8)), ("labels/semantic/0", found)):
        array = Volume(group, path)
        array.create(SHAPE, "uint8", shard=(32, 8, 8))
        array.write(Box.whole(SHAPE), values)
    write_image_metadata(group, "t", [grid], Header(grid, "uint8"))
    write_label_metadata(group, "semantic", [grid], {1: "#ffffff"})
    truth = mrc("truth.mrc", volume((1, 10)))
    for place in (str(group), f"{group}/labels/semantic", group.url):
        assert evaluate_files(place, truth)["microtubule"]["recall"] == 0.6


def test_volumes_of_different_shapes_are_refused(mrc):
    a, b = mrc("a.mrc", volume()), mrc("b.mrc", volume()[1:])
    with pytest.raises(RequestError, match=r"a\.mrc has shape \(20, 4, 5\), .*b\.mrc has \(19,"):
        evaluate_files(a, b)


@pytest.mark.parametrize(
    "voxels", [volume((300, 2), dtype="int16"), volume((0.5, 2), dtype="float32")]
)
def test_volumes_that_are_no_labels_are_refused(mrc, voxels):
    truth = mrc("truth.mrc", volume((1, 3)))
    with pytest.raises(RequestError, match="are not labels"):
        evaluate_files(mrc("found.mrc", voxels), truth)


# Tables


def line(number, y, length=500.0, name="actin"):
    x = np.arange(0, length + 1, 50.0)
    points = np.stack([np.full_like(x, 100.0), np.full_like(x, y), x], axis=1)
    return Filament(name, number, points, 1.0)


def picks(name, *points):
    return Particles.at(name, np.array(points, float).reshape(-1, 3))


def test_filaments_are_scored_by_their_centre_lines(text):
    truth = text("t.csv", filaments_csv([line(1, 100), line(2, 600)], GRID))
    found = text("f.csv", filaments_csv([line(1, 150), line(2, 900)], GRID))
    scores = evaluate_files(found, truth)["actin"]
    assert scores["precision"] == scores["recall"] == scores["f1"] == 0.5
    assert (scores["missed"], scores["false"]) == (1, 1)
    assert scores["position_rms_angstrom"] == pytest.approx(50.0)
    strict = evaluate_files(found, truth, tolerance_angstrom=49.0)["actin"]
    assert strict["f1"] == 0.0
    wide = evaluate_files(found, truth, tolerance_angstrom=301.0)["actin"]
    assert wide["f1"] == 1.0


def test_filaments_are_scored_over_the_classes_of_the_result(text):
    both = [line(1, 100), line(1, 600, name="microtubule")]
    truth = text("t.csv", filaments_csv(both, GRID))
    found = text("f.csv", filaments_csv(both[:1], GRID))
    assert list(evaluate_files(found, truth)) == ["actin"]
    assert list(evaluate_files(truth, found)) == ["actin", "microtubule"]
    assert evaluate_files(truth, found)["microtubule"]["precision"] == 0.0


def test_finding_nothing_is_scored(text):
    truth = text("t.csv", filaments_csv([line(1, 100)], GRID))
    none = text("n.csv", filaments_csv([], GRID))
    scores = evaluate_files(none, truth)["actin"]
    assert (scores["f1"], scores["missed"], scores["precision"]) == (0.0, 1, None)
    true_picks = text("p.csv", particles_csv([picks("ribosome", (0, 0, 0))], GRID))
    no_picks = text("q.csv", particles_csv([], GRID))
    assert evaluate_files(no_picks, true_picks)["ribosome"]["recall"] == 0.0


def test_particles_are_matched_one_to_one(text):
    truth = picks("ribosome", (100, 100, 100), (100, 100, 500), (100, 800, 500))
    # Two picks of the first, one of the second at 70 Å, none of the third.
    found = picks("ribosome", (100, 100, 110), (100, 100, 90), (100, 170, 500))
    files = [text(f"{i}.csv", particles_csv([p], GRID)) for i, p in enumerate((found, truth))]
    scores = evaluate_files(*files)["ribosome"]
    assert scores["matches"] == 2
    assert scores["precision"] == scores["recall"] == pytest.approx(2 / 3)
    assert scores["position_rms_angstrom"] == pytest.approx(math.sqrt((10**2 + 70**2) / 2))
    assert evaluate_files(*files, tolerance_angstrom=69.0)["ribosome"]["matches"] == 1


@pytest.mark.parametrize("swapped", [False, True])
def test_two_kinds_are_refused(mrc, text, swapped):
    lines = text("lines.csv", filaments_csv([line(1, 100)], GRID))
    points = text("points.csv", particles_csv([picks("ribosome", (0, 0, 0))], GRID))
    labels = mrc("labels.mrc", volume())
    for pair, message in (
        ((lines, points), "one holds filaments, the other does not"),
        ((lines, labels), "two volumes or two CSV files"),
    ):
        with pytest.raises(RequestError, match=message):
            evaluate_files(*(reversed(pair) if swapped else pair))


def test_tables_of_other_programs_are_named(text):
    other = text("other.csv", "x,y,z\n1,2,3\n")
    with pytest.raises(FormatError, match="lacks the columns class, particle"):
        evaluate_files(other, other)
    with pytest.raises(StoreError, match=r"there is no file .*none\.csv"):
        evaluate_files(other, "none.csv")
