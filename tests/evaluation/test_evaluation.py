"""Scores from files, with numbers that were worked out by hand."""

import json
import math
import re

import mrcfile
import numpy as np
import pandas as pd
import pytest

from tomoseg.core.blocks import Box
from tomoseg.core.coordinates import Filament, Particles
from tomoseg.core.errors import FormatError, RequestError, VoxelSizeError
from tomoseg.core.sampling import Header, Sampling
from tomoseg.evaluation import Options, evaluate_files, evaluate_folders, is_folder
from tomoseg.io.points.dialects import TomoContext
from tomoseg.io.points.relion import (
    filaments_table,
    optics_table,
    particles_table,
    tomograms_table,
)
from tomoseg.io.points.star import write_star
from tomoseg.io.points.tables import filaments_csv, particles_csv
from tomoseg.io.stores import Folder, Volume, write_image_metadata, write_label_metadata

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


def test_a_mask_of_0_and_255_is_refused_with_the_option_that_mends_it(mrc):
    found = mrc("found.mrc", volume((1, 5)))
    truth = mrc("truth.mrc", volume((-1, 10)))
    with pytest.raises(RequestError, match=r"truth\.mrc holds 0 and 255 alone") as caught:
        evaluate_files(found, truth)
    assert "--value 255=membrane" in caught.value.remedy
    meant = {255: "membrane", 1: "membrane"}
    assert evaluate_files(found, truth, Options(values=meant))["membrane"]["recall"] == 0.5
    # A truth that has no class may be meant.
    said = evaluate_files(found, truth, Options(values={255: "not_annotated", 1: "membrane"}))
    assert said["membrane"]["support"] == 0


def test_masks_with_soft_edges_are_compared_above_a_threshold(mrc):
    found = mrc("found.mrc", volume((200, 5), (90, 9), dtype="uint8").view("int8"))
    truth = mrc("truth.mrc", volume((255, 10), (20, 9), dtype="uint8").view("int8"))
    with pytest.raises(RequestError, match=r"--threshold|--value"):
        evaluate_files(mrc("soft.mrc", volume((0.5, 5), dtype="float32")), truth)
    scores = evaluate_files(found, truth, Options(threshold=127, classes=("membrane",)))
    assert scores["membrane"]["precision"] == 1
    assert scores["membrane"]["recall"] == 0.5
    assert list(evaluate_files(found, truth, Options(threshold=127))) == ["label_1"]
    with pytest.raises(RequestError, match=r"one class .* --classes"):
        evaluate_files(found, truth, Options(threshold=127, classes=("a", "b")))


def test_values_are_of_the_classes_that_are_compared(mrc):
    found, truth = mrc("found.mrc", volume((1, 5))), mrc("truth.mrc", volume((9, 10)))
    options = Options(classes=("actin",), values={9: "membrane"})
    with pytest.raises(RequestError, match="--value names membrane, but the classes are actin"):
        evaluate_files(found, truth, options)


def test_values_that_nobody_named_are_refused(mrc):
    found, truth = mrc("found.mrc", volume((1, 5))), mrc("truth.mrc", volume((9, 10)))
    with pytest.raises(RequestError, match="what was found holds the value 1"):
        evaluate_files(found, truth, Options(values={9: "membrane"}))


def test_a_truth_that_says_nothing_is_refused(mrc):
    truth = mrc("truth.mrc", np.full(SHAPE, -1, "int8"))
    with pytest.raises(RequestError, match=r"every voxel of .*truth\.mrc is 255"):
        evaluate_files(mrc("found.mrc", volume((1, 5))), truth)


def test_volumes_without_any_label_are_refused(mrc):
    empty = mrc("empty.mrc", volume())
    with pytest.raises(RequestError, match="nothing is compared"):
        evaluate_files(empty, empty)


