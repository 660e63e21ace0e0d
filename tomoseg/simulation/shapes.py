"""Geometry and density profiles of what a cell is made of; positions in Å, zyx.

Densities are relative: 0 is ice, 1 is protein. Edges are soft over one voxel, so that a shape
does not depend on how it falls on the grid.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from tomoseg.core.blocks import Box
from tomoseg.core.coordinates import frames
from tomoseg.core.sampling import as_shape

Floats = NDArray[np.float32]
Points = NDArray[np.float64]
Index = tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]

MICROTUBULE_RADIUS_ANGSTROM = 125.0
PROTOFILAMENT_RING_ANGSTROM = 102.0
PROTOFILAMENTS = 13
TUBULIN_DENSITY = 1.25
ACTIN_RADIUS_ANGSTROM = 35.0
ACTIN_CROSSOVER_ANGSTROM = 360.0
LEAFLET_OFFSET_ANGSTROM = 20.0
LEAFLET_DENSITY = 1.2
MEMBRANE_HALF_ANGSTROM = 30.0
GOLD_RADIUS_ANGSTROM = 50.0

STEP_ANGSTROM = 10.0
"""Distance between the points of a drawn line."""

# A ribosome of about 280 Å as balls (x, y, z, radius in Å) in its own frame: the large subunit
# below, the small one above with body and head, and two stalks that break every symmetry.
RIBOSOME_BALLS_XYZR = np.array(
    [
        (0.0, 0.0, -40.0, 92.0),
        (25.0, 20.0, -60.0, 72.0),
        (-35.0, 5.0, 62.0, 55.0),
        (20.0, 10.0, 72.0, 52.0),
        (62.0, 0.0, 82.0, 40.0),
        (105.0, 10.0, -25.0, 28.0),
        (-95.0, -45.0, -30.0, 26.0),
    ]
)
RIBOSOME_RADIUS_ANGSTROM = 145.0


@dataclass(frozen=True)
class Ellipsoid:
    """A surface: an ellipsoid turned about z, with a ripple.

    Parameters
    ----------
    centre, semi_axes
        Å, zyx, before the turn.
    turn_radians
        Rotation about z.
    ripple_angstrom, ripple_length_angstrom, ripple_phase_radians
        Height, wave length and phase of the waves on the surface.
    """

    centre: tuple[float, float, float]
    semi_axes: tuple[float, float, float]
    turn_radians: float
    ripple_angstrom: float
    ripple_length_angstrom: float
    ripple_phase_radians: float


@dataclass(frozen=True, eq=False)
class Tube:
    """The voxels near a centre line, in the line's own coordinates.

    Parameters
    ----------
    index
        Voxels, three index arrays of shape (n,), zyx.
    radius_angstrom, angle_radians, track_angstrom
        float32, shape (n,): distance from the line, angle about it, distance along it.
    """

    index: Index
    radius_angstrom: Floats
    angle_radians: Floats
    track_angstrom: Floats


def soft(depth_angstrom: Floats, width_angstrom: float) -> Floats:
    """Return 0 outside and 1 inside of an edge, for depths below it, over a width."""
    inside = np.clip(depth_angstrom / np.float32(width_angstrom) + np.float32(0.5), 0, 1)
    return np.asarray(inside, dtype=np.float32)


def path(draw: np.random.Generator, through: Points, *, length: float, bend: float) -> Points:
    """Return a smooth curved line that runs mostly in the plane.

    Parameters
    ----------
    through
        float64, shape (3,), zyx, Å: the line's middle.
    length
        Å, along the line.
    bend
        Standard deviation of the curvature, 1/Å; it changes along the line.

    Returns
    -------
    float64, shape (n, 3), zyx, Å, points :data:`STEP_ANGSTROM` apart.
    """
    track = np.arange(-length / 2, length / 2, STEP_ANGSTROM)
    wave_length = draw.uniform(2000, 6000)
    sway, swell = np.sin(
        2 * np.pi * (track / wave_length + draw.uniform(0, 1, (2, 1)))
    ) * draw.normal(0, 1, (2, 1))
    heading = draw.uniform(0, 2 * np.pi) + bend * (
        draw.normal(0, 1) * track + wave_length / 6 * sway
    )
    climb = draw.normal(0, 0.04) + 0.05 * swell
    along = np.stack(
        [np.sin(climb), np.cos(climb) * np.sin(heading), np.cos(climb) * np.cos(heading)], axis=1
    )
    points = np.cumsum(along * STEP_ANGSTROM, axis=0)
    return np.asarray(points - points[len(points) // 2] + through)


def beside(points: Points, offset: tuple[float, float]) -> Points:
    """Shift a line, shape (n, 3), zyx, Å, across itself in its own frame."""
    frame = frames(points)
    shift_xyz = frame[:, :, 0] * offset[0] + frame[:, :, 1] * offset[1]
    return points + shift_xyz[:, ::-1]


def tube(points: Points, reach: float, *, box: Box, voxel: float) -> Tube:
    """Return the voxels of a box within ``reach`` Å of a line, shape (n, 3), zyx, Å.

    The ends are blunt.
    """
    index = _near(points / voxel, reach / voxel, box)
    places = np.stack(index, axis=1) * voxel
    nearest = cKDTree(points).query(places)[1]
    offset_xyz = (places - points[nearest])[:, ::-1]
    local = np.einsum("nj,njk->nk", offset_xyz, frames(points)[nearest])
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    track = np.concatenate([[0.0], np.cumsum(steps)])[nearest] + local[:, 2]
    radius = np.hypot(local[:, 0], local[:, 1])
    # The end faces: a voxel whose foot lies beyond the line is not beside it.
    keep = (radius < reach) & (track > -voxel / 2) & (track < steps.sum() + voxel / 2)
    z, y, x = (axis[keep] for axis in index)
    angle = np.arctan2(local[keep, 1], local[keep, 0])
    return Tube(
        (z, y, x),
        radius[keep].astype(np.float32),
        angle.astype(np.float32),
        track[keep].astype(np.float32),
    )


def microtubule_density(around: Tube, voxel: float) -> Floats:
    """Hollow wall of 13 rods side by side; the lumen is as empty as ice."""
    sector = np.float32(2 * np.pi / PROTOFILAMENTS)
    angle = np.mod(around.angle_radians, sector) - sector / 2
    radius, ring = around.radius_angstrom, np.float32(PROTOFILAMENT_RING_ANGSTROM)
    # The law of cosines in a form whose rounding cannot go below zero in the middle of a rod.
    distance = np.sqrt((radius - ring) ** 2 + 4 * radius * ring * np.sin(angle / 2) ** 2)
    rods = soft(MICROTUBULE_RADIUS_ANGSTROM - ring - distance, voxel)
    return np.float32(TUBULIN_DENSITY) * rods


def actin_density(around: Tube, voxel: float) -> Floats:
    """Two strands that cross every 36 nm."""
    twist = around.angle_radians - np.pi * around.track_angstrom / ACTIN_CROSSOVER_ANGSTROM
    strands = 1 + np.float32(0.35) * np.cos(2 * twist)
    rod = soft(ACTIN_RADIUS_ANGSTROM - around.radius_angstrom, voxel)
    return np.asarray(rod * strands, dtype=np.float32)


def surface_distance(surface: Ellipsoid, box: Box, voxel: float, *, every: int = 1) -> Floats:
    """Return the distance from an ellipsoid's surface, Å, negative inside.

    Parameters
    ----------
    every
        Take the middles of cubes of so many voxels instead of all voxels; the box's edges must be
        multiples of it.

    Returns
    -------
    float32, the box's shape divided by ``every``.

    Notes
    -----
    First order: with q = |p / axes|, the distance is (q − 1) / |∇q|. Exact on the surface, and
    good to a few per cent within a membrane's thickness of it.
    """
    z, y, x = _offsets(surface.centre, box, voxel, every=every)
    wave = np.float32(2 * np.pi / surface.ripple_length_angstrom)
    phase = np.float32(surface.ripple_phase_radians)
    height = np.float32(surface.ripple_angstrom)
    cos, sin = np.float32(np.cos(surface.turn_radians)), np.float32(np.sin(surface.turn_radians))
    u = cos * x + sin * y + height * np.sin(wave * z + phase)
    v = cos * y - sin * x + height * np.sin(wave * np.float32(0.7) * x + 2 * phase)
    w = z + height * np.sin(wave * y + 3 * phase)
    c, b, a = (np.float32(axis) for axis in surface.semi_axes)
    squares = (u / a) ** 2 + (v / b) ** 2 + (w / c) ** 2
    slopes = (u / a**2) ** 2 + (v / b**2) ** 2 + (w / c**2) ** 2
    q = np.sqrt(squares)
    return np.asarray((q - 1) * q / np.sqrt(slopes + np.float32(1e-18)), dtype=np.float32)


def surface_box(surface: Ellipsoid, margin: float, voxel: float) -> Box:
    """Return the voxels that hold an ellipsoid and a margin in Å; not clipped."""
    z, y, x = surface.semi_axes
    reach = np.array([z, max(y, x), max(y, x)]) + margin + surface.ripple_angstrom
    return box_around(np.array(surface.centre), reach, voxel)


def bilayer_density(distance: Floats, voxel: float) -> Floats:
    """Two leaflets of head groups about 4 nm apart, at a distance from the mid-plane in Å."""
    width = np.float32(max(9.0, 0.6 * voxel))
    heads = np.abs(distance) - np.float32(LEAFLET_OFFSET_ANGSTROM)
    density = np.float32(LEAFLET_DENSITY) * np.exp(-((heads / width) ** 2) / 2)
    return np.asarray(density, dtype=np.float32)


def ball_distance(centre: Points, box: Box, voxel: float) -> Floats:
    """Distance from a point, Å; float32, the box's shape."""
    z, y, x = _offsets(centre, box, voxel)
    return np.asarray(np.sqrt(z**2 + y**2 + x**2), dtype=np.float32)


