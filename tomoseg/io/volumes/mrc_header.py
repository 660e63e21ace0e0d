"""The 1024 bytes at the start of an MRC file, and what they mean.

Layout, modes and stamps are those of mrcfile, after Cheng et al., "MRC2014: Extensions to the MRC
format header for electron cryo-microscopy and tomography", J. Struct. Biol. 192 (2015); the IMOD
words at bytes 152 and 156 are from the "MRC file format used by IMOD" page of its documentation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from mrcfile.dtypes import HEADER_DTYPE
from mrcfile.utils import dtype_from_mode
from numpy.typing import NDArray

from tomoseg.analysis.intensity import spreads
from tomoseg.core.errors import FormatError
from tomoseg.core.sampling import Header, Sampling, Shape, Triple
from tomoseg.io.volumes.foreign import kind_by_content
from tomoseg.io.volumes.ranges import StoredArray
from tomoseg.io.voxel_size import decide_voxel_size

Integers = Literal["auto", "signed", "unsigned"]

FIELDS = np.dtype(
    {
        "names": [*HEADER_DTYPE.names, "imod_stamp", "imod_flags"],
        "formats": [*(HEADER_DTYPE[name] for name in HEADER_DTYPE.names), "<i4", "<i4"],
        "offsets": [*(HEADER_DTYPE.fields[name][1] for name in HEADER_DTYPE.names), 152, 156],
    }
)
"""The header as mrcfile has it, and IMOD's words among what is extra there."""
HEADER_BYTES = FIELDS.itemsize
# Along columns, rows and sections of the file, and along x, y and z.
COUNTS, STARTS = ["nx", "ny", "nz"], ["nxstart", "nystart", "nzstart"]
INTERVALS, AXES = ["mx", "my", "mz"], ["mapc", "mapr", "maps"]
MODES: dict[int, str] = {mode: dtype_from_mode(mode).name for mode in (0, 1, 2, 6, 12)}
REFUSED_MODES = {
    3: "complex 16-bit integers",
    4: "complex 32-bit floats",
    16: "colour pixels",
    101: "4-bit integers",
}
SIGNED_MOST, UNSIGNED_MOST = 127, 255
# Bytes with no more are of a mask or labels.
FEW_VALUES = 8
IMOD_STAMP = 1146047817
IMOD_SIGNED_BYTES, IMOD_INVERTED_ORIGIN, IMOD_PACKED_BYTES = 1, 4, 16
# Ten times the year of the standard, and its revision.
_MRC2014_VERSIONS = range(20140, 21000)
# An origin further away than a millimetre is no origin.
_FARTHEST_ANGSTROM = 1e7


@dataclass(frozen=True)
class Layout:
    """What an MRC file holds and where its voxels lie.

    Parameters
    ----------
    header
        What the file says, in zyx order.
    stored
        The array as it lies in the file.
    axes
        For the file's sections, rows and columns: which of z, y, x (0, 1, 2) they run along.
    """

    header: Header
    stored: StoredArray
    axes: Shape


def parse_header(
    raw: bytes,
    file_bytes: int,
    *,
    override_angstrom: float | None = None,
    integers: Integers = "auto",
    some_bytes: Callable[[int], NDArray[np.uint8]] | None = None,
) -> Layout:
    """Read a header; nothing is allocated that the file's own size does not back.

    Parameters
    ----------
    raw
        The file's first 1024 bytes, or all it has.
    file_bytes
        Size of the whole file.
    override_angstrom
        Voxel size to take instead of the header's.
    integers
        Whether integers have a sign, whatever the header says.
    some_bytes
        Returns voxels of one byte from all over the file, from some place on. Only where the
        header does not tell are they looked at; without them such bytes are signed, as the
        standard has it.

    Raises
    ------
    FormatError
        If this is not an MRC file, is of a kind that is not read here, or is too short for the
        voxels that it announces.
    VoxelSizeError
        If the header's voxel size cannot be right and no override is given.
    """
    _refuse_other_files(raw, file_bytes)
    fields, notes = _in_its_byte_order(raw, file_bytes)
    shape = _file_shape(fields)
    dtype = _voxel_type(fields, notes, integers, some_bytes)
    dtype = dtype.newbyteorder(fields.dtype["mode"].byteorder)
    stored = _place_array(fields, shape, dtype, file_bytes, notes)
    axes = _axes(fields, notes)
    origin, is_imods = _origin(fields, notes)
    header = Header(
        sampling=_sampling(fields, _to_zyx(shape, axes), override_angstrom, notes),
        dtype=dtype.name,
        origin_angstrom=origin,
        start_voxels=_to_zyx(_reversed(fields[STARTS]), axes),
        notes=tuple(notes),
        has_imods_origin=is_imods,
    )
    return Layout(header, stored, axes)


