"""What is there to process: tomograms in files, folders and patterns, and what is none of them."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field

from tomoseg.core.errors import FormatError, RequestError
from tomoseg.core.lookalikes import (
    MASK,
    TILT_LISTS,
    Seeming,
    guess_kind,
    name_first,
    stem_of,
    tilt_count,
    told_left_out,
)
from tomoseg.io.stores import (
    Entry,
    Folder,
    checked_url,
    fingerprint,
    is_folder,
    listing,
    matching,
    open_file,
    read_file,
)
from tomoseg.io.volumes.compressed import compression_of
from tomoseg.io.volumes.em import HEADER_BYTES as EM_HEADER_BYTES
from tomoseg.io.volumes.em_volume import is_motive_list
from tomoseg.io.volumes.foreign import kind_by_name
from tomoseg.io.volumes.sources import (
    ANY_VOXEL_ANGSTROM,
    KINDS,
    Found,
    by_name,
    companion_of,
    companion_url,
    cut_name,
    kind_of,
    open_source,
)

# What stands for other text in a path.
_WILD = re.compile(r"[*?\[]")
# A list of tilts is a table of some lines.
_LARGEST_LIST = 2**22
# Where an AmiraMesh file says what it holds.
_AMIRA_BYTES = 4096

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Among:
    """What there is among files.

    Parameters
    ----------
    tomograms
        URLs.
    left_out
        Why, by the URL of what looks like one and is none.
    """

    tomograms: tuple[str, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Discovery:
    """What :func:`discovered` found.

    Parameters
    ----------
    tomograms
        By name.
    left_out
        As in :class:`Among`.
    """

    tomograms: tuple[Found, ...]
    left_out: Mapping[str, str]


def discover(
    inputs: Sequence[str], *, name_remove: Sequence[str] = (), companions: Sequence[str] = ()
) -> list[Found]:
    """Return the tomograms that :func:`discovered` finds."""
    return list(discovered(inputs, name_remove=name_remove, companions=companions).tomograms)


def discovered(
    inputs: Sequence[str], *, name_remove: Sequence[str] = (), companions: Sequence[str] = ()
) -> Discovery:
    """Look through files and folders for tomograms; what is left out is told as a warning, too.

    Parameters
    ----------
    inputs
        Paths or URLs, ``*``, ``?``, ``[...]`` and ``**`` standing for what is there; a folder
        stands for the tomograms directly in it, and for PNG images only where it has nothing
        else: beside tomograms they are pictures of them. AmiraMesh files in it count if they are
        of a lattice: others hold lines and surfaces. Masks, labels, tilt series and half maps
        among tomograms are left out; a file that is named itself is always taken.
    name_remove
        Regular expressions cut out of the file's stem.
    companions
        Patterns of files that belong to tomograms and are none, as in :func:`companion_url`.

    Raises
    ------
    RequestError
        If nothing is found, two tomograms have one name, or a place does not exist.
    """
    # A file given by itself and in its folder is one tomogram.
    urls: dict[str, None] = {}
    left_out: dict[str, str] = {}
    for place in inputs:
        there = _tomograms_at(place, name_remove, companions)
        urls |= dict.fromkeys(there.tomograms)
        left_out |= there.left_out
    left_out = {url: why for url, why in left_out.items() if url not in urls}
    said = told_left_out(left_out)
    if not urls:
        where = ", ".join(inputs) or "no input"
        raise RequestError(
            f"no tomogram in {where}" + (f"; {said}" if said else ""), remedy=f"Give {KINDS}."
        )
    for line in (said, _told_odd(urls)):
        if line:
            log.warning("%s", line)
    return Discovery(tuple(by_name(urls, name_remove)), left_out)


def _seeming(url: str) -> Seeming | None:
    return guess_kind(url.rpartition("/")[2])


def _told_odd(urls: Iterable[str]) -> str:
    """Say in a line what is processed and may be no tomogram; empty if nothing."""
    files = ((url, _seeming(url)) for url in urls)
    odd = {url: f"it looks like {seems.kind}" for url, seems in files if seems}
    return f"processed as tomograms: {name_first(odd)}" if odd else ""


def _tomograms_at(place: str, remove: Sequence[str], companions: Sequence[str]) -> Among:
    url = checked_url(place)
    folder, _, name = url.rpartition("/")
    if _WILD.search(url) and not Folder(folder).exists(name):
        return _matching(url, remove, companions)
    if kind_of(url) is not None and not (kind_of(url) != "zarr" and is_folder(url)):
        fingerprint(url)  # raises where there is nothing
        return Among((url,))
    if known := kind_by_name(url):
        raise RequestError(f"{url} is {known[0]}, which is not read", remedy=known[1])
    try:
        entries = listing(url)
    except RequestError as error:
        raise RequestError(
            f"{error.message}, nor a file of a known kind", remedy=f"Give {KINDS}."
        ) from error
    return tomograms_among(entries, name_remove=remove, companions=companions)


def _matching(pattern: str, remove: Sequence[str], companions: Sequence[str]) -> Among:
    """Return what matches; a folder that matches stands for the tomograms directly in it."""
    urls = [url for url in matching(pattern) if ".zarr/" not in url]
    files = {url for url in urls if kind_of(url) is not None}
    parts = [
        tomograms_among(listing(folder), of=files, name_remove=remove, companions=companions)
        for folder in sorted({url.rpartition("/")[0] for url in files})
    ]
    if not files:
        parts = [_tomograms_at(url, remove, companions) for url in urls if is_folder(url)]
    found = Among(
        tuple(url for part in parts for url in part.tomograms),
        {url: why for part in parts for url, why in part.left_out.items()},
    )
    if not found.tomograms and not found.left_out:
        raise RequestError(
            f"nothing that is a tomogram matches {pattern}",
            remedy="Correct session.input, or name a folder or files.",
        )
    return found


def tomograms_among(
    entries: Mapping[str, Entry],
    *,
    of: Set[str] | None = None,
    name_remove: Sequence[str] = (),
    companions: Sequence[str] = (),
    is_arriving: bool = False,
) -> Among:
    """Return what of a folder is a tomogram, as :func:`discovered` says.

    Parameters
    ----------
    entries
        What stands in the folder, by URL.
    of
        Only these are asked about; None for all.
    name_remove, companions
        As of :func:`discovered`.
    is_arriving
        Whether more is still to come: a mask may then come before its tomogram.
    """
    items = [
        url
        for url, entry in entries.items()
        if (of is None or url in of)
        and (kind := kind_of(url)) is not None
        and (kind == "zarr" or not entry.is_folder)
    ]
    items = [item for item in items if kind_of(item) != "amira" or _is_lattice(item)]
    items = [item for item in items if kind_of(item) != "em" or _is_em_volume(item)]
    items = [item for item in items if kind_of(item) != "png"] or items
    left_out = _left_out(items, entries.keys(), name_remove, companions)
    if is_arriving:
        left_out |= {
            item: f"{MASK}, whose tomogram is not there"
            for item in items
            if item not in left_out and (one := _seeming(item)) and one.kind == MASK
        }
    return Among(tuple(item for item in items if item not in left_out), left_out)


def _left_out(
    items: Sequence[str], beside: Set[str], remove: Sequence[str], companions: Sequence[str]
) -> dict[str, str]:
    """Return why, by URL, for what is no tomogram among others of its folder."""
    names = {item: cut_name(item, remove) for item in items}
    seems = {item: _seeming(item) for item in items}
    belonging = {
        url: f"it belongs to {name}, as the recipe says"
        for pattern in companions
        for item, name in names.items()
        if (url := companion_url(pattern, Found(name, item))) != item
    }
    belonging = {
        item: f"it belongs to {owner}, as the recipe says"
        for pattern in companions
        for item, name in names.items()
        if (owner := companion_of(pattern, item)) not in ("", name, stem_of(item))
    } | belonging
    left_out = {item: belonging[item] for item in items if item in belonging}
    left_out |= {
        item: "a tilt series: it has as many sections as tilts"
        for item in items
        if item not in left_out and _is_tilt_series(item, beside)
    }
    left_out |= {item: one.kind for item, one in seems.items() if one and not one.wholes}
    owners: dict[str, set[str]] = {}
    for item in items:
        for known in (stem_of(item), names[item]) if item not in left_out else ():
            owners.setdefault(known, set()).add(item)
    for item, one in seems.items():
        wholes = one.wholes if one and item not in left_out else ()
        whole = next((known for known in wholes if owners.get(known, set()) - {item}), None)
        if one and whole is not None:
            left_out[item] = f"{one.kind} of {whole}"
    return {item: left_out[item] for item in items if item in left_out}


def _is_tilt_series(url: str, beside: Set[str]) -> bool:
    """Tell whether an MRC file has as many sections as the list of tilts beside it has angles."""
    if kind_of(url) != "mrc" or compression_of(url):
        return False
    stem = url.rpartition(".")[0]
    lists = [f"{stem}{suffix}" for suffix in TILT_LISTS if f"{stem}{suffix}" in beside]
    if not lists:
        return False
    try:
        with open_source(url, voxel_size_angstrom=ANY_VOXEL_ANGSTROM) as source:
            sections = source.header.sampling.shape[0]
    except FormatError:
        return False
    return sections > 1 and any(
        tilt_count(read_file(one, largest=_LARGEST_LIST).decode(errors="replace")) == sections
        for one in lists
    )


def _is_lattice(url: str) -> bool:
    if compression_of(url):
        return True  # told when it is unpacked
    with open_file(url) as file:
        return b"define Lattice" in file.read(_AMIRA_BYTES)


def _is_em_volume(url: str) -> bool:
    if compression_of(url):
        return True  # told when it is unpacked
    with open_file(url) as file:
        return not is_motive_list(file.read(EM_HEADER_BYTES))
