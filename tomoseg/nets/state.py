"""All that changes in a training, kept so that a killed one goes on as if undisturbed."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tomoseg.core.errors import ModelError, RequestError
from tomoseg.core.version import code_version
from tomoseg.nets.architecture import (
    SegmentationNetwork,
    build_network,
    channels_last,
    set_channels_last,
)
from tomoseg.nets.card import CARD_NAME
from tomoseg.nets.checkpoint import damaged_state, load_network, load_state, save_state
from tomoseg.nets.settings import TrainingSettings

STATE_NAME = "training.safetensors"

log = logging.getLogger(__name__)

# They say how and how long to compute, not what: a training may go on under other ones.
_FREE_TO_CHANGE = {
    "steps", "maximum_minutes", "validation_steps", "checkpoint_minutes", "device", "threads",
    "readers", "name", "version", "halo", "patience", "validation_voxels",
}  # fmt: skip


@dataclass
class TrainingState:
    """All that changes in a training, and all that must survive a kill.

    Parameters
    ----------
    network, average, optimizer
        What is trained, the running mean of its weights, and AdamW.
    step, seconds
        Steps done and time spent.
    best
        Highest mean F1 so far; -1 before the first validation.
    stale
        Validations since then.
    validated_step
        Step of the last validation.
    losses
        Of the steps since the last report, scalars on the device.
    codes
        Versions of tomoseg that trained before this one, if they were others.
    """

    network: SegmentationNetwork
    average: dict[str, Tensor]
    optimizer: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0
    best: float = -1.0
    stale: int = 0
    validated_step: int = 0
    losses: list[Tensor] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)

    @property
    def device(self) -> torch.device:
        """Where it is trained."""
        return next(self.network.parameters()).device

    def save(self, folder: Path, settings: TrainingSettings) -> None:
        """Write the state."""
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.items()}
        for number, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{k}": v for k, v in values.items()}
        if self.losses:
            tensors["losses.all"] = torch.stack(self.losses)
        record = {
            "step": self.step, "seconds": self.seconds, "best": self.best, "stale": self.stale,
            "validated_step": self.validated_step, "digest": settings_digest(settings),
            "codes": [*self.codes, code_version()],
        }  # fmt: skip
        save_state(folder / STATE_NAME, tensors, record)


def start_state(settings: TrainingSettings, folder: Path, device: torch.device) -> TrainingState:
    """Return a new state, or the one that an earlier run left in the folder.

    Raises
    ------
    RequestError
        If the folder belongs to another training.
    ModelError
        If the state, or the model to start from, is not sound.
    """
    torch.manual_seed(settings.seed)
    network = build_network(settings.architecture, len(settings.classes))
    if settings.init_from:
        _copy_weights(settings.init_from, network)
    network = network.train().to(device)
    set_channels_last(network)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    average = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = TrainingState(network, average, optimizer)
    if (folder / STATE_NAME).exists():
        _resume(state, settings, folder)
    elif (folder / CARD_NAME).exists():
        raise RequestError(
            f"{folder} already holds a model", remedy="Choose another output folder."
        )
    return state


def _resume(state: TrainingState, settings: TrainingSettings, folder: Path) -> None:
    path = folder / STATE_NAME
    tensors, record = load_state(path)
    if record.get("digest") != settings_digest(settings):
        raise RequestError(
            f"{path} belongs to a training with other settings",
            remedy="Choose another output folder, or remove it to start anew.",
        )
    try:
        _restore(state, tensors, record)
        best, stale = float(record["best"]), int(record["stale"])
        state.codes = _earlier_codes(path, record)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise damaged_state(path, error) from error
    # Where the model is torn, the next validation writes one anew, however good. A better one than
    # the state knows was written just before a kill, and will be again.
    if best_score(folder) >= best:
        state.best, state.stale = best, stale


def _earlier_codes(path: Path, record: dict[str, Any]) -> list[str]:
    """Return the versions that trained before, and say it if the last is not this one."""
    codes = [str(code) for code in record.get("codes", ["of an unknown version"])]
    if codes[-1:] == [code_version()]:
        return codes[:-1]
    log.warning(
        "%s was trained by tomoseg %s up to here and goes on with %s; the card says so. To train "
        "with one version, remove it to start anew", path, codes[-1], code_version(),
    )  # fmt: skip
    return codes


def _restore(state: TrainingState, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
    """Put back what was saved, but for the best score so far."""
    parts: dict[str, dict[str, Tensor]] = {
        "network": {}, "average": {}, "optimizer": {}, "losses": {},
    }  # fmt: skip
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    state.network.load_state_dict(parts["network"])
    for name, tensor in parts["average"].items():
        state.average[name].copy_(tensor)
    slots: dict[int, dict[str, Tensor]] = {}
    for name, tensor in parts["optimizer"].items():
        number, _, key = name.partition(".")
        slots.setdefault(int(number), {})[key] = channels_last(tensor)
    groups = state.optimizer.state_dict()["param_groups"]
    state.optimizer.load_state_dict({"state": slots, "param_groups": groups})
    state.step, state.seconds = int(record["step"]), float(record["seconds"])
    state.validated_step = int(record["validated_step"])
    for losses in parts["losses"].values():
        state.losses = list(losses.to(state.device))


def _copy_weights(folder: Path, network: SegmentationNetwork) -> None:
    """Start from a trained model; the head is left as it is where the classes are others.

    A network that gives fewer slices than the trained one starts as its middle slices.
    """
    trained, _ = load_network(folder)
    asked, known = network.architecture, trained.architecture
    spare = (known.slices_out - asked.slices_out) // 2
    if asked != known.model_copy(update={"slices_out": asked.slices_out}) or spare < 0:
        raise ModelError(
            f"{folder} has another architecture than the training asks for",
            remedy="Copy the architecture of its card into the recipe; slices_out may be fewer.",
        )
    weights = trained.state_dict()
    if spare:
        middle = slice(spare, spare + asked.slices_out)
        cell = asked.fold**asked.dimensions
        for name in ("head.weight", "head.bias"):
            by_slice = weights[name].unflatten(0, (-1, known.slices_out, cell))
            weights[name] = by_slice[:, middle].flatten(0, 2)
    own = network.state_dict()
    fitting = {k: v for k, v in weights.items() if v.shape == own[k].shape}
    network.load_state_dict(own | fitting)


def best_score(folder: Path) -> float:
    """Return the mean F1 of the model in the folder, -1 if there is none that is whole."""
    try:
        _, card = load_network(folder)
    except ModelError:
        return -1.0
    return float(card.scores["mean_f1"])


def settings_digest(settings: TrainingSettings) -> str:
    """Return a digest of all settings that decide what is learnt."""
    text = settings.model_dump_json(exclude=_FREE_TO_CHANGE)
    return hashlib.sha256(text.encode()).hexdigest()


def update_average(
    average: dict[str, Tensor], current: dict[str, Tensor], decay: float, step: int
) -> None:
    """Move the running mean of weights and norms towards the current ones, in place.

    Early on the mean forgets faster, so that the random start does not linger.
    """
    share = 1 - min(decay, (1 + step) / (10 + step))
    for name, tensor in current.items():
        if tensor.is_floating_point():
            average[name].lerp_(tensor, share)
        else:
            average[name].copy_(tensor)
