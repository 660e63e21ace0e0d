"""Surfaces of masks: closed, outward, of the right size, and the same for any blocks."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from tomoseg.analysis.meshes import Mesh, bins_for, surface
from tomoseg.core.blocks import BlockGrid, Box
from tomoseg.core.sampling import Sampling

SHAPE = (30, 34, 38)
GRID = Sampling(SHAPE, (10.0, 10.0, 10.0), (5.0, 5.0, 5.0))
PLACES = np.moveaxis(np.indices(SHAPE), 0, -1)


def ball(centre, radius):
    return np.linalg.norm(PLACES - centre, axis=-1) <= radius


def mesh_of(mask, block=SHAPE, grid=GRID) -> Mesh:
    return surface(
        lambda box: mask[box.slices].astype(np.float32), grid, BlockGrid(mask.shape, block)
    )


def oracle(mesh: Mesh) -> trimesh.Trimesh:
    return trimesh.Trimesh(mesh.corners_angstrom[:, ::-1], mesh.triangles, process=False)


def test_a_ball_is_closed_outward_and_of_its_volume() -> None:
    found = oracle(mesh_of(ball((14, 16, 18), 10)))
    assert found.is_watertight and found.is_winding_consistent
    # Smoothing by 0.7 voxels takes about σ²/r off the radius: 1.5% of the volume.
    assert found.volume == pytest.approx(4 / 3 * np.pi * 100**3, rel=0.03)
    assert found.area == pytest.approx(4 * np.pi * 100**2, rel=0.03)
    np.testing.assert_allclose(found.center_mass, (185, 165, 145), atol=0.1)
    outward = found.face_normals * (found.triangles_center - (185, 165, 145))
    assert (outward.sum(axis=1) > 0).all()


def test_a_hollow_ball_faces_its_hole() -> None:
    found = oracle(mesh_of(ball((14, 16, 18), 11) & ~ball((14, 16, 18), 6)))
    assert found.is_watertight and found.body_count == 2
    assert found.volume == pytest.approx(4 / 3 * np.pi * (110**3 - 60**3), rel=0.05)


@pytest.mark.parametrize("block", [(8, 8, 8), (30, 7, 38), (13, 17, 9), (29, 33, 37)])
def test_any_blocks_give_the_same_triangles(block) -> None:
    mask = ball((14, 16, 18), 10)
    mask[:, :, 25:] = np.random.default_rng(1).random((30, 34, 13)) > 0.6
    whole, parts = mesh_of(mask), mesh_of(mask, block)
    assert len(parts.corners_angstrom) == len(whole.corners_angstrom)

    def triangles(mesh):
        corners = mesh.corners_angstrom[mesh.triangles]
        first = np.lexsort(corners.transpose(2, 0, 1)[::-1], axis=1)[:, 0]
        turned = [np.roll(t, -f, axis=0).ravel() for t, f in zip(corners, first, strict=True)]
        return np.unique(turned, axis=0)

    np.testing.assert_array_equal(triangles(parts), triangles(whole))


def test_blocks_share_corners_so_that_a_ball_across_them_stays_closed() -> None:
    found = oracle(mesh_of(ball((14, 16, 18), 10), (8, 9, 10)))
    assert found.is_watertight and found.body_count == 1


def test_what_the_border_cuts_is_open_there_and_nowhere_else() -> None:
    mask = ball((0, 16, 18), 10)
    found = oracle(mesh_of(mask, (8, 16, 16)))
    assert not found.is_watertight and found.is_winding_consistent
    edges = found.edges_sorted[
        trimesh.grouping.group_rows(found.edges_sorted, require_count=1)
    ].ravel()
    # The volume's first layer of voxel centres.
    np.testing.assert_allclose(found.vertices[edges][:, 2], 5.0)


def test_a_sheet_of_one_voxel_is_kept() -> None:
    mask = np.zeros(SHAPE, bool)
    mask[15, 5:30, 5:30] = True
    assert oracle(mesh_of(mask)).area > 2 * 200 * 200


def test_nothing_has_no_triangles() -> None:
    mesh = mesh_of(np.zeros(SHAPE, bool))
    assert mesh.corners_angstrom.shape == (0, 3) and mesh.triangles.shape == (0, 3)
    assert not len(mesh_of(np.ones(SHAPE, bool)).triangles)


def test_no_more_than_a_block_with_its_margin_is_read() -> None:
    shapes = []

    def read(box: Box):
        shapes.append(box.shape)
        return np.zeros(box.shape, np.float32)

    surface(read, GRID, BlockGrid(SHAPE, (8, 8, 8)))
    assert np.max(shapes, axis=0).tolist() == [15, 15, 15]


def test_the_least_binning_that_fits_is_taken() -> None:
    assert bins_for((10, 20, 30), 6000) == 1
    assert bins_for((10, 20, 30), 5999) == 2
    assert bins_for((512, 2048, 2048), 2**27) == 3
