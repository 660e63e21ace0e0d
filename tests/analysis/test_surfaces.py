import gzip
import io
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.measure import marching_cubes, mesh_surface_area

from tomoseg.analysis.surfaces import (
    SheetPoints,
    SurfaceSettings,
    connected_surfaces,
    sample_surfaces,
    sheet_points,
    surface_defaults,
    surface_factor,
    surface_halo,
)
from tomoseg.core.blocks import BlockGrid, Box
from tomoseg.core.errors import RequestError
from tomoseg.core.sampling import Sampling
from tomoseg.io.volumes.mrc import MrcReader
from tomoseg.simulation import PhantomParameters, shapes
from tomoseg.simulation.canvas import Canvas
from tomoseg.simulation.membranes import draw_membrane, paint_membrane
from tomoseg.simulation.parameters import CLASSES

DATA = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "cryoet"
VOXEL = 10.0
BILAYER = SurfaceSettings()


def grid(shape, voxel=VOXEL):
    """Positions of voxels, zyx, Å."""
    return np.indices(shape, dtype=np.float32) * np.float32(voxel)


def sheet(distance, thickness=60.0, voxel=VOXEL):
    """Score map of a membrane around a surface, of distances in Å: soft over a voxel."""
    return np.clip((thickness / 2 - np.abs(distance)) / voxel + 0.5, 0, 1).astype(np.float32)


def ball(shape, centre, radius):
    """Distance from a sphere, Å, negative inside."""
    offset = grid(shape) - np.array(centre, np.float32)[:, None, None, None]
    return np.sqrt((offset**2).sum(axis=0)) - np.float32(radius)


def places(score, settings=BILAYER, block=None, voxel=VOXEL):
    sampling = Sampling(score.shape, (voxel,) * 3)
    factor = surface_factor(settings, sampling)
    blocks = BlockGrid(
        score.shape, block or score.shape, surface_halo(settings, sampling), (factor,) * 3
    )
    parts = [
        sheet_points(
            score[b.read.slices], b.core, begin=b.read.begin, sampling=sampling, settings=settings
        )
        for b in blocks
    ]
    return SheetPoints.concatenate(parts)


def sampled(score, settings=BILAYER, block=None, voxel=VOXEL):
    how = {"sampling": Sampling(score.shape, (voxel,) * 3), "settings": settings}
    found = connected_surfaces(places(score, settings, block, voxel), **how)
    return sample_surfaces(found, name="membrane", **how)


def normals(found):
    return found.particles.orientations[:, ::-1, 2]


def degrees(found, truth):
    """Angles between normals and true ones, 0..180."""
    return np.degrees(np.arccos(np.clip((normals(found) * truth).sum(axis=1), -1, 1)))


def outward(found, centre):
    """Unit vectors from a centre, and distances from it."""
    away = found.particles.points_angstrom - centre
    return away / np.linalg.norm(away, axis=1)[:, None], np.linalg.norm(away, axis=1)


