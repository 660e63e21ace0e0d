from dataclasses import dataclass

import numpy as np
import pytest

from tomoseg.blocks import Box
from tomoseg.errors import RequestError
from tomoseg.nets.card import Architecture
from tomoseg.nets.patches import (
    PatchSource,
    Region,
    read_padded,
    split_regions,
    take_census,
    validation_boxes,
)
from tomoseg.nets.settings import AugmentationSettings, TrainingSettings

SLAB = Architecture(slices_in=6, slices_out=2, widths=(4, 8))
VOLUME = Architecture(kind="volume", widths=(4, 8))


@dataclass(frozen=True)
class Painted:
    """A volume whose image is its labels, so that a patch shows whether both agree."""

    name: str
    painting: np.ndarray

    @property
    def shape(self):
        return self.painting.shape

    def image(self, box):
        assert Box.whole(self.shape).contains(box)
        return self.painting[box.slices].astype(np.float32)

    def labels(self, box):
        assert Box.whole(self.shape).contains(box)
        return self.painting[box.slices]


def painted(name, shape=(20, 30, 40), seed=0):
    """Mostly background, some of class 1, one voxel of class 2, a corner not annotated."""
    painting = (np.random.default_rng(seed).random(shape) < 0.1).astype(np.uint8)
    painting[3, 4, 5] = 2
    painting[:, :2, :2] = 255
    return Painted(name, painting)


def make_settings(**changes):
    values = {
        "name": "x",
        "architecture": SLAB,
        "classes": ("a", "b"),
        "colours": ("#000000", "#ffffff"),
        "voxel_size_angstrom": 10,
        "steps": 1,
        "patch": (2, 16, 16),
        "augmentation": AugmentationSettings(scale=0),
    }
    return TrainingSettings(**(values | changes))


def test_named_volumes_are_kept_apart():
    volumes = [painted(name) for name in "abc"]
    training, validation = split_regions(volumes, make_settings(validation=("b",)))
    assert [region.volume.name for region in training] == ["a", "c"]
    assert validation == [Region(volumes[1], Box.whole((20, 30, 40)))]


def test_without_names_the_last_slices_are_kept_apart():
    settings = make_settings(validation_fraction=0.25, validation_gap=3)
    training, validation = split_regions([painted("a")], settings)
    assert training[0].box == Box((0, 0, 0), (12, 30, 40))
    assert validation[0].box == Box((15, 0, 0), (20, 30, 40))


@pytest.mark.parametrize(
    ("names", "changes", "reason"),
    [
        ("ab", {"validation": ("c",)}, r"\['c'\] are not among"),
        ("aa", {"validation": ("a",)}, "occur twice"),
        ("a", {"validation": ("a",)}, "left to train on"),
        ("a", {"validation_gap": 19}, "leave none to train on"),
        ("", {}, "left to train on"),
    ],
)
def test_a_split_without_two_sides_is_refused(names, changes, reason):
    with pytest.raises(RequestError, match=reason):
        split_regions([painted(name) for name in names], make_settings(**changes))


def test_the_census_counts_labels_and_remembers_places():
    volumes = [painted("a", (70, 20, 20), seed=1), painted("b", seed=2)]
    boxes = [Box((1, 0, 0), (66, 20, 18)), Box.whole((20, 30, 40))]
    regions = [Region(volume, box) for volume, box in zip(volumes, boxes, strict=True)]
    census = take_census(regions, make_settings())
    voxels = np.concatenate([r.volume.labels(r.box).ravel() for r in regions])
    assert census.counts.tolist() == [int((voxels == label).sum()) for label in range(3)]
    for label, places in enumerate(census.anchors):
        assert len(places) == len(np.unique(places, axis=0)) > 0
        for number, *place in places:
            assert volumes[number].painting[tuple(place)] == label
            assert boxes[number].contains(Box(tuple(place), tuple(p + 1 for p in place)))
    weights = census.class_weights(4.0)
    share = np.sqrt(census.counts[0] / census.counts[1])
    np.testing.assert_allclose(weights, [1.0, min(share, 4.0), 4.0], rtol=1e-6)


@pytest.mark.parametrize(("label", "reason"), [(3, "label 3 is neither"), (255, "nothing is")])
def test_labels_that_train_nothing_are_refused(label, reason):
    volume = Painted("a", np.full((4, 4, 4), label, dtype=np.uint8))
    with pytest.raises(RequestError, match=reason):
        take_census([Region(volume, Box.whole(volume.shape))], make_settings())


