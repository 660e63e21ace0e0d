"""Picks of other programs: STAR of RELION, Warp and crYOLO, CBOX, EMAN's boxes, CSV, XML.

What a number means differs, and is said where it is read: :mod:`tomoseg.io.points.relion_reader`,
:mod:`tomoseg.io.points.boxes`, :mod:`tomoseg.io.points.text_tables`,
:mod:`tomoseg.io.points.membranorama`.

Rows of an image are counted as they lie in its file. crYOLO counts them from the bottom of what
it shows, which for MRC is the first row of the file, for TIFF and PNG the last.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from tomoseg.core.coordinates import Particles
from tomoseg.core.errors import FormatError
from tomoseg.core.sampling import Sampling
from tomoseg.io.points.boxes import CORNER, read_cbox, read_eman
from tomoseg.io.points.dialects import (
    EVERY,
    READ_AS_IS,
    ReadOptions,
    TomoContext,
    TomogramPoints,
)
from tomoseg.io.points.membranorama import read_membranorama
from tomoseg.io.points.owners import NAME_COLUMNS, stems, unnamed_owner
from tomoseg.io.points.relion_reader import read_relion
from tomoseg.io.points.star import decoded, read_star
from tomoseg.io.points.text_tables import read_clicked_lines, read_text_table

LARGEST_BYTES = 64 * 2**20
UNNAMED = "particle"

_IS_STAR = re.compile(r"^data_", re.MULTILINE)

Reader = Callable[[bytes, Sequence[TomoContext], ReadOptions], list[TomogramPoints]]


def read_points(
    data: bytes,
    name: str,
    contexts: Sequence[TomoContext],
    options: ReadOptions = READ_AS_IS,
) -> list[TomogramPoints]:
    """Read what a file holds of tomograms.

    Parameters
    ----------
    data
        The file's content.
    name
        Its name, path or URL; the suffix tells .star, .cbox, .box, .xml and tables of text apart.
    contexts
        The tomograms. Where rows name tomograms or micrographs, their own are taken
        (:func:`tomoseg.io.points.owners.find_owners`); a file without names is of one.
    options
        What a person says of the table.

    Returns
    -------
    An item a tomogram: filaments where rows have their numbers, else particles, in the order of
    the file; of the class ``"particle"`` where it names none. ``says`` tells whose rows, which
    block and which unit.

    Raises
    ------
    FormatError
        If the file is too large, is not what it seems, lacks a column, holds a position that is
        not finite or has no z in a tomogram of several slices, or names other tomograms alone.
    """
    return _named(_read, data, name, contexts, options)


def read_clicks(
    data: bytes,
    name: str,
    contexts: Sequence[TomoContext],
    options: ReadOptions = READ_AS_IS,
) -> list[TomogramPoints]:
    """Read a table of points that were clicked along filaments, in order, as these filaments.

    Parameters and errors are those of :func:`read_points`.
    """
    return _named(_read_clicks, data, name, contexts, options)


def read_picks(
    data: bytes, name: str, sampling: Sampling, *, tomogram: str | None = None
) -> list[Particles]:
    """Read positions as particles, those of filaments too, a table a class.

    As :func:`read_points` does. ``tomogram`` is the tomogram's name; None takes the rows of all.
    """
    context = TomoContext(tomogram or "tomogram", sampling)
    options = ReadOptions(rows_of=None if tomogram else EVERY, lines=False)
    [found] = read_points(data, name, [context], options)
    return list(found.particles)


def named_tomograms(data: bytes, name: str) -> list[str]:
    """Return the tomograms that the rows of a STAR file name, sorted; none for other tables.

    Raises
    ------
    FormatError
        If the file is too large or no text.
    """
    _check_size(data)
    text = decoded(data)
    if not _IS_STAR.search(text):
        return []
    try:
        blocks = read_star(text)
    except FormatError as error:
        raise FormatError(f"{name}: {error.message}", remedy=error.remedy) from error
    columns = [table[c] for table in blocks.values() for c in NAME_COLUMNS if c in table]
    return sorted(set(stems(columns[0].unique()))) if columns else []


def _named(
    read: Reader, data: bytes, name: str, contexts: Sequence[TomoContext], options: ReadOptions
) -> list[TomogramPoints]:
    """Read a file that is not too large; what is wrong with it is said with its name."""
    try:
        _check_size(data)
        return read(data, contexts, replace(options, file=name))
    except FormatError as error:
        raise FormatError(f"{name}: {error.message}", remedy=error.remedy) from error


def _check_size(data: bytes) -> None:
    if len(data) > LARGEST_BYTES:
        raise FormatError(
            f"{len(data)} bytes are more than the {LARGEST_BYTES} that a table of picks may have",
            remedy="Split the table by tomogram",
        )


def _read(
    data: bytes, contexts: Sequence[TomoContext], options: ReadOptions
) -> list[TomogramPoints]:
    suffix = PurePosixPath(options.file.lower()).suffix
    if suffix == ".xml":
        return _of_one(lambda context: read_membranorama(data, context), contexts, options)
    text = decoded(data)
    if suffix == ".box":
        return _of_one(lambda one: read_eman(text, one, UNNAMED, options), contexts, options)
    if suffix not in (".star", ".cbox") and not _IS_STAR.search(text):
        return read_text_table(text, contexts, UNNAMED, options)
    blocks = read_star(text)
    if any(CORNER[0] in table for table in blocks.values()):
        return _of_one(lambda one: read_cbox(blocks, one, UNNAMED, options), contexts, options)
    return read_relion(blocks, contexts, UNNAMED, options)


def _read_clicks(
    data: bytes, contexts: Sequence[TomoContext], options: ReadOptions
) -> list[TomogramPoints]:
    return read_clicked_lines(decoded(data), contexts, UNNAMED, options)


def _of_one(
    read: Callable[[TomoContext], TomogramPoints],
    contexts: Sequence[TomoContext],
    options: ReadOptions,
) -> list[TomogramPoints]:
    """Read a file that is of one tomogram and does not name it."""
    owner, said = unnamed_owner(contexts, options.file)
    found = read(contexts[owner])
    found = replace(found, says=tuple(filter(None, (said, *found.says))))
    return [found if place == owner else TomogramPoints(c) for place, c in enumerate(contexts)]
