"""All dialects by name, and which one a file is written in."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from tomoseg.io.points.amira import CONTENT, Amira
from tomoseg.io.points.copick import Copick
from tomoseg.io.points.csv_dialects import TARDIS_COLUMNS, Csv, Tardis
from tomoseg.io.points.dialects import READ_AS_IS, Dialect, Origin, ReadOptions
from tomoseg.io.points.dynamo import Dynamo
from tomoseg.io.points.eman2 import Eman2
from tomoseg.io.points.imod import Imod
from tomoseg.io.points.motive_lists import BLOCK, Av3, Stopgap
from tomoseg.io.points.numbered import read_doc
from tomoseg.io.points.owners import NAME_COLUMNS
from tomoseg.io.points.portal import Portal
from tomoseg.io.points.relion import Relion5
from tomoseg.io.points.relion_pixels import Relion4, Warp
from tomoseg.io.points.relion_reader import CENTRED, PIXELS, TOMOSTAR
from tomoseg.io.points.star import MOST_COLUMNS, decoded, read_star
from tomoseg.io.points.tables import FILAMENT_COLUMNS, PARTICLE_COLUMNS
from tomoseg.io.volumes.em_volume import is_motive_list


@dataclass(frozen=True)
class Asked:
    """What a person says of a file that is read.

    Parameters
    ----------
    doc
        The text that says which number is which tomogram, of a program that numbers them.
    origin
        From where a table of Dynamo counts.
    options
        How a table in STAR is read.
    """

    doc: str = ""
    origin: Origin = "corner"
    options: ReadOptions = READ_AS_IS


@dataclass(frozen=True)
class Known:
    """All that is known of a dialect: a new one is a line of :data:`DIALECTS`.

    Parameters
    ----------
    dialect
        As it is written, and read where nothing is asked.
    about
        In a line what it is for a person.
    suffix
        Of its files, in small letters.
    tell
        Returns the dialect of a file with that suffix by its content; None: every one is of it.
    asked
        Returns it as a person asks for it; None: nothing can be asked.
    has_particles
        Whether it has a place for them.
    """

    dialect: Dialect
    about: str
    suffix: str
    tell: Callable[[bytes], str | None] | None = None
    asked: Callable[[Asked], Dialect] | None = None
    has_particles: bool = True


# A file of more bytes is not looked through to tell what it is.
_LARGEST_GUESSED_BYTES = 256 * 2**20
# Of a block, they tell what it holds.
_FIRST_LINES = MOST_COLUMNS + 10


def reader(name: str, asked: Asked = Asked()) -> Dialect:
    """Return a dialect, one of :data:`DIALECTS`, as a file is read in."""
    known = DIALECTS[name]
    return known.dialect if known.asked is None else known.asked(asked)


def dialect_of(data: bytes, name: str) -> str | None:
    """Tell the dialect of a file of this content and name; None where that is not certain.

    Raises
    ------
    FormatError
        If it is called as a STAR file and is none.
    """
    suffix = PurePosixPath(name.lower()).suffix
    known = [one for one in DIALECTS.values() if one.suffix == suffix]
    if not known or len(data) > _LARGEST_GUESSED_BYTES:
        return None
    return known[0].dialect.name if known[0].tell is None else known[0].tell(data)


def _star_dialect(data: bytes) -> str | None:
    blocks = read_star(decoded(data), most_lines=_FIRST_LINES)
    if BLOCK in blocks:
        return "stopgap"
    for table in blocks.values():
        if CENTRED[0] in table:
            return "relion5"
        if PIXELS[2] not in table:
            continue
        column = next((column for column in NAME_COLUMNS if column in table), None)
        names = () if column is None else table[column]
        if len(names) and all(str(name).endswith(TOMOSTAR) for name in names):
            return "warp"
        return "relion4" if column == "rlnTomoName" else None
    return None


def _table_dialect(data: bytes) -> str | None:
    header = data.partition(b"\n")[0].decode("utf-8-sig", "replace").strip()
    columns = {column.strip() for column in header.split(",")}
    if set(FILAMENT_COLUMNS) <= columns or set(PARTICLE_COLUMNS) <= columns:
        return "csv"
    return "tardis" if set(TARDIS_COLUMNS) <= columns else None


def _json_dialect(data: bytes) -> str | None:
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict):
        return None
    if "pickable_object_name" in values:
        return "copick"
    return "eman2" if {"boxes_3d", "curves", "apix_unbin"} & set(values) else None


def _amira_dialect(data: bytes) -> str | None:
    return "amira" if CONTENT.encode() in data[: 2**16] else None


def _em_dialect(data: bytes) -> str | None:
    return "av3" if is_motive_list(data) else None


_ALL = (
    Known(
        Relion5(),
        "RELION 5: .star, with tables of the tomograms and an optimisation set",
        ".star", _star_dialect, lambda asked: Relion5(asked.options),
    ),
    Known(
        Relion4(),
        "RELION 4: .star, pixels of the unbinned tilt series",
        ".star", _star_dialect, lambda asked: Relion4(asked.options),
    ),
    Known(
        Warp(),
        "Warp and M: .star, pixels of the tomogram",
        ".star", _star_dialect, lambda asked: Warp(asked.options),
    ),
    Known(
        Dynamo(),
        "Dynamo: .tbl, and .doc with the tomograms' numbers",
        ".tbl", None, lambda asked: Dynamo(read_doc(asked.doc), asked.origin),
    ),
    Known(
        Stopgap(),
        "STOPGAP: __motl.star, and .doc with the tomograms' numbers",
        ".star", _star_dialect, lambda asked: Stopgap(read_doc(asked.doc)),
    ),
    Known(
        Av3(),
        "AV3 and TOM: __motl.em, and .doc with the tomograms' numbers",
        ".em", _em_dialect, lambda asked: Av3(read_doc(asked.doc)),
    ),
    Known(Imod(), "IMOD: .mod, a model a tomogram; no orientations, no scores", ".mod"),
    Known(
        Amira(), "Amira: .am, a SpatialGraph a tomogram; no orientations", ".am", _amira_dialect
    ),
    Known(
        Eman2(),
        "EMAN2: _info.json, boxes and curves a tomogram; no orientations",
        ".json", _json_dialect,
    ),
    Known(
        Copick(),
        "copick: an overlay with picks, filaments and config.json",
        ".json", _json_dialect,
    ),
    Known(
        Portal(),
        "CryoET Data Portal: .ndjson, and .json that describes it; no scores",
        ".ndjson",
    ),
    Known(Csv(), "tomoseg's own tables: .csv, voxels and Å", ".csv", _table_dialect),
    Known(
        Tardis(),
        "TARDIS: .csv, filaments alone",
        ".csv", _table_dialect, has_particles=False,
    ),
)  # fmt: skip
DIALECTS: Mapping[str, Known] = {known.dialect.name: known for known in _ALL}