def test_labels_are_scored_class_by_class(mrc):
    # Of 10 true voxels of 1 there are 6 found, 2 called 2 and 2 missed; 4 more are false.
    truth = mrc("truth.mrc", volume((1, 10), (0, 4), (2, 0)))
    found = mrc("found.mrc", volume((1, 6), (2, 2), (0, 2), (1, 4)))
    scores = evaluate_files(found, truth, Options(classes=("microtubule", "actin")))
    assert list(scores) == ["microtubule", "actin"]
    assert scores["microtubule"] == pytest.approx(
        {
            "precision": 6 / 10,
            "recall": 6 / 10,
            "f1": 0.6,
            "dice": 0.6,
            "iou": 6 / 14,
            "surface_dice": None,
            "support": 10,
        }
    )
    assert (scores["actin"]["recall"], scores["actin"]["f1"], scores["actin"]["support"]) == (
        None,
        0,
        0,
    )


def test_labels_beyond_one_block_count_too(mrc):
    # A block is 32 slices: the last four hold a class that the first block has not.
    truth = np.zeros((40, 4, 5), np.int8)
    truth[0] = 1
    truth[36:] = 5
    found = truth.copy()
    found[38:] = 0
    scores = evaluate_files(mrc("found.mrc", found, 10.0), mrc("truth.mrc", truth, 10.0))
    assert list(scores) == ["label_1", "label_5"]
    assert scores["label_1"]["f1"] == scores["label_1"]["surface_dice"] == 1.0
    assert scores["label_5"]["recall"] == 0.5
    assert scores["label_5"]["support"] == 80


def test_surfaces_are_scored_by_the_distance_in_space(mrc):
    # A plate that is two voxels of 10 Å too thick on one side.
    truth, found = (np.zeros((40, 30, 30), np.int8) for _ in range(2))
    truth[29:34], found[29:36] = 1, 1
    places = mrc("found.mrc", found, 10.0), mrc("truth.mrc", truth, 10.0)
    for options, expected in (
        (Options(), 1),
        (Options(tolerance_angstrom=20.0), 1),
        (Options(voxel_size_angstrom=5.0, tolerance_angstrom=10.0), 1),
    ):
        assert evaluate_files(*places, options)["label_1"]["surface_dice"] == expected
    # Of the plates' surface, 4 faces of 900 voxels and the sides of 5 and 7 slices, 28 × 28 cells
    # of two faces are too far off; the edges, where both plates have sides, are not.
    strict = evaluate_files(*places, Options(tolerance_angstrom=19.0))
    expected = 1 - 2 * 28**2 / (4 * 900 + 120 * (5 + 7))
    assert strict["label_1"]["surface_dice"] == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize(("dtype", "unknown"), [("int8", -1), ("int16", 255), ("float32", 255)])
def test_what_is_not_annotated_is_left_out(mrc, dtype, unknown):
    truth = mrc("truth.mrc", volume((1, 4), (unknown, 6), dtype=dtype))
    found = mrc("found.mrc", volume((1, 10)))
    scores = evaluate_files(found, truth)
    assert list(scores) == ["label_1"]
    assert scores["label_1"]["precision"] == 1.0
    assert scores["label_1"]["support"] == 4


def segmented(folder, labels, classes, **objects):
    """Write what a session leaves of a tomogram: labels, objects and the manifest."""
    grid = Sampling(labels.shape, (12.0, 12.0, 12.0))
    group = folder / "tomogram.zarr"
    images = {"0": np.full(labels.shape, 9, np.uint8), "labels/semantic/0": labels}
    images |= {f"labels/{name}/0": ids.astype(np.uint32) for name, ids in objects.items()}
    for path, values in images.items():
        array = Volume(group, path)
        array.create(labels.shape, str(values.dtype), shard=(32, 8, 8))
        array.write(Box.whole(labels.shape), values)
    write_image_metadata(group, "t", [grid], Header(grid, "uint8"))
    for name in ("semantic", *objects):
        write_label_metadata(group, name, [grid], {1: "#ffffff"})
    folder.write_json("manifest.json", {"classes": classes})
    return group


def test_the_labels_of_a_segmented_tomogram_are_found_with_their_names(tmp_path, mrc):
    found = volume((1, 6), (0, 4), dtype="uint8")
    group = segmented(Folder(str(tmp_path)), found, ["membrane"])
    truth = mrc("truth.mrc", volume((1, 10)))
    for place in (str(group), f"{group}/labels/semantic", group.url):
        assert evaluate_files(place, truth)["membrane"]["recall"] == 0.6


