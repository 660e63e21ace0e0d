import numpy as np
import pytest
import torch
from scipy import ndimage

from tomoseg.nets.augment import rescaled, smoothed, turned, vary_intensity
from tomoseg.nets.augmentation import AugmentationSettings

NONE = AugmentationSettings(scale=0, gain=0, offset=0, gamma=0, noise=0, blur=0)


def patch(shape=(2, 3, 3)):
    labels = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    return labels.astype(np.float32), labels


def test_turns_reach_every_orientation_and_keep_labels_with_the_image():
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(400):
        image, labels = turned(*patch(), rng)
        assert (image == labels).all()
        seen.add(labels.tobytes())
    assert len(seen) == 16  # 8 symmetries of the square, each with z either way


def test_patches_that_are_not_square_keep_their_shape():
    rng = np.random.default_rng(0)
    shapes = {turned(*patch((2, 3, 4)), rng)[0].shape for _ in range(40)}
    assert shapes == {(2, 3, 4)}


@pytest.mark.parametrize("shape", [(4, 6, 6), (3, 5, 7), (2, 3, 3)])
def test_rescaling_moves_labels_with_the_image(shape):
    z, y, x = np.indices((8, 12, 12))
    labels = ((z >= 4) * 1 + (y >= 6) * 2 + (x >= 6) * 4).astype(np.uint8)
    image, found = rescaled((labels > 3).astype(np.float32), labels, shape)
    assert image.shape == found.shape == shape
    # Apart from the planes in which the border lies, the image is what the labels say.
    sure = (image == 0) | (image == 1)
    assert ((found > 3) == (image == 1))[sure].all()
    assert sure.mean() > 0.6


def test_no_bounds_no_change():
    images = torch.randn(3, 4, 5, 6)
    assert torch.allclose(vary_intensity(images, NONE, torch.Generator()), images, atol=1e-6)


@pytest.mark.parametrize("change", ["gain", "offset", "gamma", "noise", "blur"])
def test_each_bound_changes_images_each_by_its_own_chance(change):
    settings = NONE.model_copy(update={change: 0.5})
    images = torch.randn(1, 4, 8, 8).expand(3, -1, -1, -1).clone()
    before = images.clone()
    varied = vary_intensity(images, settings, torch.Generator().manual_seed(1))
    again = vary_intensity(images, settings, torch.Generator().manual_seed(1))
    assert torch.equal(varied, again)
    assert torch.equal(images, before)
    difference = (varied - images).abs().amax(dim=(1, 2, 3))
    assert (difference > 1e-3).all()
    assert len(set(difference.tolist())) == 3


def test_smoothing_is_1_2_1_along_every_axis():
    images = torch.randn(2, 4, 5, 6)
    for image, found in zip(images, smoothed(images), strict=True):
        expected = image.numpy()
        for axis in range(3):
            expected = ndimage.correlate1d(expected, [0.25, 0.5, 0.25], axis, mode="nearest")
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
