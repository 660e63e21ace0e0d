"""Contact zones of surfaces whose areas are known by hand."""

import numpy as np
import pytest

from tomoseg.analysis.surfaces import SurfaceSettings, connected_surfaces, contacts, sheet_points
from tomoseg.core.blocks import Box
from tomoseg.core.sampling import Sampling

VOXEL = 10.0
SETTINGS = SurfaceSettings()


def surfaces(*distances):
    """Surfaces of membranes 60 Å thick, of distances from their middles in Å; soft over a voxel."""
    score = np.zeros(distances[0].shape, np.float32)
    for distance in distances:
        score = np.maximum(score, np.clip((30 - np.abs(distance)) / VOXEL + 0.5, 0, 1))
    sampling = Sampling(score.shape, (VOXEL,) * 3)
    whole = Box.whole(score.shape)
    points = sheet_points(
        score.astype(np.float32), whole, begin=(0, 0, 0), sampling=sampling, settings=SETTINGS
    )
    return connected_surfaces(points, sampling=sampling, settings=SETTINGS)


def places(shape):
    return np.indices(shape) * VOXEL


def rows(table):
    return {
        (one, name, other): (area, nearest)
        for one, name, other, area, nearest in zip(*table.as_dict().values(), strict=True)
    }


def test_parallel_planes_are_in_contact_all_over_or_not_at_all():
    z, _, _ = places((80, 50, 60))
    # Two 200 Å apart, a third 300 Å from the nearer one.
    found = {"wall": surfaces(z - 150, z - 350, z - 650)}
    assert found["wall"].number.max() == 3
    area = 50 * 60 * VOXEL**2
    assert len(contacts("wall", found, within_angstrom=190)) == 0
    near = rows(contacts("wall", found, within_angstrom=250))
    assert len(near) == 2 and {pair[::-1] for pair in near} == set(near)
    for part, nearest in near.values():
        assert part == pytest.approx(area, rel=0.01)
        assert nearest == pytest.approx(200, abs=1)
    further = rows(contacts("wall", found, within_angstrom=310))
    assert len(further) == 4
    assert sorted(round(nearest) for _, nearest in further.values()) == [200, 200, 300, 300]


def test_a_sphere_near_a_plane_has_a_cap_and_the_plane_a_disc():
    # Nearer than D to the plane, h away, is a cap of height D - h; nearer than D to the sphere is
    # where √(ρ² + (R + h)²) < R + D.
    sphere_radius, gap, within = 250.0, 120.0, 200.0
    centre = np.array([420.0, 405.0, 402.0])
    shape = (92, 82, 82)
    z, _, _ = places(shape)
    away = np.linalg.norm(places(shape) - centre[:, None, None, None], axis=0) - sphere_radius
    found = {
        "vesicle": surfaces(away),
        "plane": surfaces(z - (centre[0] + sphere_radius + gap)),
    }
    cap = 2 * np.pi * sphere_radius * (within - gap)
    disc = np.pi * ((sphere_radius + within) ** 2 - (sphere_radius + gap) ** 2)
    on_vesicle = rows(contacts("vesicle", found, within_angstrom=within))
    on_plane = rows(contacts("plane", found, within_angstrom=within))
    assert on_vesicle == {
        (1, "plane", 1): (pytest.approx(cap, rel=0.04), pytest.approx(gap, abs=4))
    }
    assert on_plane == {
        (1, "vesicle", 1): (pytest.approx(disc, rel=0.02), pytest.approx(gap, abs=4))
    }
    assert on_vesicle[1, "plane", 1][1] == on_plane[1, "vesicle", 1][1]


def test_a_surface_alone_has_no_contact_not_even_with_its_own_other_side():
    z, y, _ = places((60, 60, 40))
    # Both walls of one tube, 200 Å apart.
    tube = {"wall": surfaces(np.hypot(z - 300, y - 300) - 100)}
    assert tube["wall"].number.max() == 1
    assert len(contacts("wall", tube, within_angstrom=500)) == 0