def test_classes_are_matched_by_name_not_by_number(tmp_path, mrc):
    # The network calls 1 actin and 2 ice, of which the truth says nothing; there actin is 3.
    found = volume((1, 6), (2, 4), dtype="uint8")
    group = segmented(Folder(str(tmp_path / "out")), found, ["actin", "ice"])
    truth = mrc("t__labels.mrc", volume((3, 10)))
    names = {"1": "microtubule", "2": "ribosome", "3": "actin"}
    Folder(str(tmp_path)).write_json("t.json", {"classes": names})
    scores = evaluate_files(str(group), truth)
    assert list(scores) == ["microtubule", "ribosome", "actin"]
    assert (scores["actin"]["precision"], scores["actin"]["recall"]) == (1.0, 0.6)
    assert scores["ribosome"]["precision"] is None


def test_names_that_are_given_are_those_of_a_truth_that_knows_few_of_the_classes(tmp_path, mrc):
    found = volume((2, 6), (1, 4), dtype="uint8")
    group = segmented(Folder(str(tmp_path / "out")), found, ["ice", "actin"])
    truth = mrc("mask.mrc", volume((1, 10)))
    scores = evaluate_files(str(group), truth, Options(classes=("actin",)))
    assert list(scores) == ["actin"]
    assert (scores["actin"]["precision"], scores["actin"]["recall"]) == (1.0, 0.6)


def test_labels_without_a_class_are_refused(mrc):
    labels = mrc("a.mrc", volume((3, 3)))
    with pytest.raises(RequestError, match=r"a\.mrc: .*has values 0\.\.3; classes are 0\.\.2"):
        evaluate_files(labels, labels, Options(classes=("one", "two")))


def test_volumes_of_different_shapes_are_refused(mrc):
    a, b = mrc("a.mrc", volume()), mrc("b.mrc", volume()[1:])
    for options in (Options(), Options(instances=True)):
        with pytest.raises(
            RequestError, match=r"a\.mrc has shape \(20, 4, 5\), .*b\.mrc has \(19,"
        ):
            evaluate_files(a, b, options)


def test_volumes_of_different_voxel_sizes_are_refused(mrc):
    a, b = mrc("a.mrc", volume((1, 9)), 10.0), mrc("b.mrc", volume((1, 9)), 20.0)
    with pytest.raises(VoxelSizeError, match=r"a\.mrc has voxels of 10 × 10 × 10 Å .*--voxel-size"):
        evaluate_files(a, b)
    assert evaluate_files(a, b, Options(voxel_size_angstrom=10.0))["label_1"]["surface_dice"] == 1
    # Where one says nothing, the other is believed.
    unknown = mrc("c.mrc", volume((1, 9)))
    assert evaluate_files(unknown, b)["label_1"]["surface_dice"] == 1


@pytest.mark.parametrize("is_truth_binned", [False, True])
@pytest.mark.parametrize("is_rest_kept", [False, True])
def test_labels_of_a_binned_tomogram_are_compared_on_its_own_grid(
    mrc, is_truth_binned, is_rest_kept
):
    # 5 × 4 × 6 voxels of 10 Å; of a bin of 2 the last slice is left over.
    fine = np.zeros((5, 4, 6), np.int8)
    fine[:2, :2, :3] = 1
    fine[4] = 1
    coarse = np.zeros((3 if is_rest_kept else 2, 2, 3), np.int8)
    coarse[0, 0, :2] = 1  # 2 × 2 × 4 voxels, of which 2 × 2 × 3 are in common
    coarse[2:] = 1
    places = mrc("fine.mrc", fine, 10.0), mrc("coarse.mrc", coarse, 20.0)
    found, truth = places if is_truth_binned else places[::-1]
    scores = evaluate_files(found, truth)["label_1"]
    common, finer, coarser = 12, 12, 16
    if is_rest_kept:
        common, finer, coarser = common + 24, finer + 24, coarser + 24
    assert scores["iou"] == common / (finer + coarser - common)
    assert scores["support"] == (coarser if is_truth_binned else finer)
    # Two voxels of the coarser grid, 40 Å, are all that there is to be off.
    assert scores["surface_dice"] == 1
    objects = evaluate_files(found, truth, Options(instances=True))["objects"]
    assert objects["ap50"] == 1


