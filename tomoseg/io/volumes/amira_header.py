"""The head of an AmiraMesh file: what it holds, of which type, and where.

# AmiraMesh BINARY-LITTLE-ENDIAN 3.0      byte order, or ASCII
define Lattice 256 256 8                  how many of what, xyz
Parameters { BoundingBox 0 10 0 10 0 10, CoordType "uniform" }
Lattice { byte Data } @1                  what stands in which section
@1                                        the first section begins
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import BinaryIO, Literal

from tomoseg.core.errors import FormatError
from tomoseg.io.volumes.tiff import ANGSTROM_PER_UNIT

# Amira keeps a log of all that was done to the data in the head.
LARGEST_HEADER_BYTES = 4 * 2**20
TYPES = {
    "byte": "u1",
    "sbyte": "i1",
    "short": "i2",
    "ushort": "u2",
    "int": "i4",
    "float": "f4",
    "double": "f8",
}

_READ_BYTES = 2**16
_MAGIC = re.compile(
    rb"#[ \t]*(?:AmiraMesh|Avizo)[ \t][^\r\n]{0,80}?"
    rb"(ASCII|BINARY-LITTLE-ENDIAN|BINARY-BIG-ENDIAN|BINARY)\b"
)
_BYTE_ORDERS: dict[bytes, Literal["<", ">", ""]] = {b"ASCII": "", b"BINARY-LITTLE-ENDIAN": "<"}
_FIRST_SECTION = re.compile(rb"\n@(\d{1,9})[ \t]*+\r?\n")
_LONGEST_MARKER = 64
# Possessive, and strings end with the text, so that no text takes more than one pass.
_STRING_OR_REMARK = re.compile(r'"(?:\\.|[^"\\])*+(?:"|\Z)|#[^\n]*+', re.DOTALL)
_TOKEN = re.compile(r'"(?:\\.|[^"\\])*+(?:"|\Z)|#[^\n]*+|[{},\n]|[^\s{},"#]++', re.DOTALL)
_DEFINITION = re.compile(r"\bdefine[ \t]++(\w++)((?:[ \t]++\d{1,18}+)++)")
_FIELD = re.compile(
    r"\b(\w++)\s*+\{\s*+(\w++)(?:\[(\d{1,4})\])?\s++([\w-]++)\s*+\}\s*+=?\s*+@(\d{1,9})"
    r"(?:\(\s*+(\w++))?"
)
_DEEPEST = 3


@dataclass(frozen=True)
class AmiraField:
    """A list of values, one or more for each thing of a place."""

    location: str
    kind: str
    components: int
    name: str
    section: int
    packing: str


@dataclass(frozen=True)
class AmiraHeader:
    """The head of a file.

    Parameters
    ----------
    byte_order
        Of the sections; empty if they are text.
    counts
        Place → how many, xyz for a lattice.
    parameters
        Name, below ``Parameters`` and after a slash for each group → words, strings unquoted.
    fields
        The values that stand in the sections.
    first_section
        Number of the section that comes first.
    data_offset
        First byte of its values.
    """

    byte_order: Literal["<", ">", ""]
    counts: dict[str, tuple[int, ...]]
    parameters: dict[str, tuple[str, ...]]
    fields: tuple[AmiraField, ...]
    first_section: int
    data_offset: int

    @property
    def angstrom_per_unit(self) -> float | None:
        """Å of the unit of length that the file names; None if it names none.

        Raises
        ------
        FormatError
            If the unit is none that is known.
        """
        unit = " ".join(self.parameters.get("Units/Coordinates", ())).strip().lower()
        if not unit:
            return None
        if unit not in ANGSTROM_PER_UNIT:
            raise FormatError(
                f"the file's unit of length is {unit!r}, which is not known",
                remedy="Set nm, µm or Å in Amira and save the file again",
            )
        return ANGSTROM_PER_UNIT[unit]


def read_amira_header(file: BinaryIO) -> AmiraHeader:
    """Read the head of a file, and no more of it than that takes.

    Raises
    ------
    FormatError
        If this is no AmiraMesh file, or its head is larger than 4 MiB or has no end.
    """
    raw, first = _head(file)
    magic = _MAGIC.match(raw)
    assert magic is not None
    text = _decoded(raw[: first.start() + 1])
    bare = _STRING_OR_REMARK.sub(" ", text)
    return AmiraHeader(
        byte_order=_BYTE_ORDERS.get(magic[1], ">"),
        counts={
            name: tuple(int(n) for n in counts.split())
            for name, counts in _DEFINITION.findall(bare)
        },
        parameters=_parameters(text),
        fields=tuple(
            AmiraField(place, kind, int(components or 1), name, int(section), packing)
            for place, kind, components, name, section, packing in _FIELD.findall(bare)
        ),
        first_section=int(first[1]),
        data_offset=first.end(),
    )


def _head(file: BinaryIO) -> tuple[bytes, re.Match[bytes]]:
    """Return the beginning of a file and the mark of its first section."""
    file.seek(0)
    raw = b""
    while len(raw) < LARGEST_HEADER_BYTES:
        part = file.read(_READ_BYTES)
        seen = max(0, len(raw) - _LONGEST_MARKER)
        raw += part
        if not _MAGIC.match(raw):
            raise FormatError(
                "this is no AmiraMesh file: it does not begin with # AmiraMesh or # Avizo and how "
                "its values are written",
                remedy="Save it as AmiraMesh in Amira",
            )
        if first := _FIRST_SECTION.search(raw, seen):
            return raw, first
        if not part:
            raise FormatError(
                "the AmiraMesh file ends in its head: no section follows",
                remedy="Copy the file again; it is incomplete",
            )
    raise FormatError(
        f"the head of the AmiraMesh file is longer than {LARGEST_HEADER_BYTES} bytes",
        remedy="Save it in Amira without its history",
    )


def _decoded(raw: bytes) -> str:
    """Return text; older versions of Amira write Å as Latin-1."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _parameters(text: str) -> dict[str, tuple[str, ...]]:
    """Return what stands in the group Parameters, deep groups left out.

    An entry ends with a comma, a line or its group.
    """
    found: dict[str, tuple[str, ...]] = {}
    groups: list[str] = []
    words: list[str] = []
    last = ""
    for part in _TOKEN.findall(text):
        if part == "{":
            groups.append(words[0] if words else last)
            words = []
        elif part in "},\n":
            if words and groups[:1] == ["Parameters"] and len(groups) <= _DEEPEST:
                found["/".join([*groups[1:], words[0]])] = tuple(map(_unquoted, words[1:]))
            last, words = (words[0] if words else last), []
            if part == "}" and groups:
                groups.pop()
        elif not part.startswith("#"):
            words.append(part)
    return found


def _unquoted(token: str) -> str:
    if not token.startswith('"'):
        return token
    return re.sub(r"\\(.)", r"\1", token[1:].removesuffix('"'), flags=re.DOTALL)
