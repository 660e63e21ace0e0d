"""Where sessions are and where their results go."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from tomoseg.errors import RequestError
from tomoseg.stores import Folder, checked_url
from tomoseg.watching.settings import Watch


@dataclass(frozen=True)
class Place:
    """One session: its name, the URL of its folder, and of its results."""

    name: str
    url: str
    output: str

    @property
    def results(self) -> Folder:
        """The folder of its results."""
        return Folder(self.output)


def places_of(watch: Watch) -> list[Place]:
    """Return the sessions that there are now, by name.

    Raises
    ------
    RequestError
        If two would have one output, or one lies outside of the roots.
    """
    found: dict[str, Place] = {}
    for pattern in watch.sessions:
        for url, matched in _matching(checked_url(pattern)):
            name = "/".join(matched) or url.rpartition("/")[2]
            place = Place(name, url, checked_url(watch.output.replace("{session}", name)))
            for where in (place.url, place.output):
                check_root(where, watch.roots)
            other = found.setdefault(place.output, place)
            if other.url != place.url:
                raise RequestError(
                    f"{other.url} and {place.url} would both write to {place.output}",
                    remedy="Change sessions or output in the watch's file.",
                )
    return sorted(found.values(), key=lambda place: place.name)


def place_of(watch: Watch, name: str) -> Place:
    """Return a session by its name or URL.

    Raises
    ------
    RequestError
        If there is none.
    """
    for place in places_of(watch):
        if name in (place.name, place.url):
            return place
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
    protocol, _, path = pattern.partition("://")
    parts = path.split("/")
    first = next((i for i, part in enumerate(parts) if _is_wild(part)), len(parts))
    begun = f"{protocol}://" + "/".join(parts[:first])
    yield from _below(begun, parts[first:])


def _below(url: str, parts: list[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    if not parts:
        yield url, ()
        return
    part, *rest = parts
    if not _is_wild(part):
        yield from _below(f"{url}/{part}", rest)
        return
    literal = part.replace("[", "[[]")
    for entry in Folder(url).entries():
        is_shown = entry.is_folder and not entry.name.startswith(".")
        if is_shown and fnmatchcase(entry.name, literal):
            for inner, matched in _below(f"{url}/{entry.name}", rest):
                yield inner, (entry.name, *matched)


def _is_wild(part: str) -> bool:
    return "*" in part or "?" in part