def test_a_binned_micrograph_is_not_binned_along_z(mrc):
    fine = np.ones((1, 5, 6), np.int8)
    fine[0, :2] = 0
    places = mrc("f.mrc", fine, 10.0), mrc("c.mrc", np.ones((1, 2, 3), np.int8), 20.0)
    assert evaluate_files(*places)["label_1"]["recall"] == 12 / 24


@pytest.mark.parametrize(("shape", "voxel"), [((2, 2, 3), 0.0), ((2, 2, 2), 20.0)])
def test_a_coarser_grid_is_not_guessed(mrc, shape, voxel):
    fine, other = mrc("f.mrc", np.ones((5, 4, 6), np.int8), 10.0), np.ones(shape, np.int8)
    with pytest.raises(RequestError, match=r"f\.mrc has shape .*binned by a whole factor"):
        evaluate_files(mrc("c.mrc", other, voxel), fine)


@pytest.mark.parametrize(
    "voxels", [volume((300, 2), dtype="int16"), volume((0.5, 2), dtype="float32")]
)
def test_volumes_that_are_no_labels_are_refused(mrc, voxels):
    truth = mrc("truth.mrc", volume((1, 3)))
    with pytest.raises(RequestError, match="are not labels"):
        evaluate_files(mrc("found.mrc", voxels), truth)


# Objects


def test_objects_are_scored_by_their_overlap(mrc):
    # Two true objects of 10; one is found with 8 voxels (IoU 0.8), one as two halves.
    truth = mrc("truth.mrc", volume((1, 10), (2, 10), dtype="int16"))
    found = mrc("found.mrc", volume((500, 8), (0, 2), (7, 5), (8, 5), dtype="int16"))
    scores = evaluate_files(found, truth, Options(instances=True))["objects"]
    assert (scores["found"], scores["truth"], scores["recall"]) == (3, 2, 1.0)
    assert scores["ap50"] == 2 / 3
    assert scores["ap75"] == 1 / 4


def test_objects_of_a_segmented_tomogram_are_scored_by_class(tmp_path, mrc):
    labels = volume((1, 10), (2, 10), dtype="uint8")
    group = segmented(
        Folder(str(tmp_path / "out")),
        labels,
        ["actin", "ribosome"],
        instances=(labels == 1) + (labels == 2) * 4,
    )
    truth = mrc("t__instances.mrc", volume((1, 10), (2, 5), (3, 5), dtype="int16"))
    mrc("t__labels.mrc", volume((1, 10), (2, 10)), 12.0)
    options = Options(instances=True)
    with pytest.raises(RequestError, match=r"objects of several classes; of .* no class is known"):
        evaluate_files(str(group), truth, options)
    Folder(str(tmp_path)).write_json("t.json", {"classes": {"1": "actin", "2": "ribosome"}})
    scores = evaluate_files(str(group), truth, options)
    assert list(scores) == ["actin", "ribosome"]
    assert (scores["actin"]["ap50"], scores["actin"]["truth"]) == (1.0, 1)
    assert (scores["ribosome"]["ap50"], scores["ribosome"]["truth"]) == (1 / 2, 2)
    whatever = evaluate_files(f"{group}/labels/instances", truth, options)["objects"]
    assert whatever["recall"] == 2 / 3


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
    strict = evaluate_files(found, truth, Options(tolerance_angstrom=49.0))["actin"]
    assert strict["f1"] == 0.0
    wide = evaluate_files(found, truth, Options(tolerance_angstrom=301.0))["actin"]
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
    assert evaluate_files(*files, Options(tolerance_angstrom=69.0))["ribosome"]["matches"] == 1


@pytest.mark.parametrize("swapped", [False, True])
def test_two_kinds_are_refused(mrc, text, swapped):
    lines = text("lines.csv", filaments_csv([line(1, 100)], GRID))
    points = text("points.csv", particles_csv([picks("ribosome", (0, 0, 0))], GRID))
    labels = mrc("labels.mrc", volume())
    for pair, message in (
        ((lines, points), "one holds filaments, the other does not"),
        ((lines, labels), "two volumes, or two tables"),
    ):
        with pytest.raises(RequestError, match=message):
            evaluate_files(*(reversed(pair) if swapped else pair))


