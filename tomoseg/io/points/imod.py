"""IMOD models: filaments as open contours, particles as scattered points.

Positions are in voxels of the tomogram, whose first voxel covers 0 to 1 in x and y, but -0.5 to
0.5 in z: an index, 0-based, is written with 0.5 added in x and y alone.

Source: "IMOD Binary File Format, Version 1, Revision 2" (binspec) and IMOD's imodel_files.c.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from tomoseg.core.coordinates import Filament, Particles, Points
from tomoseg.core.errors import FormatError, RequestError
from tomoseg.core.sampling import Sampling, xyz
from tomoseg.io.points.dialects import (
    TomoContext,
    TomogramPoints,
    WriteOptions,
    by_class,
    the_tomogram,
)
from tomoseg.io.voxel_size import EQUAL_WITHIN

_ID = b"IMODV1.2"
# Name; xmax, ymax, zmax, objects; flags; drawing mode, mouse mode, black, white; offset xyz, scale
# xyz; current object, contour and point, resolution, threshold; pixel size; units, checksum;
# alpha, beta, gamma.
_MODEL = struct.Struct(">128s4iI4i6f5if2i3f")
# Name; extra; contours; flags; axis, drawing mode; red, green, blue; radius of spheres; symbol,
# its size, width of lines in 2D and 3D, their style, flags of symbols, padding, transparency;
# meshes, surfaces.
_OBJECT = struct.Struct(">64s64siI2i3fi8B2i")
_CONTOUR = struct.Struct(">iI2i")
_MESH = struct.Struct(">2iI2h")
_REFERENCE = struct.Struct(">18f")

# Model: z from -0.5; not yet written by 3dmod; several clip planes; bytes in IMAT; origins and
# tilt angles valid in MINX.
_WRITTEN_FLAGS = 1 << 10 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 15
_NEW_TO_3DMOD = 1 << 11
_FLIPPED = 1 << 16
_OPEN = 1 << 3
_SCATTERED = 1 << 9
_NANOMETRES = -9
# As 3dmod makes it: ambient, diffuse, specular, shininess; fill colour; …; white value.
_MATERIAL = bytes((102, 255, 127, 4, *(0,) * 9, 255, 0, 0))
# The first colours that 3dmod itself gives to objects.
_COLOURS = ("#00ff00", "#00ffff", "#ff00ff", "#ffff00", "#ff0000", "#0000ff")
_UNKNOWN_RADIUS_VOXELS = 3
_LONGEST_NAME = 63
_HALF_VOXEL = (0.5, 0.5, 0.0)


@dataclass(frozen=True)
class _Object:
    """An object of a model: its contours are shape (n, 3), xyz, in the model's voxels."""

    name: str
    flags: int
    contours: list[Points] = field(default_factory=list)
    surfaces: list[int] = field(default_factory=list)

    @property
    def is_of_particles(self) -> bool:
        """Whether the points stand for themselves: scattered, or one alone in every contour."""
        counts = [len(contour) for contour in self.contours]
        return bool(self.flags & _SCATTERED) or max(counts, default=0) == 1


class Imod:
    """Models that 3dmod shows over the tomogram: an object a class.

    The number of a filament is kept as the surface that its contour belongs to. Scores and
    orientations have no place in a model.

    Notes
    -----
    The chunk MINX ties a model to the pixel size, the origin and the tilt of a volume. 3dmod
    shifts the model where the volume that it is shown on has another origin
    (``ivwTransModel``), and takes the volume's own where the chunk is missing. As the sign of
    an origin depends on flags of the volume's file (``mrc_head_read``), the chunk is written only
    for a tomogram whose origin is known to be 0; without it the model lies right as well.
    """

    name = "imod"
    scope: Literal["class", "tomogram"] = "tomogram"

    def write(
        self, points: Sequence[TomogramPoints], stem: str, options: WriteOptions
    ) -> dict[str, bytes]:
        """Return ``stem.mod``.

        Raises
        ------
        RequestError
            If the name of a class is longer than 63 bytes, or a colour is none.
        """
        context = the_tomogram([each.context for each in points], "IMOD")
        objects = [
            *(_lines(lines, context) for lines in by_class(points[0].filaments).values()),
            *(_spheres(each, context, options) for each in points[0].particles),
        ]
        parts = [_ID, _model_header(context, len(objects))]
        for i, (name, header, body) in enumerate(objects):
            colour = options.colours.get(name, _COLOURS[i % len(_COLOURS)])
            parts += [_object_header(name, _rgb(colour), header), body, _chunk(b"IMAT", _MATERIAL)]
        parts += [_reference(context), b"IEOF"]
        return {f"{stem}.mod": b"".join(parts)}

    def read(
        self, data: bytes, contexts: Sequence[TomoContext], *, name: str
    ) -> list[TomogramPoints]:
        """Return the points of a model.

        Scattered points, and objects of which each contour has one point, are particles; other
        contours are filaments, also those of closed objects, which 3dmod makes unless told
        otherwise. Objects of one name are one class; ``name`` is that of objects without.

        Raises
        ------
        FormatError
            If this is no binary model, it is damaged, was drawn on another volume or on one
            shown with y and z flipped, holds a position that is not finite, or a line of one
            point.
        """
        context = the_tomogram(contexts, "IMOD")
        objects = list(_objects(data, context.sampling))
        lines: dict[str, list[tuple[int, Points]]] = {}
        spheres: dict[str, list[Points]] = {}
        for each in objects:
            placed = [_placed(contour, context, each) for contour in each.contours]
            if each.is_of_particles:
                spheres.setdefault(each.name or name, []).extend(placed)
            else:
                _refuse_single_points(each)
                lines.setdefault(each.name or name, []).extend(
                    zip(each.surfaces, placed, strict=True)
                )
        return [
            TomogramPoints(
                context,
                [f for each, found in lines.items() for f in _numbered(each, found)],
                [
                    Particles.at(each, np.concatenate([np.empty((0, 3)), *found]))
                    for each, found in spheres.items()
                ],
            )
        ]