def stated_origin(header: Header) -> Triple:
    """Return the origin as the source's file states it, zyx, Å."""
    z, y, x = header.origin_angstrom
    return (-z, -y, -x) if header.has_imods_origin else (z, y, x)


def announced_bytes(raw: bytes) -> int:
    """Return the size of the file that a header announces; raise as :func:`parse_header` does."""
    stored = parse_header(raw, 2**62, override_angstrom=1.0).stored
    return stored.offset + stored.byte_count


def _refuse_other_files(raw: bytes, file_bytes: int) -> None:
    remedy = "Check that the file is an MRC file and was copied completely"
    if file_bytes == 0:
        raise FormatError("the file is empty", remedy=remedy)
    is_whole = len(raw) >= HEADER_BYTES
    if is_whole and (_has_stamp(raw) or _is_old(raw, file_bytes)):
        return
    if known := kind_by_content(raw):
        raise FormatError(f"not an MRC file: it is {known[0]}", remedy=known[1])
    if not is_whole:
        raise FormatError(
            f"the file has {file_bytes} bytes; an MRC header has {HEADER_BYTES}", remedy=remedy
        )
    raise FormatError(
        f"not an MRC file: bytes 208 to 211 are {raw[208:212]!r} instead of b'MAP ', it begins "
        f"with {raw[:12]!r}, and its numbers make no sense as an old header either",
        remedy=remedy,
    )


def _has_stamp(raw: bytes) -> bool:
    return raw[208:211] == b"MAP"


def _readings(raw: bytes) -> dict[str, Any]:
    """Return the fields by the byte order that they are read in."""
    return {
        "little": np.frombuffer(raw, FIELDS)[0],
        "big": np.frombuffer(raw, FIELDS.newbyteorder(">"))[0],
    }


def _is_old(raw: bytes, file_bytes: int) -> bool:
    """Tell whether a header without a stamp is one of an MRC file.

    IMOD, FEI and EMAN wrote such for years. Where the header does not say the order of the axes,
    the file's size must be exactly what the header announces.
    """
    return any(_is_plausible(fields, file_bytes) for fields in _readings(raw).values())


def _is_plausible(fields: Any, file_bytes: int) -> bool:
    shape, mode = _reversed(fields[COUNTS]), int(fields["mode"])
    if min(shape) < 1 or mode not in MODES.keys() | REFUSED_MODES.keys():
        return False
    if sorted(fields[AXES]) == [1, 2, 3]:
        return True
    voxels = math.prod(shape) * np.dtype(MODES.get(mode, "int8")).itemsize
    rest = file_bytes - HEADER_BYTES - voxels
    return not any(fields[AXES]) and rest in (0, int(fields["nsymbt"]))


def _in_its_byte_order(raw: bytes, file_bytes: int) -> tuple[Any, list[str]]:
    """Return the fields in the byte order in which they make the most sense.

    The machine stamp is only compared with that: files exist with a stamp of zeros, with letters
    in it, and with big-endian data under a little-endian stamp.
    """
    readings = _readings(raw)
    best = max(readings, key=lambda order: _sense(readings[order], file_bytes))
    if not _has_stamp(raw):
        return readings[best], [
            f"no MAP stamp: read as an MRC header of old, {best}-endian; its numbers make sense"
        ]
    stamp = raw[212:216]
    # mrcfile looks at the second byte as well, where some programs write a blank.
    if best == {0x44: "little", 0x11: "big"}.get(stamp[0]):
        return readings[best], []
    return readings[best], [f"machine stamp {stamp.hex(' ')} is wrong; read as {best}-endian"]


def _sense(fields: Any, file_bytes: int) -> int:
    """Count what is in order in a header."""
    counts = [int(n) for n in fields[COUNTS]]
    return sum(
        [
            int(fields["mode"]) in MODES.keys() | REFUSED_MODES.keys(),
            sorted(fields[AXES]) in ([1, 2, 3], [0, 0, 0]),
            min(counts) > 0,
            HEADER_BYTES + math.prod(max(n, 0) for n in counts) <= file_bytes,
        ]
    )


def _file_shape(fields: Any) -> Shape:
    shape = _reversed(fields[COUNTS])
    if min(shape) < 1:
        raise FormatError(
            f"the header announces {shape} sections, rows and columns; each must be at least 1",
            remedy="Check that the file is an MRC file",
        )
    return shape