def source(settings, volumes=None, box=None):
    volumes = volumes or [painted("a", seed=1), painted("b", seed=2)]
    regions = [Region(volume, box or Box.whole(volume.shape)) for volume in volumes]
    return PatchSource(regions, take_census(regions, settings), settings)


@pytest.mark.parametrize(
    ("architecture", "patch", "seen"),
    [(SLAB, (2, 16, 16), (6, 16, 16)), (VOLUME, (8, 12, 16), (8, 12, 16))],
)
@pytest.mark.parametrize("scale", [0.0, 0.2])
def test_patches_hold_image_and_labels_of_the_same_place(architecture, patch, seen, scale):
    settings = make_settings(
        architecture=architecture, patch=patch, augmentation={"scale": scale}, batch=4
    )
    batch = source(settings).batch(0)
    assert (batch.images.shape, batch.labels.shape) == ((4, *seen), (4, *patch))
    assert (batch.images.dtype, batch.labels.dtype) == (np.float32, np.uint8)
    if not scale:
        margin = architecture.margin
        centre = batch.images[:, margin : margin + patch[0]]
        known = batch.labels != 255
        assert (centre[known] == batch.labels[known]).all()


def test_a_step_always_gives_the_same_batch_and_another_step_another():
    batches = [source(make_settings()).batch(step) for step in (3, 3, 4)]
    assert (batches[0].images == batches[1].images).all()
    assert (batches[0].images != batches[2].images).any()
    other = source(make_settings(seed=1)).batch(3)
    assert (batches[0].images != other.images).any()


def test_rare_classes_are_seen_as_often_as_common_ones():
    settings = make_settings(batch=60, foreground_fraction=1.0, patch=(2, 4, 4))
    labels = source(settings).batch(0).labels.reshape(60, -1)
    with_rare = (labels == 2).any(axis=1).mean()
    assert 0.3 < with_rare < 0.7  # by chance it would be about 1 in 1,000


def test_patches_see_the_whole_region_but_no_label_outside():
    shape = (12, 24, 24)
    painting = np.random.default_rng(0).integers(0, 3, shape, dtype=np.uint8)
    volume = Painted("a", painting)
    settings = make_settings(batch=50, patch=(2, 8, 8), architecture=SLAB)
    box = Box((0, 0, 0), (6, 24, 24))
    batch = source(settings, [volume], box).batch(0)
    assert (batch.labels != 255).all()  # patches fit into the region
    image, labels = read_padded(Region(volume, box), Box((-2, 0, 20), (8, 24, 30)))
    assert (image[:2] == 0).all()
    assert (image[..., 4:] == 0).all()
    assert (image[2:, :, :4] == volume.painting[:8, :, 20:]).all()
    assert (labels[2:8, :, :4] == volume.painting[:6, :, 20:]).all()
    assert (labels[8:] == 255).all()


def test_patches_larger_than_the_volume_are_padded():
    settings = make_settings(patch=(2, 64, 64), batch=2)
    batch = source(settings).batch(0)
    assert batch.labels.shape == (2, 2, 64, 64)
    assert (batch.labels == 255).any()
    assert (batch.labels == 0).any()


@pytest.mark.parametrize("architecture", [SLAB, VOLUME])
def test_validation_boxes_cover_the_regions_once_on_the_networks_grid(architecture):
    patch = architecture.stride
    settings = make_settings(architecture=architecture, patch=patch)
    volume = painted("a", (75, 30, 20))
    region = Region(volume, Box((11, 0, 0), (75, 30, 20)))
    seen = np.zeros(volume.shape, dtype=int)
    for _, write, read in validation_boxes([region], settings):
        seen[write.slices] += 1
        assert read.contains(write)
        assert all(b % s == 0 for b, s in zip(read.begin, architecture.stride, strict=True))
    assert (seen[region.box.slices] == 1).all()
    assert seen.sum() == region.box.size


def test_validation_looks_at_no_more_than_it_may():
    settings = make_settings(validation_voxels=2 * 32 * 30 * 20)
    volume = painted("a", (32 * 10, 30, 20))
    boxes = validation_boxes([Region(volume, Box.whole(volume.shape))], settings)
    assert [write.begin[0] for _, write, _ in boxes] == [0, 32 * 9]
