"""Changes of a patch that leave its meaning, made on the device where the network is.

What is read for a patch is larger than the patch, so that a turned or shrunken one finds voxels
at its corners:

    . . . . . . .
    .  reading  .      the patch lies in the middle and is cut out or resampled once;
    . . +---+ . .      flips and turns by quarters follow at the very end
    . . |pat| . .
    . . +---+ . .
    . . . . . . .
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.nn import functional

from tomoseg.core.classes import NOT_ANNOTATED
from tomoseg.core.sampling import Shape, as_shape
from tomoseg.nets.augmentation import AugmentationSettings
from tomoseg.nets.fourier import with_radial_gain, without_wedge

# Below this a wedge has too few frequencies along z to be told from none.
_WEDGE_SLICES = 16
_CHANCES = 13
_WAVES = 3


def reading_shape(patch: Shape, margin: int, settings: AugmentationSettings) -> Shape:
    """Return how many voxels zyx are read for one patch, so that every change finds them.

    Of a patch that may be turned in space a cube is read: its outermost corners may miss it.

    Parameters
    ----------
    patch
        Voxels zyx that are predicted.
    margin
        Slices that the network sees beyond them on both sides.
    settings
        Bounds of the changes.

    Examples
    --------
    >>> reading_shape((8, 128, 128), 4, AugmentationSettings())
    (18, 200, 200)
    >>> reading_shape((8, 128, 128), 4, AugmentationSettings.none())
    (16, 128, 128)
    """
    seen = _seen(patch, margin)
    half = (np.array(seen) - 1) / 2
    reach = half.copy()
    if settings.rotation_probability or _is_turned_in_space(patch, margin, settings):
        reach[1:] = math.hypot(*half[1:])
    if _is_turned_in_space(patch, margin, settings):
        reach[:] = reach.max()
    if settings.scale_probability:
        reach *= 1 + settings.scale
    # As many on both sides, so that the centres of the patch and of the reading coincide.
    return as_shape(seen + 2 * np.ceil(reach - half).astype(int))


def augment_patches(
    images: Tensor,
    labels: Tensor,
    *,
    patch: Shape,
    margin: int,
    settings: AugmentationSettings,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Return patches with each its own random orientation, size and intensity.

    Parameters
    ----------
    images
        float32 (b, *reading_shape(patch, margin, settings)); not changed.
    labels
        uint8, the same shape; not changed. 255 where the reading has no annotation.
    patch, margin, settings
        As in :func:`reading_shape`.
    generator
        Source of chance, on the device of the images: the same state gives the same result.

    Returns
    -------
    images
        float32 (b, z + 2 margin, y, x) of the patch; 0 where the reading has no voxel.
    labels
        uint8 (b, z, y, x) of the patch; 255 where the reading has no voxel.
    """
    changes = _draw(len(images), patch, margin, settings, generator=generator)
    images, labels = _cut_out(images, labels, changes, patch=patch, margin=margin)
    filtered = [number for number, change in enumerate(changes) if change.is_filtered]
    if filtered:
        waves = (
            2 * torch.rand((len(filtered), _WAVES), generator=generator, device=images.device) - 1
        )
        images[filtered] = with_radial_gain(images[filtered], waves * settings.fourier / _WAVES)
    wedged = [number for number, change in enumerate(changes) if change.has_wedge]
    if wedged:
        images[wedged] = without_wedge(images[wedged], settings.missing_wedge_degrees)
    images = vary_intensity(images, settings, generator)
    return _oriented(images, changes), _oriented(labels, changes)


@dataclass(frozen=True)
class _Change:
    """What is done to one patch, besides its intensity.

    Parameters
    ----------
    resampling
        float64 (3, 3), zyx: from a voxel's place in the patch to its place in the reading, both
        from the centre; None cuts it out as it is.
    is_filtered, has_wedge
        Whether its amplitudes are varied, and whether a missing wedge is taken out.
    is_transposed, flips
        The orientation at last: y and x swapped, then axes (0, 1, 2) reversed.
    """

    resampling: NDArray[np.float64] | None
    is_filtered: bool
    has_wedge: bool
    is_transposed: bool
    flips: tuple[int, ...]


def _draw(
    count: int,
    patch: Shape,
    margin: int,
    settings: AugmentationSettings,
    *,
    generator: torch.Generator,
) -> list[_Change]:
    """Draw all that decides what is computed at once: one wait for the device."""
    chances = torch.rand((count, _CHANCES), generator=generator, device=generator.device)
    can_turn = _is_turned_in_space(patch, margin, settings)
    return [
        _change(row, settings, is_square=patch[1] == patch[2], can_turn=can_turn)
        for row in chances.cpu().numpy().astype(np.float64)
    ]


