"""Changes of what is known of a session, one writer at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import datetime

from tomoseg.core.errors import ClaimError
from tomoseg.core.layout import ARRIVALS
from tomoseg.io.stores import claimed
from tomoseg.service.arrivals import Sights, iso
from tomoseg.service.watching.sessions import WatchedSession

PATIENCE_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0, 4.0)
"""A look that writes at the same moment ends soon."""


def keep_sights(session: WatchedSession, old: Sights, new: Sights) -> None:
    """Write what was seen, unless somebody else wrote in the meantime."""
    with claimed(session.results / ARRIVALS):
        if Sights.read(session.results) == old:
            new.write(session.results)


def change_sights(session: WatchedSession, change: Callable[[Sights], Sights]) -> Sights:
    """Change what is known of a session, and return it.

    Raises
    ------
    ClaimError
        If somebody else writes all the time.
    """
    for pause in (*PATIENCE_SECONDS, None):
        try:
            with claimed(session.results / ARRIVALS):
                old = Sights.read(session.results)
                new = change(old)
                if new != old:
                    new.write(session.results)
                return new
        except ClaimError:
            if pause is None:
                raise
            time.sleep(pause)
    raise AssertionError("the last try returns or raises")


def with_again(
    session: WatchedSession, names: Collection[str], now: datetime, *, is_whole: bool = False
) -> Sights:
    """Have tomograms tried again, and with ``is_whole`` what stopped the session as well."""

    def change(sights: Sights) -> Sights:
        rows = {
            name: replace(seen, again=iso(now)) if name in names else seen
            for name, seen in sights.tomograms.items()
        }
        return replace(sights, tomograms=rows, again=iso(now) if is_whole else sights.again)

    return change_sights(session, change)


def pause_session(session: WatchedSession, now: datetime, why: str = "") -> Sights:
    """Let a session wait until it is resumed: nothing is begun, a run at work ends soon.

    Parameters
    ----------
    why
        For people.
    """

    def change(sights: Sights) -> Sights:
        return replace(sights, paused=sights.paused or iso(now), why_paused=why)

    return change_sights(session, change)


def resume_session(session: WatchedSession) -> Sights:
    """Let a session go on that was paused by command."""
    return change_sights(session, lambda sights: replace(sights, paused="", why_paused=""))
