import itertools
import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from tomoseg.nets import augment
from tomoseg.nets.augment import augment_patches, reading_shape, smoothed, vary_intensity
from tomoseg.nets.augmentation import AugmentationSettings

NONE = AugmentationSettings.none()
SEEDS = range(12)


def only(**changes):
    """Return settings under which nothing but the orientation and these changes occurs."""
    return AugmentationSettings.model_validate(NONE.model_dump() | changes)


def run(images, labels, patch, settings, *, margin=0, seed=0):
    """Return float32 (b, z + 2 margin, y, x) and uint8 (b, z, y, x) of readings in numpy."""
    found, found_labels = augment_patches(
        torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32)),
        torch.from_numpy(np.ascontiguousarray(labels, dtype=np.uint8)),
        patch=patch,
        margin=margin,
        settings=settings,
        generator=torch.Generator().manual_seed(seed),
    )
    return found.numpy(), found_labels.numpy()


def orientations(patch):
    """Return the 16 ways in which a patch, square in the plane, may lie."""
    quarters = [np.rot90(patch, turns, axes=(1, 2)) for turns in range(4)]
    mirrored = [quarter[:, :, ::-1] for quarter in quarters]
    return [way[::step] for way in quarters + mirrored for step in (1, -1)]


def disagreement(labels, scene):
    """Return the share of annotated voxels that differ from the scene, lain as it fits best."""
    known = labels != 255
    return min((labels != way)[known].mean() for way in orientations(scene))


def numbered(shape):
    return np.arange(np.prod(shape)).reshape(shape) % 251


TURNING = only(rotation_probability=1)
SCALING = only(scale_probability=1)
WEDGED = only(missing_wedge_probability=1)


@pytest.mark.parametrize(
    ("patch", "margin", "settings", "expected"),
    [
        ((8, 32, 32), 4, NONE, (16, 32, 32)),
        # The diagonal of 31 by 31 steps is 43.8, on both sides of the middle.
        ((8, 32, 32), 4, TURNING, (16, 46, 46)),
        # 15 and 31 steps become 16.5 and 34.1.
        ((8, 32, 32), 4, SCALING, (18, 36, 36)),
        ((1, 32, 32), 0, SCALING, (1, 36, 36)),
        # 3-4-5: 30 and 40 steps have a diagonal of 50.
        ((1, 31, 41), 0, TURNING, (1, 51, 51)),
        ((32, 32, 32), 0, WEDGED, (46, 46, 46)),
        ((32, 32, 32), 4, WEDGED, (40, 32, 32)),  # a slab
        ((8, 16, 16), 0, WEDGED, (8, 16, 16)),  # too few slices
        ((16, 64, 64), 0, WEDGED, (16, 64, 64)),  # too flat
    ],
)
def test_reading_holds_all_that_a_change_can_ask_for(patch, margin, settings, expected):
    assert reading_shape(patch, margin, settings) == expected


def test_orientations_are_the_quarter_turns_and_flips_each_as_likely():
    reading = np.broadcast_to(numbered((4, 3, 3)), (800, 4, 3, 3))
    images, labels = run(reading, reading, (2, 3, 3), NONE, margin=1)
    assert (images[:, 1:3] == labels).all()
    ways = {way.tobytes(): 0 for way in orientations(numbered((4, 3, 3)).astype(np.float32))}
    for image in images:
        ways[image.tobytes()] += 1
    assert len(ways) == 16
    assert min(ways.values()) > 25  # of 50


def test_patches_that_are_not_square_keep_their_shape():
    reading = np.broadcast_to(numbered((2, 3, 4)), (100, 2, 3, 4))
    images, labels = run(reading, reading, (2, 3, 4), NONE)
    assert images.shape == labels.shape == (100, 2, 3, 4)
    flips = itertools.product((1, -1), repeat=3)
    expected = {numbered((2, 3, 4))[::z, ::y, ::x].tobytes() for z, y, x in flips}
    assert {image.astype(np.int64).tobytes() for image in images} == expected


def test_patch_is_the_middle_of_the_reading():
    reading = np.pad(numbered((6, 5, 5)), 3, constant_values=77)
    images, labels = run(reading[None], reading[None], (2, 5, 5), NONE, margin=2)
    ways = orientations(numbered((6, 5, 5)))
    assert any((images[0] == way).all() and (labels[0] == way[2:4]).all() for way in ways)


def test_resampling_by_no_angle_changes_nothing():
    settings = only(rotation_probability=1, rotation_degrees=0)
    reading = numbered(reading_shape((2, 7, 7), 1, settings))
    images, labels = run(reading[None], reading[None], (2, 7, 7), settings, margin=1)
    ways = orientations(reading[:, 2:-2, 2:-2])
    assert any(np.allclose(images[0], way, atol=1e-3) for way in ways)
    assert any((labels[0] == way[1:3]).all() for way in ways)


