"""Sessions of Membranorama, which MemBrain reads and writes too: particles seen on membranes.

XML, in UTF-16 from Windows: groups with a name, points with a position ``"x,y,z"`` in Å in the
frame of the membrane's model, which lies where the tomogram's header puts it: the header's origin
is part of a position (``SurfaceMesh`` and ``SurfacePoint`` of Membranorama's source).
"""

from __future__ import annotations

# Entities are declared in a DOCTYPE, which is refused: nothing expands, nothing is fetched.
from xml.parsers import expat

import numpy as np

from tomoseg.core.coordinates import Particles
from tomoseg.core.errors import FormatError
from tomoseg.core.sampling import xyz
from tomoseg.io.points.dialects import TomoContext, TomogramPoints

_GROUP, _POINT = "Group", "Point"


def read_membranorama(data: bytes, context: TomoContext) -> TomogramPoints:
    """Read the points of a session, a class a group.

    Raises
    ------
    FormatError
        If this is no such session, it has a DOCTYPE, a position is not three finite numbers, or
        it is not known where the tomogram's file puts its first voxel.
    """
    groups: dict[str, list[list[float]]] = {}
    inside: list[str] = []

    def begin(tag: str, fields: dict[str, str]) -> None:
        if tag == _GROUP:
            inside.append(fields.get("Name", ""))
            groups.setdefault(inside[-1], [])
        elif tag == _POINT and inside:
            groups[inside[-1]].append(_position(fields))

    def end(tag: str) -> None:
        if tag == _GROUP:
            inside.pop()

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = begin, end
    parser.StartDoctypeDeclHandler = _refuse
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise FormatError(f"this is no XML: {error}", remedy="Check the file") from error
    if not groups:
        raise FormatError(
            "the XML holds no group of points, as a session of Membranorama or MemBrain does",
            remedy="Save the session in that program",
        )
    return _placed(groups, context)


def _refuse(*_: object) -> None:
    raise FormatError(
        "the XML has a DOCTYPE, which can make a small file endless",
        remedy="Save it without one; Membranorama writes none",
    )


def _position(fields: dict[str, str]) -> list[float]:
    text = fields.get("Position", "")
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 3 or not np.isfinite(numbers).all():
        raise FormatError(
            f"point {fields.get('ID', '')} has the position {text!r}, not x,y,z in Å",
            remedy="Correct the file",
        )
    return numbers


def _placed(groups: dict[str, list[list[float]]], context: TomoContext) -> TomogramPoints:
    if context.origin_angstrom is None:
        raise FormatError(
            "positions include the origin of the tomogram's header, which is not known here",
            remedy="Import the file into the tomogram first: tomoseg import FILE --into TOMOGRAM",
        )
    z, y, x = context.origin_angstrom
    found = [
        Particles.at(name, xyz(np.array(points).reshape(-1, 3)) - (z, y, x))
        for name, points in groups.items()
    ]
    says = f"positions in Å from the header's origin, which is {x:g}, {y:g}, {z:g} (xyz)"
    return TomogramPoints(context, particles=found, says=(says,))
