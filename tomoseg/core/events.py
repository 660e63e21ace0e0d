"""What happens where: told once by whoever does it, heard by the logs and the metrics.

Work is wrapped in :func:`working`. It puts the names of what is worked on into :func:`here`, from
where every log line takes them, and tells the listeners of this process that the work began and
how it ended. Where nobody listens that costs microseconds.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, Literal


@dataclass(frozen=True)
class Place:
    """The names of what a thread is working on; empty where there is none.

    Parameters
    ----------
    run
        One run of a session: a number of its own, or that of the flow run.
    session
        Its output; its name where it is watched.
    tomogram, stage, block
        As in receipts.
    """

    run: str = ""
    session: str = ""
    tomogram: str = ""
    stage: str = ""
    block: str = ""


@dataclass(frozen=True, eq=False)
class Work:
    """One stage of a tomogram, or one block of a stage, while it is done; ``voxels`` of a block."""

    kind: Literal["stage", "block"]
    place: Place
    voxels: int = 0


class Listener:
    """Hears what happens in this process, from any thread; must neither fail nor take long."""

    def began(self, work: Work) -> None:
        """Hear that some work begins."""

    def ended(self, work: Work, seconds: float, *, is_done: bool) -> None:
        """Hear that it ended, done or failed."""


NOWHERE = Place()
_PLACE: ContextVar[Place] = ContextVar("place", default=NOWHERE)
_listeners: list[Listener] = []


def listen(listener: Listener) -> None:
    """Let a listener hear of everything from now on, once."""
    if listener not in _listeners:
        _listeners.append(listener)


def stop_listening(listener: Listener) -> None:
    """Let a listener hear no more."""
    if listener in _listeners:
        _listeners.remove(listener)


def untold(*told: Any) -> None:
    """Stand in for whoever is told how work goes on."""


def here() -> Place:
    """Return what this thread is working on."""
    return _PLACE.get()


@contextmanager
def at(place: Place | None = None, /, **names: str) -> Iterator[Place]:
    """Work at a place (without one, here), some of its names replaced."""
    place = replace(place or here(), **names)
    token = _PLACE.set(place)
    try:
        yield place
    finally:
        _PLACE.reset(token)


@contextmanager
def working(kind: Literal["stage", "block"], *, voxels: int = 0, **names: str) -> Iterator[None]:
    """Do some work under these names; an exception from within says that it failed."""
    with at(**names) as place:
        work = Work(kind, place, voxels)
        for listener in _listeners:
            listener.began(work)
        begun, is_done = time.monotonic(), False
        try:
            yield
            is_done = True
        finally:
            seconds = time.monotonic() - begun
            for listener in _listeners:
                listener.ended(work, seconds, is_done=is_done)
