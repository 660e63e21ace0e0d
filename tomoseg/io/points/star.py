"""The text of STAR files: named blocks of columns.

Written as RELION 5 writes it, without a date, so that the same values give the same bytes. Read
as RELION, Warp and the starfile library write it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from tomoseg.core.errors import FormatError, RequestError
from tomoseg.core.version import code_version

# RELION looks at these numbers to tell its own generations of columns apart.
RELION_5, RELION_4 = 50001, 30001

# RELION has some 150 columns, and a block a tomogram in some files.
MOST_COLUMNS, MOST_BLOCKS = 1000, 10_000

_TOKEN = re.compile(r""""[^"]*"|'[^']*'|\S+""")
# What stands behind a column's name: its number.
_NUMBER = re.compile(r"#\d+")
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


def read_star(text: str, *, most_lines: int | None = None) -> dict[str, pd.DataFrame]:
    """Read a STAR file.

    Parameters
    ----------
    text
        The file's content.
    most_lines
        Of each block, to see what it holds; None reads all.

    Returns
    -------
    Tables by name; a block without a loop is a table of one row. Columns are integers or floats
    where every value is one, text elsewhere and where the column's name ends in Name or File.

    Raises
    ------
    FormatError
        If there is no block, two blocks or two columns of one have the same name, or a row has too
        many or too few values.
    """
    blocks: dict[str, pd.DataFrame] = {}
    is_quoted = '"' in text or "'" in text
    for name, lines in _blocks(text, most_lines):
        if len(blocks) >= MOST_BLOCKS:
            raise FormatError(f"the file has more than {MOST_BLOCKS} blocks, the most that is read")
        if name in blocks:
            raise FormatError(
                f"two blocks are called data_{name}", remedy="Rename one, or join their rows"
            )
        looped = bool(lines) and lines[0][1][0] == "loop_"
        header, columns = _looped(name, lines[1:]) if looped else _single(name, lines)
        if is_quoted:
            columns = [[_unquoted(value) for value in column] for column in columns]
        blocks[name] = pd.DataFrame(
            {key: _typed(key, values) for key, values in zip(header, columns, strict=True)}
        )
    if not blocks:
        raise FormatError(
            f"not a STAR file: no line begins with data_, and it begins with {text[:40]!r}",
            remedy="Check the file",
        )
    return blocks


Line = tuple[int, list[str]]


def _blocks(text: str, most_lines: int | None) -> Iterator[tuple[str, list[Line]]]:
    """Give each block's name and its lines as tokens with their line number.

    Comments are removed, but for the number behind a column's name.
    """
    name: str | None = None
    lines: list[Line] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if most_lines is not None and len(lines) >= most_lines and not line.startswith("data_"):
            continue
        is_plain = "#" not in line and '"' not in line and "'" not in line
        tokens = line.split() if is_plain else _tokens(line)
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


def _tokens(line: str) -> list[str]:
    tokens: list[str] = _TOKEN.findall(line)
    if tokens and tokens[0].startswith("_") and _NUMBER.fullmatch("".join(tokens[1:2])):
        return tokens[:2]
    comment = next((i for i, token in enumerate(tokens) if token.startswith("#")), None)
    return tokens[:comment]


def _looped(name: str, lines: list[Line]) -> tuple[list[str], Sequence[Sequence[str]]]:
    """Return the columns of a loop, by name and by value."""
    header: list[str] = []
    for _, tokens in lines:
        if not _is_column(tokens, header, is_numbered=len(lines[0][1]) == 2):
            break
        header.append(tokens[0])
    _check_columns(name, header)
    rows = lines[len(header) :]
    for number, tokens in rows:
        if len(tokens) != len(header):
            raise FormatError(
                f"line {number} (block {name!r}) has {len(tokens)} values for {len(header)} columns"
            )
    values = list(zip(*(tokens for _, tokens in rows), strict=True)) or [()] * len(header)
    return [key.removeprefix("_") for key in header], values


def _is_column(tokens: list[str], header: Sequence[str], *, is_numbered: bool) -> bool:
    """Tell whether this is a column's name: with its number, or alone.

    Where the first column has a number, what stands alone behind that one is its first value.
    """
    if not tokens[0].startswith("_"):
        return False
    if len(tokens) == 2:
        return _NUMBER.fullmatch(tokens[1]) is not None
    return len(tokens) == 1 and not (is_numbered and len(header) == 1)


def _check_columns(name: str, header: Sequence[str]) -> None:
    if len(header) > MOST_COLUMNS:
        raise FormatError(
            f"block {name!r} has {len(header)} columns; {MOST_COLUMNS} are read at most"
        )
    twice = next((key for key, times in Counter(header).items() if times > 1), None)
    if twice is not None:
        raise FormatError(
            f"block {name!r} has the column {twice.removeprefix('_')} twice",
            remedy="Take one of the two out: which one is right cannot be known",
        )


def _single(name: str, lines: list[Line]) -> tuple[list[str], Sequence[Sequence[str]]]:
    """Return the names of a block without a loop, and the one value of each."""
    for number, tokens in lines:
        if len(tokens) != 2 or not tokens[0].startswith("_") or tokens[1].startswith("#"):
            raise FormatError(f"line {number} (block {name!r}) is not a name and a value")
    header = [tokens[0] for _, tokens in lines]
    _check_columns(name, header)
    return [key.removeprefix("_") for key in header], [[tokens[1]] for _, tokens in lines]


def _typed(column: str, values: Sequence[str]) -> pd.Series:
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
