"""Changes of a patch in Fourier space: its amplitudes by frequency, and a missing wedge."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_AXES = (1, 2, 3)


def with_radial_gain(images: Tensor, waves: Tensor) -> Tensor:
    """Multiply the amplitudes of each image by a smooth curve of the frequency; phases stay.

    Parameters
    ----------
    images
        float32 (b, z, y, x).
    waves
        (b, n), the amplitudes of the waves of which the logarithm of the curve is made.

    Notes
    -----
    The gain at f cycles per voxel is exp(Σ waves[k] cos(2 π (k + 1) f)). MemBrain-seg matches
    the amplitudes of one tomogram to those of another for the same end (Lamm et al., MemBrain
    v2, 2024); random curves need no other tomogram.
    """
    z, y, x = _frequencies(images)
    radius = (z**2 + y**2 + x**2).sqrt()
    logarithm = torch.zeros((), device=images.device)
    for number, amplitude in enumerate(waves.T, start=1):
        logarithm = logarithm + amplitude[:, None, None, None] * (math.tau * number * radius).cos()
    return _filtered(images, logarithm.exp())


def without_wedge(images: Tensor, tilt_degrees: float) -> Tensor:
    """Take away what a tilt series about y up to ± so many degrees would not have seen.

    The mean and the deviation of each image stay. As in every discrete transform, opposite
    borders touch.

    Parameters
    ----------
    images
        float32 (b, z, y, x).
    tilt_degrees
        Largest tilt: what remains is abs(f_z) ≤ tan(tilt) abs(f_x).

    Notes
    -----
    MemBrain-seg (Lamm et al., 2024) and IsoNet (Liu et al., Nature Communications 2022) turn
    patches and take a new wedge out of them likewise.
    """
    z, _, x = _frequencies(images)
    seen = z.abs() <= math.tan(math.radians(tilt_degrees)) * x.abs()
    kept = _filtered(images, seen)
    mean = kept.mean(dim=_AXES, keepdim=True)
    lost = images.std(dim=_AXES, keepdim=True) / kept.std(dim=_AXES, keepdim=True).clamp(min=1e-6)
    return mean + (kept - mean) * lost


def _filtered(images: Tensor, factors: Tensor) -> Tensor:
    spectrum = torch.fft.rfftn(images, dim=_AXES) * factors
    filtered: Tensor = torch.fft.irfftn(spectrum, s=images.shape[1:], dim=_AXES)
    return filtered


def _frequencies(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the frequencies z, y, x of a real transform, cycles per voxel, to be broadcast."""
    _, depth, height, width = images.shape
    return (
        torch.fft.fftfreq(depth, device=images.device)[:, None, None],
        torch.fft.fftfreq(height, device=images.device)[None, :, None],
        torch.fft.rfftfreq(width, device=images.device)[None, None, :],
    )
