"""Convolutions of large kernels, which learn by Fourier transforms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from scipy.fft import next_fast_len
from torch import Tensor, nn
from torch.nn import functional


class LargeConvolution(nn.Conv2d):
    """A convolution that keeps the size and sees its border repeated.

    Notes
    -----
    Training on a CPU multiplies spectra: a step of batch 10 with kernels of 15 takes 0.2 s of a
    core. The direct way takes 0.45 s, three quarters of it for the gradients of the kernels, and
    is taken everywhere else. Zeros around a tile would be half of what a large kernel sees of it:
    trained on that, a network answers twice as much where it sees the neighbourhood.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, *, bias: bool = True) -> None:
        super().__init__(
            inputs, outputs, kernel, padding=kernel // 2, padding_mode="replicate", bias=bias
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map (b, inputs, y, x) to (b, outputs, y, x)."""
        if not self.training or features.device.type != "cpu":
            return super().forward(features)
        around = functional.pad(features, 4 * (self.kernel_size[0] // 2,), mode="replicate")
        moved = cast(Tensor, _Correlation.apply(around, self.weight))  # type: ignore[no-untyped-call]
        return moved if self.bias is None else moved + self.bias[:, None, None]


class _Correlation(torch.autograd.Function):
    """Σ image(u + k) kernel(k) where the kernel lies inside; each spectrum is made once."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, kernel: Tensor) -> Tensor:
        ctx.image, ctx.kernel = image.shape[2:], kernel.shape[2:]
        ctx.period = tuple(next_fast_len(size, real=True) for size in ctx.image)
        spectra = _spectrum(image, ctx.period), _spectrum(kernel, ctx.period)
        ctx.save_for_backward(*spectra)
        inside = [size - edge + 1 for size, edge in zip(ctx.image, ctx.kernel, strict=True)]
        return _cut(spectra[0] @ spectra[1].mH, ctx.period, inside)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor]:
        image, kernel = ctx.saved_tensors
        slope = _spectrum(gradient, ctx.period)
        of_image = _cut(slope @ kernel, ctx.period, ctx.image) if ctx.needs_input_grad[0] else None
        return of_image, _cut(slope.mH @ image, ctx.period, ctx.kernel)


def _spectrum(maps: Tensor, period: Sequence[int]) -> Tensor:
    """Return (frequencies, m, n) of (m, n, y, x) that is 0 up to its period."""
    spectrum: Tensor = torch.fft.rfft2(maps, period).flatten(2).permute(2, 0, 1)
    return spectrum


def _cut(spectrum: Tensor, period: Sequence[int], size: Sequence[int]) -> Tensor:
    """Return the beginning of (m, n, y, x) whose spectrum is (frequencies, m, n)."""
    rows, columns = period
    planes = spectrum.permute(1, 2, 0).reshape(*spectrum.shape[1:], rows, columns // 2 + 1)
    maps: Tensor = torch.fft.irfft2(planes, period)[..., : size[0], : size[1]]
    return maps
