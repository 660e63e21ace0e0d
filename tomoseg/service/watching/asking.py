"""What a person asks of a watch by command: try again, wait, go on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from tomoseg.core.errors import RequestError
from tomoseg.io.stores import Folder
from tomoseg.service.arrivals import Standing
from tomoseg.service.watching.changes import pause_session, resume_session, with_again
from tomoseg.service.watching.hindrances import PAUSE
from tomoseg.service.watching.sessions import WatchedSession

if TYPE_CHECKING:
    from tomoseg.service.watching.looks import SessionLook

NAMED = 8
NOT_YET = (Standing.RUNNING, Standing.SETTLING)
"""Of what stands so, an attempt is still to come or to end."""
ENDED = (Standing.RESTING, Standing.DONE, Standing.SET_ASIDE)


def try_again(looks: Sequence[SessionLook], pattern: str, now: datetime) -> list[str]:
    """Have tomograms tried again, as :func:`.looks.ask_again` says; return their names."""
    if found := [name for one in looks for name in _ask(one, pattern, now)]:
        return found
    standing = [
        f"{one.session.name}/{name} is {stand.standing}"
        for one in looks
        for name, stand in one.stands.items()
        if stand.standing in NOT_YET and _is_meant(one, name, pattern)
    ]
    if standing:
        raise RequestError(
            f"there is nothing to try again yet: {', '.join(standing[:NAMED])}",
            remedy="Wait until it has ended.",
        )
    every = [f"{one.session.name}/{name}" for one in looks for name in one.stands]
    raise _unknown(pattern, [*(one.session.name for one in looks), *every])


def pause(looks: Sequence[SessionLook], pattern: str, now: datetime, why: str = "") -> list[str]:
    """Let sessions wait whose name matches; return their names.

    Raises
    ------
    RequestError
        If there is none.
    """
    sessions = _meant(looks, pattern)
    for session in sessions:
        pause_session(session, now, why)
    return [session.name for session in sessions]


def resume(looks: Sequence[SessionLook], pattern: str) -> list[str]:
    """Let sessions go on; return their names.

    Raises
    ------
    RequestError
        If there is none, or a file beside the tomograms lets one wait.
    """
    sessions = _meant(looks, pattern)
    for session in sessions:
        resume_session(session)
        if Folder(session.url).exists(PAUSE):
            raise RequestError(
                f"{session.name} still waits: there is a {PAUSE} beside its tomograms",
                remedy=f"Remove {session.url}/{PAUSE}.",
            )
    return [session.name for session in sessions]


def _meant(looks: Sequence[SessionLook], pattern: str) -> list[WatchedSession]:
    names = [one.session.name for one in looks]
    sessions = [one.session for one in looks if fnmatchcase(one.session.name, pattern)]
    if not sessions:
        raise _unknown(pattern, names)
    return sessions


def _ask(one: SessionLook, pattern: str, now: datetime) -> list[str]:
    session, is_whole = one.session.name, fnmatchcase(one.session.name, pattern)
    meant = [name for name in one.stands if _is_meant(one, name, pattern)]
    names = [name for name in meant if one.standings[name] in ENDED]
    if not names and not (is_whole and one.work.trouble):
        names = [name for name in meant if one.standings[name] not in NOT_YET]
        if not names:
            return []
    with_again(one.session, names, now, is_whole=is_whole)
    return [f"{session}/{name}" for name in names] or [session]


def _is_meant(one: SessionLook, name: str, pattern: str) -> bool:
    session = one.session.name
    return any(fnmatchcase(text, pattern) for text in (session, name, f"{session}/{name}"))


def _unknown(pattern: str, known: Sequence[str]) -> RequestError:
    """Return the error that names what is known, the likest first."""
    plain = pattern.strip("*?")
    likest = get_close_matches(plain, known, NAMED, 0.5)
    named = list(dict.fromkeys([*likest, *known]))
    more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
    there = ", ".join(named[:NAMED]) + more if named else "nothing"
    return RequestError(
        f"nothing called {pattern} is known", remedy=f"There is: {there}; --look shows all."
    )
