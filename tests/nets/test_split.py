from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tomoseg.core.blocks import Box
from tomoseg.core.errors import RequestError
from tomoseg.nets.card import Architecture
from tomoseg.nets.settings import TrainingSettings
from tomoseg.nets.split import Region, disjoint, split_regions

SLAB = Architecture(slices_in=6, slices_out=2, widths=(4, 8))


@dataclass(frozen=True)
class Painted:
    """Labels on a tomogram; there is no need of its image."""

    name: str
    painting: np.ndarray
    tomogram: str = ""
    annotated: tuple = ()

    def labels(self, box):
        return self.painting[box.slices]

    @property
    def shape(self):
        return self.painting.shape


def painted(name, *planes, tomogram=None, shape=(20, 30, 40)):
    """Annotate planes, given as (z, labels that occur in it)."""
    painting = np.full(shape, 255, dtype=np.uint8)
    for z, *labels in planes:
        painting[z] = 0
        for row, label in enumerate(labels):
            painting[z, row, 2:5] = label
    boxes = tuple(Box((z, 0, 0), (z + 1, *shape[1:])) for z, *_ in planes) or (Box.whole(shape),)
    return Painted(name, painting, tomogram or name, boxes)


def make_settings(**changes):
    values = {
        "name": "x",
        "architecture": SLAB,
        "classes": ("a", "b"),
        "voxel_size_angstrom": 10,
        "validation_fraction": 0.25,
    }
    return TrainingSettings(**(values | changes))


def names(regions):
    return [region.volume.name for region in regions]


def test_named_tomograms_are_kept_apart_with_all_their_volumes():
    volumes = [painted("a", (3, 1, 2)), painted("b", (3, 1)), painted("c", (5, 2), tomogram="b")]
    training, validation = split_regions(volumes, make_settings(validation=("b",)))
    assert (names(training), names(validation)) == (["a"], ["b", "c"])
    assert validation[0] == Region(volumes[1], Box.whole((20, 30, 40)))


def test_of_several_tomograms_whole_ones_are_kept_apart():
    volumes = [painted(name, (3, 1), (4, 1, 2)) for name in "abcdefgh"]
    training, validation = split_regions(volumes, make_settings())
    assert len(validation) == 2
    assert sorted(names(training) + names(validation)) == list("abcdefgh")


def test_the_only_tomogram_with_a_class_is_trained_on():
    volumes = [painted("a", (3, 1)), painted("b", (3, 1)), painted("c", (3, 1, 2))]
    training, validation = split_regions(volumes, make_settings())
    assert "c" in names(training)
    assert len(validation) == 1


def test_tomograms_of_which_training_needs_each_are_cut():
    volumes = [painted("a", (2, 1), (15, 1)), painted("b", (2, 2), (15, 2))]
    training, validation = split_regions(volumes, make_settings())
    assert names(training) == names(validation) == ["a", "b"]


def test_a_single_tomogram_is_cut_between_annotated_slices_with_a_gap_of_one_halo():
    volumes = [
        painted("a", *((z, 1, 2) for z in (2, 3, 8, 9))),
        painted("a tiles", (17, 1, 2), tomogram="a"),
    ]
    training, validation = split_regions(volumes, make_settings())
    # One slice in five is as near to a quarter as it gets; the halo along z is 2.
    assert [region.box for region in training] == [Box((0, 0, 0), (10, 30, 40))]
    assert names(training) == ["a"]
    assert [box.begin[0] for region in training for box in region.parts] == [2, 3, 8, 9]
    assert [region.box.begin[0] for region in validation] == [12]
    assert names(validation) == ["a tiles"]


def test_training_and_validation_are_at_least_a_halo_apart():
    volume = painted("a", *((z, 1, 2) for z in range(20)))
    (before,), (after,) = split_regions([volume], make_settings())
    assert after.box.begin[0] - before.box.end[0] == 2
    assert before.box.end[0] >= 12
    gap = make_settings(validation_gap=7)
    (before,), (after,) = split_regions([volume], gap)
    assert after.box.begin[0] - before.box.end[0] == 7


def test_a_flat_tomogram_is_cut_along_y():
    volume = painted("a", (0, *([1, 2] * 15)), shape=(1, 200, 40))
    volume.painting[0, ::7, 7] = 1
    volume.painting[0, ::7, 8] = 2
    (before,), (after,) = split_regions([volume], make_settings())
    reach = SLAB.receptive_halo[1]
    assert after.box.begin[1] - before.box.end[1] == reach
    assert (before.box.begin[0], before.box.end[0]) == (0, 1)


def test_a_class_of_the_last_slice_alone_is_still_trained_on():
    volume = painted("a", *((z, 1) for z in (2, 6, 10, 14)), (18, 1, 2))
    (before,), (after,) = split_regions([volume], make_settings())
    assert (before.box.end[0], after.box.begin[0]) == (20, 0)
    assert [box.begin[0] for box in after.parts] == [2]


def test_slices_too_near_for_a_gap_are_cut_across():
    volume = painted("a", *((z, *([1, 2] * 10)) for z in (4, 5)), shape=(8, 200, 200))
    volume.painting[4:6, :, 150], volume.painting[4:6, :, 151] = 1, 2
    (before,), (after,) = split_regions([volume], make_settings())
    assert after.box.begin[1] - before.box.end[1] == SLAB.receptive_halo[1]
    assert len(before.parts) == len(after.parts) == 2


def test_where_a_halo_has_no_room_the_gap_is_smaller_and_it_is_said(caplog):
    deep = Architecture(slices_in=30, slices_out=2, widths=(4, 8))
    volume = painted("a", (2, 1, 2), (5, 1, 2), shape=(12, 20, 20))
    (before,), (after,) = split_regions([volume], make_settings(architecture=deep))
    low, high = sorted((before.box, after.box), key=lambda box: box.begin)
    assert 9 in np.subtract(high.begin, low.end)
    assert "validation is 9 planes away from what is trained on, a halo has 18" in caplog.text


@pytest.mark.parametrize(
    ("volumes", "changes", "reason"),
    [
        ([painted("a", (1, 1))], {"validation": ("c",)}, r"\['c'\] are not among \['a'\]"),
        ([painted("a", (1, 1)), painted("a", (1, 1), tomogram="b")], {}, "occur twice"),
        ([painted("a", (1, 1))], {"validation": ("a",)}, "left to train on"),
        ([painted("a", (1, 1), (5, 1))], {"validation_gap": 38}, "both sides have some"),
        ([painted("a", (1, 3), (9, 1))], {}, r"^a: label 3 is neither 0\.\.2 nor 255"),
        ([painted("a", (1, 1)), painted("a2", tomogram="a")], {}, "a: .*a2 annotates nothing"),
        ([], {}, "left to train on"),
    ],
)
def test_a_split_without_two_sides_is_refused(volumes, changes, reason):
    with pytest.raises(RequestError, match=reason):
        split_regions(volumes, make_settings(**changes))


corner = st.tuples(*[st.integers(0, 6)] * 3)
box = st.tuples(corner, corner).map(
    lambda pair: Box(
        tuple(min(ends) for ends in zip(*pair, strict=True)),
        tuple(max(ends) + 1 for ends in zip(*pair, strict=True)),
    )
)


@given(st.lists(box, max_size=5))
def test_disjoint_boxes_cover_the_same_voxels_once(boxes):
    covered = np.zeros((8, 8, 8), dtype=int)
    for one in boxes:
        covered[one.slices] = 1
    counted = np.zeros_like(covered)
    for one in disjoint(boxes):
        assert one.size
        counted[one.slices] += 1
    assert (counted == covered).all()
