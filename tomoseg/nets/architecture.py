"""The networks: residual U-Nets with a space-to-depth stem, in 2D and 3D, and TomoSeg's own.

    image ─ fold ─ stem ─ blocks ────────── + ─ blocks ─ head ─ unfold ─ logits
                            └ down 2 ─ blocks ─ up 2 ┘              (and so on, level by level)

Folding fold² or fold³ voxels into channels lets every convolution run on that many fewer cells:
10 to 100 times the speed of a classic U-Net at equal accuracy. The only normalisation is batch
norm, so that a voxel's result depends on its neighbourhood alone and never on the block.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tomoseg.nets.card import TILE_POOL, Architecture
from tomoseg.nets.large_kernel import LargeConvolution

# A tile network's response y, 0 to 1, is the logit TILE_STEEPNESS · (y − ½) of its class against
# the background: 0.02 to 0.98 as scores.
TILE_STEEPNESS = 8.0
_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def build_network(architecture: Architecture, classes: int) -> SegmentationNetwork:
    """Return a new network with ``classes`` foreground classes and random weights."""
    if architecture.kind == "tile":
        return _build_tile_network(architecture, classes)
    return _build_unet(architecture, classes)


def _build_tile_network(architecture: Architecture, classes: int) -> TileNetwork:
    a = architecture
    return TileNetwork(
        architecture=a,
        layers=nn.ModuleList(
            ConvNorm(LargeConvolution(inputs, outputs, a.kernel, bias=False))
            for inputs, outputs in pairwise((a.slices_in, *a.widths))
        ),
        head=LargeConvolution(a.widths[-1], classes, a.kernel),
    )


def _build_unet(architecture: Architecture, classes: int) -> UNet:
    """All numbers that turn an architecture into layers are in here."""
    a = architecture
    cell = a.fold**a.dimensions
    widths = a.widths

    def blocks(width: int) -> nn.Sequential:
        parts = (ResidualBlock(width, a.dimensions) for _ in range(a.blocks_per_level))
        return nn.Sequential(*parts)

    pairs = list(pairwise(widths))
    return UNet(
        architecture=a,
        stem=_conv_norm(a.slices_in * cell, widths[0], a.dimensions, kernel=3),
        encoders=nn.ModuleList(blocks(width) for width in widths),
        downs=nn.ModuleList(
            _conv_norm(fine, coarse, a.dimensions, kernel=2) for fine, coarse in pairs
        ),
        ups=nn.ModuleList(
            _conv_norm(coarse, fine, a.dimensions, kernel=1) for fine, coarse in pairs
        ),
        decoders=nn.ModuleList(blocks(width) for width in widths[:-1]),
        head=_convolution(a.dimensions)(widths[0], (classes + 1) * a.slices_out * cell, 1),
    )


class ConvNorm(nn.Module):
    """A convolution and its batch norm."""

    def __init__(self, conv: nn.Conv2d | nn.Conv3d) -> None:
        super().__init__()
        self.conv = conv
        norm = nn.BatchNorm2d if isinstance(conv, nn.Conv2d) else nn.BatchNorm3d
        self.norm: nn.Module = norm(conv.out_channels)

    def forward(self, features: Tensor) -> Tensor:
        """Map (b, inputs, [z,] y, x) to (b, outputs, [z,] y, x)."""
        return cast(Tensor, self.norm(self.conv(features)))

    def fold_norm(self) -> None:
        """Fold the batch norm into the convolution: one pass over memory less."""
        assert isinstance(self.norm, (nn.BatchNorm2d, nn.BatchNorm3d))
        self.conv = fuse_conv_bn_eval(self.conv, self.norm)
        self.norm = nn.Identity()


class ResidualBlock(nn.Module):
    """Two convolutions beside an identity."""

    def __init__(self, width: int, dimensions: int) -> None:
        super().__init__()
        self.first = _conv_norm(width, width, dimensions, kernel=3)
        self.second = _conv_norm(width, width, dimensions, kernel=3)

    def forward(self, features: Tensor) -> Tensor:
        """Map (b, width, [z,] y, x) to the same shape."""
        inner = functional.relu(self.first(features), inplace=True)
        return functional.relu(features + self.second(inner), inplace=True)


class SegmentationNetwork(nn.Module):
    """What every network here is: logits of a normalised image, as its architecture says.

    Sizes along the convolved axes must be multiples of ``architecture.stride``.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture

    def forward(self, image: Tensor) -> Tensor:
        """Return logits of a normalised image.

        Parameters
        ----------
        image
            2D network: (b, slices_in, y, x). Volume network: (b, 1, z, y, x). Zero mean and
            unit variance or whatever the card's intensity steps make.

        Returns
        -------
        Tensor
            (b, 1 + classes, slices_out, y, x) or (b, 1 + classes, z, y, x).
        """
        raise NotImplementedError

    def maps(self, image: Tensor, channels: Sequence[int] = ()) -> Tensor:
        """Return the label of every voxel, and the scores of some channels, in bytes.

        Parameters
        ----------
        image
            As in :meth:`forward`.
        channels
            Of the logits: 0 is the background.

        Returns
        -------
        Tensor
            uint8, (b, 1 + channels, z, y, x): the channel with the highest logit, the first on a
            tie; then softmax scores, 255 standing for 1.
        """
        return byte_maps(self(image), channels)


