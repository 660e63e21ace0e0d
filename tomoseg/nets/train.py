"""Training: reads top to bottom in the order of time.

A training is a pure function of its settings and volumes as long as its budget is in steps: the
patches and the noise of a step follow from the seed and the step alone, and the state that is
written now and then holds all the rest. A killed training, called again with the same output
folder, goes on from there.
"""

from __future__ import annotations

import copy
import json
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tomoseg.analysis.compete import fit_calibration
from tomoseg.core.blocks import Box
from tomoseg.core.errors import ModelError
from tomoseg.core.version import code_version
from tomoseg.nets.architecture import channels_last
from tomoseg.nets.augment import augment_patches
from tomoseg.nets.card import ModelCard, load_card
from tomoseg.nets.checkpoint import save_card, save_model
from tomoseg.nets.device import choose_device, choose_dtype
from tomoseg.nets.losses import log_squares_loss, segmentation_loss
from tomoseg.nets.options import PredictionOptions
from tomoseg.nets.parallel import World, joined
from tomoseg.nets.patches import Batch, PatchSource, take_census, validation_boxes
from tomoseg.nets.predict import Predictor
from tomoseg.nets.settings import AnnotatedVolume, TrainingProgress, TrainingSettings
from tomoseg.nets.split import Region, split_regions
from tomoseg.nets.state import TrainingState, best_score, start_state, update_average
from tomoseg.nets.validation import confusion, f1_scores, halo_costs, mean_score, score_histograms

LOG_NAME = "training.jsonl"

_REPORTS = 200
_VALIDATIONS = 10
_WARM_UP = 0.05
_FINAL_RATE = 0.005
_GRADIENT_NORM = 1.0

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
    (``training.safetensors``) and the progress, one JSON object a line (``training.jsonl``). Under
    ``torchrun`` its processes train together.

    Raises
    ------
    RequestError
        If the volumes do not make a training, or the folder belongs to another one.
    ModelError
        If the loss is no longer finite, or a state or a model to start from is not sound.
    """
    training, validation = split_regions(volumes, settings)
    census = take_census(training, settings)
    output.mkdir(parents=True, exist_ok=True)
    with joined() as world:
        device = choose_device(world.device(settings.device))
        if device.type == "cpu":
            torch.set_num_threads(thread_count(settings))
        # A seed is to give the same network again, on a GPU too.
        torch.backends.cudnn.deterministic = True
        state = start_state(settings, output, device)
        session = _Session(
            settings=settings,
            output=output,
            report=report,
            world=world,
            training=training,
            source=PatchSource(census, settings),
            boxes=validation_boxes(validation, settings),
            weights=torch.from_numpy(census.class_weights(settings.maximum_class_weight)).to(
                device
            ),
            state=state,
            network=world.wrapped(state.network),
        )
        session.run()
        if world.is_first:
            _finish(session)
        world.agreed(0, device)
    return load_card(output)


def thread_count(settings: TrainingSettings) -> int:
    """Return the torch threads to use on a CPU, which the processes of torchrun share."""
    if settings.threads != "auto":
        return settings.threads
    return max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def uses_bfloat16(device: torch.device, settings: TrainingSettings) -> bool:
    """Tell whether forward and backward passes are made in bfloat16.

    Not on a CPU where the deepest level of a 3D network has two cells along z or one: there the
    gradient of a kernel is made with memory that nobody wrote (PyTorch 2.13 with oneDNN), and now
    and then is no number. ``MALLOC_PERTURB_`` shows it at once.
    """
    cells = settings.patch_shape[0] // settings.architecture.stride[0]
    is_safe = device.type != "cpu" or settings.architecture.dimensions == 2 or cells > 2
    return is_safe and choose_dtype(device, settings.precision) == torch.bfloat16


def _finish(session: _Session) -> None:
    """Measure once, on what was kept apart, what the finished model's card should say."""
    card = load_card(session.output)
    if "halo_costs" in card.scores:
        return
    settings = session.settings
    options = PredictionOptions(str(session.state.device), threads=thread_count(settings))
    predictor = Predictor.open(session.output, options)
    costs = halo_costs(predictor, session.boxes[0][0])
    histograms = score_histograms(predictor, session.boxes)
    fits = {
        name: fit_calibration(counts) for name, counts in zip(card.classes, histograms, strict=True)
    }
    card = card.model_copy(
        update={
            "scores": card.scores | {"halo_costs": costs},
            "calibration": {name: (fit.slope, fit.intercept) for name, fit in fits.items()},
        }
    )
    save_card(session.output, card)


