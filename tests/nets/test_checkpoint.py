import hashlib
import json
import pickle

import pytest
import safetensors.torch
import torch

from tomoseg.core.errors import ModelError
from tomoseg.nets.architecture import build_network
from tomoseg.nets.card import Architecture, ModelCard
from tomoseg.nets.checkpoint import load_network, load_state, save_model, save_state

ARCHITECTURE = Architecture(slices_in=4, slices_out=2, widths=(4, 8))
CARD = ModelCard(
    name="test",
    architecture=ARCHITECTURE,
    classes=("tube",),
    colours=("#ff0000",),
    voxel_size_angstrom=10.0,
    halo=ARCHITECTURE.receptive_halo,
    stride=ARCHITECTURE.stride,
)


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    save_model(tmp_path, build_network(ARCHITECTURE, 1), CARD)
    return tmp_path


def rewrite(folder, data):
    """Replace the weights, with a card that vouches for them."""
    (folder / "weights.safetensors").write_bytes(data)
    card = json.loads((folder / "card.json").read_text())
    card["weights_sha256"] = hashlib.sha256(data).hexdigest()
    (folder / "card.json").write_text(json.dumps(card))


@pytest.mark.parametrize(("half", "tolerance"), [(False, 0.0), (True, 5e-4)])
def test_a_saved_model_comes_back(tmp_path, half, tolerance):
    network = build_network(ARCHITECTURE, 1)
    saved = save_model(tmp_path, network, CARD, half=half)
    loaded, card = load_network(tmp_path)
    assert card == saved
    assert saved.weights_sha256 != ""
    assert not loaded.training
    for name, tensor in network.state_dict().items():
        found = loaded.state_dict()[name]
        assert found.dtype == tensor.dtype
        assert torch.allclose(found, tensor, rtol=0, atol=tolerance)


def test_a_tile_network_comes_back(tmp_path):
    architecture = Architecture(kind="tile", widths=(3, 4), kernel=5)
    card = CARD.model_copy(
        update={
            "architecture": architecture,
            "halo": architecture.receptive_halo,
            "stride": architecture.stride,
            "calibration": {"tube": (1.5, -0.2)},
        }
    )
    network = build_network(architecture, 1).eval()
    saved = save_model(tmp_path, network, card, half=False)
    loaded, found = load_network(tmp_path)
    assert found == saved
    image = torch.randn(2, 1, 8, 6)
    with torch.inference_mode():
        assert torch.equal(loaded(image), network(image))


def test_half_precision_halves_the_file(tmp_path):
    network = build_network(Architecture(widths=(32, 64, 128)), 1)
    card = CARD.model_copy(update={"architecture": network.architecture})
    sizes = []
    for half in (True, False):
        save_model(tmp_path, network, card, half=half)
        sizes.append((tmp_path / "weights.safetensors").stat().st_size)
    assert sizes[0] < 0.53 * sizes[1]


def test_other_weights_than_the_cards_are_refused(folder):
    path = folder / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ModelError, match=r"SHA-256 .* the card says"):
        load_network(folder)


def with_nan(tensors):
    tensors["stem.conv.weight"][0] = float("nan")


def without_stem(tensors):
    del tensors["stem.conv.weight"]


def with_extra(tensors):
    tensors["trojan"] = torch.zeros(1)


def with_other_shape(tensors):
    tensors["stem.conv.weight"] = tensors["stem.conv.weight"][:1].contiguous()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (with_nan, "stem.conv.weight holds values that are not finite"),
        (without_stem, "too many or too few, such as stem.conv.weight"),
        (with_extra, "too many or too few, such as trojan"),
        (with_other_shape, r"shape \(1, 16, 3, 3\), the card's architecture needs \(4, 16, 3, 3\)"),
    ],
)
def test_weights_that_do_not_fit_the_architecture_are_refused(folder, change, reason):
    tensors = safetensors.torch.load_file(folder / "weights.safetensors")
    change(tensors)
    rewrite(folder, safetensors.torch.save(tensors))
    with pytest.raises(ModelError, match=reason):
        load_network(folder)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (pickle.dumps({"a": 1}), "not in safetensors format"),
        (b"", "not in safetensors format"),
        (b"\0" * (1 << 22), "larger than the"),
    ],
)
def test_anything_but_safetensors_is_refused(folder, data, reason):
    rewrite(folder, data)
    with pytest.raises(ModelError, match=reason):
        load_network(folder)


def test_missing_weights_are_an_error(folder):
    (folder / "weights.safetensors").unlink()
    with pytest.raises(ModelError, match=r"cannot be read: No such file.*Fetch the model"):
        load_network(folder)


def test_a_state_comes_back(tmp_path):
    tensors = {"a": torch.randn(2, 3).t(), "step": torch.tensor(3.0)}
    save_state(tmp_path / "state", tensors, {"step": 3, "digest": "x"})
    found, record = load_state(tmp_path / "state")
    assert record == {"step": 3, "digest": "x"}
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize("data", [b"", b"garbage" * 10, safetensors.torch.save({})])
def test_a_damaged_state_is_an_error(tmp_path, data):
    (tmp_path / "state").write_bytes(data)
    with pytest.raises(ModelError, match="damaged"):
        load_state(tmp_path / "state")