def box_around(centre: Points, reach: float | Points, voxel: float) -> Box:
    """Return the voxels within a reach of a point along each axis; not clipped."""
    return Box(
        as_shape(np.floor((centre - reach) / voxel)),
        as_shape(np.ceil((centre + reach) / voxel) + 1),
    )


def ribosome_depth(centre: Points, orientation: Points, *, box: Box, voxel: float) -> Floats:
    """Depth below a ribosome's surface, Å, negative outside; float32, the box's shape.

    ``orientation`` is a rotation in xyz whose columns are the particle's axes.
    """
    depth = np.full(box.shape, -np.inf, dtype=np.float32)
    for ball in RIBOSOME_BALLS_XYZR:
        middle = centre + (orientation @ ball[:3])[::-1]
        np.maximum(depth, np.float32(ball[3]) - ball_distance(middle, box, voxel), out=depth)
    return depth


def blob(draw: np.random.Generator, diameter: float, voxel: float) -> Floats:
    """Return a small protein: a soft ellipsoid of random axes in a cube of odd edge."""
    axes = diameter / 2 * np.exp(draw.normal(0, 0.25, 3))
    turn = Rotation.random(None, draw).as_matrix()
    half = int(np.ceil(axes.max() / voxel)) + 1
    grid = np.stack(np.meshgrid(*[np.arange(-half, half + 1) * voxel] * 3, indexing="ij"), axis=-1)
    q = np.linalg.norm(grid @ turn / axes, axis=-1)
    return soft(((1 - q) * diameter / 2).astype(np.float32), voxel)