def _change(
    chances: NDArray[np.float64], s: AugmentationSettings, *, is_square: bool, can_turn: bool
) -> _Change:
    """Make a change of numbers in 0..1; each has its own place, whatever the others decide."""
    rotates, scales, filters, wedges, transposes = chances[:5] < (
        s.rotation_probability,
        s.scale_probability,
        s.fourier_probability,
        s.missing_wedge_probability * can_turn,
        0.5 * is_square,
    )
    resampling = np.eye(3)
    if wedges:
        resampling = _any_turn(chances[5:8])
    elif rotates:
        resampling = _turn_in_plane(math.radians(s.rotation_degrees) * (2 * chances[8] - 1))
    if scales:
        resampling = resampling * (1 + s.scale * (2 * chances[9] - 1))
    return _Change(
        resampling=resampling if rotates or scales or wedges else None,
        is_filtered=bool(filters),
        has_wedge=bool(wedges),
        is_transposed=bool(transposes),
        flips=tuple(int(axis) for axis in np.flatnonzero(chances[10:13] < 0.5)),
    )


def _turn_in_plane(radians: float) -> NDArray[np.float64]:
    sine, cosine = math.sin(radians), math.cos(radians)
    return np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])


def _any_turn(chances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Make a turn in space, all alike likely, of three numbers (Shoemake, Graphics Gems III)."""
    share, first, second = chances * (1, math.tau, math.tau)
    low, high = math.sqrt(1 - share), math.sqrt(share)
    quaternion = [
        *(low * part(first) for part in (math.sin, math.cos)),
        *(high * part(second) for part in (math.sin, math.cos)),
    ]
    turn: NDArray[np.float64] = Rotation.from_quat(quaternion).as_matrix()
    return turn


def _seen(patch: Shape, margin: int) -> Shape:
    return as_shape(np.add(patch, (2 * margin, 0, 0)))


def _is_turned_in_space(patch: Shape, margin: int, settings: AugmentationSettings) -> bool:
    """Say whether patches may be: those of a slab, and flat ones, would need too large a cube."""
    is_deep = patch[0] >= _WEDGE_SLICES and 2 * patch[0] >= max(patch)
    return margin == 0 and is_deep and settings.missing_wedge_probability > 0


def _cut_out(
    images: Tensor, labels: Tensor, changes: Sequence[_Change], *, patch: Shape, margin: int
) -> tuple[Tensor, Tensor]:
    """Cut the patches out of the middle of what was read, resampled where a change says so."""
    inner = slice(margin, margin + patch[0])
    seen = _seen(patch, margin)
    middle = (
        slice((n - size) // 2, (n + size) // 2)
        for n, size in zip(images.shape[1:], seen, strict=True)
    )
    window = (slice(None), *middle)
    cut, cut_labels = images[window].clone(), labels[window][:, inner].clone()
    matrices = {n: c.resampling for n, c in enumerate(changes) if c.resampling is not None}
    if matrices:
        moved = list(matrices)
        grid = _grid(
            np.stack(list(matrices.values())), seen, as_shape(images.shape[1:]), images.device
        )
        cut[moved] = _sampled(images[moved], grid, "bilinear")
        # Counted down from 255, so that the 0 outside means "not annotated".
        classes = (NOT_ANNOTATED - labels[moved]).float()
        found = _sampled(classes, grid[:, inner], "nearest").to(torch.uint8)
        cut_labels[moved] = NOT_ANNOTATED - found
    return cut, cut_labels


def _grid(
    matrices: NDArray[np.float64], shape: Shape, reading: Shape, device: torch.device
) -> Tensor:
    """Return (n, z, y, x, 3), xyz: where each voxel lies in the reading, whose ends are ±1."""
    half = np.maximum((np.array(reading) - 1) / 2, 1)
    columns = (matrices / half[:, None])[:, ::-1].copy()
    steps = torch.from_numpy(columns).to(device, torch.float32)[:, None, None, None]
    z, y, x = (torch.arange(n, device=device) - (n - 1) / 2 for n in shape)
    return (
        z[:, None, None, None] * steps[..., 0]
        + y[:, None, None] * steps[..., 1]
        + x[:, None] * steps[..., 2]
    )


def _sampled(images: Tensor, grid: Tensor, mode: Literal["bilinear", "nearest"]) -> Tensor:
    return functional.grid_sample(images[:, None], grid, mode=mode, align_corners=True)[:, 0]


def _oriented(patches: Tensor, changes: Sequence[_Change]) -> Tensor:
    """Flip and transpose each of (b, z, y, x).

    The missing wedge turns with the image: tilt axes of either direction occur in the wild.
    """
    turned = (
        patch.transpose(1, 2) if change.is_transposed else patch
        for patch, change in zip(patches, changes, strict=True)
    )
    return torch.stack(
        [patch.flip(change.flips) for patch, change in zip(turned, changes, strict=True)]
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
