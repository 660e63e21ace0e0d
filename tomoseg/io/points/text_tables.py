"""Positions in tables of text, by whatever name: CSV of many programs, ``.coords``, napari.

A first line of names says which columns are positions and in what unit: Å, nm, µm, or voxels of
the tomogram from 0. Without one, two or three columns are x, y, z in voxels. napari's ``axis-0``,
``axis-1`` and ``axis-2`` are z, y and x.
"""

from __future__ import annotations

import csv
import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tomoseg.core.coordinates import Filament, Particles, Points
from tomoseg.core.errors import FormatError
from tomoseg.core.sampling import Sampling, xyz
from tomoseg.io.points.dialects import READ_AS_IS, ReadOptions, TomoContext, TomogramPoints
from tomoseg.io.points.owners import find_owners
from tomoseg.io.points.rows import merits
from tomoseg.io.points.tables import PARTICLE_COLUMNS, particles_of, read_rows

# How positions may be counted, the surest first: where a table has several, that is taken.
_UNITS = {
    "Å": (1.0, "angstroms?|ångströms?|angst?|å|a"),
    "nm": (10.0, "nm|nanomet(?:er|re)s?"),
    "µm": (1e4, "[uµμ]m|microns?"),
    "voxels": (None, "voxels?|vox|pixels?|px"),
    "": (None, ""),
}
_WORD = "(?:pos|position|coords?|coordinates?|cent(?:er|re)|location)"
_POSITION = rf"(?:{_WORD}[ _.-]*)?([xyz])(?:[ _.-]*{_WORD})?[ _.-]*[\[(]?(?:%s)[\])]?"
_NAMES = {unit: re.compile(_POSITION % words) for unit, (_, words) in _UNITS.items()}
_NAPARI = re.compile(r"axis-\d+")
_KNOWN = (
    "x, y, z (voxels from 0), x_voxel …, x_angstrom …, x_nm …, or napari's axis-0, axis-1, axis-2"
)
_CLASS, _SCORE = "class", "score"
# What needs no word if it is not read.
_TOLD = (_CLASS, _SCORE, "index", "vertex-index", "shape-type", "")
_TOMOGRAM = ("tomogram", "tomogram_name", "tomo_name", "tomo_id", "experiment")
_LINE = ("filament", "filament_id", "line", "contour", "ids", "id")
_MOST_SAID = 5


@dataclass(frozen=True)
class _Position:
    """The columns of x, y and, where there is one, z; in what unit, and whether that was said."""

    columns: tuple[str, ...]
    unit: str
    is_said: bool


def read_text_table(
    text: str,
    contexts: Sequence[TomoContext],
    name: str,
    options: ReadOptions = READ_AS_IS,
) -> list[TomogramPoints]:
    """Read the positions in a table of text as particles.

    Parameters
    ----------
    text
        Columns between commas, semicolons, tabs or spaces. A line that begins with ``#`` is none,
        unless it is the first and names the columns.
    contexts
        The tomograms; of a table with a column of their names each has its own rows.
    name
        What particles are called where there is no column ``class``.
    options
        What a person says of the table.

    Returns
    -------
    An item a tomogram: particles a class, in the order of the file; ``says`` tells which columns,
    which unit, whose rows.

    Raises
    ------
    FormatError
        If the columns of positions are not known, one holds what is no number or is not finite,
        or no row is of the tomograms.
    """
    table, is_named = _table(text)
    if set(PARTICLE_COLUMNS) <= set(table):
        rows = read_rows(text, PARTICLE_COLUMNS)
        return _shared(rows, contexts, options, _our_particles)

    def particles(rows: pd.DataFrame, context: TomoContext) -> TomogramPoints:
        points, says = _points(rows, context.sampling, options, is_named=is_named)
        scores = _numbers(rows, [_SCORE])[:, 0] if _SCORE in rows else np.full(len(rows), np.nan)
        every, classes = Particles.at(name, points, merits(scores)), _classes(rows, name)
        parts = [replace(every.select(classes == one), name=one) for one in dict.fromkeys(classes)]
        return TomogramPoints(context, particles=parts or [every], says=says)

    return _shared(table, contexts, options, particles)


def read_clicked_lines(
    text: str,
    contexts: Sequence[TomoContext],
    name: str,
    options: ReadOptions = READ_AS_IS,
) -> list[TomogramPoints]:
    """Read a table of points that were clicked along filaments, in order, as these filaments.

    A table with a column such as ``filament`` or ``line`` has a filament for each of its values,
    another has one. Parameters and errors are those of :func:`read_text_table`; neither may
    a filament have one point alone.
    """
    table, is_named = _table(text)

    def lines(rows: pd.DataFrame, context: TomoContext) -> TomogramPoints:
        points, says = _points(rows, context.sampling, options, is_named=is_named)
        found = _clicked(rows, points, name)
        taken = f"{len(points)} points taken as clicked along {len(found)} filaments, in order"
        return TomogramPoints(context, found, says=(taken, *says))

    return _shared(table, contexts, options, lines)