def triple(values: Points) -> tuple[float, float, float]:
    """Return three plain numbers."""
    a, b, c = (float(value) for value in values)
    return a, b, c


def _offsets(
    centre: Iterable[float], box: Box, voxel: float, *, every: int = 1
) -> tuple[Floats, Floats, Floats]:
    """Offsets from a point in Å along z, y, x, each shaped so that they broadcast to the box."""
    axes = (
        ((np.arange(b, e, every) + (every - 1) / 2) * voxel - c).astype(np.float32)
        for b, e, c in zip(box.begin, box.end, centre, strict=True)
    )
    z, y, x = np.ix_(*axes)
    return z, y, x


def _near(points: Points, reach: float, box: Box) -> Index:
    """Voxels of a box in balls of a radius, a little enlarged, around points in voxels."""
    half = int(np.ceil(reach)) + 1
    cube = np.stack(np.meshgrid(*[np.arange(-half, half + 1)] * 3, indexing="ij"), axis=-1)
    ball = cube[(cube**2).sum(axis=-1) <= (reach + 1.8) ** 2]
    centres = np.unique(np.round(points).astype(np.int64), axis=0)
    around = Box(as_shape(centres.min(axis=0) - half), as_shape(centres.max(axis=0) + half + 1))
    around = around.intersect(box)
    mask = np.zeros(around.shape, dtype=bool)
    for part in np.array_split(centres - around.begin, max(1, len(centres) // 64)):
        voxels = (part[:, None, :] + ball[None]).reshape(-1, 3)
        inside = ((voxels >= 0) & (voxels < mask.shape)).all(axis=1)
        mask[tuple(voxels[inside].T)] = True
    z, y, x = (i + b for i, b in zip(np.nonzero(mask), around.begin, strict=True))
    return z, y, x
