import json
import subprocess
import sys

import pytest
from pydantic import TypeAdapter, ValidationError

from tomoseg.core.classes import COLOURS
from tomoseg.core.errors import ModelError
from tomoseg.nets.card import (
    PRESETS,
    Architecture,
    ArchitectureChoice,
    HaloCost,
    HaloDisagreement,
    ModelCard,
    load_card,
)
from tomoseg.nets.settings import TrainingSettings


def make_card(**changes):
    architecture = Architecture(slices_in=4, slices_out=2, widths=(4, 8))
    values = {
        "name": "test",
        "architecture": architecture,
        "classes": ("tube", "blob"),
        "colours": ("#ff0000", "#00ff00"),
        "voxel_size_angstrom": 10.0,
        "halo": architecture.receptive_halo,
        "stride": architecture.stride,
    }
    return ModelCard(**(values | changes))


def halo_disagreement(shares, precision="float32", last=18):
    """Return a measurement with these shares at halos 0, 8, … and none at the last, exact one."""
    costs = [
        HaloCost(halo=8 * number, voxels=share, foreground=share, time_ratio=0.5)
        for number, share in enumerate(shares)
    ]
    exact = HaloCost(halo=last, voxels=0.0, foreground=0.0, time_ratio=1.0)
    return HaloDisagreement(
        tomogram="t",
        precision=precision,
        shape=(8, 64, 64),
        block_shape=(8, 32, 32),
        costs=(*costs, exact),
    )


@pytest.mark.parametrize(
    ("numbers", "stride", "dimensions"),
    [
        ({"slices_in": 16, "slices_out": 8}, (8, 16, 16), 2),
        ({"fold": 1, "widths": (8, 16)}, (1, 2, 2), 2),
        ({"kind": "volume", "widths": (8, 16, 32)}, (8, 8, 8), 3),
        ({"kind": "tile", "widths": (8, 8, 8), "kernel": 9, "slices_in": 3}, (1, 2, 2), 2),
    ],
)
def test_stride_is_the_deepest_cell(numbers, stride, dimensions):
    architecture = Architecture(**numbers)
    assert architecture.stride == stride
    assert architecture.dimensions == dimensions


@pytest.mark.parametrize(
    ("numbers", "reason"),
    [
        ({"slices_in": 5, "slices_out": 2}, "even number"),
        ({"slices_in": 2, "slices_out": 4}, "exceed"),
        ({"kind": "volume", "slices_in": 4}, "volume network"),
        ({"widths": ()}, "at least 1"),
        ({"widths": (4096,)}, "1024"),
        ({"fold": 3}, "1, 2 or 4"),
        ({"depth": 4}, "Extra inputs"),
        ({"kernel": 5}, "slab network has kernels of 3"),
        ({"kind": "tile", "kernel": 14}, "14 must be odd"),
        ({"kind": "tile", "kernel": 33}, "31"),
        ({"kind": "tile", "fold": 1}, "no fold"),
        ({"kind": "tile", "blocks_per_level": 2}, "no blocks_per_level"),
        ({"kind": "tile", "slices_in": 3, "slices_out": 3}, "predicts 1 slice"),
        ({"kind": "tile", "slices_in": 2}, "even number"),
    ],
)
def test_impossible_architectures_are_refused(numbers, reason):
    with pytest.raises(ValidationError, match=reason):
        Architecture(**numbers)


def test_a_tile_network_sees_its_kernels_at_both_resolutions():
    """By hand: 1 cell of scaling up and 2 layers of 7 cells, of 2 voxels each; then 7 voxels."""
    assert PRESETS["tile"].receptive_halo == (2, 2 * (1 + 2 * 7) + 7, 37)


def test_a_preset_stands_for_its_numbers_and_others_are_named():
    choice = TypeAdapter(ArchitectureChoice)
    for name, architecture in PRESETS.items():
        assert choice.validate_python(name) is architecture
        assert choice.validate_python(architecture.model_dump()) == architecture
    assert choice.validate_python({"fold": 4}) == Architecture(fold=4)
    with pytest.raises(ValidationError, match="'fastest' is none of fast, accurate, unet2d"):
        choice.validate_python("fastest")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"calibration": {"actin": (1, 0)}}, r"calibration of \['actin'\]"),
        ({"calibration": {"tube": (0, 0)}}, "greater than 0"),
        ({"calibration": {"tube": (1, float("nan"))}}, "finite"),
        ({"calibration": {"tube": (float("inf"), 0)}}, "finite"),
        ({"classes": ("tube", "tube")}, "not all different"),
        ({"colours": ("#ff0000",)}, "as many colours"),
        ({"colours": ("red", "#00ff00")}, "pattern"),
        ({"stride": (1, 1, 1)}, "stride"),
        ({"halo": (-1, 0, 0)}, r"halo\.0\s+Input should be greater than or equal to 0"),
        ({"voxel_size_angstrom": 0}, "greater than 0"),
        ({"voxel_size_angstrom": float("nan")}, "finite|greater"),
        ({"weights_sha256": "../x"}, "pattern"),
        ({"surprise": 1}, "Extra inputs"),
    ],
)
def test_a_card_that_contradicts_itself_is_refused(changes, reason):
    with pytest.raises(ValidationError, match=reason):
        make_card(**changes)


