"""How the particles of a class are picked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from math import isfinite, pi
from typing import ClassVar, Literal, Self

from tomoseg.errors import RequestError
from tomoseg.sampling import Sampling

_RADII = ("radius_angstrom", "label_radius_angstrom")
VOLUMES = ("minimum_volume_nm3", "maximum_volume_fraction", "maximum_volume_nm3")


@dataclass(frozen=True)
class PickingSettings:
    """How the particles of one class are picked, and which of them are kept.

    Parameters
    ----------
    method
        ``"peaks"`` of the score map; ``"watershed"`` where there are labels alone; ``"components"``
        of the labels only for small labels that never touch.
    radius_angstrom
        The particle's radius.
    label_radius_angstrom
        Radius of the ball that stands for a particle in the labels the network was trained on;
        the particle's own if None.
    minimum_distance_angstrom
        Of two particles nearer than this the weaker goes. If None, one particle radius for peaks
        (1.5 radii is better for noisy particles that do not touch), no limit for basins and
        components.
    threshold
        Least answer of the filter, 1 being that of an ideal ball. Of peaks alone.
    minimum_volume_fraction, maximum_volume_fraction
        Least and largest volume as a share of the label's ball; peaks have no volume.
    minimum_volume_nm3, maximum_volume_nm3
        The same in nm³, instead.
    minimum_score
        Least score, 0..1.
    top_n
        How many are kept, the best first; all if None.
    border
        Whether particles nearer than one radius to the volume's border are kept.
    exclude
        Class → Å: particles whose centre is nearer than this to an object of that class are left
        out.
    surroundings_angstrom
        How far around a particle membranes are looked for, for a table of the particles'
        surroundings; 500 Å, say. It takes about as long as a fast network; with 0 it is not made.

    Raises
    ------
    RequestError
        If a value is out of its range, or a volume is limited that peaks do not have.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    method: Literal["peaks", "watershed", "components"] = "peaks"
    radius_angstrom: float = 140.0
    label_radius_angstrom: float | None = None
    minimum_distance_angstrom: float | None = None
    threshold: float = 0.4
    minimum_volume_fraction: float = 0.25
    maximum_volume_fraction: float | None = None
    minimum_volume_nm3: float | None = None
    maximum_volume_nm3: float | None = None
    minimum_score: float = 0.0
    top_n: int | None = None
    border: Literal["keep", "drop"] = "keep"
    exclude: Mapping[str, float] = field(default_factory=dict, hash=False)
    surroundings_angstrom: float = 0.0

    def __post_init__(self) -> None:
        """Check ranges."""
        for name, value in self._lengths():
            if value is not None and not (value > 0 and isfinite(value)):
                raise RequestError(f"{name} {value} must be positive")
        if not self.threshold > 0:
            raise RequestError(f"threshold {self.threshold} must be positive")
        for name in ("minimum_volume_fraction", "minimum_score"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise RequestError(f"{name} {value} must lie in 0..1")
        if not 0 <= self.surroundings_angstrom <= 5000:
            raise RequestError(
                f"surroundings_angstrom {self.surroundings_angstrom} must lie in 0..5000"
            )
        self._check_volumes()

    def _lengths(self) -> list[tuple[str, float | None]]:
        """Return the values, by name, that must be positive if they are given."""
        names = [item.name for item in fields(self) if item.name.endswith("_angstrom")]
        names.remove("surroundings_angstrom")
        given = [(name, getattr(self, name)) for name in (*names, *VOLUMES, "top_n")]
        return [*given, *((f"exclude.{name}", value) for name, value in self.exclude.items())]

    def _check_volumes(self) -> None:
        given = [name for name in VOLUMES if getattr(self, name) is not None]
        if self.method == "peaks" and given:
            raise RequestError(
                f"{given[0]} limits a volume, and peaks have none",
                remedy="Pick with method watershed or components.",
            )
        if self.maximum_volume_nm3 and self.maximum_volume_fraction:
            raise RequestError(
                "maximum_volume_nm3 and maximum_volume_fraction exclude each other",
                remedy="State one of them.",
            )

    def with_radii_of(self, other: Self) -> Self:
        """Return the settings with another's radii where these are the usual ones."""
        radii = {item: getattr(other, item.name) for item in fields(self) if item.name in _RADII}
        left = {i.name: value for i, value in radii.items() if getattr(self, i.name) == i.default}
        return replace(self, **left)

    @property
    def label_angstrom(self) -> float:
        """Radius of the label's ball, Å."""
        return self.label_radius_angstrom or self.radius_angstrom

    @property
    def distance_angstrom(self) -> float:
        """Least distance between two peaks, Å."""
        return self.minimum_distance_angstrom or self.radius_angstrom

    def label_nm3(self, sampling: Sampling) -> float:
        """Return the volume of the label's ball, nm³; of its disc in a micrograph's one slice."""
        if sampling.is_flat:
            return pi * self.label_angstrom**2 * sampling.voxel_size_angstrom[0] / 1000
        return 4 / 3 * pi * self.label_angstrom**3 / 1000

    def volumes_nm3(self, sampling: Sampling) -> tuple[float, float]:
        """Return the least and the largest volume of a particle, nm³."""
        label = self.label_nm3(sampling)
        most = self.maximum_volume_fraction
        return (
            self.minimum_volume_nm3 or self.minimum_volume_fraction * label,
            self.maximum_volume_nm3 or (float("inf") if most is None else most * label),
        )


def dimensions(sampling: Sampling) -> int:
    """Return 2 for a micrograph, 3 for a tomogram."""
    return 2 if sampling.is_flat else 3
