"""OBJ and STL, read back by trimesh."""

from __future__ import annotations

import io

import numpy as np
import pytest
import trimesh

from tomoseg.analysis.meshes import Mesh
from tomoseg.core.sampling import Header, Sampling
from tomoseg.io.volumes import meshes
from tomoseg.io.volumes.meshes import place_of, write_obj, write_stl

# A box 10 × 20 × 30 Å (x, y, z) at (1, 2, 3), with triangles as trimesh turns them.
_BOX = trimesh.creation.box((10, 20, 30))
CORNERS = np.asarray(_BOX.vertices) + np.array([6, 12, 18])
MESH = Mesh(CORNERS[:, ::-1].astype(np.float32), np.asarray(_BOX.faces, np.int64))
WRITERS = {"obj": write_obj, "stl": write_stl}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("rows", [5, 100_000])
def test_trimesh_reads_place_volume_and_orientation(kind, rows, monkeypatch) -> None:
    monkeypatch.setattr(meshes, "_ROWS", rows)
    file = io.BytesIO()
    WRITERS[kind](file, MESH, "actin", origin=(100.0, 0.0, -5.0))
    file.seek(0)
    found = trimesh.load_mesh(file, file_type=kind)
    assert len(found.faces) == 12 and found.is_watertight
    assert found.volume == pytest.approx(6000)
    np.testing.assert_allclose(found.bounds, [[-4, 2, 103], [6, 22, 133]], atol=1e-3)


def test_the_normals_of_stl_point_outward() -> None:
    file = io.BytesIO()
    write_stl(file, MESH, "actin")
    raw = file.getvalue()
    assert len(raw) == 84 + 50 * 12 and not raw.startswith(b"solid")
    rows = np.frombuffer(raw[84:], meshes._STL_TRIANGLE)
    outward = rows["corners"].mean(axis=1) - (6, 12, 18)
    assert ((rows["normal"] * outward).sum(axis=1) > 0).all()
    np.testing.assert_allclose(np.linalg.norm(rows["normal"], axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("kind", WRITERS)
def test_no_triangles_are_a_file_of_none(kind) -> None:
    file = io.BytesIO()
    WRITERS[kind](file, Mesh(np.empty((0, 3), np.float32), np.empty((0, 3), np.int64)), "actin")
    text = file.getvalue()
    assert len(text) == 84 if kind == "stl" else b"\nv " not in text


def test_a_surface_lies_where_chimera_puts_the_map() -> None:
    grid = Sampling((4, 5, 6), (10.0, 20.0, 30.0))
    assert place_of(Header(grid, "int8")) == (0.0, 0.0, 0.0)
    assert place_of(Header(grid, "int8", start_voxels=(1, -2, 3))) == (10.0, -40.0, 90.0)
    origin = (0.0, 7.0, 0.0)
    assert place_of(Header(grid, "int8", origin, start_voxels=(1, -2, 3))) == origin
    # It takes the number as it stands, of IMOD's files too.
    assert place_of(Header(grid, "int8", origin, has_imods_origin=True)) == (0.0, -7.0, 0.0)
