"""Basins: touching particles apart, exactly the same whatever the blocks."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.feature import peak_local_max
from skimage.segmentation import watershed

from tomoseg.analysis.particles import (
    Basins,
    PickingSettings,
    basin_factor,
    basin_halo,
    candidate_basins,
    pick_basins,
)
from tomoseg.analysis.particles import watershed as watershed_module
from tomoseg.core.blocks import BlockGrid, Box
from tomoseg.core.errors import RequestError
from tomoseg.core.sampling import Sampling

CROWDS = Path(__file__).parents[1] / "benchmarks" / "particles.py"
VOXEL = 10.0
RIBOSOME = PickingSettings(method="watershed", radius_angstrom=120.0)
SHAPE = (64, 96, 96)
# Of radius 12 voxels: three that touch each other in turn, one alone, one cut by the border.
CENTRES = np.array([(30, 30, 30), (30, 30, 53), (32, 50, 42), (30, 78, 75), (50, 3, 70)], float)


def balls(centres, shape=SHAPE, radius=12.0, edges=(1, 1, 1)):
    """Label of balls, 1 inside; centres and radius in units of which a voxel has so many."""
    grid = np.moveaxis(np.indices(shape), 0, -1) * np.array(edges)
    away = [np.linalg.norm(grid - centre, axis=-1) for centre in centres]
    return (np.min(away, axis=0) <= radius).astype(np.float32)


def picked(label, settings=RIBOSOME, block=None, voxel=(VOXEL,) * 3):
    sampling = Sampling(label.shape, voxel)
    factor = basin_factor(settings, sampling)
    halo = basin_halo(settings, sampling)
    found = [
        candidate_basins(
            label[b.read.slices], b.core, begin=b.read.begin, sampling=sampling, settings=settings
        )
        for b in BlockGrid(label.shape, block or label.shape, halo, (factor,) * 3)
    ]
    every = Basins.concatenate(found)
    return pick_basins(every, name="ribosome", sampling=sampling, settings=settings)


def away_from(picks, centres_angstrom):
    distance, row = cKDTree(picks.particles.points_angstrom).query(centres_angstrom)
    assert len(set(row.tolist())) == len(centres_angstrom) == len(picks)
    return distance


def test_balls_that_touch_are_taken_apart():
    picks = picked(balls(CENTRES))
    # The centre of mass of the one that the border cuts lies further in.
    assert away_from(picks, CENTRES * VOXEL)[:4].max() < VOXEL
    nominal = 4 / 3 * np.pi * 12**3
    whole = picks.particles.points_angstrom[:, 1] > 200
    np.testing.assert_allclose(picks.volumes_nm3[whole], nominal, rtol=0.05)
    assert picks.particles.scores[~whole].item() == pytest.approx(0.68, abs=0.05)
    assert picks.left_out == {}


def crowd(seed, noise, shape=SHAPE):
    """Label of balls anywhere, with holes and crumbs."""
    rng = np.random.default_rng(seed)
    grain = ndimage.gaussian_filter(rng.standard_normal(shape), 1.5)
    places = rng.uniform(0, shape, (14, 3))
    return (balls(places, shape) + noise * grain / grain.std() > 0.5).astype(np.float32)


@pytest.mark.parametrize("block", [(32, 48, 40), (24, 96, 64), (63, 95, 95)])
def test_blocks_leave_no_trace(block):
    label, settings = crowd(3, 0.4), replace(RIBOSOME, minimum_volume_fraction=0.8)
    whole, parts = picked(label, settings), picked(label, settings, block=block)
    assert len(whole) > 3
    assert whole.left_out["too small"] > 0
    assert whole.left_out == parts.left_out
    np.testing.assert_array_equal(whole.particles.points_angstrom, parts.particles.points_angstrom)
    np.testing.assert_array_equal(whole.volumes_nm3, parts.volumes_nm3)


@pytest.mark.parametrize(
    ("voxel", "factor"), [((20.0, 10.0, 10.0), 1), ((5.0, 5.0, 5.0), 2), ((7.3, 7.3, 7.3), 2)]
)
def test_nor_do_they_where_voxels_are_no_cubes_or_are_binned(voxel, factor):
    # A rest of one voxel at the end of z is a block of its own without a bin.
    label, settings = crowd(5, 0.2, (33, 70, 60)), replace(RIBOSOME, maximum_volume_fraction=3.0)
    assert basin_factor(settings, Sampling(label.shape, voxel)) == factor
    whole = picked(label, settings, voxel=voxel)
    parts = picked(label, settings, block=(16, 32, 24), voxel=voxel)
    assert len(whole) + sum(whole.left_out.values()) > 1
    assert whole.left_out == parts.left_out
    np.testing.assert_array_equal(whole.particles.points_angstrom, parts.particles.points_angstrom)


def test_voxels_need_not_be_cubes():
    centres = np.array([(30, 30, 30), (30, 30, 53)], float)
    label = balls(centres, (32, 64, 84), edges=(2, 1, 1))
    picks = picked(label, voxel=(20.0, 10.0, 10.0))
    assert away_from(picks, centres * VOXEL).max() < VOXEL


def test_too_short_a_halo_would_show(monkeypatch):
    """The tests of blocks can fail: without steps and depth, basins end near the faces."""
    label = crowd(3, 0.0)
    whole = picked(label)
    for module in (watershed_module, sys.modules[__name__]):
        monkeypatch.setattr(module, "basin_halo", lambda *_: (8, 8, 8))
    parts = picked(label, block=(64, 48, 48))
    assert not np.array_equal(whole.volumes_nm3, parts.volumes_nm3)


def test_as_a_watershed_of_another_library_has_it():
    label = balls(CENTRES)
    mask = ndimage.gaussian_filter(label, 1) >= 0.5
    depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(mask), 1)
    tops = peak_local_max(depth, min_distance=9, threshold_abs=3.6, exclude_border=False, p_norm=2)
    markers = np.zeros(label.shape, int)
    markers[tuple(tops.T)] = np.arange(1, len(tops) + 1)
    basins = watershed(-depth, markers, mask=mask)
    number = range(1, len(tops) + 1)
    theirs = np.array(ndimage.center_of_mass(mask, basins, number)) * VOXEL
    sizes = np.bincount(basins.ravel())[1:]
    picks = picked(label)
    away, row = cKDTree(theirs).query(picks.particles.points_angstrom)
    assert len(theirs) == len(picks) == len(CENTRES)
    assert away.max() < 0.5 * VOXEL
    np.testing.assert_allclose(picks.volumes_nm3, sizes[row], rtol=0.05)


def test_a_noisy_crowd_is_picked_as_well_as_by_another_library():
    """A smaller version of tests/benchmarks/particles.py; components find next to nothing here."""
    spec = importlib.util.spec_from_file_location("crowds", CROWDS)
    crowds = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(crowds)
    centres, shape = crowds.crowd(40, 0.6, 3)
    score = crowds.score_map(centres, shape, 0.4, 3)
    found = {method: crowds.f1_of(method, score, centres) for method in crowds.METHODS}
    assert found["watershed"] >= max(0.95, found["watershed of scikit-image"] - 0.02)
    assert found["peaks"] >= 0.98
    assert found["components"] < 0.5


@pytest.mark.parametrize(("radius", "count"), [(12, 1), (17, 1), (24, 0)])
def test_what_is_far_too_large_is_no_particle(radius, count):
    label = balls([(32, 48, 48)], radius=radius)
    assert len(picked(label)) == count


def test_a_tube_is_no_reservoir():
    """Along a tube as thick as a particle, what lies beyond 1.5 radii of a top is not its own."""
    y, x = np.indices(SHAPE)[1:, 0]
    tube = np.broadcast_to(np.hypot(y - 48, x - 48) <= 12, SHAPE).astype(np.float32)
    most = 36 * np.pi * 12**2
    assert (picked(tube).volumes_nm3 <= most).all()


@pytest.mark.parametrize("block", [None, (1, 50, 64)])
def test_discs_of_a_micrograph(block):
    y, x = np.indices((120, 160))
    centres = [(60, 50), (60, 78), (30, 120)]
    away = np.min([np.hypot(y - centre[0], x - centre[1]) for centre in centres], axis=0)
    label = (away <= 15).astype(np.float32)[np.newaxis]
    settings = PickingSettings(
        method="watershed", radius_angstrom=60.0, minimum_volume_fraction=0.9
    )
    picks = picked(label, settings, block=block, voxel=(4.0,) * 3)
    truth = [(0, 4 * a, 4 * b) for a, b in centres]
    assert away_from(picks, np.array(truth, float)).max() < 4


def test_no_label_gives_no_particle():
    assert len(picked(np.zeros(SHAPE, np.float32))) == 0
    assert len(picked(np.ones(SHAPE, np.float32))) == 0


def test_a_particle_of_two_voxels_is_refused():
    with pytest.raises(RequestError, match="at least 3"):
        basin_factor(replace(RIBOSOME, radius_angstrom=20.0), Sampling(SHAPE, (VOXEL,) * 3))


def test_a_block_read_without_its_halo_is_refused():
    with pytest.raises(RequestError, match="halo"):
        candidate_basins(
            np.zeros((48, 48, 48), np.float32),
            Box((8, 8, 8), (40, 40, 40)),
            begin=(32, 32, 32),
            sampling=Sampling((128, 128, 128), (VOXEL,) * 3),
            settings=RIBOSOME,
        )
