"""Simulated tomograms: the truth agrees with the picture, and the physics shows."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from scipy import ndimage
from scipy.spatial import cKDTree

from tomoseg.core.blocks import Box
from tomoseg.core.coordinates import resample
from tomoseg.core.errors import RequestError, TomosegError, VoxelSizeError
from tomoseg.simulation import (
    CLASSES,
    Phantom,
    PhantomParameters,
    imaging,
    shapes,
    simulate,
    varied,
    widely_varied,
)
from tomoseg.simulation.parameters import DENSITY_PER_UM3
from tomoseg.simulation.scene import draw_scene

SMALL = PhantomParameters(
    shape=(48, 112, 96), voxel_size_angstrom=14.0, seed=4, microtubules=2, actin_filaments=4
)
NOTHING: dict[str, Any] = dict.fromkeys(DENSITY_PER_UM3, 0)
EMPTY = replace(SMALL, carbon=False, crowding=0.0, **NOTHING)
SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
REAL = SHARED / "cryoet" / "microtubule_14pf" / "14pf_MT.tif"
RADIUS_ANGSTROM = {"microtubule": 125.0, "actin": 35.0}


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return simulate(SMALL)


def number(name: str) -> int:
    return CLASSES.index(name) + 1


def voxels_of(phantom: Phantom, points_angstrom: NDArray[np.float64]) -> tuple[Any, ...]:
    voxels = np.round(phantom.parameters.sampling.to_voxels(points_angstrom)).astype(int)
    return tuple(voxels.T)


# --- the truth ---


def test_the_same_seed_gives_the_same_bits_and_another_does_not(phantom: Phantom) -> None:
    again, other = simulate(SMALL), simulate(replace(SMALL, seed=5))
    np.testing.assert_array_equal(again.tomogram, phantom.tomogram)
    np.testing.assert_array_equal(again.instances, phantom.instances)
    assert not np.array_equal(other.labels, phantom.labels)


def test_arrays_have_the_promised_types_and_scale(phantom: Phantom) -> None:
    volumes = (phantom.tomogram, phantom.labels, phantom.instances)
    assert [volume.dtype.name for volume in volumes] == ["float32", "uint8", "uint32"]
    assert phantom.tomogram.shape == phantom.labels.shape == phantom.instances.shape == SMALL.shape
    assert phantom.tomogram.mean() == pytest.approx(0, abs=1e-4)
    assert phantom.tomogram.std() == pytest.approx(1, abs=1e-4)


def test_every_class_is_there(phantom: Phantom) -> None:
    assert set(np.unique(phantom.labels)) == set(range(len(CLASSES) + 1))


def test_each_instance_has_one_class_which_is_the_listed_one(phantom: Phantom) -> None:
    pairs = np.unique(np.stack([phantom.instances.ravel(), phantom.labels.ravel()]), axis=1)
    listed = [(i, number(name)) for i, name in enumerate(phantom.objects, start=1)]
    assert [tuple(pair) for pair in pairs.T.tolist()] == [(0, 0), *listed]


def test_what_is_outside_of_the_sample_has_no_label(phantom: Phantom) -> None:
    begin, end = SMALL.slab_planes
    assert end - begin == round(0.8 * SMALL.shape[0])
    assert not phantom.labels[:begin].any()
    assert not phantom.labels[end:].any()
    assert phantom.labels[begin].any()
    assert phantom.labels[end - 1].any()


@pytest.mark.parametrize("name", ["microtubule", "actin"])
def test_centre_lines_lie_in_their_label_and_in_one_instance(phantom: Phantom, name: str) -> None:
    lines = [line for line in phantom.filaments if line.name == name]
    assert [line.number for line in lines] == list(range(1, phantom.objects.count(name) + 1))
    instances = set()
    for line in lines:
        assert SMALL.sampling.contains(line.points_angstrom).all()
        where = voxels_of(phantom, line.points_angstrom)
        assert (phantom.labels[where] == number(name)).all()
        (instance,) = set(phantom.instances[where].tolist())
        instances.add(instance)
    assert len(instances) == len(lines)


@pytest.mark.parametrize("name", ["microtubule", "actin"])
def test_a_filament_label_is_the_filled_tube_of_its_outer_radius(
    phantom: Phantom, name: str
) -> None:
    lines = [line for line in phantom.filaments if line.name == name]
    dense = [resample(line.points_angstrom, 2.0) for line in lines]
    places = np.stack(np.nonzero(np.ones(SMALL.shape)), axis=1) * SMALL.voxel_size_angstrom
    distance, nearest = cKDTree(np.concatenate(dense)).query(places)
    labelled = phantom.labels.ravel() == number(name)
    # Lines are stored a voxel apart, so that a chord runs a little inside of its arc.
    assert distance[labelled].max() < RADIUS_ANGSTROM[name] + 0.5 * SMALL.voxel_size_angstrom
    ends = np.cumsum([0] + [len(line) for line in dense])
    beside = ~np.isin(nearest, np.concatenate([ends, ends - 1]))
    planes = np.repeat(np.arange(SMALL.shape[0]), SMALL.shape[1] * SMALL.shape[2])
    begin, end = SMALL.slab_planes
    deep = beside & (distance < RADIUS_ANGSTROM[name] - 2.0) & (planes >= begin) & (planes < end)
    assert deep.sum() > 500
    assert labelled[deep].all()


def test_ribosome_centres_and_orientations_find_every_part(phantom: Phantom) -> None:
    particles = phantom.particles
    assert len(particles) == phantom.objects.count("ribosome") > 0
    np.testing.assert_allclose(np.linalg.det(particles.orientations), 1.0)
    for centre, turn in zip(particles.points_angstrom, particles.orientations, strict=True):
        parts = centre + (turn @ shapes.RIBOSOME_BALLS_XYZR[:, :3].T).T[:, ::-1]
        begin, end = SMALL.slab_planes
        planes = np.round(parts[:, 0] / SMALL.voxel_size_angstrom)
        seen = SMALL.sampling.contains(parts) & (planes >= begin) & (planes < end)
        assert seen.any()
        assert (phantom.labels[voxels_of(phantom, parts[seen])] == number("ribosome")).all()


def test_a_ribosome_has_no_symmetry() -> None:
    turns = np.stack([np.diag(signs) for signs in ([1, -1, -1], [-1, 1, -1], [-1, -1, 1])])
    middle, voxel = np.full(3, 200.0), 10.0
    box = Box.whole((41, 41, 41))
    one, *others = (
        shapes.ribosome_depth(middle, turn, box=box, voxel=voxel) > 0
        for turn in [np.eye(3), *turns.astype(float)]
    )
    extent = np.ptp(np.argwhere(one), axis=0) * voxel
    assert 250 <= extent.max() <= 300
    for other in others:
        assert (one & other).sum() / (one | other).sum() < 0.8


# --- the parameters ---


def test_asking_for_more_of_one_kind_moves_no_larger_one() -> None:
    few, many = (draw_scene(replace(SMALL, ribosomes=n)) for n in (0, 6))
    assert len(few.ribosomes) == 0 < len(many.ribosomes) <= 6
    for a, b in zip(few.filaments, many.filaments, strict=True):
        np.testing.assert_array_equal(a.points_angstrom, b.points_angstrom)


def test_an_empty_scene_is_noise_without_truth() -> None:
    empty = simulate(EMPTY)
    assert not empty.labels.any()
    assert not empty.objects
    assert not empty.filaments
    assert len(empty.particles) == len(empty.gold_angstrom) == 0
    assert empty.tomogram.std() == pytest.approx(1, abs=1e-4)


def test_counts_grow_with_the_volume() -> None:
    usual = PhantomParameters()
    assert usual.count("ribosomes") == pytest.approx(4 * half_wide().count("ribosomes"), abs=3)
    assert replace(usual, ribosomes=7).count("ribosomes") == 7
    assert SMALL.count("double_membranes") == 1


def half_wide() -> PhantomParameters:
    return PhantomParameters(shape=(128, 256, 256))


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"voxel_size_angstrom": 7.9}, VoxelSizeError),
        ({"voxel_size_angstrom": float("nan")}, VoxelSizeError),
        ({"shape": (8, 96, 96)}, RequestError),
        ({"snr": 0.0}, RequestError),
        ({"defocus_um": -3.0}, RequestError),
        ({"tilt_max_degrees": 90.0}, RequestError),
        ({"tilt_step_degrees": 0.0}, RequestError),
        ({"thickness_angstrom": 1e5}, RequestError),
        ({"crowding": 0.5}, RequestError),
        ({"ribosomes": -1}, RequestError),
        ({"seed": -1}, RequestError),
    ],
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, Any], error: type[TomosegError]) -> None:
    with pytest.raises(error, match=next(iter(wrong))):
        PhantomParameters(**wrong)


def test_a_recipe_can_hold_the_parameters() -> None:
    adapter = TypeAdapter(PhantomParameters)
    assert adapter.validate_python(asdict(SMALL) | {"shape": [48, 112, 96]}) == SMALL
    with pytest.raises(ValidationError, match="snrr"):
        adapter.validate_python({"snrr": 1.0})


def test_varied_parameters_differ_and_keep_the_grid() -> None:
    drawn = [varied(seed, SMALL) for seed in range(50)]
    assert varied(3, SMALL) == drawn[3]
    assert len({one.snr for one in drawn}) == len({one.defocus_um for one in drawn}) == 50
    assert {one.carbon for one in drawn} == {True, False}
    assert {(one.shape, one.voxel_size_angstrom) for one in drawn} == {
        (SMALL.shape, SMALL.voxel_size_angstrom)
    }
    assert all(one.microtubules == 0 for one in (varied(seed, EMPTY) for seed in range(9)))


def test_widely_varied_parameters_cover_microscopes_at_one_density() -> None:
    crowded = replace(SMALL, ribosomes=1000)
    drawn = [widely_varied(seed, crowded) for seed in range(200)]
    assert widely_varied(3, crowded) == drawn[3]
    assert {one.shape for one in drawn} == {SMALL.shape}
    voxels = np.array([one.voxel_size_angstrom for one in drawn])
    assert 8 <= voxels.min() < 8.3 and 15.5 < voxels.max() <= 16
    snr = np.array([one.snr for one in drawn]) / SMALL.snr
    assert 0.2 <= snr.min() < 0.25 and 1.8 < snr.max() <= 2
    assert {one.tilt_step_degrees for one in drawn} == {2.0, 3.0}
    density = np.array([one.ribosomes for one in drawn]) / voxels**3
    assert np.abs(density / np.median(density) - 1).max() < 0.3


# --- the imaging ---


@pytest.mark.parametrize("name", CLASSES[:5])
def test_objects_are_darker_than_the_background(phantom: Phantom, name: str) -> None:
    inside = phantom.tomogram[phantom.labels == number(name)]
    assert inside.mean() < phantom.tomogram[phantom.labels == 0].mean() - 0.05


def test_gold_appears_where_the_truth_says() -> None:
    clear = replace(EMPTY, gold_beads=3, snr=1e4, jitter_angstrom=0.0)
    phantom = simulate(clear)
    assert len(phantom.gold_angstrom) == 3
    grid = np.stack(np.nonzero(np.ones(clear.shape)), axis=1)
    for bead in clear.sampling.to_voxels(phantom.gold_angstrom):
        near = grid[np.linalg.norm(grid - bead, axis=1) < 5]
        weight = np.maximum(-phantom.tomogram[tuple(near.T)] - 2, 0)
        found = (near * weight[:, None]).sum(axis=0) / weight.sum()
        np.testing.assert_allclose(found, bead, atol=0.5)


@pytest.mark.parametrize("tilt_max", [40.0, 60.0])
def test_the_wedge_beyond_the_last_tilt_is_missing(tilt_max: float) -> None:
    tomogram = simulate(replace(SMALL, tilt_max_degrees=tilt_max, gold_beads=0)).tomogram
    for axis, n in enumerate(tomogram.shape):
        tomogram = tomogram * np.expand_dims(np.hanning(n), [i for i in range(3) if i != axis])
    power = (np.abs(np.fft.fftn(tomogram)) ** 2).mean(axis=1)
    kz, kx = np.meshgrid(*[np.fft.fftfreq(n) for n in power.shape], indexing="ij")
    angle, k = np.degrees(np.arctan2(np.abs(kz), np.abs(kx))), np.hypot(kz, kx)
    band = (k > 0.1) & (k < 0.3)
    inside = power[band & (angle > tilt_max + 8)].mean()
    outside = power[band & (angle < tilt_max - 8)].mean()
    assert inside < 0.03 * outside


def test_more_signal_to_noise_is_closer_to_the_truth() -> None:
    clean, *noisy = (simulate(replace(SMALL, snr=snr)).tomogram for snr in (1e4, 2.0, 0.5, 0.1))
    likeness = [float(np.corrcoef(clean.ravel(), t.ravel())[0, 1]) for t in noisy]
    assert likeness == sorted(likeness, reverse=True)
    assert likeness[0] > 0.5 > 0.3 > likeness[-1]


def test_the_untilted_projection_is_the_sum_along_the_beam() -> None:
    volume = np.random.default_rng(0).random((5, 4, 7), dtype=np.float32)
    geometry = imaging.Geometry(shape=(5, 4, 7), width=11)
    flat = volume.transpose(0, 2, 1).reshape(-1, 4)
    image = imaging.projector(geometry, 0.0) @ flat
    np.testing.assert_allclose(image[2:9], volume.sum(axis=0).T, rtol=1e-5)
    np.testing.assert_allclose(image[:2], image[3:1:-1], rtol=1e-5)  # mirrored beyond


@pytest.mark.parametrize(("tilt", "sign"), [(45.0, 1), (-45.0, -1)])
def test_a_point_above_the_axis_moves_with_the_tilt(tilt: float, sign: int) -> None:
    volume = np.zeros((21, 1, 61), dtype=np.float32)
    volume[20, 0, 30] = 1.0
    geometry = imaging.Geometry(shape=(21, 1, 61), width=61)
    image = imaging.projector(geometry, tilt) @ volume.transpose(0, 2, 1).reshape(-1, 1)
    assert image.sum() == pytest.approx(1.0)
    middle = (image[:, 0] * np.arange(61)).sum()
    assert middle - 30 == pytest.approx(sign * 10 * np.sin(np.pi / 4), abs=1e-4)


def test_contrast_transfer_starts_at_the_amplitude_contrast_and_turns_over() -> None:
    k = np.linspace(0, 1 / 20, 2000, dtype=np.float32)
    transfer = imaging.contrast_transfer(k, SMALL)
    assert transfer[0] == pytest.approx(SMALL.amplitude_contrast)
    first_zero = k[np.argmax(transfer < 0)]
    expected = np.sqrt(
        (1 - np.arcsin(SMALL.amplitude_contrast) / np.pi) / (0.0197 * SMALL.defocus_um * 1e4)
    )
    assert first_zero == pytest.approx(expected, rel=0.01)


def test_dose_and_noise_grow_from_the_untilted_image_on() -> None:
    tilts = np.array([-6.0, -3.0, 0.0, 3.0, 6.0])
    assert (imaging.doses(tilts) / imaging.DOSE_PER_IMAGE - 0.5).tolist() == [3, 1, 0, 2, 4]
    assert imaging.noise_growth(3000.0, 0.0) == 1.0
    assert imaging.noise_growth(3000.0, 60.0) == pytest.approx(np.exp(0.5))
    weak, strong = (imaging.dose_filter(np.array([0.04], np.float32), d) for d in (10.0, 100.0))
    assert strong < weak < 1


# --- the shapes ---


@settings(max_examples=30)
@given(
    st.tuples(*[st.floats(300, 900)] * 3),
    st.floats(0, np.pi),
    st.tuples(*[st.floats(-1, 1)] * 3),
)
def test_distance_from_an_ellipsoid_is_that_to_its_nearest_point(
    axes: tuple[float, float, float], turn: float, towards: tuple[float, float, float]
) -> None:
    direction = np.array(towards) + 1e-3
    direction /= np.linalg.norm(direction)
    surface = shapes.Ellipsoid((0.0, 0.0, 0.0), axes, turn, 0.0, 1000.0, 0.0)
    cos, sin = np.cos(turn), np.sin(turn)
    turned = np.array([[1, 0, 0], [0, cos, sin], [0, -sin, cos]])  # zyx
    on_surface = turned @ (direction * axes)
    normal = turned @ (direction / axes)
    normal /= np.linalg.norm(normal)
    for offset in (-30.0, 0.0, 30.0):
        # A box of one voxel whose middle is that point.
        moved = replace(surface, centre=tuple((-on_surface - offset * normal).tolist()))
        found = shapes.surface_distance(moved, Box((0, 0, 0), (1, 1, 1)), 10.0)
        assert float(found[0, 0, 0]) == pytest.approx(offset, abs=6.0)


def test_a_coarse_distance_is_that_of_the_middles_of_cells() -> None:
    ball = shapes.Ellipsoid((30.0, 40.0, 50.0), (60.0, 60.0, 60.0), 0.0, 0.0, 1000.0, 0.0)
    box = Box((0, 0, 0), (8, 8, 8))
    coarse = shapes.surface_distance(ball, box, 10.0, every=4)
    middles = np.array([15.0, 55.0])
    radii = np.sqrt(sum(i**2 for i in np.ix_(middles - 30, middles - 40, middles - 50)))
    np.testing.assert_allclose(coarse, radii - 60, atol=1e-3)


def test_a_tube_knows_radius_and_track_of_its_voxels() -> None:
    line = np.stack([np.full(50, 200.0), np.full(50, 200.0), np.linspace(100, 345, 50)], axis=1)
    tube = shapes.tube(line, 60.0, box=Box.whole((40, 40, 45)), voxel=10.0)
    z, y, x = (i * 10.0 for i in tube.index)
    np.testing.assert_allclose(tube.radius_angstrom, np.hypot(z - 200, y - 200), atol=1e-3)
    np.testing.assert_allclose(tube.track_angstrom, x - 100, atol=1e-3)
    assert (x.min(), x.max()) == (100, 340)
    assert len(x) == 25 * sum(a * a + b * b < 36 for a in range(-6, 7) for b in range(-6, 7))


# --- beside a real tomogram ---


def neighbour_correlations(volume: NDArray[Any]) -> NDArray[np.float64]:
    """Correlation of voxels with their next neighbour along z, y, x."""
    volume = volume - ndimage.gaussian_filter(volume.astype(np.float64), 8)
    pairs = [(np.delete(volume, 0, axis), np.delete(volume, -1, axis)) for axis in range(3)]
    return np.array([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs])


@pytest.mark.skipif(not REAL.exists(), reason="the real tomograms are not beside the repository")
def test_noise_is_as_white_as_in_a_real_tomogram() -> None:
    real = tifffile.imread(REAL)
    like = PhantomParameters(shape=real.shape, voxel_size_angstrom=10.52, seed=2, microtubules=1)
    simulated = simulate(replace(like, carbon=False, gold_beads=0, double_membranes=0))
    np.testing.assert_allclose(
        neighbour_correlations(simulated.tomogram), neighbour_correlations(real), atol=0.15
    )


def test_the_middle_of_a_protofilament_has_a_density() -> None:
    ring, sector = shapes.PROTOFILAMENT_RING_ANGSTROM, 2 * np.pi / shapes.PROTOFILAMENTS
    radius = np.float32(ring) + np.linspace(-1e-4, 1e-4, 101, dtype=np.float32)
    angle = np.full(101, sector / 2, np.float32)
    index = np.zeros(101, np.intp)
    around = shapes.Tube((index, index, index), radius, angle, np.zeros(101, np.float32))
    assert np.isfinite(shapes.microtubule_density(around, 12.0)).all()