class UNet(SegmentationNetwork):
    """A U-Net over folded voxels; the parts are injected by :func:`build_network`."""

    def __init__(
        self,
        *,
        architecture: Architecture,
        stem: nn.Module,
        encoders: nn.ModuleList,
        downs: nn.ModuleList,
        ups: nn.ModuleList,
        decoders: nn.ModuleList,
        head: nn.Module,
    ) -> None:
        super().__init__(architecture)
        self.stem = stem
        self.encoders = encoders
        self.downs = downs
        self.ups = ups
        self.decoders = decoders
        self.head = head

    def forward(self, image: Tensor) -> Tensor:
        """Return logits as :meth:`SegmentationNetwork.forward` says."""
        return self._unfolded(self._folded(image))

    def maps(self, image: Tensor, channels: Sequence[int] = ()) -> Tensor:
        """Return bytes as :meth:`SegmentationNetwork.maps` says, which unfold quickly."""
        return self._unfolded(byte_maps(self._folded(image), channels))

    def _unfolded(self, cells: Tensor) -> Tensor:
        """Return (b, c, z, y, x) of (b, c, voxels of a cell, [z,] y, x)."""
        batch, channels, *_ = cells.shape
        voxels = unfold_voxels(cells.flatten(1, 2), self.architecture.fold)
        return voxels.reshape(batch, channels, -1, *voxels.shape[-2:])

    def _folded(self, image: Tensor) -> Tensor:
        """Return logits (b, 1 + classes, voxels of a cell, [z,] y, x)."""
        features = functional.relu(
            self.stem(fold_voxels(image, self.architecture.fold)), inplace=True
        )
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=False):
            features = encoder(features)
            skips.append(features)
            features = functional.relu(down(features), inplace=True)
        features = self.encoders[-1](features)
        for level in reversed(range(len(skips))):
            coarse = self.ups[level](features)
            features = skips[level] + functional.interpolate(coarse, scale_factor=2.0)
            features = self.decoders[level](features)
        voxels = self.architecture.slices_out * self.architecture.fold**self.architecture.dimensions
        logits: Tensor = self.head(features).unflatten(1, (-1, voxels))
        return logits


class TileNetwork(SegmentationNetwork):
    """Few layers of large kernels at half resolution, learned from tiles one feature at a time.

        image ─ conv ─ pool 2 ─ ReLU ─ conv ─ ReLU ─ conv ─ up 2, bilinear ─ response 0..1

    Notes
    -----
    Chen et al., Nature Methods 14, 983 (2017), the program EMAN2 e2tomoseg_convnet: its kernels
    and its pooling. There a negative response is cut to 0 and the map of each feature is
    thresholded by hand; here the response becomes a logit, so that all that follows is the same as
    for the other networks. The batch norms are folded into the convolutions when it is applied,
    which makes the very network that is described there; without them thousands of positive
    inputs a kernel, all pulled one way by a step, swing its answers everywhere.
    """

    def __init__(
        self, *, architecture: Architecture, layers: nn.ModuleList, head: nn.Module
    ) -> None:
        super().__init__(architecture)
        self.layers = layers
        self.head = head

    def forward(self, image: Tensor) -> Tensor:
        """Return logits as :meth:`SegmentationNetwork.forward` says."""
        first, *others = self.layers
        features = first(image)
        features = functional.relu(functional.max_pool2d(features, TILE_POOL))
        for layer in others:
            features = functional.relu(layer(features))
        response = functional.interpolate(
            self.head(features), scale_factor=float(TILE_POOL), mode="bilinear"
        )
        background = torch.zeros_like(response[:, :1])
        logits = torch.cat([background, TILE_STEEPNESS * (response - 0.5)], dim=1)
        return logits[:, :, None]


