"""The watch's file: which sessions, which recipes, where results go, how often and how much."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator

from tomoseg.compute.settings import ComputeSection
from tomoseg.core.bounds import Cores, Count, Section, explained
from tomoseg.core.errors import RequestError
from tomoseg.recipe.plain_yaml import read_yaml
from tomoseg.recipe.recipe import absolute

GPU_LIMIT = "tomoseg-gpu"
SCHEDULER = "TOMOSEG_SCHEDULER"
Seconds = Annotated[float, Field(ge=0, le=7 * 24 * 3600)]


class RecipeRule(Section):
    """Which recipe the sessions take whose URL or path matches a pattern of ``*`` and ``?``."""

    sessions: str = "*"
    recipe: str


class LimitsSection(Section):
    """How much is done at once.

    Parameters
    ----------
    session_runs
        Sessions in work.
    tomograms_a_run
        After so many a run ends, and live sessions get their turn.
    tomograms_at_once
        Of one session.
    gpu
        Prefect's global concurrency limit that segmentation takes a slot of, if it was made:
        ``prefect gcl create tomoseg-gpu --limit 1``.
    """

    session_runs: Cores = 2
    tomograms_a_run: Count = 10
    tomograms_at_once: Annotated[int, Field(ge=1, le=64)] = 1
    gpu: str = GPU_LIMIT


class Watch(Section):
    """A whole watch. Relative paths are relative to the file.

    Parameters
    ----------
    sessions
        Folders of tomograms, paths or URLs; ``*`` and ``?`` match within a folder's name.
    output
        Where a session's results go; ``{session}`` is what the wildcards matched, or the
        folder's name.
    recipes
        The first that matches is taken, unless a ``tomoseg.yaml`` lies beside the tomograms.
    roots
        If any are given, sessions, outputs, masks and models must lie below one of them.
    seconds_between_looks, cron
        When to look: at an interval, or instead by a crontab's line.
    settle_seconds
        A file is complete when size and version have not changed for so long, which takes two
        looks, and its header announces no more than it holds.
    incomplete_minutes
        A file that has not changed for so long and still is not whole is no longer waited for: it
        is refused.
    sentinel
        A file beside the tomogram that says it is complete, such as ``{name}.mdoc`` or
        ``{file}.done``; nothing is begun without it.
    pauses_seconds
        After each failure of a tomogram but the last, when it is set aside.
    live_hours
        A session with a file that came or changed within that time goes before others.
    limits
        How much is done at once.
    compute
        Where blocks run, instead of what recipes say. A session's own ``tomoseg.yaml`` cannot.
    scheduler
        Address of the Dask scheduler on whose workers they run, whatever ``compute`` says;
        the environment's ``TOMOSEG_SCHEDULER`` goes before it.
    """

    sessions: Annotated[tuple[str, ...], Field(min_length=1)]
    output: str
    recipes: tuple[RecipeRule, ...] = ()
    roots: tuple[str, ...] = ()
    seconds_between_looks: Annotated[float, Field(ge=1, le=24 * 3600)] = 60.0
    cron: str | None = None
    settle_seconds: Seconds = 30.0
    incomplete_minutes: Annotated[float, Field(ge=0, le=7 * 24 * 60)] = 10.0
    sentinel: str | None = None
    pauses_seconds: tuple[Seconds, ...] = (60.0, 600.0)
    live_hours: Annotated[float, Field(ge=0, le=24 * 365)] = 12.0
    limits: LimitsSection = LimitsSection()
    compute: ComputeSection | None = None
    scheduler: str | None = None
    _file: str = PrivateAttr("")

    def model_post_init(self, context: Any) -> None:
        """Keep where it was read from."""
        self._file = (context or {}).get("file", "")

    @property
    def file(self) -> str:
        """The file that it was read from; empty if it was not."""
        return self._file

    @field_validator("sessions", "roots", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("pauses_seconds")
    @classmethod
    def _growing(cls, pauses: tuple[float, ...]) -> tuple[float, ...]:
        if list(pauses) != sorted(pauses):
            raise ValueError("pauses must grow")
        return pauses

    @field_validator("sentinel")
    @classmethod
    def _known_names(cls, pattern: str | None) -> str | None:
        if pattern is not None and (
            "/" in pattern or set(re.findall(r"{(.*?)}", pattern)) - {"name", "file"}
        ):
            raise ValueError("use {name} or {file}, and no folder")
        return pattern

    @model_validator(mode="after")
    def _one_output_each(self) -> Self:
        is_many = len(self.sessions) > 1 or any(mark in self.sessions[0] for mark in "*?")
        if is_many and "{session}" not in self.output:
            raise ValueError("output needs {session}: each session has its own results")
        return self


def load_watch(path: str | Path, environment: Mapping[str, str] | None = None) -> Watch:
    """Read a watch's file.

    Parameters
    ----------
    environment
        Where ``TOMOSEG_SCHEDULER`` is looked for.

    Raises
    ------
    RequestError
        For a missing file, bad YAML, unknown keys and values out of range, each named.
    """
    file = Path(path).resolve()
    if not file.exists():
        raise RequestError(f"there is no watch's file at {file}")
    values = read_yaml(file)
    _resolve(values, file.parent)
    if address := (environment or {}).get(SCHEDULER):
        values["scheduler"] = address
    if "compute" in values:
        values["compute"] = at_scheduler(values["compute"], values.get("scheduler"))
    try:
        return Watch.model_validate(values, context={"file": str(file)})
    except ValidationError as error:
        raise RequestError(f"{file}: {explained(error).message}") from error


def at_scheduler(compute: Any, address: Any) -> Any:
    """Return a compute section that runs on a scheduler; what starts clusters is left out.

    >>> at_scheduler({"cluster": "cuda", "threads": 2}, "tcp://10.0.0.1:8786")
    {'threads': 2, 'runner': 'dask', 'address': 'tcp://10.0.0.1:8786'}
    """
    if address is None or not isinstance(compute, Mapping):
        return compute
    starting = {"cluster", "slurm", "kubernetes", "workers"}
    kept = {key: value for key, value in compute.items() if key not in starting}
    return {**kept, "runner": "dask", "address": address}


def _resolve(values: dict[str, Any], base: Path) -> None:
    for key in ("sessions", "output", "roots"):
        given = values.get(key)
        is_many = isinstance(given, list)
        if given:
            values[key] = (
                [absolute(one, base) for one in given] if is_many else absolute(given, base)
            )
    rules = values.get("recipes")
    for rule in rules if isinstance(rules, list) else ():
        if isinstance(rule, dict) and "recipe" in rule:
            rule["recipe"] = absolute(rule["recipe"], base)
    compute = values.get("compute")
    tls = compute.get("tls") if isinstance(compute, dict) else None
    if isinstance(tls, dict):
        tls.update({key: absolute(place, base) for key, place in tls.items()})
