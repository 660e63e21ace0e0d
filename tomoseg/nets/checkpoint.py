"""Models and training states on disk, in safetensors alone: nothing that is loaded can run code."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from tomoseg.core.errors import ModelError, is_away
from tomoseg.nets.architecture import SegmentationNetwork, build_network
from tomoseg.nets.card import (
    CARD_NAME,
    WEIGHTS_NAME,
    ModelCard,
    load_card,
    refuse_other_weights,
)

_HEADER_BYTES = 1 << 20
_RECORD = "record"


def save_model(
    folder: Path, network: nn.Module, card: ModelCard, *, half: bool = True
) -> ModelCard:
    """Write weights and card into a folder, the card last, and return it with the digest.

    ``half`` stores kernels in float16, half the size; vectors (biases, norms) stay float32,
    because running variances may leave the range of float16. Networks are loaded in float32.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: _stored(tensor, half) for name, tensor in network.state_dict().items()}
    data = safetensors.torch.save(tensors)
    card = card.model_copy(update={"weights_sha256": hashlib.sha256(data).hexdigest()})
    _replace(folder / WEIGHTS_NAME, data)
    save_card(folder, card)
    return card


def save_card(folder: Path, card: ModelCard) -> None:
    """Write a card beside the weights that it describes."""
    _replace(folder / CARD_NAME, card.model_dump_json(indent=2).encode())


def load_network(folder: Path) -> tuple[SegmentationNetwork, ModelCard]:
    """Load a model for evaluation, in float32 on the CPU.

    Raises
    ------
    ModelError
        If card or weights are missing, or the weights' size, digest, names, shapes or values
        are not what the card says.
    """
    card = load_card(folder)
    path = folder / WEIGHTS_NAME
    # On the meta device a network has shapes but no memory: the card is checked against the
    # file before anything is allocated.
    with torch.device("meta"):
        network = build_network(card.architecture, len(card.classes))
    expected = network.state_dict()
    bound = sum(tensor.nbytes for tensor in expected.values()) + _HEADER_BYTES
    data = _read(path, bound)
    refuse_other_weights(path, hashlib.sha256(data).hexdigest(), card)
    tensors = _parse(data, path)
    _check_tensors(tensors, expected, path)
    loaded = {name: tensors[name].to(like.dtype) for name, like in expected.items()}
    network.load_state_dict(loaded, assign=True)
    return network.requires_grad_(False).eval(), card


def save_state(path: Path, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Write a training state in one replacing move, so that a kill leaves the old one or the new.

    ``record`` is anything that JSON holds.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    _replace(path, safetensors.torch.save(plain, metadata={_RECORD: json.dumps(record)}))


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`save_state` wrote.

    Raises
    ------
    ModelError
        If the file is damaged.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, dict(json.loads(file.metadata()[_RECORD]))
    except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        if is_away(error):
            raise
        raise damaged_state(path, error) from error


def damaged_state(path: Path, error: Exception) -> ModelError:
    """Return the error that names a training state which cannot be gone on from."""
    return ModelError(
        f"training state {path} is damaged: {error}",
        remedy="Remove it to start the training anew.",
    )


def _stored(tensor: Tensor, half: bool) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    return tensor.half() if half and tensor.ndim > 1 else tensor


def _replace(path: Path, data: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    os.replace(partial, path)


def _read(path: Path, bound: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(bound + 1)
    except OSError as error:
        if is_away(error):
            raise
        raise ModelError(
            f"weights {path} cannot be read: {error.strerror}", remedy="Fetch the model again."
        ) from error
    if len(data) > bound:
        raise ModelError(f"weights {path} are larger than the {bound} bytes the card allows")
    return data


def _parse(data: bytes, path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise ModelError(f"weights {path} are not in safetensors format: {error}") from error


def _check_tensors(
    tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path
) -> None:
    if tensors.keys() != expected.keys():
        odd = sorted(tensors.keys() ^ expected.keys())
        raise ModelError(
            f"weights {path} do not fit the card's architecture: {len(odd)} tensors too many or "
            f"too few, such as {odd[0]}"
        )
    for name, like in expected.items():
        if tensors[name].shape != like.shape:
            raise ModelError(
                f"weights {path}: {name} has shape {tuple(tensors[name].shape)}, the card's "
                f"architecture needs {tuple(like.shape)}"
            )
        if not tensors[name].isfinite().all():
            raise ModelError(f"weights {path}: {name} holds values that are not finite")
