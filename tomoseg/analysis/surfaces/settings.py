"""How membranes of a class are sampled."""

from __future__ import annotations

from dataclasses import dataclass
from math import erf, exp, pi, sqrt
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from tomoseg.analysis.binning import binning_factor
from tomoseg.core.bounds import CLOSED, Angle, Length, Reach, check_bounds
from tomoseg.core.errors import RequestError
from tomoseg.core.sampling import Sampling, Shape, as_shape

# Gaussians are cut here; with 3 instead of 4 a block's sheets are not the whole volume's.
TRUNCATE_SIGMAS = 4.0
# Width of the Gaussian under the sheet filter, in halves of the label's thickness.
SIGMA_HALVES = 0.75
# A sheet of four bins' half thickness still has its middle found to a fraction of a bin.
HALF_BINS = 4.0
# Faces are looked for this many thicknesses from the middle.
REACH_THICKNESSES = 1.5


@dataclass(frozen=True)
class SurfaceSettings:
    """How the membranes of one class are sampled; the defaults are those of one bilayer.

    Parameters
    ----------
    thickness_angstrom
        Thickness of the membrane as it is labelled; half of it or twice is still found.
    spacing_angstrom
        No two points of a side of a surface are nearer than this, and none of its places is
        farther from a point.
    threshold
        Least strength of the sheet (1 for an ideal one), multiplied by the volume's own level,
        see :func:`tomoseg.analysis.surfaces.sample_surfaces`.
    link_degrees
        Neighbours whose normals differ by more belong to different surfaces.
    minimum_area_nm2
        Smaller surfaces are dropped.
    contact_angstrom
        Places nearer to another surface than this are told in a table; 0 makes none.
    roll
        Turn about the normal: ``"random"``, so that averages have no missing wedge in common, or
        ``"none"``, RELION's rot = 0.

    Raises
    ------
    SettingError
        If a value is out of its bounds.
    """

    __pydantic_config__: ClassVar[ConfigDict] = CLOSED

    thickness_angstrom: Length = 60.0
    spacing_angstrom: Length = 100.0
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    link_degrees: Angle = 30.0
    minimum_area_nm2: Annotated[float, Field(ge=0, le=1e10)] = 1000.0
    contact_angstrom: Reach = 0.0
    roll: Literal["random", "none"] = "random"

    def __post_init__(self) -> None:
        """Check bounds."""
        check_bounds(self)


def surface_defaults(name: str) -> SurfaceSettings:
    """Return the settings for a class by its name.

    Two bilayers with the space between them are 21 to 31 nm thick as tomoseg labels them; every
    other class is taken for one bilayer.

    Examples
    --------
    >>> surface_defaults("double_membrane").thickness_angstrom
    260.0
    """
    return SurfaceSettings(thickness_angstrom=260.0 if "double" in name.lower() else 60.0)


def surface_factor(settings: SurfaceSettings, sampling: Sampling) -> int:
    """Return how many voxels of the score map make one bin of the grid that is sampled on.

    Raises
    ------
    RequestError
        If this is a micrograph, or the membrane is thinner than the grid can show.
    """
    if sampling.is_flat:
        raise RequestError(
            "a micrograph of one slice has no surfaces to sample",
            remedy="Leave sample out of the recipe for micrographs.",
        )
    voxels = settings.thickness_angstrom / max(sampling.voxel_size_angstrom)
    if voxels < 2:
        raise RequestError(
            f"a membrane of {settings.thickness_angstrom} Å is {voxels:.2f} voxels thick; at least "
            "2 are needed to sample it",
            remedy="Sample a finer score map, or state how thick the label is.",
        )
    widest = min(voxels / 2, HALF_BINS * min(sampling.shape))
    return binning_factor(widest, at_least_bins=HALF_BINS)


def sigma_angstrom(settings: SurfaceSettings, sampling: Sampling) -> float:
    """Return the width of the Gaussian under the sheet filter, Å, at least one voxel."""
    coarsest = max(sampling.voxel_size_angstrom)
    return max(SIGMA_HALVES * settings.thickness_angstrom / 2, coarsest)


def ideal_sheet(settings: SurfaceSettings, sampling: Sampling) -> tuple[float, float]:
    """Return value and curvature (1/Å²) in the middle of a smoothed ideal sheet.

    Notes
    -----
    A slab of half thickness h, smoothed with σ, is Φ((x + h)/σ) − Φ((x − h)/σ): in its middle
    erf(h / √2 σ), and minus the second derivative is √(2/π) · h / σ³ · exp(−h² / 2σ²).
    """
    half, sigma = settings.thickness_angstrom / 2, sigma_angstrom(settings, sampling)
    bend = sqrt(2 / pi) * half / sigma**3 * exp(-(half**2) / (2 * sigma**2))
    return erf(half / (sqrt(2) * sigma)), bend


def surface_halo(settings: SurfaceSettings, sampling: Sampling) -> Shape:
    """Return the voxels of the score map to read around a core; a multiple of the factor.

    The Gaussian reaches four sigma and the gradient beside a bin two bins; faces are looked for
    one and a half thicknesses away.
    """
    factor = surface_factor(settings, sampling)
    sigma = sigma_angstrom(settings, sampling)
    reach = REACH_THICKNESSES * settings.thickness_angstrom
    bins = (
        max(int(TRUNCATE_SIGMAS * sigma / size + 0.5), int(reach / size) + 1) + 2
        for size in (factor * size for size in sampling.voxel_size_angstrom)
    )
    return as_shape(factor * n for n in bins)