def test_labels_follow_the_card():
    card = make_card()
    assert (card.label("tube"), card.label("blob")) == (1, 2)
    with pytest.raises(ModelError, match="no class 'actin', only tube, blob"):
        card.label("actin")


def test_a_card_survives_json(tmp_path):
    card = make_card(
        intensity=({"kind": "zscore"},),
        scores={"mean_f1": 0.5},
        calibration={"blob": (0.8, -0.1)},
        halo_disagreement=(halo_disagreement([0.25, 1e-3]),),
    )
    (tmp_path / "card.json").write_text(card.model_dump_json())
    assert load_card(tmp_path) == card


def test_a_card_from_before_tile_networks_and_calibration_is_read(tmp_path):
    old = make_card().model_dump(mode="json")
    del old["architecture"]["kernel"], old["calibration"], old["halo_disagreement"]
    (tmp_path / "card.json").write_text(json.dumps(old))
    assert load_card(tmp_path) == make_card()


# The network reads whole cells of 4 voxels in y and x, 2 in z, and sees 1, 18 and 18 beyond.
@pytest.mark.parametrize(
    ("halo", "share"),
    [
        pytest.param((1, 8, 8), 2e-3, id="the worse of two precisions"),
        pytest.param((1, 5, 8), 2e-3, id="rounded up to whole cells"),
        pytest.param((1, 0, 0), 0.3, id="none"),
        pytest.param((1, 9, 9), None, id="reads 12, which was not measured"),
        pytest.param((0, 8, 8), None, id="too little in z"),
        pytest.param((1, 8, 0), None, id="less in x than in y"),
        pytest.param((1, 18, 18), 0.0, id="exact"),
        pytest.param((1, 17, 17), 0.0, id="exact when rounded up"),
        pytest.param((99, 99, 99), 0.0, id="more than exact"),
    ],
)
def test_a_card_says_what_a_halo_costs(halo, share):
    measured = (halo_disagreement([0.3, 1e-3], "bfloat16"), halo_disagreement([0.2, 2e-3]))
    assert make_card(halo_disagreement=measured).disagreement(halo) == share
    assert make_card().disagreement(halo) == (0.0 if share == 0 else None)


@pytest.mark.parametrize(
    "changes", [{"voxels": 1.1}, {"foreground": -0.1}, {"halo": -1}, {"time_ratio": 0}, {"x": 1}]
)
def test_impossible_costs_of_a_halo_are_refused(changes):
    sound = {"halo": 8, "voxels": 0.1, "foreground": 0.2, "time_ratio": 0.5}
    HaloCost(**sound)
    with pytest.raises(ValidationError):
        HaloCost(**(sound | changes))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "cannot be read: No such file"),
        ("{", "the card: Invalid JSON"),
        ("x" * (1 << 21), "larger than 1048576 bytes"),
        (json.dumps({"name": "x"}), "architecture: Field required"),
    ],
)
def test_a_bad_card_is_an_error_that_names_it(tmp_path, text, reason):
    if text is not None:
        (tmp_path / "card.json").write_text(text)
    with pytest.raises(ModelError, match=reason) as caught:
        load_card(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_cards_and_settings_never_wait_for_torch():
    code = "import sys, tomoseg.nets.card, tomoseg.nets.settings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_default_colours_differ():
    assert len(set(COLOURS.values())) == len(COLOURS)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"steps": None}, "a training must end"),
        ({"steps": 1, "patch": (8, 100, 128)}, r"\(8, 112, 128\) would"),
        ({"steps": 1, "patch": (16, 128, 128)}, r"\(8, 128, 128\) would"),
        ({"classes": ("unknown",), "colours": ("#000000",) * 2}, "as many colours, not 2"),
        ({"steps": 1, "learning_rat": 1}, "Extra inputs"),
    ],
)
def test_settings_that_make_no_training_are_refused(changes, reason):
    with pytest.raises(ValidationError, match=reason):
        TrainingSettings(name="x", voxel_size_angstrom=10, **changes)


def test_settings_know_the_colours_and_the_card():
    settings = TrainingSettings(
        name="x", voxel_size_angstrom=10, steps=1, classes=("ribosome", "actin")
    )
    card = settings.card({}, {})
    assert card.colours == ("#005c31", "#e69f00")
    assert card.halo == card.architecture.receptive_halo
    less = settings.model_copy(update={"halo": 32}).card({}, {})
    assert less.halo == (4, 32, 32)
