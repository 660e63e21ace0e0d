"""Amira's SpatialGraph: filaments as edges, particles as vertices that no edge touches.

Positions are in Å in Amira's space, in which a volume begins at its origin. The class, number and
score of an edge and the class and score of a vertex stand in fields of these names; the names of
the classes are parameters.
"""

from __future__ import annotations

import io
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tomoseg.core.coordinates import Filament, Particles, Points
from tomoseg.core.errors import FormatError, RequestError
from tomoseg.core.sampling import xyz
from tomoseg.io.points.dialects import TomoContext, TomogramPoints, WriteOptions, the_tomogram
from tomoseg.io.volumes.amira_header import TYPES, AmiraField, AmiraHeader, read_amira_header

CONTENT = "HxSpatialGraph"
UNKNOWN_SCORE = -1.0

_MARK = re.compile(rb"\s*+@(\d{1,9})[ \t]*+\r?\n")
_TEXT_MARK = re.compile(r"^@(\d{1,9})[ \t\r]*+$", re.MULTILINE)
# Place, type, name of the fields that are written, in their order.
_FIELDS = (
    ("VERTEX", "float[3]", "VertexCoordinates"),
    ("EDGE", "int[2]", "EdgeConnectivity"),
    ("EDGE", "int", "NumEdgePoints"),
    ("POINT", "float[3]", "EdgePointCoordinates"),
    ("VERTEX", "int", "Class"),
    ("VERTEX", "float", "Score"),
    ("EDGE", "int", "Class"),
    ("EDGE", "int", "Number"),
    ("EDGE", "float", "Score"),
)

_Sections = Mapping[tuple[str, str], NDArray[np.float64]]


class Amira:
    """SpatialGraphs that Amira shows with the tomogram. Orientations have no place in them."""

    name = "amira"
    scope: Literal["class", "tomogram"] = "tomogram"

    def write(
        self, points: Sequence[TomogramPoints], stem: str, options: WriteOptions
    ) -> dict[str, bytes]:
        """Return ``stem.am``, as text; a score that is unknown is -1.

        Raises
        ------
        RequestError
            If the name of a class holds a quote, a backslash or what cannot be printed.
        """
        context = the_tomogram([each.context for each in points], "Amira")
        lines, particles = points[0].filaments, points[0].particles
        names = [*(each.name for each in lines), *(each.name for each in particles)]
        classes = {name: number for number, name in enumerate(dict.fromkeys(names))}
        values = _values(lines, particles, classes, context)
        return {f"{stem}.am": _text(list(classes), values).encode()}

    def read(
        self, data: bytes, contexts: Sequence[TomoContext], *, name: str
    ) -> list[TomogramPoints]:
        """Return the edges and the vertices without edges of a SpatialGraph.

        Raises
        ------
        FormatError
            If this is no SpatialGraph as text or uncompressed binary, or it lacks a field,
            contradicts itself or holds a position that is not finite.
        """
        context = the_tomogram(contexts, "Amira")
        head = read_amira_header(io.BytesIO(data))
        content = " ".join(head.parameters.get("ContentType", ()))
        if content != CONTENT:
            raise FormatError(
                f"the AmiraMesh file holds {content or 'no named content'}; {CONTENT} is read",
                remedy="Give the traced lines, saved as SpatialGraph",
            )
        sections = _sections(data, head)
        lines = _filaments(sections, head, name, context)
        return [TomogramPoints(context, lines, _particles(sections, head, name, context))]


def _values(
    lines: Sequence[Filament],
    particles: Sequence[Particles],
    classes: Mapping[str, int],
    context: TomoContext,
) -> list[ArrayLike]:
    """Return the values of each of the fields that are written."""
    nothing = np.empty((0, 3))
    ends = [line.points_angstrom[[0, -1]] for line in lines]
    positions = [nothing, *ends, *(each.points_angstrom for each in particles)]
    points = [nothing, *(line.points_angstrom for line in lines)]
    scores = [np.repeat([line.score for line in lines], 2), *(each.scores for each in particles)]
    kinds = [classes[line.name] for line in lines]
    counts = [len(each) for each in particles]
    return [
        _in_space(np.concatenate(positions), context),
        np.arange(2 * len(lines)).reshape(-1, 2),
        [len(line.points_angstrom) for line in lines],
        _in_space(np.concatenate(points), context),
        [*np.repeat(kinds, 2), *np.repeat([classes[each.name] for each in particles], counts)],
        np.nan_to_num(np.concatenate(scores), nan=UNKNOWN_SCORE),
        kinds,
        [line.number for line in lines],
        np.nan_to_num([line.score for line in lines], nan=UNKNOWN_SCORE),
    ]


