"""What a training does where nothing was asked for."""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from tomoseg.core.blocks import Box
from tomoseg.nets.settings import TrainingSettings
from tomoseg.nets.usual import TILE_PROTOCOL, measure_likeness, suit_settings

RNG = np.random.default_rng(3)
SHAPE = (12, 200, 200)


@dataclass
class Annotated:
    """Voxels of which some boxes are annotated."""

    voxels: np.ndarray
    annotated: tuple

    @property
    def shape(self):
        return self.voxels.shape

    def image(self, box):
        return self.voxels[box.slices]


def smooth(sigma):
    """Return noise that is alike over so many voxels zyx."""
    return gaussian_filter(RNG.normal(size=SHAPE), sigma).astype(np.float32)


def boxes(*ends):
    return tuple(Box((0, 0, 0), end) for end in ends)


def settings_of(volume, particle_angstrom=0.0, **given):
    settings = TrainingSettings(name="n", voxel_size_angstrom=10, **given)
    return suit_settings(settings, [volume], particle_angstrom=particle_angstrom)


NEAR, WHITE = smooth((3, 3, 3)), smooth(0)
SECTIONS, NEAR_SECTIONS = smooth((0, 6, 6)), smooth((1, 6, 6))
MICROGRAPH = smooth((0, 3, 3))[:1]


@pytest.mark.parametrize(
    ("voxels", "painted", "slices", "patch", "why"),
    [
        (NEAR, boxes((12, 200, 200)), (16, 8), (8, 128, 128), "12 are annotated in a row"),
        (NEAR, boxes(*[(1, 200, 200)] * 5), (5, 1), (1, 256, 256), "1 annotated in a row"),
        (NEAR, boxes(*[(1, 64, 64)] * 9), (5, 1), (1, 64, 64), "4 neighbours"),
        (WHITE, boxes((12, 200, 200)), (16, 8), (8, 128, 128), "12 are annotated in a row"),
        (SECTIONS, boxes((12, 200, 200)), (1, 1), (1, 256, 256), "serial sections"),
        (SECTIONS, boxes((1, 200, 200)), (1, 1), (1, 256, 256), "serial sections"),
        (NEAR_SECTIONS, boxes((12, 200, 200)), (3, 1), (1, 256, 256), "its 2 neighbours"),
        (MICROGRAPH, boxes((1, 200, 200)), (1, 1), (1, 256, 256), "micrographs"),
    ],
)  # fmt: skip
def test_the_usual_network_suits_what_is_annotated(voxels, painted, slices, patch, why):
    settings, reason = settings_of(Annotated(voxels, painted))
    architecture = settings.architecture
    assert (architecture.slices_in, architecture.slices_out) == slices
    assert settings.patch_shape == patch
    assert why in reason


@pytest.mark.parametrize(("voxels", "angstrom", "fold"), [
    (MICROGRAPH, 800.0, 4), (MICROGRAPH, 600.0, 2), (SECTIONS, 800.0, 2),
])  # fmt: skip
def test_large_particles_on_micrographs_are_seen_whole(voxels, angstrom, fold):
    settings, reason = settings_of(Annotated(voxels, boxes((1, 200, 200))), angstrom)
    assert settings.architecture.fold == fold
    assert ("particles of 80 pixels" in reason) == (fold == 4)


def test_slices_are_as_far_apart_as_the_voxels_say():
    """Every fourth slice of a volume that is alike in all directions is four voxels away."""
    volume = gaussian_filter(RNG.normal(size=(48, 96, 96)), 4).astype(np.float32)
    found = measure_likeness([Annotated(volume[::4], boxes((12, 96, 96)))])
    assert 3 <= found.steps <= 5


def test_what_is_asked_for_stays():
    volume = Annotated(SECTIONS, boxes((12, 200, 200)))
    settings, reason = settings_of(volume, architecture="fast", steps=7)
    assert (settings.architecture.slices_in, settings.steps, reason) == (16, 7, "")
    settings, _ = settings_of(volume, steps=7, batch=2)
    assert (settings.architecture.slices_in, settings.steps, settings.batch) == (1, 7, 2)


def test_a_time_that_is_given_ends_a_training():
    volume = Annotated(SECTIONS, boxes((12, 200, 200)))
    assert settings_of(volume)[0].steps == 500
    usual = TrainingSettings(name="n", voxel_size_angstrom=10)
    assert settings_of(volume, maximum_minutes=60)[0].steps == usual.steps
    assert settings_of(volume, maximum_minutes=60, steps=None)[0].steps is None


def test_a_tile_network_is_trained_by_its_own_protocol():
    volume = Annotated(NEAR, boxes((1, 64, 64)))
    settings, reason = settings_of(volume, architecture="tile", batch=3)
    said = {key: getattr(settings, key) for key in TILE_PROTOCOL}
    assert said == {**TILE_PROTOCOL, "batch": 3}
    assert "TomoSeg" in reason
    # Of few tiles kept apart, chance would choose among networks on the way.
    assert settings.validation_steps >= settings.steps
