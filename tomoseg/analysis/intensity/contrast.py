"""Whether protein is dark or bright in a tomogram, measured on a sample of it.

Protein is compact and fills little of a volume, and what surrounds it is even: of details as large
as proteins, the few far ones lie on the side of protein. Their skewness is negative where that is
dark. Beads of gold and carbon are on the same side as protein.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tomoseg.analysis.binning import bin_mean
from tomoseg.analysis.intensity.empty import empty_voxels, with_rim
from tomoseg.core.blocks import Box
from tomoseg.core.sampling import Sampling, Shape, as_shape

Contrast = Literal["dark", "bright"]

DETAIL_ANGSTROM, BACKGROUND_ANGSTROM = 40.0, 160.0
"""Standard deviations of the blurs whose difference shows details."""
SAMPLE: Shape = (24, 192, 192)
BIN_ANGSTROM, LARGEST_BIN = 12.0, 4
CLEAR_SKEWNESS = 0.5
"""Nearer to 0 the measurement says nothing."""


def detail_skewness(read: Callable[[Box], NDArray[Any]], sampling: Sampling) -> float | None:
    """Measure the skewness of details in the middle of a tomogram.

    Parameters
    ----------
    read
        Returns the voxels of a box; it is asked for 40 million at most, a few slices at a time.
    sampling
        Of the tomogram.

    Returns
    -------
    None if voxels are too large to show details, or the sample holds nothing.
    """
    if min(sampling.voxel_size_angstrom[1:]) > DETAIL_ANGSTROM:
        return None
    sample = _sample(read, sampling)
    if sample is None:
        return None
    low, high = np.percentile(sample, [0.01, 99.99])
    np.clip(sample, low, high, out=sample)
    sizes = np.array(sampling.voxel_size_angstrom) * _bins(sampling)
    fine, coarse = (
        ndimage.gaussian_filter(sample, angstrom / sizes, mode="nearest")
        for angstrom in (DETAIL_ANGSTROM, BACKGROUND_ANGSTROM)
    )
    details = (fine - coarse).astype(np.float64)
    details -= details.mean()
    variance = float(np.mean(details**2))
    # What a blur leaves of one value is rounding.
    if not variance > (1e-6 * (high - low)) ** 2:
        return None
    return float(np.mean(details**3) / variance**1.5)


def measured_contrast(skewness: float | None) -> Contrast | None:
    """Return what a skewness says of protein; None where it says nothing clear.

    >>> measured_contrast(-1.4), measured_contrast(0.2)
    ('dark', None)
    """
    if skewness is None or abs(skewness) < CLEAR_SKEWNESS:
        return None
    return "dark" if skewness < 0 else "bright"


def contrast_notes(skewness: float | None, declared: Contrast) -> list[str]:
    """Return a note if protein is measured to be what it is not declared to be.

    >>> contrast_notes(-1.4, "dark")
    []
    """
    found = measured_contrast(skewness)
    if found in (None, declared):
        return []
    return [
        f"protein looks {found} (skewness of details {skewness:+.1f}), but source.contrast is "
        f"{declared}: results may be empty or wrong. If it is, set source.contrast: {found}"
    ]


def _sample(read: Callable[[Box], NDArray[Any]], sampling: Sampling) -> NDArray[np.float32] | None:
    """Return the middle of a tomogram, binned, its mean where it is empty or no number."""
    bins = _bins(sampling)
    size = np.minimum(np.multiply(SAMPLE, bins), np.array(sampling.shape) // bins * bins)
    if not size.all():
        return None
    first = (np.array(sampling.shape) - size) // 2
    slabs = []
    for z in range(0, int(size[0]), bins[0]):
        begin = np.add(first, (z, 0, 0))
        end = np.add(begin, (bins[0], size[1], size[2]))
        slab = read(Box(as_shape(begin), as_shape(end))).astype(np.float32)
        slab[with_rim(empty_voxels(slab)) | ~np.isfinite(slab)] = np.nan
        slabs.append(bin_mean(slab, bins))
    sample = np.concatenate(slabs)
    is_number = np.isfinite(sample)
    if not is_number.any():
        return None
    sample[~is_number] = sample[is_number].mean(dtype=np.float64)
    return sample


def _bins(sampling: Sampling) -> Shape:
    return as_shape(
        1 if length == 1 else np.clip(round(BIN_ANGSTROM / size), 1, LARGEST_BIN)
        for length, size in zip(sampling.shape, sampling.voxel_size_angstrom, strict=True)
    )