def _voxel_type(
    fields: Any,
    notes: list[str],
    integers: Integers,
    some_bytes: Callable[[int], NDArray[np.uint8]] | None,
) -> np.dtype[Any]:
    mode = int(fields["mode"])
    by_imod = int(fields["imod_stamp"]) == IMOD_STAMP
    flags = int(fields["imod_flags"]) if by_imod else 0
    packed = mode == 0 and flags & IMOD_PACKED_BYTES
    if mode not in MODES or packed:
        kind = "4-bit integers" if packed else REFUSED_MODES.get(mode, "an unknown kind")
        raise FormatError(
            f"MRC mode {mode} ({kind}) is not read; the modes read are {sorted(MODES)}",
            remedy="Convert the file to mode 2",
        )
    dtype = np.dtype(MODES[mode])
    if integers != "auto" and dtype.kind in "iu":
        kind = "u" if integers == "unsigned" else "i"
        return np.dtype(f"{kind}{dtype.itemsize}")
    if mode != 0:
        return dtype
    minimum, maximum = float(fields["dmin"]), float(fields["dmax"])
    if by_imod:
        unsigned = not flags & IMOD_SIGNED_BYTES
        told_by = "IMOD's flag says so" if unsigned else ""
    # Wrong statistics (minimum above maximum, NaN) fail these chains of comparisons.
    elif 0 <= minimum <= maximum <= UNSIGNED_MOST and maximum > SIGNED_MOST:
        unsigned, told_by = True, f"the header's maximum is {maximum:g}"
    elif -SIGNED_MOST - 1 <= minimum < 0 <= maximum <= SIGNED_MOST:
        unsigned, told_by = False, ""
    else:
        begin = HEADER_BYTES + max(0, int(fields["nsymbt"]))
        found = some_bytes(begin) if some_bytes else np.empty(0, np.uint8)
        unsigned, told_by = _judged(np.bincount(found, minlength=UNSIGNED_MOST + 1))
    if told_by:
        notes.append(f"mode 0 read as {'unsigned' if unsigned else 'signed'}: {told_by}")
    return np.dtype("uint8" if unsigned else "int8")


def _judged(counts: NDArray[np.int64]) -> tuple[bool, str]:
    """Tell whether bytes are unsigned, and why, where their header does not say it.

    Parameters
    ----------
    counts
        int64, shape (256,): how many have the bits of 0, 1, ….
    """
    if not counts[SIGNED_MOST + 1 :].any():
        return False, ""  # either way the same
    unsigned, signed = spreads(counts)
    # Where they do not differ all are negative, or none: grey values seldom are.
    is_unsigned = unsigned <= 1.001 * signed
    other = "signed" if is_unsigned else "unsigned"
    if np.count_nonzero(counts) <= FEW_VALUES:
        # Of a mask 0 and 255, rather than 0 and -1.
        return True, "a guess, they have few values; source.integers: signed reads the other way"
    return is_unsigned, (
        f"the header does not say, and as {other} they would spread {max(unsigned, signed):.0f} "
        f"instead of {min(unsigned, signed):.0f}; source.integers: {other} overrules this"
    )


def _place_array(
    fields: Any, shape: Shape, dtype: np.dtype[Any], file_bytes: int, notes: list[str]
) -> StoredArray:
    """Find the first voxel and check that the last one is in the file."""
    extended = int(fields["nsymbt"])
    wanted = math.prod(shape) * dtype.itemsize
    if extended != 0 and HEADER_BYTES + wanted == file_bytes:
        # Programs copy the header of another file without the extended header it announces.
        notes.append(f"an extended header of {extended} bytes is announced and is not there")
        extended = 0
    if extended < 0:
        raise FormatError(f"the header announces an extended header of {extended} bytes")
    rest = file_bytes - HEADER_BYTES - extended - wanted
    if rest < 0:
        raise FormatError(
            f"the file has {file_bytes} bytes, but {shape[0]}×{shape[1]}×{shape[2]} voxels of "
            f"{dtype.name} after {HEADER_BYTES} + {extended} bytes need {file_bytes - rest}",
            remedy="Copy the file again, or wait until it is written completely",
        )
    if rest > 0:
        notes.append(f"{rest} bytes after the last voxel were not read")
    return StoredArray(HEADER_BYTES + extended, shape, dtype)


