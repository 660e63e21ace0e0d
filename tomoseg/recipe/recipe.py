"""The recipe: one YAML file that says everything about a run but secrets.

Paths in a recipe file are relative to that file. Units stand in the keys. Unknown keys are
refused. A section that is left out takes the defaults of the model's classes, and the recipe that
was really used is written beside the results.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from tomoseg.analysis.cleanup import CleaningSettings, cleaning_defaults
from tomoseg.analysis.compete import Weight
from tomoseg.analysis.filaments import TracingSettings, tracing_defaults
from tomoseg.analysis.particles import PickingSettings
from tomoseg.analysis.surfaces import SurfaceSettings, surface_defaults
from tomoseg.compute.settings import ComputeSection, without_scheduler
from tomoseg.core.bounds import Halo, Section, explained
from tomoseg.core.classes import FILAMENTS, PARTICLES
from tomoseg.core.errors import RequestError
from tomoseg.core.sampling import Shape
from tomoseg.nets.card import SHIPPED, SHIPPED_MODELS
from tomoseg.recipe.export import ExportSection
from tomoseg.recipe.plain_yaml import LARGEST_CHARACTERS, read_yaml, yaml_mapping, yaml_values
from tomoseg.recipe.source import SourceSection

ABSTAIN = 0.5
DEEP_BLOCK = (128, 256, 256)
PLACES = (("session", "input"), ("session", "output"), ("source", "mask"), ("segment", "model"))


class SessionSection(Section):
    """What is processed and where the results go.

    Parameters
    ----------
    input
        Files or folders of tomograms or micrographs: MRC, TIFF, PNG, OME-Zarr; paths or file:// or
        s3:// URLs.
    output
        Folder or URL for the results.
    tomogram_name_remove
        Regular expressions cut out of a file's stem to get the tomogram's name, such as
        ``"^rec_"`` or ``"_10.00Apx$"``; the name is also ``rlnTomoName``.
    results_of
        ``this_code``: what another version of tomoseg made, told by its own files, is made again;
        ``any_code``: it is kept, and notes say whose it is.
    keep_previous
        Whether results that other settings replace are kept, under ``<tomogram>/previous/``.
    """

    input: tuple[str, ...] = ()
    output: str = ""
    tomogram_name_remove: tuple[str, ...] = ()
    results_of: Literal["this_code", "any_code"] = "this_code"
    keep_previous: bool = False

    @field_validator("input", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


class IngestSection(Section):
    """How tomograms are stored: ``bin`` averages bin³ voxels; masks return to the source grid."""

    bin: int = Field(default=1, ge=1, le=16)


BlockEdge = Annotated[int, Field(ge=8, le=2048)]


class BlocksSection(Section):
    """The core of a block, voxels zyx; each is one shard of every output volume.

    Flat and wide by default: a network that looks at slices reads halos in y and x alone, and only
    where a block does not reach the tomogram's border. Where a 3D network is applied the default is
    (128, 256, 256).
    """

    shape: tuple[BlockEdge, BlockEdge, BlockEdge] = (16, 1024, 1024)

    @property
    def compact(self) -> Shape:
        """A block of as many voxels that reads less around it: for passes that write no shards.

        >>> BlocksSection(shape=(16, 1024, 1024)).compact
        (256, 256, 256)
        """
        z, y, x = self.shape
        while 8 * z <= min(y, x) and y % 64 == x % 64 == 0:
            z, y, x = 4 * z, y // 2, x // 2
        return z, y, x


class NetworkChoice(Section):
    """One of several networks that compete.

    Parameters
    ----------
    model
        As in :class:`SegmentSection`.
    weight
        How much its scores count beside those of the others.
    classes
        Those of its classes that it competes for; without them all.
    """

    model: str
    weight: Weight = 1.0
    classes: Annotated[tuple[str, ...], Field(min_length=1)] | None = None


def _share(some: tuple[str, ...] | None, others: tuple[str, ...] | None) -> bool:
    """Tell whether choices of a model's classes, None being all, have one in common."""
    return some is None or others is None or bool(set(some) & set(others))


