"""Cleaning of one class's mask, a block at a time.

Smoothing looks at a neighbourhood and needs a halo; islands and holes are judged by the tables of
:mod:`tomoseg.analysis.labels`, merged over all blocks, so that both equal the result on a whole
volume.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from tomoseg.core.blocks import Box
from tomoseg.core.bounds import CLOSED, Reach, check_bounds
from tomoseg.core.classes import FEATURES
from tomoseg.core.sampling import Sampling, Shape, as_shape

Mask = NDArray[np.bool_]
Volume = Annotated[float, Field(ge=0, le=1e12)]
"""nm³; 0 is none."""
Radius = Annotated[float, Field(ge=0, le=5000)]
"""Å; 0 is none."""

# Lengths and volumes that differ by less than this share are equal: 13.2 Å holds 3 · 4.4 Å.
TOLERANCE = 1e-9


@dataclass(frozen=True)
class CleaningSettings:
    """What is done to one class; 0 leaves a step out. The steps follow in this order.

    Parameters
    ----------
    opening_angstrom
        Radius of the ball of the opening: what it does not fit into is removed.
    closing_angstrom
        Radius of the ball of the closing: gaps that it does not fit into are filled.
    border_angstrom
        Voxels whose centre is nearer than this to a face of the tomogram are cut away.
    fill_holes_nm3
        Enclosed background of up to this volume is filled.
    minimum_volume_nm3
        Objects of less than this volume are removed.

    Raises
    ------
    SettingError
        If a value is out of its bounds.
    """

    __pydantic_config__: ClassVar[ConfigDict] = CLOSED
    minimum_volume_nm3: Volume = 0.0
    fill_holes_nm3: Volume = 0.0
    opening_angstrom: Radius = 0.0
    closing_angstrom: Radius = 0.0
    border_angstrom: Reach = 0.0

    def __post_init__(self) -> None:
        """Check bounds."""
        check_bounds(self)


def cleaning_defaults(name: str) -> CleaningSettings:
    """Return the settings for a class by its name."""
    if name not in FEATURES:
        return CleaningSettings()
    return CleaningSettings(minimum_volume_nm3=FEATURES[name].minimum_volume_nm3)


class Objects(Protocol):
    """The columns of :class:`tomoseg.analysis.labels.ObjectTable` that decide what is kept."""

    @property
    def voxels(self) -> NDArray[np.int64]:
        """Sizes, int64, shape (n,)."""

    @property
    def begin(self) -> NDArray[np.int64]:
        """Lower corners of the bounding boxes, int64, shape (n, 3), zyx."""

    @property
    def end(self) -> NDArray[np.int64]:
        """Upper corners, exclusive, int64, shape (n, 3), zyx."""


def smooths(settings: CleaningSettings) -> bool:
    """Tell whether :func:`smooth_mask` has anything to do."""
    return settings.opening_angstrom + settings.closing_angstrom + settings.border_angstrom > 0


def cleaning_halo(settings: CleaningSettings, sampling: Sampling) -> Shape:
    """Return how many voxels zyx a block must read beyond its core: twice the radii."""
    opening = _reach(settings.opening_angstrom, sampling)
    closing = _reach(settings.closing_angstrom, sampling)
    return as_shape(2 * (o + c) for o, c in zip(opening, closing, strict=True))


def smooth_mask(
    mask: Mask,
    core: Box,
    *,
    begin: Shape,
    sampling: Sampling,
    settings: CleaningSettings,
    allowed: Mask | None = None,
) -> Mask:
    """Open, close, and cut away the border and what is not allowed.

    Parameters
    ----------
    mask
        bool, shape (z, y, x): the block as read, grown by :func:`cleaning_halo`, clipped at the
        volume.
    core
        Place of the block's own voxels in ``mask``.
    begin
        Place of the mask's first voxel in the volume, zyx.
    sampling
        Grid of the whole volume.
    allowed
        bool, shape of the core: where objects may be; everywhere if None.

    Returns
    -------
    bool, shape of the core. It does not depend on the blocks.

    Notes
    -----
    The ball holds the voxels whose centres are within the radius in Å, so voxels need not be
    cubes. For the opening the volume's outside never erodes, so that an object that the border
    cuts stays; the ball's centre lies in the volume, so that specks at the border go. For the
    closing the outside is background, so that no gap towards the border is filled.
    """
    opened = _opened(mask, settings.opening_angstrom, sampling)
    closed = _closed(opened, settings.closing_angstrom, sampling)
    kept = closed[core.slices] & _inside(core.shift(begin), settings.border_angstrom, sampling)
    return kept if allowed is None else kept & allowed


def kept_objects(table: Objects, settings: CleaningSettings, sampling: Sampling) -> Mask:
    """Tell, bool of shape (n,), which objects are large enough."""
    volumes_nm3 = table.voxels * sampling.voxel_volume_nm3
    return np.asarray(volumes_nm3 >= settings.minimum_volume_nm3 * (1 - TOLERANCE))


def fillable_holes(
    table: Objects, settings: CleaningSettings, sampling: Sampling, volume_shape: Shape
) -> Mask:
    """Tell, bool of shape (n,), which parts of the background are holes to fill.

    Parameters
    ----------
    table
        Parts of the background, 6-connected.
    volume_shape
        Voxels zyx; what touches a face of the volume is no hole, because it may go on beyond.
    """
    volumes_nm3 = table.voxels * sampling.voxel_volume_nm3
    small = volumes_nm3 <= settings.fill_holes_nm3 * (1 + TOLERANCE)
    enclosed = (table.begin > 0).all(axis=1) & (table.end < volume_shape).all(axis=1)
    return np.asarray(small & enclosed)


def _opened(mask: Mask, radius_angstrom: float, sampling: Sampling) -> Mask:
    if not any(_reach(radius_angstrom, sampling)) or not mask.any():
        return mask
    return _grown(~_grown(~mask, radius_angstrom, sampling), radius_angstrom, sampling)


def _closed(mask: Mask, radius_angstrom: float, sampling: Sampling) -> Mask:
    reach = _reach(radius_angstrom, sampling)
    if not any(reach) or not mask.any():
        return mask
    around = np.pad(mask, [(n, n) for n in reach])
    closed = ~_grown(~_grown(around, radius_angstrom, sampling), radius_angstrom, sampling)
    return closed[Box.whole(as_shape(mask.shape)).shift(reach).slices]


def _grown(mask: Mask, radius_angstrom: float, sampling: Sampling) -> Mask:
    """Return the voxels within a radius of the mask; the outside of the array adds none.

    Each plane is widened along x to every width that the ball has; its rows, shifted along y and
    z, are then joined. All that works in the cache and on bytes, about fifty times as fast as a
    distance transform for the radii of a few voxels that occur here.
    """
    ball = _ball(radius_angstrom, sampling)
    grown = np.zeros_like(mask)
    for z in np.flatnonzero(mask.any(axis=(1, 2))):
        lines = _widened(mask[z], ball[0][0])
        for dz, widths in enumerate(ball):
            plane = _joined(lines, widths)
            for target in {z - dz, z + dz}:
                if 0 <= target < len(mask):
                    grown[target] |= plane
    return grown


def _ball(radius_angstrom: float, sampling: Sampling) -> list[list[int]]:
    """Return the ball's half width in voxels along x, for each dz ≥ 0 and dy ≥ 0 that it has."""
    size_z, size_y, size_x = sampling.voxel_size_angstrom
    reach_z, reach_y, _ = _reach(radius_angstrom, sampling)
    limit = (radius_angstrom * (1 + TOLERANCE)) ** 2
    rests = [
        [limit - (dz * size_z) ** 2 - (dy * size_y) ** 2 for dy in range(reach_y + 1)]
        for dz in range(reach_z + 1)
    ]
    return [[int(math.sqrt(rest) / size_x) for rest in row if rest >= 0] for row in rests]


