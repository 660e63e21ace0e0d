"""Volumes whose file has y and z exchanged, and back: which axis of a file is which.

IMOD's ``tilt`` writes sections along y; the beam runs along the file's rows until ``trimvol``
turns the volume. Upright means that z is the beam, as everywhere in tomoseg.

    source.axes    upright z    upright y    as IMOD does it    hand
    zyx            z            y            nothing            as it is
    rotx           −y           z            trimvol -rx        kept: a turn by −90° about x
    yzx            y            z            trimvol -yz        mirrored: an exchange of two axes
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tomoseg.core.blocks import Box
from tomoseg.core.sampling import Header, Sampling, Shape

Axes = Literal["zyx", "rotx", "yzx"]
AXES_KEY = "source.axes"

# A volume whose y is so much shorter than its other axes is one before trimvol.
_THIN = 0.75

_Z, _Y = 0, 1


def upright_header(header: Header, axes: Axes) -> Header:
    """Return what a file's header says of the upright volume; what is odd is in its notes."""
    if axes == "zyx":
        note = told_unrotated(header.sampling.shape)
        return replace(header, notes=(*header.notes, note)) if note else header
    turned = _exchanged(_mirrored(header, _Y) if axes == "rotx" else header)
    hand = "the hand is kept" if axes == "rotx" else "the hand is mirrored"
    note = f"read with {AXES_KEY}: {axes}; {hand}, and points are those of the upright volume"
    return replace(turned, notes=(*turned.notes, note))


def file_header(header: Header, axes: Axes) -> Header:
    """Return the header of the file again, from that of the upright volume."""
    if axes == "zyx":
        return header
    return _exchanged(_mirrored(header, _Z) if axes == "rotx" else header)


def file_box(box: Box, axes: Axes, upright: Shape) -> Box:
    """Return where in the file a box of the upright volume, of some shape, lies.

    >>> file_box(Box((0, 2, 0), (1, 5, 9)), "rotx", (4, 6, 9))
    Box(begin=(2, 3, 0), end=(5, 4, 9))
    """
    if axes == "zyx":
        return box
    (z, y, x), (z_end, y_end, x_end) = box.begin, box.end
    if axes == "rotx":
        z, z_end = upright[0] - z_end, upright[0] - z
    return Box((y, z, x), (y_end, z_end, x_end))


def upright_voxels(voxels: NDArray[Any], axes: Axes) -> NDArray[Any]:
    """Return voxels zyx of a file as the upright volume has them."""
    if axes == "zyx":
        return voxels
    exchanged = voxels.transpose(1, 0, 2)
    return np.ascontiguousarray(exchanged[::-1] if axes == "rotx" else exchanged)


def file_voxels(voxels: NDArray[Any], axes: Axes) -> NDArray[Any]:
    """Return voxels zyx of the upright volume as the file has them."""
    if axes == "zyx":
        return voxels
    return np.ascontiguousarray((voxels[::-1] if axes == "rotx" else voxels).transpose(1, 0, 2))


def told_unrotated(shape: Shape) -> str:
    """Say that a volume looks like one before trimvol; empty if it does not.

    >>> told_unrotated((48, 192, 192))
    ''
    """
    z, y, x = shape
    if z == 1 or y > _THIN * min(z, x):
        return ""
    return (
        f"y is the shortest axis ({x} × {y} × {z} voxels xyz): it looks like an unrotated volume, "
        f"as IMOD has them before trimvol, and is taken as it is; {AXES_KEY}: rotx turns it as "
        "trimvol -rx does"
    )


def _mirrored(header: Header, axis: int) -> Header:
    """Return the header of a volume whose axis points the other way."""
    last, size = header.sampling.shape[axis] - 1, header.sampling.voxel_size_angstrom[axis]
    origin, start = list(header.origin_angstrom), list(header.start_voxels)
    origin[axis] = -(origin[axis] + last * size)
    start[axis] = -(start[axis] + last)
    return replace(
        header,
        origin_angstrom=(origin[0], origin[1], origin[2]),
        start_voxels=(start[0], start[1], start[2]),
    )


def _exchanged(header: Header) -> Header:
    """Return the header of a volume with y and z exchanged."""
    sampling = header.sampling
    (z, y, x), (z_size, y_size, x_size) = sampling.shape, sampling.voxel_size_angstrom
    oz, oy, ox = header.origin_angstrom
    sz, sy, sx = header.start_voxels
    return replace(
        header,
        sampling=Sampling((y, z, x), (y_size, z_size, x_size)),
        origin_angstrom=(oy, oz, ox),
        start_voxels=(sy, sz, sx),
    )
