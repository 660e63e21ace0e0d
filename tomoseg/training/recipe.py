"""Training from a recipe: annotated tomograms on disk in, a model's folder out."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from tomoseg.analysis import intensity
from tomoseg.core.bounds import Gib, Section, explained
from tomoseg.core.classes import FEATURES
from tomoseg.core.errors import RequestError
from tomoseg.io.stores import Folder, local_path, read_file
from tomoseg.nets.card import SHIPPED_MODELS, ModelCard, load_card, model_folder
from tomoseg.nets.doubts import doubts, forgotten_classes
from tomoseg.nets.settings import TrainingProgress, TrainingSettings
from tomoseg.nets.usual import suit_settings
from tomoseg.recipe.plain_yaml import read_yaml
from tomoseg.recipe.recipe import absolute
from tomoseg.recipe.source import SourceSection
from tomoseg.report.progress import read_progress
from tomoseg.training.annotations import (
    Annotation,
    PaintedAnnotation,
    annotated_volumes,
    first_sampling,
    list_tomograms,
    particle_radii,
)

RECIPE_NAME = "recipe.yaml"
DEFAULT_LABELS = "{folder}/truth/{name}__labels.mrc"
# More makes a network forget what it knew: a few tiles are soon learned by heart.
CORRECTION_SHARE = 1 / 3
_FAR = "../../../"

log = logging.getLogger(__name__)


class TrainingRecipe(Section):
    """A whole training, with nothing left open; :func:`training_recipe` fills in what is.

    Parameters
    ----------
    output
        Folder of the model.
    annotations
        What was annotated, and how; see :mod:`tomoseg.training.annotations.settings`.
    network
        See :class:`tomoseg.nets.settings.TrainingSettings`.
    memory_gib
        Normalised tomograms are kept in memory up to this, GiB; others are read by boxes.
    """

    output: str
    annotations: Annotated[tuple[Annotation, ...], Field(min_length=1)]
    network: TrainingSettings
    memory_gib: Gib = 4.0

    @field_validator("output")
    @classmethod
    def _a_folder(cls, value: str) -> str:
        if "://" in value:
            raise ValueError("a model is written to a folder on this machine")
        return value

    @model_validator(mode="after")
    def _check_annotations(self) -> Self:
        known = self.network.classes
        named = {name for annotation in self.annotations for name in annotation.classes}
        if unknown := sorted(named - set(known)):
            raise ValueError(
                f"an annotation names {', '.join(unknown)}, but the classes are {', '.join(known)}"
            )
        if missing := [name for name in known if name not in named]:
            raise ValueError(f"class {', '.join(missing)} is named in no annotation")
        if any(annotation.source.mask for annotation in self.annotations):
            raise ValueError("a training knows no source.mask: paint 255 where nothing is to count")
        return self

    def as_yaml(self) -> str:
        """Return the recipe as a YAML file for the model's folder.

        Places near that folder are relative to it, so that a project can be moved as a whole.
        """
        values = self.model_dump(mode="json", by_alias=True)
        folder = Path(self.output)
        values["output"] = "."
        network = values["network"]
        network["init_from"] = _seen_from(folder, network["init_from"])
        for said, annotation in zip(values["annotations"], self.annotations, strict=True):
            said |= {key: _seen_from(folder, said[key]) for key in annotation.places}
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


class _Written(Section):
    """A recipe as people write it: shorthands allowed, much left out.

    Parameters
    ----------
    output, memory_gib
        As in :class:`TrainingRecipe`.
    classes
        Shorthand for ``network.classes``.
    input, labels
        Shorthand for one painted annotation.
    annotations
        Ways to annotate.
    init_from
        Folder of a model to go on from: classes, architecture and what the network expects are
        its own unless said otherwise, and so are its annotations if ``keep_annotations``;
        ``shipped`` and ``shipped-accurate`` come with the program, without annotations.
    source
        As in a run's recipe; an annotation may say otherwise.
    network
        What is given of the training's settings.
    """

    output: str
    classes: tuple[str, ...] = ()
    input: tuple[str, ...] = ()
    labels: str = DEFAULT_LABELS
    annotations: tuple[Annotation, ...] = ()
    init_from: str | None = None
    keep_annotations: bool = True
    source: SourceSection = SourceSection()
    network: dict[str, Any] = Field(default_factory=dict)
    memory_gib: Gib = 4.0

    @field_validator("input", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


def load_training_recipe(path: Path) -> TrainingRecipe:
    """Read a training's recipe; its paths are relative to the file.

    Raises
    ------
    RequestError
        For a missing file, bad YAML, unknown keys and values out of range, each named.
    """
    return training_recipe(read_yaml(path), base=path.resolve().parent)


def training_recipe(values: Mapping[str, Any], *, base: Path | None = None) -> TrainingRecipe:
    """Return the complete recipe of plain values, as a file holds them.

    Parameters
    ----------
    values
        Keys of a recipe file.
    base
        Folder that relative paths are taken from; the working directory if left out.

    Raises
    ------
    RequestError
        For unknown keys and values out of range, each named, and a class in no annotation.
    ModelError
        If a model to go on from cannot be read.
    """
    try:
        return _completed(_Written.model_validate(values), base or Path.cwd())
    except ValidationError as error:
        raise explained(error) from error


def train_from(
    recipe: TrainingRecipe,
    *,
    report: Callable[[TrainingProgress], None] | None = None,
    say: Callable[[str], None] = log.info,
) -> ModelCard:
    """Train, or go on with a training that was cut off.

    ``say`` is told what is read, and which network is trained and why. The model's folder then
    also holds ``recipe.yaml``, which is complete, and the page ``training.html``.

    Raises
    ------
    RequestError, FormatError, VoxelSizeError
        If a tomogram or its annotation is missing, or they do not fit each other.
    """
    from tomoseg.nets.train import train
    from tomoseg.training.report import write_training_report

    volumes = annotated_volumes(recipe.annotations, recipe.network, memory_gib=recipe.memory_gib)
    particles = particle_radii(recipe.annotations)
    largest = max((2 * radius for radius, _ in particles.values()), default=0.0)
    settings, reason = suit_settings(recipe.network, volumes, particle_angstrom=largest)
    network = _network_words(settings, reason)
    for each in recipe.annotations:
        read = ((key, getattr(each, key)) for key in each.places[1:])
        say(f"{each.kind}: " + ", ".join(f"{key} {place}" for key, place in read if place))
    say(network)
    if note := forgotten_classes(settings):
        log.warning("%s", note)
    output = Path(recipe.output)
    card = train(volumes, settings, output=output, report=report)
    # Of several processes that train one network, torchrun calls one number 0: it writes.
    if os.environ.get("RANK", "0") == "0":
        annotations = tuple(list_tomograms(annotation) for annotation in recipe.annotations)
        used = recipe.model_copy(update={"annotations": annotations, "network": settings})
        Folder(recipe.output).write(RECIPE_NAME, used.as_yaml().encode())
        card = _judged(card, used, particles, network)
        write_training_report(output, volumes, settings)
    return card


def _judged(
    card: ModelCard,
    recipe: TrainingRecipe,
    particles: Mapping[str, tuple[float, float]],
    network: str,
) -> ModelCard:
    """Complete a card: why this network, how particles were painted, what speaks against it."""
    from tomoseg.nets.checkpoint import save_card
    from tomoseg.nets.train import LOG_NAME

    output, parent = Path(recipe.output), recipe.network.init_from
    known = load_card(parent).particles if parent else {}
    lines = read_progress(read_file(str(output / LOG_NAME)).decode())
    losses = [] if parent else [line.loss for line in lines if line.loss is not None]
    card = card.model_copy(
        update={
            "particles": {name: radii for name, radii in known.items() if name in card.classes}
            | dict(particles),
            "doubts": doubts(card, losses),
            "training": {**card.training, "network": network},
        }
    )
    save_card(output, card)
    for doubt in card.doubts:
        log.warning("%s: %s", card.name, doubt)
    return card


def _network_words(settings: TrainingSettings, reason: str) -> str:
    a = settings.architecture
    because = f" because {reason}; network.architecture changes it" if reason else ""
    return f"network: {a.kind}, slices_in {a.slices_in}, slices_out {a.slices_out}{because}"


def _completed(written: _Written, base: Path) -> TrainingRecipe:
    """Fill in what was left open, from the model to go on from and from the first tomogram."""
    output = absolute(written.output, base)
    parent = _parent(written.init_from, base) if written.init_from else None
    # The shipped models' tomograms do not come with them.
    keeps = written.keep_annotations and written.init_from not in SHIPPED_MODELS
    before = _recipe_beside(parent) if parent and keeps else None
    network = _network(written, _inherited(parent, before), base, Path(output).name)
    classes = _class_names(network)
    said = _said(written)
    weight = _correction_weight(before, said) if before and said else 1.0
    new = tuple(
        annotation.placed(base).completed(classes, written.source, weight=weight)
        for annotation in said
    )
    annotations = (*(before.annotations if before else ()), *new)
    if annotations and "voxel_size_angstrom" not in network:
        size = first_sampling(annotations[0]).voxel_angstrom
        network["voxel_size_angstrom"] = float(f"{size:.7g}")
    return TrainingRecipe.model_validate(
        {
            "output": output,
            "annotations": annotations,
            "network": network,
            "memory_gib": written.memory_gib,
        }
    )


def _parent(place: str, base: Path) -> Path:
    return model_folder(place) if place in SHIPPED_MODELS else local_path(absolute(place, base))


def _correction_weight(before: TrainingRecipe, new: Sequence[Annotation]) -> float:
    """Return the weight with which corrections are CORRECTION_SHARE of what is drawn."""
    old = sum((each.weight or 1.0) * len(each.tomograms) for each in before.annotations)
    odds = CORRECTION_SHARE / (1 - CORRECTION_SHARE)
    return odds * old / sum(len(each.tomograms) for each in new)


def _network(written: _Written, inherited: dict[str, Any], base: Path, name: str) -> dict[str, Any]:
    """Return the settings of the network: given, or a model's, or what is usual."""
    usual = {"name": name, "intensity": intensity.as_dicts(intensity.DEFAULT_STEPS)}
    given = {"classes": written.classes, **written.network} if written.classes else written.network
    for other, bound in (("architecture", "patch"), ("classes", "colours")):
        if other in given:
            inherited.pop(bound, None)
    network = usual | inherited | given
    if "init_from" in network:
        network["init_from"] = absolute(network["init_from"], base)
    return network


