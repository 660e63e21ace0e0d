"""Engine ``int8``: convolutions of bytes, whose products a processor sums four at a time.

    image ─ bytes ─ stem ─ bytes ─ block ─ bytes ──────────────── + ─ bytes ─ block ─ … ─ logits
                                      └ down ─ … ─ up ─ numbers ─┘

What bytes stand for is in :mod:`tomoseg.nets.byte_lines`. Their products are summed as whole
numbers, exactly: no order of summation changes a bit.

The operations are oneDNN's as torch's own compiler uses them (``torch.ops.onednn``): nothing has to
be installed. On one core with AVX-512 VNNI a pass of 512×512 took 0.64 to 0.70 of the time of
bfloat16, with OpenVINO 2026.4 and the same lines 0.64. Beside float32, 0.20% of the labels of
``shipped`` and 0.15% of ``shipped-accurate`` differ on a crowded simulation that nothing was
measured on (bfloat16: 0.05 and 0.02%).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tomoseg.core.errors import ResourceError
from tomoseg.nets.architecture import SegmentationNetwork, UNet, channels_last, fold_voxels
from tomoseg.nets.byte_lines import ByteLine

# A processor without one of these multiplies bytes no faster, and sums products of bytes in 16
# bits, where they overflow.
_INSTRUCTIONS = ("avx512_vnni", "avx_vnni", "amx_int8")
_NO_ACTIVATION: tuple[str, list[float], str] = ("none", [], "")


def check_int8(remedy: str) -> None:
    """Raise ResourceError if this processor or this torch does not multiply bytes."""
    able = torch.cpu.get_capabilities()
    if not any(able.get(name) for name in _INSTRUCTIONS):
        raise ResourceError(
            f"engine int8 needs a processor with one of {', '.join(_INSTRUCTIONS)}", remedy=remedy
        )
    if not hasattr(torch.ops.onednn, "qconv_pointwise"):
        raise ResourceError(
            f"engine int8 needs oneDNN's convolutions, which torch {torch.__version__} lacks here",
            remedy=remedy,
        )


def int8_network(
    network: SegmentationNetwork, lines: Mapping[str, ByteLine], dtype: torch.dtype
) -> SegmentationNetwork:
    """Return a network whose convolutions are of bytes.

    Parameters
    ----------
    network
        In float32, in evaluation mode, its norms folded.
    lines
        Of the input of each convolution, by its name in the network.
    dtype
        Of logits, and of what bytes become where they are added.
    """
    if isinstance(network, UNet):
        return _int8_unet(network, lines, dtype)
    network = copy.deepcopy(network)
    for name, line in lines.items():
        convolution = ByteConvolution(_convolution(network, name), line, dtype)
        network.set_submodule(name, convolution)
    return network


def _int8_unet(network: UNet, lines: Mapping[str, ByteLine], dtype: torch.dtype) -> ByteUNet:
    """Return a U-Net in which each convolution gives the bytes that the next one takes."""
    last = len(network.encoders) - 1

    def convolution(name: str, out: str) -> ByteConvolution:
        assert lines[out].zero == 0, f"{name} ends in a ReLU"
        return ByteConvolution(_convolution(network, name), lines[name], lines[out])

    def numbers(name: str) -> ByteConvolution:
        return ByteConvolution(_convolution(network, name), lines[name], dtype)

    def blocks(name: str, out: str) -> nn.Sequential:
        names = [f"{name}.{n}" for n in range(network.architecture.blocks_per_level)]
        after = [*(f"{one}.first.conv" for one in names[1:]), out]
        return nn.Sequential(
            *(
                ByteBlock(
                    convolution(f"{one}.first.conv", f"{one}.second.conv"),
                    convolution(f"{one}.second.conv", then),
                )
                for one, then in zip(names, after, strict=True)
            )
        )

    def upwards(level: int) -> str:
        return f"ups.{level - 1}.conv" if level else "head"

    return ByteUNet(
        architecture=network.architecture,
        stem=convolution("stem.conv", "encoders.0.0.first.conv"),
        encoders=nn.ModuleList(
            blocks(f"encoders.{level}", f"downs.{level}.conv" if level < last else upwards(level))
            for level in range(last + 1)
        ),
        downs=nn.ModuleList(
            convolution(f"downs.{level}.conv", f"encoders.{level + 1}.0.first.conv")
            for level in range(last)
        ),
        ups=nn.ModuleList(numbers(f"ups.{level}.conv") for level in range(last)),
        decoders=nn.ModuleList(
            blocks(f"decoders.{level}", upwards(level)) for level in range(last)
        ),
        head=numbers("head"),
    )


def _convolution(network: nn.Module, name: str) -> nn.Conv2d | nn.Conv3d:
    return cast("nn.Conv2d | nn.Conv3d", network.get_submodule(name))


class ByteConvolution(nn.Module):
    """A convolution of bytes with kernels of whole numbers −127..127, a step for each output.

    Parameters
    ----------
    convolution
        With weights and bias in float32.
    line
        Of its input.
    out
        Of its output, or the type in which it gives numbers. A line that begins at 0 is a ReLU:
        what lies below becomes 0.
    """

    def __init__(
        self, convolution: nn.Conv2d | nn.Conv3d, line: ByteLine, out: ByteLine | torch.dtype
    ) -> None:
        super().__init__()
        self.line = line
        self.out = out
        kernels, steps = whole_numbers(convolution.weight.detach())
        padding = cast("tuple[int, ...]", convolution.padding)
        # oneDNN knows zeros beyond the border alone.
        self._around: tuple[int, ...] = ()
        if convolution.padding_mode != "zeros":
            self._around = tuple(size for size in reversed(padding) for _ in range(2))
            padding = (0,) * len(padding)
        self._mode = convolution.padding_mode
        geometry = (convolution.stride, padding, convolution.dilation, convolution.groups)
        packed = torch.ops.onednn.qconv_prepack(
            kernels, steps, line.step, line.zero, *geometry, None
        )
        zeros = torch.zeros(len(kernels), dtype=torch.int64)
        self._kernels = (packed, steps, zeros)
        self._rest = (convolution.bias, *geometry, *_output(out))

    def forward(self, cells: Tensor) -> Tensor:
        """Map bytes, or numbers that become bytes first, (b, inputs, [z,] y, x) to the output."""
        if cells.is_floating_point():
            if self._around:
                cells = functional.pad(cells, self._around, mode=self._mode)
            cells = channels_last(self.line.bytes(cells))
        return self._convolved(cells, *self._rest)

    def beside(self, cells: Tensor, other: Tensor, line: ByteLine) -> Tensor:
        """Return the bytes of the convolution plus other bytes of its output's shape.

        ``line`` is that of ``other``, which is overwritten.
        """
        assert isinstance(self.out, ByteLine)
        if cells.ndim == 4:
            given = (cells, self.line.step, self.line.zero, *self._kernels, other, *self._rest)
            addition = (line.step, line.zero, "sum", 1.0)
            operation = torch.ops.onednn.qconv2d_pointwise.binary
            return cast(Tensor, operation(*given, *addition, *_NO_ACTIVATION))
        rest = (*self._rest[:-3], *_output(torch.float32))
        return self.out.bytes(self._convolved(cells, *rest).add_(line.numbers(other)))

    def _convolved(self, cells: Tensor, *rest: Any) -> Tensor:
        operation = torch.ops.onednn.qconv_pointwise
        given = (cells, self.line.step, self.line.zero, *self._kernels)
        return cast(Tensor, operation(*given, *rest, *_NO_ACTIVATION))


def _output(out: ByteLine | torch.dtype) -> tuple[float, int, torch.dtype]:
    return (out.step, out.zero, torch.uint8) if isinstance(out, ByteLine) else (1.0, 0, out)


def whole_numbers(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return kernels (outputs, inputs, ...) as int8, −127..127, and the step of each output."""
    largest = weight.flatten(1).abs().amax(1).clamp_min(1e-12)
    steps = largest / 127
    return (weight / steps.view(-1, *[1] * (weight.ndim - 1))).round().to(torch.int8), steps


