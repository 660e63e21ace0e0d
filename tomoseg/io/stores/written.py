"""What a piece of work writes, noted while it is at work: for its receipt."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_WRITTEN: ContextVar[dict[str, int] | None] = ContextVar("written", default=None)


@contextmanager
def noted_writes() -> Iterator[dict[str, int]]:
    """Yield the files that are written in the block, URL → bytes, as they come.

    Only those of this thread count; an inner block keeps its own to itself.
    """
    written: dict[str, int] = {}
    before = _WRITTEN.set(written)
    try:
        yield written
    finally:
        _WRITTEN.reset(before)


def note_write(url: str, size: int) -> None:
    """Note a file that was written whole, where anybody wants to know."""
    written = _WRITTEN.get()
    if written is not None:
        written[url] = size


def is_noting() -> bool:
    """Whether anybody wants to know."""
    return _WRITTEN.get() is not None