@pytest.mark.parametrize(
    ("degrees", "scale", "expected"),
    [
        # The voxel at (y, x) from the middle is read at (-x, y).
        (90, 1, lambda reading: np.rot90(reading[1:3, 2:7, 2:7], -1, axes=(1, 2))),
        (-90, 1, lambda reading: np.rot90(reading[1:3, 2:7, 2:7], 1, axes=(1, 2))),
        (180, 1, lambda reading: np.rot90(reading[1:3, 2:7, 2:7], 2, axes=(1, 2))),
        # From the middle twice as far: slices -0.5 and 0.5 become -1 and 1, halfway between two.
        (0, 2, lambda reading: (reading[[0, 2]] / 2 + reading[[1, 3]] / 2)[:, ::2, ::2]),
    ],
)
def test_resampling_by_hand(degrees, scale, expected):
    reading = torch.arange(4 * 9 * 9.0).reshape(1, 4, 9, 9)
    change = augment._Change(
        resampling=scale * augment._turn_in_plane(math.radians(degrees)),
        is_filtered=False,
        has_wedge=False,
        is_transposed=False,
        flips=(),
    )
    images, _ = augment._cut_out(
        reading, reading.to(torch.uint8), [change], patch=(2, 5, 5), margin=0
    )
    np.testing.assert_allclose(images[0], expected(reading[0].numpy()), atol=1e-3)


def test_a_free_turn_lays_a_bar_at_every_angle():
    shape = reading_shape((1, 33, 33), 0, TURNING)
    bar = np.zeros((120, *shape))
    bar[:, :, shape[1] // 2 - 1 : shape[1] // 2 + 2] = 1
    _, labels = run(bar, bar, (1, 33, 33), TURNING)
    sizes = (labels == 1).sum(axis=(1, 2, 3))
    assert (sizes > 3 * 33 - 5).all()
    assert (sizes < 3 * 33 * math.sqrt(2) + 20).all()
    main = [np.linalg.eigh(np.cov(np.nonzero(label[0] == 1)))[1][:, 1] for label in labels]
    angles = [math.degrees(math.atan2(*direction)) % 180 for direction in main]
    assert np.histogram(angles, bins=6, range=(0, 180))[0].min() > 10  # of 20


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("settings", "patch", "margin"),
    [
        (TURNING, (2, 24, 24), 1),
        (SCALING, (8, 24, 24), 1),
        (only(rotation_probability=1, scale_probability=1), (1, 20, 28), 0),
    ],
)
def test_labels_stay_where_the_image_has_them(settings, patch, margin, seed):
    shape = reading_shape(patch, margin, settings)
    slope = np.random.default_rng(seed).normal(size=3)
    slope[0] *= patch[0] > 1
    field = np.tensordot(slope / np.linalg.norm(slope), np.indices(shape), 1)
    field -= field.mean()
    images, labels = run(field[None], field[None] > 0, patch, settings, margin=margin, seed=seed)
    image = images[0, margin : margin + patch[0]]
    assert set(np.unique(labels)) == {0, 1}  # the reading leaves no corner empty
    # A plane of slope 1 is interpolated exactly; the nearest voxel is at most √3 / 2 away.
    sure = np.abs(image) > math.sqrt(3) / 2
    assert sure.mean() > 0.8
    assert ((image > 0) == (labels[0] == 1))[sure].all()


def test_labels_never_get_new_values():
    patch = (16, 16, 16)
    settings = only(missing_wedge_probability=1, scale_probability=1)
    shape = (4, *reading_shape(patch, 0, settings))
    labels = np.random.default_rng(0).choice([0, 3, 200, 255], size=shape)
    _, found = run(np.zeros(shape), labels, patch, settings)
    assert set(np.unique(found)) == {0, 3, 200, 255}


def test_what_was_not_read_is_0_and_not_annotated():
    """A reading that is only as large as the patch leaves the corners of a turned one empty."""
    ones = np.ones((20, 1, 32, 32))
    images, labels = run(ones, ones, (1, 32, 32), TURNING)
    empty = labels == 255
    assert (images[empty] < 1).all()
    assert (images[labels == 1] > 0.4).all()
    assert set(np.unique(labels)) == {1, 255}
    # A square and itself turned by 45° share 82.8% of it, at other angles more.
    assert 0 < empty.mean() < 0.172 + 0.02
    assert images[empty].mean() < 0.1


