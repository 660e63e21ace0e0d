"""Score maps of filaments whose lines are known: bundles, crossings, gaps, clutter and noise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from tomoseg.analysis.filaments import TracingSettings, tracing_defaults
from tomoseg.analysis.filaments.ridge import HOLLOW_RADII

Line = NDArray[np.float64]

SHAPE = (160, 480, 480)
VOXEL_ANGSTROM = 12.0
# Voxels over which clutter fades: cut off sharply, a sheet has a rim that few membranes have.
FADE = 20.0


@dataclass(frozen=True)
class Case:
    """One score map.

    Parameters
    ----------
    name
        Class, which says how thick the filaments are and how they are traced.
    noise
        Factor on the usual noise.
    hollow
        Whether the wall alone is marked.
    torn
        Whether clutter ends sharply near the lines, so that its sheets have rims.
    seed
        Of the lines and the noise.
    """

    name: str = "microtubule"
    noise: float = 1.0
    hollow: bool = False
    torn: bool = False
    seed: int = 1

    @property
    def settings(self) -> TracingSettings:
        """How the class is traced."""
        return replace(tracing_defaults(self.name), hollow=self.hollow)

    @property
    def radius(self) -> float:
        """Radius in voxels."""
        return self.settings.radius_angstrom / VOXEL_ANGSTROM


def drawn(case: Case) -> tuple[list[Line], NDArray[np.float32]]:
    """Return centre lines in voxels and the score map that a network would give of them."""
    rng = np.random.default_rng(case.seed)
    lines = scene(rng, case.radius)
    score = tubes(lines, case, gaps(rng, lines))
    return lines, seen(rng, np.maximum(score, clutter(rng, lines, case)), case.noise)


def scene(rng: np.random.Generator, radius: float) -> list[Line]:
    """Draw bundles, pairs that cross and single filaments, 60 to 90, none through another."""
    lines: list[Line] = []
    closest = 2.6 * radius
    for _ in range(6):
        first = clear(rng, lines, 4 * closest + 12)
        lines += bundle(rng, first, int(rng.integers(3, 5)), radius)
    for _ in range(10):
        first = clear(rng, lines, 2 * closest + 12)
        lines += [first, across(rng, first, rng.uniform(0.7, 1.15) * 2 * radius)]
    count = int(rng.integers(60, 91))
    while len(lines) < count:
        lines.append(clear(rng, lines, closest))
    return lines


def clear(rng: np.random.Generator, lines: list[Line], distance: float) -> Line:
    """Draw a curve that keeps a distance (voxels) from all others; less if there is no room."""
    others = cKDTree(np.concatenate([np.full((1, 3), -1e4), *lines]))
    while True:
        for _ in range(60):
            line = curve(rng)
            if len(line) > 90 and others.query(line)[0].min() > distance:
                return line
        distance *= 0.9


def curve(rng: np.random.Generator) -> Line:
    """Draw a smooth line with points a voxel apart, up to 500 long, inside the volume."""
    along = unit(rng.normal(size=3) * [0.2, 1, 1])
    bend = rng.normal(size=3) * [0.2, 1, 1] * 0.002
    place = rng.uniform(0.1, 0.9, 3) * SHAPE
    halves = []
    for sign in (1, -1):
        heading, half = sign * along, [place]
        while len(half) < 250 and inside(half[-1]):
            heading = unit(heading + bend)
            half.append(half[-1] + heading)
        halves.append(np.array(half[:-1] if len(half) > 1 else half))
    return np.concatenate([halves[1][:0:-1], halves[0]])


def inside(place: Line) -> bool:
    """Tell whether a place is well inside the volume."""
    return bool(((place > 4) & (place < np.array(SHAPE) - 5)).all())


def unit(vector: Line) -> Line:
    """Return a vector of length 1."""
    return np.asarray(vector / np.linalg.norm(vector))


def bundle(rng: np.random.Generator, first: Line, count: int, radius: float) -> list[Line]:
    """Lay copies of a line beside it: 35 to 50 nm apart, thin filaments 12 to 17 nm."""
    near = (350.0, 500.0) if radius > 5 else (120.0, 170.0)
    aside = unit(np.cross(first[-1] - first[0], [1.0, 0.2, 0]))
    offsets = np.cumsum(rng.uniform(*near, count - 1)) / VOXEL_ANGSTROM
    copies = [first, *(first + offset * aside for offset in offsets)]
    kept = [np.array([place for place in line if inside(place)]).reshape(-1, 3) for line in copies]
    return [line for line in kept if len(line) > 60]


def across(rng: np.random.Generator, first: Line, height: float) -> Line:
    """Draw a straight line that crosses another at a distance (voxels) and 30 to 90°."""
    middle = first[len(first) // 2]
    along = unit(first[len(first) // 2 + 5] - middle)
    aside = unit(np.cross(along, [1.0, 0, 0]))
    away = unit(np.cross(along, aside))
    angle = np.deg2rad(rng.uniform(30, 90))
    heading = np.cos(angle) * along + np.sin(angle) * aside
    sign = 1 if inside(middle + height * away + heading * 60) else -1
    steps = np.arange(-150, 151)[:, None]
    line = middle + sign * height * away + steps * heading
    kept = np.array([inside(place) for place in line])
    return np.asarray(line[kept])


def gaps(rng: np.random.Generator, lines: list[Line]) -> list[NDArray[np.bool_]]:
    """Say where each line is seen: every third has a gap of 10 to 40 nm."""
    flags = []
    for number, line in enumerate(lines):
        is_seen = np.ones(len(line), bool)
        width = int(rng.uniform(100, 400) / VOXEL_ANGSTROM)
        if number % 3 == 0 and len(line) > width + 80:
            begin = int(rng.integers(40, len(line) - width - 39))
            is_seen[begin : begin + width] = False
        flags.append(is_seen)
    return flags


def tubes(lines: list[Line], case: Case, flags: list[NDArray[np.bool_]]) -> NDArray[np.float32]:
    """Draw tubes around lines: 1 inside, soft over a voxel; hollow ones have a bore."""
    distance = np.full(SHAPE, 1e3, np.float32)
    reach = int(case.radius) + 3
    offsets = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 3, indexing="ij"), axis=-1)
    for line, is_seen in zip(lines, flags, strict=True):
        for place in line[is_seen]:
            centre = np.round(place).astype(int)
            low, high = np.maximum(centre - reach, 0), np.minimum(centre + reach + 1, SHAPE)
            box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
            cut = tuple(
                slice(a - c + reach, b - c + reach)
                for a, b, c in zip(low, high, centre, strict=True)
            )
            near = np.linalg.norm(offsets[cut] - (place - centre), axis=-1)
            distance[box] = np.minimum(distance[box], near)
    bore = HOLLOW_RADII * case.radius if case.hollow else 0.0
    outer = np.clip(case.radius - distance + 0.5, 0, 1)
    return outer - np.clip(bore - distance + 0.5, 0, 1) if case.hollow else outer


def clutter(rng: np.random.Generator, lines: list[Line], case: Case) -> NDArray[np.float32]:
    """Draw 20 blobs and 3 bent sheets of membrane; near the lines they fade over 24 nm or tear."""
    score = np.zeros(SHAPE, np.float32)
    grid = np.ogrid[tuple(slice(float(n)) for n in SHAPE)]
    for _ in range(20):
        centre, size = rng.uniform(0.05, 0.95, 3) * SHAPE, rng.uniform(8, 18)
        low, high = np.maximum(centre - size - 1, 0), np.minimum(centre + size + 2, SHAPE)
        box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        away = np.sqrt(sum((a - c) ** 2 for a, c in zip(np.ogrid[box], centre, strict=True)))
        score[box] = np.maximum(score[box], np.clip(size - away + 0.5, 0, 1))
    for _ in range(3):
        centre = rng.uniform(0, 1, 3) * SHAPE
        curve_radius = rng.uniform(200, 400)
        centre = centre + unit(rng.normal(size=3)) * curve_radius
        away = np.sqrt(sum((a - c) ** 2 for a, c in zip(grid, centre, strict=True)))
        score = np.maximum(score, np.clip(3.5 - np.abs(away - curve_radius), 0, 1))
    taken = np.ones(SHAPE, bool)
    places = np.round(np.concatenate(lines)).astype(int)
    taken[tuple(places.T)] = False
    room = ndimage.distance_transform_edt(taken) - 2 * case.radius
    free = room > 0 if case.torn else (room / FADE).clip(0, 1)
    return np.asarray(score * free, np.float32)


def seen(rng: np.random.Generator, score: NDArray[np.float32], noise: float) -> Any:
    """Blur along z and add correlated noise, as a network's score map shows it."""
    grain = ndimage.gaussian_filter(rng.standard_normal(SHAPE, np.float32), 1.0)
    blurred = ndimage.gaussian_filter1d(score, 1.5, axis=0)
    return np.clip(blurred * 0.85 + 0.05 + 0.1 * noise * grain / grain.std(), 0, 1)
