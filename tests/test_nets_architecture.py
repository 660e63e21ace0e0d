import copy

import pytest
import torch
from torch.nn import functional

from tomoseg.nets.architecture import (
    build_network,
    channels_last,
    fold_norms,
    fold_voxels,
    set_channels_last,
    unfold_voxels,
)
from tomoseg.nets.card import Architecture

ARCHITECTURES = [
    Architecture(slices_in=1, slices_out=1, fold=1, widths=(3, 4)),
    Architecture(slices_in=6, slices_out=2, fold=2, widths=(3, 4, 5)),
    Architecture(slices_in=4, slices_out=4, fold=4, widths=(4,), blocks_per_level=2),
    Architecture(slices_in=3, slices_out=1, fold=1, widths=(2, 3, 3), blocks_per_level=2),
    Architecture(kind="volume", fold=1, widths=(2, 3)),
    Architecture(kind="volume", fold=2, widths=(2, 3)),
]


def random_image(architecture, cells=2, batch=1):
    _, y, x = (cells * step for step in architecture.stride)
    channels = architecture.slices_in
    size = (channels, y, x) if architecture.kind == "slab" else (1, y, y, x)
    return torch.randn(batch, *size)


def with_random_norms(network):
    for name, tensor in network.state_dict().items():
        if "norm" in name and tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    return network.eval()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_have_the_shape_of_the_prediction(architecture):
    image = random_image(architecture, batch=2)
    logits = build_network(architecture, 3)(image)
    depth = architecture.slices_out if architecture.kind == "slab" else image.shape[2]
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


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_receptive_halo_is_what_the_gradient_reaches(architecture):
    """With positive weights nothing cancels: the gradient is 0 only where nothing connects."""
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
