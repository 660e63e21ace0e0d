"""Painted annotations: what is painted is seen on the network's grid, and nothing else is."""

import warnings

import mrcfile
import numpy as np
import pytest

from tomoseg.core.blocks import Box
from tomoseg.core.errors import FormatError, RequestError, VoxelSizeError
from tomoseg.nets.settings import TrainingSettings
from tomoseg.recipe.source import SourceSection
from tomoseg.training.annotations import PaintedAnnotation, annotated_volumes

SHAPE = (40, 12, 14)
CLASSES = ("actin", "ribosome", "microtubule")
WHOLE = Box.whole(SHAPE)


def save(path, voxels, voxel_size=10.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    # The library warns of voxels that are no numbers, which some tests write on purpose.
    with warnings.catch_warnings(action="ignore"), mrcfile.new(path, overwrite=True) as file:
        file.set_data(voxels)
        file.set_volume()
        file.voxel_size = voxel_size


def noise(shape=SHAPE):
    return np.random.default_rng(0).normal(100, 10, shape).astype(np.float32)


@pytest.fixture
def paint(tmp_path):
    """Return a function that writes a tomogram, its labels beside it, and the annotation."""

    def write(labels, image=None, *, name="t1", voxel_size=10.0, classes=(), **said):
        save(tmp_path / f"{name}.mrc", noise(labels.shape) if image is None else image, voxel_size)
        save(tmp_path / f"{name}__labels.mrc", labels)
        annotation = PaintedAnnotation(
            tomograms=str(tmp_path / f"{name}.mrc"),
            labels="{folder}/{name}__labels.mrc",
            classes=classes,
            **said,
        )
        return annotation.completed(CLASSES, SourceSection())

    return write


def volumes(*annotations, memory_gib=1.0, **changes):
    values = {"name": "n", "classes": CLASSES, "voxel_size_angstrom": 10.0, "steps": 1}
    settings = TrainingSettings(**values | {"intensity": ({"kind": "z_score"},)} | changes)
    return annotated_volumes(annotations, settings, memory_gib=memory_gib)


def painted_slices():
    """Slice 3 has actin and slices 35 and 36 a ribosome and background; else not annotated."""
    labels = np.full(SHAPE, 255, np.uint8)
    labels[3, 2:5, 4:9] = 1
    labels[35:37, 1:6, 3:7] = 0
    labels[36, 8, 13] = 2
    return labels


# What is annotated


def test_what_is_painted_is_seen_and_boxes_lie_around_it(paint):
    (volume,) = volumes(paint(painted_slices()))
    assert (volume.name, volume.tomogram, volume.shape) == ("t1", "t1", SHAPE)
    assert (volume.judged, volume.weight) == ((1, 2, 3), 1.0)
    assert volume.annotated == (Box((3, 2, 4), (4, 5, 9)), Box((35, 1, 3), (37, 9, 14)))
    assert np.array_equal(volume.labels(WHOLE), painted_slices())
    box = Box((34, 1, 2), (38, 12, 13))
    assert np.array_equal(volume.labels(box), painted_slices()[box.slices])


def test_only_the_slices_that_are_named_are_used(paint):
    (volume,) = volumes(paint(painted_slices(), slices=(36, 40)))
    assert volume.annotated == (Box((36, 1, 3), (37, 9, 14)),)
    assert (volume.labels(WHOLE)[:36] == 255).all()
    assert np.array_equal(volume.labels(WHOLE)[36:], painted_slices()[36:])


@pytest.mark.parametrize(
    ("values", "classes", "judged", "found"),
    [
        (None, (), (1, 2, 3), {0: 0, 1: 1, 2: 2, 255: 255}),
        # 1.. are the classes that were looked for, in their order
        (None, ("ribosome", "actin"), (1, 2), {0: 0, 1: 2, 2: 1, 255: 255}),
        ({1: "ribosome", 2: "ribosome"}, (), (2,), {0: 0, 1: 2, 2: 2, 255: 255}),
        ({1: "ribosome", 2: "background"}, CLASSES, (1, 2, 3), {0: 0, 1: 2, 2: 0, 255: 255}),
        # membranes painted 0 among cells painted 255
        (
            {0: "actin", 255: "background", 1: "not_annotated", 2: "not_annotated"},
            (),
            (1,),
            {0: 1, 1: 255, 2: 255, 255: 0},
        ),
    ],
)
def test_values_stand_for_classes(paint, values, classes, judged, found):
    (volume,) = volumes(paint(painted_slices(), values=values, classes=classes))
    assert volume.judged == judged
    expected = np.vectorize(found.get, otypes=[np.uint8])(painted_slices())
    assert np.array_equal(volume.labels(WHOLE), expected)


def test_a_value_without_a_class_is_named(paint):
    labels = painted_slices()
    labels[36, 0, 0] = 3
    with pytest.raises(
        RequestError, match=r"t1: .*t1__labels\.mrc holds the value 3, .*known are 0, 1, 2, 255"
    ):
        volumes(paint(labels, classes=("actin", "ribosome")))


def test_slices_that_are_not_used_may_hold_anything(paint):
    labels = painted_slices()
    labels[20] = 77
    (volume,) = volumes(paint(labels, slices=(30, 40)))
    assert set(np.unique(volume.labels(WHOLE))) == {0, 2, 255}


@pytest.mark.parametrize("said", [{}, {"slices": (4, 35)}, {"slices": (100, 101)}])
def test_an_annotation_of_nothing_is_named(paint, said):
    labels = painted_slices() if said else np.full(SHAPE, 255, np.uint8)
    with pytest.raises(RequestError, match=r"t1: .*labels\.mrc annotates nothing.* is 255"):
        volumes(paint(labels, **said))


def test_labels_in_the_same_folder_are_no_tomograms(paint, tmp_path):
    paint(painted_slices(), name="t2")
    annotation = paint(painted_slices()).model_copy(update={"tomograms": (str(tmp_path),)})
    assert [volume.name for volume in volumes(annotation)] == ["t1", "t2"]


# The tomogram


def test_annotations_of_one_tomogram_share_it(paint):
    one, two = volumes(paint(painted_slices()), paint(painted_slices(), slices=(3, 4), weight=2))
    assert one.scene is two.scene
    assert [(v.name, v.tomogram, v.weight) for v in (one, two)] == [
        ("t1", "t1", 1.0),
        ("t1 (2)", "t1", 2.0),
    ]


def test_two_tomograms_of_one_name_are_refused(paint, tmp_path):
    annotation = paint(painted_slices())
    save(tmp_path / "more" / "t1.mrc", noise())
    other = annotation.model_copy(update={"tomograms": (str(tmp_path / "more" / "t1.mrc"),)})
    with pytest.raises(RequestError, match=r"more/t1\.mrc have one name"):
        volumes(annotation, other)


def test_a_tomogram_is_what_all_its_annotations_say(paint):
    bright = SourceSection(contrast="bright")
    annotation = paint(painted_slices())
    with pytest.raises(RequestError, match="different source sections"):
        volumes(annotation, annotation.model_copy(update={"source": bright}))
    (dark,) = volumes(annotation)
    (light,) = volumes(annotation.model_copy(update={"source": bright}))
    assert np.allclose(dark.image(WHOLE), -light.image(WHOLE), atol=1e-6)


@pytest.mark.parametrize("voxel_size", [10.0, 10.09, 13.0])
def test_memory_changes_how_often_files_are_opened_and_nothing_else(paint, monkeypatch, voxel_size):
    annotation = paint(painted_slices(), voxel_size=voxel_size)
    (kept,) = volumes(annotation)
    (read,) = volumes(annotation, memory_gib=0)
    whole = Box.whole(kept.shape)
    boxes = [whole, Box((1, 2, 3), (9, 10, 11)), Box((20, 0, 0), (21, 4, 4))]
    for box in boxes:
        assert np.array_equal(kept.image(box), read.image(box))
        assert np.array_equal(kept.labels(box), read.labels(box))
        kept.image(box)[:] = 7  # what is handed out is the caller's own
    assert not (kept.image(whole) == 7).any()

    def refused(*_, **__):
        raise AssertionError("opened again")

    for module in ("volume", "tomogram"):
        monkeypatch.setattr(f"tomoseg.training.annotations.{module}.open_source", refused)
    assert kept.image(boxes[1]).shape == kept.labels(boxes[1]).shape == (8, 8, 8)
    with pytest.raises(AssertionError):
        read.image(boxes[1])


# Voxel sizes


def test_a_voxel_size_within_a_percent_is_the_networks(paint):
    image = noise()
    (volume,) = volumes(paint(painted_slices(), image, voxel_size=10.09))
    assert volume.shape == SHAPE
    expected = (image - image.mean()) / image.std()
    assert np.allclose(volume.image(WHOLE), expected, atol=1e-4)


@pytest.mark.parametrize("voxel_size", [7.0, 15.0])
def test_other_voxel_sizes_are_resampled_labels_and_image_alike(paint, voxel_size):
    z, y, x = np.ogrid[:40, :48, :48]
    distance = np.sqrt((z - 20.0) ** 2 + (y - 20.0) ** 2 + (x - 28.0) ** 2)
    labels = (distance < 10).astype(np.uint8)
    image = (100 - 50 * labels + 0.01 * noise(labels.shape)).astype(np.float32)
    annotation = paint(labels, image, voxel_size=voxel_size)
    (volume,) = volumes(annotation)
    expected = tuple(int(np.ceil(n * voxel_size / 10.0)) for n in labels.shape)
    assert volume.shape == expected
    whole = Box.whole(volume.shape)
    assert volume.annotated == (whole,)
    seen, grey = volume.labels(whole), volume.image(whole)
    ball = 4 / 3 * np.pi * (10 * voxel_size / 10.0) ** 3
    assert (seen == 1).sum() == pytest.approx(ball, rel=0.05)
    halfway = (grey.max() + grey.min()) / 2
    assert ((grey < halfway) == (seen == 1)).mean() > 0.995


@pytest.mark.parametrize("voxel_size", [30.0, 3.9, 25.2])
def test_a_voxel_size_far_off_is_named(paint, voxel_size):
    with pytest.raises(
        VoxelSizeError,
        match=rf"t1: voxel size {voxel_size:.4g} Å and the network's 10 Å are more than 2\.5 times",
    ):
        volumes(paint(painted_slices(), voxel_size=voxel_size))


# Grey values


@pytest.mark.parametrize(
    ("missing", "limit", "message"),
    [
        (0.02, 0.01, r"t1: 1.99% of the voxels are NaN or infinite, more than 1%\. Repair"),
        (1.0, 0.99, r"t1: 100% of the voxels are NaN"),
        (1.0, 1.0, r"t1: none of the 6720 voxels is a finite number"),
    ],
)
def test_too_many_voxels_that_are_no_numbers_are_named(paint, missing, limit, message):
    image = noise()
    image.ravel()[: round(missing * image.size)] = np.nan
    annotation = paint(painted_slices(), image)
    source = SourceSection(maximum_not_finite=limit)
    with pytest.raises(FormatError, match=message):
        volumes(annotation.model_copy(update={"source": source}))


def test_a_few_voxels_that_are_no_numbers_are_the_mean(paint):
    image = noise()
    image[5, 5, 5] = np.inf
    (volume,) = volumes(paint(painted_slices(), image))
    seen = volume.image(WHOLE)
    assert np.isfinite(seen).all()
    assert seen[5, 5, 5] == pytest.approx(0, abs=1e-3)


# Masks of 0 and 255, and soft edges


def binary(value=255):
    labels = np.zeros(SHAPE, np.uint8)
    labels[3:9, 2:7, 2:7] = value
    return labels


def test_a_mask_of_0_and_255_is_refused_with_the_line_that_mends_it(paint):
    with pytest.raises(RequestError, match=r"0 and 255 alone, .* nothing is actin or") as caught:
        volumes(paint(binary()))
    assert "values: {255: actin}" in caught.value.remedy
    assert "values: {255: not_annotated}" in caught.value.remedy


@pytest.mark.parametrize(
    ("values", "inside"), [({255: "ribosome"}, 2), ({255: "not_annotated"}, 255)]
)
def test_what_255_is_may_be_said(paint, values, inside):
    (volume,) = volumes(paint(binary(), values=values))
    assert np.array_equal(volume.labels(WHOLE), binary(inside))


def test_background_alone_needs_no_word_where_another_tomogram_has_the_class(paint, tmp_path):
    paint(binary(), name="a")
    paint(binary(1), name="b")
    both = PaintedAnnotation(
        tomograms=(str(tmp_path / "a.mrc"), str(tmp_path / "b.mrc")),
        labels="{folder}/{name}__labels.mrc",
    ).completed(CLASSES, SourceSection())
    assert len(volumes(both)) == 2


def test_background_alone_in_some_slices_is_no_mask(paint):
    (volume,) = volumes(paint(binary(), slices=(20, 30)))
    assert set(np.unique(volume.labels(WHOLE))) == {0, 255}


@pytest.mark.parametrize(("dtype", "top"), [("uint8", 255), ("float32", 1.0), ("int16", 900)])
def test_a_mask_with_soft_edges_is_read_above_a_threshold(paint, dtype, top):
    soft = np.zeros(SHAPE, dtype)
    soft[3:9] = top
    soft[2] = soft[9] = top * 0.3
    soft = soft.view(np.int8) if dtype == "uint8" else soft
    with pytest.raises(RequestError, match="threshold"):
        volumes(paint(soft))
    (volume,) = volumes(paint(soft, threshold=top / 2, classes=("ribosome",)))
    expected = np.zeros(SHAPE, np.uint8)
    expected[3:9] = 2
    assert np.array_equal(volume.labels(WHOLE), expected)


def test_a_threshold_is_of_one_class_and_says_all(paint):
    with pytest.raises(RequestError, match=r"tells one class .* classes: \[actin\]"):
        paint(binary(), threshold=127)
    with pytest.raises(ValueError, match="values and threshold exclude each other"):
        paint(binary(), threshold=127, values={255: "actin"})


def test_corrections_may_be_background_alone(paint):
    (volume, _) = volumes(paint(painted_slices()), paint(binary(), name="fixed"))
    assert volume.name == "t1"
