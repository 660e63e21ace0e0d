"""Files that others made: whatever stands in them, they run nothing and are refused by name."""

import hashlib
import json
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch

from tomoseg.core.errors import ModelError, StoreError, TomosegError
from tomoseg.io.stores import Folder
from tomoseg.nets.architecture import build_network
from tomoseg.nets.card import Architecture, ModelCard, load_card
from tomoseg.nets.checkpoint import load_network, load_state, save_model, save_state
from tomoseg.nets.settings import TrainingSettings
from tomoseg.nets.state import STATE_NAME, settings_digest, start_state
from tomoseg.recipe.recipe import load_recipe

ARCHITECTURE = Architecture(slices_in=4, slices_out=2, widths=(4, 8))
SETTINGS = TrainingSettings(
    name="x",
    architecture=ARCHITECTURE,
    classes=("tube",),
    colours=("#ff0000",),
    voxel_size_angstrom=10.0,
    patch=(2, 32, 32),
    device="cpu",
)
CPU = torch.device("cpu")
HUGE = 1 << 62


class Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


@pytest.fixture
def trap(tmp_path):
    """A pickle that would leave a mark; the mark must not be there in the end."""
    mark = tmp_path / "it ran"
    data = pickle.dumps(Trap(mark))
    pickle.loads(data)
    mark.rmdir()
    yield data
    assert not mark.exists()


def checkpoint(path, trap):
    """What torch.save writes: a zip archive with a pickle in it."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", trap)
        archive.writestr("archive/version", "3\n")
    return path.read_bytes()


def hostile(tmp_path, trap):
    header = {"stem": {"dtype": "F32", "shape": [HUGE], "data_offsets": [0, HUGE * 4]}}
    overflow = {"stem": {"dtype": "F32", "shape": [HUGE, 4], "data_offsets": [0, 0]}}
    return {
        "a pickle": trap,
        "a checkpoint": checkpoint(tmp_path / "archive", trap),
        "a huge header": struct.pack("<Q", HUGE) + b"{}",
        "a huge tensor": framed(header),
        "a size that overflows": framed(overflow),
        "a pickle after a header": framed({}) + trap,
    }


def framed(header):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text


KINDS = [
    "a pickle",
    "a checkpoint",
    "a huge header",
    "a huge tensor",
    "a size that overflows",
    "a pickle after a header",
]


@pytest.fixture
def model(tmp_path):
    """A model of our own; :func:`replace` puts other weights in, for which the card vouches."""
    card = ModelCard(
        name="test",
        architecture=ARCHITECTURE,
        classes=("tube",),
        colours=("#ff0000",),
        voxel_size_angstrom=10.0,
        halo=ARCHITECTURE.receptive_halo,
        stride=ARCHITECTURE.stride,
    )
    save_model(tmp_path / "model", build_network(ARCHITECTURE, 1), card)
    return tmp_path / "model"


def replace(model, data):
    (model / "weights.safetensors").write_bytes(data)
    card = json.loads((model / "card.json").read_text())
    card["weights_sha256"] = hashlib.sha256(data).hexdigest()
    (model / "card.json").write_text(json.dumps(card))


@pytest.mark.parametrize("kind", KINDS)
def test_weights(tmp_path, trap, model, kind):
    replace(model, hostile(tmp_path, trap)[kind])
    with pytest.raises(ModelError, match=r"weights .*weights\.safetensors are not in safetensors"):
        load_network(model)


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_that_a_training_starts_from(tmp_path, trap, model, kind):
    replace(model, hostile(tmp_path, trap)[kind])
    settings = SETTINGS.model_copy(update={"init_from": model})
    with pytest.raises(ModelError, match="are not in safetensors format"):
        start_state(settings, tmp_path / "new", CPU)


@pytest.mark.parametrize("kind", KINDS)
def test_the_state_that_a_training_goes_on_from(tmp_path, trap, kind):
    (tmp_path / STATE_NAME).write_bytes(hostile(tmp_path, trap)[kind])
    for load in (
        lambda: load_state(tmp_path / STATE_NAME),
        lambda: start_state(SETTINGS, tmp_path, CPU),
    ):
        with pytest.raises(ModelError, match=r"training state .* is damaged: .*Remove it"):
            load()


RECORD = {"step": 1, "seconds": 1.0, "best": -1.0, "stale": 0, "validated_step": 0}


@pytest.mark.parametrize(
    ("tensors", "record"),
    [
        pytest.param({"os.system": torch.zeros(1)}, RECORD, id="a part that is none"),
        pytest.param({"network.stem": torch.zeros(1)}, RECORD, id="a tensor that is none"),
        pytest.param({"optimizer.x.y": torch.zeros(1)}, RECORD, id="no number"),
        pytest.param(None, RECORD | {"step": "import os"}, id="words for a number"),
        pytest.param(None, {}, id="numbers missing"),
        pytest.param(None, {"step": 1, "seconds": 1.0, "validated_step": 0}, id="no best"),
    ],
)
def test_a_state_that_is_sound_but_for_what_it_says(tmp_path, tensors, record):
    start_state(SETTINGS, tmp_path, CPU).save(tmp_path, SETTINGS)
    sound, _ = load_state(tmp_path / STATE_NAME)
    record = {**record, "digest": settings_digest(SETTINGS)}
    save_state(tmp_path / STATE_NAME, sound if tensors is None else tensors, record)
    with pytest.raises(ModelError, match=r"training state .* is damaged"):
        start_state(SETTINGS, tmp_path, CPU)


def test_a_state_whose_record_is_a_list(tmp_path):
    metadata = {"record": json.dumps([1, 2])}
    content = safetensors.torch.save({"a": torch.zeros(1)}, metadata=metadata)
    (tmp_path / STATE_NAME).write_bytes(content)
    with pytest.raises(ModelError, match=r"training state .* is damaged"):
        start_state(SETTINGS, tmp_path, CPU)


def test_cards(trap, model):
    (model / "card.json").write_bytes(trap)
    with pytest.raises(ModelError, match="is not a valid model card"):
        load_card(model)


def test_a_checkpoint_for_a_model(tmp_path, trap):
    """There is no door for them: a model is a folder."""
    checkpoint(tmp_path / "model.pt", trap)
    with pytest.raises(ModelError, match=r"Name a folder that holds card\.json"):
        load_network(tmp_path / "model.pt")


def test_sidecars_of_blocks(tmp_path, trap):
    array = np.array([Trap(tmp_path / "it ran")], object)
    np.savez(tmp_path / "objects.npz", labels=array)
    (tmp_path / "pickle.npz").write_bytes(trap)
    for name in ("objects.npz", "pickle.npz"):
        with pytest.raises(StoreError, match=f"{name} is cut or damaged"):
            Folder(str(tmp_path)).read_arrays(name)


def test_recipes(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"session: !!python/object/apply:os.mkdir ['{tmp_path}/it ran']\n")
    with pytest.raises(TomosegError, match=r"recipe\.yaml"):
        load_recipe(path)
    assert not (tmp_path / "it ran").exists()
