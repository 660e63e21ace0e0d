import copy

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate, zoom
from torch.nn import functional

from tomoseg.nets.architecture import (
    TILE_STEEPNESS,
    build_network,
    channels_last,
    fold_norms,
    fold_voxels,
    set_channels_last,
    unfold_voxels,
)
from tomoseg.nets.card import PRESETS, Architecture

ARCHITECTURES = [
    Architecture(slices_in=1, slices_out=1, fold=1, widths=(3, 4)),
    Architecture(slices_in=6, slices_out=2, fold=2, widths=(3, 4, 5)),
    Architecture(slices_in=4, slices_out=4, fold=4, widths=(4,), blocks_per_level=2),
    Architecture(slices_in=3, slices_out=1, fold=1, widths=(2, 3, 3), blocks_per_level=2),
    Architecture(kind="volume", fold=1, widths=(2, 3)),
    Architecture(kind="volume", fold=2, widths=(2, 3)),
]
TILES = [
    Architecture(kind="tile", widths=(3,), kernel=3),
    Architecture(kind="tile", widths=(3, 2), kernel=5, slices_in=3),
    Architecture(kind="tile", widths=(2, 2, 2), kernel=7),
]


def random_image(architecture, cells=2, batch=1):
    _, y, x = (cells * step for step in architecture.stride)
    channels = architecture.slices_in
    size = (channels, y, x) if architecture.dimensions == 2 else (1, y, y, x)
    return torch.randn(batch, *size)


def with_random_norms(network):
    for name, tensor in network.state_dict().items():
        if "norm" in name and tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    return network.eval()


@pytest.mark.parametrize("architecture", ARCHITECTURES + TILES)
def test_logits_have_the_shape_of_the_prediction(architecture):
    image = random_image(architecture, batch=2)
    logits = build_network(architecture, 3)(image)
    depth = architecture.slices_out if architecture.dimensions == 2 else image.shape[2]
    assert logits.shape == (2, 4, depth, *image.shape[-2:])


def test_folding_is_pixel_unshuffle_and_is_undone():
    image = torch.arange(2 * 3 * 8 * 4.0).reshape(2, 3, 8, 4)
    assert torch.equal(fold_voxels(image, 2), functional.pixel_unshuffle(image, 2))
    assert torch.equal(unfold_voxels(fold_voxels(image, 4), 4), image)
    volume = torch.randn(2, 3, 8, 4, 6)
    folded = fold_voxels(volume, 2)
    assert folded.shape == (2, 24, 4, 2, 3)
    # Channel 1 of the image, corner (z, y, x) = (1, 0, 1) of every cell.
    assert torch.equal(folded[:, 8 + 5], volume[:, 1, 1::2, 0::2, 1::2])
    assert torch.equal(unfold_voxels(folded, 2), volume)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("fold", [1, 2, 4])
def test_every_kind_of_number_is_folded(dtype, fold):
    image = torch.arange(2 * 3 * 8 * 12).remainder(251).reshape(2, 3, 8, 12)
    expected = functional.pixel_unshuffle(image, fold)
    assert torch.equal(fold_voxels(image.to(dtype), fold), expected.to(dtype))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_folded_norms_give_the_same_logits(architecture):
    network = with_random_norms(build_network(architecture, 2))
    folded = copy.deepcopy(network)
    fold_norms(folded)
    set_channels_last(folded)
    assert len(list(folded.parameters())) < len(list(network.parameters()))
    image = random_image(architecture)
    with torch.inference_mode():
        expected, found = network(image), folded(channels_last(image))
    assert torch.allclose(found, expected, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("architecture", ARCHITECTURES + TILES)
def test_receptive_halo_is_what_the_gradient_reaches(architecture):
    """With positive weights nothing cancels: the gradient is 0 only where nothing connects.

    Pooling passes it to one voxel of a cell; over all rows every column has its turn.
    """
    torch.manual_seed(0)
    network = build_network(architecture, 1).double().eval()
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            # Small enough that the output of many layers stays a number.
            tensor.fill_(0.1 if name.endswith("weight") and tensor.ndim > 1 else 1.0)
    halo, stride = architecture.receptive_halo[2], architecture.stride[2]
    before = -(-halo // stride) * stride
    image = random_image(architecture, cells=2 * before // stride + 1).double()
    image = image.abs().requires_grad_()
    core = slice(before, before + stride)
    network(image)[..., core, core].sum().backward()
    assert image.grad is not None
    reached = image.grad.abs().sum(dim=tuple(range(image.ndim - 1))).nonzero().flatten()
    assert int(reached[0]) == before - halo
    assert int(reached[-1]) == before + stride + halo - 1


def test_a_tile_network_computes_what_its_source_does():
    """Convolution, pooling, bias, ReLU, layer by layer, in numpy; the border goes on as it is."""
    network = build_network(Architecture(kind="tile", widths=(2, 3), kernel=3), 2).double().eval()
    fold_norms(network)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(4))
    image = np.random.default_rng(0).standard_normal((1, 6, 8))

    def convolved(features, layer):
        kernels = layer.weight.detach().numpy()
        return np.stack(
            [
                sum(correlate(f, k, mode="nearest") for f, k in zip(features, kernel, strict=True))
                for kernel in kernels
            ]
        )

    def biased(features, layer):
        return features + layer.bias.detach().numpy()[:, None, None]

    first, second = (layer.conv for layer in network.layers)
    features = convolved(image, first).reshape(2, 3, 2, 4, 2).max(axis=(2, 4))
    features = np.maximum(biased(features, first), 0)
    features = np.maximum(biased(convolved(features, second), second), 0)
    response = biased(convolved(features, network.head), network.head)
    # Scaled up by 2 about the centres of voxels, a cell beyond the border as the one at it.
    doubled = zoom(response, (1, 2, 2), order=1, grid_mode=True, mode="nearest")

    with torch.no_grad():
        logits = network(torch.from_numpy(image)[None]).numpy()
    assert logits.shape == (1, 3, 1, 6, 8)
    assert (logits[0, 0] == 0).all()
    np.testing.assert_allclose(logits[0, 1:, 0] / TILE_STEEPNESS + 0.5, doubled, atol=1e-12)


def test_a_tile_alone_is_answered_as_with_its_neighbourhood():
    """What is learned from tiles holds in a slice: a border of zeros halved all answers."""
    network = build_network(PRESETS["tile"], 1).eval()
    for parameter in network.parameters():
        parameter.data.abs_()
    image = torch.rand((1, 5, 96, 96), generator=torch.Generator().manual_seed(5))
    tile = (..., slice(16, 80), slice(16, 80))
    with torch.no_grad():
        whole, alone = (network(part)[:, 1] / TILE_STEEPNESS + 0.5 for part in (image, image[tile]))
    assert float(alone.mean() / whole[tile].mean()) == pytest.approx(1, abs=0.02)


def test_a_tile_network_has_as_many_numbers_as_its_source():
    network = build_network(PRESETS["tile"], 1).eval()
    fold_norms(network)
    assert sum(p.numel() for p in network.parameters()) == 225 * (5 * 40 + 1600 + 40) + 81


def test_every_preset_is_a_network_of_its_numbers():
    with torch.device("meta"):
        for architecture in PRESETS.values():
            network = build_network(architecture, 6)
            assert network.architecture == architecture