def _model_header(context: TomoContext, count: int) -> bytes:
    (z, y, x), (dz, _, dx) = context.sampling.shape, context.sampling.voxel_size_angstrom
    current = (0, -1, -1) if count else (-1, -1, -1)
    return _MODEL.pack(
        _text("tomoseg"),
        *(x, y, z, count, _WRITTEN_FLAGS),
        *(1, 1, 0, 255),
        *(0.0, 0.0, 0.0, 1.0, 1.0, dz / dx),
        *(*current, 3, 128),
        dx / 10,
        *(_NANOMETRES, 0, 0.0, 0.0, 0.0),
    )


def _lines(
    filaments: Sequence[Filament], context: TomoContext
) -> tuple[str, tuple[int, int, int], bytes]:
    contours = [_contour(f.points_angstrom, context, surface=f.number) for f in filaments]
    header = (len(contours), _OPEN, 0)
    return filaments[0].name, header, b"".join(contours)


def _spheres(
    particles: Particles, context: TomoContext, options: WriteOptions
) -> tuple[str, tuple[int, int, int], bytes]:
    body = _contour(particles.points_angstrom, context)
    radius = _UNKNOWN_RADIUS_VOXELS
    if particles.name in options.radius_angstrom:
        exact = options.radius_angstrom[particles.name] / context.sampling.voxel_size_angstrom[2]
        body += _chunk(b"SIZE", np.full(len(particles), exact, ">f4").tobytes())
        radius = max(1, round(exact))
    return particles.name, (1, _OPEN | _SCATTERED, radius), body


def _object_header(
    name: str, colour: tuple[float, float, float], header: tuple[int, int, int]
) -> bytes:
    contours, flags, radius = header
    symbols = (1, 3, 1, 1, 0, 0, 0, 0)
    return b"OBJT" + _OBJECT.pack(
        _text(name), b"", contours, flags, 0, 1, *colour, radius, *symbols, 0, 0
    )


def _contour(points_angstrom: Points, context: TomoContext, *, surface: int = 0) -> bytes:
    points = xyz(context.sampling.to_voxels(points_angstrom)) + _HALF_VOXEL
    header = _CONTOUR.pack(len(points), 0, 0, surface)
    return b"CONT" + header + points.astype(">f4").tobytes()


def _reference(context: TomoContext) -> bytes:
    if context.origin_angstrom is None or any(context.origin_angstrom):
        return b""
    zero, scale = (0.0,) * 3, context.sampling.voxel_size_angstrom[::-1]
    return _chunk(b"MINX", _REFERENCE.pack(*scale, *zero, *zero, *scale, *zero, *zero))


