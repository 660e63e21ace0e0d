from dataclasses import dataclass

import numpy as np
import pytest

from tomoseg.core.blocks import Box
from tomoseg.core.errors import RequestError
from tomoseg.nets.augmentation import AugmentationSettings
from tomoseg.nets.card import Architecture
from tomoseg.nets.patches import (
    PatchSource,
    place_patch,
    read_padded,
    take_census,
    validation_boxes,
)
from tomoseg.nets.settings import TrainingSettings
from tomoseg.nets.split import Region

SLAB = Architecture(slices_in=6, slices_out=2, widths=(4, 8))
VOLUME = Architecture(kind="volume", widths=(4, 8))


@dataclass(frozen=True)
class Painted:
    """A volume whose image is its labels, so that a patch shows whether both agree."""

    name: str
    painting: np.ndarray
    judged: tuple = (1, 2)
    boxes: tuple = ()
    weight: float = 1.0

    @property
    def tomogram(self):
        return self.name

    @property
    def shape(self):
        return self.painting.shape

    @property
    def annotated(self):
        return self.boxes or (Box.whole(self.shape),)

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
        "augmentation": AugmentationSettings.none(),
    }
    return TrainingSettings(**(values | changes))


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


def test_a_class_that_is_annotated_nowhere_is_named():
    volume = Painted("a", np.ones((4, 4, 4), dtype=np.uint8))
    with pytest.raises(RequestError, match="nothing is annotated as b in what is trained on"):
        take_census([Region(volume, Box.whole(volume.shape))], make_settings())


def test_overlapping_boxes_are_counted_once_and_nothing_else_is_read():
    boxes = (Box((0, 0, 0), (4, 8, 8)), Box((2, 4, 4), (5, 12, 12)))
    volume = Painted("a", np.full((20, 30, 40), 255, dtype=np.uint8), boxes=boxes)
    for label, box in zip((1, 2), boxes, strict=True):
        volume.painting[box.slices] = label
    census = take_census([Region(volume, Box.whole(volume.shape))], make_settings())
    assert census.counts.tolist() == [0, 4 * 8 * 8 - 2 * 4 * 4, 3 * 8 * 8]
    seen = np.concatenate([places[:, 1:] for places in census.anchors])
    assert len(seen) == len(np.unique(seen, axis=0))


def source(settings, volumes=None, box=None):
    volumes = volumes or [painted("a", seed=1), painted("b", seed=2)]
    regions = [Region(volume, box or Box.whole(volume.shape)) for volume in volumes]
    return PatchSource(take_census(regions, settings), settings)


@pytest.mark.parametrize(
    ("architecture", "patch", "seen"),
    [(SLAB, (2, 16, 16), (6, 16, 16)), (VOLUME, (8, 12, 16), (8, 12, 16))],
)
@pytest.mark.parametrize("scale", [0.0, 0.25])
def test_what_is_read_holds_image_and_labels_of_the_same_place(architecture, patch, seen, scale):
    augmentation = AugmentationSettings.none()
    if scale:
        augmentation = augmentation.model_copy(update={"scale": scale, "scale_probability": 1})
    settings = make_settings(
        architecture=architecture, patch=patch, augmentation=augmentation, batch=4
    )
    batch = source(settings).batch(0)
    assert batch.images.shape == batch.labels.shape
    assert (batch.images.shape == (4, *seen)) == (scale == 0)
    assert (np.array(batch.images.shape[1:]) >= seen).all()
    assert (batch.images.dtype, batch.labels.dtype) == (np.float32, np.uint8)
    known = batch.labels != 255
    assert known.any()
    assert (batch.images[known] == batch.labels[known]).all()


def test_what_a_zero_may_be_follows_from_what_was_looked_for():
    volume = Painted("a", painted("a").painting, judged=(2,))
    assert source(make_settings(), [volume]).batch(0).allowed.tolist() == 4 * [[True, True, False]]
    assert source(make_settings()).batch(0).allowed is None


def test_heavy_volumes_are_drawn_more_often():
    volumes = [
        Painted(name, np.full((size, 4, 4), label, np.uint8), weight=weight)
        for name, size, label, weight in (("a", 9, 1, 1.0), ("b", 2, 1, 3.0), ("c", 4, 2, 1.0))
    ]
    drawer = source(make_settings(foreground_fraction=1.0), volumes)
    rng = np.random.default_rng(0)
    drawn = np.bincount([drawer._anchor(rng)[0] for _ in range(4000)])
    assert drawn / 4000 == pytest.approx([0.125, 0.375, 0.5], abs=0.03)


@pytest.mark.parametrize(
    ("anchor", "part"), [(5, (0, 20)), (0, (0, 20)), (6, (5, 8)), (19, (3, 20))]
)
def test_a_patch_holds_its_anchor_and_all_the_annotation_it_can(anchor, part):
    rng = np.random.default_rng(0)
    box = Box((part[0],) * 3, (part[1],) * 3)
    begins = set()
    for _ in range(300):
        patch = place_patch((anchor,) * 3, box, (8, 8, 8), rng)
        assert patch.shape == (8, 8, 8)
        assert patch.contains(Box((anchor,) * 3, (anchor + 1,) * 3))
        assert box.contains(patch) or patch.contains(box)
        begins.add(patch.begin[0])
    assert len(begins) > 1 or anchor in (0, 19)


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
    # Patches fit into the region; the margins need not.
    assert (batch.labels[:, 2:4] != 255).all()
    image, labels = read_padded(Region(volume, box), Box((-2, 0, 20), (8, 24, 30)))
    assert (image[:2] == 0).all()
    assert (image[..., 4:] == 0).all()
    assert (image[2:, :, :4] == volume.painting[:8, :, 20:]).all()
    assert (labels[2:8, :, :4] == volume.painting[:6, :, 20:]).all()
    assert (labels[8:] == 255).all()


def test_patches_larger_than_the_volume_are_padded():
    settings = make_settings(patch=(2, 64, 64), batch=2)
    batch = source(settings).batch(0)
    assert batch.labels.shape == (2, 6, 64, 64)
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


def test_validation_reads_no_more_than_the_annotation_and_a_halo():
    boxes = (Box((9, 5, 5), (10, 9, 9)), Box((2, 20, 20), (3, 24, 24)))
    volume = Painted("a", painted("a", (20, 30, 400)).painting, boxes=boxes)
    settings = make_settings()
    (first, second) = validation_boxes([Region(volume, Box.whole(volume.shape))], settings)
    assert (first[1], second[1]) == boxes
    halo = settings.network_halo
    for _, write, read in (first, second):
        assert read.contains(write.grow(halo).clip(volume.shape))
        assert read.shape[2] <= 4 + 2 * halo[2] + 2 * SLAB.stride[2]
