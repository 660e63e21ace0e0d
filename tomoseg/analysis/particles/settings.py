"""How the particles of a class are picked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from math import pi
from typing import Annotated, ClassVar, Literal, Self

from pydantic import ConfigDict, Field

from tomoseg.core.bounds import CLOSED, Length, SettingError, Volume, check_bounds
from tomoseg.core.sampling import Sampling

_RADII = ("radius_angstrom", "label_radius_angstrom")
VOLUMES = ("minimum_volume_nm3", "maximum_volume_fraction", "maximum_volume_nm3")
BOUNDS = ("minimum", "maximum")

Share = Annotated[float, Field(ge=0, lt=1)]


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
    SettingError
        If a value is out of its bounds, two contradict each other, or a volume is limited that
        peaks do not have.
    """

    __pydantic_config__: ClassVar[ConfigDict] = CLOSED

    method: Literal["peaks", "watershed", "components"] = "peaks"
    radius_angstrom: Length = 140.0
    label_radius_angstrom: Length | None = None
    minimum_distance_angstrom: Length | None = None
    threshold: Annotated[float, Field(gt=0, le=10)] = 0.4
    minimum_volume_fraction: Share = 0.25
    maximum_volume_fraction: Annotated[float, Field(gt=0, le=1000)] | None = None
    minimum_volume_nm3: Volume | None = None
    maximum_volume_nm3: Volume | None = None
    minimum_score: Share = 0.0
    top_n: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    border: Literal["keep", "drop"] = "keep"
    exclude: Mapping[str, Length] = field(default_factory=dict, hash=False)
    surroundings_angstrom: Annotated[float, Field(ge=0, le=5000)] = 0.0

    def __post_init__(self) -> None:
        """Check bounds, and volumes against each other and the method."""
        check_bounds(self)
        given = [name for name in VOLUMES if getattr(self, name) is not None]
        if self.method == "peaks" and given:
            raise SettingError(
                f"{given[0]} limits a volume, and peaks have none",
                remedy="Pick with method watershed or components.",
            )
        if self.maximum_volume_nm3 and self.maximum_volume_fraction:
            raise SettingError(
                "maximum_volume_nm3 and maximum_volume_fraction exclude each other",
                remedy="State one of them.",
            )
        # A share and a volume in nm³ are compared where the tomogram is known.
        for unit in ("nm3", "fraction"):
            least, most = (getattr(self, f"{bound}_volume_{unit}") for bound in BOUNDS)
            if least and most and least > most:
                raise SettingError(
                    f"minimum_volume_{unit} {least:g} is above maximum_volume_{unit} {most:g}",
                    remedy="Correct one of them: nothing is picked between them.",
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
