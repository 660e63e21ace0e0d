"""File systems as fsspec and the operating system have them."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from pathlib import Path
from typing import Any

import fsspec

REMOVALS = 10
"""Of a folder into which somebody writes."""


def located(url: str) -> tuple[Any, str]:
    """Return the file system and the path of a checked URL.

    The protocol is taken literally: fsspec's own parser follows ``::`` wherever it stands, also
    in a folder's name. Other processes write into the same folders, so no listing is remembered.
    """
    protocol, _, path = url.partition("://")
    return fsspec.filesystem(protocol, use_listings_cache=False), path


def remove_tree(place: Path) -> None:
    """Remove a file or a folder, if it is there, also while others write into it and tidy up."""
    for left in reversed(range(REMOVALS)):
        if not os.path.lexists(place):
            return
        try:
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place)
            else:
                place.unlink()
        except OSError as error:
            if not left or error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
                raise


def sync(place: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk.

    Some network file systems know no such thing for folders.
    """
    descriptor = os.open(place, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def part_of(target: Path) -> Path:
    """Return a name of a writer's own beside a file, which ``Folder.remove_parts`` knows."""
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}")


def linked(target: Path, content: bytes) -> bool:
    """Create a local file with its whole content at once; without hard links, by creating it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(target)
    try:
        part.write_bytes(content)
        try:
            sync(part)
            os.link(part, target)
        except FileExistsError:
            return False
        except FileNotFoundError:
            # Who created it first may have removed our part with those of the dead.
            if not target.exists():
                raise
            return False
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
                raise
            with target.open("xb") as file:
                file.write(content)
        sync(target.parent)
    except FileExistsError:
        return False
    finally:
        part.unlink(missing_ok=True)
    return True
