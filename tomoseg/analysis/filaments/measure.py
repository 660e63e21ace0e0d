"""Filaments in numbers: length, bending, neighbours, and whether their ends are true ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from tomoseg.analysis.filaments.finish import evenly, length_of, spline_through
from tomoseg.core.coordinates import Filament, Points, resample, tangents

# Knots of the spline that curvature is taken from are this many radii apart. On a shorter span
# noise in a traced line bends it more than a cell does: 1 nm aside in 50 nm is 3 per µm.
CURVATURE_RADII = 16.0
# Filaments whose axes are nearer than this are packed, in radii: 62 nm for microtubules.
PACKED_RADII = 5.0
# Those whose directions differ by less lie side by side; others cross.
BESIDE_DEGREES = 30.0

Inside = Callable[[Points], NDArray[np.bool_]]


@dataclass(frozen=True)
class FilamentMeasures:
    """One filament in numbers.

    Parameters
    ----------
    name, number
        The filament.
    length_angstrom, end_to_end_angstrom
        Along the line, and straight between its ends.
    tortuosity, straightness
        Length over the distance of the ends, at least 1, and its inverse.
    curvature_mean_per_um, curvature_max_per_um
        1 over the radius of the bend, 1/µm.
    score
        Mean evidence, 0..1; NaN if unknown.
    nearest_angstrom, nearest_number
        Smallest distance from its axis to another's, and whose; NaN and 0 if there is no other.
    neighbours
        Filaments that lie side by side with it anywhere within the packing distance.
    packed_share
        Part of its length with such a neighbour, 0..1.
    spacing_angstrom, angle_degrees
        Distance of the axes and angle between them, to the nearest neighbour side by side, mean
        over that part; NaN if there is none.
    start, end
        Whether its first and its last point lie ``"inside"`` what was looked at, or are where the
        ``"border"`` cuts it.
    """

    name: str
    number: int
    length_angstrom: float
    end_to_end_angstrom: float
    tortuosity: float
    straightness: float
    curvature_mean_per_um: float
    curvature_max_per_um: float
    score: float
    nearest_angstrom: float
    nearest_number: int
    neighbours: int
    packed_share: float
    spacing_angstrom: float
    angle_degrees: float
    start: str
    end: str


def measure(
    filaments: Sequence[Filament],
    is_inside: Inside,
    *,
    radius_angstrom: float,
    packing_angstrom: float | None = None,
) -> list[FilamentMeasures]:
    """Measure the filaments of one class in one volume.

    Parameters
    ----------
    is_inside
        Tells of points, float64, shape (n, 3), zyx, Å, which lie in what was looked at, such as
        :meth:`tomoseg.core.sampling.Sampling.contains`. An end is the border's if one radius
        further on along the filament is not.
    radius_angstrom
        Outer radius of the filaments.
    packing_angstrom
        Axes nearer than this count as packed; None is five radii.

    Notes
    -----
    Curvature is |r′ × r″| / |r′|³ of a least-squares cubic spline with a knot every 16 radii; its
    mean is over the length. Bends on a shorter span are not seen.

    Neighbours are looked for at points half a radius apart. Another filament is side by side with
    a point if its nearest place lies within the packing distance, abreast of it (neither ahead of
    nor behind its own end) and runs within 30° of it.
    """
    limit = PACKED_RADII * radius_angstrom if packing_angstrom is None else packing_angstrom
    lines = [_Line.of(each, radius_angstrom / 2) for each in filaments]
    boxes = np.array([[line.points.min(axis=0), line.points.max(axis=0)] for line in lines])
    return [
        _measured(filaments, i, _around(lines, boxes, i, limit), is_inside, radius_angstrom)
        for i in range(len(filaments))
    ]


def curvature(points: Points, radius_angstrom: float) -> NDArray[np.float64]:
    """Return the curvature along a line, shape (n,), 1/Å, at equal distances of half a radius."""
    track, spline = spline_through(
        points, knots=CURVATURE_RADII * radius_angstrom, spacing=radius_angstrom / 2
    )
    first, second = spline(track, 1), spline(track, 2)
    bend = np.linalg.norm(np.cross(first, second), axis=1)
    return np.asarray(bend / np.linalg.norm(first, axis=1) ** 3)


@dataclass(frozen=True, eq=False)
class _Line:
    """A resampled filament, to be asked for its nearest place."""

    points: Points
    along: Points
    tree: cKDTree

    @classmethod
    def of(cls, filament: Filament, spacing: float) -> _Line:
        points = evenly(filament.points_angstrom, spacing)
        return cls(points, tangents(points), cKDTree(points))

    def compared(self, other: _Line) -> tuple[NDArray[np.float64], ...]:
        """Distance (Å), angle (degrees) and offset ahead (Å) of another line's nearest places."""
        distance, row = other.tree.query(self.points)
        between, along = other.points[row] - self.points, other.along[row]
        ahead = np.abs((between * along).sum(axis=1))
        angle = np.rad2deg(np.arccos(np.abs((self.along * along).sum(axis=1)).clip(0, 1)))
        return distance, angle, ahead


