"""The steps that normalise grey values, as a recipe and a model card list them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import ConfigDict, Field

from tomoseg.core.bounds import CLOSED, Length, SettingError, check_bounds
from tomoseg.core.errors import RequestError

Percentile = Annotated[float, Field(ge=0, le=100)]


@dataclass(frozen=True)
class Invert:
    """Change the sign, so that dark protein turns bright."""

    __pydantic_config__: ClassVar[ConfigDict] = CLOSED
    kind: Literal["invert"] = field(default="invert", kw_only=True)


@dataclass(frozen=True)
class PercentileClip:
    """Limit grey values to two percentiles of the whole tomogram.

    Parameters
    ----------
    low, high
        Percentiles, low below high; 0 and 100 limit nothing.
    """

    __pydantic_config__: ClassVar[ConfigDict] = CLOSED
    low: Percentile = 0.1
    high: Percentile = 99.9
    kind: Literal["percentile_clip"] = field(default="percentile_clip", kw_only=True)

    def __post_init__(self) -> None:
        """Check bounds and order."""
        check_bounds(self)
        if self.low >= self.high:
            raise SettingError(f"low {self.low:g} must be below high {self.high:g}")


@dataclass(frozen=True)
class ZScore:
    """Subtract the mean and divide by the standard deviation, both of the whole tomogram."""

    __pydantic_config__: ClassVar[ConfigDict] = CLOSED
    kind: Literal["z_score"] = field(default="z_score", kw_only=True)


@dataclass(frozen=True)
class Calibrate:
    """Map two reference grey values linearly to 0 and 1; values beyond them are kept.

    Parameters
    ----------
    black, white
        Grey values of the tomogram, as they are after the steps before, that become 0 and 1.
    """

    __pydantic_config__: ClassVar[ConfigDict] = CLOSED
    black: float
    white: float
    kind: Literal["calibrate"] = field(default="calibrate", kw_only=True)

    def __post_init__(self) -> None:
        """Check that the references differ."""
        check_bounds(self)
        if self.black == self.white:
            raise SettingError(f"black and white must differ, and both are {self.black:g}")


@dataclass(frozen=True)
class Equalise:
    """Replace each grey value by the fraction of voxels that are at most as bright.

    Parameters
    ----------
    bins
        Equal parts of the range of grey values at which the fraction is known exactly; it is
        interpolated between, as in ``skimage.exposure.equalize_hist``.
    """

    __pydantic_config__: ClassVar[ConfigDict] = CLOSED
    bins: Annotated[int, Field(strict=True, ge=2, le=1 << 20)] = 256
    kind: Literal["equalise"] = field(default="equalise", kw_only=True)

    def __post_init__(self) -> None:
        """Check bounds."""
        check_bounds(self)


@dataclass(frozen=True)
class Gaussian:
    """Blur.

    Parameters
    ----------
    sigma_angstrom
        Standard deviation of the kernel, Å.
    """

    __pydantic_config__: ClassVar[ConfigDict] = CLOSED
    sigma_angstrom: Length
    kind: Literal["gaussian"] = field(default="gaussian", kw_only=True)

    def __post_init__(self) -> None:
        """Check bounds."""
        check_bounds(self)


@dataclass(frozen=True)
class Unsharp:
    """Add ``amount`` times what a Gaussian blur takes away.

    Parameters
    ----------
    sigma_angstrom
        Standard deviation of the blur, Å.
    amount
        Weight of the fine detail.
    """

    __pydantic_config__: ClassVar[ConfigDict] = CLOSED
    sigma_angstrom: Length
    amount: Annotated[float, Field(ge=0, le=1000)] = 1.0
    kind: Literal["unsharp"] = field(default="unsharp", kw_only=True)

    def __post_init__(self) -> None:
        """Check bounds."""
        check_bounds(self)


Filter = Gaussian | Unsharp
Step = Invert | PercentileClip | ZScore | Calibrate | Equalise | Gaussian | Unsharp
DEFAULT_STEPS: tuple[Step, ...] = (PercentileClip(0.1, 99.9), ZScore())


def parse_steps(steps: Iterable[Mapping[str, Any]]) -> tuple[Step, ...]:
    """Read the list of steps of a recipe or a model card.

    Raises
    ------
    RequestError
        If a kind or a key is not known, a key is missing, or a value is out of bounds.

    Examples
    --------
    >>> parse_steps([{"kind": "percentile_clip", "low": 1, "high": 99}, {"kind": "z_score"}])
    (PercentileClip(low=1, high=99, kind='percentile_clip'), ZScore(kind='z_score'))
    """
    return tuple(_parse(step) for step in steps)


def as_dicts(steps: Iterable[Step]) -> list[dict[str, Any]]:
    """Return what :func:`parse_steps` reads, for JSON and YAML."""
    return [asdict(step) for step in steps]


def _parse(step: Mapping[str, Any]) -> Step:
    kinds = {kind.kind: kind for kind in get_args(Step)}
    kind = kinds.get(step.get("kind"))
    if kind is None:
        raise RequestError(
            f"step of kind {step.get('kind')!r} is not known",
            remedy=f"Choose kind from {', '.join(kinds)}.",
        )
    known = {f.name: f.default is MISSING for f in fields(kind)}
    unknown = step.keys() - known.keys()
    missing = {name for name, needed in known.items() if needed} - step.keys()
    if unknown or missing:
        raise RequestError(
            f"step {kind.kind} has unknown keys {sorted(unknown)} and lacks {sorted(missing)}",
            remedy=f"Its keys are {', '.join(known)}.",
        )
    for name in step.keys() - {"kind"}:
        if not _is_number(step[name]):
            raise RequestError(f"step {kind.kind} has {name} {step[name]!r}, not a finite number")
    try:
        parsed: Step = kind(**step)
    except SettingError as error:
        raise RequestError(f"step {kind.kind}: {error.message}") from error
    return parsed


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and type(value) is not bool and math.isfinite(value)