class SegmentSection(Section):
    """The network or networks and how they are applied.

    Parameters
    ----------
    model
        ``shipped``, ``shipped-accurate`` (better, and half as fast) or a folder with card.json
        and weights.safetensors.
    networks
        Instead of ``model``: networks that compete for every voxel with calibrated scores.
    abstain
        Where networks compete, a class whose calibrated score is not above this labels nothing.
    rescale
        ``auto``: tomograms outside the network's tolerance are resampled inside each block;
        ``never``: they are an error.
    contrast_mismatch
        What to do when source.contrast is not the network's: ``flip`` or ``error``.
    halo
        ``default`` (the card's), ``exact`` (the receptive field) or voxels in y and x; what those
        cost is in the card.
    score_maps
        Use score maps of classes traced, picked or sampled (6 to 38% more time); else the masks.
    precision
        ``auto``: bfloat16 where the processor or GPU has it, float32 where workers differ, and of
        results that stand there already their own; or ``float32``, ``bfloat16``.
    tta
        Test-time augmentation: mirror images of every block are averaged. 4 mirrors x and y and
        takes 4.1 to 4.5 times as long; 8 all axes, 8.5 to 9.1 times; 1 is none.
    engine
        ``torch``; or ``int8``: a third less time for 0.1 to 0.2% of labels changed (bfloat16
        0.05%), on CPUs with VNNI or AMX.
    """

    model: str = SHIPPED
    networks: tuple[NetworkChoice, ...] = ()
    abstain: float = Field(default=ABSTAIN, ge=0, lt=1)
    rescale: Literal["auto", "never"] = "auto"
    contrast_mismatch: Literal["flip", "error"] = "flip"
    halo: Literal["default", "exact"] | Halo = "default"
    score_maps: bool = True
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    tta: Literal[1, 4, 8] = 1
    engine: Literal["torch", "int8"] = "torch"

    @model_validator(mode="after")
    def _one_way_or_the_other(self) -> Self:
        if self.networks and self.model != SHIPPED:
            raise ValueError("model and networks exclude each other: list the model among them")
        if self.abstain != ABSTAIN and not self.networks:
            raise ValueError("abstain is for networks that compete: list one or more in networks")
        if self.engine == "int8" and self.precision == "bfloat16":
            raise ValueError("engine: int8 computes in bytes: leave precision out, or the engine")
        for first, second in combinations(self.networks, 2):
            if first.model == second.model and _share(first.classes, second.classes):
                raise ValueError(
                    f"networks has {first.model} twice for the same classes: give it one weight"
                )
        return self

    @property
    def choices(self) -> tuple[NetworkChoice, ...]:
        """The networks that compete, or the one model."""
        return self.networks or (NetworkChoice(model=self.model),)


