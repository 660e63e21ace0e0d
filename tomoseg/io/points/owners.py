"""Whose the rows of a table are: tomograms as other programs call them.

A tilt series ``TS_01`` gives ``TS_01.tomostar``, ``rec_TS_01.mrc``, ``TS_01_10.00Apx.mrc`` and
``TS_01_bin4_denoised.mrc``; ``TS_10``, ``TS_01_2`` and ``TS_01_a`` are others.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import pandas as pd

from tomoseg.core.errors import FormatError
from tomoseg.io.points.dialects import EVERY, ReadOptions, TomoContext
from tomoseg.io.points.rows import Integers

NAME_COLUMNS = ("rlnTomoName", "rlnMicrographName")

# An ending made of letters; that of "TS_01_10.00Apx" is part of the name.
_SUFFIX = re.compile(r"(\.(mrcs?|st|rec|ali))?\.[A-Za-z]+(:[A-Za-z]+)?$")
# A longer name is no file's.
_LONGEST = 255
# What programs add to the name of a tilt series when they align, reconstruct and filter it.
_STEPS = re.compile(
    r"^rec_|[_.-](?:\d+(?:\.\d+)?(?:Apx|A|px)|b(?:in)?_?\d+|rec|recon|reconstruct(?:ed|ion)?|tomo"
    r"|tomogram|full|st|ali|aligned|preali|wbp|sirt|sart|rot|rotx|flip[xyz]*|corr(?:ected)?|3?d?ctf"
    r"|filt(?:ered)?|lp\d*|dose|dw|denoised?|deconv|isonet|cryocare|topaz|evn|odd|even|half\d?"
    r"|aretomo\d?|etomo|imod|warp|relion)$",
    re.IGNORECASE,
)


@dataclass(frozen=True, eq=False)
class Owned:
    """Whose rows are whose.

    Parameters
    ----------
    places
        int64, shape (n,): place of each row's tomogram among those given, -1 for none of them.
    says
        For each of them how that was told, where it does not go without saying; else empty.
    """

    places: Integers
    says: tuple[str, ...]


def stems(names: Iterable[object]) -> list[str]:
    """Return names of tomograms without folder and suffix.

    >>> stems(["x/TS_01.mrc", "TS_01_10.00Apx", "TS_01.mrc.tomostar", "a_ali.st:mrc"])
    ['TS_01', 'TS_01_10.00Apx', 'TS_01', 'a_ali']
    """
    return [_SUFFIX.sub("", PurePosixPath(str(name)).name) for name in names]


def is_alike(one: str, other: str) -> bool:
    """Tell whether two names are of one tilt series.

    >>> [is_alike("TS_01", name) for name in ("rec_TS_01_bin4", "TS_01_10.00Apx", "TS_010", "TS_1")]
    [True, True, False, False]
    """
    return _tilt_series(one) == _tilt_series(other)


def find_owners(
    table: pd.DataFrame,
    contexts: Sequence[TomoContext],
    options: ReadOptions,
    columns: Sequence[str] = NAME_COLUMNS,
) -> Owned:
    """Tell whose the rows of a table are, by the first of these columns that it has.

    A tomogram's rows are those of its very name, else of the only name of the same tilt series.
    Rows that name none go by :func:`unnamed_owner`.

    Raises
    ------
    FormatError
        If that cannot be told, or there are rows, and none is of a tomogram given.
    """
    if options.rows_of is not None and len(contexts) != 1:
        raise FormatError(
            f"--rows-of {options.rows_of} is said of {len(contexts)} tomograms",
            remedy="Give the one tomogram that it is",
        )
    if options.rows_of == EVERY:
        has_names = any(column in table for column in columns)
        said = "all rows taken, whatever they name" if has_names else ""
        return Owned(np.zeros(len(table), np.int64), (said,))
    if not len(table):
        return Owned(np.empty(0, np.int64), ("",) * len(contexts))
    column = next((column for column in columns if column in table), None)
    if column is None:
        place, said = unnamed_owner(contexts, options.file)
        says = tuple(said if p == place else "" for p in range(len(contexts)))
        return Owned(np.full(len(table), place, np.int64), says)
    codes, written = pd.factorize(table[column].astype(str))
    wanted = {context.tomo_name for context in contexts}
    names = [
        name if name in wanted else stem for name, stem in zip(written, stems(written), strict=True)
    ]
    taken = _names_of(contexts, set(names), options)
    if not any(taken):
        raise FormatError(
            f"{column} names {_some(names)}, and none alone is {options.rows_of or _some(wanted)}",
            remedy="Give this tomogram's table, make the names equal, or import it with "
            "--rows-of NAME",
        )
    place_of = {name: place for place, name in enumerate(taken) if name}
    places = np.array([place_of.get(name, -1) for name in names], np.int64)[codes]
    left_out = int((places < 0).sum())
    others = _some(name for name in names if name not in place_of)
    more = f"{left_out} rows of {others} left out" if left_out else ""
    files: dict[str, list[str]] = {name: [] for name in place_of}
    for name, file in zip(names, written, strict=True):
        if name in files:
            files[name].append(file)
    pairs = zip(contexts, taken, strict=True)
    how = [(_said_of(context, name, files), more) for context, name in pairs]
    return Owned(places, tuple("; ".join(filter(None, each)) for each in how))


def unnamed_owner(contexts: Sequence[TomoContext], file: str) -> tuple[int, str]:
    """Return the place of the tomogram that a table without names is of, and how that is known.

    It is the one that the file is called after, or the only one given.

    Raises
    ------
    FormatError
        If there are several, and none or more than one is called as the file.
    """
    [stem] = stems([file])
    # We call a table <tomogram>__<class>.
    called = (stem, stem.rpartition("__")[0])
    alike = [
        place
        for place, context in enumerate(contexts)
        if any(is_alike(name, context.tomo_name) for name in called)
    ]
    if len(alike) == 1:
        said = "taken to be its rows by the name of the file" if len(contexts) > 1 else ""
        return alike[0], said
    if len(contexts) != 1:
        raise FormatError(
            "the rows name no tomogram, nor is the file called after one of "
            f"{_some(context.tomo_name for context in contexts)}",
            remedy="Give the one tomogram that the file belongs to, or import it with --tomogram",
        )
    other = f", and the file is called {stem}" if stem else ""
    return 0, f"the rows name no tomogram{other}"


def _tilt_series(name: str) -> str:
    while len(name) <= _LONGEST and (shorter := _STEPS.sub("", name)) not in ("", name):
        name = shorter
    return name


def _names_of(contexts: Sequence[TomoContext], names: set[str], options: ReadOptions) -> list[str]:
    """Return the name that each tomogram's rows have, empty where they have none for certain."""
    if options.rows_of is not None:
        return [options.rows_of if options.rows_of in names else ""]
    claimed = {context.tomo_name for context in contexts}
    alike: dict[str, set[str]] = {}
    for name in names - claimed:
        alike.setdefault(_tilt_series(name), set()).add(name)
    twins = Counter(_tilt_series(name) for name in claimed)
    found = []
    for context in contexts:
        series = _tilt_series(context.tomo_name)
        others = alike.get(series, set())
        is_certain = len(others) == 1 == twins[series]
        other = next(iter(others)) if is_certain else ""
        found.append(context.tomo_name if context.tomo_name in names else other)
    return found


def _said_of(context: TomoContext, name: str, files: Mapping[str, Sequence[str]]) -> str:
    """Return how rows of this name were told to be the tomogram's, if it is not plain."""
    if len(files.get(name, ())) > 1:
        return f"the rows of {_some(files[name])} taken to be its own"
    return f"the rows of {name} taken to be its own" if name not in ("", context.tomo_name) else ""


def _some(names: Iterable[str], most: int = 5) -> str:
    known = sorted({name if len(name) <= _LONGEST else f"{name[:40]}…" for name in names})
    return ", ".join([*known[:most], *(["…"] if len(known) > most else [])])
