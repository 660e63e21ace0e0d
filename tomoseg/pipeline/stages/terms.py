"""The terms on which a stage is made: what the recipe leaves open, settled before the first block.

    code        the version of tomoseg, from its own files
    precision   the numbers in which networks compute; of the stage that applies them

They are part of a stage's digest. Two rules settle them:

1. What stands there decides where the recipe leaves it open. ``segment.precision: auto`` is the
   precision of the results that are finished or were begun, so that a run that was killed goes on,
   and a finished one stands, also where ``auto`` would mean another; and where
   ``session.results_of`` is ``any_code``, the code is that which made them.
2. Else the workers are asked, all that there are before the first block: one precision if ``auto``
   means the same to all of them, float32 if it does not.

A worker that comes later is held to what was settled (:mod:`tomoseg.compute.runners`).
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tomoseg.core.errors import UnfitWorkerError
from tomoseg.core.version import code_version
from tomoseg.io.stores import begun, digest
from tomoseg.nets.card import ModelCard, load_card
from tomoseg.nets.options import PredictionOptions

if TYPE_CHECKING:
    from tomoseg.pipeline.stages.context import Context, Stage

log = logging.getLogger(__name__)

GPU_ONLY = "float16"
COMMON = "float32"
"""The precision that every worker can compute in."""
# What a card says that changes no result.
ONLY_SAID = {"training", "scores", "halo_disagreement", "particles", "doubts"}


@dataclass(frozen=True)
class Terms:
    """What a stage's results were made with.

    Parameters
    ----------
    code
        Version of tomoseg.
    precision
        Of the networks; empty where none is applied.
    notes
        How it was settled, for people; it is not part of the terms.
    """

    code: str
    precision: str = ""
    notes: tuple[str, ...] = field(default=(), compare=False)

    def unlike(self, now: Terms) -> str:
        """Say how these differ from others; empty if they do not.

        >>> Terms("1+a", "float32").unlike(Terms("1+b", "float32"))
        'tomoseg 1+a, not 1+b (--any-code keeps its results)'
        """
        if self.code != now.code:
            return f"tomoseg {self.code or '?'}, not {now.code} (--any-code keeps its results)"
        if self.precision != now.precision:
            return f"segment.precision {self.precision}, not {now.precision}"
        return ""

    def as_dict(self) -> dict[str, str]:
        """Return what a record keeps."""
        return {"code": self.code, "precision": self.precision}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Terms:
        """Return the terms of a record; of one that keeps none, those of nobody."""
        kept = values.get("terms") or {}
        return cls(str(kept.get("code", "")), str(kept.get("precision", "")))


@dataclass(frozen=True)
class Question:
    """What every worker answers before it is given a block of a network; pickles small.

    Parameters
    ----------
    options
        As the recipe says, ``auto`` included.
    models
        Folder and :func:`model_digest` of each network.
    """

    options: PredictionOptions
    models: tuple[tuple[Path, str], ...]

    def __call__(self) -> dict[str, Any]:
        """Return what these mean here.

        Raises
        ------
        UnfitWorkerError
            If a model is not the same here.
        RequestError, ResourceError
            If what is asked for is not there.
        """
        from tomoseg.nets.predict import resolve_device

        for folder, wanted in self.models:
            check_model(folder, wanted, load_card(folder))
        device, dtype = resolve_device(self.options)
        return {"precision": str(dtype).removeprefix("torch."), "device": device.type}


def model_digest(card: ModelCard) -> str:
    """Return a digest of all that a card says and that may change a result, its weights' too."""
    return digest(card.model_dump(mode="json", exclude=ONLY_SAID))


def check_model(folder: Path, wanted: str, card: ModelCard) -> None:
    """Raise UnfitWorkerError if a model's card is not the one of the run."""
    if model_digest(card) != wanted:
        raise UnfitWorkerError(
            f"the model in {folder} is not the one that the run began with "
            f"(weights {card.weights_sha256[:12] or 'of no digest'})",
            remedy="Give every worker the same files of the model, or begin anew",
        )


def agree(answers: Iterable[Mapping[str, Any]]) -> Terms:
    """Return one precision for workers that answered a :class:`Question`.

    >>> agree([{"precision": "bfloat16"}, {"precision": "bfloat16"}]).precision
    'bfloat16'
    >>> agree([{"precision": "bfloat16"}, {"precision": "float32"}]).notes
    ('auto precision differs by worker (bfloat16: 1, float32: 1): all use float32',)
    """
    counts = Counter(answer["precision"] for answer in answers)
    if len(counts) == 1:
        return Terms(code_version(), *counts)
    meant = ", ".join(f"{name}: {number}" for name, number in sorted(counts.items()))
    note = f"auto precision differs by worker ({meant}): all use {COMMON}"
    return Terms(code_version(), COMMON, (note,))


def settle(
    context: Context, stage: Stage, finished: Mapping[str, Any] | None
) -> tuple[Terms, dict[str, Any]]:
    """Return the terms of a stage, and all that decides its result: what its digest is of.

    ``finished`` is what was recorded of it, if it was finished before.

    Raises
    ------
    StoreError
        If a stage that it needs has not run.
    ResourceError
        If no worker fits.
    """
    facts = {
        "stage": stage.name,
        "settings": json.loads(json.dumps(stage.settings(context), default=str)),
        "needs": {need: context.record(need)["digest"] for need in stage.needs},
    }

    def stands(values: Mapping[str, Any]) -> bool:
        there = Terms.from_dict(values)
        fits = _is_open_to(context, there)
        return fits and digest(facts | {"terms": there.as_dict()}) == values.get("digest")

    if finished is not None and stands(finished):
        terms = Terms.from_dict(finished)
    else:
        markers = list(begun(context.records, stage.name))
        kept = [Terms.from_dict(marker) for marker in markers if stands(marker)]
        terms = _sought(context, stage, kept)
        if finished is None and terms not in kept:
            _say_anew(context, stage, terms, markers)
    return terms, facts | {"terms": terms.as_dict()}


def _sought(context: Context, stage: Stage, kept: Sequence[Terms]) -> Terms:
    """Return the terms of what was begun and may stand, if the workers can keep them, or new."""
    terms, answers = Terms(code_version()), list[dict[str, Any]]()
    if stage.question is not None:
        answers = context.runner.ask(stage.question(context), on_device=True)
        terms = agree(answers)
    has_gpus = all(answer["device"] == "cuda" for answer in answers)
    found = next((one for one in kept if one.precision != GPU_ONLY or has_gpus), terms)
    for note in found.notes:
        log.warning("%s: %s", context.name, note)
    return found


def _say_anew(
    context: Context, stage: Stage, terms: Terms, markers: Sequence[Mapping[str, Any]]
) -> None:
    for there in map(Terms.from_dict, markers):
        why = there.unlike(terms) or "other settings"
        log.warning("%s: %s was begun with %s: it begins anew", context.name, stage.name, why)


def _is_open_to(context: Context, terms: Terms) -> bool:
    """Tell whether the recipe lets results on these terms stand."""
    asked = context.recipe.segment.precision
    any_code = context.recipe.session.results_of == "any_code"
    has_code = terms.code == code_version() or (any_code and bool(terms.code))
    return has_code and (not terms.precision or asked in ("auto", terms.precision))


def kept_notes(records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say which stages hold results of other code, by their records."""
    stages: dict[str, list[str]] = {}
    for name, record in records.items():
        stages.setdefault(record["terms"]["code"], []).append(name)
    return [
        f"{', '.join(names)}: results of tomoseg {code} were kept (session.results_of: any_code)"
        for code, names in stages.items()
        if code != code_version()
    ]
