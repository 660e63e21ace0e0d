"""What recipes are made of: closed sections, and numbers whose bounds stand in their types.

Bounds are what could be meant at all, not what is wise: a typing mistake or another unit leaves
them. A number's type is the only place of its bounds, whether a recipe or a program sets it.
"""

from __future__ import annotations

from dataclasses import fields
from functools import lru_cache
from typing import Annotated, Any, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from tomoseg.core.errors import RequestError

CLOSED = ConfigDict(extra="forbid", allow_inf_nan=False)
"""No unknown keys, and neither NaN nor infinite, which no bound keeps out."""

Count = Annotated[int, Field(ge=1, le=1_000_000)]
Cores = Annotated[int, Field(ge=1, le=1024)]
Edge = Annotated[int, Field(ge=1, le=4096)]
Halo = Annotated[int, Field(ge=0, le=1024)]
Pixels = Annotated[int, Field(ge=1, le=100_000)]
Gib = Annotated[float, Field(ge=0, le=4096)]
Minutes = Annotated[float, Field(gt=0, le=365 * 24 * 60)]
Length = Annotated[float, Field(gt=0, le=100_000)]
"""Å."""
Reach = Annotated[float, Field(ge=0, le=100_000)]
"""Å; 0 is none."""
VoxelSize = Annotated[float, Field(gt=0, le=1000)]
"""Å."""
Volume = Annotated[float, Field(gt=0, le=1e12)]
"""nm³."""
Angle = Annotated[float, Field(gt=0, lt=90)]
"""Degrees."""


class Section(BaseModel):
    """A part of a recipe: frozen, and closed to unknown keys."""

    model_config = ConfigDict(**CLOSED, frozen=True)


class SettingError(RequestError, ValueError):
    """A setting is out of its bounds, or two contradict each other.

    As a ValueError it is told by pydantic beside all else that is wrong with a recipe.
    """


def _problems(error: ValidationError) -> str:
    """Say each thing that is wrong: its dotted key, the bound, and the value."""
    return "; ".join(_problem(problem) for problem in error.errors())


def _problem(problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"]) or "recipe"
    if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{key} is not a known key"
    if problem["type"] == "value_error":
        return f"{key}: {str(problem['ctx']['error']).rstrip('.')}"
    return f"{key}: {problem['msg']}, not {str(problem['input'])[:60]!r}"


def explained(error: ValidationError) -> RequestError:
    """Return what is wrong with a recipe, for people."""
    return RequestError(
        f"the recipe is wrong: {_problems(error)}",
        remedy="Correct these keys; the README explains the recipe on one page.",
    )


def check_bounds(settings: Any) -> None:
    """Check all values of a dataclass against the bounds in their types.

    Raises
    ------
    SettingError
        With every value that is out of its bounds.
    """
    values = {item.name: getattr(settings, item.name) for item in fields(settings)}
    try:
        _model(settings.__class__).model_validate(values)
    except ValidationError as error:
        raise SettingError(_problems(error)) from error


@lru_cache
def _model(kind: type[Any]) -> type[BaseModel]:
    hints = get_type_hints(kind, include_extras=True)
    types: dict[str, Any] = {item.name: (hints[item.name], ...) for item in fields(kind)}
    return create_model(kind.__name__, __config__=CLOSED, **types)
