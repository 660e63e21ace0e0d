"""The text of STAR files: named blocks of columns.

Written as RELION 5 writes it, without a date, so that the same values give the same bytes. Read
as RELION, Warp and the starfile library write it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from tomoseg.errors import FormatError, RequestError
from tomoseg.version import code_version

# RELION looks at these numbers to tell its own generations of columns apart.
RELION_5, RELION_4 = 50001, 30001

# RELION has some 150 columns, and a block a tomogram in some files.
MOST_COLUMNS, MOST_BLOCKS = 1000, 10_000

_TOKEN = re.compile(r""""[^"]*"|'[^']*'|\S+""")
# "001" is a name, not the number 1.
_TEXT_COLUMNS = ("Name", "File")


def write_star(blocks: Mapping[str, pd.DataFrame], *, version: int = RELION_5) -> str:
    """Return the text of a STAR file.

    Parameters
    ----------
    blocks
        Tables by name, such as ``"particles"``; columns without their leading underscore.
    version
        RELION's number for the generation of the columns.

    Raises
    ------
    RequestError
        If a text cannot be written in STAR.
    """
    parts = [f"# Written by tomoseg {code_version()}\n"]
    for name, table in blocks.items():
        header = "".join(f"_{column} #{i}\n" for i, column in enumerate(table.columns, start=1))
        rows = zip(*(_column_text(table[column]) for column in table.columns), strict=True)
        body = "".join("\t".join(row) + "\n" for row in rows)
        parts.append(f"\n# version {version}\n\ndata_{name}\n\nloop_\n{header}{body}\n")
    return "".join(parts)


def decoded(data: bytes) -> str:
    """Return the text of a file.

    Raises
    ------
    FormatError
        If it is no text.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(f"this is no text: {error}", remedy="Check the file") from error


def read_star(text: str) -> dict[str, pd.DataFrame]:
    """Read a STAR file.

    Returns
    -------
    Tables by name; a block without a loop is a table of one row. Columns are integers or floats
    where every value is one, text elsewhere and where the column's name ends in Name or File.

    Raises
    ------
    FormatError
        If there is no block, or a row has too many or too few values.
    """
    blocks: dict[str, pd.DataFrame] = {}
    for number, (name, lines) in enumerate(_blocks(text)):
        if number >= MOST_BLOCKS:
            raise FormatError(f"the file has more than {MOST_BLOCKS} blocks, the most that is read")
        looped = bool(lines) and lines[0][1][0] == "loop_"
        columns = _looped_columns(name, lines[1:]) if looped else _single_columns(name, lines)
        blocks[name] = pd.DataFrame({key: _typed(key, values) for key, values in columns.items()})
    if not blocks:
        raise FormatError(
            f"not a STAR file: no line begins with data_, and it begins with {text[:40]!r}",
            remedy="Check the file",
        )
    return blocks


Line = tuple[int, list[str]]


def _blocks(text: str) -> Iterator[tuple[str, list[Line]]]:
    """Give each block's name and its lines as tokens with their line number, comments removed."""
    name: str | None = None
    lines: list[Line] = []
    for number, line in enumerate(text.splitlines(), start=1):
        tokens = _TOKEN.findall(line)
        comment = next((i for i, token in enumerate(tokens) if token.startswith("#")), None)
        tokens = tokens[:comment]
        if not tokens:
            continue
        if len(tokens) == 1 and tokens[0].startswith("data_"):
            if name is not None:
                yield name, lines
            name, lines = tokens[0].removeprefix("data_"), []
        else:
            lines.append((number, tokens))
    if name is not None:
        yield name, lines


def _looped_columns(name: str, lines: list[Line]) -> dict[str, list[str]]:
    header = [tokens[0] for _, tokens in lines if tokens[0].startswith("_")]
    _check_columns(name, len(header))
    rows = lines[len(header) :]
    for number, tokens in rows:
        if len(tokens) != len(header):
            raise FormatError(
                f"line {number} (block {name!r}) has {len(tokens)} values for {len(header)} columns"
            )
    values = zip(*(tokens for _, tokens in rows), strict=True) if rows else ([] for _ in header)
    return {
        key.removeprefix("_"): [_unquoted(v) for v in column]
        for key, column in zip(header, values, strict=True)
    }


def _check_columns(name: str, count: int) -> None:
    if count > MOST_COLUMNS:
        raise FormatError(f"block {name!r} has {count} columns; {MOST_COLUMNS} are read at most")


def _single_columns(name: str, lines: list[Line]) -> dict[str, list[str]]:
    _check_columns(name, len(lines))
    for number, tokens in lines:
        if len(tokens) != 2 or not tokens[0].startswith("_"):
            raise FormatError(f"line {number} (block {name!r}) is not a name and a value")
    return {key.removeprefix("_"): [_unquoted(value)] for _, (key, value) in lines}


def _typed(column: str, values: list[str]) -> pd.Series:
    if not column.endswith(_TEXT_COLUMNS):
        for kind in (np.int64, np.float64):
            try:
                return pd.Series(np.array(values, dtype=kind))
            except (ValueError, OverflowError):
                continue
    return pd.Series(values, dtype=object)


def _unquoted(token: str) -> str:
    quoted = len(token) > 1 and token[0] in "\"'" and token[-1] == token[0]
    return token[1:-1] if quoted else token


def _column_text(column: pd.Series) -> list[str]:
    if column.dtype.kind == "f":
        return [f"{value:.6f}" for value in column]
    return [_quoted(str(value)) for value in column]


def _quoted(value: str) -> str:
    """Return a text as one token."""
    if _TOKEN.fullmatch(value) and not value.startswith(("#", "_", "data_", "loop_", '"', "'")):
        return value
    quote = "'" if '"' in value else '"'
    if quote in value or "\n" in value or "\r" in value:
        raise RequestError(f"the text {value!r} cannot be written in a STAR file")
    return f"{quote}{value}{quote}"
