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
from tomoseg.service.watching.places import Place

if TYPE_CHECKING:
    from tomoseg.service.watching.looks import SessionLook

NAMED = 8
NOT_YET = (Standing.RUNNING, Standing.SETTLING)
"""Of what stands so, an attempt is still to come or to end."""
ENDED = (Standing.RESTING, Standing.DONE, Standing.SET_ASIDE)


def asked(looks: Sequence[SessionLook], pattern: str, now: datetime) -> list[str]:
    """Have tomograms tried again, as :func:`.looks.ask_again` says; return their names."""
    if found := [name for one in looks for name in _ask(one, pattern, now)]:
        return found
    standing = [
        f"{one.place.name}/{name} is {stand.standing}"
        for one in looks
        for name, stand in one.stands.items()
        if stand.standing in NOT_YET and _is_meant(one, name, pattern)
    ]
    if standing:
        raise RequestError(
            f"there is nothing to try again yet: {', '.join(standing[:NAMED])}",
            remedy="Wait until it has ended.",
        )
    every = [f"{one.place.name}/{name}" for one in looks for name in one.stands]
    raise _unknown(pattern, [*(one.place.name for one in looks), *every])


def pause(looks: Sequence[SessionLook], pattern: str, now: datetime, why: str = "") -> list[str]:
    """Let sessions wait whose name matches; return their names.

    Raises
    ------
    RequestError
        If there is none.
    """
    places = _meant(looks, pattern)
    for place in places:
        pause_session(place, now, why)
    return [place.name for place in places]


def resume(looks: Sequence[SessionLook], pattern: str) -> list[str]:
    """Let sessions go on; return their names.

    Raises
    ------
    RequestError
        If there is none, or a file beside the tomograms lets one wait.
    """
    places = _meant(looks, pattern)
    for place in places:
        resume_session(place)
        if Folder(place.url).exists(PAUSE):
            raise RequestError(
                f"{place.name} still waits: there is a {PAUSE} beside its tomograms",
                remedy=f"Remove {place.url}/{PAUSE}.",
            )
    return [place.name for place in places]


def _meant(looks: Sequence[SessionLook], pattern: str) -> list[Place]:
    names = [one.place.name for one in looks]
    places = [one.place for one in looks if fnmatchcase(one.place.name, pattern)]
    if not places:
        raise _unknown(pattern, names)
    return places


def _ask(one: SessionLook, pattern: str, now: datetime) -> list[str]:
    session, is_whole = one.place.name, fnmatchcase(one.place.name, pattern)
    meant = [name for name in one.stands if _is_meant(one, name, pattern)]
    names = [name for name in meant if one.standings[name] in ENDED]
    if not names and not (is_whole and one.works.trouble):
        names = [name for name in meant if one.standings[name] not in NOT_YET]
        if not names:
            return []
    with_again(one.place, names, now, is_whole=is_whole)
    return [f"{session}/{name}" for name in names] or [session]


def _is_meant(one: SessionLook, name: str, pattern: str) -> bool:
    session = one.place.name
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
