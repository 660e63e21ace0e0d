"""CSV as dialects: our own tables of any tomograms, and those of TARDIS."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import numpy as np
import pandas as pd

from tomoseg.core.coordinates import Filament
from tomoseg.core.errors import FormatError, RequestError
from tomoseg.core.sampling import xyz
from tomoseg.io.points.dialects import TomoContext, TomogramPoints, WriteOptions
from tomoseg.io.points.picks import LARGEST_BYTES
from tomoseg.io.points.tables import (
    FILAMENT_COLUMNS,
    PARTICLE_COLUMNS,
    csv_text,
    filament_rows,
    filaments_of,
    holds_filaments,
    particle_rows,
    particles_of,
    read_rows,
)

TARDIS_COLUMNS = ["IDs", "X [A]", "Y [A]", "Z [A]"]


class Csv:
    """The tables of :mod:`tomoseg.io.points.tables`, with a first column ``tomogram``.

    What is read back are the Å; other columns are ignored.
    """

    name = "csv"
    scope: Literal["class", "tomogram"] = "class"

    def write(
        self, points: Sequence[TomogramPoints], stem: str, options: WriteOptions
    ) -> dict[str, bytes]:
        """Return ``<stem>.csv``; for a class with both, ``<stem>__filaments.csv`` and so on."""
        kinds = {
            "filaments": [filament_rows(t.filaments, t.context.sampling) for t in points],
            "particles": [particle_rows(t.particles, t.context.sampling) for t in points],
        }
        tables = {kind: _named(rows, points) for kind, rows in kinds.items()}
        filled = {kind: table for kind, table in tables.items() if len(table)}
        if len(filled) > 1:
            names = {kind: f"{stem}__{kind}.csv" for kind in filled}
        else:
            # Of nothing at all there is a header.
            looked_for = "particles" if any(t.particles for t in points) else "filaments"
            filled = filled or {looked_for: tables[looked_for]}
            names = dict.fromkeys(filled, f"{stem}.csv")
        return {names[kind]: csv_text(table).encode() for kind, table in filled.items()}

    def read(
        self, data: bytes, contexts: Sequence[TomoContext], *, name: str
    ) -> list[TomogramPoints]:
        """Return the rows of each tomogram given; classes are named in the file.

        Raises
        ------
        FormatError
            If a column is missing or holds what is no number, a position is not finite, or rows
            name no tomogram where several are given, or other tomograms alone.
        """
        text = _text(data)
        is_lines = holds_filaments(text)
        columns = FILAMENT_COLUMNS if is_lines else PARTICLE_COLUMNS
        table = read_rows(text, columns)
        if not np.isfinite(table[[c for c in columns if c.endswith("_angstrom")]]).all(axis=None):
            raise FormatError("a position is not finite", remedy="Correct the table")
        return [
            TomogramPoints(context, filaments=_lines(filaments_of, rows))
            if is_lines
            else TomogramPoints(context, particles=particles_of(rows))
            for context, rows in _parts(table, contexts)
        ]


class Tardis:
    """Filaments of one class of one tomogram, as TARDIS writes them: an id and Å, a row a point.

    Several tomograms become as many files, ``<stem>/<tomogram>.csv``. TARDIS counts ids from 0;
    where one is 0, numbers are one more.
    """

    name = "tardis"
    scope: Literal["class", "tomogram"] = "class"

    def write(
        self, points: Sequence[TomogramPoints], stem: str, options: WriteOptions
    ) -> dict[str, bytes]:
        """Return the table of each tomogram.

        Raises
        ------
        RequestError
            If there are particles.
        """
        if any(len(table) for tomogram in points for table in tomogram.particles):
            raise RequestError(
                "the tables of TARDIS hold filaments alone", remedy="Write the particles as csv"
            )
        return {
            f"{stem}.csv" if len(points) == 1 else f"{stem}/{t.context.tomo_name}.csv": csv_text(
                _tardis_rows(t.filaments)
            ).encode()
            for t in points
        }

    def read(
        self, data: bytes, contexts: Sequence[TomoContext], *, name: str
    ) -> list[TomogramPoints]:
        """Return the filaments of the only tomogram given; other columns are ignored.

        Raises
        ------
        RequestError
            If more tomograms than one are given: the file names none.
        FormatError
            If a column is missing or holds what is no number, or a line has one point alone.
        """
        if len(contexts) != 1:
            raise RequestError(
                f"a table of TARDIS is of one tomogram, and {len(contexts)} are given",
                remedy="Read the table of each tomogram by itself",
            )
        table = _tardis_table(_text(data))
        first = 1 if len(table) and table["IDs"].min() == 0 else 0
        lines = _lines(partial(_tardis_lines, name=name, first=first), table)
        return [TomogramPoints(contexts[0], lines)]


def _named(tables: Sequence[pd.DataFrame], points: Sequence[TomogramPoints]) -> pd.DataFrame:
    """Join the tables of tomograms, whose names become the first column."""
    for table, tomogram in zip(tables, points, strict=True):
        table.insert(0, "tomogram", tomogram.context.tomo_name)
    return pd.concat(tables)


def _text(data: bytes) -> str:
    if len(data) > LARGEST_BYTES:
        raise FormatError(
            f"{len(data)} bytes are more than the {LARGEST_BYTES} of the largest table read"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(f"this is no text: {error}", remedy="Check the file") from error


def _parts(
    table: pd.DataFrame, contexts: Sequence[TomoContext]
) -> list[tuple[TomoContext, pd.DataFrame]]:
    """Return each tomogram with its rows; the only one has all rows of a table without names."""
    if "tomogram" not in table:
        if len(contexts) != 1:
            raise FormatError(
                f"the table has no column tomogram, and {len(contexts)} tomograms are given",
                remedy="Read the table of each tomogram by itself",
            )
        return [(contexts[0], table)]
    wanted = {context.tomo_name for context in contexts}
    known = list(dict.fromkeys(table["tomogram"]))
    if known and not wanted & set(known):
        raise FormatError(
            f"the rows are of {', '.join(known[:5])}{' …' if len(known) > 5 else ''}, and of none "
            f"of {', '.join(sorted(wanted))}",
            remedy="Give these tomograms' table, or make the names equal",
        )
    return [(context, table[table["tomogram"] == context.tomo_name]) for context in contexts]


def _lines(read: Callable[[pd.DataFrame], list[Filament]], table: pd.DataFrame) -> list[Filament]:
    """Read filaments; a line that is none is the file's fault."""
    try:
        return read(table)
    except RequestError as error:
        raise FormatError(error.message, remedy="Correct the table") from error


