"""All dialects by name, and which one a file is written in."""

from __future__ import annotations

import json
from collections.abc import Mapping
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
class Known:
    """A dialect, in a line what it is for a person, and whether it has a place for particles."""

    dialect: Dialect
    about: str
    has_particles: bool = True


_ALL = (
    Known(Relion5(), "RELION 5: .star, with tables of the tomograms and an optimisation set"),
    Known(Relion4(), "RELION 4: .star, pixels of the unbinned tilt series"),
    Known(Warp(), "Warp and M: .star, pixels of the tomogram"),
    Known(Dynamo(), "Dynamo: .tbl, and .doc with the tomograms' numbers"),
    Known(Stopgap(), "STOPGAP: __motl.star, and .doc with the tomograms' numbers"),
    Known(Av3(), "AV3 and TOM: __motl.em, and .doc with the tomograms' numbers"),
    Known(Imod(), "IMOD: .mod, a model a tomogram; no orientations, no scores"),
    Known(Amira(), "Amira: .am, a SpatialGraph a tomogram; no orientations"),
    Known(Eman2(), "EMAN2: _info.json, boxes and curves a tomogram; no orientations"),
    Known(Copick(), "copick: an overlay with picks, filaments and config.json"),
    Known(Portal(), "CryoET Data Portal: .ndjson, and .json that describes it; no scores"),
    Known(Csv(), "tomoseg's own tables: .csv, voxels and Å"),
    Known(Tardis(), "TARDIS: .csv, filaments alone", has_particles=False),
)
DIALECTS: Mapping[str, Known] = {known.dialect.name: known for known in _ALL}

# A file of more bytes is not looked through to tell what it is.
_LARGEST_GUESSED_BYTES = 256 * 2**20
# Of a block, they tell what it holds.
_FIRST_LINES = MOST_COLUMNS + 10


_STAR: Mapping[str, type[Relion5 | Relion4 | Warp]] = {
    "relion5": Relion5,
    "relion4": Relion4,
    "warp": Warp,
}


def reader(
    name: str,
    *,
    doc: str = "",
    origin: Origin = "corner",
    options: ReadOptions = READ_AS_IS,
) -> Dialect:
    """Return a dialect as a file is read in.

    Parameters
    ----------
    name
        One of :data:`DIALECTS`.
    doc
        The text that says which number is which tomogram, of a program that numbers them.
    origin
        From where a table of Dynamo counts.
    options
        How a table in STAR is read.
    """
    if name in _STAR:
        return _STAR[name](options)
    tomo_names = read_doc(doc)
    if name == "dynamo":
        return Dynamo(tomo_names, origin)
    if name == "stopgap":
        return Stopgap(tomo_names)
    return Av3(tomo_names) if name == "av3" else DIALECTS[name].dialect


def dialect_of(data: bytes, name: str) -> str | None:
    """Tell the dialect of a file of this content and name; None where that is not certain.

    Raises
    ------
    FormatError
        If it is called as a STAR file and is none.
    """
    suffix = PurePosixPath(name.lower()).suffix
    if len(data) > _LARGEST_GUESSED_BYTES:
        return None
    if suffix in _BY_CONTENT:
        return _BY_CONTENT[suffix](data)
    return {".tbl": "dynamo", ".mod": "imod", ".ndjson": "portal"}.get(suffix)


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


_BY_CONTENT = {
    ".em": _em_dialect,
    ".star": _star_dialect,
    ".csv": _table_dialect,
    ".json": _json_dialect,
    ".am": _amira_dialect,
}