def _shared(
    table: pd.DataFrame,
    contexts: Sequence[TomoContext],
    options: ReadOptions,
    read: Callable[[pd.DataFrame, TomoContext], TomogramPoints],
) -> list[TomogramPoints]:
    """Read each tomogram's own rows, and say whose they were taken to be."""
    whose = find_owners(table, contexts, options, _TOMOGRAM)
    found = []
    for place, (context, said) in enumerate(zip(contexts, whose.says, strict=True)):
        is_own = whose.places == place
        points = read(table[is_own], context) if is_own.any() else TomogramPoints(context)
        found.append(replace(points, says=tuple(filter(None, (said, *points.says)))))
    return found


def _our_particles(rows: pd.DataFrame, context: TomoContext) -> TomogramPoints:
    """Read a table as tomoseg itself writes them."""
    particles = particles_of(rows)
    _check_finite(np.concatenate([np.empty((0, 3)), *(t.points_angstrom for t in particles)]))
    return TomogramPoints(context, particles=particles)


def _clicked(rows: pd.DataFrame, points: Points, name: str) -> list[Filament]:
    members: dict[tuple[str, str], list[int]] = {}
    for row, key in enumerate(zip(_classes(rows, name), _numbers_of_lines(rows), strict=True)):
        members.setdefault(key, []).append(row)
    lines = []
    for number, ((one, called), line) in enumerate(members.items(), start=1):
        if len(line) < 2:
            raise FormatError(
                f"filament {called} has one point, and a line needs two",
                remedy="Click more points, or leave it out",
            )
        lines.append(Filament(str(one), number, points[line]))
    return lines


def _points(
    rows: pd.DataFrame, sampling: Sampling, options: ReadOptions, *, is_named: bool
) -> tuple[Points, tuple[str, ...]]:
    """Return the positions in rows, zyx, Å, and how they were read."""
    found = _position(list(rows), sampling)
    points = _angstrom(_numbers(rows, found.columns), found, sampling, options)
    _check_finite(points)
    return points, tuple(_said(list(rows), found, options, is_named=is_named))


def _check_finite(points: Points) -> None:
    bad = np.flatnonzero(~np.isfinite(points).all(axis=1))
    if len(bad):
        raise FormatError(
            f"{len(bad)} of {len(points)} positions are not finite, the first in row {bad[0] + 1}",
            remedy="Correct the table",
        )


def _classes(rows: pd.DataFrame, name: str) -> NDArray[np.str_]:
    """Return the class of each row; ``name`` where the table says none."""
    if _CLASS not in rows:
        return np.full(len(rows), name)
    return np.asarray(rows[_CLASS].replace("", name), np.str_)


def _numbers_of_lines(rows: pd.DataFrame) -> list[str]:
    """Return which filament each row is of, as the table says it; all of one where it does not."""
    # napari counts the points of a layer in "index", and the paths of one of shapes.
    shapes = ["index"] if "vertex-index" in rows else []
    column = next((one for one in (*_LINE, *shapes) if one in rows), None)
    return rows[column].astype(str).tolist() if column else [""] * len(rows)


def _table(text: str) -> tuple[pd.DataFrame, bool]:
    """Return a table of text, columns in small letters, and whether its first line names them."""
    lines = [line for line in text.lstrip("\ufeff").splitlines() if line.strip()]
    while lines and lines[0].lstrip().startswith("#") and not _is_head(lines[0]):
        del lines[0]
    if not lines:
        raise FormatError("the table cannot be read: it is empty", remedy="Check the file")
    fields = _fields(lines[0])
    is_named = not all(map(_is_number, fields))
    names = [name.lower() for name in fields] if is_named else _axes(len(fields))
    if len(set(names)) < len(names):
        raise FormatError(f"two columns have one name: {', '.join(names)}", remedy="Rename one")
    body = [line for line in lines[is_named:] if not line.lstrip().startswith("#")]
    try:
        with warnings.catch_warnings():
            # Of lines with more fields than names, pandas would drop the last.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                io.StringIO("\n".join(body)) if body else io.StringIO("\n"),
                sep=_mark(lines[0]),
                names=names,
                dtype=str,
                keep_default_na=False,
                index_col=False,
                skipinitialspace=True,
            )
    except (ValueError, pd.errors.ParserWarning) as error:
        raise FormatError(f"the table cannot be read: {error}", remedy="Check the file") from error
    return table.fillna(""), is_named


def _mark(line: str) -> str:
    """Return what stands between the columns."""
    mark = max(",;\t", key=line.count)
    return mark if mark in line else r"\s+"


