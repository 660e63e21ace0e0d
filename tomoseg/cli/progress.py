"""Where a run is: a bar on a terminal, plain lines otherwise."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer

from tomoseg.compute.monitoring.logs import is_json

PLAIN_SECONDS = 10.0

SMALLEST_SHARE = 0.05
"""Before so much of the first tomogram is done, no time is said."""


class Remaining:
    """Reckons the time that a session still takes.

    Parameters
    ----------
    tomograms
        Names, in the order in which they are processed; without any, nothing is said.
    """

    def __init__(
        self, tomograms: Sequence[str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        from tomoseg.pipeline.stages import STAGES

        self._places = {name: place for place, name in enumerate(tomograms)}
        self._shares = {name: stage.share for name, stage in STAGES.items()}
        self._clock = clock
        self._seconds: list[float] = []
        self._current = ""
        self._began = 0.0

    def __call__(self, tomogram: str, work: str, done: int, total: int) -> str:
        """Return which tomogram of how many it is, and about how long the session still takes."""
        if not self._places:
            return ""
        now = self._clock()
        if tomogram != self._current:
            if self._current:
                self._seconds.append(now - self._began)
            self._current, self._began = tomogram, now
        place, number = self._places[tomogram], len(self._places)
        head = f"{place + 1} of {number}" if number > 1 else ""
        spent = now - self._began
        each = self._each(work, done, total, spent)
        if each is None:
            return head
        left = max(each - spent, 0.0) + each * (number - place - 1)
        return ", ".join(filter(None, (head, f"about {_rounded(left)} left")))

    def _each(self, work: str, done: int, total: int, spent: float) -> float | None:
        """Return the seconds that a tomogram takes; None before that can be said."""
        if self._seconds:
            return sum(self._seconds) / len(self._seconds)
        stage = work.partition(" ")[0]
        before = list(self._shares).index(stage)
        share = sum(list(self._shares.values())[:before])
        if stage == "segment":  # others are several passes, of unknown shares
            share += self._shares[stage] * done / max(1, total)
        return spent / share if share >= SMALLEST_SHARE else None


def _rounded(seconds: float) -> str:
    """Return a time as people say it.

    >>> [_rounded(seconds) for seconds in (3, 40, 100, 4000, 9000)]
    ['10 seconds', '40 seconds', '2 minutes', '1.1 hours', '2.5 hours']
    """
    if seconds < 60:
        return f"{max(10, round(seconds, -1)):.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 3600 else f"{seconds / 3600:.1f} hours"


@contextmanager
def progress(tomograms: Sequence[str] = ()) -> Iterator[Any]:
    """Yield a function that shows the blocks done of one of these tomograms."""
    if is_json():
        yield lambda *done: None
        return
    remaining = Remaining(tomograms)
    if not sys.stderr.isatty():
        yield _PlainProgress(remaining)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        bar = bars.add_task("", total=None, left="")

        def show(tomogram: str, work: str, done: int, total: int) -> None:
            left = remaining(tomogram, work, done, total)
            description = f"{tomogram}: {work}"
            bars.update(bar, description=description, completed=done, total=total, left=left)

        yield show


class _PlainProgress:
    """Says where a run is: each stage of a tomogram once, then at most every ten seconds."""

    def __init__(self, remaining: Remaining) -> None:
        self._remaining = remaining
        self._stage = ""
        self._said = 0.0

    def __call__(self, tomogram: str, work: str, done: int, total: int) -> None:
        left = self._remaining(tomogram, work, done, total)
        if not total:
            return
        stage = f"{tomogram} {work.split(maxsplit=1)[0]}"
        if stage == self._stage and time.monotonic() - self._said < PLAIN_SECONDS:
            return
        self._stage, self._said = stage, time.monotonic()
        end = f"; {left}" if left else ""
        typer.echo(f"{tomogram}: {work}, {done} of {total} blocks{end}", err=True)