def byte_maps(logits: Tensor, channels: Sequence[int]) -> Tensor:
    """Return labels and scores of logits (b, 1 + classes, ...) as :class:`SegmentationNetwork`.

    Channel by channel, in operations that the CPU does on whole vectors: torch.argmax over a
    short axis takes longer than the network, and masked writes a third of its time.
    """
    first, *others = logits.unbind(1)
    best = first.clone()
    labels = torch.zeros_like(best, dtype=torch.uint8)
    for label, candidate in enumerate(others, start=1):
        higher = (candidate > best).to(torch.uint8)
        torch.maximum(best, candidate, out=best)
        torch.maximum(labels, higher.mul_(label), out=labels)
    if not channels:
        return labels[:, None]
    powers = [candidate.float().sub_(best).exp_() for candidate in (first, *others)]
    share = 255 / sum(powers[1:], start=powers[0])
    scores = [(powers[channel] * share).round_().to(torch.uint8) for channel in channels]
    return torch.stack([labels, *scores], dim=1)


def fold_voxels(image: Tensor, fold: int) -> Tensor:
    """Fold squares or cubes of voxels into channels.

    (b, c, [z,] y, x) becomes (b, c·fold^d, [z/fold,] y/fold, x/fold), channels fastest in memory;
    in a cell the channel is the slowest index, then z, y, x. Voxels that stay neighbours along x
    move as one word: four times as fast as one by one.
    """
    if fold == 1:
        return image
    batch, channels, *size = image.shape
    axes = len(size)
    cells = [n // fold for n in size]
    word = min(8, fold * image.element_size())
    image = image.contiguous()
    # Words have no gradient.
    kind = image.dtype if image.requires_grad else _WORDS[word]
    words = image if kind is image.dtype else image.view(kind)
    cut = (n for cell in cells[:-1] for n in (cell, fold))
    split = words.reshape(batch, channels, *cut, cells[-1], -1)
    inner, outer = range(3, 3 + 2 * axes, 2), range(2, 2 + 2 * axes, 2)
    folded = split.permute(0, *outer, 1, *inner).contiguous()
    if kind is not image.dtype:
        folded = folded.view(image.dtype)
    return folded.reshape(batch, *cells, channels * fold**axes).movedim(-1, 1)


def unfold_voxels(features: Tensor, fold: int) -> Tensor:
    """Undo :func:`fold_voxels`."""
    batch, channels, *cells = features.shape
    axes = len(cells)
    channels //= fold**axes
    split = features.reshape(batch, channels, *([fold] * axes), *cells)
    interleaved = (part for axis in range(axes) for part in (2 + axes + axis, 2 + axis))
    size = (n * fold for n in cells)
    return split.permute(0, 1, *interleaved).reshape(batch, channels, *size)


def fold_norms(network: nn.Module) -> None:
    """Fold every batch norm of a network in evaluation mode into its convolution, in place."""
    for module in network.modules():
        if isinstance(module, ConvNorm):
            module.fold_norm()


def channels_last(tensor: Tensor) -> Tensor:
    """Return the tensor (b, c, [z,] y, x) with channels fastest in memory.

    Without it reduced precision loses most of its gain. Other tensors come back as they are.
    """
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    if tensor.ndim not in formats:
        return tensor
    return tensor.contiguous(memory_format=formats[tensor.ndim])


def set_channels_last(network: nn.Module) -> None:
    """Lay out the kernels of a network with channels fastest, in place."""
    for parameter in network.parameters():
        parameter.data = channels_last(parameter.data)


def _conv_norm(inputs: int, outputs: int, dimensions: int, *, kernel: int) -> ConvNorm:
    """Return a convolution with its norm: an odd kernel keeps the size, kernel 2 halves it."""
    stride = 2 if kernel == 2 else 1
    padding = kernel // 2 if kernel % 2 else 0
    return ConvNorm(
        _convolution(dimensions)(
            inputs, outputs, kernel, stride=stride, padding=padding, bias=False
        )
    )


def _convolution(dimensions: int) -> type[nn.Conv2d] | type[nn.Conv3d]:
    return nn.Conv2d if dimensions == 2 else nn.Conv3d
