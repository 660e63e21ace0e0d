"""What files of tomograms do not say, or say wrongly: a section of recipes and of annotations."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tomoseg.core.bounds import Section, VoxelSize
from tomoseg.io.volumes.turns import Axes

Value = Annotated[int, Field(ge=0, le=255)]


class MaskValues(Section):
    """What the values 0..255 of a mask mean; each means one thing.

    Parameters
    ----------
    outside
        Nothing is kept here: background in labels and scores, no filament, no particle.
    inside
        Everything is kept.
    unsure
        Segmented and traced as inside, but no particle is picked here: a lamella's damaged skin,
        say, whose membranes one wants to see and whose ribosomes one does not want to average.
    threshold
        Instead: what is above it is inside, the rest outside; for masks with soft edges.
    """

    outside: tuple[Value, ...] = (0,)
    inside: tuple[Value, ...] = (1, 255)
    unsure: tuple[Value, ...] = (2,)
    threshold: float | None = Field(default=None, ge=-1e9, le=1e9)

    @model_validator(mode="after")
    def _one_meaning(self) -> Self:
        known = (*self.outside, *self.inside, *self.unsure)
        if len(set(known)) < len(known):
            raise ValueError(f"a value means two things: {self}")
        return self

    def __str__(self) -> str:
        """Give the values by meaning."""
        meanings = {name: getattr(self, name) for name in ("outside", "inside", "unsure")}
        return ", ".join(
            f"{value} {meaning}" for meaning, values in meanings.items() for value in sorted(values)
        )


class SourceSection(Section):
    """What the files do not say, or say wrongly.

    Parameters
    ----------
    voxel_size_angstrom
        Overrides the files' own voxel size, Å.
    axes
        ``zyx``: as the files have them. ``rotx``: unrotated volumes of IMOD, whose sections run
        along y, are turned as ``trimvol -rx`` does (z' = -y, y' = z), which keeps their hand.
        ``yzx``: y and z are exchanged as ``trimvol -yz`` does, which mirrors it. Points, OME-Zarr
        and copick are those of the upright volume; masks and labels that are read, and masks
        written as MRC and TIFF, lie on the file's own grid.
    contrast
        Whether protein is dark or bright in the tomograms.
    integers
        Whether integers of MRC files are ``signed`` or ``unsigned``; ``auto``: as the header says
        and, for bytes whose header does not, as their values do.
    maximum_not_finite
        Share of voxels that may be NaN or infinite; they are treated as the mean.
    mask
        A volume on the tomogram's grid or one coarser by a whole factor, ``{folder}`` and
        ``{name}`` standing for those of the tomogram; what is outside of it (of the lamella or
        the cell, say) is not segmented, and does not count in the statistics of grey values.
    mask_values
        What the mask's values mean.
    """

    voxel_size_angstrom: VoxelSize | None = None
    axes: Axes = "zyx"
    contrast: Literal["dark", "bright"] = "dark"
    integers: Literal["auto", "signed", "unsigned"] = "auto"
    maximum_not_finite: float = Field(default=0.01, ge=0, le=1)
    mask: str | None = None
    mask_values: MaskValues = MaskValues()

    @model_validator(mode="after")
    def _values_of_a_mask(self) -> Self:
        if self.mask is None and self.mask_values != MaskValues():
            raise ValueError("mask_values are those of a mask: name it in mask, or leave them out")
        return self