class ByteBlock(nn.Module):
    """Two convolutions beside an identity, from bytes to bytes."""

    def __init__(self, first: ByteConvolution, second: ByteConvolution) -> None:
        super().__init__()
        self.first = first
        self.second = second

    def forward(self, cells: Tensor) -> Tensor:
        """Map (b, width, [z,] y, x) on the line of the first convolution to that of the next."""
        return self.second.beside(self.first(cells), cells, self.first.line)


class ByteUNet(UNet):
    """A U-Net between bytes; its parts are :class:`ByteConvolution` and :class:`ByteBlock`."""

    def _folded(self, image: Tensor) -> Tensor:
        """Return logits (b, 1 + classes, voxels of a cell, [z,] y, x)."""
        cells = self.stem(fold_voxels(_line(self.stem).bytes(image), self.architecture.fold))
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=False):
            cells = encoder(cells)
            skips.append(cells)
            cells = down(cells)
        cells = self.encoders[-1](cells)
        for level in reversed(range(len(skips))):
            coarse = self.ups[level](cells)
            skip = _line(self.downs[level]).numbers(skips[level], coarse.dtype)
            joined = functional.interpolate(coarse, scale_factor=2.0).add_(skip)
            decoder = self.decoders[level]
            cells = decoder(_line(decoder.get_submodule("0.first")).bytes(joined))
        voxels = self.architecture.slices_out * self.architecture.fold**self.architecture.dimensions
        logits: Tensor = self.head(cells).unflatten(1, (-1, voxels))
        return logits


def _line(convolution: nn.Module) -> ByteLine:
    return cast(ByteConvolution, convolution).line
