"""Files that lie among tomograms and are none, told by their names.

TS_01.mrc                  a tomogram
TS_01__actin.mrc           a mask as they are exported here, or labels
TS_01_mask.mrc             a mask
TS_01.st, TS_01_ali.mrc    tilt series
TS_01_EVN.mrc              half of the frames or tilts
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

TILT_SUFFIXES = (".st", ".mrcs")
TILT_LISTS = (".rawtlt", ".tlt", ".mdoc", ".mrc.mdoc")
"""What lies beside a tilt series, after its stem, and says its tilts."""
MASK, HALF_MAP = "a mask or labels", "a half map"
MOST_TOLD = 6
"""Files that a line names."""

_TILTS = re.compile(r".+_(ali|preali|tiltseries|tilt_series)", re.IGNORECASE)
_WORDS = (
    "masks?|labels?|seg|segmentation|segmented|semantic|instances?|membranes?|scores?|pred|"
    "predictions?|probabilities"
)
_OF_A_TOMOGRAM = re.compile(rf".+(?:__\w[\w-]*|[_.-](?:{_WORDS}))", re.IGNORECASE)
_HALF = re.compile(r"(?:^|[_.-])(?:evn|odd|even|half[_-]?[12ab])(?=[_.-]|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Seeming:
    """What a file seems to be besides a tomogram.

    Parameters
    ----------
    kind
        In words.
    wholes
        Stems of which one is that of its tomogram, the likeliest first: it is none only beside
        that. Empty for what is never one.
    """

    kind: str
    wholes: tuple[str, ...] = ()


def guess_kind(name: str) -> Seeming | None:
    """Return what a file seems to be by its name; None if it is a tomogram for all one knows.

    >>> guess_kind("TS_01.st")
    Seeming(kind='a tilt series', wholes=())
    >>> guess_kind("TS_01__actin.mrc")
    Seeming(kind='a mask or labels', wholes=('TS_01', 'TS'))
    >>> guess_kind("TS_01_EVN_Vol.mrc.gz")
    Seeming(kind='a half map', wholes=('TS_01_Vol',))
    >>> guess_kind("TS_01.mrc")
    """
    stem = stem_of(name)
    plain = name.lower().removesuffix(".gz").removesuffix(".bz2")
    if plain.endswith(TILT_SUFFIXES) or _TILTS.fullmatch(stem):
        return Seeming("a tilt series")
    if _OF_A_TOMOGRAM.fullmatch(stem):
        # Programs put their own names between that of the tomogram and the word.
        starts = {stem[: cut.start()] for cut in re.finditer(r"[_.-]", stem)}
        wholes = {start.rstrip("_.-") for start in starts} - {""}
        return Seeming(MASK, tuple(sorted(wholes, key=len, reverse=True)))
    if _HALF.search(stem):
        return Seeming(HALF_MAP, (_HALF.sub("", stem).lstrip("_.-"),))
    return None


def stem_of(name: str) -> str:
    """Return a file's name without its suffix, and without that of a compression.

    >>> stem_of("a.b.mrc.gz")
    'a.b'
    """
    place = PurePosixPath(name)
    is_packed = place.suffix.lower() in (".gz", ".bz2")
    return PurePosixPath(place.stem).stem if is_packed else place.stem


def told_left_out(left_out: Mapping[str, str], *, is_watched: bool = False) -> str:
    """Say in a line what was left out and how to have it all the same; empty if nothing.

    Parameters
    ----------
    left_out
        Why, by URL.
    is_watched
        Whether a watch left it out, whose sessions are folders.

    >>> told_left_out({"file:///a/TS_01.st": "a tilt series"}, is_watched=True)
    '1 file left out: TS_01.st (a tilt series); rename what is a tomogram all the same'
    """
    if not left_out:
        return ""
    number = "1 file" if len(left_out) == 1 else f"{len(left_out)} files"
    remedy = (
        "rename what is a tomogram all the same"
        if is_watched
        else "to process one as a tomogram, name the file itself in session.input"
    )
    return f"{number} left out: {name_first(left_out)}; {remedy}"


def name_first(reasons: Mapping[str, str]) -> str:
    """Name the first files of some, with the reasons, by URL."""
    rows = [f"{url.rpartition('/')[2]} ({why})" for url, why in reasons.items()]
    more = f" and {len(rows) - MOST_TOLD} more" if len(rows) > MOST_TOLD else ""
    return f"{', '.join(rows[:MOST_TOLD])}{more}"


def tilt_count(text: str) -> int:
    r"""Return how many tilts a list of angles or SerialEM's metadata tells.

    >>> tilt_count("-60.0\n-57.0\n"), tilt_count("[ZValue = 0]\nTiltAngle = 1\n[ZValue = 1]")
    (2, 2)
    """
    if "[ZValue" in text:
        return text.count("[ZValue")
    return sum(bool(line.strip()) for line in text.splitlines())
