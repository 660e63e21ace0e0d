"""Moving arrays and files within an output, and telling whether they are still what was written.

On a file system a move is a rename. In object storage it is a copy within the store, a layer of
shards at a time and some of them at once; metadata comes last, so that what has it is whole.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tomoseg.core.errors import AbsentError, StoreError
from tomoseg.core.overlap import overlapped
from tomoseg.io.stores.folders import Folder
from tomoseg.io.stores.systems import located, part_of, remove_tree, sync
from tomoseg.io.stores.urls import inside

METADATA = ("zarr.json", ".zarray")
"""Of an array in zarr v3 and v2."""
COPIES = 16
"""Copies at once; one within a store takes some hundredths of a second."""


def is_array(folder: Folder, name: str) -> bool:
    """Tell whether a zarr array stands in a folder under a name; one of cut metadata does not."""
    v3, v2 = (f"{name}/{metadata}" for metadata in METADATA)
    try:
        return bool(folder.read_json(v3).get("node_type") == "array")
    except AbsentError:
        return folder.is_file(v2)
    except StoreError:
        return False


def items_below(folder: Folder, below: str = "") -> Iterator[str]:
    """Yield arrays and files in a folder, at any depth; of each folder its own files last."""
    files = []
    for entry in folder.entries(below):
        name = f"{below}/{entry.name}".lstrip("/")
        if not entry.is_folder:
            files.append(name)
        elif is_array(folder, name):
            yield name
        else:
            yield from items_below(folder, name)
    yield from files


def stands(folder: Folder, name: str) -> bool:
    """Tell whether there is a file, or a whole array, of that name."""
    return folder.is_file(name) or is_array(folder, name)


def transfer(source: Folder, name: str, target: Folder) -> None:
    """Put a file or an array into another folder under its name; what stood there goes.

    On a file system it is gone from the source then. What does not stand was transferred before.
    """
    if not stands(source, name):
        return
    if source.is_local:
        _rename(source.path / name, target.path / name)
        return
    target.remove(name)
    copy = partial(_copy, source=source, target=target)
    if source.is_file(name):
        copy(name)
        return
    metadata = []
    for layer in _layers(source, name):
        metadata += [path for path in layer if path.endswith(METADATA)]
        shards = (path for path in layer if not path.endswith(METADATA))
        for _ in overlapped(copy, shards, threads=COPIES):
            pass
    for path in metadata:
        copy(path)


def discard(folder: Folder, name: str) -> None:
    """Remove a file or an array, and the folders between that are empty then.

    An array's metadata goes first: whatever interrupts this, what is left is no array.
    """
    if not folder.is_local and not folder.exists(name):
        return
    for metadata in METADATA if not folder.is_file(name) else ():
        folder.remove(f"{name}/{metadata}")
    folder.remove(name)
    for above in (folder.path / name).parents if folder.is_local else ():
        if above == folder.path or (above.exists() and any(above.iterdir())):
            break
        if above.exists():
            above.rmdir()


def seals(folder: Folder, name: str) -> dict[str, str]:
    """Return what tells an array's files from others: layer → hash of their names and sizes.

    A layer is what stands two folders down, such as ``c/12``; the rest is "".
    """
    found = {}
    for layer in filter(None, _layers(folder, name)):
        rows = sorted(f"{path} {size}" for path, size in layer.items())
        place = _layer_of(rows[0].removeprefix(f"{name}/"))
        found[place] = hashlib.sha256("\n".join(rows).encode()).hexdigest()[:32]
    return found


def _rename(there: Path, here: Path) -> None:
    """Put a file or a folder in another's place, which goes to where the former was.

    Who comes too late, when the folder that it moves from is gone, takes nothing away.
    """
    here.parent.mkdir(parents=True, exist_ok=True)
    old = part_of(there)
    if os.path.lexists(here):
        here.rename(old)
    try:
        there.rename(here)
    except FileNotFoundError:
        if os.path.lexists(old) and not os.path.lexists(here):
            old.rename(here)
        raise
    remove_tree(old)
    # A late writer's part may have come along; a new one cannot, its way leads to the old place.
    Folder(str(here)).remove_parts()
    sync(here.parent)


def _copy(name: str, *, source: Folder, target: Folder) -> None:
    """Copy a file within the store, without its bytes coming here."""
    system, path = located(inside(source.url, name))
    system.cp_file(path, located(inside(target.url, name))[1])


def _layers(folder: Folder, name: str) -> Iterator[dict[str, int]]:
    """Yield the files of an array with their bytes, a layer of shards at a time."""
    direct: dict[str, int] = {}
    for entry in folder.entries(name):
        path = f"{name}/{entry.name}"
        if not entry.is_folder:
            direct[path] = entry.size
            continue
        for inner in folder.entries(path):
            below = f"{path}/{inner.name}"
            yield sizes_below(folder, below) if inner.is_folder else {below: inner.size}
    yield direct


def sizes_below(folder: Folder, below: str = "") -> dict[str, int]:
    """Return the bytes of all files in a folder or one below, at any depth: one listing."""
    system, path = located(inside(folder.url, below))
    start = path.strip("/").removesuffix(below).strip("/")
    return {
        name.strip("/").removeprefix(f"{start}/"): int(item["size"])
        for name, item in system.find(path, detail=True).items()
    }


def _layer_of(path: str) -> str:
    """Return the layer that a file of an array is in.

    >>> _layer_of("c/12/0/3"), _layer_of("zarr.json")
    ('c/12', '')
    """
    return "/".join(path.split("/")[:2]) if "/" in path else ""