def test_tables_of_other_programs_are_named(text):
    other = text("other.csv", "x,y,z\n1,2,3\n")
    with pytest.raises(FormatError, match=r"lacks the columns class, particle.*Give --tomogram"):
        evaluate_files(other, other)
    with pytest.raises(RequestError, match=r"none\.csv does not exist"):
        evaluate_files("none.csv", other)


TOMOGRAM = TomoContext("TS_01", GRID)


@pytest.fixture
def star(text):
    """Return a function that writes tables as RELION has them, and says where."""

    def write(name, *tables):
        rows = pd.concat(tables)
        return text(name, write_star({"optics": optics_table(TOMOGRAM), "particles": rows}))

    return write


def test_star_files_are_read_with_the_tomograms_beside_them(star, text):
    truth = text("t.csv", filaments_csv([line(1, 100), line(2, 600)], GRID))
    table = filaments_table([line(1, 100), line(2, 900)], context=TOMOGRAM, spacing_angstrom=50.0)
    found = star("TS_01__actin.star", table)
    with pytest.raises(RequestError, match=r"relative to the centre of a tomogram .*--tomogram"):
        evaluate_files(found, truth)
    text("tomograms.star", write_star({"global": tomograms_table([TOMOGRAM])}))
    scores = evaluate_files(found, truth)["actin"]
    assert scores["f1"] == pytest.approx(0.5)
    assert (scores["missed"], scores["false"]) == (1, 1)
    assert scores["position_rms_angstrom"] == pytest.approx(0.0, abs=1e-3)


def test_a_star_file_without_its_class_or_tomogram_is_told_both(star, text, mrc):
    truth = text("t.csv", particles_csv([picks("ribosome", (100, 100, 100))], GRID))
    table = particles_table(picks("ribosome", (100, 150, 100)), context=TOMOGRAM)
    found = star("picks.star", table)
    tomogram = mrc("TS_01.mrc", np.zeros(GRID.shape, np.int8), 10.0)
    with pytest.raises(RequestError, match=r"picks\.star does not say its class.*--classes"):
        evaluate_files(found, truth, Options(tomogram=tomogram))
    options = Options(tomogram=tomogram, classes=("ribosome",))
    assert evaluate_files(found, truth, options)["ribosome"]["position_rms_angstrom"] == (
        pytest.approx(50.0)
    )
    lines = filaments_table([line(1, 100)], context=TOMOGRAM)
    two = star("two.star", lines, lines.assign(rlnTomoName="TS_02"))
    lines_truth = text("lines.csv", filaments_csv([line(1, 100)], GRID))
    told = []
    options = Options(tomogram=tomogram, classes=("actin",))
    assert evaluate_files(two, lines_truth, options, say=told.append)["actin"]["f1"] == 1.0
    assert len(told) == 1
    assert re.search(
        r"two\.star: TS_01: 1 filaments; .* \d+ rows of TS_02 left out; Å from", told[0]
    )


def test_tables_of_other_programs_are_read_with_their_tomogram(text, mrc):
    tomogram = mrc("TS_01.mrc", np.zeros(GRID.shape, np.int8), 10.0)
    options = Options(tomogram=tomogram, classes=("ribosome",))
    # Voxels xyz of 10 Å.
    found = text("found.csv", "x,y,z\n10,20,5\n90,90,5\n")
    truth = text("truth.csv", particles_csv([picks("ribosome", (50, 200, 106))], GRID))
    scores = evaluate_files(found, truth, options)
    assert list(scores) == ["ribosome"]
    assert (scores["ribosome"]["precision"], scores["ribosome"]["recall"]) == (0.5, 1.0)
    assert scores["ribosome"]["position_rms_angstrom"] == pytest.approx(6.0)


