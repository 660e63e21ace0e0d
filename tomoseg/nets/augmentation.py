"""How far a patch may be changed before a network sees it. No torch in here."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

from tomoseg.core.bounds import CLOSED

Fraction = Annotated[float, Field(ge=0, le=1)]


class AugmentationSettings(BaseModel):
    """How far a patch may be changed before the network sees it.

    Flips along every axis and quarter turns in the plane are always made. Intensities are in
    units of the normalised image, where noise and structure together have a deviation near 1.

    Parameters
    ----------
    rotation_degrees, rotation_probability
        Largest free turn in the plane, either way, for objects that lie at any angle; and the
        share of patches that get one.
    scale, scale_probability
        Largest relative change of the voxel size along all axes, so that the model bears other
        ones; and the share of patches that are rescaled.
    fourier, fourier_probability
        Largest natural logarithm of the change of amplitude at any spatial frequency, a smooth
        curve, as another defocus, dose or filter would leave it; and the share of patches.
    missing_wedge_degrees, missing_wedge_probability
        Largest tilt, both ways, of a series whose missing wedge is taken out of a patch that is
        turned freely in space before, so that the wedge tells nothing of how an object lies; and
        the share of patches. Only for patches of a 3D network that are deep enough.
    gain, offset
        Largest relative change of contrast and largest shift of brightness.
    gamma
        Largest relative change of the exponent of the intensities.
    noise
        Largest standard deviation of added white noise.
    blur
        Largest share of the 3×3×3 smoothed image in the result; up to half of it negative,
        which sharpens.
    """

    model_config = ConfigDict(**CLOSED, frozen=True)

    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 180.0
    rotation_probability: Fraction = 0.25
    scale: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    scale_probability: Fraction = 0.25
    fourier: Annotated[float, Field(ge=0, le=3)] = 1.0
    fourier_probability: Fraction = 0.2
    missing_wedge_degrees: Annotated[float, Field(gt=0, lt=90)] = 60.0
    missing_wedge_probability: Fraction = 0.3
    gain: Annotated[float, Field(ge=0, lt=1)] = 0.25
    offset: Annotated[float, Field(ge=0, le=10)] = 0.2
    gamma: Annotated[float, Field(ge=0, lt=1)] = 0.15
    noise: Annotated[float, Field(ge=0, le=10)] = 0.4
    blur: Fraction = 0.8

    @classmethod
    def none(cls) -> Self:
        """Return settings under which patches are flipped and turned by quarters alone."""
        return cls(
            rotation_probability=0,
            scale_probability=0,
            fourier_probability=0,
            missing_wedge_probability=0,
            gain=0,
            offset=0,
            gamma=0,
            noise=0,
            blur=0,
        )
