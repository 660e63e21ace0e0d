"""Which places are opened at all: files and S3, under the roots of this deployment, if it has any.

Every place that a person, a recipe or another program's file names goes through
:func:`checked_url`, and every name below a place through :func:`inside`. Endpoints and credentials
come from the environment and from the usual files of the storage's own clients, never from a URL.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tomoseg.core.errors import RequestError, StoreError

PROTOCOLS = ("file", "s3", "memory")
ROOTS_VARIABLE = "TOMOSEG_ROOTS"
"""Folders and URLs, separated by commas: nothing outside of them is opened. Unset, all is."""

# Folders of our own making outside of the roots.
_scratch: set[str] = set()


def checked_url(url: str) -> str:
    """Return an absolute URL of an allowed protocol; a plain path becomes ``file://``.

    Raises
    ------
    RequestError
        For chained URLs, protocols other than file, s3 and memory, credentials in a URL, and
        places outside the roots of :data:`ROOTS_VARIABLE`.
    """
    place = _absolute(url)
    if (roots := _roots()) and not _is_below(_followed(place), {*roots, *_scratch}):
        raise RequestError(
            f"{place.removeprefix('file://')} lies outside the folders that may be opened here",
            remedy=f"Choose a place in {', '.join(sorted(roots))}, or extend {ROOTS_VARIABLE}.",
        )
    return place


def local_path(place: str) -> Path:
    """Return a folder or file of this machine that a recipe names, checked as a URL is.

    Raises
    ------
    RequestError
        As :func:`checked_url` does, and for object storage.
    """
    url = checked_url(place)
    if not url.startswith("file://"):
        raise RequestError(f"{url} is no path of this machine", remedy="Copy it here first.")
    return Path(url.removeprefix("file://"))


def inside(place: str, name: str) -> str:
    """Return the URL of a name below a place.

    Raises
    ------
    StoreError
        If the name would lead out of the place: a file that others made may hold any name.
    """
    if ".." in name.split("/") or name.startswith("/") or "\0" in name:
        raise StoreError(f"{name!r} is no name of a file in {place}")
    return f"{place.rstrip('/')}/{name}".rstrip("/")


@contextlib.contextmanager
def scratch_folder() -> Iterator[str]:
    """Yield the URL of an empty folder of this machine that is removed in the end.

    It may be opened wherever the roots are.
    """
    with tempfile.TemporaryDirectory(prefix="tomoseg-") as folder:
        url = _followed(f"file://{folder}")
        _scratch.add(url)
        try:
            yield url
        finally:
            _scratch.discard(url)


def _absolute(url: str) -> str:
    protocol, separator, place = url.partition("://")
    if "\0" in url:
        raise RequestError(f"{url} is no path")
    if not separator:
        return f"file://{_expanded(url)}"
    # A local name may hold "::", as long as no second protocol follows.
    is_chained = "::" in url and (protocol != "file" or "://" in place)
    if is_chained or protocol not in PROTOCOLS:
        raise RequestError(
            f"{url} is not a place that tomoseg opens",
            remedy=f"Use a path or one of {', '.join(p + '://' for p in PROTOCOLS)}.",
        )
    if protocol == "file":
        if not place.startswith("/"):
            raise RequestError(f"{url} is not absolute", remedy="Write file:///folder, or a path.")
        return f"file:///{os.path.normpath(place).lstrip('/')}"
    if "@" in place.partition("/")[0]:
        raise RequestError(
            f"{url} holds credentials",
            remedy="Keep them in the environment or in ~/.aws/credentials",
        )
    if {".", ".."} & set(place.split("/")):
        raise RequestError(f"{url} holds . or ..", remedy="Write the place as it is.")
    return url.rstrip("/")


def _expanded(path: str) -> Path:
    try:
        return Path(path).expanduser().resolve()
    except (RuntimeError, OSError) as error:  # no such user; a loop of links
        raise RequestError(f"{path} is no path: {error}") from error


def _roots() -> set[str]:
    named = os.environ.get(ROOTS_VARIABLE, "").split(",")
    return {_followed(_absolute(root.strip())) for root in named if root.strip()}


def _followed(url: str) -> str:
    """Return where a URL leads to: a link in a root may point out of it."""
    if not url.startswith("file://"):
        return url
    return f"file://{os.path.realpath(url.removeprefix('file://'))}"


def _is_below(url: str, roots: set[str]) -> bool:
    return any(url == root or url.startswith(f"{root.rstrip('/')}/") for root in roots)
