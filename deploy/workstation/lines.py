"""The log of a part: each line one JSON object, whatever the part's processes say.

What tomoseg, Dask and Prefect log is JSON already. What a library prints, a server's greeting or
the last words of an interpreter are not: they become the message of a line.
"""

from __future__ import annotations

import json
import os
import select
from datetime import UTC, datetime
from pathlib import Path

CHUNK_BYTES = 1 << 16
LONGEST_BYTES = 1 << 20
"""A line without an end is cut here."""
QUIET_SECONDS = 0.2
"""Plain lines that follow each other sooner, such as those of a traceback, are one message."""


def copy_lines(source: int, log: Path, part: str) -> None:
    """Copy all that comes from a pipe to the end of a log, until nobody holds its other end.

    Parameters
    ----------
    source
        File descriptor; closed in the end.
    part
        Told as ``logger`` of what is wrapped.
    """
    rest, plain = b"", list[bytes]()
    with log.open("ab", buffering=0) as file, open(source, "rb", buffering=0):
        while True:
            is_quiet = not select.select([source], [], [], QUIET_SECONDS if plain else None)[0]
            chunk = b"" if is_quiet else os.read(source, CHUNK_BYTES)
            is_over = not (chunk or is_quiet)
            *whole, rest = (rest + chunk).split(b"\n")
            if is_over or len(rest) > LONGEST_BYTES:
                whole, rest = [*whole, rest], b""
            told = []
            for line in whole:
                if is_object(line):
                    told += [wrapped(plain, part), line + b"\n"]
                    plain = []
                else:
                    plain.append(line)
            if is_quiet or is_over or sum(map(len, plain)) > LONGEST_BYTES:
                told.append(wrapped(plain, part))
                plain = []
            file.write(b"".join(told))
            if is_over:
                return


def is_object(line: bytes) -> bool:
    """Tell whether a line is one JSON object."""
    try:
        return line.startswith(b"{") and isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def wrapped(plain: list[bytes], part: str) -> bytes:
    """Return plain lines as one JSON object on one line; nothing where they say nothing."""
    text = b"\n".join(plain).decode(errors="backslashreplace").strip("\r\n")
    if not text.strip():
        return b""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    said = {"time": now, "level": "info", "logger": f"output.{part}", "message": text}
    return json.dumps(said).encode() + b"\n"
