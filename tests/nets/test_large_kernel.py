"""Convolutions that learn by Fourier transforms learn what the direct ones would."""

import pytest
import torch

from tomoseg.nets.large_kernel import LargeConvolution


def slopes(convolution, image, wanted):
    """Return the answer and how far it pulls image, kernels and offsets."""
    image = image.clone().requires_grad_()
    answer = convolution(image)
    given = (image, *convolution.parameters())
    return answer, *torch.autograd.grad((answer * wanted).sum(), given)


@pytest.mark.parametrize(
    ("size", "kernel", "bias"),
    [((64, 64), 15, True), ((7, 12), 5, False), ((5, 3), 3, True), ((4, 6), 9, True)],
)
def test_training_follows_the_slopes_of_the_direct_convolution(size, kernel, bias):
    generator = torch.Generator().manual_seed(1)
    image = torch.randn((2, 3, *size), generator=generator, dtype=torch.float64)
    wanted = torch.randn((2, 4, *size), generator=generator, dtype=torch.float64)
    convolution = LargeConvolution(3, 4, kernel, bias=bias).double()
    direct = slopes(convolution.eval(), image, wanted)
    for found, expected in zip(slopes(convolution.train(), image, wanted), direct, strict=True):
        torch.testing.assert_close(found, expected)


def test_training_in_reduced_precision_has_spectra_in_full():
    convolution = LargeConvolution(2, 2, 5)
    image = torch.rand((1, 2, 8, 8), generator=torch.Generator().manual_seed(2))
    with torch.autocast("cpu", torch.bfloat16):
        learning, direct = convolution.train()(image), convolution.eval()(image)
        convolution.train()(direct).sum().backward()
    assert (learning.dtype, direct.dtype) == (torch.float32, torch.bfloat16)
    torch.testing.assert_close(learning, direct.float(), atol=0.02, rtol=0.02)
    assert all(p.grad is not None for p in convolution.parameters())
