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
class Scope:
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
class Span:
    """One stage of a tomogram, or one block of a stage, while it is done; ``voxels`` of a block."""

    kind: Literal["stage", "block"]
    scope: Scope
    voxels: int = 0


class Listener:
    """Hears what happens in this process, from any thread; must neither fail nor take long."""

    def began(self, span: Span) -> None:
        """Hear that some work begins."""

    def ended(self, span: Span, seconds: float, *, is_done: bool) -> None:
        """Hear that it ended, done or failed."""


NOWHERE = Scope()
_SCOPE: ContextVar[Scope] = ContextVar("scope", default=NOWHERE)
_listeners: list[Listener] = []


def listen(listener: Listener) -> None:
    """Let a listener hear of everything from now on, once."""
    if listener not in _listeners:
        _listeners.append(listener)


def untold(*told: Any) -> None:
    """Stand in for whoever is told how work goes on."""


def here() -> Scope:
    """Return what this thread is working on."""
    return _SCOPE.get()


@contextmanager
def at(scope: Scope | None = None, /, **names: str) -> Iterator[Scope]:
    """Work in a scope (without one, here), some of its names replaced."""
    scope = replace(scope or here(), **names)
    token = _SCOPE.set(scope)
    try:
        yield scope
    finally:
        _SCOPE.reset(token)


@contextmanager
def working(kind: Literal["stage", "block"], *, voxels: int = 0, **names: str) -> Iterator[None]:
    """Do some work under these names; an exception from within says that it failed."""
    with at(**names) as scope:
        span = Span(kind, scope, voxels)
        for listener in _listeners:
            listener.began(span)
        begun, is_done = time.monotonic(), False
        try:
            yield
            is_done = True
        finally:
            seconds = time.monotonic() - begun
            for listener in _listeners:
                listener.ended(span, seconds, is_done=is_done)