@dataclass(frozen=True, eq=False)
class _Around:
    """What is around one filament: the nearest other one, and per point the nearest beside it."""

    nearest: tuple[float, int]
    neighbours: int
    spacing: NDArray[np.float64]
    angle: NDArray[np.float64]


def _around(lines: list[_Line], boxes: Points, own: int, limit: float) -> _Around:
    """Compare a line with those near it; ``boxes``, (n, 2, 3), are the corners around each."""
    line = lines[own]
    nearest, neighbours = (np.inf, -1), 0
    spacing = np.full(len(line.points), np.inf)
    angles = np.full(len(line.points), np.nan)
    low, high = np.maximum(boxes[:, 0], boxes[own, 0]), np.minimum(boxes[:, 1], boxes[own, 1])
    # Lines are nowhere nearer than the boxes around them.
    away = np.linalg.norm(np.maximum(low - high, 0), axis=1)
    away[own] = np.inf
    for i in np.argsort(away, kind="stable").tolist():
        if i == own or away[i] > max(limit, nearest[0]):
            break
        distance, angle, ahead = line.compared(lines[i])
        # Between two places of the other line the distance is that across it.
        abreast = ahead <= np.linalg.norm(lines[i].points[1] - lines[i].points[0])
        across = np.sqrt(np.maximum(distance**2 - np.where(abreast, ahead, 0) ** 2, 0))
        nearest = min(nearest, (float(across.min()), i))
        beside = abreast & (across <= limit) & (angle < BESIDE_DEGREES)
        neighbours += int(beside.any())
        closer = beside & (across < spacing)
        spacing[closer], angles[closer] = across[closer], angle[closer]
    return _Around(nearest, neighbours, spacing, angles)


def _measured(
    filaments: Sequence[Filament], own: int, around: _Around, is_inside: Inside, radius: float
) -> FilamentMeasures:
    filament = filaments[own]
    points = filament.points_angstrom
    length, reach = filament.length_angstrom, float(np.linalg.norm(points[-1] - points[0]))
    bend = 1e4 * curvature(points, radius)
    packed = np.isfinite(around.spacing)
    onward = np.stack([_beyond(points[::-1], radius), _beyond(points, radius)])
    start, end = ("inside" if there else "border" for there in is_inside(onward))
    distance, other = around.nearest
    return FilamentMeasures(
        name=filament.name,
        number=filament.number,
        length_angstrom=length,
        end_to_end_angstrom=reach,
        tortuosity=length / reach if reach else np.inf,
        straightness=reach / length,
        curvature_mean_per_um=float(bend.mean()),
        curvature_max_per_um=float(bend.max()),
        score=filament.score,
        nearest_angstrom=distance if other >= 0 else np.nan,
        nearest_number=filaments[other].number if other >= 0 else 0,
        neighbours=around.neighbours,
        packed_share=float(packed.mean()),
        spacing_angstrom=float(around.spacing[packed].mean()) if packed.any() else np.nan,
        angle_degrees=float(around.angle[packed].mean()) if packed.any() else np.nan,
        start=start,
        end=end,
    )


def _beyond(points: Points, radius: float) -> Points:
    """Return the place one radius beyond the last point, straight on over its last radius."""
    tip = resample(points[::-1], min(radius, length_of(points)))[:2]
    return np.asarray(tip[0] + radius * (tip[0] - tip[-1]) / np.linalg.norm(tip[0] - tip[-1]))
