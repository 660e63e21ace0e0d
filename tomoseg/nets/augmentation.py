"""How far a patch may be changed before a network sees it. No torch in here."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]


class AugmentationSettings(BaseModel):
    """How far a patch may be changed before the network sees it.

    Flips along every axis and quarter turns in the plane are always made. Intensities are in
    units of the normalised image, where noise and structure together have a deviation near 1.

    Parameters
    ----------
    scale
        Largest relative change of the voxel size, so that the model bears other ones.
    scale_probability
        Share of patches that are rescaled.
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

    model_config = ConfigDict(frozen=True, extra="forbid")

    scale: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    scale_probability: Fraction = 0.5
    gain: Annotated[float, Field(ge=0, lt=1)] = 0.25
    offset: Annotated[float, Field(ge=0)] = 0.2
    gamma: Annotated[float, Field(ge=0, lt=1)] = 0.15
    noise: Annotated[float, Field(ge=0)] = 0.4
    blur: Fraction = 0.8
