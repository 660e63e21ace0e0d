"""Tables that know tomograms by numbers, and the text file that says which number is which."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np

from tomoseg.errors import FormatError
from tomoseg.formats.dialects import TomoContext
from tomoseg.formats.rows import Integers

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
        If a line is no number and a file.
    """
    names = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        number, _, file = line.partition(" ")
        if not number.isdecimal() or not file.strip():
            raise FormatError(f"{line!r} is not a number and a tomogram's file")
        path = PurePosixPath(file.strip().replace("\\", "/"))
        names[int(number)] = _SUFFIX.sub("", path.name)
    return names


def places(
    numbers: Integers, contexts: Sequence[TomoContext], tomo_names: Mapping[int, str]
) -> Integers:
    """Return the place of each row's tomogram among those given, -1 where it is none of them.

    Parameters
    ----------
    numbers
        int64, shape (n,): number of each row's tomogram.
    contexts
        The tomograms wanted.
    tomo_names
        Number → name. Where it is empty, tomogram 1 is the first of those given, 2 the second;
        and a file of one tomogram alone, whatever its number, is that of the only one given.

    Raises
    ------
    FormatError
        If a number has no name or no tomogram, or no row is of a tomogram given.
    """
    used = [int(number) for number in np.unique(numbers)]
    wanted = {context.tomo_name: place for place, context in enumerate(contexts)}
    if tomo_names:
        place_of = {number: wanted.get(name, -1) for number, name in tomo_names.items()}
    elif len(used) == len(contexts) == 1:
        place_of = {used[0]: 0}
    else:
        place_of = {number: number - 1 for number in range(1, len(contexts) + 1)}
    unknown = [number for number in used if number not in place_of]
    if unknown or (used and max(place_of[number] for number in used) < 0):
        raise FormatError(
            f"the table's tomograms are {used[:5]}, and {(unknown or used)[:5]} are none of "
            f"{', '.join(list(wanted)[:5])}",
            remedy="Give the .doc that says which number is which tomogram",
        )
    return np.array([place_of[number] for number in numbers.tolist()], np.int64)
