"""Pixel and size of an unbinned tilt series, as RELION wants them: whether a tomogram fits them.

tomogram       |   0   |   1   |   2   |      3 voxels of 12 Å: 36 Å
tilt series    | | | | | | | | | | | | | |    14 pixels of 3 Å: 42 Å, of which binning by 4
dropped two: they agree
"""

from __future__ import annotations

from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from tomoseg.core.errors import RequestError
from tomoseg.core.sampling import Sampling, xyz

# Binned sizes are rounded, by some programs to even numbers.
ROUNDED_VOXELS = 2.0
# Pixel sizes are calibrated anew now and then, and rounded.
SAME_WITHIN = 0.005
SIZE, PIXEL = "export.tilt_series_size_xyz", "export.tilt_series_pixel_size_angstrom"

Lengths = NDArray[np.float64]


def completed_size(
    size_xyz: tuple[int, ...], pixel_angstrom: float, sampling: Sampling
) -> tuple[int, int, int]:
    """Return a size in pixels, xyz, its z taken from the tomogram where there are only x and y."""
    if len(size_xyz) == 2:
        size_xyz = (*size_xyz, _fitting(sampling, pixel_angstrom)[2])
    x, y, z = size_xyz
    return x, y, z


def check_size(size_xyz: tuple[int, ...], pixel_angstrom: float, sampling: Sampling) -> None:
    """Refuse a tilt series that is not of this tomogram.

    Raises
    ------
    RequestError
        If a size, three pixels xyz, differs from the tomogram's by more than binning and rounding
        explain, or pixels are larger than the tomogram's voxels; it says what would fit.
    """
    size, voxel = np.array(size_xyz), xyz(sampling.voxel_size_angstrom)
    is_odd = ~_agrees(size, pixel_angstrom, sampling)
    if is_odd.any():
        axes = "".join(axis for axis, odd in zip("xyz", is_odd, strict=True) if odd)
        raise RequestError(
            f"{_named(size)} pixels (xyz) of {pixel_angstrom:g} Å for the tilt series are "
            f"{_named(size * pixel_angstrom)} Å, but the tomogram's "
            f"{_named(xyz(sampling.shape))} voxels of {_named(voxel)} Å are "
            f"{_named(_extents(sampling))} Å: they disagree in {', '.join(axes)}",
            remedy=_remedy(size, pixel_angstrom, sampling),
        )
    if pixel_angstrom > (1 + SAME_WITHIN) * voxel.min():
        raise RequestError(
            f"a pixel of {pixel_angstrom:g} Å for the unbinned tilt series is larger than the "
            f"tomogram's voxel of {voxel.min():g} Å",
            remedy=f"Set {PIXEL} to that of the tilt series before binning.",
        )


def size_note(size_xyz: tuple[int, ...], pixel_angstrom: float, sampling: Sampling) -> str:
    """Say by how much a size differs from the tomogram's; nothing where it is under a voxel."""
    more = np.array(size_xyz) * pixel_angstrom - _extents(sampling)
    if (np.abs(more) < xyz(sampling.voxel_size_angstrom)).all():
        return ""
    return (
        f"the tilt series is {_named(more, ', ')} Å (xyz) larger than the tomogram; the centre "
        f"from which RELION 5 counts is taken from {SIZE}"
    )


def _remedy(size: Lengths, pixel_angstrom: float, sampling: Sampling) -> str:
    fits = list(_fitting(sampling, pixel_angstrom))
    for order in permutations(size):
        if _agrees(np.array(order), pixel_angstrom, sampling).all():
            return f"The axes stand in another order than x, y, z: set {SIZE}: {_listed(order)}."
    pixels = _extents(sampling) / size
    if np.ptp(pixels) <= 2 * SAME_WITHIN * pixels.min() and pixels.min() <= 1000:
        return (
            f"Set {PIXEL}: {pixels.mean():.4g}, which fits this size, or "
            f"{SIZE}: {fits}, which fits this pixel."
        )
    return (
        f"Set {SIZE}: {fits}, which fits this pixel, or [x, y] alone where the tomograms differ "
        "in z."
    )


def _agrees(size: Lengths, pixel_angstrom: float, sampling: Sampling) -> NDArray[np.bool_]:
    """Tell, bool of shape (3,), xyz, along which axes a size is that of the tomogram."""
    extents = _extents(sampling)
    rounding = ROUNDED_VOXELS * xyz(sampling.voxel_size_angstrom) + SAME_WITHIN * extents
    return np.asarray(np.abs(size * pixel_angstrom - extents) <= rounding)


def _fitting(sampling: Sampling, pixel_angstrom: float) -> tuple[int, int, int]:
    x, y, z = np.rint(_extents(sampling) / pixel_angstrom).astype(int).clip(1).tolist()
    return x, y, z


def _extents(sampling: Sampling) -> Lengths:
    return xyz(np.multiply(sampling.shape, sampling.voxel_size_angstrom))


def _listed(size: tuple[float, ...]) -> list[int]:
    return [int(edge) for edge in size]


def _named(lengths: Lengths, between: str = " × ") -> str:
    return between.join(f"{length:.5g}" for length in lengths)