@dataclass
class _Session:
    """One call of :func:`train`."""

    settings: TrainingSettings
    output: Path
    report: Report | None
    world: World
    training: list[Region]
    source: PatchSource
    boxes: list[tuple[Region, Box, Box]]
    weights: Tensor
    state: TrainingState
    network: nn.Module
    saved: float = 0.0

    def run(self) -> None:
        """Step until the budget is used up; then validate and save once more."""
        state = self.state
        if self._is_over() and self._agreed(best_score(self.output)) >= 0:
            return
        with self._batches() as batches:
            started = time.monotonic() - state.seconds
            while not self._is_over():
                used = self.fraction
                self._step(next(batches))
                state.step += 1
                state.seconds = time.monotonic() - started
                if self.settings.maximum_minutes:
                    state.seconds = self._agreed(state.seconds)
                if self._must_validate(used):
                    self._validate()
                    self._save()
                elif self._passed(used, _REPORTS):
                    self._tell()
                if state.seconds - self.saved > 60 * self.settings.checkpoint_minutes:
                    self._save()
        if state.validated_step != state.step or state.best < 0:
            self._validate()
        self._save()

    @property
    def fraction(self) -> float:
        """Share of the budget that is used: of the steps or of the time, whichever is more."""
        steps, minutes = self.settings.steps, self.settings.maximum_minutes
        by_steps = self.state.step / steps if steps else 0.0
        by_time = self.state.seconds / (60 * minutes) if minutes else 0.0
        return max(by_steps, by_time)

    def _is_over(self) -> bool:
        patience = self.settings.patience
        return self.fraction >= 1 or (patience is not None and self.state.stale >= patience)

    def _must_validate(self, used: float) -> bool:
        if self.settings.validation_steps:
            return self.state.step % self.settings.validation_steps == 0
        return self._passed(used, _VALIDATIONS)

    def _passed(self, used: float, marks: int) -> bool:
        """Tell whether the last step, from this fraction of the budget on, passed one of marks."""
        return int(self.fraction * marks) > int(used * marks)

    def _agreed(self, value: float) -> float:
        return self.world.agreed(value, self.state.device)

    @contextmanager
    def _batches(self) -> Iterator[Iterator[Batch]]:
        """Prepare batches in threads, two a thread ahead."""
        with ThreadPoolExecutor(self.settings.readers) as pool:
            waiting: deque[Future[Batch]] = deque()

            def stream() -> Iterator[Batch]:
                step = self.state.step
                while True:
                    while len(waiting) < 2 * self.settings.readers:
                        waiting.append(pool.submit(self.source.batch, self._number(step)))
                        step += 1
                    yield waiting.popleft().result()

            try:
                yield stream()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _number(self, step: int) -> int:
        """Return the number of this process's batch in a step."""
        return step * self.world.size + self.world.rank

    def _step(self, batch: Batch) -> None:
        settings, state = self.settings, self.state
        rate = settings.learning_rate * rate_factor(self.fraction, settings.schedule)
        for group in state.optimizer.param_groups:
            group["lr"] = rate

        # The generator starts anew at every step, so that a resumed training draws the same.
        seed = (settings.seed << 32) + self._number(state.step)
        images, labels = augment_patches(
            torch.from_numpy(batch.images).to(state.device),
            torch.from_numpy(batch.labels).to(state.device),
            patch=settings.patch_shape,
            margin=settings.architecture.margin,
            settings=settings.augmentation,
            generator=torch.Generator(state.device).manual_seed(seed),
        )
        if settings.architecture.dimensions == 3:
            images = images[:, None]

        reduced = uses_bfloat16(state.device, settings)
        with torch.autocast(state.device.type, torch.bfloat16, enabled=reduced):
            logits = self.network(channels_last(images))
        judged = batch.allowed
        allowed = None if judged is None else torch.from_numpy(judged).to(state.device)
        loss = self._loss(logits, labels.to(torch.int64), allowed)
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(state.network.parameters(), _GRADIENT_NORM)
        state.optimizer.step()
        update_average(state.average, state.network.state_dict(), settings.ema_decay, state.step)
        # Kept on the device: reading a number back would make a GPU wait.
        state.losses.append(loss.detach())

    def _loss(self, logits: Tensor, labels: Tensor, allowed: Tensor | None) -> Tensor:
        if self.settings.loss == "log_squares":
            return log_squares_loss(logits, labels, allowed=allowed)
        return segmentation_loss(
            logits,
            labels,
            self.weights,
            allowed=allowed,
            boundary_weight=self.settings.boundary_weight,
        )

    def _validate(self) -> None:
        """Judge the averaged network as it would be used, and keep it if it is the best."""
        state = self.state
        mean = self._judged() if self.world.is_first else 0.0
        mean = self._agreed(mean)
        state.stale = 0 if mean > state.best else state.stale + 1
        state.best = max(mean, state.best)
        state.validated_step = state.step

    def _judged(self) -> float:
        network = copy.deepcopy(self.state.network)
        network.load_state_dict(self.state.average)
        draft = self.settings.card({}, {})
        options = PredictionOptions(str(self.state.device), threads=thread_count(self.settings))
        predictor = Predictor(network, draft, options)
        counts = confusion(predictor, self.boxes)
        f1 = f1_scores(counts, draft.classes)
        mean = mean_score(counts, f1)
        is_best = mean > self.state.best
        if is_best:
            scores = {
                "mean_f1": mean,
                "f1": f1,
                "confusion": counts.tolist(),
                "voxels": int(counts.sum()),
                "volumes": sorted({region.volume.name for region, _, _ in self.boxes}),
            }
            save_model(self.output, network, self.settings.card(self._provenance(), scores))
        self._tell(f1=f1, mean_f1=mean, is_best=is_best)
        return mean

    def _provenance(self) -> dict[str, Any]:
        said = {"architecture", "classes", "colours", "intensity", "contrast", "name", "version",
                "voxel_size_angstrom", "voxel_size_tolerance", "init_from"}  # fmt: skip
        return {
            "settings": self.settings.model_dump(mode="json", exclude=said),
            "volumes": [region.volume.name for region in self.training],
            "voxels_per_label": self.source.census.counts.tolist(),
            "class_weights": self.weights.tolist(),
            "steps": self.state.step,
            "minutes": round(self.state.seconds / 60, 2),
            "device": self.state.device.type,
            "processes": self.world.size,
            "tomoseg": code_version(),
            "begun_by": self.state.codes,
            "torch": torch.__version__,
        }

    def _tell(
        self, *, f1: dict[str, float | None] | None = None, mean_f1: float | None = None,
        is_best: bool = False,
    ) -> None:  # fmt: skip
        """Write a line of progress, and stop if the loss has left the numbers."""
        losses = self.state.losses
        loss = float(torch.stack(losses).mean()) if losses else None
        if loss is not None and not math.isfinite(loss):
            raise ModelError(
                f"the loss is {loss} near step {self.state.step}",
                remedy="Lower learning_rate and check the volumes' intensities.",
            )
        losses.clear()
        if not self.world.is_first:
            return
        spent, seconds = min(1.0, self.fraction), self.state.seconds
        progress = TrainingProgress(
            step=self.state.step,
            fraction=spent,
            minutes=seconds / 60,
            loss=loss,
            learning_rate=self.state.optimizer.param_groups[0]["lr"],
            seconds_left=seconds * (1 - spent) / spent if spent else None,
            f1=f1 or {},
            mean_f1=mean_f1,
            is_best=is_best,
        )
        with (self.output / LOG_NAME).open("a") as file:
            file.write(json.dumps(asdict(progress)) + "\n")
        if self.report:
            self.report(progress)

    def _save(self) -> None:
        self.saved = self.state.seconds
        if self.world.is_first:
            self.state.save(self.output, self.settings)


def rate_factor(fraction: float, schedule: str = "one_cycle") -> float:
    """Return the learning rate relative to its peak: a short rise, then half a cosine.

    >>> [round(rate_factor(f), 3) for f in (0, 0.025, 0.05, 0.525, 1)]
    [0.005, 0.502, 1.0, 0.502, 0.005]
    >>> [round(rate_factor(f, "cosine"), 3) for f in (0, 0.5, 1)]
    [1.0, 0.502, 0.005]
    """
    warm_up = _WARM_UP if schedule == "one_cycle" else 0.0
    if fraction < warm_up:
        height = fraction / warm_up
    else:
        height = (1 + math.cos(math.pi * min(1.0, (fraction - warm_up) / (1 - warm_up)))) / 2
    return _FINAL_RATE + (1 - _FINAL_RATE) * height