def _text(classes: list[str], values: list[ArrayLike]) -> str:
    for name in classes:
        if not name.isprintable() or set(name) & set('"\\'):
            raise RequestError(f"the class {name!r} cannot be a name in Amira", remedy="Rename it")
    named = "\n".join(f'        Class{i} "{name}",' for i, name in enumerate(classes))
    arrays = [np.asarray(each) for each in values]
    counts = {place: len(each) for (place, *_), each in zip(_FIELDS, arrays, strict=True)}
    defined = "\n".join(f"define {place} {count}" for place, count in counts.items())
    fields = "\n".join(
        f"{place} {{ {kind} {name} }} @{i}"
        for i, (place, kind, name) in enumerate(_FIELDS, start=1)
    )
    sections = "\n".join(f"@{i}\n{_rows(each)}" for i, each in enumerate(arrays, start=1))
    return (
        f"# AmiraMesh 3D ASCII 3.0\n# Lengths are in angstrom.\n\n{defined}\n\n"
        f'Parameters {{\n    Classes {{\n{named}\n    }}\n    ContentType "{CONTENT}"\n}}\n\n'
        f"{fields}\n\n# Data section follows\n{sections}"
    )


def _rows(values: NDArray[Any]) -> str:
    table = values if values.ndim == 2 else values[:, np.newaxis]
    form = "%d" if table.dtype.kind == "i" else "%.6f"
    return "".join(" ".join(form % value for value in row) + "\n" for row in table.tolist())


def _sections(data: bytes, head: AmiraHeader) -> _Sections:
    """Return place and name → values, float64, shape (n, components)."""
    for field in head.fields:
        if field.location not in head.counts or field.components < 1:
            raise FormatError(
                f"the SpatialGraph has {field.components} {field.name} a {field.location}, "
                f"of which {head.counts.get(field.location, 'no')} are defined"
            )
    if len({field.section for field in head.fields}) < len(head.fields):
        raise FormatError("two fields of the SpatialGraph stand in one section")
    parts = _binary_parts(data, head) if head.byte_order else _text_parts(data, head)
    return {
        (field.location, field.name): parts[field.section].reshape(-1, field.components)
        for field in head.fields
        if field.section in parts
    }


def _text_parts(data: bytes, head: AmiraHeader) -> dict[int, NDArray[np.float64]]:
    text = data[head.data_offset :].decode("latin-1")
    bodies = [str(head.first_section), *_TEXT_MARK.split(text)]
    found = dict(zip((int(n) for n in bodies[::2]), bodies[1::2], strict=True))
    return {
        field.section: _numbers(found[field.section], field, head)
        for field in head.fields
        if field.section in found
    }


def _numbers(body: str, field: AmiraField, head: AmiraHeader) -> NDArray[np.float64]:
    try:
        values = np.array(body.split(), np.float64)
    except ValueError as error:
        raise FormatError(f"{_called(field)} holds what is no number: {error}") from error
    expected = _value_count(field, head)
    if len(values) != expected:
        raise FormatError(
            f"{_called(field)} has {len(values)} values, not {expected}",
            remedy="Copy the file again; it is incomplete or was changed",
        )
    return values


def _binary_parts(data: bytes, head: AmiraHeader) -> dict[int, NDArray[np.float64]]:
    """Read sections one after the other: only their lengths tell where the next begins."""
    fields = {field.section: field for field in head.fields}
    found: dict[int, NDArray[np.float64]] = {}
    section, at = head.first_section, head.data_offset
    while section in fields:
        field = fields[section]
        if field.packing or field.kind not in TYPES:
            raise FormatError(
                f"{_called(field)} is {field.packing or field.kind}, which is not read",
                remedy="Save the SpatialGraph in Amira as ASCII",
            )
        dtype = np.dtype(TYPES[field.kind]).newbyteorder(head.byte_order or "=")
        end = at + _value_count(field, head) * dtype.itemsize
        if end > len(data):
            raise FormatError(
                f"{_called(field)} needs bytes up to {end}, and the file has {len(data)}",
                remedy="Copy the file again; it is incomplete",
            )
        with np.errstate(invalid="ignore"):  # signalling NaN
            found[section] = np.frombuffer(data[at:end], dtype).astype(np.float64)
        mark = _MARK.match(data, end)
        if mark is None or int(mark[1]) in found:
            return found
        section, at = int(mark[1]), mark.end()
    return found


