"""Where sessions are and where their results go; those known before are not forgotten at once."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from tomoseg.core.attempts import explaining
from tomoseg.core.errors import AwayError, RequestError, StoreError, TomosegError
from tomoseg.io.stores import Folder, checked_url, is_folder
from tomoseg.service.arrivals.presence import Known, Presence, home, presence_here, presences
from tomoseg.service.watching.settings import Watch

CRON_SECONDS = 24 * 3600.0
"""Taken as the time between looks that come by a crontab's line."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WatchedSession:
    """One session: its name, the URL of its folder, and of its results."""

    name: str
    url: str
    output: str

    @property
    def results(self) -> Folder:
        """The folder of its results."""
        return Folder(self.output)


@dataclass(frozen=True)
class FoundSessions:
    """What a look finds of the sessions' folders.

    Parameters
    ----------
    sessions
        The sessions, by name.
    missing
        Names of those that were known before, and that no pattern finds any more.
    warnings
        What is wrong with a pattern, and its remedy: such as that it matches nothing.
    """

    sessions: tuple[WatchedSession, ...]
    missing: frozenset[str] = frozenset()
    warnings: tuple[tuple[str, str], ...] = ()


def find_sessions(watch: Watch, known: Mapping[str, Known]) -> FoundSessions:
    """Find the sessions; of those known before, also those whose folder no pattern finds now.

    Raises
    ------
    RequestError
        If two would have one output, or one lies outside of the roots.
    """
    found: dict[str, WatchedSession] = {}
    warnings = []
    for pattern in watch.sessions:
        matches, warning = _found(pattern)
        warnings += [warning] if warning else []
        for name, url in matches:
            session = _placed(watch, name, url)
            other = found.setdefault(session.output, session)
            if other.url != session.url:
                raise RequestError(
                    f"{other.url} and {session.url} would both write to {session.output}",
                    remedy="Change sessions or output in the watch's file.",
                )
    names = {session.name for session in found.values()}
    missing = {
        name: _placed(watch, name, one.url)
        for name, one in known.items()
        if name not in names and any(_fits(name, one.url, each) for each in watch.sessions)
    }
    for session in missing.values():
        found.setdefault(session.output, session)
    sessions = sorted(found.values(), key=lambda session: session.name)
    return FoundSessions(tuple(sessions), frozenset(missing), tuple(warnings))


def sessions_of(watch: Watch) -> list[WatchedSession]:
    """Return the sessions that there are, and those known before, by name; raise alike."""
    return list(find_sessions(watch, remembered(presences_of(watch))).sessions)


def presence_of(watch: Watch) -> Presence:
    """Return the presence of a watch in this process."""
    between = watch.seconds_between_looks if watch.cron is None else CRON_SECONDS
    return presence_here(
        watch.file,
        tuple(checked_url(pattern) for pattern in watch.sessions),
        checked_url(watch.output),
        seconds_between_looks=between,
        session_runs=watch.limits.session_runs,
    )


def presences_of(watch: Watch) -> list[Presence]:
    """Return the watches that serve outputs where this one does; none that may not be read.

    Raises
    ------
    AwayError
        If the outputs' drive or store does not answer.
    """
    try:
        with explaining():
            return presences(home(checked_url(watch.output)))
    except AwayError:
        raise
    except TomosegError as error:
        log.warning("other watches are not known: %s", error)
        return []


def remembered(known: list[Presence]) -> dict[str, Known]:
    """Return the sessions' folders that watches have looked at, by name; the last look counts."""
    found: dict[str, Known] = {}
    for one in sorted(known, key=lambda one: one.looked):
        found |= one.places
    return found