class Recipe(Section):
    """A whole run. ``clean``, ``trace``, ``pick`` and ``sample`` map classes to their settings.

    None there means the defaults of the model's classes (:meth:`resolved`); an empty mapping
    means that nothing is cleaned, traced or picked. No membrane is sampled unless it is named.
    """

    session: SessionSection = SessionSection()
    source: SourceSection = SourceSection()
    ingest: IngestSection = IngestSection()
    blocks: BlocksSection = BlocksSection()
    segment: SegmentSection = SegmentSection()
    clean: dict[str, CleaningSettings] | None = None
    trace: dict[str, TracingSettings] | None = None
    pick: dict[str, PickingSettings] | None = None
    sample: dict[str, SurfaceSettings] | None = None
    export: ExportSection = ExportSection()
    compute: ComputeSection = ComputeSection()
    # What is written of where blocks run, if this run's are somewhere else (run_at).
    _said: ComputeSection | None = PrivateAttr(default=None)

    @field_validator("pick")
    @classmethod
    def _others_are_excluded(
        cls, pick: dict[str, PickingSettings] | None
    ) -> dict[str, PickingSettings] | None:
        for name, one in (pick or {}).items():
            if name in one.exclude:
                raise ValueError(
                    f"{name}.exclude names {name} itself, so that none would be left; set "
                    "minimum_distance_angstrom to keep particles apart"
                )
        return pick

    @field_validator("trace", "sample", mode="before")
    @classmethod
    def _from_defaults(cls, value: Any, info: ValidationInfo) -> Any:
        """Fill what a class leaves out with the defaults of that class, not of microtubules."""
        defaults = tracing_defaults if info.field_name == "trace" else surface_defaults
        if not isinstance(value, Mapping):
            return value
        return {
            name: {**asdict(defaults(name)), **(given or {})}
            if isinstance(given, Mapping) or given is None
            else given
            for name, given in value.items()
        }

    def resolved(
        self,
        classes: Sequence[str],
        *,
        is_deep: bool = False,
        particles: Mapping[str, PickingSettings] | None = None,
    ) -> Self:
        """Return the recipe with its sections filled in for a model's classes.

        ``is_deep`` says that a 3D network is among those applied, ``particles`` how classes are
        picked that were learned from points.

        Raises
        ------
        RequestError
            If a section names a class that the model does not have.
        """
        named = {
            "clean": self.clean,
            "trace": self.trace,
            "pick": self.pick,
            "pick.exclude": [o for one in (self.pick or {}).values() for o in one.exclude],
            "sample": self.sample,
            "export.spacing_angstrom": self.export.spacing_angstrom,
        }
        unknown = {key: sorted(set(given or ()) - set(classes)) for key, given in named.items()}
        if facts := [f"{key} names {', '.join(some)}" for key, some in unknown.items() if some]:
            raise RequestError(
                f"{'; '.join(facts)}, but the model has {', '.join(classes)}",
                remedy="Choose among the model's classes.",
            )
        learned = dict(particles or {})
        usual = {name: PickingSettings() for name in PARTICLES if name in classes}
        defaults = {
            "clean": {name: cleaning_defaults(name) for name in classes},
            "trace": {n: tracing_defaults(n) for n in FILAMENTS if n in classes},
            "pick": usual | learned,
            "sample": {},
        }
        if self.pick:
            named["pick"] = {n: p.with_radii_of(learned.get(n, p)) for n, p in self.pick.items()}
        kept: dict[str, Any] = {key: named[key] for key in defaults if named[key] is not None}
        if is_deep and "shape" not in self.blocks.model_fields_set:
            kept["blocks"] = BlocksSection(shape=DEEP_BLOCK)
        return self.model_copy(update=defaults | kept)

    def saying(self, compute: Mapping[str, Any]) -> Self:
        """Return the recipe with another section on where blocks run for what is written of it.

        The scheduler of one run, such as a watch's, will have ended when the recipe is used again.

        Raises
        ------
        RequestError
            If the section is wrong.
        """
        said = recipe_from({"compute": compute}).compute
        recipe = self.model_copy()
        recipe._said = said  # noqa: SLF001 - of its own kind
        return recipe

    def lasting(self) -> dict[str, Any]:
        """Return the recipe as plain values that can be used again, later and from anywhere."""
        values = self.model_dump(mode="json")
        if self._said is not None:
            values["compute"] = self._said.model_dump(mode="json")
        _resolve_paths(values, Path.cwd())
        return values

    def as_yaml(self) -> str:
        """Return the recipe as a YAML file, as :meth:`lasting` says."""
        return yaml.safe_dump(self.lasting(), sort_keys=False, allow_unicode=True)


