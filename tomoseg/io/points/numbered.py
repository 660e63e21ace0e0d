"""Tables that know tomograms by numbers, and the text file that says which number is which."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np

from tomoseg.core.errors import FormatError
from tomoseg.io.points.dialects import TomoContext
from tomoseg.io.points.rows import Integers

# An ending made of letters; that of "TS_01_10.00Apx" is part of the name.
_SUFFIX = re.compile(r"\.[A-Za-z]+$")


def write_doc(contexts: Sequence[TomoContext]) -> str:
    """Return Dynamo's map of numbers to tomograms' files, ``1 TS_01.mrc`` a line."""
    lines = (f"{number} {context.tomo_name}.mrc\n" for number, context in enumerate(contexts, 1))
    return "".join(lines)


def read_doc(text: str) -> dict[int, str]:
    """Return number → tomogram's name, which is the file's without folder and ending.

    Raises
    ------
    FormatError
        If a line is no number and a file, or a number stands twice.
    """
    names: dict[int, str] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        number, _, file = line.replace("\t", " ").partition(" ")
        if not number.isdecimal() or not file.strip():
            raise FormatError(
                f"{line!r} is not a number and a tomogram's file", remedy="Correct the .doc"
            )
        path = PurePosixPath(file.strip().replace("\\", "/"))
        name = _SUFFIX.sub("", path.name)
        if names.setdefault(int(number), name) != name:
            raise FormatError(
                f"number {number} is {names[int(number)]} and {name}", remedy="Correct the .doc"
            )
    return names


def places(
    numbers: Integers, contexts: Sequence[TomoContext], tomo_names: Mapping[int, str]
) -> tuple[Integers, tuple[str, ...]]:
    """Return the place of each row's tomogram among those given, -1 where it is none of them.

    Parameters
    ----------
    numbers
        int64, shape (n,): number of each row's tomogram.
    contexts
        The tomograms wanted.
    tomo_names
        Number → name. Where it is empty, a file of one tomogram alone, whatever its number, is
        that of the only one given.

    Returns
    -------
    The places, and what was taken for granted, for people.

    Raises
    ------
    FormatError
        If a number has no name or no tomogram, or no row is of a tomogram given.
    """
    used = [int(number) for number in np.unique(numbers)]
    wanted = {context.tomo_name: place for place, context in enumerate(contexts)}
    says: tuple[str, ...] = ()
    if tomo_names or not used:
        place_of = {number: wanted.get(name, -1) for number, name in tomo_names.items()}
    elif len(used) == len(contexts) == 1:
        place_of = {used[0]: 0}
        says = (f"no .doc says which tomogram is number {used[0]}: taken to be this one",)
    else:
        raise FormatError(
            f"the table's tomograms are {used[:5]}, and no .doc says which of them are "
            f"{', '.join(list(wanted)[:5])}",
            remedy="Put a .doc of the table's name beside it, or give one with --doc: a line a "
            "tomogram, such as '1 TS_01.mrc'",
        )
    unknown = [number for number in used if number not in place_of]
    if unknown or (used and max(place_of[number] for number in used) < 0):
        raise FormatError(
            f"the table's tomograms are {used[:5]}, and by the .doc {(unknown or used)[:5]} are "
            f"none of {', '.join(list(wanted)[:5])}",
            remedy="Correct the .doc that says which number is which tomogram",
        )
    return np.array([place_of[number] for number in numbers.tolist()], np.int64), says
