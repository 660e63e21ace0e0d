"""Filaments and particles as rows of a table: what tables for averaging subtomograms share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tomoseg.core.columns import Columns, column
from tomoseg.core.coordinates import Filament, Particles, Points, tangents
from tomoseg.core.errors import FormatError, RequestError
from tomoseg.io.points.dialects import TomoContext, TomogramPoints, WriteOptions, segments

Integers = NDArray[np.int64]

# Programs write -999 or -9999 where they know no merit.
_NO_MERIT = -999.0
# Segments whose own z axis is further from the line through them are no filament's.
_ALONG_DEGREES = 30.0


@dataclass(frozen=True, eq=False)
class Rows(Columns):
    """Points of one class in any number of tomograms, a row a particle or segment.

    Parameters
    ----------
    tomogram
        int64, shape (n,): place among the tomograms, from 0; below 0 is none of them.
    points_angstrom
        float64, shape (n, 3), zyx, Å.
    orientations
        float64, shape (n, 3, 3), xyz.
    scores
        float64, shape (n,), 0..1; NaN where unknown.
    filament
        int64, shape (n,): number of the filament, 0 for a particle.
    track_angstrom
        float64, shape (n,): grows along a filament, 0 for a particle.
    polarity_known
        bool, shape (n,).
    """

    tomogram: Integers = column(np.int64)
    points_angstrom: Points = column(np.float64, 3)
    orientations: Points = column(np.float64, 3, 3)
    scores: Points = column(np.float64)
    filament: Integers = column(np.int64)
    track_angstrom: Points = column(np.float64)
    polarity_known: NDArray[np.bool_] = column(np.bool_)

    @property
    def has_scores(self) -> bool:
        """Whether the score is known in every row."""
        return len(self) > 0 and bool(np.isfinite(self.scores).all())


def rows_of(tomograms: Sequence[TomogramPoints], options: WriteOptions) -> Rows:
    """Return the particles, and the filaments sampled at equal distances, as rows.

    Raises
    ------
    RequestError
        If the numbers of a tomogram's filaments are not unique or one is below 1.
    """
    parts = []
    for place, points in enumerate(tomograms):
        _check_numbers(points.filaments, points.context)
        parts += [
            _segment_rows(place, line, options.spacing_angstrom.get(line.name))
            for line in points.filaments
        ]
        parts += [_particle_rows(place, particles) for particles in points.particles]
    return Rows.concatenate(parts)


def half_sets(tomogram: NDArray[np.generic], filament: Integers) -> Integers:
    """Return 1 and 2 by turns, shape (n,): a whole filament, whose segments overlap, is in one.

    ``tomogram`` tells the tomograms apart; the rows of a filament follow each other.
    """
    begins = filament <= 0
    begins[1:] |= (filament[1:] != filament[:-1]) | (tomogram[1:] != tomogram[:-1])
    begins[:1] = True
    return (np.cumsum(begins) - 1) % 2 + 1


def points_of(rows: Rows, contexts: Sequence[TomoContext], name: str) -> list[TomogramPoints]:
    """Return the rows as filaments and particles of the class ``name``, an item a tomogram.

    A filament of one segment, which has no line, is a particle with the segment's orientation.
    """
    return [
        _points_in(rows.select(rows.tomogram == place), context, name)
        for place, context in enumerate(contexts)
    ]


def lines_alone(rows: Rows) -> Rows:
    """Return the rows with 0 for the filament where the rows of one number make no line.

    What other programs number, such as the region of Dynamo, may be anything. It is a filament
    if it has two rows or more, and every row's z axis lies within 30° of the line through them.
    """
    filament = rows.filament.copy()
    for members in _groups(rows.tomogram, rows.filament):
        if filament[members[0]] < 1 or not _is_line(rows, members):
            filament[members] = 0
    return replace(rows, filament=filament)


def merits(scores: Points) -> Points:
    """Return scores with NaN for what stands for unknown, such as -9999.

    Other programs' merits are kept as they are: correlations and multiples of a deviation are no
    shares 0..1, and which share one would be cannot be known.
    """
    return np.where(np.isfinite(scores) & (scores > _NO_MERIT), scores, np.nan)


def known_scores(scores: Points) -> Points:
    """Return :func:`merits`, all of them unknown where a table has 0 throughout."""
    return merits(scores) if np.any(scores) else np.full(len(scores), np.nan)


def said_of_merits(scores: Points) -> str:
    """Return what a person should know of scores that are no shares 0..1; else nothing."""
    known = scores[np.isfinite(scores)]
    if not len(known) or (known.min() >= 0 and known.max() <= 1):
        return ""
    return f"scores {known.min():.4g} to {known.max():.4g} are the program's own, no shares of 1"


def whole(values: Points, what: str) -> Integers:
    """Return numbers that identify something as integers.

    Raises
    ------
    FormatError
        If one is not whole.
    """
    numbers = np.rint(values)
    if not (numbers == values).all() or (len(values) and abs(values).max() > 2**53):
        raise FormatError(f"{what} is not a whole number in every row")
    return numbers.astype(np.int64)


def finite(values: Points, what: str) -> Points:
    """Return numbers that are all finite.

    Raises
    ------
    FormatError
        If one is not.
    """
    bad = np.flatnonzero(~np.isfinite(values).all(axis=tuple(range(1, values.ndim))))
    if len(bad):
        raise FormatError(
            f"{what} is not finite in every row: in {len(bad)} of {len(values)}, the first is row "
            f"{bad[0] + 1}",
            remedy="Correct the table",
        )
    return values


def _check_numbers(filaments: Sequence[Filament], context: TomoContext) -> None:
    """Refuse numbers that do not identify the filaments of a tomogram in a table."""
    numbers = [filament.number for filament in filaments]
    if len(set(numbers)) < len(numbers) or min(numbers, default=1) < 1:
        raise RequestError(
            f"filament ids must be unique and at least 1; they are {sorted(numbers)[:5]} …",
            remedy="Number the filaments of a tomogram together, from 1",
            tomogram=context.tomo_name,
        )


def _groups(*keys: Integers) -> list[Integers]:
    """Return the places of the rows that have the same keys, in their order, a group an array."""
    if not len(keys[0]):
        return []
    order = np.lexsort(keys[::-1])
    is_new = np.any([np.diff(key[order]) != 0 for key in keys], axis=0)
    return np.split(order, np.flatnonzero(is_new) + 1)


def _is_line(rows: Rows, members: Integers) -> bool:
    points = rows.points_angstrom[members]
    if len(points) < 2 or not np.gradient(points, axis=0).any(axis=1).all():
        return False
    axes = rows.orientations[members, :, 2]
    along = np.einsum("ni,ni->n", tangents(points)[:, ::-1], axes)
    return bool((abs(along) > np.cos(np.radians(_ALONG_DEGREES))).all())


def _points_in(rows: Rows, context: TomoContext, name: str) -> TomogramPoints:
    is_alone = rows.filament <= 0
    filaments = []
    for members in _groups(rows.filament):
        if len(members) < 2:
            is_alone[members] = True
        elif rows.filament[members[0]] > 0:
            filaments.append(_filament(rows.select(members), name))
    rest = rows.select(is_alone)
    particles = Particles(name, rest.points_angstrom, rest.scores, rest.orientations)
    return TomogramPoints(context, filaments, [particles] if len(rest) else [])


def _filament(rows: Rows, name: str) -> Filament:
    ordered = rows.select(np.argsort(rows.track_angstrom, kind="stable"))
    return Filament(
        name,
        int(rows.filament[0]),
        ordered.points_angstrom,
        float(rows.scores.mean()),
        bool(rows.polarity_known.all()),
    )


def _segment_rows(place: int, filament: Filament, spacing_angstrom: float | None) -> Rows:
    points, track, orientations = segments(filament, spacing_angstrom)
    ones = np.ones(len(points), np.int64)
    return Rows(
        place * ones,
        points,
        orientations,
        np.full(len(points), filament.score),
        filament.number * ones,
        track,
        np.full(len(points), filament.polarity_known),
    )


def _particle_rows(place: int, particles: Particles) -> Rows:
    zeros = np.zeros(len(particles), np.int64)
    return Rows(
        place + zeros,
        particles.points_angstrom,
        particles.orientations,
        particles.scores,
        zeros,
        zeros.astype(np.float64),
        zeros.astype(np.bool_),
    )
