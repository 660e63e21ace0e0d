import numpy as np
import pytest
import surface_distance
from hypothesis import given, settings
from hypothesis import strategies as st

from tomoseg.analysis.metrics import surface_areas, surface_counts, surface_dice, surface_halo
from tomoseg.core.blocks import BlockGrid, Box

FLAT = (40.0, 10.0, 20.0)


def compared(found, truth, tolerance, voxel_size=(10.0, 10.0, 10.0), annotated=None):
    areas = [surface_areas(mask, voxel_size, annotated=annotated) for mask in (found, truth)]
    return surface_counts(
        *areas,
        Box.whole(found.shape),
        voxel_size_angstrom=voxel_size,
        tolerance_angstrom=tolerance,
    )


def slab(begin, end, shape=(30, 6, 5)):
    mask = np.zeros(shape, bool)
    mask[begin:end] = True
    return mask


def blobs(seed, shape=(12, 13, 14)):
    """Return a mask of random voxels: every one of the 256 neighbourhoods occurs."""
    return np.random.default_rng(seed).random(shape) < 0.5


def test_the_area_of_a_plane_is_its_extent():
    # Between z = 3 and 4 runs a plane; away from the box's sides each cell of it is 10 × 20 Å².
    areas = surface_areas(slab(0, 4), FLAT)
    assert areas.shape == (31, 7, 6)
    np.testing.assert_allclose(areas[4, 1:-1, 1:-1], 10 * 20, rtol=1e-6)
    assert not areas[5:].any() and not areas[1:4, 1:-1, 1:-1].any()


def test_the_area_of_a_single_voxel_is_that_of_an_octahedron():
    # Marching cubes cuts each edge to the six neighbours in the middle: for a voxel of a × b × c
    # eight triangles of ½ |(a/2, -b/2, 0) × (a/2, 0, -c/2)| = √(b²c² + a²c² + a²b²) / 8.
    voxel = np.zeros((3, 3, 3), bool)
    voxel[1, 1, 1] = True
    a, b, c = FLAT
    expected = np.sqrt((b * c) ** 2 + (a * c) ** 2 + (a * b) ** 2)
    assert surface_areas(voxel, FLAT).sum() == pytest.approx(expected)


def test_a_boundary_within_the_tolerance_counts_as_found():
    # One face lies 2 voxels off, the other where it should; both lie within the sides of a box,
    # which agree but for the 2 slices that only the truth has.
    found, truth = slab(10, 18), slab(10, 20)
    assert surface_dice(compared(found, truth, 20.0)) == 1
    counts = compared(found, truth, 19.9)
    off = counts[:, 1] - counts[:, 0]
    # Of the found face all but the rim, which is near the sides of the truth, is off.
    assert off[0] == pytest.approx(100 * (6 - 3) * (5 - 3))
    assert 0 < surface_dice(counts) < 1


def test_the_tolerance_is_a_distance_in_space():
    found, truth = slab(10, 19), slab(10, 20)
    assert surface_dice(compared(found, truth, 40.0, FLAT)) == 1
    assert surface_dice(compared(found, truth, 39.0, FLAT)) < 1
    moved = np.roll(truth, 1, axis=1)
    assert surface_dice(compared(moved, truth, 10.0, FLAT)) == 1


@pytest.mark.parametrize(("found", "truth", "dice"), [(0, 0, np.nan), (8, 0, 0), (0, 8, 0)])
def test_empty_masks_are_scored_as_far_as_can_be(found, truth, dice):
    counts = compared(slab(0, found), slab(0, truth), 20.0)
    np.testing.assert_equal(surface_dice(counts), dice)


def test_what_is_not_annotated_is_left_out():
    annotated = np.ones((30, 6, 5), bool)
    annotated[15:] = False
    found, truth = slab(10, 25), slab(10, 20)
    assert surface_dice(compared(found, truth, 10.0)) < 1
    # The cut through the object at the end of the annotation is no surface.
    counts = compared(found, truth, 10.0, annotated=annotated)
    assert surface_dice(counts) == 1
    areas = surface_areas(truth, (10.0, 10.0, 10.0), annotated=annotated)
    assert areas[10:15].any() and not areas[15:].any()


@settings(max_examples=12)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 10.0, 25.0, 45.0]))
@pytest.mark.filterwarnings("ignore:Please (use|import):DeprecationWarning")
def test_counts_equal_those_of_the_authors_of_the_measure(seed, tolerance):
    found, truth = blobs(seed), blobs(seed + 1)
    theirs = surface_distance.compute_surface_distances(truth, found, FLAT)
    overlap = surface_distance.compute_surface_overlap_at_tolerance(theirs, tolerance)
    counts = compared(found, truth, tolerance, FLAT)
    np.testing.assert_allclose(counts[::-1, 0] / counts[::-1, 1], overlap, rtol=1e-5)
    assert surface_dice(counts) == pytest.approx(
        surface_distance.compute_surface_dice_at_tolerance(theirs, tolerance), rel=1e-5
    )
    assert counts[1, 1] == pytest.approx(theirs["surfel_areas_gt"].sum(), rel=1e-5)


@settings(max_examples=10)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 20.0, 45.0]))
def test_blocks_add_up_to_the_volume(seed, tolerance):
    found, truth = blobs(seed) & blobs(seed + 2), blobs(seed + 1) & blobs(seed + 3)
    whole = compared(found, truth, tolerance, FLAT)
    halo = surface_halo(FLAT, tolerance)
    parts = np.zeros((2, 2))
    for block in BlockGrid(found.shape, (5, 4, 6), halo=halo):
        areas = [surface_areas(mask[block.read.slices], FLAT) for mask in (found, truth)]
        parts += surface_counts(
            *areas, block.core, voxel_size_angstrom=FLAT, tolerance_angstrom=tolerance
        )
    np.testing.assert_allclose(parts, whole, rtol=1e-5)