def _tardis_rows(filaments: Sequence[Filament]) -> pd.DataFrame:
    rows = [
        pd.DataFrame(xyz(line.points_angstrom), columns=TARDIS_COLUMNS[1:]).assign(IDs=line.number)
        for line in filaments
    ]
    return (pd.concat(rows) if rows else pd.DataFrame()).reindex(columns=TARDIS_COLUMNS)


def _tardis_table(text: str) -> pd.DataFrame:
    try:
        table = pd.read_csv(
            io.StringIO(text),
            dtype=dict.fromkeys(TARDIS_COLUMNS, np.float64),
            keep_default_na=False,
        )
    except ValueError as error:
        raise FormatError(f"the table cannot be read: {error}", remedy="Check the file") from error
    missing = [column for column in TARDIS_COLUMNS if column not in table]
    if missing:
        raise FormatError(f"the table lacks the columns {', '.join(missing)}")
    if len(table) and not (table["IDs"].ge(0) & table["IDs"].mod(1).eq(0)).all():
        raise FormatError("an id is no number 0, 1, 2, …", remedy="Correct the table")
    return table


def _tardis_lines(table: pd.DataFrame, *, name: str, first: int) -> list[Filament]:
    return [
        Filament(name, int(number) + first, xyz(rows[TARDIS_COLUMNS[1:]]))
        for number, rows in table.groupby("IDs", sort=False)
    ]