def load_recipe(
    path: str | Path | None,
    changes: Sequence[str] = (),
    *,
    given: Mapping[str, Mapping[str, Any]] | None = None,
) -> Recipe:
    """Read a recipe file and apply ``a.b=c`` changes to it.

    Parameters
    ----------
    path
        YAML file, or its URL; or a tomogram's manifest, which holds the recipe that made it. None
        for the defaults alone.
    changes
        Dotted keys and YAML values; their paths are relative to the working directory.
    given
        Section → key → value that stand above both, relative to the working directory too. What
        they say of ``compute`` is of one run: it is not written into the recipe that was used.

    Raises
    ------
    RequestError
        For a missing file, bad YAML, unknown keys and values out of range, each named.
    """
    values, base = ({}, Path.cwd()) if path is None else _values_in(str(path))
    _resolve_paths(values, base)
    for change in changes:
        _apply(values, change)
    said = dict(values)
    for section, keys in (given or {}).items():
        written = values.get(section) or {}
        # What is no section is left to the recipe's own check.
        values[section] = {**written, **keys} if isinstance(written, dict) else written
    _resolve_paths(values, Path.cwd())
    recipe = recipe_from(values)
    if not (given or {}).get("compute"):
        return recipe
    compute = said.get("compute") or {}
    return recipe.saying(compute if compute.get("address") else without_scheduler(compute))


def _values_in(place: str) -> tuple[dict[str, Any], Path | str]:
    """Return what a file says, and the folder from where its relative paths are taken."""
    if "://" in place:
        from tomoseg.io.stores import read_file

        values = yaml_mapping(read_file(place, largest=4 * LARGEST_CHARACTERS), place)
        base: Path | str = place.rpartition("/")[0]
    else:
        values, base = read_yaml(Path(place)), Path(place).resolve().parent
    if {"recipe", "stages", "tomogram"} <= values.keys() and isinstance(values["recipe"], dict):
        values = values["recipe"]
    return values, base


def recipe_from(values: Mapping[str, Any]) -> Recipe:
    """Return the recipe that plain values describe.

    Raises
    ------
    RequestError
        With every unknown key and wrong value, by its dotted name.
    """
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise explained(error) from error


def _apply(values: dict[str, Any], change: str) -> None:
    key, separator, text = change.partition("=")
    if not separator or not key:
        raise RequestError(f"--set {change} is not of the form a.b=value")
    *parents, last = key.split(".")
    for parent in parents:
        inner = values.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise RequestError(f"--set {change}: {parent} is not a section")
        values = inner
    try:
        values[last] = yaml_values(text)
    except yaml.YAMLError as error:
        raise RequestError(f"--set {change}: {text!r} is not a YAML value: {error}") from error


def _resolve_paths(values: dict[str, Any], base: Path | str) -> None:
    """Make relative paths absolute in place; URLs and shipped models stay."""
    sections = [(values.get(section), key) for section, key in PLACES]
    compute = values.get("compute")
    if isinstance(compute, dict):
        sections += [(compute.get("tls"), key) for key in ("ca", "cert", "key")]
        sections += [(compute.get("slurm"), "log_folder")]
    segment = values.get("segment")
    networks = segment.get("networks") if isinstance(segment, dict) else None
    sections += [(one, "model") for one in networks] if isinstance(networks, list) else []
    for inner, key in sections:
        if not isinstance(inner, dict) or not inner.get(key):
            continue
        place = inner[key]
        if isinstance(place, list):
            inner[key] = [absolute(item, base) for item in place]
        else:
            inner[key] = absolute(place, base)


def absolute(place: Any, base: Path | str) -> Any:
    """Return a place with a relative path taken from a folder, or from the URL of one.

    URLs, the names of shipped models and what begins with a tomogram's ``{folder}`` are places
    already; values that are no text are left to the recipe's own check.
    """
    if not isinstance(place, str) or "://" in place or place in SHIPPED_MODELS:
        return place
    if place.startswith("{folder}"):
        return place
    try:
        path = Path(place).expanduser()
        if isinstance(base, str) and not path.is_absolute():
            return f"{base}/{place}"
        return os.path.normpath(base / path)
    except RuntimeError as error:
        raise RequestError(f"{place}: {error}") from error
