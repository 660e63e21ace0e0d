"""Where a run is: a bar on a terminal, plain lines otherwise."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

from tomoseg.monitoring.logs import is_json

PLAIN_SECONDS = 10.0


@contextmanager
def progress() -> Iterator[Any]:
    """Yield a function that shows the blocks done of a tomogram."""
    if is_json():
        yield lambda *done: None
        return
    if not sys.stderr.isatty():
        yield _PlainProgress()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        bar = bars.add_task("", total=None)

        def show(tomogram: str, work: str, done: int, total: int) -> None:
            bars.update(bar, description=f"{tomogram}: {work}", completed=done, total=total)

        yield show


class _PlainProgress:
    """Says where a run is: each stage of a tomogram once, then at most every ten seconds."""

    def __init__(self) -> None:
        self._stage = ""
        self._said = 0.0

    def __call__(self, tomogram: str, work: str, done: int, total: int) -> None:
        stage = f"{tomogram} {work.split(maxsplit=1)[0]}"
        if stage == self._stage and time.monotonic() - self._said < PLAIN_SECONDS:
            return
        self._stage, self._said = stage, time.monotonic()
        typer.echo(f"{tomogram}: {work}, {done} of {total} blocks", err=True)