def _said(written: _Written) -> tuple[Annotation, ...]:
    """Return the annotations of a recipe, the shorthand first."""
    if not written.input:
        return written.annotations
    short = PaintedAnnotation(tomograms=written.input, labels=written.labels)
    return (short, *written.annotations)


def _class_names(network: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the classes; whether they are good names is checked with all the settings."""
    given = network.get("classes")
    if isinstance(given, list | tuple):
        return tuple(str(name) for name in given)
    return tuple(FEATURES)


def _inherited(parent: Path | None, before: TrainingRecipe | None) -> dict[str, Any]:
    """Return the settings that follow from the model that is gone on from."""
    if parent is None:
        return {}
    keys = {"architecture", "classes", "colours", "voxel_size_angstrom", "voxel_size_tolerance",
            "contrast", "intensity"}  # fmt: skip
    inherited = load_card(parent).model_dump(mode="json", include=keys)
    if before:
        # The same tomograms are kept apart, or the scores could not be compared.
        inherited |= before.network.model_dump(mode="json", include={"patch", "validation"})
    return {**inherited, "init_from": str(parent)}


def _recipe_beside(model: Path) -> TrainingRecipe:
    """Return the recipe of a trained model; raise RequestError if its folder has none."""
    path = model / RECIPE_NAME
    try:
        return load_training_recipe(path)
    except RequestError as error:
        raise RequestError(
            f"the annotations of {model} cannot be kept: {error.message}",
            remedy="Set keep_annotations: false to train on the new ones alone.",
        ) from error


def _seen_from(folder: Path, place: Any) -> Any:
    """Return a place as a recipe in ``folder`` names it: relative where it is near."""
    if isinstance(place, list):
        return [_seen_from(folder, one) for one in place]
    if not isinstance(place, str) or not os.path.isabs(place):
        return place
    near = os.path.relpath(place, folder)
    is_near = not near.startswith(_FAR) and os.path.commonpath([place, folder]) != os.sep
    return near if is_near else place
