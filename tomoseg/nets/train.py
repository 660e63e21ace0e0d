"""Training: reads top to bottom in the order of time.

A training is a pure function of its settings and volumes as long as its budget is in steps: the
patches and the noise of a step follow from the seed and the step alone, and the state that is
written now and then holds all the rest. A killed training, called again with the same output
folder, goes on from there.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import tomoseg
from tomoseg.blocks import Box
from tomoseg.errors import ModelError, RequestError
from tomoseg.nets.architecture import (
    SegmentationNetwork,
    build_network,
    channels_last,
    set_channels_last,
)
from tomoseg.nets.augment import vary_intensity
from tomoseg.nets.card import CARD_NAME, ModelCard, load_card
from tomoseg.nets.checkpoint import load_network, load_state, save_card, save_model, save_state
from tomoseg.nets.losses import segmentation_loss
from tomoseg.nets.patches import (
    Batch,
    PatchSource,
    Region,
    split_regions,
    take_census,
    validation_boxes,
)
from tomoseg.nets.predict import Predictor, choose_device, choose_dtype
from tomoseg.nets.settings import AnnotatedVolume, TrainingProgress, TrainingSettings
from tomoseg.nets.validation import confusion, f1_scores, halo_costs, mean_score

STATE_NAME = "training.safetensors"
LOG_NAME = "training.jsonl"

_REPORT_SECONDS = 15.0
_WARM_UP = 0.05
_FINAL_RATE = 0.005
_GRADIENT_NORM = 1.0
# They say how and how long to compute, not what: a training may go on under other ones.
_FREE_TO_CHANGE = {
    "steps", "maximum_minutes", "validation_minutes", "checkpoint_minutes", "device", "threads",
    "readers", "name", "version", "halo",
}  # fmt: skip

Report = Callable[[TrainingProgress], None]


def train(
    volumes: Sequence[AnnotatedVolume],
    settings: TrainingSettings,
    *,
    output: Path,
    report: Report | None = None,
) -> ModelCard:
    """Train a network and leave the best one in ``output``; return its card.

    The folder holds the model (``card.json``, ``weights.safetensors``), the state to go on from
    (``training.safetensors``) and the progress, one JSON object a line (``training.jsonl``).

    Raises
    ------
    RequestError
        If the volumes do not make a training, or the folder belongs to another one.
    ModelError
        If the loss is no longer finite, or a state or a model to start from is not sound.
    """
    training, validation = split_regions(volumes, settings)
    census = take_census(training, settings)
    device = choose_device(settings.device)
    if device.type == "cpu":
        torch.set_num_threads(settings.threads)
    output.mkdir(parents=True, exist_ok=True)
    session = _Session(
        settings=settings,
        output=output,
        report=report,
        source=PatchSource(training, census, settings),
        boxes=validation_boxes(validation, settings),
        weights=torch.from_numpy(census.class_weights(settings.maximum_class_weight)).to(device),
        state=_start(settings, output, device),
    )
    session.run()
    return _with_halo_costs(output, validation[0], settings)


def _with_halo_costs(output: Path, region: Region, settings: TrainingSettings) -> ModelCard:
    """Measure once what smaller halos would cost the finished model, and note it in its card."""
    card = load_card(output)
    if "halo_costs" not in card.scores:
        predictor = Predictor.open(output, device=settings.device, threads=settings.threads)
        scores = card.scores | {"halo_costs": halo_costs(predictor, region)}
        card = card.model_copy(update={"scores": scores})
        save_card(output, card)
    return card


@dataclass
class _State:
    """All that changes in a training, and all that must survive a kill."""

    network: SegmentationNetwork
    average: dict[str, Tensor]
    optimizer: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0

    @property
    def device(self) -> torch.device:
        """Where it is trained."""
        return next(self.network.parameters()).device


@dataclass
class _Session:
    """One call of :func:`train`."""

    settings: TrainingSettings
    output: Path
    report: Report | None
    source: PatchSource
    boxes: list[tuple[Region, Box, Box]]
    weights: Tensor
    state: _State
    losses: list[Tensor] = field(default_factory=list)
    due: dict[str, float] = field(default_factory=dict)
    validated_step: int = -1

    def run(self) -> None:
        """Step until the budget is used up; then validate and save once more."""
        state = self.state
        if self.fraction >= 1 and best_score(self.output) >= 0:
            return
        with self._batches() as batches:
            started = time.monotonic() - state.seconds
            while self.fraction < 1:
                self._step(next(batches))
                state.step += 1
                state.seconds = time.monotonic() - started
                if self._is_due("validation", 60 * self.settings.validation_minutes):
                    self._validate()
                elif self._is_due("report", _REPORT_SECONDS):
                    self._tell()
                if self._is_due("checkpoint", 60 * self.settings.checkpoint_minutes):
                    self._save()
        if self.validated_step != state.step:
            self._validate()
        self._save()

    @property
    def fraction(self) -> float:
        """Share of the budget that is used: of the steps or of the time, whichever is more."""
        steps, minutes = self.settings.steps, self.settings.maximum_minutes
        by_steps = self.state.step / steps if steps else 0.0
        by_time = self.state.seconds / (60 * minutes) if minutes else 0.0
        return max(by_steps, by_time)

    @contextmanager
    def _batches(self) -> Iterator[Iterator[Batch]]:
        """Prepare batches in threads, two a thread ahead."""
        with ThreadPoolExecutor(self.settings.readers) as pool:
            waiting: deque[Future[Batch]] = deque()

            def stream() -> Iterator[Batch]:
                step = self.state.step
                while True:
                    while len(waiting) < 2 * self.settings.readers:
                        waiting.append(pool.submit(self.source.batch, step))
                        step += 1
                    yield waiting.popleft().result()

            try:
                yield stream()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _step(self, batch: Batch) -> None:
        settings, state = self.settings, self.state
        rate = settings.learning_rate * rate_factor(self.fraction)
        for group in state.optimizer.param_groups:
            group["lr"] = rate

        # The generator starts anew at every step, so that a resumed training draws the same.
        generator = torch.Generator(state.device).manual_seed((settings.seed << 32) + state.step)
        images = torch.from_numpy(batch.images).to(state.device)
        images = vary_intensity(images, settings.augmentation, generator)
        if settings.architecture.kind == "volume":
            images = images[:, None]
        labels = torch.from_numpy(batch.labels).to(state.device, torch.int64)

        dtype = choose_dtype(state.device, settings.precision)
        reduced = dtype == torch.bfloat16
        with torch.autocast(state.device.type, torch.bfloat16, enabled=reduced):
            logits = state.network(channels_last(images))
        loss = segmentation_loss(logits, labels, self.weights)
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(state.network.parameters(), _GRADIENT_NORM)
        state.optimizer.step()
        update_average(state.average, state.network.state_dict(), settings.ema_decay, state.step)
        # Kept on the device: reading a number back would make a GPU wait.
        self.losses.append(loss.detach())

    def _validate(self) -> None:
        """Judge the averaged network as it would be used, and keep it if it is the best."""
        network = copy.deepcopy(self.state.network)
        network.load_state_dict(self.state.average)
        draft = self.settings.card({}, {})
        predictor = Predictor(
            network, draft, device=str(self.state.device), threads=self.settings.threads
        )
        counts = confusion(predictor, self.boxes)
        f1 = f1_scores(counts, draft.classes)
        mean = mean_score(f1)
        is_best = mean > best_score(self.output)
        if is_best:
            scores = {
                "mean_f1": mean,
                "f1": f1,
                "voxels": int(counts.sum()),
                "volumes": sorted({region.volume.name for region, _, _ in self.boxes}),
            }
            save_model(self.output, network, self.settings.card(self._provenance(), scores))
        self.validated_step = self.state.step
        self._tell(f1=f1, mean_f1=mean, is_best=is_best)

    def _provenance(self) -> dict[str, Any]:
        said = {"architecture", "classes", "colours", "intensity", "contrast", "name", "version",
                "voxel_size_angstrom", "voxel_size_tolerance", "start_from"}  # fmt: skip
        return {
            "settings": self.settings.model_dump(mode="json", exclude=said),
            "volumes": [region.volume.name for region in self.source.regions],
            "voxels_per_label": self.source.census.counts.tolist(),
            "class_weights": self.weights.tolist(),
            "steps": self.state.step,
            "minutes": round(self.state.seconds / 60, 2),
            "device": self.state.device.type,
            "tomoseg": tomoseg.__version__,
            "torch": torch.__version__,
        }

    def _tell(
        self, *, f1: dict[str, float | None] | None = None, mean_f1: float | None = None,
        is_best: bool = False,
    ) -> None:  # fmt: skip
        """Write a line of progress, and stop if the loss has left the numbers."""
        loss = float(torch.stack(self.losses).mean()) if self.losses else None
        if loss is not None and not math.isfinite(loss):
            raise ModelError(
                f"the loss is {loss} near step {self.state.step}",
                remedy="Lower learning_rate and check the volumes' intensities.",
            )
        self.losses.clear()
        progress = TrainingProgress(
            step=self.state.step,
            fraction=min(1.0, self.fraction),
            minutes=self.state.seconds / 60,
            loss=loss,
            learning_rate=self.state.optimizer.param_groups[0]["lr"],
            f1=f1 or {},
            mean_f1=mean_f1,
            is_best=is_best,
        )
        with (self.output / LOG_NAME).open("a") as file:
            file.write(json.dumps(asdict(progress)) + "\n")
        if self.report:
            self.report(progress)

    def _save(self) -> None:
        state = self.state
        tensors = {f"network.{k}": v for k, v in state.network.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in state.average.items()}
        for number, values in state.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{k}": v for k, v in values.items()}
        record = {
            "step": state.step, "seconds": state.seconds, "digest": settings_digest(self.settings),
        }  # fmt: skip
        save_state(self.output / STATE_NAME, tensors, record)

    def _is_due(self, what: str, seconds: float) -> bool:
        """Tell whether so much time has passed since this was due last."""
        due = self.due.setdefault(what, self.state.seconds + seconds)
        if self.state.seconds < due:
            return False
        self.due[what] = self.state.seconds + seconds
        return True


def _start(settings: TrainingSettings, output: Path, device: torch.device) -> _State:
    """Return a new state, or the one that an earlier run left in the folder."""
    torch.manual_seed(settings.seed)
    network = build_network(settings.architecture, len(settings.classes))
    if settings.start_from:
        _copy_weights(settings.start_from, network)
    network = network.train().to(device)
    set_channels_last(network)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    average = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = _State(network, average, optimizer)
    if (output / STATE_NAME).exists():
        _resume(state, settings, output / STATE_NAME)
    elif (output / CARD_NAME).exists():
        raise RequestError(
            f"{output} already holds a model", remedy="Choose another output folder."
        )
    return state


def _resume(state: _State, settings: TrainingSettings, path: Path) -> None:
    tensors, record = load_state(path)
    if record.get("digest") != settings_digest(settings):
        raise RequestError(
            f"{path} belongs to a training with other settings",
            remedy="Choose another output folder, or remove it to start anew.",
        )
    parts: dict[str, dict[str, Tensor]] = {"network": {}, "average": {}, "optimizer": {}}
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


def _copy_weights(folder: Path, network: SegmentationNetwork) -> None:
    """Start from a trained model; the head is left as it is where the classes are others."""
    trained, _ = load_network(folder)
    if trained.architecture != network.architecture:
        raise ModelError(
            f"{folder} has another architecture than the training asks for",
            remedy="Copy the architecture of its card into the recipe.",
        )
    own = network.state_dict()
    fitting = {k: v for k, v in trained.state_dict().items() if v.shape == own[k].shape}
    network.load_state_dict(own | fitting)


def best_score(output: Path) -> float:
    """Return the mean F1 of the model in the folder, -1 if there is none that is whole."""
    try:
        _, card = load_network(output)
    except ModelError:
        return -1.0
    return float(card.scores["mean_f1"])


def settings_digest(settings: TrainingSettings) -> str:
    """Return a digest of all settings that decide what is learnt."""
    text = settings.model_dump_json(exclude=_FREE_TO_CHANGE)
    return hashlib.sha256(text.encode()).hexdigest()


def rate_factor(fraction: float) -> float:
    """Return the learning rate relative to its peak: a short rise, then half a cosine.

    >>> [round(rate_factor(f), 3) for f in (0, 0.025, 0.05, 0.525, 1)]
    [0.005, 0.502, 1.0, 0.502, 0.005]
    """
    if fraction < _WARM_UP:
        height = fraction / _WARM_UP
    else:
        height = (1 + math.cos(math.pi * min(1.0, (fraction - _WARM_UP) / (1 - _WARM_UP)))) / 2
    return _FINAL_RATE + (1 - _FINAL_RATE) * height


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
