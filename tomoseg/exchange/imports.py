"""Other programs' points and masks come into a project: see :mod:`tomoseg.exchange.imported`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import TypeVar

import numpy as np

from tomoseg.core.errors import FormatError, RequestError
from tomoseg.core.version import code_version
from tomoseg.exchange.imported import checked_class, note_import, write_mask, write_points
from tomoseg.exchange.masks import count, mask_reader, opened_on, rule_of
from tomoseg.exchange.tomograms import TomogramGroup, tomograms_at
from tomoseg.io.points.dialects import READ_AS_IS, Origin, ReadOptions, TomogramPoints
from tomoseg.io.points.picks import read_clicks, read_points
from tomoseg.io.points.registry import DIALECTS, Asked, dialect_of, reader
from tomoseg.io.points.star import decoded
from tomoseg.io.stores import Folder, checked_url, fingerprint, read_file
from tomoseg.io.volumes.sources import (
    AMIRA_SUFFIXES,
    EM_SUFFIXES,
    MRC_SUFFIXES,
    TIFF_SUFFIXES,
    ZARR_SUFFIXES,
)

VOLUMES = MRC_SUFFIXES + TIFF_SUFFIXES + ZARR_SUFFIXES
PICKS = "picks"
"""Tables of pickers, which are read and not written: :mod:`tomoseg.io.points.picks`."""
MASK = "mask"
Read = TypeVar("Read")
_PICK_SUFFIXES = (".cbox", ".box", ".coords", ".xml")
_COMPRESSED = (".gz", ".bz2")


@dataclass(frozen=True)
class ImportRequest:
    """What comes in, and as what.

    Parameters
    ----------
    url
        A file of points, or a volume.
    into
        A session's output, one of its tomograms, a tomogram, or a folder of them.
    name
        Class.
    dialect
        That the file is written in, ``picks`` or ``mask``; None tells where it is certain.
    only
        Of a file of several classes, the one to take.
    tomograms
        Names of those that the file is of; all that ``into`` stands for without any.
    value, threshold
        Of a volume: the class is where it has this value, or where it is above that one.
    flip_z
        Whether the file's slices come in the opposite order of the tomogram's.
    origin
        From where a table of Dynamo counts.
    voxel_size_angstrom
        Of the tomograms, where their headers do not say it.
    doc
        The file that says which number of the table is which tomogram; None takes the .doc beside.
    filaments
        Whether a table holds points that were clicked along filaments, in order.
    options
        What a table does not say itself.
    """

    url: str
    into: str
    name: str
    dialect: str | None = None
    only: str | None = None
    tomograms: tuple[str, ...] = ()
    value: int | None = None
    threshold: float | None = None
    flip_z: bool = False
    origin: Origin = "corner"
    voxel_size_angstrom: float | None = None
    doc: str | None = None
    filaments: bool = False
    options: ReadOptions = READ_AS_IS


@dataclass(frozen=True)
class Imported:
    """What came in.

    Parameters
    ----------
    home, is_session
        The folder that ``imported/`` is in, and whether it is a session's output.
    files
        Paths in it.
    kind
        ``"filaments"``, ``"particles"`` or ``"mask"``.
    says
        What was read, a line a tomogram.
    tomograms
        Places of the tomograms' own files.
    label
        Of a mask, that of the class.
    """

    home: Folder
    is_session: bool
    files: tuple[str, ...]
    kind: str
    says: tuple[str, ...]
    tomograms: tuple[str, ...]
    label: int | None = None


def import_file(request: ImportRequest) -> Imported:
    """Read points or a mask of another program, and put them beside the tomograms.

    Raises
    ------
    RequestError
        If the class has no name that a class can have, the dialect must be said, or the file
        says nothing of the tomograms.
    FormatError, VoxelSizeError
        If the file is damaged or does not fit the tomogram.
    """
    checked_class(request.name)
    if (request.value is not None) and (request.threshold is not None):
        raise RequestError("--value and --threshold exclude each other")
    group = tomograms_at(
        request.into, wanted=request.tomograms, voxel_size_angstrom=request.voxel_size_angstrom
    )
    dialect = _dialect(request)
    if request.filaments and dialect != PICKS:
        raise RequestError(
            f"--filaments is for a table of clicked points, and {request.url} is {dialect}",
            remedy="Leave out --filaments, or --from",
        )
    if dialect == MASK:
        return _import_mask(request, group)
    if request.value is not None or request.threshold is not None:
        raise RequestError(f"{request.url} holds points: --value and --threshold are for volumes")
    return _import_points(request, dialect, group)


def _dialect(request: ImportRequest) -> str:
    """Return what a file is, as was said or as is certain."""
    known = (*DIALECTS, PICKS, MASK)
    if request.dialect is not None:
        if request.dialect not in known:
            raise RequestError(
                f"there is no dialect {request.dialect!r}",
                remedy=f"Choose one of {', '.join(known)}",
            )
        return request.dialect
    if request.filaments:
        return PICKS
    place = request.url.lower().rstrip("/")
    plain = place.removesuffix(PurePosixPath(place).suffix) if _is_packed(place) else place
    if plain.endswith(VOLUMES):
        return MASK
    if plain.endswith(_PICK_SUFFIXES):
        return PICKS
    guessed = _named(request.url, lambda: dialect_of(_content(request.url), place))
    if guessed is None and plain.endswith(AMIRA_SUFFIXES + EM_SUFFIXES):
        return MASK
    if guessed is None:
        raise RequestError(
            f"which program wrote {request.url} cannot be told",
            remedy=f"Say --from with one of {', '.join(known)}",
        )
    return guessed


def _is_packed(place: str) -> bool:
    return place.endswith(_COMPRESSED)


def _content(url: str) -> bytes:
    return read_file(url)


def _import_points(request: ImportRequest, dialect: str, group: TomogramGroup) -> Imported:
    read = [
        (tomogram, _of_class(points, request))
        for tomogram, points in zip(group.tomograms, _read(request, dialect, group), strict=True)
    ]
    if request.flip_z:
        read = [(tomogram, points.flip_z()) for tomogram, points in read]
    kept = [(tomogram, points) for tomogram, points in read if _counts(points) != (0, 0)]
    if not kept:
        raise RequestError(
            f"{request.url} holds no point of {', '.join(p.name for p in group.tomograms)}",
            remedy="Check that the file belongs to these tomograms.",
        )
    files: list[str] = []
    source = {"from": request.url, "dialect": dialect, **fingerprint(checked_url(request.url))}
    kinds: set[str] = set()
    for tomogram, points in kept:
        files += write_points(group.home, tomogram, points)
        for kind, number in zip(("filaments", "particles"), _counts(points), strict=True):
            if number:
                kinds.add(kind)
                facts = {"tomoseg": code_version(), "kind": kind, "count": number, **source}
                facts["read"] = points.told(dialect)
                note_import(group.home, tomogram, request.name, facts)
    return Imported(
        group.home,
        group.is_session,
        tuple(files),
        " and ".join(sorted(kinds)),
        (*(points.told(dialect) for _, points in kept), *_without(points for _, points in read)),
        tuple(tomogram.url for tomogram, _ in kept),
    )


def _read(request: ImportRequest, dialect: str, group: TomogramGroup) -> list[TomogramPoints]:
    """Return what a file says of each tomogram, in their order."""
    contexts = [tomogram.context for tomogram in group.tomograms]
    data = _content(request.url)
    if dialect == PICKS:
        read = read_clicks if request.filaments else read_points
        return read(data, request.url, contexts, request.options)
    options = replace(request.options, file=request.url)
    known = reader(dialect, Asked(_doc(request), request.origin, options))
    found = _named(request.url, lambda: known.read(data, contexts, name=request.name))
    by_name = {points.context.tomo_name: points for points in found}
    return [by_name.get(one.tomo_name, TomogramPoints(one)) for one in contexts]


def _named(url: str, read: Callable[[], Read]) -> Read:
    """Return what is read; what is wrong with a file is said with its name."""
    try:
        return read()
    except FormatError as error:
        raise FormatError(f"{url}: {error.message}", remedy=error.remedy) from error


def _doc(request: ImportRequest) -> str:
    """Return the text that says which number is which tomogram, if there is one."""
    if request.doc is not None:
        return decoded(_content(request.doc))
    folder, _, file = checked_url(request.url).rpartition("/")
    name = f"{PurePosixPath(file).stem}.doc"
    return decoded(Folder(folder).read(name)) if Folder(folder).exists(name) else ""


def _of_class(points: TomogramPoints, request: ImportRequest) -> TomogramPoints:
    """Return the points of the one class that is taken, under its new name."""
    names = {line.name for line in points.filaments}
    names |= {table.name for table in points.particles}
    if request.only is not None:
        names &= {request.only}
    if len(names) > 1:
        raise RequestError(
            f"{request.url} holds several classes: {', '.join(sorted(names))}",
            remedy="Take one at a time with --only CLASS.",
        )
    filaments = [line for line in points.filaments if line.name in names]
    particles = [table for table in points.particles if table.name in names]
    return replace(
        points,
        filaments=[replace(line, name=request.name) for line in filaments],
        particles=[replace(table, name=request.name) for table in particles],
    )


def _without(read: Iterable[TomogramPoints]) -> list[str]:
    """Say of which tomograms the file holds nothing."""
    names = [points.context.tomo_name for points in read if _counts(points) == (0, 0)]
    return [f"nothing of {', '.join(names[:5])}{' …' if len(names) > 5 else ''}"] if names else []


def _counts(points: TomogramPoints) -> tuple[int, int]:
    return len(points.filaments), sum(len(table) for table in points.particles)


def _import_mask(request: ImportRequest, group: TomogramGroup) -> Imported:
    if len(group.tomograms) != 1:
        names = ", ".join(tomogram.name for tomogram in group.tomograms)
        raise RequestError(
            f"{request.url} is a volume, and {names} are {len(group.tomograms)} tomograms",
            remedy="Say which it is of with --tomogram.",
        )
    (tomogram,) = group.tomograms
    with opened_on(request.url, tomogram.header.sampling, tomogram.axes) as (source, notes):
        rule = rule_of(source, value=request.value, threshold=request.threshold)
        voxels = count(source, rule)
        if not voxels:
            raise RequestError(f"{request.url} has no voxel that is {rule.says}")
        read = mask_reader(source, rule, flip_z=request.flip_z)
        path, label = write_mask(group.home, tomogram, request.name, read)
    facts = {
        "tomoseg": code_version(),
        "kind": MASK,
        "voxels": voxels,
        "where": rule.says,
        "from": request.url,
        **fingerprint(checked_url(request.url)),
    }
    note_import(group.home, tomogram, request.name, facts)
    share = 100 * voxels / np.prod(tomogram.header.sampling.shape)
    said = f"{tomogram.name}: {voxels} voxels ({share:.3g}%), where it is {rule.says}"
    return Imported(
        group.home, group.is_session, (path,), MASK, (said, *notes), (tomogram.url,), label
    )