def _widened(plane: Mask, width: int) -> list[Mask]:
    """Return the plane grown along x by 0, 1, …, width voxels on both sides."""
    lines = [plane]
    for shift in range(1, width + 1):
        line = lines[-1].copy()
        line[:, shift:] |= plane[:, :-shift]
        line[:, :-shift] |= plane[:, shift:]
        lines.append(line)
    return lines


def _joined(lines: list[Mask], widths: list[int]) -> Mask:
    """Return the union of the lines of these widths, the i-th shifted along y by ±i."""
    plane = lines[widths[0]].copy()
    for shift, width in enumerate(widths[1:], start=1):
        plane[shift:] |= lines[width][:-shift]
        plane[:-shift] |= lines[width][shift:]
    return plane


def _inside(box: Box, border_angstrom: float, sampling: Sampling) -> Mask:
    """Tell for each voxel of a box in the volume whether it is as far from the faces as asked."""
    cut = as_shape(
        max(0, math.ceil(border_angstrom * (1 - TOLERANCE) / size - 0.5))
        for size in sampling.voxel_size_angstrom
    )
    kept = Box(cut, as_shape(np.subtract(sampling.shape, cut))).intersect(box)
    inside = np.zeros(box.shape, np.bool_)
    inside[kept.within(box).slices] = True
    return inside


def _reach(radius_angstrom: float, sampling: Sampling) -> Shape:
    sizes = sampling.voxel_size_angstrom
    return as_shape(int(radius_angstrom * (1 + TOLERANCE) / size) for size in sizes)
