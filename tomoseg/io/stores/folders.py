"""Local folders and object storage by URL: listing, whole-file writes, versions of files."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from numpy.typing import NDArray

from tomoseg.core.errors import AbsentError, MissingError, RequestError, StoreError
from tomoseg.io.stores.arrays import npz_arrays, npz_bytes
from tomoseg.io.stores.systems import (
    file_size,
    has_any,
    has_file,
    linked,
    located,
    part_of,
    remove_objects,
    remove_tree,
    sync,
)
from tomoseg.io.stores.urls import checked_url, inside
from tomoseg.io.stores.written import note_write

LARGEST_TABLE_BYTES = 2**28
"""A table of points has some 100 bytes a row."""

_PART = re.compile(r"\..+\.[0-9a-f]{8}|.+\.[0-9a-f]{32}\.partial")
"""Files that are not whole yet: ours, and those of zarr."""


@dataclass(frozen=True)
class Entry:
    """What stands directly in a folder: a file, or a folder of no size and version.

    Parameters
    ----------
    name
        Its name there.
    size
        Bytes.
    version
        What tells it from another file of that name, as in :func:`fingerprint`.
    """

    name: str
    size: int = 0
    version: str = ""

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return not self.version


@dataclass(frozen=True)
class Folder:
    """A local folder or an object-storage prefix, by URL; pickles as the URL alone.

    Raises
    ------
    RequestError
        As :func:`tomoseg.io.stores.urls.checked_url` does: a recipe must not be able to reach
        anything but files and S3. No name that the methods take leads out of the folder
        (StoreError).
    """

    url: str

    def __post_init__(self) -> None:
        """Check the protocol; make local paths absolute."""
        object.__setattr__(self, "url", checked_url(self.url))

    @property
    def is_local(self) -> bool:
        """Whether this is a folder of the local file system."""
        return self.url.startswith("file://")

    @property
    def path(self) -> Path:
        """The local path; only for local folders."""
        assert self.is_local, self.url
        return Path(self.url.removeprefix("file://"))

    def __truediv__(self, name: str) -> Folder:
        """Return the folder below."""
        return Folder(inside(self.url, name))

    def __str__(self) -> str:
        """Return a path for people: no ``file://``."""
        return self.url.removeprefix("file://")

    def read(self, name: str) -> bytes:
        """Return a file's bytes.

        Raises
        ------
        AbsentError
            If it is not there.
        """
        system, path = located(inside(self.url, name))
        try:
            # Several requests at once would want the size before, by one more.
            return cast(bytes, system.cat_file(path, max_concurrency=1))
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise AbsentError(f"there is no file {self}/{name}") from error

    def write(self, name: str, content: bytes) -> None:
        """Write a whole file; a reader sees all of it or nothing."""
        with self.publishing(name) as file:
            file.write(content)

    def create(self, name: str, content: bytes) -> bool:
        """Write a whole file if there is none of that name, and tell whether it was written.

        Of several processes that try at once one succeeds: by a hard link on file systems, by a
        conditional write in object storage. A store that ignores the condition keeps the last
        content, and all but those who read it back before it came are told False.
        """
        system, path = located(inside(self.url, name))
        if self.is_local:
            return linked(Path(path), content)
        try:
            system.pipe_file(path, content, mode="create")
        except OSError as error:
            if error.errno == errno.ENOSYS:
                system.pipe_file(path, content)
            elif not self.exists(name):
                raise
        # A write that was refused may be our own, tried again after its answer was lost.
        return self.read(name) == content

    @contextlib.contextmanager
    def publishing(self, name: str) -> Iterator[BinaryIO]:
        """Yield a seekable file that appears under ``name`` only when the block ends well.

        What is published before lasts before what is published after, even through a power cut.
        """
        system, path = located(inside(self.url, name))
        if self.is_local:
            target = Path(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            # A block that is repeated after a lost worker may be written twice at once.
            part = part_of(target)
            try:
                with part.open("w+b") as file:
                    yield file
                    size = file.seek(0, os.SEEK_END)
                    file.flush()
                    os.fsync(file.fileno())
                part.replace(target)
                sync(target.parent)
            finally:
                part.unlink(missing_ok=True)
        else:
            with tempfile.TemporaryFile() as file:
                yield file
                size = file.seek(0, os.SEEK_END)
                file.seek(0)
                with system.open(path, "wb") as remote:
                    shutil.copyfileobj(file, remote, 8 << 20)
        note_write(inside(self.url, name), size)

    def remove_parts(self) -> None:
        """Remove what writers that were killed left half-written; none may be at work here."""
        for place, _, names in os.walk(self.path) if self.is_local else ():
            for name in filter(_PART.fullmatch, names):
                Path(place, name).unlink(missing_ok=True)

    def settle(self, names: Iterable[str]) -> None:
        """Have files that others wrote here, such as shards, outlast a power cut.

        Names of files that are not there are passed over. Object storage keeps what it answered.
        """
        if not self.is_local:
            return
        files = [self.path / name for name in names]
        there = [file for file in files if file.exists()]
        folders = {folder for file in there for folder in file.parents}
        outside = set(self.path.parent.parents)
        for place in (*there, *sorted(folders - outside, reverse=True)):
            sync(place)

    def has_empty(self, names: Iterable[str]) -> bool:
        """Tell whether a file of no bytes is among these; object storage never leaves one."""
        if not self.is_local:
            return False
        files = (self.path / name for name in names)
        return any(file.is_file() and file.stat().st_size == 0 for file in files)

    def exists(self, name: str) -> bool:
        """Tell whether there is a file or a folder of that name."""
        system, path = located(inside(self.url, name))
        return has_any(system, path)

    def is_file(self, name: str) -> bool:
        """Tell whether there is a file of that name."""
        system, path = located(inside(self.url, name))
        return has_file(system, path)

    def size(self, name: str) -> int | None:
        """Return the bytes of a file; None if it is not there."""
        system, path = located(inside(self.url, name))
        return file_size(system, path)

    def names(self, below: str = "") -> list[str]:
        """Return the names directly in this folder or one below, sorted; empty if absent."""
        return sorted(self.sizes(below))

    def sizes(self, below: str = "") -> dict[str, int]:
        """Return the bytes of what stands in this folder or one below, by name; of folders 0."""
        return {entry.name: entry.size for entry in self.entries(below)}

    def entries(self, below: str = "") -> list[Entry]:
        """Return what stands in this folder or one below, sorted by name: one listing.

        It is empty if there is no such folder.
        """
        system, path = located(inside(self.url, below))
        try:
            items = system.ls(path, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        # Some programs make a folder in object storage by an object of its name.
        there = [item for item in items if str(item["name"]).strip("/") != path.strip("/")]
        return sorted((_entry(item) for item in there), key=lambda entry: entry.name)

    def files(self, below: str = "") -> Iterator[str]:
        """Yield the names of all files in this folder or one below, at any depth."""
        system, path = located(inside(self.url, below))
        for _, _, names in system.walk(path):
            yield from names

    def remove(self, name: str) -> None:
        """Remove a file or a folder with everything in it, if it is there.

        Late writers may come and go in it meanwhile.
        """
        system, path = located(inside(self.url, name))
        if self.is_local:
            remove_tree(Path(path))
        else:
            remove_objects(system, path)

    def write_json(self, name: str, values: Any) -> None:
        """Write values as readable JSON."""
        self.write(name, _json_bytes(values))

    def create_json(self, name: str, values: Any) -> bool:
        """Write values as :meth:`write_json` if there is none of that name, as :meth:`create`."""
        return self.create(name, _json_bytes(values))

    def read_json(self, name: str) -> Any:
        """Return the values of a JSON file.

        Raises
        ------
        StoreError
            If it is not there (AbsentError), or is cut.
        """
        try:
            return json.loads(self.read(name))
        except (ValueError, RecursionError) as error:
            raise StoreError(
                f"{self}/{name} is cut or damaged: {error}", remedy="Remove it and run again."
            ) from error

    def write_arrays(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write named arrays as one ``.npz`` file."""
        self.write(name, npz_bytes(arrays))

    def read_arrays(self, name: str) -> dict[str, NDArray[Any]]:
        """Return the arrays of an ``.npz`` file.

        Raises
        ------
        StoreError
            If it is not there, is damaged, or holds objects.
        """
        return npz_arrays(self.read(name), f"{self}/{name}")


def open_file(url: str) -> BinaryIO:
    """Open a file for reading; remote files are read by ranges, nothing is cached whole.

    Raises
    ------
    RequestError
        If there is no such file.
    """
    system, path = located(checked_url(url))
    try:
        return cast(BinaryIO, system.open(path, "rb", **_reading(url)))
    except FileNotFoundError as error:
        raise MissingError(f"{url} does not exist") from error
    except IsADirectoryError as error:
        raise RequestError(f"{url} is a folder, not a file") from error


def read_file(url: str, *, largest: int = LARGEST_TABLE_BYTES) -> bytes:
    """Return all bytes of a file that others made, such as a table.

    Raises
    ------
    RequestError
        If there is no such file, or it is larger than that.
    """
    with open_file(url) as file:
        content = file.read(largest + 1)
    if len(content) > largest:
        raise RequestError(
            f"{url} is larger than {largest} bytes, the most that is read of such a file",
            remedy="Split it, a tomogram or a class a file",
        )
    return content


def fingerprint(url: str) -> dict[str, Any]:
    """Return what tells one version of a file from another: size and ETag, or size and mtime.

    A folder (OME-Zarr) is told by its metadata files and the newest object in it.

    Raises
    ------
    RequestError
        If there is nothing at that URL.
    """
    system, path = located(checked_url(url))
    try:
        info = system.info(path)
    except FileNotFoundError as error:
        raise MissingError(f"{url} does not exist") from error
    if info["type"] == "directory":
        found = system.find(path, detail=True)
        rows = sorted(f"{name}:{_version(item)}" for name, item in found.items())
        return {
            "size": sum(int(item["size"] or 0) for item in found.values()),
            "version": hashlib.sha256("\n".join(rows).encode()).hexdigest(),
        }
    return {"size": int(info["size"]), "version": _version(info)}


def listing(url: str) -> dict[str, Entry]:
    """Return what stands directly in a folder, by URL, sorted.

    Raises
    ------
    RequestError
        If the folder does not exist.
    """
    folder = Folder(url)
    system, path = located(folder.url)
    if not system.isdir(path):
        raise RequestError(f"{folder} is not a folder")
    return {f"{folder.url}/{entry.name}": entry for entry in folder.entries()}


def is_folder(url: str) -> bool:
    """Tell whether there is a folder at a URL."""
    system, path = located(checked_url(url))
    return bool(system.isdir(path))


def matching(pattern: str) -> list[str]:
    """Return the URLs that match a pattern of ``*``, ``?``, ``[...]`` and ``**``, sorted.

    Raises
    ------
    RequestError
        As :func:`tomoseg.io.stores.urls.checked_url` does, of every match.
    """
    protocol = pattern.partition("://")[0]
    system, path = located(checked_url(pattern))
    found = sorted(str(name) for name in system.glob(path))
    return [checked_url(name if "://" in name else f"{protocol}://{name}") for name in found]


def free_bytes(folder: Folder) -> int | None:
    """Return the free space where a folder is or will be; None for object storage."""
    if not folder.is_local:
        return None
    place = folder.path
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def spool_bytes(folder: Folder) -> int:
    """Return the free space of the disk that a file written here takes while it is written."""
    free = free_bytes(folder)
    return shutil.disk_usage(tempfile.gettempdir()).free if free is None else free


def _json_bytes(values: Any) -> bytes:
    return (json.dumps(values, indent=1, allow_nan=False) + "\n").encode()


def _entry(item: Mapping[str, Any]) -> Entry:
    name = str(item["name"]).rstrip("/").rsplit("/", 1)[-1]
    if item["type"] == "directory":
        return Entry(name)
    return Entry(name, int(item["size"] or 0), _version(item))


def _version(info: Mapping[str, Any]) -> str:
    for key in ("ETag", "mtime", "created", "LastModified"):
        if info.get(key) is not None:
            return f"{key} {info[key]} size {info.get('size')}"
    return f"size {info.get('size')}"


def _reading(url: str) -> dict[str, Any]:
    return {"cache_type": "none"} if url.startswith("s3://") else {}
