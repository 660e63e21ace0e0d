"""What is written for other programs, as a recipe says: the section ``export``."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from tomoseg.core.bounds import Pixels, Section, VoxelSize

Degrees = Annotated[float, Field(ge=-90, le=90)]
Spacing = Annotated[float, Field(ge=1, le=100_000)]
SizeXyz = Annotated[tuple[Pixels, ...], Field(min_length=2, max_length=3)]
MaskFormat = Literal["mrc", "tiff", "ome_zarr", "copick"]
MeshFormat = Literal["obj", "stl"]


class ExportSection(Section):
    """Files for other programs.

    Parameters
    ----------
    masks
        Formats of a mask a class: ``mrc``, ``tiff``, ``ome_zarr``, ``copick`` (segmentations of an
        overlay); true is ``mrc``, false none.
    meshes
        Formats of a surface a class, for figures: ``obj``, ``stl``.
    dialects
        Programs that filaments and particles are written for (``tomoseg export --to list`` says
        what each gets); those but ``relion5`` and ``csv`` have a folder of their own.
    spacing_angstrom
        Distance of segments along the filaments of a class, Å; others take the format's default.
    tilt_series_pixel_size_angstrom, tilt_series_size_xyz
        Bin-1 pixel size and size of the tomogram in bin-1 pixels, for RELION; without them the
        tomogram itself counts as bin 1. Of ``[x, y]`` z is each tomogram's own.
    centre_shift_pixels
        Added to size / 2, RELION's centre of a tomogram; -1 for programs with size / 2 - 1.
    flip_z
        Whether other programs have the slices in the opposite order; ``csv`` and masks stay as
        the tomogram is.
    dynamo_origin
        From where Dynamo's tables count: the ``corner`` of the first voxel or its ``centre``.
    tilt_range_degrees
        First and last angle of the tilt series: the missing wedge in Dynamo's tables.
    """

    masks: tuple[MaskFormat, ...] = ("mrc",)
    meshes: tuple[MeshFormat, ...] = ()
    dialects: tuple[str, ...] = ("relion5", "csv")
    spacing_angstrom: dict[str, Spacing] = Field(default_factory=dict)
    tilt_series_pixel_size_angstrom: VoxelSize | None = None
    tilt_series_size_xyz: SizeXyz | None = None
    centre_shift_pixels: float = Field(default=0.0, ge=-10, le=10)
    flip_z: bool = False
    dynamo_origin: Literal["corner", "centre"] = "corner"
    tilt_range_degrees: tuple[Degrees, Degrees] = (-60.0, 60.0)

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        pixel, size = self.tilt_series_pixel_size_angstrom, self.tilt_series_size_xyz
        if (pixel is None) != (size is None):
            missing = "size_xyz" if size is None else "pixel_size_angstrom"
            raise ValueError(
                f"tilt_series_{missing} is missing: pixel and size of the tilt series go together; "
                "where only x and y are known, tilt_series_size_xyz: [x, y] takes z from the "
                "tomogram"
            )
        first, last = self.tilt_range_degrees
        if first >= last:
            raise ValueError(f"tilt_range_degrees {first:g} to {last:g} must rise")
        return self

    @field_validator("masks", "meshes", mode="before")
    @classmethod
    def _one_none_or_many(cls, value: Any) -> Any:
        if isinstance(value, bool):
            return ("mrc",) if value else ()
        return _one_or_many(value)

    @field_validator("dialects", mode="before")
    @classmethod
    def _one_or_many_dialects(cls, value: Any) -> Any:
        return () if value is False else _one_or_many(value)

    @field_validator("dialects")
    @classmethod
    def _known_dialects(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        from tomoseg.io.points.registry import DIALECTS

        if unknown := [name for name in names if name not in DIALECTS]:
            raise ValueError(f"{unknown[0]!r} is none of {', '.join(DIALECTS)}")
        return names


def _one_or_many(value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        return (value,)
    # What is no word cannot be hashed; that it is none is said later.
    return tuple(one for i, one in enumerate(value) if one not in value[:i])
