"""Changes of a patch that leave its meaning: orientation in numpy, intensity on the device."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tomoseg.nets.augmentation import AugmentationSettings

Image = NDArray[np.float32]
Labels = NDArray[np.uint8]


def turned(image: Image, labels: Labels, rng: np.random.Generator) -> tuple[Image, Labels]:
    """Flip both along random axes and turn them by quarters in the plane, as views.

    Patches zyx that are not square in the plane are turned by halves alone. The missing wedge
    turns with the image: tilt axes of either direction occur in the wild.
    """
    turns = int(rng.integers(4))
    if image.shape[1] != image.shape[2]:
        turns -= turns % 2
    steps = tuple(int(step) for step in rng.choice((-1, 1), size=3))
    flips = tuple(slice(None, None, step) for step in steps)
    return (
        np.rot90(image, turns, axes=(1, 2))[flips],
        np.rot90(labels, turns, axes=(1, 2))[flips],
    )


def rescaled(image: Image, labels: Labels, shape: tuple[int, int, int]) -> tuple[Image, Labels]:
    """Resample both, zyx, to a shape: the image linearly, labels by the nearest voxel."""
    if image.shape == shape:
        return image, labels
    dense = torch.from_numpy(image)[None, None]
    classes = torch.from_numpy(labels)[None, None]
    return (
        functional.interpolate(dense, shape, mode="trilinear")[0, 0].numpy(),
        functional.interpolate(classes, shape, mode="nearest-exact")[0, 0].numpy(),
    )


def vary_intensity(
    images: Tensor, settings: AugmentationSettings, generator: torch.Generator
) -> Tensor:
    """Change sharpness, gamma, contrast, brightness and noise of each image by chance.

    Parameters
    ----------
    images
        float32 (b, z, y, x), on any device; not changed.
    settings
        Bounds of each change.
    generator
        Source of chance, on the device of the images.
    """

    def uniform(low: float, high: float) -> Tensor:
        shape = (len(images), 1, 1, 1)
        chance = torch.rand(shape, generator=generator, device=images.device)
        return low + (high - low) * chance

    s = settings
    share = uniform(-s.blur / 2, s.blur)
    images = torch.lerp(images, smoothed(images), share)
    images = images.sign() * images.abs() ** uniform(1 - s.gamma, 1 + s.gamma)
    images = images * uniform(1 - s.gain, 1 + s.gain) + uniform(-s.offset, s.offset)
    noise = torch.randn(images.shape, generator=generator, device=images.device)
    # Squared, so that most patches stay near the noise that they came with.
    return images + noise * (uniform(0, 1) ** 2 * s.noise)


def smoothed(images: Tensor) -> Tensor:
    """Smooth (b, z, y, x) with 1-2-1 along z, y and x; the border is repeated."""
    for axis in (1, 2, 3):
        size = images.shape[axis]
        before = images.narrow(axis, 0, 1), images.narrow(axis, 0, size - 1)
        after = images.narrow(axis, 1, size - 1), images.narrow(axis, size - 1, 1)
        images = images / 2 + torch.cat(before, axis) / 4 + torch.cat(after, axis) / 4
    return images