def _chunk(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack(">i", len(content)) + content


def _text(name: str) -> bytes:
    encoded = name.encode()
    if len(encoded) > _LONGEST_NAME:
        raise RequestError(f"the class {name!r} is longer than IMOD's {_LONGEST_NAME} bytes")
    return encoded


def _rgb(colour: str) -> tuple[float, float, float]:
    try:
        red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    except ValueError as error:
        raise RequestError(f"{colour!r} is no colour", remedy="Write it as #rrggbb") from error
    return red / 255, green / 255, blue / 255


class _Bytes:
    """The rest of a file, taken from its front."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        if not 0 <= count <= len(self._data) - self._at:
            raise FormatError(
                f"the model is damaged: {count} bytes are said to follow at {self._at}, and "
                f"{len(self._data) - self._at} do",
                remedy="Copy the file again, or save it again in 3dmod",
            )
        self._at += count
        return self._data[self._at - count : self._at]

    def unpack(self, layout: struct.Struct) -> tuple[Any, ...]:
        return layout.unpack(self.take(layout.size))

    def chunk(self) -> bytes:
        (count,) = self.unpack(struct.Struct(">i"))
        return self.take(count)


def _objects(data: bytes, sampling: Sampling) -> Iterator[_Object]:
    """Parse a model; what is not a point is passed over."""
    rest = _Bytes(data)
    if data[:8] != _ID:
        raise FormatError(
            f"the file begins with {data[:8]!r}; binary IMOD models begin with {_ID!r}",
            remedy="Open it in 3dmod and save it",
        )
    rest.take(8)
    _refuse_other_volumes(rest.unpack(_MODEL), sampling)
    current: _Object | None = None
    while (kind := rest.take(4)) != b"IEOF":
        if kind == b"OBJT":
            if current is not None:
                yield current
            current = _object_of(rest)
        elif kind == b"CONT":
            _add_contour(rest, current)
        elif kind == b"MESH":
            vertices, indices, *_ = rest.unpack(_MESH)
            _ = rest.take(12 * vertices), rest.take(4 * indices)
        elif kind == b"MINX":
            _refuse_other_voxels(rest.chunk(), sampling)
        else:
            rest.chunk()
    if current is not None:
        yield current


def _object_of(rest: _Bytes) -> _Object:
    name, _, _, flags, *_ = _OBJECT.unpack(rest.take(_OBJECT.size))
    text = name.split(b"\0")[0].decode("utf-8", "replace").strip()
    return _Object(text, flags)


def _add_contour(rest: _Bytes, current: _Object | None) -> None:
    count, _, _, surface = rest.unpack(_CONTOUR)
    with np.errstate(invalid="ignore"):  # signalling NaN
        points = np.frombuffer(rest.take(12 * count), ">f4").reshape(-1, 3).astype(np.float64)
    if current is None:
        raise FormatError("the model is damaged: a contour stands before the first object")
    # 3dmod leaves contours behind that were begun and never drawn.
    if count:
        current.contours.append(points)
        current.surfaces.append(surface)


def _refuse_other_volumes(header: tuple[Any, ...], sampling: Sampling) -> None:
    x, y, z = header[1:4]
    flags = header[5]
    if flags & _FLIPPED:
        raise FormatError(
            "the model was saved on a volume shown with y and z flipped",
            remedy="Save it in 3dmod on the volume as it is",
        )
    # 3dmod states the volume's size; other programs leave 0, 1 or the extent of the points.
    if not flags & _NEW_TO_3DMOD and min(x, y, z) > 1 and (z, y, x) != sampling.shape:
        raise FormatError(
            f"the model was drawn on a volume of {x} × {y} × {z} voxels (xyz); the tomogram has "
            f"{' × '.join(str(n) for n in sampling.shape[::-1])}",
            remedy="Give the model that was drawn on this tomogram",
        )


def _refuse_other_voxels(chunk: bytes, sampling: Sampling) -> None:
    if len(chunk) < _REFERENCE.size:
        raise FormatError(f"the model's chunk MINX has {len(chunk)} bytes, not {_REFERENCE.size}")
    scale = np.array(_REFERENCE.unpack(chunk[: _REFERENCE.size])[9:12])
    known = np.isfinite(scale).all() and (scale > 0).all() and (scale != 1).any()
    expected = np.array(sampling.voxel_size_angstrom[::-1])
    if known and not np.allclose(scale, expected, rtol=EQUAL_WITHIN, atol=0):
        raise FormatError(
            f"the model was drawn on voxels of {scale.tolist()} Å (xyz); the tomogram has "
            f"{expected.tolist()} Å",
            remedy="Give the model that was drawn on this tomogram",
        )


def _refuse_single_points(each: _Object) -> None:
    for i, contour in enumerate(each.contours, start=1):
        if len(contour) < 2:
            raise FormatError(
                f"contour {i} of the model's object {each.name!r} has one point, others are lines",
                remedy="Delete it in 3dmod, or move points into an object of scattered points",
            )


def _placed(contour: Points, context: TomoContext, each: _Object) -> Points:
    if not np.isfinite(contour).all():
        raise FormatError(f"the model's object {each.name!r} has a position that is not finite")
    return context.sampling.to_angstrom(xyz(contour - _HALF_VOXEL))


def _numbered(name: str, found: list[tuple[int, Points]]) -> list[Filament]:
    """Return lines numbered by their surfaces where these tell them apart, else from 1."""
    surfaces = [surface for surface, _ in found]
    told = min(surfaces, default=0) > 0 and len(set(surfaces)) == len(surfaces)
    numbers = surfaces if told else range(1, len(found) + 1)
    return [
        Filament(name, number, points) for number, (_, points) in zip(numbers, found, strict=True)
    ]