@pytest.mark.parametrize(
    ("radius", "thickness", "is_binary"),
    [(150, 60, True), (250, 60, False), (250, 45, True), (400, 60, True), (400, 90, True)],
)
def test_a_sphere_has_its_area_normals_and_thickness(radius, thickness, is_binary):
    centre = np.array([radius + 104.0, radius + 97.0, radius + 101.5])
    distance = ball((2 * (radius + 100) // 10,) * 3, centre, radius)
    score = sheet(distance, thickness)
    found = sampled((np.abs(distance) < thickness / 2).astype(np.float32) if is_binary else score)
    along, reach = outward(found, centre)
    assert found.surface.max() == 1
    assert found.area_angstrom2.sum() == pytest.approx(4 * np.pi * radius**2, rel=0.015)
    assert np.abs(reach - radius).max() < 0.5 * VOXEL
    assert abs((reach - radius).mean()) < 0.1 * VOXEL
    angles = degrees(found, along)
    assert np.median(angles) < 0.75 and angles.max() < 4
    assert found.thickness_angstrom == pytest.approx(thickness, abs=0.5 * VOXEL)


def test_points_are_as_far_apart_as_asked_and_leave_nothing_out():
    centre = np.array([350.0, 353, 348])
    score = sheet(ball((70, 70, 70), centre, 250))
    settings = SurfaceSettings(spacing_angstrom=80)
    found = sampled(score, settings)
    at = found.particles.points_angstrom
    assert cKDTree(at).query(at, 2)[0][:, 1].min() >= 80
    everywhere = places(score, settings).points_angstrom
    assert cKDTree(at).query(everywhere)[0].max() <= 80
    # Random sequential points that leave no room for another cover 0.547 by discs of half the
    # spacing (Feder 1980).
    cover = len(at) * np.pi * 40**2 / (4 * np.pi * 250**2)
    assert cover == pytest.approx(0.547, abs=0.06)
    assert found.area_angstrom2.min() > np.pi * 40**2


def test_a_sheet_across_the_volume_has_its_area():
    z, y, x = grid((60, 90, 80))
    normal = np.array([1, -0.25, 0.4]) / np.linalg.norm([1, -0.25, 0.4])
    distance = (z - 240 + -0.25 * (y - 300) + 0.4 * (x - 400)) * normal[0]
    found = sampled(sheet(distance))
    assert found.area_angstrom2.sum() == pytest.approx(90 * 80 * VOXEL**2 / normal[0], rel=0.02)
    inner = (np.abs(found.particles.points_angstrom[:, 1:] - [445, 395]) < [345, 295]).all(axis=1)
    # Flat, it faces along +z, which it faces most.
    assert degrees(found, normal)[inner].max() < 1.5
    assert (normals(found)[:, 0] > 0).all()


def test_a_tube_faces_away_from_its_axis():
    _, y, x = grid((50, 90, 90))
    found = sampled(sheet(np.hypot(y - 440, x - 452) - 260))
    assert found.area_angstrom2.sum() == pytest.approx(2 * np.pi * 260 * 500, rel=0.02)
    away = found.particles.points_angstrom - np.array([0, 440, 452])
    away[:, 0] = 0
    assert degrees(found, away / np.linalg.norm(away, axis=1)[:, None]).max() < 3


def test_a_patch_ends_near_its_rim():
    z, y, x = grid((40, 110, 110))
    radius = np.hypot(y - 550, x - 550)
    found = sampled(sheet(z - 200) * (radius < 400))
    lost = 400 - np.sqrt(found.area_angstrom2.sum() / np.pi)
    assert 0 < lost < 30
    assert degrees(found, np.array([1.0, 0, 0])).max() < 10


def test_membranes_that_touch_stay_apart():
    # The outer faces of two vesicles meet in a point.
    one, two = np.array([300.0, 300, 300]), np.array([300.0, 300, 300 + 2 * 180 + 60])
    distance = [ball((60, 60, 102), centre, 180) for centre in (one, two)]
    found = sampled(np.maximum(*[sheet(each) for each in distance]))
    assert found.surface.max() == 2
    whole = 4 * np.pi * 180**2
    for surface in (1, 2):
        mine = found.surface == surface
        part = found.particles.select(mine)
        centre = min((one, two), key=lambda c: np.linalg.norm(part.points_angstrom.mean(0) - c))
        away = part.points_angstrom - centre
        assert ((part.orientations[:, ::-1, 2] * away).sum(axis=1) > 0).all()
        assert 0.8 * whole < found.area_angstrom2[mine].sum() < 1.02 * whole


def test_a_sheet_that_ends_on_another_is_a_surface_of_its_own():
    _, y, x = grid((50, 70, 80))
    wall, branch = sheet(x - 300), sheet(y - 350) * (x > 300)
    found = sampled(np.maximum(wall, branch))
    # The wall is cut where the branch meets it.
    assert found.surface.max() == 3
    facing = [np.abs(normals(found)[found.surface == k]).mean(axis=0) for k in (1, 2, 3)]
    assert sorted(each.argmax() for each in facing) == [1, 2, 2]
    assert min(each.max() for each in facing) > 0.98


def test_both_sides_of_a_flat_sac_are_sampled():
    z, y, x = grid((40, 90, 90))
    # A sac 16 nm high with a round rim, its sides nearer to each other than the spacing.
    beyond = np.maximum(np.hypot(y - 450, x - 450) - 250, 0)
    found = sampled(sheet(np.hypot(z - 200, beyond) - 80), SurfaceSettings(spacing_angstrom=180))
    assert found.surface.max() == 1
    up = normals(found)[:, 0]
    height = found.particles.points_angstrom[:, 0] - 200
    assert (up[height > 70] > 0.9).all() and (up[height < -70] < -0.9).all()
    assert (height > 70).sum() >= 3 and (height < -70).sum() >= 3
    # Two discs and the outer half of a torus.
    area = 2 * np.pi * 250**2 + 2 * np.pi**2 * 250 * 80 + 4 * np.pi * 80**2
    assert found.area_angstrom2.sum() == pytest.approx(area, rel=0.05)


def test_a_membrane_within_another_faces_out_too():
    centre = np.array([400.0, 400, 400])
    out, within = ball((80, 80, 80), centre, 300), ball((80, 80, 80), centre, 160)
    found = sampled(np.maximum(sheet(out), sheet(within)))
    assert found.surface.max() == 2
    along, reach = outward(found, centre)
    assert degrees(found, along).max() < 3
    assert reach[found.surface == 1] == pytest.approx(300, abs=4)
    assert reach[found.surface == 2] == pytest.approx(160, abs=4)


def test_holes_and_noise_leave_one_surface():
    centre, shape = np.array([400.0, 400, 400]), (80, 80, 80)
    distance = ball(shape, centre, 300)
    rng = np.random.default_rng(3)
    grain = ndimage.gaussian_filter(rng.standard_normal(shape), 1.0)
    hole = np.hypot(*(grid(shape)[1:] - 400)) < 80
    hole &= grid(shape)[0] > 400
    score = np.clip(0.85 * sheet(distance) * ~hole + 0.05 + 0.1 * grain / grain.std(), 0, 1)
    found = sampled(score.astype(np.float32))
    assert found.surface.max() == 1
    cap = 2 * np.pi * 300 * (300 - np.sqrt(300**2 - 80**2))
    rest = 4 * np.pi * 300**2 - cap
    assert found.area_angstrom2.sum() == pytest.approx(rest, rel=0.04)
    along, reach = outward(found, centre)
    assert np.median(degrees(found, along)) < 2 and degrees(found, along).max() < 15
    assert np.sqrt(((reach - 300) ** 2).mean()) < 0.5 * VOXEL


@pytest.mark.parametrize("block", [(16, 24, 40), (30, 61, 20), (61, 18, 50)])
@pytest.mark.parametrize("thickness", [60.0, 200.0])
def test_blocks_leave_no_trace(block, thickness):
    shape = (61, 70, 83)
    rng = np.random.default_rng(0)
    grain = ndimage.gaussian_filter(rng.standard_normal(shape), 1.0)
    distance = np.minimum(
        ball(shape, (150, 300, 300), 230), np.abs(grid(shape)[2] - 700 + grid(shape)[0] / 3)
    )
    score = np.clip(sheet(distance, thickness) + 0.1 * grain / grain.std(), 0, 1)
    settings = SurfaceSettings(thickness_angstrom=thickness)
    block = tuple(n // 2 * 2 for n in block)
    whole, parts = (places(score.astype(np.float32), settings, b) for b in (None, block))
    assert len(whole) > 200
    order = np.lexsort(parts.index.T[::-1])
    for name, values in whole.as_dict().items():
        np.testing.assert_array_equal(parts.as_dict()[name][order], values)
    sampling = Sampling(shape, (VOXEL,) * 3)
    how = {"sampling": sampling, "settings": settings}
    one, other = (
        sample_surfaces(connected_surfaces(each, **how), name="m", **how)
        for each in (whole, parts.select(rng.permutation(len(parts))))
    )
    np.testing.assert_array_equal(one.particles.orientations, other.particles.orientations)
    np.testing.assert_array_equal(one.particles.points_angstrom, other.particles.points_angstrom)
    np.testing.assert_array_equal(one.area_angstrom2, other.area_angstrom2)


def test_points_come_by_surface_from_the_lowest_up():
    one, two = (ball((60, 60, 120), (300, 300, x), r) for x, r in ((300, 150), (800, 220)))
    found = sampled(np.maximum(sheet(one), sheet(two)))
    assert (np.diff(found.surface) >= 0).all() and found.surface.max() == 2
    areas = [found.area_angstrom2[found.surface == k].sum() for k in (1, 2)]
    assert areas[0] > areas[1]
    for surface in (1, 2):
        heights = found.particles.points_angstrom[found.surface == surface, 0]
        assert (np.diff(heights) > -1.5 * VOXEL).all()
    large = sampled(
        np.maximum(sheet(one), sheet(two)), SurfaceSettings(minimum_area_nm2=np.pi * 4 * 17**2)
    )
    assert large.surface.max() == 1
    assert (large.particles.points_angstrom[:, 2] > 500).all()


def test_the_roll_is_drawn_from_the_place_or_left_out():
    score = sheet(ball((70, 70, 70), (350, 350, 350), 250))
    turned = sampled(score, SurfaceSettings(spacing_angstrom=40)).particles.orientations
    plain = sampled(score, SurfaceSettings(spacing_angstrom=40, roll="none"))
    still = plain.particles.orientations
    np.testing.assert_allclose(turned[:, :, 2], still[:, :, 2])
    identity = np.broadcast_to(np.eye(3), turned.shape)
    np.testing.assert_allclose(turned.transpose(0, 2, 1) @ turned, identity, atol=1e-6)
    np.testing.assert_allclose(np.linalg.det(turned), 1, atol=1e-6)
    # The last row of a frame with RELION's rot = 0 has no part along its own y.
    np.testing.assert_allclose(still[:, 2, 1], 0, atol=1e-6)
    roll = np.arctan2(
        (turned[:, :, 0] * still[:, :, 1]).sum(axis=1),
        (turned[:, :, 0] * still[:, :, 0]).sum(axis=1),
    )
    counts, _ = np.histogram(roll, 4, (-np.pi, np.pi))
    assert len(roll) > 200 and counts.min() > 0.15 * len(roll)


def test_nothing_gives_nothing():
    found = sampled(np.zeros((30, 40, 50), np.float32))
    assert len(found.particles) == len(found.surface) == len(found.area_angstrom2) == 0
    noise = np.random.default_rng(0).random((30, 40, 50), np.float32)
    assert len(sampled(noise / 4).particles) == 0


@pytest.mark.parametrize(
    ("shape", "voxel", "message"),
    [((1, 64, 64), 10.0, "micrograph"), ((32, 64, 64), 40.0, "1.50 voxels thick")],
)
def test_what_cannot_be_sampled_is_refused(shape, voxel, message):
    with pytest.raises(RequestError, match=message):
        sampled(np.zeros(shape, np.float32), voxel=voxel)


@pytest.mark.parametrize(
    "wrong",
    [
        {"thickness_angstrom": 0},
        {"spacing_angstrom": -5},
        {"threshold": 1.5},
        {"link_degrees": 90},
        {"minimum_area_nm2": float("nan")},
        {"roll": "some"},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(RequestError, match=next(iter(wrong))):
        SurfaceSettings(**wrong)


def painted(name, seed, count, shape=(80, 200, 200), voxel=12.0):
    """Membranes of a phantom: their labels, the box that they fill, and what was painted."""
    canvas = Canvas.blank(PhantomParameters(shape=shape, voxel_size_angstrom=voxel, seed=seed))
    draw, membranes = np.random.default_rng(seed), []
    for _ in range(count):
        for attempt in range(20):
            membrane = draw_membrane(canvas, draw, name=name, attempt=attempt)
            if paint_membrane(canvas, membrane):
                membranes.append(membrane)
                break
    return canvas.labels == CLASSES.index(name) + 1, canvas.slab, membranes


def meshed(membranes, box, voxel=12.0):
    """Area, points and outward normals of the true mid-surfaces, by marching cubes."""
    area, points, facing = 0.0, [], []
    for membrane in membranes:
        distance = shapes.surface_distance(membrane.surface, box, voxel) + membrane.gap_angstrom / 2
        vertices, triangles, _, _ = marching_cubes(distance, 0, spacing=(voxel,) * 3)
        area += mesh_surface_area(vertices, triangles)
        slope = np.stack(np.gradient(distance, voxel), axis=-1)
        slope = slope[tuple(np.rint(vertices / voxel).astype(int).T)]
        points.append(vertices + np.array(box.begin) * voxel)
        facing.append(slope / np.linalg.norm(slope, axis=1)[:, None])
    return area, np.concatenate(points), np.concatenate(facing)


@pytest.mark.parametrize(
    ("name", "seed", "count", "area_error"),
    [("single_membrane", 2, 5, 0.03), ("double_membrane", 1, 2, 0.12)],
)
def test_membranes_of_a_phantom(name, seed, count, area_error):
    labels, box, membranes = painted(name, seed, count)
    found = sampled(labels.astype(np.float32), surface_defaults(name), voxel=12.0)
    area, points, facing = meshed(membranes, box)
    assert found.surface.max() == len(membranes)
    # A double membrane is 26 nm thick, and its cut ends at the sample's faces lose up to 7 nm.
    assert found.area_angstrom2.sum() == pytest.approx(area, rel=area_error)
    distance, nearest = cKDTree(points).query(found.particles.points_angstrom)
    angles = degrees(found, facing[nearest])
    assert np.median(distance) < 12
    assert np.median(angles) < 2 and (angles < 20).mean() > 0.95 and angles.max() < 90


def read_map(name):
    """Header and voxels of a map of the shared data."""
    source = DATA / "membrane_labels" / name
    if not source.exists():
        pytest.skip("the shared data are not here")
    reader = MrcReader(io.BytesIO(gzip.decompress(source.read_bytes())))
    return reader.header, reader.read(Box.whole(reader.header.sampling.shape))


def test_particles_of_a_thylakoid_lie_on_it_if_its_origin_is_honoured():
    header, voxels = read_map("T1S4M8_crop.mrc.gz")
    voxel = header.sampling.voxel_angstrom
    found = sampled(
        (voxels > 0).astype(np.float32), SurfaceSettings(spacing_angstrom=40), voxel=voxel
    )
    text = (DATA / "membrane_labels" / "T1S4M8.xml").read_text(encoding="utf-16")
    known = re.findall(r'<Point ID="\d+" Position="([^"]+)"', text)
    absolute = np.array([place.split(",") for place in known], float)[:, ::-1]
    assert len(absolute) == 17
    tree = cKDTree(found.particles.points_angstrom)
    inside, nearest = tree.query(absolute - header.origin_angstrom)
    assert tree.query(absolute)[0].min() > 100 * voxel
    # They were picked on the label's face.
    assert inside.max() < 4 * voxel
    away = (absolute - header.origin_angstrom) - found.particles.points_angstrom[nearest]
    height = np.abs((away * normals(found)[nearest]).sum(axis=1))
    assert np.abs(height - found.thickness_angstrom[nearest] / 2).max() < voxel


@pytest.mark.parametrize(
    ("name", "label", "surfaces"),
    [("T1S4M8_crop.mrc.gz", 1, 1), ("mitochondrion_TE1_crop256.mrc.gz", 2, 6)],
)
def test_area_by_thickness_is_the_volume_of_a_real_label(name, label, surfaces):
    header, voxels = read_map(name)
    mask = voxels == label
    found = sampled(mask.astype(np.float32), voxel=header.sampling.voxel_angstrom)
    assert found.surface.max() == surfaces
    volume = (found.area_angstrom2 * found.thickness_angstrom).sum() / 1000
    assert volume == pytest.approx(mask.sum() * header.sampling.voxel_volume_nm3, rel=0.06)
    # Every surface lies in one component of the label.
    parts, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    _, nearest = ndimage.distance_transform_edt(~mask, return_indices=True)
    at = np.rint(header.sampling.to_voxels(found.particles.points_angstrom)).astype(int)
    part = parts[tuple(nearest[:, *at.T])]
    assert all(len(set(part[found.surface == k])) == 1 for k in range(1, surfaces + 1))