def _axes(fields: Any, notes: list[str]) -> Shape:
    """Return which of z, y, x (0, 1, 2) sections, rows and columns run along."""
    along = _reversed(fields[AXES])
    if along == (0, 0, 0):
        return 0, 1, 2
    if sorted(along) != [1, 2, 3]:
        raise FormatError(
            f"MAPC, MAPR, MAPS are {along[::-1]}; they must be a permutation of 1, 2, 3",
            remedy="Repair the header",
        )
    if along != (3, 2, 1):
        notes.append(f"axes are permuted in the file: MAPC, MAPR, MAPS are {along[::-1]}")
    return 3 - along[0], 3 - along[1], 3 - along[2]


def _to_zyx(values: Shape, axes: Shape) -> Shape:
    """Sort values given for sections, rows, columns by the axis of space."""
    z, y, x = (values[axes.index(axis)] for axis in range(3))
    return z, y, x


def _sampling(fields: Any, shape: Shape, override: float | None, notes: list[str]) -> Sampling:
    angles = [float(angle) for angle in fields["cellb"]]
    if any(angle not in (0.0, 90.0) for angle in angles):
        notes.append(f"cell angles are {angles}; the grid is read as rectangular")
    return Sampling(
        shape, decide_voxel_size(_stated_voxel_size(fields, notes), override, notes=notes)
    )


def _stated_voxel_size(fields: Any, notes: list[str]) -> Triple | None:
    x_intervals, y_intervals, z_intervals = (int(n) for n in fields[INTERVALS])
    x_cell, y_cell, z_cell = (float(length) for length in fields["cella"])
    if min(x_intervals, y_intervals, z_intervals) < 1:
        return None
    y, x = y_cell / y_intervals, x_cell / x_intervals
    if z_intervals > 1:
        return z_cell / z_intervals, y, x
    # MZ = 1 marks a stack of images, whose z length means nothing; tomograms carry it too.
    notes.append("MZ is 1: the voxel size along z is taken from x and y")
    return (y + x) / 2, y, x


def _origin(fields: Any, notes: list[str]) -> tuple[Triple, bool]:
    """Return where the first voxel is, zyx, Å, and whether the file says it as old IMOD does."""
    x, y, z = (float(length) for length in fields["origin"])
    if not fields["map"].startswith(b"MAP"):
        x, y, z = _old_origin(fields, notes)
    if not all(math.isfinite(length) for length in (x, y, z)):
        notes.append(f"origin ({x}, {y}, {z}) is not finite; taken as 0")
        return (0.0, 0.0, 0.0), False
    if any((x, y, z)) and _is_imods_origin(fields):
        notes.append("origin is IMOD's, of the opposite sign: it was turned round")
        return (-z, -y, -x), True
    return (z, y, x), False


def _old_origin(fields: Any, notes: list[str]) -> Triple:
    """Return xyz, Å, of a header without a stamp.

    Where the stamp stands now stood the origin, z before x and y ("MRC file format", IMOD); some
    left the stamp out alone, and have it where it is today.
    """
    order = fields.dtype["mode"].byteorder
    z, x, y = (float(n) for n in np.frombuffer(fields.tobytes()[208:220], f"{order}f4"))
    now = tuple(float(n) for n in fields["origin"])
    # Letters there are another program's stamp; y alone is the deviation that stands there today.
    has_moved = (z != 0 or x != 0) and not fields["map"].isalpha()
    places = ((x, y, z), now) if has_moved else (now,)
    for xyz in places:
        if any(xyz) and all(n == 0 or 1e-3 <= abs(n) <= _FARTHEST_ANGSTROM for n in xyz):
            place = ", ".join(f"{n:.6g}" for n in xyz)
            notes.append(f"origin {place} Å (xyz) is taken from a header without a stamp")
            return xyz[0], xyz[1], xyz[2]
    if any(n != 0 for xyz in places for n in xyz):
        notes.append("the header without a stamp has no origin that makes sense; taken as 0")
    return 0.0, 0.0, 0.0


def _is_imods_origin(fields: Any) -> bool:
    """Tell whether the origin is where 0 lies in the volume, not where the volume lies.

    IMOD writes the former under its stamp; the latter, which is MRC2014's, with a flag or the
    number of that standard (``mrc_head_read`` and ``mrcGetStandardVersion`` of mrcfiles.c).
    """
    if int(fields["imod_stamp"]) != IMOD_STAMP:
        return False
    is_inverted = int(fields["imod_flags"]) & IMOD_INVERTED_ORIGIN
    return not is_inverted and int(fields["nversion"]) not in _MRC2014_VERSIONS


def _reversed(triple: Any) -> Shape:
    x, y, z = (int(value) for value in triple)
    return z, y, x
