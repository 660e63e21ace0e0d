"""Filaments beside points that somebody clicked along them."""

from __future__ import annotations

from pathlib import PurePosixPath

import numpy as np

from tomoseg.core.coordinates import Points
from tomoseg.core.errors import RequestError
from tomoseg.core.sampling import Sampling
from tomoseg.evaluation.options import Options
from tomoseg.evaluation.tables import Table, read_table
from tomoseg.io.points.dialects import EVERY, ReadOptions, TomoContext, TomogramPoints
from tomoseg.io.points.picks import UNNAMED, read_clicks
from tomoseg.io.points.registry import dialect_of
from tomoseg.io.stores import checked_url, read_file
from tomoseg.io.volumes.sources import open_source, tomogram_name

CLICKS = (".csv", ".tsv", ".txt", ".coords")


def read_pair(found: str, truth: str, options: Options) -> tuple[Table, Table]:
    """Read two tables; where one holds filaments, plain points of the other are taken as some.

    Raises
    ------
    RequestError, FormatError
        As :func:`tomoseg.evaluation.tables.read_table`, or if clicked points are counted in voxels
        of a size that is not known, or of a class that is not.
    """
    if _are_plain_points(found) == _are_plain_points(truth):
        return read_table(found, options), read_table(truth, options)
    points = found if _are_plain_points(found) else truth
    lines = read_table(truth if points == found else found, options)
    if lines.filaments is None:
        other = read_table(points, options)
    else:
        other = _clicked(points, lines, options)
    return (other, lines) if points == found else (lines, other)


def _are_plain_points(place: str) -> bool:
    """Tell whether a table of text is neither ours nor of a program that is known."""
    if PurePosixPath(place.lower()).suffix not in CLICKS:
        return False
    return dialect_of(read_file(place), f"{place}.csv") is None


def _clicked(place: str, lines: Table, options: Options) -> Table:
    """Read points as filaments of the class of others, in the same tomogram."""
    known = {line.name for each in (lines.filaments or {}).values() for line in each}
    names = options.classes or tuple(known)
    data, context = read_file(place), _context(options)
    points = _read(place, data, context)
    if options.tomogram is None and options.voxel_size_angstrom is None:
        _refuse_voxels(place, data, points.filaments[0].points_angstrom)
    if any(line.name == UNNAMED for line in points.filaments) and len(names) != 1:
        raise RequestError(
            f"of which of {', '.join(sorted(known)) or 'no class'} {place} is, it does not say",
            remedy="Give --classes NAME.",
        )
    named = points.named(UNNAMED, names[0])
    tomogram = next(iter(lines.filaments or ()), "")
    return Table(place, filaments={tomogram: named.filaments}, says=points.says)


def _read(place: str, data: bytes, context: TomoContext) -> TomogramPoints:
    return read_clicks(data, place, [context], ReadOptions(rows_of=EVERY))[0]


def _context(options: Options) -> TomoContext:
    """Return the tomogram, or any of the voxel size that was given, else of 1 Å."""
    size = options.voxel_size_angstrom
    if options.tomogram is None:
        return TomoContext("tomogram", Sampling((2, 2, 2), (size or 1.0,) * 3))
    with open_source(options.tomogram, voxel_size_angstrom=size) as source:
        name = tomogram_name(checked_url(options.tomogram))
        return TomoContext(name, source.header.sampling)


def _refuse_voxels(place: str, data: bytes, points: Points) -> None:
    """Refuse positions that come out otherwise with voxels of another size."""
    other = TomoContext("tomogram", Sampling((2, 2, 2), (2.0,) * 3))
    again = _read(place, data, other).filaments[0].points_angstrom
    if not np.array_equal(points, again):
        raise RequestError(
            f"{place} counts positions in voxels, and how large they are is not known",
            remedy="Give the --tomogram, or the --voxel-size.",
        )