def _found(pattern: str) -> tuple[list[tuple[str, str]], tuple[str, str] | None]:
    """Return names and URLs of the folders that match a pattern, or what is wrong with it."""
    url = checked_url(pattern)
    remedy = "Mount its drive or put it back, or change sessions in the watch's file."
    try:
        with explaining():
            matches = [
                ("/".join(parts) or place.rpartition("/")[2], place)
                for place, parts in _matching(url)
            ]
            begun, wild = _split(url)
            if not (wild and matches) and not is_folder(begun):
                return matches, (f"{pattern} finds nothing: {begun} is not there", remedy)
    except StoreError as error:
        return [], (f"{pattern} cannot be looked at: {error.message}", error.remedy or remedy)
    if wild and not matches:
        return [], (f"{pattern} finds nothing: no folder matches", remedy)
    return matches, None


def _placed(watch: Watch, name: str, url: str) -> WatchedSession:
    session = WatchedSession(name, url, checked_url(watch.output.replace("{session}", name)))
    for where in (session.url, session.output):
        check_root(where, watch.roots)
    return session


def _fits(name: str, url: str, pattern: str) -> bool:
    """Tell whether a pattern would find a folder under a name, if it were there."""
    parts, wanted = url.split("/"), checked_url(pattern).split("/")
    if len(parts) != len(wanted):
        return False
    pairs = list(zip(parts, wanted, strict=True))
    matched = [part for part, want in pairs if _is_wild(want)]
    is_match = all(fnmatchcase(part, _literal(want)) for part, want in pairs)
    return is_match and name == ("/".join(matched) or parts[-1])


def find_session(watch: Watch, name: str) -> WatchedSession:
    """Return a session by its name or URL.

    Raises
    ------
    RequestError
        If there is none.
    """
    for session in sessions_of(watch):
        if name in (session.name, session.url):
            return session
    raise RequestError(
        f"there is no session {name!r}", remedy=f"Look below {', '.join(watch.sessions)}."
    )


def check_root(url: str, roots: tuple[str, ...]) -> None:
    """Refuse what lies below none of the roots, if there are any.

    Raises
    ------
    RequestError
        With the roots.
    """
    place = _plain(url)
    known = [_plain(root) for root in roots]
    if roots and not any(place == root or place.startswith(f"{root}/") for root in known):
        raise RequestError(
            f"{url} lies outside of {', '.join(roots)}",
            remedy="Move it, or add its folder to roots in the watch's file.",
        )


def is_match(url: str, pattern: str) -> bool:
    """Tell whether a URL, or the end of one, matches a pattern.

    >>> is_match("s3://bucket/sessions/krios1/today", "sessions/krios1/*")
    True
    """
    return fnmatchcase(url, pattern) or fnmatchcase(url, f"*/{pattern}")


def _plain(url: str) -> str:
    """Return a URL without ways around a root: links and dots are followed."""
    url = checked_url(url)
    if url.startswith("file://"):
        return f"file://{Path(url.removeprefix('file://')).resolve()}"
    if ".." in url.split("/"):
        raise RequestError(f"{url} holds '..'", remedy="Write the place itself.")
    return url


def _matching(pattern: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield folders that match, and what the parts with wildcards were."""
    yield from _below(*_split(pattern))


def _split(pattern: str) -> tuple[str, list[str]]:
    """Return the folder before the first wildcard, and the parts from there on."""
    protocol, _, path = pattern.partition("://")
    parts = path.split("/")
    first = next((i for i, part in enumerate(parts) if _is_wild(part)), len(parts))
    return f"{protocol}://" + "/".join(parts[:first]), parts[first:]


def _below(url: str, parts: list[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    if not parts:
        yield url, ()
        return
    part, *rest = parts
    if not _is_wild(part):
        yield from _below(f"{url}/{part}", rest)
        return
    literal = _literal(part)
    for entry in Folder(url).entries():
        is_shown = entry.is_folder and not entry.name.startswith(".")
        if is_shown and fnmatchcase(entry.name, literal):
            for inner, matched in _below(f"{url}/{entry.name}", rest):
                yield inner, (entry.name, *matched)


def _literal(part: str) -> str:
    return part.replace("[", "[[]")


def _is_wild(part: str) -> bool:
    return "*" in part or "?" in part