def test_a_scaled_ball_has_another_radius_along_all_axes():
    settings = only(scale_probability=1, scale=0.3)
    patch = (33, 33, 33)
    shape = reading_shape(patch, 0, settings)
    distance = np.linalg.norm(np.indices(shape) - np.reshape(shape, (3, 1, 1, 1)) // 2, axis=0)
    balls = np.stack([distance <= 10] * 20)
    _, labels = run(balls, balls, patch, settings)
    radii = np.array([[np.ptp(places) / 2 for places in np.nonzero(ball == 1)] for ball in labels])
    by_volume = np.cbrt((labels == 1).sum(axis=(1, 2, 3)) * 3 / (4 * math.pi))
    np.testing.assert_allclose(radii, np.stack([by_volume] * 3, axis=1), atol=0.8)
    # 10 voxels at 1 ± 0.3 of the voxel size.
    assert by_volume.min() == pytest.approx(10 / 1.3, abs=0.8)
    assert by_volume.max() == pytest.approx(10 / 0.7, abs=0.8)


@pytest.mark.parametrize("seed", SEEDS)
def test_amplitudes_change_by_a_smooth_curve_and_phases_stay(seed):
    image = np.random.default_rng(seed).normal(size=(1, 16, 32, 32))
    settings = only(fourier_probability=1, fourier=1)
    # The same seed lays both the same way.
    changed, plain = (
        np.fft.fftn(run(image, image < 0, (16, 32, 32), some, seed=seed)[0][0])
        for some in (settings, NONE)
    )
    ratio = changed / plain
    assert np.abs(np.angle(ratio)).max() < 1e-3
    grid = np.meshgrid(*(np.fft.fftfreq(n) for n in (16, 32, 32)), indexing="ij")
    radius, inverse = np.unique(np.linalg.norm(grid, axis=0).round(6), return_inverse=True)
    curve = np.log(np.abs(ratio))
    shells = [curve[inverse.reshape(curve.shape) == shell] for shell in range(len(radius))]
    assert max(np.ptp(shell) for shell in shells) < 1e-3  # one gain at a frequency
    gains = np.array([shell[0] for shell in shells])
    assert np.abs(gains).max() <= 1
    assert np.ptp(gains) > 0.05
    # Waves of 1, 2 and 3 periods with a third of the amplitude each: the slope of the sum is at
    # most 2 π (1 + 2 + 3) / 3.
    assert (np.abs(np.diff(gains)) < 4 * math.pi * np.diff(radius) + 1e-3).all()


def test_the_new_missing_wedge_is_empty_and_the_deviation_stays():
    patch = (24, 24, 24)
    shape = reading_shape(patch, 0, WEDGED)
    image = np.random.default_rng(0).normal(size=(1, *shape)) + 0.3
    found = run(image, np.zeros_like(image), patch, WEDGED)[0][0]
    power = np.abs(np.fft.fftn(found)) ** 2
    z, y, x = np.meshgrid(*(np.fft.fftfreq(n) for n in patch), indexing="ij")
    # The tilt axis is y or x: patches are turned by quarters after that.
    along = min((x, y), key=lambda other: power[abs(z) > 1.74 * abs(other)].max())
    unseen = abs(z) > math.tan(math.radians(60)) * abs(along)
    assert power[unseen].max() < 1e-6 * power[~unseen].mean()
    assert power[~unseen].min() > 0
    # Interpolation takes a part of white noise away, and more of it than the wedge.
    assert 0.5 < found.std() < 1
    assert found.mean() == pytest.approx(0.3, abs=0.05)


def test_turns_in_space_reach_every_direction():
    patch = (17, 17, 17)
    shape = reading_shape(patch, 0, WEDGED)
    rod = np.zeros((80, *shape))
    rod[:, :, shape[1] // 2 - 1 : shape[1] // 2 + 2, shape[2] // 2 - 1 : shape[2] // 2 + 2] = 1
    _, labels = run(rod, rod, patch, WEDGED)
    main = [np.linalg.eigh(np.cov(np.nonzero(label == 1)))[1][:, 2] for label in labels]
    # The mean of the outer products of unit vectors all around is a third of the identity.
    np.testing.assert_allclose(np.mean([np.outer(d, d) for d in main], 0), np.eye(3) / 3, atol=0.1)


@pytest.mark.parametrize("patch", [(2, 16, 16), (16, 16, 16)])
def test_same_generator_same_result_and_another_seed_another(patch):
    settings = AugmentationSettings()
    shape = (6, *reading_shape(patch, 0, settings))
    images = np.random.default_rng(0).normal(size=shape)
    results = [run(images, images > 1, patch, settings, seed=seed) for seed in (1, 1, 2)]
    for first, again, other in zip(*results, strict=True):
        assert (first == again).all()
        assert (first != other).any()
    assert len({image.tobytes() for image in results[0][0]}) == 6


def test_defaults_leave_what_was_read_untouched():
    settings = AugmentationSettings()
    images = torch.randn(8, *reading_shape((16, 16, 16), 0, settings))
    labels = (images > 1).to(torch.uint8)
    before = images.clone(), labels.clone()
    generator = torch.Generator().manual_seed(0)
    augment_patches(
        images, labels, patch=(16, 16, 16), margin=0, settings=settings, generator=generator
    )
    assert torch.equal(images, before[0])
    assert torch.equal(labels, before[1])


def test_no_bounds_no_change():
    images = torch.randn(3, 4, 5, 6)
    assert torch.allclose(vary_intensity(images, NONE, torch.Generator()), images, atol=1e-6)


@pytest.mark.parametrize("change", ["gain", "offset", "gamma", "noise", "blur"])
def test_each_bound_changes_images_each_by_its_own_chance(change):
    settings = only(**{change: 0.5})
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