def _value_count(field: AmiraField, head: AmiraHeader) -> int:
    return prod(head.counts[field.location]) * field.components


def _called(field: AmiraField) -> str:
    return f"the SpatialGraph's {field.name} of {field.location} (section {field.section})"


def _filaments(
    sections: _Sections, head: AmiraHeader, unnamed: str, context: TomoContext
) -> list[Filament]:
    counts = _needed(sections, "EDGE", "NumEdgePoints", 1)[:, 0]
    points = _needed(sections, "POINT", "EdgePointCoordinates", 3)
    if (counts < 2).any() or counts.sum() != len(points):
        raise FormatError(
            f"the SpatialGraph's edges have {counts.min(initial=0):g} and more points, "
            f"{counts.sum():g} together; each needs two, and there are {len(points)}",
            remedy="Save it in Amira again",
        )
    placed = _from_space(points, head, context)
    lines = np.split(placed, np.cumsum(counts[:-1]).astype(np.int64)) if len(counts) else []
    names = _names(sections, "EDGE", head, unnamed, len(lines))
    scores = _scores(sections, "EDGE", len(lines))
    numbers = _edge_numbers(sections, names)
    return [
        Filament(name, number, line, score)
        for name, number, line, score in zip(names, numbers, lines, scores.tolist(), strict=True)
    ]


def _edge_numbers(sections: _Sections, names: list[str]) -> list[int]:
    """Return the numbers of the file where they tell lines apart, else 1, 2, … a class."""
    given = sections.get(("EDGE", "Number"))
    if given is not None and np.isfinite(given).all():
        told = [int(number) for number in given[:, 0]]
        if min(told, default=1) > 0 and len(set(zip(names, told, strict=True))) == len(names):
            return told
    following: dict[str, Iterator[int]] = defaultdict(lambda: count(1))
    return [next(following[name]) for name in names]


def _particles(
    sections: _Sections, head: AmiraHeader, unnamed: str, context: TomoContext
) -> list[Particles]:
    vertices = _needed(sections, "VERTEX", "VertexCoordinates", 3)
    ends = _needed(sections, "EDGE", "EdgeConnectivity", 2)
    if ends.size and not (ends.min() >= 0 and ends.max() < len(vertices)):
        raise FormatError(
            f"the SpatialGraph's edges join vertices {ends.min():g}..{ends.max():g} of "
            f"{len(vertices)}",
            remedy="Save it in Amira again",
        )
    alone = np.ones(len(vertices), bool)
    alone[ends.astype(np.int64)] = False
    points = _from_space(vertices, head, context)
    scores = _scores(sections, "VERTEX", len(vertices))
    rows: dict[str, list[int]] = {}
    for i, name in enumerate(_names(sections, "VERTEX", head, unnamed, len(vertices))):
        if alone[i]:
            rows.setdefault(name, []).append(i)
    return [Particles.at(name, points[each], scores[each]) for name, each in rows.items()]


def _needed(sections: _Sections, place: str, name: str, components: int) -> NDArray[np.float64]:
    values = sections.get((place, name))
    if values is None or values.shape[1] != components:
        raise FormatError(
            f"the SpatialGraph has no {name} of {components} a {place}",
            remedy="Save it in Amira again",
        )
    return values


def _names(
    sections: _Sections, place: str, head: AmiraHeader, unnamed: str, size: int
) -> list[str]:
    given = sections.get((place, "Class"))
    if given is None:
        return [unnamed] * size
    known = [head.parameters.get(f"Classes/Class{number:g}") for number in given[:, 0]]
    return [" ".join(name) if name else unnamed for name in known]


def _scores(sections: _Sections, place: str, size: int) -> NDArray[np.float64]:
    given = sections.get((place, "Score"), np.full((size, 1), np.nan))[:, 0]
    return np.where((given >= 0) & (given <= 1), given, np.nan)


def _in_space(points_angstrom: Points, context: TomoContext) -> Points:
    return xyz(points_angstrom + _origin(context))


def _from_space(points_xyz: Points, head: AmiraHeader, context: TomoContext) -> Points:
    if not np.isfinite(points_xyz).all():
        raise FormatError("the SpatialGraph holds a position that is not finite")
    return xyz(points_xyz * (head.angstrom_per_unit or 1.0)) - _origin(context)


def _origin(context: TomoContext) -> Points:
    return np.array(context.origin_angstrom or (0.0, 0.0, 0.0))