def test_tomograms_of_one_star_file_do_not_match_across(star, text):
    second = TomoContext("TS_02", GRID)
    text("tomograms.star", write_star({"global": tomograms_table([TOMOGRAM, second])}))
    here, there = picks("ribosome", (100, 100, 100)), picks("ribosome", (300, 300, 300))
    found, truth = (
        star(
            f"{name}__ribosome.star",
            particles_table(one, context=TOMOGRAM),
            particles_table(two, context=second),
        )
        for name, one, two in (("found", here, there), ("truth", here, here))
    )
    scores = evaluate_files(found, truth)["ribosome"]
    assert (scores["matches"], scores["recall"]) == (1, 0.5)


def test_czii_scores_stand_beside_those_that_pass_for_them(text):
    # Two picks on the first ribosome, one of them at 100 Å, which is beyond half of 150 Å but
    # within 0.8; the second is missed. One of one thyroglobulin is found.
    truth = [
        picks("ribosome", (100, 100, 100), (100, 800, 800)),
        picks("thyroglobulin", (300, 300, 300)),
    ]
    found = [
        picks("ribosome", (100, 100, 110), (100, 100, 200)),
        picks("thyroglobulin", (300, 300, 300)),
    ]
    files = [text(f"{i}.csv", particles_csv(p, GRID)) for i, p in enumerate((found, truth))]
    radii = {"ribosome": (150.0, 1.0), "thyroglobulin": (130.0, 2.0)}
    scores = evaluate_files(*files, Options(czii=radii))
    ribosome = scores["ribosome"]
    # Strictly TP 1, FP 1, FN 1; generously both picks are hits, and one point is missed.
    assert (ribosome["true_positives"], ribosome["false_positives"]) == (1, 1)
    assert (ribosome["czii_f4"], ribosome["f1"]) == (0.5, 0.5)
    generous = 17 * (2 / 3) / (16 + 2 / 3)
    assert ribosome["generous_f4"] == pytest.approx(generous)
    assert scores["weighted_mean"] == pytest.approx(
        {"czii_f4": (0.5 + 2) / 3, "generous_f4": (generous + 2) / 3}
    )
    with pytest.raises(
        RequestError, match=r"of thyroglobulin no radius is known\. Give --particle"
    ):
        evaluate_files(*files, Options(czii={"ribosome": (150.0, 1.0)}))


# Folders


def test_a_session_is_scored_together(tmp_path, text, mrc):
    for name, y in (("a", 100), ("b", 400)):
        out = Folder(str(tmp_path / "out" / name))
        found = volume((1, 5), dtype="uint8")
        segmented(out, found, ["actin"])
        out.write(f"filaments/{name}__actin.csv", filaments_csv([line(1, y)], GRID).encode())
        out.write(f"particles/{name}__ribosome.csv", particles_csv([], GRID).encode())
        mrc(f"{name}__labels.mrc", volume((1, 5 if name == "a" else 10)))
        text(f"{name}.json", json.dumps({"classes": {"1": "actin"}}))
        # In both tomograms the true line is where that of the first was found.
        text(f"{name}__filaments.csv", filaments_csv([line(1, 100)], GRID))
        text(f"{name}__particles.csv", particles_csv([picks("ribosome", (0, 0, 0))], GRID))
    text("c__labels.mrc", "has no result and is not read")
    scores = evaluate_folders(str(tmp_path / "out"), str(tmp_path))
    assert list(scores) == ["labels", "filaments", "particles"]
    assert scores["labels"]["actin"]["recall"] == 10 / 15
    assert scores["filaments"]["actin"]["f1"] == 0.5
    assert (scores["filaments"]["actin"]["missed"], scores["filaments"]["actin"]["false"]) == (1, 1)
    # A class that was looked for and not found at all is scored too.
    assert scores["particles"]["ribosome"]["recall"] == 0.0
    with pytest.raises(RequestError, match=r"no tomogram of .* has its truth"):
        evaluate_folders(str(tmp_path), str(tmp_path))


@pytest.mark.parametrize(
    ("place", "folder"),
    [("out/", True), ("a.b", True), ("x.mrc", False), ("t.zarr/", False), ("T.CSV", False)],
)
def test_folders_are_told_from_files(place, folder):
    assert is_folder(place) is folder
