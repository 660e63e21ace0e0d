"""How filaments of a class are traced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field

from tomoseg.analysis.binning import binning_factor
from tomoseg.core.bounds import CLOSED, Angle, Length, Reach, SettingError, check_bounds
from tomoseg.core.classes import is_actin
from tomoseg.core.errors import RequestError
from tomoseg.core.sampling import Sampling, Shape, as_shape

# Gaussians are cut here; with 3 instead of 4 a block's ridge is not the whole volume's.
TRUNCATE_SIGMAS = 4.0
# Below this a bin is not worth a place in memory; about 9% of a crowded volume lies above.
RIDGE_FLOOR = 0.15
# A tube of four bins' radius still has its centre found to a fraction of a bin.
RADIUS_BINS = 4.0

Strength = Annotated[float, Field(gt=0, le=10)]


@dataclass(frozen=True)
class TracingSettings:
    """How the filaments of one class are traced; the defaults are those of microtubules.

    Parameters
    ----------
    radius_angstrom
        Outer radius of the filament as it is labelled.
    hollow
        Whether the score map marks the wall alone. Filled tubes trace far better.
    seed_threshold, follow_threshold
        Ridge strength (1 for an ideal tube) to begin a trace and to go on with it; both are
        multiplied by the volume's own level, see :func:`tomoseg.analysis.filaments.trace`.
    turn_degrees
        Largest change of direction over a step of half a radius.
    claim_degrees
        Traces closer in direction than this may not share a place: crossings pass, doubles stop.
    gap_angstrom
        How far a trace goes on straight where there is no ridge.
    link_angstrom, link_degrees
        How far apart, and how far out of line, ends that face each other may be to be joined.
    minimum_length_angstrom
        Shorter filaments are dropped.

    Raises
    ------
    SettingError
        If a value is out of its bounds, or two contradict each other.
    """

    __pydantic_config__: ClassVar[ConfigDict] = CLOSED

    radius_angstrom: Length = 125.0
    hollow: bool = False
    seed_threshold: Strength = 0.5
    follow_threshold: Strength = 0.25
    turn_degrees: Angle = 25.0
    claim_degrees: Angle = 30.0
    gap_angstrom: Reach = 200.0
    link_angstrom: Reach = 600.0
    link_degrees: Angle = 20.0
    minimum_length_angstrom: Annotated[float, Field(ge=0, le=1e7)] = 600.0

    def __post_init__(self) -> None:
        """Check bounds."""
        check_bounds(self)
        if self.follow_threshold > self.seed_threshold:
            raise SettingError(
                f"follow_threshold {self.follow_threshold} is above seed_threshold "
                f"{self.seed_threshold}, with which a trace begins",
                remedy="Lower follow_threshold or raise seed_threshold.",
            )

    @property
    def sigma_angstrom(self) -> float:
        """Width of the Gaussian under the ridge filter, Å."""
        return (0.95 if self.hollow else 0.75) * self.radius_angstrom

    @property
    def step_angstrom(self) -> float:
        """Length of a step along a filament, Å."""
        return 0.5 * self.radius_angstrom


_ACTIN = TracingSettings(
    radius_angstrom=35.0,
    gap_angstrom=80.0,
    link_angstrom=400.0,
    link_degrees=25.0,
    minimum_length_angstrom=400.0,
)


def tracing_defaults(name: str) -> TracingSettings:
    """Return the settings for a class by its name.

    Any name with "actin" in it is traced as actin; every other class as microtubules, so that its
    recipe should at least state the radius.

    Examples
    --------
    >>> tracing_defaults("F-actin").gap_angstrom
    80.0
    """
    return _ACTIN if is_actin(name) else TracingSettings()


def working_factor(settings: TracingSettings, sampling: Sampling) -> int:
    """Return how many voxels of the score map make one bin of the grid that is traced on.

    Raises
    ------
    RequestError
        If the filament is thinner than the grid can show.
    """
    radius_voxels = settings.radius_angstrom / max(sampling.voxel_size_angstrom)
    if radius_voxels < 1:
        raise RequestError(
            f"a filament of radius {settings.radius_angstrom} Å is {radius_voxels:.2f} voxels "
            "thick; at least 1 is needed to trace it",
            remedy="Trace on a finer score map or state a larger radius.",
        )
    widest = min(radius_voxels, RADIUS_BINS * min(sampling.shape))
    return binning_factor(widest, at_least_bins=RADIUS_BINS)


def tracing_halo(settings: TracingSettings, sampling: Sampling) -> Shape:
    """Return the voxels of the score map to read around a core; a multiple of the factor.

    The Gaussian reaches four sigma, the second differences one bin, the comparison with the
    neighbours another.
    """
    factor = working_factor(settings, sampling)
    reach = (
        int(TRUNCATE_SIGMAS * settings.sigma_angstrom / (factor * size) + 0.5)
        for size in sampling.voxel_size_angstrom
    )
    return as_shape(factor * (bins + 2) for bins in reach)