def _fields(line: str) -> list[str]:
    """Return the fields of a line, without the mark of a comment before them."""
    plain, mark = line.strip().removeprefix("#").strip(), _mark(line)
    fields = plain.split() if mark == r"\s+" else next(csv.reader([plain], delimiter=mark))
    return [field.strip() for field in fields]


def _is_head(line: str) -> bool:
    names = [name.lower() for name in _fields(line)]
    return any(_NAPARI.fullmatch(name) for name in names) or bool(_named(names))


def _is_number(field: str) -> bool:
    try:
        float(field or "nan")
    except ValueError:
        return False
    return True


def _axes(number: int) -> list[str]:
    """Return the names of columns that have none."""
    if number not in (2, 3):
        raise FormatError(
            f"the table has {number} columns without names, and x, y and z are three",
            remedy="Write a first line that names them, such as x,y,z,score",
        )
    return ["x", "y", "z"][:number]


def _named(names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return unit → axis → column, of the columns that have the name of a position."""
    found: dict[str, dict[str, str]] = {}
    for unit, pattern in _NAMES.items():
        for name in names:
            if match := pattern.fullmatch(name):
                if match[1] in found.get(unit, {}):
                    raise FormatError(
                        f"{found[unit][match[1]]} and {name} both are {match[1]}",
                        remedy="Rename one",
                    )
                found.setdefault(unit, {})[match[1]] = name
    return found


def _position(names: list[str], sampling: Sampling) -> _Position:
    """Return the columns of positions."""
    wanted = "xy" if sampling.is_flat else "xyz"
    napari = sorted(name for name in names if _NAPARI.fullmatch(name))
    if napari:
        if len(napari) not in (len(wanted), 3):
            raise FormatError(
                f"{', '.join(napari)} are {len(napari)} axes, and the tomogram has {len(wanted)}",
                remedy="Save the points of this tomogram's layer alone",
            )
        return _Position(tuple(reversed(napari)), "voxels", is_said=False)
    found = _named(names)
    for axes in dict.fromkeys(("xyz", wanted)):
        for unit, columns in found.items():
            if set(axes) <= set(columns):
                taken = tuple(columns[axis] for axis in axes)
                return _Position(taken, unit or "voxels", is_said=bool(unit))
    if any({"x", "y"} <= set(columns) for columns in found.values()):
        raise FormatError(
            f"there is no z, and the tomogram has {sampling.shape[0]} slices; the columns are "
            f"{_some(names)}",
            remedy=f"Give positions in three dimensions; known names are {_KNOWN}",
        )
    raise FormatError(
        f"none of the columns {_some(names)} is known as a position",
        remedy=f"Name them {_KNOWN}",
    )


def _angstrom(values: Points, found: _Position, sampling: Sampling, options: ReadOptions) -> Points:
    """Return zyx, Å, of columns of positions, xyz or xy."""
    if values.shape[1] == 2:
        values = np.column_stack([values, np.zeros(len(values))])
    size, given = _UNITS[found.unit][0], options.pixel_size_angstrom
    if size is not None and given is not None:
        raise FormatError(
            f"{', '.join(found.columns)} are in {found.unit}, and --pixel-size is for pixels",
            remedy="Leave out --pixel-size",
        )
    scale = size or given
    return sampling.to_angstrom(xyz(values)) if scale is None else scale * xyz(values)


def _said(names: list[str], found: _Position, options: ReadOptions, *, is_named: bool) -> list[str]:
    """Say what was taken for positions and their unit, and which columns were not read."""
    columns, given = ", ".join(found.columns), options.pixel_size_angstrom
    if given is not None:
        says = [f"{columns} taken as pixels of {given:g} Å from 0, as --pixel-size says"]
    elif found.is_said:
        says = [f"positions are {columns}"]
    elif not is_named:
        says = [f"columns without names taken as {columns} in voxels from 0"]
    elif _NAPARI.fullmatch(found.columns[0]):
        says = [f"{columns} of napari taken as x, y, z in voxels from 0"]
    else:
        says = [f"{columns} taken as voxels from 0: call them x_angstrom … or x_nm … if they are"]
    known = {*found.columns, *_TOLD, *_TOMOGRAM, *_LINE}
    others = [name for name in names if name not in known and not _named([name])]
    return [*says, *([f"not read: {_some(others)}"] if others else [])]


def _numbers(table: pd.DataFrame, columns: Sequence[str]) -> Points:
    """Return columns of text as numbers, float64, shape (n, k), NaN where a field is empty."""
    try:
        return np.asarray(table[list(columns)].replace("", np.nan), np.float64)
    except ValueError as error:
        raise FormatError(
            f"{' or '.join(columns)} holds what is no number: {error}", remedy="Correct the table"
        ) from error


def _some(names: Sequence[str]) -> str:
    return f"{', '.join(names[:_MOST_SAID])}{' …' if len(names) > _MOST_SAID else ''}"
