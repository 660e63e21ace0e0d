"""What speaks against a trained network."""

import pytest

from tomoseg.nets.card import Architecture, ModelCard
from tomoseg.nets.doubts import annotated_share, coverage_note, doubts

FALLING = [1.0, 0.8, 0.6, 0.4, 0.2]


def card(confusion=((900, 0), (0, 100)), voxels=(900, 100), classes=("actin",)):
    architecture = Architecture()
    return ModelCard(
        name="mine",
        architecture=architecture,
        classes=classes,
        colours=("#000000",) * len(classes),
        voxel_size_angstrom=10.0,
        halo=architecture.receptive_halo,
        stride=architecture.stride,
        training={"voxels_per_label": list(voxels)},
        scores={"confusion": [list(row) for row in confusion]},
    )


def test_nothing_speaks_against_a_good_network():
    assert doubts(card(), FALLING) == ()
    assert doubts(card(), ()) == ()
    # A negative loss falls too.
    assert doubts(card(), [-1.0, -2.0]) == ()


@pytest.mark.parametrize(
    ("changes", "losses", "said"),
    [
        ({"confusion": [[900, 0], [85, 15]]}, FALLING,
         ["actin: F1 0.261 on what was kept apart, below 0.3"]),
        ({"confusion": [[900, 0], [100, 0]]}, FALLING, ["actin: F1 0.000"]),
        ({"confusion": [[1000, 0], [0, 0]]}, FALLING, ["actin: none was kept apart"]),
        ({"confusion": [[0, 0], [0, 0]]}, FALLING, ["nothing was kept apart"]),
        # A third of everything is labelled, a hundredth is annotated.
        ({"confusion": [[660, 330], [0, 10]], "voxels": (990, 10)}, FALLING,
         ["actin: F1 0.057", "actin: 34% of what was kept apart is labelled, 1.0% of it"]),
        ({}, [1.0, 1.0, 1.0, 0.99], ["the loss did not fall: 1 at first, 0.99 in the end"]),
        ({}, [-1.0, -1.01], ["the loss did not fall"]),
        ({"confusion": [[800, 0, 0], [0, 100, 0], [0, 95, 5]], "voxels": (800, 100, 100),
          "classes": ("actin", "ribosome")}, FALLING, ["ribosome: F1 0.095"]),
    ],
)  # fmt: skip
def test_each_doubt_is_said_with_its_numbers(changes, losses, said):
    for doubt, words in zip(doubts(card(**changes), losses), said, strict=True):
        assert doubt.startswith(words)


def test_a_class_that_covers_a_tomogram_is_told():
    assert coverage_note(card(), "actin", 0.29) == ""
    note = coverage_note(card(), "actin", 0.34)
    assert note.startswith("actin covers 34% of the tomogram, 10.0% of what mine was trained on")
    # A small class may be several times as frequent.
    assert coverage_note(card(voxels=(999, 1)), "actin", 0.09) == ""


@pytest.mark.parametrize("voxels", [(), (0, 0), (900,)])
def test_nothing_is_said_where_the_annotation_is_not_known(voxels):
    assert annotated_share(card(voxels=voxels), "actin") == 1.0
    assert coverage_note(card(voxels=voxels), "actin", 1.0) == ""
