"""Surfaces as Wavefront OBJ and as binary STL.

Corners are xyz, Å, where the files' coordinates have no unit of their own. ``origin`` is added, so
that the surface lies on the tomogram in a program that puts maps where their header says, as
Chimera and ChimeraX do; others put the centre of the first voxel at 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tomoseg.analysis.meshes import Mesh
from tomoseg.core.errors import RequestError
from tomoseg.core.sampling import Header, Triple
from tomoseg.core.version import code_version
from tomoseg.io.volumes.mrc_header import stated_origin

# Rows written at once.
_ROWS = 100_000
_STL_TRIANGLE = np.dtype(
    [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")], align=False
)


def write_obj(file: BinaryIO, mesh: Mesh, name: str, *, origin: Triple = (0.0, 0.0, 0.0)) -> None:
    """Write a surface as OBJ; corners are shared, so that it can be smoothed.

    Parameters
    ----------
    file
        Open for writing in binary.
    mesh
        The surface.
    name
        Of the object: a class.
    origin
        Å, zyx, added to every corner.
    """
    file.write(f"# tomoseg {code_version()}, xyz in angstrom\no {name}\n".encode())
    for corners in _parts(mesh.corners_angstrom.astype(np.float64)):
        rows = (corners + origin)[:, ::-1]
        file.write(("v %.3f %.3f %.3f\n" * len(rows) % tuple(rows.ravel().tolist())).encode())
    for triangles in _parts(mesh.triangles + 1):
        file.write(("f %d %d %d\n" * len(triangles) % tuple(triangles.ravel().tolist())).encode())


def write_stl(file: BinaryIO, mesh: Mesh, name: str, *, origin: Triple = (0.0, 0.0, 0.0)) -> None:
    """Write a surface as binary STL: each triangle by itself, with its outward normal.

    Parameters
    ----------
    file, mesh, name, origin
        As in :func:`write_obj`.

    Raises
    ------
    RequestError
        If there are more triangles than STL can count.
    """
    if len(mesh.triangles) >= 2**32:
        raise RequestError(f"STL cannot count {len(mesh.triangles)} triangles")
    # No program must take it for the STL of text, which begins with "solid".
    file.write(f"tomoseg {code_version()} {name}, xyz in angstrom".encode()[:80].ljust(80))
    file.write(np.uint32(len(mesh.triangles)).astype("<u4").tobytes())
    for triangles in _parts(mesh.triangles):
        rows = np.zeros(len(triangles), _STL_TRIANGLE)
        corners = (mesh.corners_angstrom[triangles].astype(np.float64) + origin)[:, :, ::-1]
        across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        length = np.linalg.norm(across, axis=1, keepdims=True)
        rows["normal"] = across / np.where(length > 0, length, 1)
        rows["corners"] = corners
        file.write(rows.tobytes())


def place_of(header: Header) -> Triple:
    """Return where Chimera and ChimeraX put the centre of a map's first voxel, zyx, Å.

    The origin as the file states it, whatever IMOD's stamp says, unless it is zero; then the start
    in voxels (``mrc_format.py`` of ChimeraX).
    """
    if any(header.origin_angstrom):
        return stated_origin(header)
    z, y, x = (
        start * size
        for start, size in zip(
            header.start_voxels, header.sampling.voxel_size_angstrom, strict=True
        )
    )
    return z, y, x


def _parts(rows: NDArray[Any]) -> Iterator[NDArray[Any]]:
    for begin in range(0, len(rows), _ROWS):
        yield rows[begin : begin + _ROWS]
